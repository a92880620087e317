//! Extended attributes that are ours or overlayfs's: what they are called, what they hold, and that nobody sees them.
//!
//! `overlay.opaque` and `overlay.redirect` are overlayfs's own (Documentation/filesystems/overlayfs.rst), in the
//! `trusted.` namespace when we may write it, else in `user.` as its option `userxattr` has them. What only layerfs
//! knows lies below `overlay.layerfs.`, which overlayfs skips and hides. `user.containers.override_*` is the form of
//! containers/storage for owners, modes and attributes that the process may not really set.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::error::At as _;
use super::handle::magic_link;
use super::partial::Partial;
use super::{UpperError, carried};
use crate::model::{Ino, Name};
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
pub(super) const OVERRIDE_STAT: &str = "user.containers.override_stat";
const OVERRIDE_PREFIX: &str = "user.containers.override_";

impl Namespace {
    pub(super) fn name(self, mark: &str) -> String {
        match self {
            Self::Trusted => format!("trusted.overlay.{mark}"),
            Self::User => format!("user.overlay.{mark}"),
        }
    }

    /// Reads all marks.
    pub(super) fn read(
        self,
        attributes: &Attributes<'_>,
        name: &[u8],
        boot: u64,
    ) -> Result<Marks, UpperError> {
        let damaged = |mark: &str| UpperError::damaged(attributes.pinned, name, &self.name(mark));
        let opaque = match attributes.get(&self.name("opaque"))?.as_deref() {
            // "x" says that files in the directory may be whiteouts by a mark of their own.
            None | Some(b"x") => false,
            Some(b"y") => true,
            Some(_) => return Err(damaged("opaque")),
        };
        let redirect = attributes.get(&self.name("redirect"))?;
        if redirect.as_deref().is_some_and(|path| !path.starts_with(b"/") && Name::new(path).is_err()) {
            return Err(damaged("redirect"));
        }
        let extents = attributes.get(&self.name(EXTENTS))?;
        let number = match attributes.get(&self.name(INO))? {
            // It has become whole since they were listed.
            None if extents.is_none() && attributes.has(&self.name(EXTENTS))? => {
                get(attributes.pinned, self.name(INO))?
            }
            number => number,
        };
        if let Some(bytes) = number {
            let ino = Some(parse_ino(&bytes).ok_or_else(|| damaged(INO))?);
            return Ok(Marks { opaque, redirect, ino, partial: None });
        }
        let decode = |value: &[u8]| Partial::decode(carried::split(value)?.1, boot);
        let partial = match extents {
            Some(value) => Some(decode(&value).ok_or_else(|| damaged(EXTENTS))?),
            None => None,
        };
        Ok(Marks {
            opaque,
            redirect,
            ino: partial.as_ref().map(|partial| partial.ino),
            partial: partial.map(Box::new),
        })
    }

    pub(super) fn set_extents(self, pinned: impl AsFd, mark: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Trusted => set(pinned, &self.name(EXTENTS), mark),
            Self::User => carried::set_mark(pinned.as_fd(), mark),
        }
    }

    pub(super) fn remove_extents(self, pinned: impl AsFd) -> rustix::io::Result<()> {
        let removed = match self {
            Self::Trusted => files::removexattr(magic_link(pinned), self.name(EXTENTS)),
            Self::User => carried::remove_mark(pinned.as_fd()),
        };
        match removed {
            Err(Errno::NODATA) => Ok(()),
            result => result,
        }
    }

    /// Gives what the mark carries an attribute of its own.
    pub(super) fn own_record(self, pinned: impl AsFd) -> Result<(), UpperError> {
        match self {
            Self::Trusted => Ok(()),
            Self::User => carried::give_own(pinned.as_fd()).at("set user.containers.override_stat"),
        }
    }

    /// Of an object that nobody has seen yet, with all that it carries.
    pub(super) fn discard_extents(self, pinned: impl AsFd) -> Result<(), UpperError> {
        remove(pinned, &self.name(EXTENTS)).at("remove the extents mark")
    }

    pub(super) fn set_opaque(self, pinned: impl AsFd) -> Result<(), UpperError> {
        set(pinned, &self.name("opaque"), b"y").at("set the opaque mark")
    }

    pub(super) fn set_redirect(self, pinned: impl AsFd, path: &[u8]) -> Result<(), UpperError> {
        let absolute = [b"/", path].concat();
        set(pinned, &self.name("redirect"), &absolute).at("set the redirect mark")
    }

    pub(super) fn forget_redirect(self, pinned: impl AsFd) -> Result<(), UpperError> {
        remove(pinned, &self.name("redirect")).at("remove the redirect mark")
    }

    /// Remembers the inode number; `user.` marks only a regular file or a directory can carry (xattr(7)).
    pub(super) fn set_ino(self, pinned: impl AsFd, ino: Ino) -> Result<(), UpperError> {
        set(pinned, &self.name(INO), ino.0.to_string().as_bytes()).at("set the inode mark")
    }
}

impl Namespace {
    /// Forgets the inode number of an object that is whole.
    pub(super) fn forget_ino(self, pinned: impl AsFd) -> Result<(), UpperError> {
        let pinned = pinned.as_fd();
        // In this order: where both are, the number says that the other does not count.
        self.remove_extents(pinned).at("remove the extents mark")?;
        remove(pinned, &self.name(INO)).at("remove the inode mark")
    }
}

pub(super) fn parse_ino(bytes: &[u8]) -> Option<Ino> {
    let ino = Ino(std::str::from_utf8(bytes).ok()?.parse().ok()?);
    // Of a layer's object, or the root's: no other number is ever written down.
    (ino == Ino::ROOT || ino.to_lower().is_some()).then_some(ino)
}

/// Removes one attribute; none there is fine.
pub(super) fn remove(pinned: impl AsFd, name: &str) -> rustix::io::Result<()> {
    match files::removexattr(magic_link(pinned), name) {
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        result => result,
    }
}

/// The attributes of one object, listed once when the first is asked for: most objects have hardly any of ours, and to ask
/// for one that is not there costs as much as the list.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    pub(super) pinned: BorrowedFd<'a>,
    /// Each name ends with a NUL. Inside, `None` when they are too many to be worth it.
    names: OnceCell<Option<Vec<u8>>>,
}

impl<'a> Attributes<'a> {
    pub(super) fn of(pinned: BorrowedFd<'a>) -> Self {
        Self { pinned, names: OnceCell::new() }
    }

    /// The value of one, `None` when there is none.
    pub(super) fn get(&self, name: &str) -> Result<Option<Vec<u8>>, UpperError> {
        if self.has(name)? { get(self.pinned, name) } else { Ok(None) }
    }

    /// Whether there was one when they were listed; it may be gone since.
    pub(super) fn has(&self, name: &str) -> Result<bool, UpperError> {
        let names = match self.names.get() {
            Some(names) => names,
            None => {
                let listed = list(self.pinned)?;
                self.names.get_or_init(|| listed)
            }
        };
        let is_listed =
            |names: &Vec<u8>| names.split(|byte| *byte == 0).any(|listed| listed == name.as_bytes());
        Ok(names.as_ref().is_none_or(is_listed))
    }
}

/// The names of all attributes, if they are few.
fn list(pinned: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, UpperError> {
    const NAMES_BYTES: usize = 512;
    let mut names = vec![0; NAMES_BYTES];
    match files::listxattr(magic_link(pinned), names.as_mut_slice()) {
        Ok(length) => {
            names.truncate(length);
            Ok(Some(names))
        }
        // Or a filesystem that cannot list them, which does not say that there are none.
        Err(Errno::RANGE | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error).at("listxattr"),
    }
}

/// The value of one attribute, `None` when there is none.
pub(super) fn get(pinned: impl AsFd, name: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, UpperError> {
    value(pinned, name).at("getxattr")
}

/// The same, with the bare error.
pub(super) fn value(pinned: impl AsFd, name: impl AsRef<[u8]>) -> rustix::io::Result<Option<Vec<u8>>> {
    let name = OsStr::from_bytes(name.as_ref());
    // Marks are short, and so are most others; a path of a redirect is the longest.
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
            Err(error) => return Err(error),
        }
    }
}

/// Sets one attribute.
pub(super) fn set(pinned: impl AsFd, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    files::setxattr(magic_link(pinned), name, value, XattrFlags::empty())
}

/// Where overlays keep their marks.
const OVERLAY_PREFIXES: [&str; 3] = ["trusted.overlay.", "user.overlay.", "user.fuseoverlayfs."];
/// What is put behind such a prefix when a program sets a mark of its own, as overlayfs does it too.
const ESCAPE: &str = "overlay.";

/// Whether an attribute of an object in the upper, or in a layer, is a mark of an overlay's and not content.
#[must_use]
pub fn is_private(name: &[u8]) -> bool {
    OVERLAY_PREFIXES.iter().chain([&OVERRIDE_PREFIX]).any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// The name that an attribute has in the upper. A program that is an overlay itself, stacked upon the mount, sets the
/// same marks as we do: they are content here, and must mean nothing.
pub(super) fn kept_as(name: &[u8]) -> Cow<'_, [u8]> {
    if name.starts_with(OVERRIDE_PREFIX.as_bytes()) {
        return Cow::Owned(stand_in(name));
    }
    for prefix in OVERLAY_PREFIXES.map(str::as_bytes) {
        if let Some(mark) = name.strip_prefix(prefix) {
            return Cow::Owned([prefix, ESCAPE.as_bytes(), mark].concat());
        }
    }
    Cow::Borrowed(name)
}

/// The name under which programs see an attribute of the upper; `None` when they do not.
pub(super) fn shown_as(kept: &[u8]) -> Option<Cow<'_, [u8]>> {
    if let Some(meant) = stood_for(kept) {
        return Some(Cow::Borrowed(meant));
    }
    for prefix in OVERLAY_PREFIXES.map(str::as_bytes) {
        if let Some(mark) = kept.strip_prefix(prefix) {
            let own = mark.strip_prefix(ESCAPE.as_bytes())?;
            return Some(Cow::Owned([prefix, own].concat()));
        }
    }
    (!is_private(kept)).then_some(Cow::Borrowed(kept))
}

/// Where an attribute is kept that the process may not set: `security.x` as `user.containers.override_security.x`.
pub(super) fn stand_in(name: &[u8]) -> Vec<u8> {
    [OVERRIDE_PREFIX.as_bytes(), name].concat()
}

/// The attribute that a stand-in stands for.
pub(super) fn stood_for(name: &[u8]) -> Option<&[u8]> {
    let inner = name.strip_prefix(OVERRIDE_PREFIX.as_bytes())?;
    let prefixes = ["security.", "trusted.", OVERRIDE_PREFIX];
    prefixes.iter().any(|prefix| inner.starts_with(prefix.as_bytes())).then_some(inner)
}
