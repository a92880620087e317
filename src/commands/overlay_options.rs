//! What the options of overlay filesystems ask for: `lowerdir=`, `upperdir=`, `workdir=` and what fuse-overlayfs adds.
//!
//! Options that mean nothing here are collected, to be warned about: whoever calls a mount program has no other way to
//! find out what it can do.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use super::mount_words::{Word, split_at_colons, unescaped, words};
use crate::fs::IdRange;
use crate::fuse::Flag;

/// All `-o` of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OverlayOptions {
    /// `lowerdir=`, the topmost first.
    pub(super) lowers: Vec<OsString>,
    /// `upperdir=`
    pub(super) upper: Option<PathBuf>,
    /// `workdir=`
    pub(super) work: Option<PathBuf>,
    /// `volatile`, `fsync=0`
    pub(super) volatile: bool,
    /// `uidmapping=`; empty: every id is itself.
    pub(super) uids: Vec<IdRange>,
    /// `gidmapping=`
    pub(super) gids: Vec<IdRange>,
    /// `squash_to_uid=`, `squash_to_root`
    pub(super) squash_uid: Option<u32>,
    /// `squash_to_gid=`, `squash_to_root`
    pub(super) squash_gid: Option<u32>,
    /// `xattr_permissions=2`: owners, modes and types are recorded, never really set.
    pub(super) record_owners: bool,
    /// `allow_other`
    pub(super) allow_other: bool,
    /// `debug`
    pub(super) debug: bool,
    /// Flags of the mount.
    pub(super) flags: Vec<Flag>,
    /// What means nothing here.
    pub(super) unknown: Vec<String>,
}

/// Why options make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OverlayOptionError {
    #[error("-o {0}=: needs a value")]
    NoValue(String),
    #[error("-o lowerdir=: an empty name: `::` for layers of data only is not supported")]
    EmptyLower,
    #[error("-o {key}={value}: must be STORED:SHOWN:COUNT, repeated with colons, without overlap")]
    Mapping { key: String, value: String },
    #[error("-o {key}={value}: must be a number")]
    Number { key: String, value: String },
    #[error("-o xattr_permissions={0}: only 0 and 2 are supported")]
    Recorded(String),
}

/// Words that change nothing here, because it is so anyway, because mount(8) or the kernel acts on them, or because they
/// tune what works otherwise here.
const MEANINGLESS: [&str; 45] = [
    "allow_root",
    "async",
    "auto",
    "auto_cache",
    "auto_unmount",
    "big_writes",
    "bind",
    "clone_fd",
    "comment",
    "default_permissions",
    "defaults",
    "fast_ino",
    "fast_ino_check",
    "fsname",
    "group",
    "ino32_t",
    "intr",
    "kernel_cache",
    "large_read",
    "loud",
    "max_read",
    "max_write",
    "noauto",
    "nofail",
    "nolazytime",
    "norelatime",
    "noxattrs",
    "owner",
    "private",
    "rbind",
    "rprivate",
    "rshared",
    "rslave",
    "shared",
    "silent",
    "slave",
    "splice_move",
    "splice_read",
    "splice_write",
    "static_nlink",
    "subtype",
    "threaded",
    "timeout",
    "user",
    "xino",
];

impl Default for OverlayOptions {
    fn default() -> Self {
        Self {
            lowers: Vec::new(),
            upper: None,
            work: None,
            volatile: false,
            uids: Vec::new(),
            gids: Vec::new(),
            squash_uid: None,
            squash_gid: None,
            record_owners: false,
            allow_other: false,
            debug: false,
            // As fuse-overlayfs does; who mounts without privileges gets neither suid nor dev from the kernel.
            flags: vec![Flag::Suid, Flag::NoAtime],
            unknown: Vec::new(),
        }
    }
}

impl OverlayOptions {
    /// Takes the words of one `-o`; later ones win.
    pub(super) fn add(&mut self, list: &OsStr) -> Result<(), OverlayOptionError> {
        words(list.as_bytes()).try_for_each(|word| self.add_one(&word))
    }

    fn add_one(&mut self, word: &Word<'_>) -> Result<(), OverlayOptionError> {
        match (word.key, word.value) {
            (b"lowerdir", _) => self.lowers = lowers(needed(word)?)?,
            (b"upperdir", _) => self.upper = Some(path(needed(word)?)),
            (b"workdir", _) => self.work = Some(path(needed(word)?)),
            (b"volatile", None) => self.volatile = true,
            (b"fsync" | b"sync", Some(value)) => self.volatile = value == b"0",
            (b"uidmapping", _) => self.uids = mapping(word)?,
            (b"gidmapping", _) => self.gids = mapping(word)?,
            (b"squash_to_root", None) => (self.squash_uid, self.squash_gid) = (Some(0), Some(0)),
            (b"squash_to_uid", _) => self.squash_uid = Some(number(word)?),
            (b"squash_to_gid", _) => self.squash_gid = Some(number(word)?),
            (b"xattr_permissions", Some(b"0")) => self.record_owners = false,
            (b"xattr_permissions", Some(b"2")) => self.record_owners = true,
            (b"xattr_permissions", value) => {
                return Err(OverlayOptionError::Recorded(lossy(value.unwrap_or_default())));
            }
            (b"writeback", Some(value)) => self.set(Flag::Writeback, value != b"0"),
            (b"allow_other", None) => self.allow_other = true,
            (b"debug", None) => self.debug = true,
            (_, None) => self.add_flag(word),
            (_, Some(_)) => self.add_unknown(word),
        }
        Ok(())
    }

    fn add_flag(&mut self, word: &Word<'_>) {
        match word.key {
            b"ro" => self.set(Flag::ReadOnly, true),
            b"rw" => self.set(Flag::ReadOnly, false),
            b"suid" => self.set(Flag::Suid, true),
            b"nosuid" => self.set(Flag::Suid, false),
            b"dev" => self.set(Flag::Dev, true),
            b"nodev" => self.set(Flag::Dev, false),
            b"exec" => self.set(Flag::NoExec, false),
            b"noexec" => self.set(Flag::NoExec, true),
            // Access times are as `relatime` has them, whatever is said but to keep none.
            b"atime" | b"relatime" => self.set(Flag::NoAtime, false),
            b"noatime" => self.set(Flag::NoAtime, true),
            b"diratime" => self.set(Flag::NoDirAtime, false),
            b"nodiratime" => self.set(Flag::NoDirAtime, true),
            b"passthrough" => self.set(Flag::Passthrough, true),
            b"writeback" => self.set(Flag::Writeback, true),
            _ => self.add_unknown(word),
        }
    }

    fn add_unknown(&mut self, word: &Word<'_>) {
        let belongs_to_others = [&b"x-"[..], b"X-", b"_"].iter().any(|prefix| word.key.starts_with(prefix));
        if !belongs_to_others && !MEANINGLESS.iter().any(|known| known.as_bytes() == word.key) {
            self.unknown.push(lossy(word.text));
        }
    }

    fn set(&mut self, flag: Flag, on: bool) {
        self.flags.retain(|set| *set != flag);
        if on {
            self.flags.push(flag);
        }
    }
}

fn needed<'a>(word: &Word<'a>) -> Result<&'a [u8], OverlayOptionError> {
    word.value.filter(|value| !value.is_empty()).ok_or_else(|| OverlayOptionError::NoValue(lossy(word.key)))
}

fn lowers(value: &[u8]) -> Result<Vec<OsString>, OverlayOptionError> {
    let parts = split_at_colons(value);
    if parts.iter().any(|part| part.is_empty()) {
        return Err(OverlayOptionError::EmptyLower);
    }
    Ok(parts.into_iter().map(|part| OsString::from_vec(unescaped(part))).collect())
}

fn path(value: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescaped(value)))
}

fn number(word: &Word<'_>) -> Result<u32, OverlayOptionError> {
    let value = needed(word)?;
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    // The last number means "no change" to chown(2), so it is nobody's.
    number
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| OverlayOptionError::Number { key: lossy(word.key), value: lossy(value) })
}

/// Triples: first id on disk, first id shown, how many.
fn mapping(word: &Word<'_>) -> Result<Vec<IdRange>, OverlayOptionError> {
    let value = needed(word)?;
    let bad = || OverlayOptionError::Mapping { key: lossy(word.key), value: lossy(value) };
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    // Podman begins the list with a colon.
    let numbers: Vec<u32> = text
        .split(':')
        .filter(|number| !number.is_empty())
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| bad())?;
    let triples = numbers.chunks(3).map(|triple| match *triple {
        [stored, shown, count] if count > 0 => Ok(IdRange { stored, shown, count }),
        _ => Err(bad()),
    });
    let ranges: Vec<IdRange> = triples.collect::<Result<_, _>>()?;
    // An id that is shown for two could not be stored again.
    let overlap = |one: &IdRange, other: &IdRange| {
        let meet = |a: u32, b: u32| a.abs_diff(b) < if a < b { one.count } else { other.count };
        meet(one.stored, other.stored) || meet(one.shown, other.shown)
    };
    let clean =
        ranges.iter().enumerate().all(|(at, one)| !ranges[..at].iter().any(|other| overlap(one, other)));
    let fits = |start: u32, count: u32| start.checked_add(count).is_some();
    let fit = !ranges.is_empty()
        && ranges.iter().all(|range| fits(range.stored, range.count) && fits(range.shown, range.count));
    if clean && fit { Ok(ranges) } else { Err(bad()) }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lists: &[&str]) -> Result<OverlayOptions, OverlayOptionError> {
        let mut options = OverlayOptions::default();
        lists.iter().try_for_each(|list| options.add(OsStr::new(list)))?;
        Ok(options)
    }

    fn range(stored: u32, shown: u32, count: u32) -> IdRange {
        IdRange { stored, shown, count }
    }

    #[test]
    fn as_podman_calls_it() {
        let options = parse(&["lowerdir=/s/l/A:/s/l/B,upperdir=/s/diff,workdir=/s/work,,volatile,\
            context=\"system_u:object_r:container_file_t:s0:c1,c2\",\
            uidmapping=:0:1000:1:1:100000:65535,gidmapping=0:1000:1,xattr_permissions=2"])
        .unwrap();
        assert_eq!(options.lowers, ["/s/l/A", "/s/l/B"]);
        assert_eq!(options.upper, Some("/s/diff".into()));
        assert_eq!(options.work, Some("/s/work".into()));
        assert!(options.volatile && options.record_owners);
        assert_eq!(options.uids, [range(0, 1000, 1), range(1, 100_000, 65_535)]);
        assert_eq!(options.gids, [range(0, 1000, 1)]);
        // Without labels files would be another container's too: nobody should think that there are some.
        assert_eq!(options.unknown, ["context=\"system_u:object_r:container_file_t:s0:c1,c2\""]);
    }

    #[test]
    fn as_buildah_calls_it_for_volumes() {
        let options = parse(&[r"lowerdir=/src\:with\,all\\of\:it:/empty,private"]).unwrap();
        assert_eq!(options.lowers, [r"/src:with,all\of:it", "/empty"]);
        assert_eq!((options.upper, options.unknown), (None, Vec::new()));
    }

    #[test]
    fn several_lists_and_flags() {
        let options =
            parse(&["rw,dev,nosuid", "lowerdir=/a", "lowerdir=/b,squash_to_root,noexec,ro"]).unwrap();
        assert_eq!(options.lowers, ["/b"]);
        assert_eq!((options.squash_uid, options.squash_gid), (Some(0), Some(0)));
        assert_eq!(options.flags, [Flag::NoAtime, Flag::Dev, Flag::NoExec, Flag::ReadOnly]);
        let options = parse(&["squash_to_uid=7", "squash_to_gid=8", "fsync=0", "allow_other,debug"]).unwrap();
        assert_eq!((options.squash_uid, options.squash_gid), (Some(7), Some(8)));
        assert!(options.volatile && options.allow_other && options.debug);
    }

    #[test]
    fn the_unknown_is_collected() {
        let list =
            "frob,metacopy=on,redirect_dir=off,timeout=5,x-systemd.automount,_netdev,nosymfollow,writeback=0";
        assert_eq!(
            parse(&[list]).unwrap().unknown,
            ["frob", "metacopy=on", "redirect_dir=off", "nosymfollow"]
        );
        for label in ["context=a", "fscontext=a", "defcontext=a", "rootcontext=a"] {
            assert_eq!(parse(&[label]).unwrap().unknown, [label]);
        }
        assert_eq!(parse(&["strictatime"]).unwrap().unknown, ["strictatime"]);
    }

    #[test]
    fn writeback_is_asked_for() {
        let writeback = |list| parse(&[list]).unwrap().flags.contains(&Flag::Writeback);
        assert_eq!(
            ["", "writeback", "writeback=1", "writeback=1,writeback=0"].map(writeback),
            [false, true, true, false]
        );
    }

    #[test]
    fn access_times() {
        let flags = |list| parse(&[list]).unwrap().flags;
        assert_eq!(flags("noatime"), [Flag::Suid, Flag::NoAtime]);
        assert_eq!(flags("noatime,relatime"), [Flag::Suid]);
        assert_eq!(flags("atime,nodiratime"), [Flag::Suid, Flag::NoDirAtime]);
        assert_eq!(flags("atime,nodiratime,diratime"), [Flag::Suid]);
    }

    #[test]
    fn nonsense_is_refused() {
        for list in ["lowerdir=", "upperdir", "workdir=", "uidmapping=", "squash_to_uid="] {
            assert!(matches!(parse(&[list]), Err(OverlayOptionError::NoValue(_))), "{list}");
        }
        for list in ["lowerdir=/a::/b", "lowerdir=/a:"] {
            assert_eq!(parse(&[list]), Err(OverlayOptionError::EmptyLower), "{list}");
        }
        for value in ["0:0", "0:0:0", "a:0:1", "0:0:5:4:9:1", "0:0:5:9:4:1", "0:5:2:9:4:2", "4294967295:0:2"]
        {
            let list = format!("uidmapping={value}");
            assert!(matches!(parse(&[&list]), Err(OverlayOptionError::Mapping { .. })), "{list}");
        }
        for list in ["squash_to_uid=x", "squash_to_gid=-1", "squash_to_uid=4294967295"] {
            assert!(matches!(parse(&[list]), Err(OverlayOptionError::Number { .. })), "{list}");
        }
        assert_eq!(parse(&["xattr_permissions=1"]), Err(OverlayOptionError::Recorded("1".to_owned())));
    }
}
