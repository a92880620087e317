//! Changing attributes and content lengths.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::copy_up::{timespec, utimens};
use super::error::At as _;
use super::handle::{self, reopen};
use super::owner::{self, Owners, Recorded};
use super::{Upper, UpperAttr, UpperError};
use crate::model::{FileKind, Metadata, Timestamp};
use crate::sys::files;

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The current time, by the clock of the filesystem below.
    Now,
    /// This time.
    To(Timestamp),
}

/// What to change; `None` keeps what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length of a regular file.
    pub size: Option<u64>,
    /// Time of last access.
    pub atime: Option<SetTime>,
    /// Time of last modification.
    pub mtime: Option<SetTime>,
}

impl Upper {
    /// Changes attributes of the object behind a descriptor.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn change(&self, pinned: impl AsFd, name: &[u8], change: &Change) -> Result<UpperAttr, UpperError> {
        let pinned = pinned.as_fd();
        let real = handle::stat(pinned)?;
        let mut recorded = owner::recorded(pinned, &real, name)?;
        let before = recorded.applied(real);
        let wanted = wanted(&before.metadata, change);
        let owned = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
        if owned {
            recorded = self
                .set_owner(pinned, &real, &wanted, recorded)
                .inspect_err(|_| self.restore_owner(pinned, &before.metadata))?;
        }
        if let Some(size) = change.size {
            // After what can be undone.
            let truncate = || files::ftruncate(reopen(pinned, OFlags::RDWR)?, size);
            if let Err(error) = truncate() {
                if owned {
                    self.restore_owner(pinned, &before.metadata);
                }
                return Err(error).at("ftruncate");
            }
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let times = Timestamps {
                last_access: requested(change.atime),
                last_modification: requested(change.mtime),
            };
            utimens(pinned, &times)?;
        }
        // Too late for an error: when the system does not say, it is what was asked for.
        Ok(self.attr_as(pinned, recorded).unwrap_or_else(|error| {
            tracing::warn!("{error}: times may be old");
            as_asked_for(&before, wanted, change)
        }))
    }

    /// Undoes a change of owner and mode as far as it was made.
    fn restore_owner(&self, pinned: BorrowedFd<'_>, before: &Metadata) {
        let restore = || {
            let real = handle::stat(pinned)?;
            let had = owner::recorded(pinned, &real, b"(object)")?;
            self.owners.apply(pinned, &real.metadata, before, Some(had))
        };
        if let Err(error) = restore() {
            tracing::warn!("upper: owner and mode may be half changed: {error}");
        }
    }

    /// Returns what is recorded afterwards.
    fn set_owner(
        &self,
        pinned: BorrowedFd<'_>,
        real: &UpperAttr,
        wanted: &Metadata,
        had: Recorded,
    ) -> Result<Recorded, UpperError> {
        let set = self.owners.apply(pinned, &real.metadata, wanted, Some(had))?;
        if set.is_there() || !had.is_there() {
            return Ok(set);
        }
        if self.owners == Owners::Real && real.metadata.kind == wanted.kind {
            // Recorded by an ordinary user or by another overlay; it would hide what has been really set.
            owner::forget_record(pinned, wanted)?;
        }
        owner::recorded(pinned, real, b"(object)")
    }
}

/// What a change made of it, where the system cannot be asked; the current time is not known then.
fn as_asked_for(before: &UpperAttr, wanted: Metadata, change: &Change) -> UpperAttr {
    let set = |time: Option<SetTime>, old| match time {
        Some(SetTime::To(time)) => time,
        Some(SetTime::Now) | None => old,
    };
    let mtime = set(change.mtime, before.metadata.mtime);
    UpperAttr { metadata: Metadata { mtime, ..wanted }, atime: set(change.atime, before.atime), ..*before }
}

fn wanted(old: &Metadata, change: &Change) -> Metadata {
    let chowned = change.uid.is_some() || change.gid.is_some();
    let mode = change.mode.unwrap_or_else(|| if chowned { mode_after_chown(old) } else { old.mode });
    Metadata {
        mode,
        uid: change.uid.unwrap_or(old.uid),
        gid: change.gid.unwrap_or(old.gid),
        size: change.size.unwrap_or(old.size),
        ..*old
    }
}

/// chown(2): setuid goes, and setgid with it when the group may execute, for everything but directories.
fn mode_after_chown(old: &Metadata) -> u16 {
    if old.kind == FileKind::Directory {
        return old.mode;
    }
    without_suid(old.mode)
}

/// The mode without setuid, and without setgid when the group may execute: otherwise that bit never meant
/// "run as this group" (inode(7)).
#[must_use]
pub(super) fn without_suid(mode: u16) -> u16 {
    let mode = mode & !0o4000;
    if mode & 0o010 != 0 { mode & !0o2000 } else { mode }
}

fn requested(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(SetTime::To(time)) => timespec(time),
    }
}
