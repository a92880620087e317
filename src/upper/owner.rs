//! Owners, modes and types: really set where the process may, else recorded in `user.containers.override_stat`.
//!
//! The record is `uid:gid:mode[:type]` as containers/storage writes it: mode in octal; type one of `file`, `dir`,
//! `symlink`, `pipe`, `socket`, `block-MAJOR-MINOR`, `char-MAJOR-MINOR`.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{UpperAttr, magic_link};
use super::marks::OVERRIDE_STAT;
use super::{UpperError, marks};
use crate::model::{DeviceId, FileKind, Metadata};
use crate::sys::files;

/// How owners are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// chown(2), as root of some user namespace.
    Real,
    /// Recorded; the files belong to the caller, who can always read and write them.
    Recorded,
}

impl Owners {
    /// Gives an object, which has the attributes `real`, the owner and mode of `wanted`, and, when it stands in for a
    /// special file, its type. One call does it when only the mode changes, or only the owner by the rules of chown(2).
    pub(super) fn apply(
        self,
        pinned: impl AsFd,
        real: &Metadata,
        wanted: &Metadata,
    ) -> Result<(), UpperError> {
        let pinned = pinned.as_fd();
        if self == Self::Real && real.kind == wanted.kind {
            match chown(pinned, real, wanted) {
                // After chown, which clears setuid and setgid.
                Ok(()) => return chmod(pinned, real.kind, wanted.mode),
                // Ids without a place in this user namespace (user_namespaces(7)).
                Err(Errno::INVAL | Errno::PERM) => {}
                Err(error) => return Err(error).at("chown"),
            }
        }
        if !matches!(real.kind, FileKind::Regular | FileKind::Directory) {
            // Symlinks cannot carry the record; they belong to whoever made them.
            return Ok(());
        }
        let floor = if real.kind == FileKind::Directory { 0o700 } else { 0o600 };
        chmod(pinned, real.kind, (wanted.mode & 0o777) | floor)?;
        marks::set_override_stat(pinned, &record(wanted))
    }
}

fn chown(pinned: impl AsFd, real: &Metadata, wanted: &Metadata) -> rustix::io::Result<()> {
    if (real.uid, real.gid) == (wanted.uid, wanted.gid) {
        return Ok(());
    }
    let owner = (Some(Uid::from_raw(wanted.uid)), Some(Gid::from_raw(wanted.gid)));
    files::chownat(pinned, c"", owner.0, owner.1, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
}

fn chmod(pinned: impl AsFd, kind: FileKind, mode: u16) -> Result<(), UpperError> {
    if kind == FileKind::Symlink {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(u32::from(mode));
    files::chmodat(CWD, magic_link(pinned), mode, AtFlags::empty()).at("chmod")
}

/// What the record, if there is one, makes of a stat.
pub(super) fn recorded(pinned: impl AsFd, mut attr: UpperAttr, name: &[u8]) -> Result<UpperAttr, UpperError> {
    let pinned = pinned.as_fd();
    if !matches!(attr.metadata.kind, FileKind::Regular | FileKind::Directory) {
        return Ok(attr);
    }
    if let Some(text) = marks::override_stat(pinned)? {
        parse(&text, &mut attr.metadata).ok_or_else(|| UpperError::damaged(pinned, name, OVERRIDE_STAT))?;
    }
    Ok(attr)
}

/// Takes a record away, where owner and mode have really been set to `now`.
pub(super) fn forget_record(pinned: impl AsFd, now: &Metadata) -> Result<(), UpperError> {
    let pinned = pinned.as_fd();
    if marks::override_stat(pinned)?.is_none() {
        return Ok(());
    }
    let real = super::handle::stat(pinned)?.metadata;
    // Ids without a place in this user namespace are recorded even so.
    if (real.uid, real.gid, real.mode) != (now.uid, now.gid, now.mode) {
        return Ok(());
    }
    marks::remove(pinned, OVERRIDE_STAT).at("removexattr")
}

fn record(wanted: &Metadata) -> String {
    let DeviceId { major, minor } = wanted.rdev;
    let kind = match wanted.kind {
        FileKind::Regular => "file".to_owned(),
        FileKind::Directory => "dir".to_owned(),
        FileKind::Symlink => "symlink".to_owned(),
        FileKind::Fifo => "pipe".to_owned(),
        FileKind::Socket => "socket".to_owned(),
        FileKind::BlockDevice => format!("block-{major}-{minor}"),
        FileKind::CharDevice => format!("char-{major}-{minor}"),
    };
    format!("{}:{}:{:04o}:{kind}", wanted.uid, wanted.gid, wanted.mode)
}

fn parse(text: &[u8], metadata: &mut Metadata) -> Option<()> {
    let mut fields = std::str::from_utf8(text).ok()?.split(':');
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let mode = u16::from_str_radix(fields.next()?, 8).ok()?;
    let (kind, rdev) = match fields.next() {
        None => (metadata.kind, metadata.rdev),
        Some(kind) => parse_kind(kind)?,
    };
    *metadata = Metadata { uid, gid, mode: mode & 0o7777, kind, rdev, ..*metadata };
    Some(())
}

fn parse_kind(text: &str) -> Option<(FileKind, DeviceId)> {
    let mut parts = text.split('-');
    let kind = match parts.next()? {
        "file" => FileKind::Regular,
        "dir" => FileKind::Directory,
        "symlink" => FileKind::Symlink,
        "pipe" => FileKind::Fifo,
        "socket" => FileKind::Socket,
        "block" => FileKind::BlockDevice,
        "char" => FileKind::CharDevice,
        _ => return None,
    };
    let rdev = match kind {
        FileKind::BlockDevice | FileKind::CharDevice => {
            DeviceId { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? }
        }
        _ => DeviceId::default(),
    };
    Some((kind, rdev))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn metadata(kind: FileKind, mode: u16) -> Metadata {
        Metadata {
            kind,
            mode,
            uid: 0,
            gid: 0,
            rdev: DeviceId::default(),
            size: 7,
            mtime: Timestamp::default(),
        }
    }

    #[test]
    fn records_round_trip() {
        for kind in
            [FileKind::Regular, FileKind::Directory, FileKind::Fifo, FileKind::Socket, FileKind::CharDevice]
        {
            let rdev = match kind {
                FileKind::CharDevice => DeviceId { major: 1, minor: 3 },
                _ => DeviceId::default(),
            };
            let wanted = Metadata { uid: 1 << 31, gid: 42, rdev, ..metadata(kind, 0o4711) };
            let mut read = metadata(FileKind::Regular, 0o600);
            assert_eq!(parse(record(&wanted).as_bytes(), &mut read), Some(()));
            assert_eq!(read, wanted);
        }
    }

    #[test]
    fn damaged_records_are_told() {
        for text in ["", "0:0", "0:0:9", "x:0:0644", "0:0:0644:odd", "0:0:0644:char-1"] {
            assert_eq!(parse(text.as_bytes(), &mut metadata(FileKind::Regular, 0)), None, "{text}");
        }
        assert!(parse(b"0:0:0644", &mut metadata(FileKind::Regular, 0)).is_some());
    }
}
