//! `--mount`, docker's form with words.

use anyhow::{Context as _, bail, ensure};

use super::bytes;
use super::storage::{new_tmpfs, tmpfs_option, used, volume_flag};
use crate::container::{Source, Wishes};

/// `KEY=VALUE,...`
pub(super) fn mount_option(text: &str, wishes: &mut Wishes) -> anyhow::Result<()> {
    let words = text.split(',').map(|word| word.split_once('=').unwrap_or((word, "")));
    let (mut kind, mut source, mut destination, mut others) = ("volume", None, None, Vec::new());
    for (key, value) in words {
        match key {
            "type" => kind = value,
            "source" | "src" => source = Some(value),
            "target" | "destination" | "dst" => destination = Some(value),
            _ => others.push((key, value)),
        }
    }
    let destination = destination.context("needs dst=PATH, where it is mounted in the container")?;
    match kind {
        "bind" => bind(source.context("type=bind needs src=PATH")?, destination, &others, wishes),
        "volume" => {
            let source = match source {
                Some(name) => {
                    Source::named(name).with_context(|| format!("{name:?} is no name of a volume"))?
                }
                None => Source::Anonymous,
            };
            volume(source, destination, &others, wishes)
        }
        "tmpfs" => {
            ensure!(source.is_none(), "a tmpfs has no source");
            tmpfs(destination, &others, wishes)
        }
        other => bail!("type={other} is not supported; bind, volume and tmpfs are"),
    }
}

type Words<'a> = [(&'a str, &'a str)];

fn bind(source: &str, destination: &str, words: &Words<'_>, wishes: &mut Wishes) -> anyhow::Result<()> {
    let path = std::path::Path::new(source).canonicalize().with_context(|| source.to_owned())?;
    volume(Source::Path(path), destination, words, wishes)
}

fn volume(source: Source, destination: &str, words: &Words<'_>, wishes: &mut Wishes) -> anyhow::Result<()> {
    let mut used = used(source, destination)?;
    for (key, value) in words {
        match *key {
            "bind-propagation" => volume_flag(value, &mut used)?,
            "bind-nonrecursive" => used.mount.recursive = !is_true(key, value)?,
            "volume-nocopy" => used.mount.fill &= !is_true(key, value)?,
            "volume-driver" => ensure!(*value == "local", "{key}={value}: local is the only driver"),
            // Labels of SELinux, and a hint for other systems.
            "relabel" | "consistency" => {}
            "volume-opt" | "volume-label" | "U" | "chown" | "idmap" => bail!("{key} is not supported"),
            _ if value.is_empty() => volume_flag(key, &mut used)?,
            "ro" | "readonly" => used.mount.flags.read_only = is_true(key, value)?,
            "rw" => used.mount.flags.read_only = !is_true(key, value)?,
            _ => bail!("unknown option {key:?}"),
        }
    }
    wishes.volumes.push(used);
    Ok(())
}

fn tmpfs(destination: &str, words: &Words<'_>, wishes: &mut Wishes) -> anyhow::Result<()> {
    let mut made = new_tmpfs(destination)?;
    for (key, value) in words {
        match *key {
            "tmpfs-size" => made.bytes = Some(bytes(key, value)?),
            "tmpfs-mode" => tmpfs_option("mode", value, &mut made)?,
            "ro" | "readonly" => made.flags.read_only = is_true(key, value)?,
            _ => tmpfs_option(key, value, &mut made)?,
        }
    }
    wishes.tmpfs.push(made);
    Ok(())
}

/// A word alone means yes.
fn is_true(key: &str, value: &str) -> anyhow::Result<bool> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => bail!("{key}={value}: expected true or false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> anyhow::Result<Wishes> {
        let mut wishes = Wishes::default();
        mount_option(text, &mut wishes).map(|()| wishes)
    }

    #[test]
    fn three_types() {
        let bind = parsed("type=bind,src=/tmp,dst=/x,ro,bind-nonrecursive=true").unwrap().volumes.remove(0);
        assert_eq!(bind.source, Source::Path("/tmp".into()));
        assert!(bind.mount.flags.read_only && !bind.mount.recursive && !bind.mount.fill);
        let volume = parsed("source=data,target=/x,readonly=false,volume-nocopy").unwrap().volumes.remove(0);
        assert_eq!(volume.source, Source::named("data").unwrap());
        assert!(!volume.mount.flags.read_only && !volume.mount.fill);
        assert_eq!(parsed("destination=/x").unwrap().volumes[0].source, Source::Anonymous);
        let tmpfs = parsed("type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=700,noexec").unwrap().tmpfs.remove(0);
        assert_eq!((tmpfs.bytes, tmpfs.mode, tmpfs.flags.no_exec), (Some(1 << 20), 0o700, true));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        for wrong in [
            "",
            "type=bind,dst=/x",
            "type=bind,src=/surely/not/there,dst=/x",
            "type=image,src=x,dst=/x",
            "src=a",
            "type=tmpfs,src=x,dst=/x",
            "src=a,dst=x",
            "src=a,dst=/x,ro=maybe",
            "src=a,dst=/x,odd=1",
            "src=a/b,dst=/x",
            "type=bind,src=/tmp,dst=/x,bind-propagation=shared",
            "src=a,dst=/x,volume-driver=nfs",
            "src=a,dst=/x,volume-opt=b",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
