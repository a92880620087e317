//! Owner, mode and type of an object that could not really be given them: `uid:gid:mode[:type]`, as containers/storage
//! writes it into `user.containers.override_stat`.
//!
//! A fifth field of our own is told by [`with_acl`]. The mode is octal; the type one of `file`, `dir`, `symlink`, `pipe`, `socket`, `block-MAJOR-MINOR`,
//! `char-MAJOR-MINOR`. Without a type it is the object's own.

use super::{DeviceId, FileKind, Metadata};

/// The record of what an object should be.
#[must_use]
pub fn record(wanted: &Metadata) -> String {
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

/// A record that has the object's new ACL (`system.posix_acl_access`) too, until it is really set: a fifth field,
/// `acl-` and its bytes in hex, which counts more than the ACL that the object has.
#[must_use]
pub fn with_acl(record: &str, acl: &[u8]) -> String {
    let hex: String = acl.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{record}:{ACL_FIELD}{hex}")
}

/// The ACL that a record has.
#[must_use]
pub fn acl(text: &[u8]) -> Option<Vec<u8>> {
    let hex = text.split(|byte| *byte == b':').nth(4)?.strip_prefix(ACL_FIELD.as_bytes())?;
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    hex.chunks(2).map(byte).collect()
}

const ACL_FIELD: &str = "acl-";

/// Puts what a record says into `metadata`; `None` when it is no record, and then nothing has changed.
#[must_use]
pub fn apply(text: &[u8], metadata: &mut Metadata) -> Option<()> {
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
            assert_eq!(apply(record(&wanted).as_bytes(), &mut read), Some(()));
            assert_eq!(read, wanted);
        }
    }

    #[test]
    fn an_acl_hinders_nobody() {
        let wanted = metadata(FileKind::Directory, 0o755);
        let record = record(&wanted);
        assert_eq!(acl(record.as_bytes()), None);
        let with = with_acl(&record, &[2, 0, 255]);
        assert_eq!(with, format!("{record}:acl-0200ff"));
        assert_eq!(acl(with.as_bytes()), Some(vec![2, 0, 255]));
        let mut read = metadata(FileKind::Regular, 0);
        assert_eq!((apply(with.as_bytes(), &mut read), read), (Some(()), wanted));
        assert_eq!(acl(b"0:0:0644:file:acl-0x"), None);
    }

    #[test]
    fn damaged_records_are_told() {
        for text in ["", "0:0", "0:0:9", "x:0:0644", "0:0:0644:odd", "0:0:0644:char-1"] {
            assert_eq!(apply(text.as_bytes(), &mut metadata(FileKind::Regular, 0)), None, "{text}");
        }
        assert!(apply(b"0:0:0644", &mut metadata(FileKind::Regular, 0)).is_some());
    }
}
