//! Devices, helpers, and where things are kept.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, XattrFlags, makedev};

use super::Check;
use super::ids::{has_power, in_path};
use crate::launcher::IdMaps;
use crate::sys::{fuse_mount, mount_table};

/// What the check of the store is called.
pub(super) const STORE: &str = "store";
/// What the check of the room there is called.
pub(super) const SPACE: &str = "space";
const MAKE_ROOM: &str = "layerfs prune --unused 0; layerfs prune --containers";
/// Without this no container can be written down.
const FREE_BYTES_MIN: u64 = 1 << 16;
/// A small image and its index.
const FREE_BYTES_WANTED: u64 = 1 << 30;
/// Major and minor number (Documentation/admin-guide/devices.txt).
const FUSE_DEVICE: (u32, u32) = (10, 229);
/// The first kernel with passthrough (Documentation/filesystems/fuse-passthrough.rst).
const PASSTHROUGH_SINCE: (u32, u32) = (6, 9);

/// Whether `/dev/fuse` is there and open to this user.
pub(super) fn fuse_device() -> Check {
    const NAME: &str = "/dev/fuse";
    let Err(error) = fuse_mount::check_device().and_then(|()| must_be_fuse(Path::new(NAME))) else {
        return Check::ok(NAME, "can be opened");
    };
    let fix = match error.kind() {
        io::ErrorKind::NotFound => "sudo modprobe fuse; start an outer container with --device /dev/fuse",
        io::ErrorKind::PermissionDenied => {
            "sudo chmod 666 /dev/fuse; start an outer container with --device /dev/fuse"
        }
        _ => "sudo modprobe fuse",
    };
    Check::missing(NAME, error.to_string(), fix)
}

/// Something else may have its name.
fn must_be_fuse(path: &Path) -> io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    let is_character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    match is_character && stat.st_rdev == makedev(FUSE_DEVICE.0, FUSE_DEVICE.1) {
        true => Ok(()),
        false => Err(io::Error::other(format!("{}: not the character device 10:229", path.display()))),
    }
}

/// Whether ordinary users can mount, which `run` does not need.
pub(super) fn mount_helper() -> Check {
    const NAME: &str = "fusermount3";
    if IdMaps::for_caller() == IdMaps::Identity {
        return Check::ok(NAME, "not needed: this is root");
    }
    match in_path(NAME) {
        Some((path, metadata)) if has_power(&path, &metadata) => Check::ok(NAME, "is installed, and may"),
        Some((path, _)) => Check::warning(
            NAME,
            format!("{} is not setuid root: layerfs mount does not work", path.display()),
            format!("sudo chmod u+s {}", path.display()),
        ),
        None => Check::warning(
            NAME,
            "is not installed: layerfs mount does not work (run does not need it)",
            "sudo apt-get install fuse3",
        ),
    }
}

/// Whether containers could have a network of their own that reaches others.
pub(super) fn network() -> Check {
    let tun = File::options().read(true).write(true).open("/dev/net/tun").map(drop);
    let program = ["pasta", "slirp4netns"].into_iter().find(|name| in_path(name).is_some());
    reaching(tun, program)
}

fn reaching(tun: io::Result<()>, program: Option<&str>) -> Check {
    const NAME: &str = "network";
    match (tun, program) {
        (Ok(()), Some(program)) => Check::ok(NAME, format!("/dev/net/tun and {program} are there")),
        (Err(error), _) => Check::warning(
            NAME,
            format!(
                "/dev/net/tun: {error}: no network and no ports of a container's own; none and host work"
            ),
            "sudo modprobe tun; sudo chmod 666 /dev/net/tun; start an outer container with --device /dev/net/tun",
        ),
        (Ok(()), None) => Check::warning(
            NAME,
            "neither pasta nor slirp4netns is installed: no network and no ports of a container's own; none and host work",
            "sudo apt-get install passt",
        ),
    }
}

/// Whether the kernel could read and write files of the upper without us.
pub(super) fn passthrough() -> Check {
    let release = super::kernel::release();
    passed(&release, IdMaps::for_caller() == IdMaps::Identity)
}

fn passed(release: &str, is_root: bool) -> Check {
    const NAME: &str = "passthrough";
    let mut numbers =
        release.split(|char: char| !char.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let says = match (version >= PASSTHROUGH_SINCE, is_root) {
        (true, true) => "mount -o passthrough works, if the kernel was built with it",
        (true, false) => "not for ordinary users",
        (false, _) => "not in this kernel: Linux 6.9 was the first",
    };
    // Nobody needs it.
    Check::ok(NAME, says)
}

/// Whether the store, or the directory that it would be made in, can be written to and keeps what is needed.
pub(super) fn store(root: &Path) -> Vec<Check> {
    let Some(dir) = root.ancestors().find(|dir| dir.is_dir()) else {
        let says = format!("{}: no directory above it", root.display());
        return vec![Check::missing(STORE, says, "LAYERFS_ROOT=DIRECTORY layerfs ...")];
    };
    let file = match scratch(dir) {
        Ok(file) => file,
        Err(error) => {
            let says = format!("{}: cannot write: {error}", dir.display());
            return vec![Check::missing(STORE, says, unwritable_fix(&error, dir, dir == root))];
        }
    };
    let kind = mount_table::filesystem_of(dir).ok().flatten();
    let kind = kind.as_deref().unwrap_or("unknown filesystem");
    let has_attributes =
        rustix::fs::fsetxattr(&file, "user.layerfs.doctor", b"1", XattrFlags::empty()).is_ok();
    let free = rustix::fs::statvfs(dir).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    vec![writable(dir, kind), attributes(dir, kind, has_attributes), space(dir, free.unwrap_or(0))]
}

/// A directory above the store is perhaps rightly somebody else's.
fn unwritable_fix(error: &io::Error, dir: &Path, is_store: bool) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied if is_store => format!("sudo chown $(id -u) {}", dir.display()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => MAKE_ROOM.to_owned(),
        _ => "LAYERFS_ROOT=/a/directory/of/your/own layerfs ...".to_owned(),
    }
}

/// A file without a name.
fn scratch(dir: &Path) -> io::Result<std::os::fd::OwnedFd> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags, mode) {
        // NFS and a few others: with a name that is gone at once.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
            let path = dir.join(format!(".layerfs-doctor-{}", std::process::id()));
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
            let file = rustix::fs::open(&path, flags, mode)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        opened => Ok(opened?),
    }
}

fn writable(dir: &Path, kind: &str) -> Check {
    let says = format!("{} ({kind}) can be written to", dir.display());
    if !kind.starts_with("nfs") && !kind.starts_with("cifs") && !kind.starts_with("smb") {
        return Check::ok(STORE, says);
    }
    let says = format!("{says}, but locks and ranges of ids are not sure to work there");
    Check::warning(STORE, says, "LAYERFS_ROOT=/directory/on/a/local/disk layerfs ...")
}

fn attributes(dir: &Path, kind: &str, has_attributes: bool) -> Check {
    const NAME: &str = "attributes";
    if has_attributes {
        return Check::ok(NAME, "user.* can be set in the store");
    }
    Check::missing(
        NAME,
        format!(
            "{} ({kind}) keeps no user.* attributes: what containers change cannot be kept there",
            dir.display()
        ),
        "LAYERFS_ROOT=/directory/on/ext4/xfs/btrfs layerfs ...",
    )
}

fn space(dir: &Path, free: u64) -> Check {
    let free_text = crate::container::size::in_words(free);
    if free >= FREE_BYTES_WANTED {
        return Check::ok(SPACE, format!("{free_text} are free in {}", dir.display()));
    }
    let says = format!("only {free_text} are free in {}", dir.display());
    if free < FREE_BYTES_MIN {
        return Check::missing(SPACE, says, MAKE_ROOM);
    }
    Check::warning(SPACE, says, MAKE_ROOM)
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn another_device() {
        assert!(must_be_fuse(Path::new("/dev/null")).unwrap_err().to_string().contains("10:229"));
        assert!(must_be_fuse(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn networks() {
        assert_eq!(reaching(Ok(()), Some("pasta")).outcome, Outcome::Ok);
        let check = reaching(Ok(()), None);
        assert!(check.outcome == Outcome::Warning && check.fix.unwrap().contains("passt"));
        let check = reaching(Err(io::ErrorKind::NotFound.into()), Some("pasta"));
        assert!(check.outcome == Outcome::Warning && check.fix.unwrap().contains("tun"));
    }

    #[test]
    fn passthrough_by_version() {
        assert!(passed("6.18.5-cloud", true).says.contains("works"));
        assert!(passed("6.18.5", false).says.contains("ordinary"));
        assert!(passed("6.1.0-13-amd64", true).says.contains("not in this kernel"));
        assert!(passed("odd", true).says.contains("not in this kernel"));
    }

    #[test]
    fn stores() {
        let dir = tempfile::tempdir().unwrap();
        let checks = store(&dir.path().join("not/yet"));
        assert_eq!((checks[0].name, checks[0].outcome), (STORE, Outcome::Ok), "{checks:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something was left");
        assert_eq!(store(Path::new("/proc/store"))[0].outcome, Outcome::Missing);
        assert_eq!(writable(dir.path(), "nfs4").outcome, Outcome::Warning);
        assert_eq!(attributes(dir.path(), "vfat", false).outcome, Outcome::Missing);
        assert_eq!(space(dir.path(), 1 << 20).outcome, Outcome::Warning);
        assert_eq!(space(dir.path(), 1000).outcome, Outcome::Missing);
    }
}
