//! Owners, modes and types: really set where the process may, else recorded in `user.containers.override_stat`.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{UpperAttr, magic_link};
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
    /// Gives an object the owner and mode of `wanted`, and, when it stands in for a special file, its type.
    pub(super) fn apply(
        self,
        pinned: impl AsFd,
        real: FileKind,
        wanted: &Metadata,
    ) -> Result<(), UpperError> {
        let pinned = pinned.as_fd();
        if self == Self::Real && real == wanted.kind {
            let owner = (Some(Uid::from_raw(wanted.uid)), Some(Gid::from_raw(wanted.gid)));
            let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
            match files::chownat(pinned, c"", owner.0, owner.1, flags) {
                // After chown, which clears setuid and setgid.
                Ok(()) => return chmod(pinned, real, wanted.mode),
                // Ids without a place in this user namespace (user_namespaces(7)).
                Err(Errno::INVAL | Errno::PERM) => {}
                Err(error) => return Err(error).at("chown"),
            }
        }
        if !matches!(real, FileKind::Regular | FileKind::Directory) {
            // Symlinks cannot carry the record; they belong to whoever made them.
            return Ok(());
        }
        let floor = if real == FileKind::Directory { 0o700 } else { 0o600 };
        chmod(pinned, real, (wanted.mode & 0o777) | floor)?;
        marks::set_override_stat(pinned, &recorded_owner::record(wanted))
    }
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
    if !matches!(attr.metadata.kind, FileKind::Regular | FileKind::Directory) {
        return Ok(attr);
    }
    if let Some(text) = marks::override_stat(pinned)? {
        recorded_owner::apply(&text, &mut attr.metadata).ok_or_else(|| UpperError::Mark {
            name: name.escape_ascii().to_string(),
            mark: "user.containers.override_stat".to_owned(),
        })?;
    }
    Ok(attr)
}
