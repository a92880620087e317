//! Objects being built, or on their way out, in `work/tmp`: gone again unless published.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{magic_link, pin, pin_dir, reopen};
use super::{Upper, UpperError};
use crate::sys::files;

/// A name in `work/tmp`. Whatever is under it when this is dropped is removed.
#[derive(Debug)]
pub(super) struct Scratch<'a> {
    dir: &'a OwnedFd,
    pub(super) name: String,
    is_empty: bool,
    numbers: &'a OwnedFd,
    /// The inode number of what is built, when its record in `work/numbers` has to go with it.
    pub(super) numbered: Cell<Option<u64>>,
}

impl Upper {
    /// A new, unused name.
    pub(super) fn scratch(&self) -> Scratch<'_> {
        self.scratch_called(self.serial.fetch_add(1, Ordering::Relaxed))
    }

    fn scratch_called(&self, serial: u64) -> Scratch<'_> {
        Scratch {
            dir: &self.scratch,
            name: format!("{serial:x}"),
            is_empty: false,
            numbers: &self.numbers,
            numbered: Cell::new(None),
        }
    }

    /// A whiteout under a new name. Only where whiteouts are devices.
    pub(super) fn scratch_whiteout(&self) -> Result<Scratch<'_>, UpperError> {
        let scratch = self.scratch();
        let mode = Mode::empty();
        files::mknodat(&self.scratch, &scratch.name, FileType::CharacterDevice, mode, 0)
            .at("make a whiteout")?;
        Ok(scratch)
    }
}

/// A second link of an object in `work/tmp`, to outlive its names. Goes away again unless [`Self::stay`] is called.
#[derive(Debug)]
pub struct Kept<'a> {
    scratch: Scratch<'a>,
    serial: u64,
}

impl Kept<'_> {
    /// Leaves the link there, until [`Upper::drop_kept`] or the next mount. Returns its number.
    #[must_use]
    pub fn stay(self) -> u64 {
        self.scratch.published();
        self.serial
    }
}

/// Objects without a name that programs have open need no descriptor of ours when `work/tmp` has a link to them.
impl Upper {
    /// Gives an object a link in `work/tmp`.
    ///
    /// # Errors
    /// [`UpperError`]: directories have one link, other objects have a limit.
    pub fn keep(&self, pinned: impl AsFd) -> Result<Kept<'_>, UpperError> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let scratch = self.scratch_called(serial);
        let follow = AtFlags::SYMLINK_FOLLOW;
        files::linkat(CWD, magic_link(pinned), &self.scratch, &scratch.name, follow).at("link")?;
        Ok(Kept { scratch, serial })
    }

    /// A descriptor of a kept object.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn kept(&self, serial: u64) -> Result<OwnedFd, UpperError> {
        pin(&self.scratch, format!("{serial:x}").as_bytes()).at("open")
    }

    /// Removes the link of a kept object.
    pub fn drop_kept(&self, serial: u64) {
        drop(self.scratch_called(serial));
    }
}

impl Scratch<'_> {
    /// Removes what is under the name.
    pub(super) fn remove(self) -> Result<(), UpperError> {
        remove_tree(self.dir, self.name.as_bytes())?;
        self.published();
        Ok(())
    }

    /// Says that nothing is left under the name.
    pub(super) fn published(mut self) {
        self.is_empty = true;
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if self.is_empty {
            return;
        }
        if let Some(st_ino) = self.numbered.get()
            && let Err(error) = super::numbers::forget(self.numbers, st_ino)
        {
            tracing::warn!("upper: {error}");
        }
        // The next mount cleans up what could not be removed now.
        if let Err(error) = remove_tree(self.dir, self.name.as_bytes()) {
            tracing::warn!("upper: work/tmp/{}: {error}", self.name);
        }
    }
}

/// Removes an object of any kind with all that is in it; nothing there is fine.
pub(super) fn remove_tree(dir: impl AsFd, name: &[u8]) -> Result<(), UpperError> {
    match files::unlinkat(dir.as_fd(), name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error).at("unlink"),
    }
    let inner = pin_dir(dir.as_fd(), name).at("open")?;
    empty_dir(&inner)?;
    files::unlinkat(dir, name, AtFlags::REMOVEDIR).at("rmdir")
}

/// Removes everything in a directory, be it closed to its owner, as the kernel's work directory is.
pub(super) fn empty_dir(dir: &OwnedFd) -> Result<(), UpperError> {
    let listed = match names(dir) {
        Err(error) if error.errno() == Errno::ACCESS => {
            files::chmodat(CWD, magic_link(dir), Mode::RWXU, AtFlags::empty()).at("chmod")?;
            names(dir)?
        }
        listed => listed?,
    };
    for name in listed {
        remove_tree(dir, &name)?;
    }
    Ok(())
}

/// Empties `work/tmp` of what a crash left there, and `work/numbers` of what belongs to that.
pub(super) fn clean_up(scratch: &OwnedFd, numbers: &OwnedFd) -> Result<(), UpperError> {
    for name in names(scratch)? {
        let left = super::handle::stat(super::handle::pin(scratch, &name).at("open")?)?;
        // What has another name lives on, with its number: a link that was about to get its place.
        if left.nlink == 1 {
            super::numbers::forget(numbers, left.st_ino)?;
        }
        remove_tree(scratch, &name)?;
    }
    Ok(())
}

/// All names of a directory, without `.` and `..`.
pub(super) fn names(dir: impl AsFd) -> Result<Vec<Vec<u8>>, UpperError> {
    names_by(reopen(dir, OFlags::RDONLY | OFlags::DIRECTORY).at("open a directory")?)
}

/// The same, of a directory that is open for reading.
pub(super) fn names_by(readable: File) -> Result<Vec<Vec<u8>>, UpperError> {
    let mut names = Vec::new();
    for entry in Dir::new(readable).at("open a directory")? {
        let entry = entry.at("readdir")?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    /// An ordinary user, who may not read everything.
    const USER: u32 = 4711;

    #[test]
    fn what_its_owner_may_not_read_is_removed_too() {
        let dir = tempfile::tempdir().unwrap();
        let closed = dir.path().join("closed");
        std::fs::create_dir_all(closed.join("inner")).unwrap();
        for (path, mode) in [(closed.join("inner"), 0), (closed, 0o300), (dir.path().to_owned(), 0o700)] {
            if rustix::process::geteuid().is_root() {
                chown(&path, Some(USER), Some(USER)).unwrap();
            }
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let opened = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let emptied = std::thread::spawn(move || {
            if rustix::process::geteuid().is_root() {
                // Of this thread alone.
                let uid = rustix::process::Uid::from_raw(USER);
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            empty_dir(&opened)
        });
        emptied.join().unwrap().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
