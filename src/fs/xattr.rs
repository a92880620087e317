//! Extended attributes.

use rustix::fs::XattrFlags;

use super::node::{LowerPart, Node};
use super::{Fs, FsError};
use crate::layer::Xattr;
use crate::model::Ino;
use crate::upper::is_private;

/// File capabilities (capabilities(7)).
pub(super) const CAPABILITY: &[u8] = b"security.capability";

impl Fs {
    /// The value of an attribute.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`] when there is none, or none that is shown.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        if is_private(name) {
            return Err(FsError::NoAttribute);
        }
        let node = self.node(ino)?;
        if let Some(pinned) = self.pin(&node)? {
            return self.upper()?.xattr(&pinned, name)?.ok_or(FsError::NoAttribute);
        }
        let found = self.lower_xattrs(&node)?.into_iter().find(|(key, _)| **key == *name);
        found.map(|(_, value)| value.into_vec()).ok_or(FsError::NoAttribute)
    }

    /// The names of all attributes that are shown.
    ///
    /// # Errors
    /// [`FsError`]
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        let node = self.node(ino)?;
        if let Some(pinned) = self.pin(&node)? {
            return Ok(self.upper()?.xattr_names(&pinned)?);
        }
        let names = self.lower_xattrs(&node)?.into_iter().map(|(name, _)| name.into_vec());
        Ok(names.filter(|name| !is_private(name)).collect())
    }

    /// Sets an attribute, copying up before; `flags` as in setxattr(2).
    ///
    /// # Errors
    /// [`FsError::NotPermitted`] for a private name.
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], flags: u32) -> Result<(), FsError> {
        self.may_change(name)?;
        let node = self.node(ino)?;
        let flags = XattrFlags::from_bits(flags).ok_or(FsError::Invalid)?;
        let pinned = self.raise(&node, u64::MAX)?;
        Ok(self.upper()?.set_xattr(&pinned, name, value, flags)?)
    }

    /// Removes an attribute, copying up before.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`] when there is none.
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        self.may_change(name)?;
        self.getxattr(ino, name)?;
        let pinned = self.raise(&*self.node(ino)?, u64::MAX)?;
        Ok(self.upper()?.remove_xattr(&pinned, name)?)
    }

    fn may_change(&self, name: &[u8]) -> Result<(), FsError> {
        if is_private(name) {
            return Err(FsError::NotPermitted);
        }
        // An ACL names ids and shares bits with the mode; where those are not real it would mean something else.
        if name.starts_with(b"system.posix_acl_") && !self.owners.are_real() {
            return Err(FsError::NotSupported);
        }
        Ok(())
    }

    fn lower_xattrs(&self, node: &Node) -> Result<Vec<Xattr>, FsError> {
        let lower = node.state().lower.clone();
        match lower {
            LowerPart::Leaf(lower, _) => Ok(self.union.xattrs(lower)?),
            LowerPart::Dir(dir) => Ok(self.union.dir_xattrs(&dir)?),
            LowerPart::None => Err(FsError::Lost(node.ino)),
        }
    }
}
