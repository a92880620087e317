//! What a container sees of the host's files, and what is mounted in it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::bytes;
use super::mount_option::mount_option;
use crate::container::{Source, UsedVolume, Wishes, devices_at};
use crate::launcher::{Device, MountFlags, Tmpfs, Volume};

/// What a container sees of the host's files
#[derive(Clone, Debug, Args)]
pub struct StorageArgs {
    /// Show a file or directory of the host inside, or a volume, which is made when missing; without a source a volume of the
    /// container's own
    #[arg(long, short = 'v', value_name = "[SRC:]DST[:OPTIONS]")]
    pub volume: Vec<String>,
    /// The same in words: type=bind|volume|tmpfs,src=...,dst=...[,ro][,...]
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub mount: Vec<String>,
    /// Mount a fresh tmpfs: size=, mode=, uid=, gid=, nr_inodes=, ro, exec, suid, dev, notmpcopyup
    #[arg(long, value_name = "DST[:OPTIONS]")]
    pub tmpfs: Vec<String>,
    /// Size of /dev/shm (k, m, g)
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Show a device of the host, or a directory of devices. Who may use it, its permissions on the host say
    #[arg(long, value_name = "SRC[:DST][:rwm]")]
    pub device: Vec<String>,
    /// Refuse changes to the root filesystem; /run, /tmp and /var/tmp become tmpfs
    #[arg(long)]
    pub read_only: bool,
    /// Let the kernel keep what is written to files until they are closed or flushed: much faster small writes, but errors
    /// such as a full disk come from close and fsync
    #[arg(long, conflicts_with = "read_only")]
    pub writeback: bool,
}

impl StorageArgs {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, wishes: &mut Wishes) -> anyhow::Result<()> {
        for text in &self.volume {
            wishes.volumes.push(volume(text).with_context(|| format!("-v {text}"))?);
        }
        for text in &self.tmpfs {
            wishes.tmpfs.push(tmpfs(text).with_context(|| format!("--tmpfs {text}"))?);
        }
        for text in &self.mount {
            mount_option(text, wishes).with_context(|| format!("--mount {text}"))?;
        }
        for text in &self.device {
            wishes.devices.extend(device(text).with_context(|| format!("--device {text}"))?);
        }
        wishes.shm_bytes = self.shm_size.as_deref().map(|size| bytes("--shm-size", size)).transpose()?;
        wishes.read_only = self.read_only;
        wishes.writeback = self.writeback;
        Ok(())
    }
}

/// `[SRC:]DST[:OPTIONS]`
fn volume(text: &str) -> anyhow::Result<UsedVolume> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts[..] {
        [destination] => (None, destination, ""),
        [source, destination] => (Some(source), destination, ""),
        [source, destination, options] => (Some(source), destination, options),
        _ => bail!("too many colons; --mount has no such limits"),
    };
    let source = source.map_or(Ok(Source::Anonymous), volume_source)?;
    let mut used = used(source, destination)?;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        volume_flag(option, &mut used)?;
    }
    Ok(used)
}

/// A path of the host, or the name of a volume, as docker tells them apart.
fn volume_source(source: &str) -> anyhow::Result<Source> {
    if source.starts_with(['/', '.']) {
        let path = Path::new(source).canonicalize().with_context(|| source.to_owned())?;
        return Ok(Source::Path(path));
    }
    Source::named(source).with_context(|| {
        format!("{source:?} is neither a path (such as ./{source}) nor a name: letters, digits, _ . -, beginning with one of the first two")
    })
}

/// A volume is filled from the image; a directory of the host is what it is.
pub(super) fn used(source: Source, destination: &str) -> anyhow::Result<UsedVolume> {
    ensure!(destination.starts_with('/'), "the path in the container must be absolute: {destination:?}");
    let path = match &source {
        Source::Path(path) => path.clone(),
        Source::Named(_) | Source::Anonymous => PathBuf::new(),
    };
    let fill = !matches!(source, Source::Path(_));
    let mount = Volume { fill, ..Volume::new(path, PathBuf::from(destination)) };
    Ok(UsedVolume { source, mount })
}

/// A word that `-v` and `--mount` have in common.
pub(super) fn volume_flag(option: &str, used: &mut UsedVolume) -> anyhow::Result<()> {
    match option {
        "nocopy" => used.mount.fill = false,
        "copy" => {}
        "rbind" => used.mount.recursive = true,
        "bind" => used.mount.recursive = false,
        // What is mounted on the host later does not show; there is no other way without the host's root.
        "private" | "rprivate" => {}
        "shared" | "rshared" | "slave" | "rslave" | "unbindable" | "runbindable" => {
            bail!("{option}: mounts do not propagate to or from containers: private is what there is")
        }
        // Labels of SELinux: containers have none.
        "z" | "Z" => {}
        "U" | "O" => bail!("{option} is not supported"),
        _ => ensure!(set_flag(option, &mut used.mount.flags), "unknown option {option:?}"),
    }
    Ok(())
}

/// A word of mount(8). Whether it is known.
pub(super) fn set_flag(option: &str, flags: &mut MountFlags) -> bool {
    match option {
        "ro" | "readonly" => flags.read_only = true,
        "rw" => flags.read_only = false,
        "noexec" => flags.no_exec = true,
        "exec" => flags.no_exec = false,
        "suid" => flags.set_ids = true,
        "nosuid" => flags.set_ids = false,
        "dev" => flags.devices = true,
        "nodev" => flags.devices = false,
        _ => return false,
    }
    true
}

/// `DST[:OPTIONS]`; as podman has it, nothing in it can be executed unless that is asked for.
fn tmpfs(text: &str) -> anyhow::Result<Tmpfs> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    let mut tmpfs = new_tmpfs(destination)?;
    tmpfs.flags.no_exec = true;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        tmpfs_option(key, value, &mut tmpfs)?;
    }
    Ok(tmpfs)
}

/// One for everybody, with what the image has there.
pub(super) fn new_tmpfs(destination: &str) -> anyhow::Result<Tmpfs> {
    ensure!(destination.starts_with('/'), "the path in the container must be absolute: {destination:?}");
    Ok(Tmpfs { fill: true, ..Tmpfs::new(PathBuf::from(destination), 0o1777) })
}

/// An option of tmpfs(5), or of podman's.
pub(super) fn tmpfs_option(key: &str, value: &str, tmpfs: &mut Tmpfs) -> anyhow::Result<()> {
    let number = || value.parse::<u32>().with_context(|| format!("{key}={value}: expected a number"));
    match key {
        "size" => tmpfs.bytes = Some(bytes("size", value)?),
        "nr_inodes" => tmpfs.inodes = Some(bytes("nr_inodes", value)?),
        "mode" => {
            let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
            tmpfs.mode =
                mode.with_context(|| format!("mode={value}: expected an octal number such as 1777"))?;
        }
        "uid" => tmpfs.owner.0 = number()?,
        "gid" => tmpfs.owner.1 = number()?,
        "tmpcopyup" => tmpfs.fill = true,
        "notmpcopyup" => tmpfs.fill = false,
        "private" | "rprivate" => {}
        _ => ensure!(value.is_empty() && set_flag(key, &mut tmpfs.flags), "unknown option {key:?}"),
    }
    Ok(())
}

/// `SRC[:DST][:PERMISSIONS]`
fn device(text: &str) -> anyhow::Result<Vec<Device>> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_path = |part: &str| part.starts_with('/');
    let (source, destination, permissions) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, second] if is_path(second) => (source, second, "rwm"),
        [source, permissions] => (source, source, permissions),
        [source, destination, permissions] => (source, destination, permissions),
        _ => bail!("expected SRC[:DST][:rwm]"),
    };
    ensure!(
        is_path(source) && is_path(destination),
        "expected absolute paths; names of CDI are not supported"
    );
    ensure!(permissions.bytes().all(|letter| b"rwm".contains(&letter)), "permissions are made of r, w and m");
    let both = permissions.contains('r') && permissions.contains('w');
    ensure!(both, "a device can only be had for reading and writing, as its permissions on the host allow");
    devices_at(Path::new(source), Path::new(destination)).with_context(|| source.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let made = volume("/tmp:/data:ro,noexec").unwrap();
        assert_eq!(made.source, Source::Path("/tmp".into()));
        assert_eq!(made.mount.destination, Path::new("/data"));
        assert!(made.mount.flags.read_only && made.mount.flags.no_exec && !made.mount.fill);
        let named = volume("data:/var/lib/data").unwrap();
        assert!(named.source == Source::named("data").unwrap() && named.mount.fill);
        assert!(!volume("data:/x:nocopy").unwrap().mount.fill);
        assert_eq!(volume("/only").unwrap().source, Source::Anonymous);
        for wrong in [
            "tmp",
            ":/x",
            "/tmp:x",
            "/tmp:/x:odd",
            "/tmp:/x:ro:y",
            "-name:/x",
            "/surely/not/there:/x",
            "/tmp:/x:shared",
            "a b:/x",
            "/tmp:/x:U",
        ] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tmpfs_mounts() {
        let plain = tmpfs("/run/x").unwrap();
        assert!((plain.mode, plain.fill, plain.flags.no_exec, plain.bytes) == (0o1777, true, true, None));
        let made = tmpfs("/x:size=64m,mode=755,uid=7,gid=8,exec,ro,notmpcopyup").unwrap();
        assert_eq!((made.bytes, made.mode, made.owner, made.fill), (Some(64 << 20), 0o755, (7, 8), false));
        assert!(made.flags.read_only && !made.flags.no_exec);
        for wrong in ["x", "/x:size=", "/x:mode=9", "/x:mode=17777", "/x:uid=a", "/x:what", "/x:ro=1"] {
            assert!(tmpfs(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn devices() {
        let one = |text: &str| device(text).unwrap().remove(0);
        assert_eq!(one("/dev/null:rw").destination, Path::new("/dev/null"));
        assert_eq!(one("/dev/null:/dev/x").destination, Path::new("/dev/x"));
        assert_eq!(one("/dev/null:/dev/x:rwm").source, Path::new("/dev/null"));
        for wrong in [
            "/dev/null:r",
            "/dev/null:x",
            "null",
            "/dev/surely-not",
            "/etc/passwd",
            "nvidia.com/gpu=all",
            "a:b:c:d",
        ] {
            assert!(device(wrong).is_err(), "{wrong}");
        }
    }
}
