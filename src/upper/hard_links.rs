//! Hard links of a layer stay one file: `work/index/<number>` holds the copied inode, every name of it is a link to
//! that, as overlayfs's `index=on` has it.

use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::error::At as _;
use super::handle::pin;
use super::{Object, Origin, Upper, UpperError};
use crate::model::{Ino, Name};

impl Upper {
    /// The copy of a layer's object with several names; `None` when it was never copied up.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn indexed(&self, ino: Ino) -> Result<Option<Object>, UpperError> {
        let number = number(ino);
        match pin(&self.links, number.as_bytes()) {
            Ok(pinned) => self.object(pinned, number.as_bytes()).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).at("open the link index"),
        }
    }

    /// Copies an object with several names up. Its names go on leading to it through the index.
    ///
    /// # Errors
    /// [`UpperError`]; then nothing has changed.
    pub fn copy_up_indexed(&self, origin: &mut Origin<'_>) -> Result<Object, UpperError> {
        let number = number(origin.ino);
        let pinned = self.copy_into_index(&number, origin)?;
        self.object(pinned, number.as_bytes())
    }

    /// Gives an indexed object a name in the upper, in place of the layers' name. The directory keeps its times.
    ///
    /// # Errors
    /// [`UpperError`]; then nothing has changed.
    pub fn name_indexed(&self, ino: Ino, dir: impl AsFd, name: Name<'_>) -> Result<(), UpperError> {
        let dir = dir.as_fd();
        let times = super::handle::stat(dir)?;
        rustix::fs::linkat(&self.links, number(ino), dir, name.as_bytes(), AtFlags::empty()).at("link")?;
        super::copy_up::set_times(dir, times.atime, times.metadata.mtime)
    }

    /// Takes an object out of the index, when no name leads to it any more.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn forget_indexed(&self, ino: Ino) -> Result<(), UpperError> {
        match rustix::fs::unlinkat(&self.links, number(ino), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => result.at("unlink from the link index"),
        }
    }
}

fn number(ino: Ino) -> String {
    format!("{:x}", ino.0)
}
