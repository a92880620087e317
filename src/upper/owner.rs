//! Owners, modes and types: really set where the process may, else recorded in `user.containers.override_stat`.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{UpperAttr, magic_link};
use super::marks::OVERRIDE_STAT;
use super::{UpperError, marks};
use crate::model::{FileKind, Metadata, recorded_owner};
use crate::sys::files;

/// How owners are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// chown(2), as root of some user namespace.
    Real,
    /// Recorded; the files belong to the caller, who can always read and write them.
    Recorded,
}

impl Owners {
    /// Gives an object, which has the attributes `real`, the owner and mode of `wanted`, and, when it stands in for a
    /// special file, its type. One call does it when only the mode changes, or only the owner by the rules of chown(2).
    pub(super) fn apply(
        self,
        pinned: impl AsFd,
        real: &Metadata,
        wanted: &Metadata,
    ) -> Result<(), UpperError> {
        let pinned = pinned.as_fd();
        if self == Self::Real && real.kind == wanted.kind {
            match chown(pinned, real, wanted) {
                // After chown, which clears setuid and setgid.
                Ok(()) => return chmod(pinned, real.kind, wanted.mode),
                // Ids without a place in this user namespace (user_namespaces(7)).
                Err(Errno::INVAL | Errno::PERM) => {}
                Err(error) => return Err(error).at("chown"),
            }
        }
        if !matches!(real.kind, FileKind::Regular | FileKind::Directory) {
            // Symlinks cannot carry the record; they belong to whoever made them.
            return Ok(());
        }
        let floor = floor(real.kind);
        if real.mode & floor == floor {
            // Else it is new, and may not even be asked for its record.
            super::recorded_acl::settle(pinned)?;
        }
        chmod(pinned, real.kind, (wanted.mode & 0o777) | floor)?;
        marks::set_override_stat(pinned, &recorded_owner::record(wanted))
    }
}

/// The owner's permissions without which the server could not serve an object with a recorded mode.
pub(super) fn floor(kind: FileKind) -> u16 {
    if kind == FileKind::Directory { 0o700 } else { 0o600 }
}

fn chown(pinned: impl AsFd, real: &Metadata, wanted: &Metadata) -> rustix::io::Result<()> {
    if (real.uid, real.gid) == (wanted.uid, wanted.gid) {
        return Ok(());
    }
    let owner = (Some(Uid::from_raw(wanted.uid)), Some(Gid::from_raw(wanted.gid)));
    files::chownat(pinned, c"", owner.0, owner.1, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
}

fn chmod(pinned: impl AsFd, kind: FileKind, mode: u16) -> Result<(), UpperError> {
    if kind == FileKind::Symlink {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(u32::from(mode));
    files::chmodat(CWD, magic_link(pinned), mode, AtFlags::empty()).at("chmod")
}

/// What the record, if there is one, makes of a stat.
pub(super) fn recorded(pinned: impl AsFd, mut attr: UpperAttr, name: &[u8]) -> Result<UpperAttr, UpperError> {
    let pinned = pinned.as_fd();
    if !matches!(attr.metadata.kind, FileKind::Regular | FileKind::Directory) {
        return Ok(attr);
    }
    if let Some(text) = marks::override_stat(pinned)? {
        recorded_owner::apply(&text, &mut attr.metadata)
            .ok_or_else(|| UpperError::damaged(pinned, name, OVERRIDE_STAT))?;
    }
    Ok(attr)
}

/// Takes a record away, where owner and mode have really been set to `now`.
pub(super) fn forget_record(pinned: impl AsFd, now: &Metadata) -> Result<(), UpperError> {
    let pinned = pinned.as_fd();
    if marks::override_stat(pinned)?.is_none() {
        return Ok(());
    }
    super::recorded_acl::settle(pinned)?;
    let real = super::handle::stat(pinned)?.metadata;
    // Ids without a place in this user namespace are recorded even so.
    if (real.uid, real.gid, real.mode) != (now.uid, now.gid, now.mode) {
        return Ok(());
    }
    marks::remove(pinned, OVERRIDE_STAT).at("removexattr")
}
