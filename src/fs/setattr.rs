//! Changing attributes.

use std::os::fd::OwnedFd;

use super::caller::without_privileges;
use super::node::Node;
use super::xattr::CAPABILITY;
use super::{Attr, Caller, Fs, FsError};
use crate::model::{FileKind, Ino, Metadata, posix_acl};
use crate::upper::{Change, SetTime, UpperAttr};

impl Fs {
    /// Changes attributes, copying up before; owner and group as this mount shows them. The kernel has checked that the
    /// caller may.
    ///
    /// # Errors
    /// [`FsError`]
    pub fn setattr(&self, ino: Ino, caller: Caller, set: &Change) -> Result<Attr, FsError> {
        let node = self.node(ino)?;
        if set.size.is_some() && node.kind != FileKind::Regular {
            return Err(if node.kind == FileKind::Directory {
                FsError::IsADirectory
            } else {
                FsError::Invalid
            });
        }
        if *set == Change::default() {
            return self.change_nothing(&node, &caller);
        }
        let (uid, gid) = self.owners.stored_ids(set)?;
        let change = Change { uid, gid, ..*set };
        let chowned = node.kind != FileKind::Directory && (set.uid.is_some() || set.gid.is_some());
        // A copy-up to the new size is a truncate already, so it is for files that have nothing else to lose by that. A
        // kernel that keeps times sends that of the truncate along.
        let truncates = Change { size: set.size, mtime: set.mtime, ..Change::default() };
        let cuts = node.state().upper.is_none() && *set == truncates;
        let cut = set.size.filter(|_| cuts && self.has_no_privileges(&node));
        let pinned = self.raise(&node, cut.unwrap_or(u64::MAX))?;
        let attr = match (self.change_raised(&node, &pinned, caller, chowned, change), cut) {
            (Err(error), Some(size)) => {
                let attr = self.upper_attr(&node, &pinned)?;
                if attr.metadata.size != size {
                    return Err(error);
                }
                tracing::warn!("inode {}: truncated, but not at this time: {error}", ino.0);
                attr
            }
            (result, _) => result?,
        };
        Ok(self.attr_from(&node, &attr))
    }

    /// Sets the time of last modification that the kernel has kept. It also does so when only the time of last change is
    /// new, after a name was removed for instance: an object of a layer then stays where it is.
    ///
    /// # Errors
    /// [`FsError`]
    pub fn keep_mtime(&self, ino: Ino, caller: Caller, mtime: SetTime) -> Result<Attr, FsError> {
        let node = self.node(ino)?;
        if node.state().upper.is_none() {
            let attr = self.attr_of(&node)?;
            if mtime == SetTime::To(attr.metadata.mtime) {
                return Ok(attr);
            }
        }
        self.setattr(ino, caller, &Change { mtime: Some(mtime), ..Change::default() })
    }

    fn has_no_privileges(&self, node: &Node) -> bool {
        self.attr_of(node).is_ok_and(|attr| attr.metadata.mode & 0o6000 == 0)
            && matches!(self.getxattr(node.ino, CAPABILITY), Err(FsError::NoAttribute))
    }

    fn change_raised(
        &self,
        node: &Node,
        pinned: &OwnedFd,
        caller: Caller,
        chowned: bool,
        mut change: Change,
    ) -> Result<UpperAttr, FsError> {
        let upper = self.upper()?;
        let _changing = node.changing();
        if change.mode.is_none() && (chowned || change.size.is_some()) {
            // The kernel leaves this to us (FUSE_HANDLE_KILLPRIV_V2), and fuser 0.18 does not hand over what the
            // kernel says about truncating.
            let Metadata { mode, gid, .. } = self.attr_from(node, &self.upper_attr(node, pinned)?).metadata;
            let left = without_privileges(mode, gid, &caller);
            change.mode = (left != mode && (chowned || !caller.keeps_setuid())).then_some(left);
        }
        if chowned || change.size.is_some() {
            // Before, as the kernel does it: nothing may fail afterwards.
            self.drop_capabilities(node)?;
        }
        let attr = match change.size {
            Some(size) if node.sharing().is_some() => self.resize_shared(node, size, &change)?,
            _ => {
                let _names = (node.kind == FileKind::Directory).then(|| node.names_shared());
                let _attributes = node.attributes();
                upper.change(pinned, b"(node)", &change)?
            }
        };
        if change.atime.is_some() {
            node.state().read_at = None;
        }
        Ok(attr)
    }

    /// What the kernel wants with a request to change nothing, it does not say. It may be chown(2) with both ids -1,
    /// which takes privileges as every chown does. Or it comes before a write, which may be anyone's who opened the
    /// file. So of somebody else than the owner it must not be taken for a chown, or any user could take setuid from
    /// any file; the write itself will do it.
    fn change_nothing(&self, node: &Node, caller: &Caller) -> Result<Attr, FsError> {
        let attr = self.attr_of(node)?;
        let Metadata { kind, mode, uid, gid, .. } = attr.metadata;
        let left = without_privileges(mode, gid, caller);
        match kind {
            FileKind::Directory | FileKind::Symlink => return Ok(attr),
            _ if caller.is_owner(uid) => {}
            // Nothing comes before a write into a fifo.
            FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice
                if left != mode =>
            {
                return Err(FsError::NotPermitted);
            }
            _ => return Ok(attr),
        }
        let pinned = self.raise(node, u64::MAX)?;
        let left = Change { mode: Some(left), ..Change::default() };
        let attributes = node.attributes();
        let _changing = node.changing();
        self.upper()?.change(&pinned, b"(node)", &left)?;
        drop(attributes);
        self.drop_capabilities(node)?;
        self.attr_of(node)
    }

    /// Takes setuid, setgid and capabilities from a file whose content `caller` is about to change in a way for which
    /// the kernel does not say whether they must go.
    ///
    /// # Errors
    /// [`FsError`]
    pub fn shed_privileges(&self, ino: Ino, caller: Caller) -> Result<(), FsError> {
        let node = self.node(ino)?;
        if self.attr_of(&node)?.metadata.mode & 0o6000 != 0 && !caller.keeps_setuid() {
            self.take_privileges(&node, &caller)?;
        }
        Ok(())
    }

    /// Takes setuid, setgid and capabilities from a file that `caller` may change, but not with them.
    pub(super) fn take_privileges(&self, node: &Node, caller: &Caller) -> Result<(), FsError> {
        let pinned = self.raise(node, u64::MAX)?;
        let attributes = node.attributes();
        let Metadata { mode, gid, .. } = self.attr_of(node)?.metadata;
        let left = without_privileges(mode, gid, caller);
        if left != mode {
            let change = Change { mode: Some(left), ..Change::default() };
            let _changing = node.changing();
            self.upper()?.change(&pinned, b"(node)", &change)?;
            self.mode_changed(node.ino);
        }
        drop(attributes);
        self.drop_capabilities(node)
    }

    /// After an access ACL was set: setgid goes, as with chmod(2), when the caller might not set it. The
    /// kernel would say so in a form that fuser 0.18 does not parse.
    ///
    /// # Errors
    /// [`FsError`]
    pub fn after_xattr(&self, ino: Ino, name: &[u8], caller: Caller) -> Result<(), FsError> {
        let node = self.node(ino)?;
        if name != posix_acl::ACCESS {
            return Ok(());
        }
        let Metadata { mode, gid, .. } = self.attr_of(&node)?.metadata;
        if mode & 0o2000 != 0 && !caller.may_set_group_bit(gid) {
            let pinned = self.raise(&node, u64::MAX)?;
            let _attributes = node.attributes();
            let change = Change { mode: Some(mode & !0o2000), ..Change::default() };
            let _changing = node.changing();
            self.upper()?.change(&pinned, b"(node)", &change)?;
        }
        Ok(())
    }

    /// File capabilities do not survive a change of owner or content (capabilities(7)).
    pub(super) fn drop_capabilities(&self, node: &Node) -> Result<(), FsError> {
        let Some(pinned) = self.pin(node)? else { return Ok(()) };
        let _attributes = node.attributes();
        if node.kind == FileKind::Regular && self.has_capabilities(node, &pinned)? {
            let _changing = node.changing();
            self.upper()?.remove_xattr(&pinned, CAPABILITY)?;
        }
        Ok(())
    }
}
