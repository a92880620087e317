//! Directories that show the same to those who follow no redirect.

use std::os::fd::AsFd;

use rustix::fs::AtFlags;

use super::copy_up::keep_times;
use super::error::At as _;
use super::marks::{Attributes, Namespace};
use super::{Upper, UpperError, Whiteouts, handle};
use crate::sys::files;

impl Upper {
    /// Whether whoever else mounts this upper sees what a redirect leads to: with `userxattr` the kernel follows none.
    #[must_use]
    pub fn others_follow_redirects(&self) -> bool {
        self.namespace == Namespace::Trusted
    }

    /// Whether a directory's part in the layers is said to be elsewhere.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn is_redirected(&self, dir: impl AsFd) -> Result<bool, UpperError> {
        Ok(self.namespace.read(&Attributes::of(dir.as_fd()), b"(directory)", self.boot)?.redirect.is_some())
    }

    /// Says that nothing of the layers belongs to a directory, because all of it has been copied up.
    ///
    /// # Errors
    /// [`UpperError`]; the directory shows the same whatever was done.
    pub fn make_whole(&self, dir: impl AsFd) -> Result<(), UpperError> {
        let dir = dir.as_fd();
        let times = handle::stat(dir)?;
        self.namespace.set_opaque(dir)?;
        self.namespace.forget_redirect(dir)?;
        for listed in self.list(dir)? {
            let name = listed.name.as_name();
            match (listed.whiteout, self.whiteouts) {
                (false, _) => {}
                (true, Whiteouts::Device) => {
                    files::unlinkat(dir, name.as_bytes(), AtFlags::empty()).at("unlink a whiteout")?;
                }
                (true, Whiteouts::Named) => self.drop_named_whiteout(dir, name),
            }
        }
        keep_times(dir, &times);
        Ok(())
    }
}
