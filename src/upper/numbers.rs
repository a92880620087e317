//! Inode numbers of copies that cannot carry them: `user.` attributes cannot be set on symlinks, fifos, sockets and
//! devices (xattr(7)).
//!
//! `work/numbers/<inode number of the copy>` is a symlink to `NUMBER BIRTH`. It is there before the copy appears. The
//! time of birth tells the copy from whatever has its inode number after a crash has left a record behind.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

use super::error::At as _;
use super::marks::{Attributes, Namespace, parse_ino};
use super::{Marks, Object, Upper, UpperAttr, UpperError, handle};
use crate::model::{FileKind, Ino};
use crate::sys::files;

impl Upper {
    /// The marks of an object, its number from wherever it is kept. `real` is what stat(2) says, nothing recorded applied.
    pub(super) fn marks(
        &self,
        attributes: &Attributes<'_>,
        real: &UpperAttr,
        name: &[u8],
    ) -> Result<Marks, UpperError> {
        if self.can_carry_marks(real.metadata.kind) {
            return self.namespace.read(attributes, name, self.boot);
        }
        Ok(Marks { ino: self.recorded_number(attributes.pinned, real.st_ino)?, ..Marks::default() })
    }

    /// Remembers the inode number of a copy that nobody sees yet.
    pub(super) fn keep_number(&self, pinned: impl AsFd, ino: Ino) -> Result<(), UpperError> {
        let pinned = pinned.as_fd();
        let real = handle::stat(pinned)?;
        if self.can_carry_marks(real.metadata.kind) {
            return self.namespace.set_ino(pinned, ino);
        }
        let Some(birth) = birth(pinned)? else { return Ok(()) };
        let (place, record) = (place(real.st_ino), format!("{} {birth}", ino.0));
        match files::symlinkat(&record, &self.numbers, &place) {
            Err(Errno::EXIST) => {
                files::unlinkat(&self.numbers, &place, AtFlags::empty()).at("unlink a stale number")?;
                files::symlinkat(&record, &self.numbers, &place).at("record the inode number")
            }
            result => result.at("record the inode number"),
        }
    }

    /// Forgets the number that is kept here for an object, if no name leads to that any more. Its descriptor is open
    /// still, so nothing else can have got its inode number.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn forget_number(&self, object: &Object) -> Result<(), UpperError> {
        let real = handle::stat(&object.pinned)?;
        if self.can_carry_marks(real.metadata.kind) || real.nlink > 0 {
            return Ok(());
        }
        forget(&self.numbers, real.st_ino)
    }

    pub(super) fn can_carry_marks(&self, real: FileKind) -> bool {
        self.namespace == Namespace::Trusted || matches!(real, FileKind::Regular | FileKind::Directory)
    }

    fn recorded_number(&self, pinned: impl AsFd, st_ino: u64) -> Result<Option<Ino>, UpperError> {
        let record = match files::readlinkat(&self.numbers, place(st_ino), Vec::new()) {
            Ok(record) => record,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).at("readlink in work/numbers"),
        };
        let text = record.to_str().ok().and_then(|text| text.split_once(' '));
        let number = text.and_then(|(number, birth)| Some((parse_ino(number.as_bytes())?, birth)));
        let Some((ino, born)) = number else {
            return Err(UpperError::damaged(&self.numbers, b"work/numbers", &place(st_ino)));
        };
        Ok((birth(pinned)?.as_deref() == Some(born)).then_some(ino))
    }
}

/// Forgets the number of the object with this inode number, if one is kept in `work/numbers`.
pub(super) fn forget(numbers: &OwnedFd, st_ino: u64) -> Result<(), UpperError> {
    match files::unlinkat(numbers, place(st_ino), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).at("forget an inode number"),
    }
}

fn place(st_ino: u64) -> String {
    format!("{st_ino:x}")
}

/// When an object was made; `None` where the filesystem does not say.
fn birth(pinned: impl AsFd) -> Result<Option<String>, UpperError> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    let stat = files::statx(pinned, c"", flags, StatxFlags::BTIME).at("statx")?;
    let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(known.then(|| format!("{}.{:09}", stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)))
}
