//! Owners, modes and types: really set where the process may, else recorded in `user.containers.override_stat`.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{self, UpperAttr, magic_link};
use super::marks::{Attributes, OVERRIDE_STAT};
use super::{Upper, UpperError, UpperOptions, carried};
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

/// What is recorded of an object, if anything is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Owner, mode and type; what else is in it means nothing.
    is: Option<Metadata>,
    /// An ACL that the filesystem does not have yet.
    has_acl: bool,
}

impl Recorded {
    /// What the text of a record says of an object; `real` is what stat(2) says of it.
    pub(super) fn parse(text: &[u8], real: &UpperAttr) -> Option<Self> {
        let mut is = real.metadata;
        recorded_owner::apply(text, &mut is)?;
        Some(Self { is: Some(is), has_acl: recorded_owner::acl(text).is_some() })
    }

    pub(super) fn of(attributes: &Attributes<'_>, real: &UpperAttr, name: &[u8]) -> Result<Self, UpperError> {
        if !can_have_record(real.metadata.kind) {
            return Ok(Self::default());
        }
        let Some(text) = carried::record_of(attributes)? else { return Ok(Self::default()) };
        let damaged = || UpperError::damaged(attributes.pinned, name, OVERRIDE_STAT);
        Self::parse(&text, real).ok_or_else(damaged)
    }

    /// What it makes of what stat(2) says.
    pub(super) fn applied(&self, real: UpperAttr) -> UpperAttr {
        let Metadata { size, mtime, .. } = real.metadata;
        match self.is {
            Some(is) => UpperAttr { metadata: Metadata { size, mtime, ..is }, ..real },
            None => real,
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.is.is_some()
    }
}

impl Upper {
    /// Whether owners and modes are recorded instead of being set: then the filesystem below enforces none of them.
    #[must_use]
    pub fn records_owners(&self) -> bool {
        self.owners == Owners::Recorded
    }

    /// What stat(2) says of a descriptor's object, recorded owners applied, and what that record is.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn attr_and_record(
        &self,
        pinned: impl AsFd,
        name: &[u8],
    ) -> Result<(UpperAttr, Recorded), UpperError> {
        let pinned = pinned.as_fd();
        let real = handle::stat(pinned)?;
        let recorded = recorded(pinned, &real, name)?;
        Ok((recorded.applied(real), recorded))
    }

    /// The attributes of an object of which it is known what is recorded.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn attr_as(&self, pinned: impl AsFd, recorded: Recorded) -> Result<UpperAttr, UpperError> {
        handle::stat(pinned).map(|real| recorded.applied(real))
    }
}

impl Owners {
    /// How this process keeps them.
    pub(super) fn of(options: UpperOptions) -> Self {
        let real = rustix::process::geteuid().is_root() && !options.record_owners;
        if real { Self::Real } else { Self::Recorded }
    }

    /// Whose what this process makes is, user and group, where that is what everybody is shown.
    pub(super) fn creator(self) -> Option<(u32, u32)> {
        let own = || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        (self == Self::Real).then(own)
    }

    /// Gives an object, which has the attributes `real`, the owner and mode of `wanted`, and, when it stands in for a
    /// special file, its type. One call does it when only the mode changes, or only the owner by the rules of chown(2).
    /// `had` is what was recorded of it, `None` of a new one that nobody has seen. Returns what is recorded now.
    pub(super) fn apply(
        self,
        pinned: impl AsFd,
        real: &Metadata,
        wanted: &Metadata,
        had: Option<Recorded>,
    ) -> Result<Recorded, UpperError> {
        let pinned = pinned.as_fd();
        if self == Self::Real && real.kind == wanted.kind {
            match chown(pinned, real, wanted) {
                // What a new one has already needs no call; of any other the time of change is to be set.
                Ok(false) if had.is_none() && real.mode == wanted.mode => return Ok(Recorded::default()),
                // After chown, which clears setuid and setgid.
                Ok(_) => {
                    chmod(pinned, real.kind, wanted.mode)?;
                    return Ok(Recorded::default());
                }
                // Ids without a place in this user namespace (user_namespaces(7)).
                Err(Errno::INVAL | Errno::PERM) => {}
                Err(error) => return Err(error).at("chown"),
            }
        }
        if !can_have_record(real.kind) {
            // Symlinks cannot carry it; they belong to whoever made them.
            return Ok(Recorded::default());
        }
        if had.is_some_and(|had| had.has_acl) {
            super::recorded_acl::settle(pinned)?;
        }
        let mode = (wanted.mode & 0o777) | floor(real.kind);
        // Of one that is not new the time of change is to be set, which ext4 does not do for the record that is there.
        if had.is_some() || real.mode != mode {
            chmod(pinned, real.kind, mode)?;
        }
        carried::set_record(pinned, &recorded_owner::record(wanted))?;
        Ok(Recorded { is: Some(*wanted), has_acl: false })
    }
}

fn can_have_record(kind: FileKind) -> bool {
    matches!(kind, FileKind::Regular | FileKind::Directory)
}

/// The owner's permissions without which the server could not serve an object with a recorded mode.
pub(super) fn floor(kind: FileKind) -> u16 {
    if kind == FileKind::Directory { 0o700 } else { 0o600 }
}

/// Whether there was anything to do.
fn chown(pinned: impl AsFd, real: &Metadata, wanted: &Metadata) -> rustix::io::Result<bool> {
    if (real.uid, real.gid) == (wanted.uid, wanted.gid) {
        return Ok(false);
    }
    let owner = (Some(Uid::from_raw(wanted.uid)), Some(Gid::from_raw(wanted.gid)));
    files::chownat(pinned, c"", owner.0, owner.1, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(true)
}

fn chmod(pinned: impl AsFd, kind: FileKind, mode: u16) -> Result<(), UpperError> {
    if kind == FileKind::Symlink {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(u32::from(mode));
    files::chmodat(CWD, magic_link(pinned), mode, AtFlags::empty()).at("chmod")
}

/// What is recorded of the object behind a descriptor.
pub(super) fn recorded(pinned: impl AsFd, real: &UpperAttr, name: &[u8]) -> Result<Recorded, UpperError> {
    let pinned = pinned.as_fd();
    if !can_have_record(real.metadata.kind) {
        return Ok(Recorded::default());
    }
    let Some(text) = carried::record(pinned)? else { return Ok(Recorded::default()) };
    Recorded::parse(&text, real).ok_or_else(|| UpperError::damaged(pinned, name, OVERRIDE_STAT))
}

/// Takes a record away, where owner and mode have really been set to `now`.
pub(super) fn forget_record(pinned: impl AsFd, now: &Metadata) -> Result<(), UpperError> {
    let pinned = pinned.as_fd();
    if carried::record(pinned)?.is_none() {
        return Ok(());
    }
    super::recorded_acl::settle(pinned)?;
    let real = super::handle::stat(pinned)?.metadata;
    // Ids without a place in this user namespace are recorded even so.
    if (real.uid, real.gid, real.mode) != (now.uid, now.gid, now.mode) {
        return Ok(());
    }
    carried::remove_record(pinned).at("removexattr")
}
