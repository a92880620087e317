//! Hard links of a layer stay one file: `work/links/<number>` holds the copied inode, every name of it is a link to
//! that, as overlayfs's `index=on` has it in its `work/index`.
//!
//! A name of a layer can be renamed with its directory, so which of them are left cannot be seen from their paths.
//! `work/links/<number>-gone`, a symlink, says how many have been removed or have become names of the upper.

use std::os::fd::AsFd;
use std::sync::PoisonError;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::error::At as _;
use super::handle::pin;
use super::{Object, Origin, Upper, UpperError};
use crate::model::{Ino, Name};
use crate::sys::files;

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

    /// Whether any object was copied into the index.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn has_indexed(&self) -> Result<bool, UpperError> {
        Ok(!super::scratch::names(&self.links)?.is_empty())
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
        files::linkat(&self.links, number(ino), dir, name.as_bytes(), AtFlags::empty()).at("link")?;
        super::copy_up::set_times(dir, times.atime, times.metadata.mtime)
    }

    /// How many of the layers' names of an object lead nowhere any more, or to the upper.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn names_gone(&self, ino: Ino) -> Result<u32, UpperError> {
        let target = match files::readlinkat(&self.links, gone(ino), Vec::new()) {
            Ok(target) => target,
            Err(Errno::NOENT) => return Ok(0),
            Err(error) => return Err(error).at("readlink in the link index"),
        };
        target
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| UpperError::damaged(&self.links, b"work/links", &gone(ino)))
    }

    /// Counts one more of them. After a crash in between one is missing, and the object shows a link too many.
    ///
    /// # Errors
    /// [`UpperError`]; then nothing has changed.
    pub fn one_name_gone(&self, ino: Ino) -> Result<(), UpperError> {
        let _one_counter = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_names_gone(ino, self.names_gone(ino)?.saturating_add(1))
    }

    /// Sets how many of them there are.
    ///
    /// # Errors
    /// [`UpperError`]; then nothing has changed.
    pub fn set_names_gone(&self, ino: Ino, count: u32) -> Result<(), UpperError> {
        if count == 0 && self.names_gone(ino)? == 0 {
            return Ok(());
        }
        let scratch = self.scratch();
        files::symlinkat(count.to_string(), &self.scratch, &scratch.name).at("symlink")?;
        files::renameat(&self.scratch, &scratch.name, &self.links, gone(ino)).at("rename into place")?;
        scratch.published();
        Ok(())
    }

    /// The numbers of all objects in the index.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn all_indexed(&self) -> Result<Vec<Ino>, UpperError> {
        let numbers = super::scratch::names(&self.links)?.into_iter().filter_map(|name| {
            let digits = std::str::from_utf8(&name).ok()?;
            u64::from_str_radix(digits.strip_suffix(GONE).unwrap_or(digits), 16).ok().map(Ino)
        });
        Ok(numbers.collect())
    }

    /// Takes an object out of the index, when no name leads to it any more.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn forget_indexed(&self, ino: Ino) -> Result<(), UpperError> {
        for name in [number(ino), gone(ino)] {
            match files::unlinkat(&self.links, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error).at("unlink from the link index"),
            }
        }
        Ok(())
    }
}

/// Ends the name of a counter.
const GONE: &str = "-gone";

fn gone(ino: Ino) -> String {
    format!("{:x}{GONE}", ino.0)
}

pub(super) fn number(ino: Ino) -> String {
    format!("{:x}", ino.0)
}
