//! Where the container's root filesystem comes from.

use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use rustix::fs::{Mode, OFlags};

use crate::sys::mount_attributes::{Reach, attach, clone_path};

/// Puts a root filesystem in place, serves it while the container runs, and finishes it afterwards.
///
/// All of it happens in the supervisor, which is root of the container's user namespace and has a mount namespace of its own.
pub trait Rootfs: fmt::Debug + Send {
    /// Mounts it on `target`. The process has one thread here, and must still have one afterwards.
    ///
    /// Gives the descriptors that the container's first process must close before anything else, because a FUSE
    /// connection ends only when its last descriptor is closed.
    ///
    /// # Errors
    /// What the system said; the message goes to the user.
    fn mount(&mut self, target: &Path) -> io::Result<Vec<RawFd>>;

    /// Starts to serve it; threads may be made. The container's first process waits until this has returned.
    ///
    /// # Errors
    /// What the system said; the message goes to the user.
    fn serve(&mut self) -> io::Result<()>;

    /// After the container's end and the unmount: waits until nothing is served any more, and makes what was written safe.
    ///
    /// # Errors
    /// What the system said; the message goes to the user.
    fn finish(&mut self) -> io::Result<()>;
}

/// A plain directory, by a bind mount.
#[derive(Debug)]
pub struct BindRootfs {
    directory: PathBuf,
}

impl BindRootfs {
    /// The root filesystem in `directory`.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }
}

impl Rootfs for BindRootfs {
    fn mount(&mut self, target: &Path) -> io::Result<Vec<RawFd>> {
        let copy = clone_path(&self.directory, Reach::Tree)?;
        let onto = open_directory(target)?;
        attach(std::os::fd::AsFd::as_fd(&copy), std::os::fd::AsFd::as_fd(&onto))?;
        Ok(Vec::new())
    }

    fn serve(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The directory at `path`, following no symlink at its end.
pub(super) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Takes the topmost mount off `target`; processes that still use it keep it alive for themselves.
pub(super) fn detach(target: &Path) -> io::Result<()> {
    Ok(umount2(target, MntFlags::MNT_DETACH)?)
}
