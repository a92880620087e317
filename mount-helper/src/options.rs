//! The values of `-o`: which belong to whom.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use layerfs::commands::mount_words::{Word, unescaped, words};

use crate::translate::UsageError;

/// What all `-o` together ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `container=`
    pub(crate) container: Option<OsString>,
    /// `upper=`
    pub(crate) upper: Option<OsString>,
    /// `owner=`
    pub(crate) owner: Option<OsString>,
    /// `rm`
    pub(crate) remove: bool,
    /// What `layerfs mount -o` takes, in the order given: the last word counts.
    pub(crate) flags: Vec<&'static str>,
}

/// What `layerfs mount -o` takes.
const FLAGS: [&str; 16] = [
    "ro",
    "rw",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "exec",
    "noexec",
    "atime",
    "noatime",
    "relatime",
    "diratime",
    "nodiratime",
    "writeback",
    "passthrough",
    "allow_other",
];
/// What mount(8), fstab(5) and systemd.mount(5) act on themselves, or what is so anyway. Options that promise something
/// that would not be kept (`sync`, `strictatime`, `nosymfollow`, `remount`) are not among them.
const NOT_OURS: [&str; 23] = [
    "defaults",
    "auto",
    "noauto",
    "fail",
    "nofail",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nouser",
    "nousers",
    "async",
    "norelatime",
    "lazytime",
    "nolazytime",
    "nostrictatime",
    "iversion",
    "noiversion",
    "silent",
    "loud",
    "default_permissions",
    "symfollow",
];
/// The same, with values.
const NOT_OURS_PREFIXES: [&[u8]; 5] = [b"x-", b"X-", b"comment=", b"user=", b"uhelper="];

/// Whether a list is in the grammar of overlay filesystems.
pub(crate) fn names_layers(list: &OsStr) -> bool {
    words(list.as_bytes()).any(|word| word.key == b"lowerdir")
}

impl Options {
    /// Takes the words of one `-o`; with `sloppy`, unknown ones are passed over.
    pub(crate) fn add(&mut self, list: &OsStr, sloppy: bool) -> Result<(), UsageError> {
        words(list.as_bytes()).try_for_each(|word| self.add_one(&word, sloppy))
    }

    fn add_one(&mut self, word: &Word<'_>, sloppy: bool) -> Result<(), UsageError> {
        let (key, text) = (word.key, word.text);
        match (key, word.value) {
            (b"container", Some(value)) => self.container = Some(needed("container", value)?),
            (b"upper", Some(value)) => self.upper = Some(needed("upper", value)?),
            (b"owner", Some(b"caller")) => self.owner = Some("caller".into()),
            (b"owner", Some(b"image")) => self.owner = Some("image".into()),
            (b"owner", Some(value)) => return Err(UsageError::Owner(lossy(value))),
            (b"container" | b"upper", None) => return Err(UsageError::NoValue(lossy(key))),
            (b"rm", None) => self.remove = true,
            // fstab(5): they imply these, and mount(8) has already worked out what else was said.
            (b"user" | b"users", None) => {
                self.flags.splice(0..0, ["nosuid", "nodev", "noexec"]).for_each(drop)
            }
            (_, None) if one_of(&FLAGS, key).is_some() => self.flags.extend(one_of(&FLAGS, key)),
            (_, None) if one_of(&NOT_OURS, key).is_some() => {}
            _ if NOT_OURS_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) => {}
            (b"remount", None) => return Err(UsageError::Remount),
            _ if sloppy => {}
            _ => return Err(UsageError::Unknown(lossy(text))),
        }
        Ok(())
    }
}

fn needed(key: &str, value: &[u8]) -> Result<OsString, UsageError> {
    if value.is_empty() {
        Err(UsageError::NoValue(key.to_owned()))
    } else {
        Ok(OsString::from_vec(unescaped(value)))
    }
}

fn one_of(known: &[&'static str], key: &[u8]) -> Option<&'static str> {
    known.iter().copied().find(|name| name.as_bytes() == key)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Options, UsageError> {
        let mut options = Options::default();
        options.add(OsStr::new(list), false)?;
        Ok(options)
    }

    #[test]
    fn what_belongs_to_others_is_accepted() {
        let fstab = "defaults,noauto,nofail,_netdev,x-systemd.automount,x-systemd.requires=/srv,X-mount.mkdir=0755,\
                     comment=a=b,norelatime,owner,group,,user=somebody";
        assert_eq!(parse(fstab).unwrap(), Options::default());
    }

    #[test]
    fn our_own_are_taken() {
        let options = parse("container=abc,upper=/srv/u,owner=image,rm,ro").unwrap();
        assert_eq!(options.container, Some("abc".into()));
        assert_eq!(options.upper, Some("/srv/u".into()));
        assert_eq!(options.owner, Some("image".into()));
        assert!(options.remove);
        assert_eq!(options.flags, ["ro"]);
    }

    #[test]
    fn quotes_hold_values_with_commas_together() {
        assert_eq!(parse("upper=\"/srv/a,b\",ro").unwrap().upper, Some("/srv/a,b".into()));
        assert_eq!(parse("upper=/srv/a=b").unwrap().upper, Some("/srv/a=b".into()));
    }

    #[test]
    fn the_order_of_flags_is_kept() {
        assert_eq!(parse("ro,suid,rw").unwrap().flags, ["ro", "suid", "rw"]);
        assert_eq!(parse("noatime,relatime").unwrap().flags, ["noatime", "relatime"]);
        assert_eq!(parse("exec,user").unwrap().flags, ["nosuid", "nodev", "noexec", "exec"]);
    }

    #[test]
    fn the_unknown_is_named_unless_sloppy() {
        for (list, named) in
            [("ro,frob", "frob"), ("lowerdir=/a", "lowerdir=/a"), ("sync", "sync"), ("ro=1", "ro=1")]
        {
            assert_eq!(parse(list), Err(UsageError::Unknown(named.to_owned())), "{list}");
            Options::default().add(OsStr::new(list), true).unwrap();
        }
        assert_eq!(parse("owner=me"), Err(UsageError::Owner("me".to_owned())));
        assert_eq!(parse("upper="), Err(UsageError::NoValue("upper".to_owned())));
        assert_eq!(parse("container"), Err(UsageError::NoValue("container".to_owned())));
        assert_eq!(parse("remount,ro"), Err(UsageError::Remount));
    }
}
