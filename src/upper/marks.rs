//! Extended attributes that are ours or overlayfs's: what they are called, what they hold, and that nobody sees them.
//!
//! `overlay.opaque` and `overlay.redirect` are overlayfs's own (Documentation/filesystems/overlayfs.rst), in the
//! `trusted.` namespace when we may write it, else in `user.` as its option `userxattr` has them. What only layerfs
//! knows lies below `overlay.layerfs.`, which overlayfs skips and hides. `user.containers.override_*` is the form of
//! containers/storage for owners, modes and attributes that the process may not really set.

use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::UpperError;
use super::error::At as _;
use super::handle::magic_link;
use super::partial::Partial;
use crate::model::Ino;
use crate::sys::files;

/// In which namespace overlayfs's attributes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Namespace {
    Trusted,
    User,
}

/// What the marks of one object say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Hides everything that the layers have in this directory.
    pub opaque: bool,
    /// The layers' part of this directory is at this path of theirs.
    pub redirect: Option<Vec<u8>>,
    /// The inode number that the object had before it was copied up.
    pub ino: Option<Ino>,
    /// Of a regular file, what of its content is still the layer's.
    pub partial: Option<Box<Partial>>,
}

const INO: &str = "layerfs.ino";
const EXTENTS: &str = "layerfs.extents";
const OVERRIDE_STAT: &str = "user.containers.override_stat";
const OVERRIDE_PREFIX: &str = "user.containers.override_";

impl Namespace {
    fn name(self, mark: &str) -> String {
        match self {
            Self::Trusted => format!("trusted.overlay.{mark}"),
            Self::User => format!("user.overlay.{mark}"),
        }
    }

    /// Reads all marks. Objects that cannot have any (symlinks in the `user.` namespace) have none.
    pub(super) fn read(self, pinned: impl AsFd, name: &[u8], boot: u64) -> Result<Marks, UpperError> {
        let pinned = pinned.as_fd();
        let opaque = matches!(get(pinned, &self.name("opaque"))?.as_deref(), Some(b"y"));
        let redirect = get(pinned, &self.name("redirect"))?;
        let damaged = |mark: &'static str| {
            move || UpperError::Mark { name: name.escape_ascii().to_string(), mark: self.name(mark) }
        };
        if let Some(bytes) = get(pinned, &self.name(INO))? {
            let ino = Some(parse_ino(&bytes).ok_or_else(damaged(INO))?);
            return Ok(Marks { opaque, redirect, ino, partial: None });
        }
        let partial = match get(pinned, &self.name(EXTENTS))? {
            Some(bytes) => Some(Partial::decode(&bytes, boot).ok_or_else(damaged(EXTENTS))?),
            None => None,
        };
        Ok(Marks {
            opaque,
            redirect,
            ino: partial.as_ref().map(|partial| partial.ino),
            partial: partial.map(Box::new),
        })
    }

    pub(super) fn set_extents(self, pinned: impl AsFd, value: &[u8]) -> rustix::io::Result<()> {
        set(pinned, &self.name(EXTENTS), value)
    }

    pub(super) fn remove_extents(self, pinned: impl AsFd) -> rustix::io::Result<()> {
        match files::removexattr(magic_link(pinned), self.name(EXTENTS)) {
            Err(Errno::NODATA) => Ok(()),
            result => result,
        }
    }

    pub(super) fn set_opaque(self, pinned: impl AsFd) -> Result<(), UpperError> {
        set(pinned, &self.name("opaque"), b"y").at("set the opaque mark")
    }

    pub(super) fn set_redirect(self, pinned: impl AsFd, path: &[u8]) -> Result<(), UpperError> {
        let absolute = [b"/", path].concat();
        set(pinned, &self.name("redirect"), &absolute).at("set the redirect mark")
    }

    /// Remembers the inode number; not possible for symlinks and special files in the `user.` namespace (xattr(7)).
    pub(super) fn set_ino(self, pinned: impl AsFd, ino: Ino) -> Result<(), UpperError> {
        match set(pinned, &self.name(INO), ino.0.to_string().as_bytes()) {
            Err(Errno::PERM | Errno::OPNOTSUPP) if self == Self::User => Ok(()),
            result => result.at("set the inode mark"),
        }
    }
}

fn parse_ino(bytes: &[u8]) -> Option<Ino> {
    std::str::from_utf8(bytes).ok()?.parse().ok().map(Ino)
}

/// The value of one attribute, `None` when there is none.
pub(super) fn get(pinned: impl AsFd, name: &str) -> Result<Option<Vec<u8>>, UpperError> {
    // Marks are short; a path of a redirect is the longest.
    let mut value = vec![0; 256];
    loop {
        match files::getxattr(magic_link(pinned.as_fd()), name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => return Ok(None),
            Err(Errno::RANGE) if value.len() < crate::model::limits::XATTR_VALUE_BYTES_MAX => {
                value.resize(crate::model::limits::XATTR_VALUE_BYTES_MAX, 0);
            }
            Err(error) => return Err(error).at("getxattr"),
        }
    }
}

/// Sets one attribute.
pub(super) fn set(pinned: impl AsFd, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    files::setxattr(magic_link(pinned), name, value, XattrFlags::empty())
}

/// The recorded owner, `uid:gid:mode[:type]`.
pub(super) fn override_stat(pinned: impl AsFd) -> Result<Option<Vec<u8>>, UpperError> {
    get(pinned, OVERRIDE_STAT)
}

pub(super) fn set_override_stat(pinned: impl AsFd, value: &str) -> Result<(), UpperError> {
    set(pinned, OVERRIDE_STAT, value.as_bytes()).at("set user.containers.override_stat")
}

/// Whether an attribute belongs to the overlay and is neither shown nor settable.
#[must_use]
pub fn is_private(name: &[u8]) -> bool {
    [&b"trusted.overlay."[..], b"user.overlay.", OVERRIDE_PREFIX.as_bytes()]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Where an attribute is kept that the process may not set: `security.x` as `user.containers.override_security.x`.
pub(super) fn stand_in(name: &[u8]) -> Vec<u8> {
    [OVERRIDE_PREFIX.as_bytes(), name].concat()
}

/// The attribute that a stand-in stands for.
pub(super) fn stood_for(name: &[u8]) -> Option<&[u8]> {
    let inner = name.strip_prefix(OVERRIDE_PREFIX.as_bytes())?;
    (inner.starts_with(b"security.") || inner.starts_with(b"trusted.")).then_some(inner)
}
