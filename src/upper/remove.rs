//! Removing a name, and hiding what the layers have under it at the same moment.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::error::At as _;
use super::handle::pin_dir;
use super::{Upper, UpperError, Whiteouts};
use crate::model::{FileKind, Name, whiteout};
use crate::sys::files;

impl Upper {
    /// Hides a name that only the layers have.
    ///
    /// # Errors
    /// [`UpperError`]; then nothing has changed.
    pub fn hide(&self, dir: impl AsFd, name: Name<'_>) -> Result<(), UpperError> {
        match self.whiteouts {
            Whiteouts::Device => {
                let scratch = self.scratch_whiteout()?;
                let flags = RenameFlags::NOREPLACE;
                files::renameat_with(&self.scratch, &scratch.name, dir, name.as_bytes(), flags)
                    .at("rename a whiteout into place")?;
                scratch.published();
                Ok(())
            }
            Whiteouts::Named => self.make_named_whiteout(&dir.as_fd(), name),
        }
    }

    /// Removes an object; with `hide`, the layers have something under the name that must not come back.
    /// Of a directory only whiteouts may be left: `fs/` has seen that it is empty.
    ///
    /// # Errors
    /// [`UpperError`]; then nothing has changed.
    pub fn remove(
        &self,
        dir: impl AsFd,
        name: Name<'_>,
        kind: FileKind,
        hide: bool,
    ) -> Result<(), UpperError> {
        let dir = dir.as_fd();
        match (hide, self.whiteouts) {
            (true, Whiteouts::Device) => self.exchange_for_whiteout(&dir, name),
            (true, Whiteouts::Named) => {
                self.make_named_whiteout(&dir, name)?;
                self.take_away(&dir, name, kind)
            }
            (false, _) => self.take_away(&dir, name, kind),
        }
    }

    fn exchange_for_whiteout(&self, dir: &BorrowedFd<'_>, name: Name<'_>) -> Result<(), UpperError> {
        let scratch = self.scratch_whiteout()?;
        let flags = RenameFlags::EXCHANGE;
        // What was removed is under the scratch name now and goes when that is dropped.
        files::renameat_with(&self.scratch, &scratch.name, dir, name.as_bytes(), flags)
            .at("exchange for a whiteout")
    }

    fn take_away(&self, dir: &BorrowedFd<'_>, name: Name<'_>, kind: FileKind) -> Result<(), UpperError> {
        if kind != FileKind::Directory {
            return files::unlinkat(dir, name.as_bytes(), AtFlags::empty()).at("unlink");
        }
        let scratch = self.scratch();
        files::renameat(dir, name.as_bytes(), &self.scratch, &scratch.name).at("rename out")
    }

    /// Makes an empty directory of the upper really empty, so that another can be renamed over it: first opaque, then
    /// without whiteouts, so that nothing of the layers shows in between.
    pub(super) fn clear_whiteouts(&self, dir: &BorrowedFd<'_>, name: Name<'_>) -> Result<(), UpperError> {
        let inner = pin_dir(dir, name.as_bytes()).at("open")?;
        self.namespace.set_opaque(&inner)?;
        super::scratch::empty_dir(&inner)
    }

    /// A `.wh.` marker; it may stand beside the object that it is to outlive, which wins as long as it is there.
    pub(super) fn make_named_whiteout(&self, dir: &BorrowedFd<'_>, name: Name<'_>) -> Result<(), UpperError> {
        let marker = whiteout::hiding(name).map_err(|_| Errno::NAMETOOLONG).at("make a whiteout")?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        files::openat(dir, marker.as_bytes(), flags, Mode::RUSR).map(drop).at("make a whiteout")
    }

    /// Flushes a directory: the names in it are durable afterwards.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn sync_dir(&self, pinned: impl AsFd) -> Result<(), UpperError> {
        let path = super::handle::magic_link(pinned);
        let readable =
            files::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        files::fsync(readable.at("open a directory")?).at("fsync")
    }
}
