//! Extended attributes as programs see them: without ours, and with those that only a stand-in can hold.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::carried::CARRIER;
use super::error::At as _;
use super::handle::magic_link;
use super::marks::{self, OVERRIDE_STAT, is_private, kept_as, shown_as, stand_in};
use super::recorded_acl::Record;
use super::{Upper, UpperError};
use crate::model::limits::XATTR_LIST_BYTES_MAX;
use crate::model::posix_acl;
use crate::sys::files;

impl Upper {
    /// The value of an attribute; `None` when there is none.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn xattr(&self, pinned: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>, UpperError> {
        let (pinned, name) = (pinned.as_fd(), &*kept_as(name));
        if has_stand_in(name)
            && let Some(value) = marks::get(pinned, stand_in(name))?
        {
            return Ok(Some(value));
        }
        if name == posix_acl::ACCESS
            && let Some(record) = Record::of(pinned)?
        {
            return record.acl(pinned, || marks::get(pinned, name));
        }
        marks::get(pinned, name)
    }

    /// The names of all attributes, sorted.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn xattr_names(&self, pinned: impl AsFd) -> Result<Vec<Vec<u8>>, UpperError> {
        let mut list = vec![0; XATTR_LIST_BYTES_MAX];
        let length = match files::listxattr(magic_link(pinned.as_fd()), list.as_mut_slice()) {
            Err(Errno::OPNOTSUPP) => 0,
            result => result.at("listxattr")?,
        };
        let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let records = [OVERRIDE_STAT.as_bytes(), CARRIER.as_bytes()];
        let is_recorded = names.clone().any(|name| records.contains(&name));
        let mut shown: BTreeSet<Cow<'_, [u8]>> = names.filter_map(shown_as).collect();
        if is_recorded
            && let Some(record) = Record::of(pinned.as_fd())?
            && record.own_acl().is_some()
        {
            shown.insert(posix_acl::ACCESS.into());
        }
        Ok(shown.into_iter().map(Cow::into_owned).collect())
    }

    /// Sets an attribute.
    ///
    /// # Errors
    /// [`UpperError`]; `EEXIST` and `ENODATA` as `flags` ask (setxattr(2)).
    pub fn set_xattr(
        &self,
        pinned: impl AsFd,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<(), UpperError> {
        let (path, name) = (magic_link(pinned.as_fd()), &*kept_as(name));
        if name == posix_acl::ACCESS
            && let Some(record) = Record::of(pinned.as_fd())?
        {
            // No flags, as setxattr(2) of an ACL knows none.
            return record.set_acl(pinned.as_fd(), value);
        }
        match files::setxattr(&path, OsStr::from_bytes(name), value, flags) {
            Err(Errno::PERM) if has_stand_in(name) => {
                files::setxattr(&path, OsStr::from_bytes(&stand_in(name)), value, flags).at("setxattr")
            }
            result => result.at("setxattr"),
        }
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// [`UpperError`]; `ENODATA` when there is none.
    pub fn remove_xattr(&self, pinned: impl AsFd, name: &[u8]) -> Result<(), UpperError> {
        let (path, name) = (magic_link(pinned.as_fd()), &*kept_as(name));
        if name == posix_acl::ACCESS
            && let Some(record) = Record::of(pinned.as_fd())?
        {
            return record.remove_acl(pinned.as_fd());
        }
        if has_stand_in(name) {
            match files::removexattr(&path, OsStr::from_bytes(&stand_in(name))) {
                Ok(()) => return Ok(()),
                Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error).at("removexattr"),
            }
        }
        files::removexattr(&path, OsStr::from_bytes(name)).at("removexattr")
    }

    /// Sets an attribute of an original on its copy. Where it can be kept in no form, that is said and the copy goes on:
    /// an unwritable object would be worse.
    pub(super) fn copy_xattr(&self, pinned: impl AsFd, name: &[u8], value: &[u8]) -> Result<(), UpperError> {
        if is_private(name) {
            // No program ever saw it: layers' marks are not content.
            return Ok(());
        }
        match self.set_xattr(pinned, name, value, XattrFlags::empty()) {
            Err(UpperError::System { source: Errno::PERM | Errno::OPNOTSUPP, .. }) => {
                tracing::warn!("upper: copy-up: this filesystem cannot keep {}", name.escape_ascii());
                Ok(())
            }
            // Somebody whom this user namespace does not have.
            Err(UpperError::System { source: Errno::INVAL, .. }) if name.starts_with(posix_acl::PREFIX) => {
                tracing::warn!("upper: copy-up: this user namespace cannot keep {}", name.escape_ascii());
                Ok(())
            }
            result => result,
        }
    }
}

/// Whether an attribute may need a stand-in: those that only the privileged may set.
fn has_stand_in(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(b"trusted.")
}
