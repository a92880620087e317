//! ACLs of objects whose mode is recorded. The two share bits, so they change together, in the record; the filesystem has
//! the ACL too, for others and for the time after, and only its own bits of the mode may differ.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{self, magic_link};
use super::owner::{Recorded, floor};
use super::{UpperError, carried, marks};
use crate::model::{Metadata, posix_acl, recorded_owner};
use crate::sys::files;

/// What is recorded of an object.
pub(super) struct Record {
    text: Vec<u8>,
    is: Metadata,
    real: Metadata,
}

impl Record {
    /// `None` where nothing is recorded.
    pub(super) fn of(pinned: BorrowedFd<'_>) -> Result<Option<Self>, UpperError> {
        let Some(text) = carried::record(pinned)? else { return Ok(None) };
        let real = handle::stat(pinned)?;
        let damaged = || UpperError::damaged(pinned, b"(object)", marks::OVERRIDE_STAT);
        let is = Recorded::parse(&text, &real).ok_or_else(damaged)?.applied(real).metadata;
        Ok(Some(Self { text, is, real: real.metadata }))
    }

    /// The ACL as it is now; `real` reads the one that the filesystem has.
    pub(super) fn acl(
        mut self,
        pinned: BorrowedFd<'_>,
        real: impl Fn() -> Result<Option<Vec<u8>>, UpperError>,
    ) -> Result<Option<Vec<u8>>, UpperError> {
        loop {
            let acl = self.own_acl().map_or_else(&real, |acl| Ok(Some(acl)))?;
            match Self::of(pinned)? {
                // Somebody has set another in between: that of one time would be shown with the mode of another.
                Some(record) if record.text != self.text => self = record,
                _ => {
                    return Ok(acl.map(|mut acl| {
                        posix_acl::set_mode(&mut acl, self.is.mode);
                        acl
                    }));
                }
            }
        }
    }

    /// The ACL that the filesystem does not have yet.
    pub(super) fn own_acl(&self) -> Option<Vec<u8>> {
        recorded_owner::acl(&self.text)
    }

    /// Sets the ACL, and with it the mode: both or, with an error, neither.
    pub(super) fn set_acl(&self, pinned: BorrowedFd<'_>, acl: &[u8]) -> Result<(), UpperError> {
        self.settle_acl(pinned)?;
        let is = Metadata { mode: self.is.mode & 0o7000 | posix_acl::mode(acl), ..self.is };
        let record = recorded_owner::record(&is);
        match carried::set_record(pinned, &recorded_owner::with_acl(&record, acl)) {
            // Twice is too much: one after the other.
            Err(error) if error.is_no_room() => {
                self.really_set(pinned, acl).at("setxattr")?;
                return carried::set_record(pinned, &record);
            }
            result => result?,
        }
        if let Err(error) = self.really_set(pinned, acl) {
            let undone = carried::set_record(pinned, &recorded_owner::record(&self.is));
            if let Err(error) = undone {
                tracing::warn!("upper: an ACL was set although its setting failed: {error}");
            }
            return Err(error).at("setxattr");
        }
        // The same is said with it and without it.
        if let Err(error) = carried::set_record(pinned, &record) {
            tracing::debug!("upper: an ACL stays in a record: {error}");
        }
        Ok(())
    }

    /// Gives the filesystem an ACL that only the record has: a new record will not have it.
    pub(super) fn settle_acl(&self, pinned: BorrowedFd<'_>) -> Result<(), UpperError> {
        match self.own_acl() {
            Some(acl) => self.really_set(pinned, &acl).at("setxattr"),
            None => Ok(()),
        }
    }

    /// Takes the ACL away. The mode stays.
    pub(super) fn remove_acl(&self, pinned: BorrowedFd<'_>) -> Result<(), UpperError> {
        self.settle_acl(pinned)?;
        if self.own_acl().is_some() {
            carried::set_record(pinned, &recorded_owner::record(&self.is))?;
        }
        files::removexattr(magic_link(pinned), OsStr::from_bytes(posix_acl::ACCESS)).at("removexattr")
    }

    /// Without taking from the server what it needs to serve the object.
    fn really_set(&self, pinned: BorrowedFd<'_>, acl: &[u8]) -> Result<(), Errno> {
        let mut acl = acl.to_vec();
        let mode = posix_acl::mode(&acl) | floor(self.real.kind);
        posix_acl::set_mode(&mut acl, mode);
        files::setxattr(magic_link(pinned), OsStr::from_bytes(posix_acl::ACCESS), &acl, XattrFlags::empty())
    }
}

/// Has an ACL that only a record has set, where that record is to be replaced.
pub(super) fn settle(pinned: impl AsFd) -> Result<(), UpperError> {
    match Record::of(pinned.as_fd())? {
        Some(record) => record.settle_acl(pinned.as_fd()),
        None => Ok(()),
    }
}
