//! The recorded owner inside the extents mark: ext4 has room for one such attribute in an inode of 256 bytes, not for two, and
//! a second one takes a block of 4 KiB, which is much for a file of which nothing but the mode has changed.
//!
//! While a file shares content only layerfs can read it, so others miss nothing. When the mark goes, the record gets an
//! attribute of its own. Where both are, that one counts.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::error::At as _;
use super::handle::magic_link;
use super::marks::{self, Attributes, OVERRIDE_STAT};
use super::{UpperError, partial};
use crate::sys::files;

/// Where records are carried: who can write `trusted.` has real owners.
pub(super) const CARRIER: &str = "user.overlay.layerfs.extents";
/// First byte of a mark that carries a record; its length follows (two bytes, little-endian), the record, and the mark.
const CARRIES: u8 = 2;
const _: () = assert!(CARRIES != partial::VERSION);

/// A mark, and the record that it carries.
pub(super) fn split(value: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let Some((&CARRIES, rest)) = value.split_first() else { return Some((None, value)) };
    let (length, rest) = rest.split_first_chunk()?;
    let (record, mark) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    Some((Some(record), mark))
}

/// `mark`, to carry `record` if there is one.
fn join(record: Option<&[u8]>, mark: &[u8]) -> Vec<u8> {
    let Some((record, length)) = record.and_then(|record| Some((record, u16::try_from(record.len()).ok()?)))
    else {
        return mark.to_vec();
    };
    [&[CARRIES], &length.to_le_bytes()[..], record, mark].concat()
}

/// The recorded owner of an object, wherever it is.
pub(super) fn record_of(attributes: &Attributes<'_>) -> Result<Option<Vec<u8>>, UpperError> {
    match attributes.get(OVERRIDE_STAT)? {
        Some(record) => Ok(Some(record)),
        None => Ok(attributes.get(CARRIER)?.as_deref().and_then(carried)),
    }
}

/// The same, of an object that is likely to have one.
pub(super) fn record(pinned: impl AsFd) -> Result<Option<Vec<u8>>, UpperError> {
    let pinned = pinned.as_fd();
    match marks::get(pinned, OVERRIDE_STAT)? {
        Some(record) => Ok(Some(record)),
        None => Ok(marks::get(pinned, CARRIER)?.as_deref().and_then(carried)),
    }
}

fn carried(value: &[u8]) -> Option<Vec<u8>> {
    split(value)?.0.map(<[u8]>::to_vec)
}

/// Records an owner, in the mark if there is one. No mark may be written meanwhile.
pub(super) fn set_record(pinned: impl AsFd, record: &str) -> Result<(), UpperError> {
    let (pinned, record) = (pinned.as_fd(), record.as_bytes());
    let what = "set user.containers.override_stat";
    match files::setxattr(magic_link(pinned), OVERRIDE_STAT, record, XattrFlags::REPLACE) {
        Err(Errno::NODATA) => {}
        result => return result.at(what),
    }
    let value = marks::get(pinned, CARRIER)?;
    match value.as_deref().and_then(split) {
        Some((_, mark)) if !mark.is_empty() => {
            marks::set(pinned, CARRIER, &join(Some(record), mark)).at(what)
        }
        _ => marks::set(pinned, OVERRIDE_STAT, record).at(what),
    }
}

/// Writes a mark, which goes on carrying what the one before did. No owner may be recorded meanwhile.
pub(super) fn set_mark(pinned: BorrowedFd<'_>, mark: &[u8]) -> rustix::io::Result<()> {
    let before = marks::value(pinned, CARRIER)?;
    let record = before.as_deref().and_then(carried);
    marks::set(pinned, CARRIER, &join(record.as_deref(), mark))
}

/// Removes the mark, after its record has got an attribute of its own.
pub(super) fn remove_mark(pinned: BorrowedFd<'_>) -> rustix::io::Result<()> {
    if let Some(record) = marks::value(pinned, CARRIER)?.as_deref().and_then(carried) {
        match files::setxattr(magic_link(pinned), OVERRIDE_STAT, &record, XattrFlags::CREATE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    files::removexattr(magic_link(pinned), CARRIER)
}

/// Takes the record away.
pub(super) fn remove_record(pinned: BorrowedFd<'_>) -> rustix::io::Result<()> {
    if let Some((Some(_), mark)) = marks::value(pinned, CARRIER)?.as_deref().and_then(split) {
        marks::set(pinned, CARRIER, mark)?;
    }
    marks::remove(pinned, OVERRIDE_STAT)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::{DeviceId, EntryId, FileKind, Ino, LayerOrdinal, Metadata, Name, Timestamp};
    use crate::upper::tests::Form;
    use crate::upper::{Change, Later, Object, Origin, Upper};

    fn copied(upper: &Upper, name: &str) -> Object {
        let mtime = Timestamp { secs: 1_000_000_000, nanos: 5 };
        let ids = (70_000, 80_000);
        let (uid, gid) = ids;
        let kind = FileKind::Regular;
        let metadata = Metadata { kind, mode: 0o4751, uid, gid, rdev: DeviceId::default(), size: 100, mtime };
        let mut origin = Origin {
            metadata,
            xattrs: Vec::new(),
            ino: Ino::of_lower(LayerOrdinal(0), EntryId(7)).unwrap(),
            target: &[],
            content: &mut |_, _| Ok(0),
            keep_bytes: u64::MAX,
            later: Some(Later { path: Vec::new(), check: 1 }),
        };
        let copied = upper.copy_up(&mut origin).unwrap();
        let root = upper.root().unwrap();
        upper.place(copied, &root.pinned, Name::new(name.as_bytes()).unwrap()).unwrap()
    }

    fn attributes(path: &Path) -> Vec<String> {
        let mut list = vec![0; 1000];
        let length = rustix::fs::llistxattr(path, list.as_mut_slice()).unwrap();
        let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let mut names: Vec<_> = names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn one_attribute_as_long_as_content_is_shared() {
        let dir = tempfile::tempdir().unwrap();
        let (path, work) = (dir.path().join("upper"), dir.path().join("work"));
        let upper = Upper::open(&path, &work).unwrap().in_form(Form::Rootless);
        let object = copied(&upper, "file");
        assert_eq!(attributes(&path.join("file")), [CARRIER]);
        let owner = |attr: &Metadata| (attr.uid, attr.gid, attr.mode);
        assert_eq!(owner(&object.attr.metadata), (70_000, 80_000, 0o4751));
        let change = Change { mode: Some(0o600), uid: Some(5), ..Change::default() };
        let changed = upper.change(&object.pinned, b"file", &change).unwrap();
        assert_eq!(owner(&changed.metadata), (5, 80_000, 0o600));
        assert_eq!(attributes(&path.join("file")), [CARRIER]);
        // A map that is written anew takes it along.
        let partial = object.marks.partial.unwrap();
        upper.set_partial(&object.pinned, &partial).unwrap();
        assert_eq!(owner(&upper.attr(&object.pinned, b"file").unwrap().metadata), (5, 80_000, 0o600));
        upper.set_whole(&object.pinned, &partial).unwrap();
        assert_eq!(attributes(&path.join("file")), [OVERRIDE_STAT, "user.overlay.layerfs.ino"]);
        assert_eq!(owner(&upper.attr(&object.pinned, b"file").unwrap().metadata), (5, 80_000, 0o600));
    }

    #[test]
    fn a_record_of_its_own_counts_and_is_the_one_that_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, work) = (dir.path().join("upper"), dir.path().join("work"));
        let upper = Upper::open(&path, &work).unwrap().in_form(Form::Rootless);
        let object = copied(&upper, "file");
        // As after a crash in between.
        marks::set(&object.pinned, OVERRIDE_STAT, b"9:9:0644:file").unwrap();
        let uid = || upper.attr(&object.pinned, b"file").unwrap().metadata.uid;
        assert_eq!(uid(), 9);
        set_record(&object.pinned, "10:9:0644:file").unwrap();
        assert_eq!(uid(), 10);
        remove_mark(object.pinned.as_fd()).unwrap();
        assert_eq!(uid(), 10);
    }

    #[test]
    fn what_is_cut_off_is_no_mark() {
        let whole = join(Some(b"0:0:0644:file"), b"mark");
        assert_eq!(split(&whole), Some((Some(&b"0:0:0644:file"[..]), &b"mark"[..])));
        assert_eq!(split(b"\x01mark"), Some((None, &b"\x01mark"[..])));
        for length in 1..whole.len() - b"mark".len() {
            assert_eq!(split(&whole[..length]), None, "{length}");
        }
    }
}
