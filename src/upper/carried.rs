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
fn join(record: Option<&[u8]>, mark: &[u8]) -> rustix::io::Result<Vec<u8>> {
    let Some(record) = record else { return Ok(mark.to_vec()) };
    let length = u16::try_from(record.len()).map_err(|_| Errno::TOOBIG)?;
    Ok([&[CARRIES], &length.to_le_bytes()[..], record, mark].concat())
}

/// The recorded owner of an object, wherever it is.
pub(super) fn record_of(attributes: &Attributes<'_>) -> Result<Option<Vec<u8>>, UpperError> {
    if let Some(record) = attributes.get(OVERRIDE_STAT)? {
        return Ok(Some(record));
    }
    let Some(value) = attributes.get(CARRIER)? else {
        // The mark may have gone since they were listed, and the record has come from there.
        return if attributes.has(CARRIER)? {
            marks::get(attributes.pinned, OVERRIDE_STAT)
        } else {
            Ok(None)
        };
    };
    match carried(&value) {
        Ok(Some(record)) => Ok(Some(record)),
        Ok(None) => marks::get(attributes.pinned, OVERRIDE_STAT),
        Err(_) => Err(UpperError::damaged(attributes.pinned, b"(object)", CARRIER)),
    }
}

/// The same, of an object that is likely to have one of its own.
pub(super) fn record(pinned: impl AsFd) -> Result<Option<Vec<u8>>, UpperError> {
    let pinned = pinned.as_fd();
    match marks::get(pinned, OVERRIDE_STAT)? {
        Some(record) => Ok(Some(record)),
        None => record_of(&Attributes::of(pinned)),
    }
}

fn carried(value: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    let (record, _) = split(value).ok_or(Errno::IO)?;
    Ok(record.map(<[u8]>::to_vec))
}

fn carried_by(pinned: BorrowedFd<'_>) -> rustix::io::Result<Option<Vec<u8>>> {
    marks::value(pinned, CARRIER)?.as_deref().map_or(Ok(None), carried)
}

/// Records an owner, in the mark if there is one. No mark may be written meanwhile.
pub(super) fn set_record(pinned: impl AsFd, record: &str) -> Result<(), UpperError> {
    let (pinned, record) = (pinned.as_fd(), record.as_bytes());
    let what = "set user.containers.override_stat";
    match files::setxattr(magic_link(pinned), OVERRIDE_STAT, record, XattrFlags::REPLACE) {
        Err(Errno::NODATA) => {}
        result => return result.at(what),
    }
    match marks::get(pinned, CARRIER)? {
        Some(value) => {
            let (_, mark) = split(&value).ok_or(Errno::IO).at(what)?;
            let value = join(Some(record), mark).at(what)?;
            marks::set(pinned, CARRIER, &value).at(what)
        }
        None => marks::set(pinned, OVERRIDE_STAT, record).at(what),
    }
}

/// Writes a mark, which goes on carrying what the one before did. No owner may be recorded meanwhile.
pub(super) fn set_mark(pinned: BorrowedFd<'_>, mark: &[u8]) -> rustix::io::Result<()> {
    let record = carried_by(pinned)?;
    marks::set(pinned, CARRIER, &join(record.as_deref(), mark)?)
}

/// Gives a record that is carried an attribute of its own, which counts from then on.
pub(super) fn give_own(pinned: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let Some(record) = carried_by(pinned)? else { return Ok(()) };
    match files::setxattr(magic_link(pinned), OVERRIDE_STAT, &record, XattrFlags::CREATE) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Removes the mark, after its record has got an attribute of its own.
pub(super) fn remove_mark(pinned: BorrowedFd<'_>) -> rustix::io::Result<()> {
    give_own(pinned)?;
    files::removexattr(magic_link(pinned), CARRIER)
}

/// Takes the record away.
pub(super) fn remove_record(pinned: BorrowedFd<'_>) -> rustix::io::Result<()> {
    if let Some(value) = marks::value(pinned, CARRIER)? {
        let (record, mark) = split(&value).ok_or(Errno::IO)?;
        if record.is_some() {
            marks::set(pinned, CARRIER, mark)?;
        }
    }
    marks::remove(pinned, OVERRIDE_STAT)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use tempfile::TempDir;

    use super::*;
    use crate::model::{DeviceId, EntryId, FileKind, Ino, LayerOrdinal, Metadata, Name, Timestamp};
    use crate::upper::tests::Form;
    use crate::upper::{Change, Later, Object, Origin, Upper};

    /// An upper as for an ordinary user, and where [`copied`] puts its file.
    fn rootless() -> (TempDir, PathBuf, Upper) {
        let dir = tempfile::tempdir().unwrap();
        let (path, work) = (dir.path().join("upper"), dir.path().join("work"));
        let upper = Upper::open(&path, &work).unwrap().in_form(Form::Rootless);
        (dir, path.join("file"), upper)
    }

    fn copied(upper: &Upper) -> Object {
        let mtime = Timestamp { secs: 1_000_000_000, nanos: 5 };
        let (uid, gid) = (70_000, 80_000);
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
        upper.place(copied, &root.pinned, Name::new(b"file").unwrap()).unwrap()
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
        let (_dir, file, upper) = rootless();
        let object = copied(&upper);
        assert_eq!(attributes(&file), [CARRIER]);
        let owner = |attr: &Metadata| (attr.uid, attr.gid, attr.mode);
        assert_eq!(owner(&object.attr.metadata), (70_000, 80_000, 0o4751));
        let change = Change { mode: Some(0o600), uid: Some(5), ..Change::default() };
        let changed = upper.change(&object.pinned, b"file", &change).unwrap();
        assert_eq!(owner(&changed.metadata), (5, 80_000, 0o600));
        assert_eq!(attributes(&file), [CARRIER]);
        // A map that is written anew takes it along.
        let partial = object.marks.partial.unwrap();
        upper.set_partial(&object.pinned, &partial).unwrap();
        assert_eq!(owner(&upper.attr(&object.pinned, b"file").unwrap().metadata), (5, 80_000, 0o600));
        upper.set_whole(&object.pinned, &partial).unwrap();
        assert_eq!(attributes(&file), [OVERRIDE_STAT, "user.overlay.layerfs.ino"]);
        assert_eq!(owner(&upper.attr(&object.pinned, b"file").unwrap().metadata), (5, 80_000, 0o600));
    }

    #[test]
    fn a_record_of_its_own_counts_and_is_the_one_that_is_changed() {
        let (_dir, _, upper) = rootless();
        let object = copied(&upper);
        // As after a crash in between.
        marks::set(&object.pinned, OVERRIDE_STAT, b"9:9:0644:file").unwrap();
        let uid = || upper.attr(&object.pinned, b"file").unwrap().metadata.uid;
        assert_eq!(uid(), 9);
        set_record(&object.pinned, "10:9:0644:file").unwrap();
        assert_eq!(uid(), 10);
        remove_mark(object.pinned.as_fd()).unwrap();
        assert_eq!(uid(), 10);
    }

    /// Readers take no lock: the mark may go between any two of their calls.
    #[test]
    fn a_file_that_becomes_whole_while_it_is_looked_at() {
        let (_dir, _, upper) = rootless();
        let object = copied(&upper);
        let attributes = Attributes::of(object.pinned.as_fd());
        let before = record_of(&attributes).unwrap();
        assert!(before.is_some());
        upper.set_whole(&object.pinned, &object.marks.partial.clone().unwrap()).unwrap();
        assert_eq!(record_of(&attributes).unwrap(), before);
        assert_eq!(upper.namespace.read(&attributes, b"file", 1).unwrap().ino, object.marks.ino);
    }

    #[test]
    fn a_record_that_a_crash_left_in_a_mark_can_be_had_back() {
        let (_dir, file, upper) = rootless();
        let object = copied(&upper);
        upper.namespace.set_ino(&object.pinned, object.marks.ino.unwrap()).unwrap();
        assert!(!attributes(&file).contains(&OVERRIDE_STAT.to_owned()));
        upper.own_record(&object.pinned).unwrap();
        assert!(attributes(&file).contains(&OVERRIDE_STAT.to_owned()));
        assert_eq!(upper.attr(&object.pinned, b"file").unwrap().metadata.uid, 70_000);
    }

    #[test]
    fn a_damaged_mark_is_not_no_owner() {
        let (_dir, _, upper) = rootless();
        let object = copied(&upper);
        marks::set(&object.pinned, CARRIER, &[CARRIES, 200, 0, b'0']).unwrap();
        assert!(record(&object.pinned).is_err());
        assert!(remove_mark(object.pinned.as_fd()).is_err());
    }

    #[test]
    fn what_is_cut_off_is_no_mark() {
        let whole = join(Some(b"0:0:0644:file"), b"mark").unwrap();
        assert_eq!(join(Some(&[0; 1 << 16]), b"mark"), Err(Errno::TOOBIG));
        assert_eq!(split(&whole), Some((Some(&b"0:0:0644:file"[..]), &b"mark"[..])));
        assert_eq!(split(b"\x01mark"), Some((None, &b"\x01mark"[..])));
        for length in 1..whole.len() - b"mark".len() {
            assert_eq!(split(&whole[..length]), None, "{length}");
        }
    }
}
