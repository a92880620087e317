//! Removing a name, and hiding what the layers have under it at the same moment.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::copy_up::keep_times;
use super::error::At as _;
use super::handle::{self, pin_dir};
use super::look::is_device_whiteout;
use super::scratch::empty_dir;
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
            (true, Whiteouts::Device) => self.replace_by_whiteout(&dir, name, kind),
            (true, Whiteouts::Named) => {
                self.make_named_whiteout(&dir, name)?;
                self.take_away(&dir, name, kind).inspect_err(|_| self.drop_named_whiteout(dir, name))
            }
            (false, _) => self.take_away(&dir, name, kind),
        }
    }

    fn replace_by_whiteout(
        &self,
        dir: &BorrowedFd<'_>,
        name: Name<'_>,
        kind: FileKind,
    ) -> Result<(), UpperError> {
        let scratch = self.scratch_whiteout()?;
        if kind != FileKind::Directory {
            files::renameat(&self.scratch, &scratch.name, dir, name.as_bytes())
                .at("replace by a whiteout")?;
            scratch.published();
            return Ok(());
        }
        let flags = RenameFlags::EXCHANGE;
        // The directory is under the scratch name now and goes, with the whiteouts in it, when that is dropped.
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

    /// Hides everything that the layers have in a directory, so that the whiteouts in it are not needed any more.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn hide_all(&self, pinned: impl AsFd) -> Result<(), UpperError> {
        self.namespace.set_opaque(pinned)
    }

    /// Makes a directory that shows as empty really empty, so that another can be renamed over it. It hides what the
    /// layers have without its whiteouts.
    pub(super) fn clear_whiteouts(&self, dir: &BorrowedFd<'_>, name: Name<'_>) -> Result<(), UpperError> {
        let inner = pin_dir(dir, name.as_bytes()).at("open")?;
        // It may be opaque by a marker among what goes.
        self.namespace.set_opaque(&inner)?;
        empty_dir(&inner)
    }

    /// Takes a whiteout away that hides nothing, or stands beside an object: what a crash left, or an operation could
    /// not tidy up. The directory keeps its times.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn unhide(&self, dir: impl AsFd, name: Name<'_>) -> Result<(), UpperError> {
        let dir = dir.as_fd();
        if self.whiteouts == Whiteouts::Device && !is_device_whiteout(dir, name)? {
            return Ok(());
        }
        let times = handle::stat(dir)?;
        if self.whiteouts == Whiteouts::Named {
            self.drop_named_whiteout(dir, name);
        } else {
            files::unlinkat(dir, name.as_bytes(), AtFlags::empty()).at("unlink a whiteout")?;
        }
        keep_times(dir, &times);
        Ok(())
    }

    /// A `.wh.` marker; it may stand beside the object that it is to outlive, which wins as long as it is there.
    pub(super) fn make_named_whiteout(&self, dir: &BorrowedFd<'_>, name: Name<'_>) -> Result<(), UpperError> {
        let marker = whiteout::hiding(name).map_err(|_| Errno::NAMETOOLONG).at("make a whiteout")?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match files::openat(dir, marker.as_bytes(), flags, Mode::RUSR) {
            // Left by a crash, beside what it was to outlive.
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).at("make a whiteout"),
        }
    }

    /// Flushes a directory: the names in it are durable afterwards.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn sync_dir(&self, pinned: impl AsFd) -> Result<(), UpperError> {
        let path = handle::magic_link(pinned);
        let readable =
            files::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        files::fsync(readable.at("open a directory")?).at("fsync")
    }
}
