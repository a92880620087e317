//! Hard links of a layer stay one file: `work/links/<number>` holds the copied inode, every name of it is a link to
//! that, as overlayfs's `index=on` has it in its `work/index`.
//!
//! A name of a layer can be renamed with its directory, so which of them are left cannot be seen from their paths.
//! `work/links/<number>-gone`, a symlink, says how many have been removed or have become names of the upper.
//!
//! A name that goes is counted in the same step, whatever happens: before, `work/links/<number>-going`, a symlink to
//! `COUNT PATH`, says what the count will be when nothing of the layers shows under that path of the upper any more;
//! afterwards it becomes `-gone`. Whoever finds one after a crash looks at the path.

use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{pin, pin_dir};
use super::turns::Turn;
use super::{Looked, Object, Upper, UpperError};
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

    /// Gives an indexed object a name in the upper, in place of the layers' name, which goes. The directory keeps its
    /// times.
    ///
    /// # Errors
    /// [`UpperError`]; then nothing has changed.
    pub fn name_indexed(&self, going: Going<'_>, dir: impl AsFd, name: Name<'_>) -> Result<(), UpperError> {
        let dir = dir.as_fd();
        let times = super::handle::stat(dir)?;
        files::linkat(&self.links, number(going.ino), dir, name.as_bytes(), AtFlags::empty()).at("link")?;
        going.gone();
        super::copy_up::keep_times(dir, &times);
        Ok(())
    }

    /// How many of the layers' names of an object lead nowhere any more, or to the upper.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn names_gone(&self, ino: Ino) -> Result<u32, UpperError> {
        if self.read_count(&going(ino))?.is_some() {
            let _turn = self.counting.take(ino);
            self.settle_one(ino)?;
        }
        Ok(self.read_count(&gone(ino))?.map_or(0, |(count, _)| count))
    }

    /// Announces that one more of them is about to go, the one at this path of the upper. Call nothing that counts
    /// names before the result is dropped.
    ///
    /// # Errors
    /// [`UpperError`]; then nothing has changed.
    pub fn name_going(&self, ino: Ino, path: &[u8]) -> Result<Going<'_>, UpperError> {
        let turn = self.counting.take(ino);
        self.settle_one(ino)?;
        let count = self.read_count(&gone(ino))?.map_or(0, |(count, _)| count).saturating_add(1);
        let note = |path: &[u8]| [count.to_string().as_bytes(), b" ", path].concat();
        match files::symlinkat(&note(path)[..], &self.links, going(ino)) {
            // Without it a crash in between leaves a link too many to be shown.
            Err(Errno::NAMETOOLONG) => files::symlinkat(&note(b"")[..], &self.links, going(ino)),
            result => result,
        }
        .at("symlink in the link index")?;
        Ok(Going { upper: self, ino, is_gone: false, _turn: turn })
    }

    /// Finds out about all names that were about to go when the process died.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn recover(&self) -> Result<(), UpperError> {
        self.numbers_of(GOING)?.into_iter().try_for_each(|ino| {
            let _turn = self.counting.take(ino);
            self.settle_one(ino)
        })
    }

    /// The objects some of whose names in the layers lead to them no more: the others are in use for certain.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn with_names_gone(&self) -> Result<Vec<Ino>, UpperError> {
        self.numbers_of(GONE)
    }

    fn numbers_of(&self, ending: &str) -> Result<Vec<Ino>, UpperError> {
        let number = |name: &[u8]| {
            let digits = std::str::from_utf8(name).ok()?.strip_suffix(ending)?;
            u64::from_str_radix(digits, 16).ok().map(Ino)
        };
        Ok(super::scratch::names(&self.links)?.iter().filter_map(|name| number(name)).collect())
    }

    fn settle_one(&self, ino: Ino) -> Result<(), UpperError> {
        let Some((_, path)) = self.read_count(&going(ino))? else { return Ok(()) };
        if self.is_covered(&path)? {
            files::renameat(&self.links, going(ino), &self.links, gone(ino)).at("rename in the link index")
        } else {
            files::unlinkat(&self.links, going(ino), AtFlags::empty()).at("unlink from the link index")
        }
    }

    /// Whether the upper has something at a path, so that nothing of the layers shows there.
    fn is_covered(&self, path: &[u8]) -> Result<bool, UpperError> {
        let mut names = path.split(|byte| *byte == b'/');
        let Some(Ok(last)) = names.next_back().map(Name::new) else { return Ok(false) };
        let mut dir = pin_dir(&self.root, b".").at("open the upper")?;
        for name in names {
            dir = match pin_dir(&dir, name) {
                Ok(inner) => inner,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
                Err(error) => return Err(error).at("open"),
            };
        }
        Ok(!matches!(self.look(&dir, last)?, Looked::Absent))
    }

    /// The count, and the path if there is one, in a symlink of the index.
    fn read_count(&self, name: &str) -> Result<Option<(u32, Vec<u8>)>, UpperError> {
        let target = match files::readlinkat(&self.links, name, Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).at("readlink in the link index"),
        };
        let mut parts = target.splitn(2, |byte| *byte == b' ');
        let count = parts.next().and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
        let count = count.ok_or_else(|| UpperError::damaged(&self.links, b"work/links", name))?;
        Ok(Some((count, parts.next().unwrap_or_default().to_vec())))
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

    /// The numbers of all objects that were copied into the index; counters alone are none.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn all_indexed(&self) -> Result<Vec<Ino>, UpperError> {
        self.numbers_of("")
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

const GONE: &str = "-gone";
const GOING: &str = "-going";

/// One of several names that the layers have of an object, about to go. Dropped, it stays. Such names of one
/// object go one after the other.
#[derive(Debug)]
pub struct Going<'a> {
    upper: &'a Upper,
    ino: Ino,
    is_gone: bool,
    _turn: Turn<'a>,
}

impl Going<'_> {
    /// Says that the name has gone. It is too late for an error: if it cannot be counted now, it will be when somebody
    /// asks how many there are.
    pub fn gone(mut self) {
        self.is_gone = true;
        let links = &self.upper.links;
        if let Err(error) = files::renameat(links, going(self.ino), links, gone(self.ino)) {
            tracing::warn!("inode {}: a name that went will be counted later: {error}", self.ino.0);
        }
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        if self.is_gone {
            return;
        }
        if let Err(error) = files::unlinkat(&self.upper.links, going(self.ino), AtFlags::empty()) {
            tracing::warn!("upper: work/links/{}: {error}", going(self.ino));
        }
    }
}

fn gone(ino: Ino) -> String {
    format!("{:x}{GONE}", ino.0)
}

fn going(ino: Ino) -> String {
    format!("{:x}{GOING}", ino.0)
}

pub(super) fn number(ino: Ino) -> String {
    format!("{:x}", ino.0)
}
