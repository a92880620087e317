//! Extended attributes.

use rustix::fs::XattrFlags;

use super::node::LowerPart;
use super::{Caller, Fs, FsError};
use crate::layer::Xattr;
use crate::model::{FileKind, Ino, posix_acl};
use crate::upper::is_private;

/// File capabilities (capabilities(7)).
pub(super) const CAPABILITY: &[u8] = b"security.capability";

impl Fs {
    /// The value of an attribute.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`] when there is none, or none that is shown.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        must_exist(name)?;
        let node = self.node(ino)?;
        let _using = self.using_layers();
        let lower = node.state().lower.clone();
        if let Some(pinned) = self.pin(&node)? {
            let is_file = node.kind == FileKind::Regular;
            if is_file && name == CAPABILITY && !self.has_capabilities(&node, &pinned)? {
                return Err(FsError::NoAttribute);
            }
            let value = self.upper()?.xattr(&pinned, name)?.ok_or(FsError::NoAttribute)?;
            return self.owners.shown_xattr(name, value);
        }
        let found = self.lower_xattrs(ino, lower)?.into_iter().find(|(key, _)| **key == *name);
        let (_, value) = found.ok_or(FsError::NoAttribute)?;
        self.owners.shown_xattr(name, value.into_vec())
    }

    /// The names of all attributes that are shown.
    ///
    /// # Errors
    /// [`FsError`]
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        let node = self.node(ino)?;
        let _using = self.using_layers();
        let lower = node.state().lower.clone();
        if let Some(pinned) = self.pin(&node)? {
            return Ok(self.upper()?.xattr_names(&pinned)?);
        }
        Ok(self.lower_xattrs(ino, lower)?.into_iter().map(|(name, _)| name.into_vec()).collect())
    }

    /// The names of all attributes that are shown to `caller`: those of `trusted.` only to the privileged (xattr(7)).
    ///
    /// # Errors
    /// [`FsError`]
    pub fn listxattr_for(&self, ino: Ino, caller: Caller) -> Result<Vec<Vec<u8>>, FsError> {
        let mut names = self.listxattr(ino)?;
        let is_trusted = |name: &Vec<u8>| name.starts_with(b"trusted.");
        if names.iter().any(is_trusted) && !caller.sees_trusted() {
            names.retain(|name| !is_trusted(name));
        }
        Ok(names)
    }

    /// Sets an attribute, copying up before; `flags` as in setxattr(2).
    ///
    /// # Errors
    /// [`FsError`]
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], flags: u32) -> Result<(), FsError> {
        self.may_change(name)?;
        let node = self.node(ino)?;
        let flags = XattrFlags::from_bits(flags).ok_or(FsError::Invalid)?;
        let value = self.owners.stored_xattr(name, value)?;
        let pinned = self.raise(&node, u64::MAX)?;
        let _attributes = node.attributes();
        let _changing = node.changing();
        Ok(self.upper()?.set_xattr(&pinned, name, &value, flags)?)
    }

    /// Removes an attribute, copying up before.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`] when there is none. To have no ACL is no error, as upon ext4.
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        self.may_change(name)?;
        match self.getxattr(ino, name) {
            Err(FsError::NoAttribute) if name.starts_with(posix_acl::PREFIX) => return Ok(()),
            found => found?,
        };
        let node = self.node(ino)?;
        let pinned = self.raise(&node, u64::MAX)?;
        let _attributes = node.attributes();
        let _changing = node.changing();
        Ok(self.upper()?.remove_xattr(&pinned, name)?)
    }

    fn may_change(&self, name: &[u8]) -> Result<(), FsError> {
        must_exist(name)?;
        // An ACL names ids and shares bits with the mode; where those are not real it would mean something else.
        if name.starts_with(posix_acl::PREFIX) && !self.owners.are_real() {
            return Err(FsError::NotSupported);
        }
        Ok(())
    }

    /// `lower` was taken before the upper was asked: a copy-up in between forgets it.
    fn lower_xattrs(&self, ino: Ino, lower: LowerPart) -> Result<Vec<Xattr>, FsError> {
        let mut xattrs = match lower {
            LowerPart::Leaf(lower, _) => self.union.xattrs(lower)?,
            LowerPart::Dir(dir) => self.union.dir_xattrs(&dir)?,
            LowerPart::None => return Err(FsError::Lost(ino)),
        };
        // What is refused by name is not there for anybody.
        let is_refused = |name: &[u8]| name.starts_with(b"system.") && must_exist(name).is_err();
        xattrs.retain(|(name, _)| !is_private(name) && !is_refused(name));
        Ok(xattrs)
    }
}

/// Names outside the known namespaces exist nowhere, nor do names of nothing but the namespace (xattr(7)).
fn must_exist(name: &[u8]) -> Result<(), FsError> {
    let known: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system.posix_acl_"];
    match known.iter().find_map(|namespace| name.strip_prefix(*namespace)) {
        None => Err(FsError::NotSupported),
        Some([]) => Err(FsError::Invalid),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::OwnerView;
    use crate::layer::fake::FakeLayer;
    use crate::model::Name;
    use crate::union::Union;

    #[test]
    fn what_is_refused_by_name_is_not_listed() {
        let acl = b"system.posix_acl_access";
        let mut layer = FakeLayer::new().file("f", b"");
        for key in ["system.nfs4_acl", crate::model::stats::ATTRIBUTE, "user.x"] {
            layer = layer.xattr("f", key, b"1");
        }
        let fs = Fs::new(Union::new(vec![Arc::new(layer)]), None, OwnerView::Image).unwrap();
        let ino = fs.lookup(Ino::ROOT, Name::new(b"f").unwrap()).unwrap().unwrap().ino;
        assert_eq!(fs.listxattr(ino).unwrap(), [b"user.x"]);
        assert!(matches!(fs.getxattr(ino, b"system.nfs4_acl"), Err(FsError::NotSupported)));
        assert!(matches!(fs.getxattr(ino, acl), Err(FsError::NoAttribute)));
    }
}
