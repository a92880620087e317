//! Changing attributes.

use super::create::Caller;
use super::node::Node;
use super::xattr::CAPABILITY;
use super::{Attr, Fs, FsError};
use crate::model::{FileKind, Ino};
use crate::upper::{Change, without_suid};

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
        let (uid, gid) = self.owners.stored_ids(set)?;
        let mut change = Change { uid, gid, ..*set };
        let pinned = self.raise(&node, set.size.unwrap_or(u64::MAX))?;
        let upper = self.upper()?;
        let chowned = node.kind != FileKind::Directory && (uid.is_some() || gid.is_some());
        if set.size.is_some() && caller.uid != 0 && set.mode.is_none() {
            // The kernel leaves this to us (FUSE_HANDLE_KILLPRIV_V2); root may keep the bits (CAP_FSETID).
            let mode = upper.attr(&pinned, b"(node)")?.metadata.mode;
            change.mode = (without_suid(mode) != mode).then(|| without_suid(mode));
        }
        let attr = match set.size {
            Some(size) if node.sharing().is_some() => self.resize_shared(&node, size, &change)?,
            _ => upper.change(&pinned, b"(node)", &change)?,
        };
        if chowned || set.size.is_some() {
            self.drop_capabilities(&node)?;
        }
        Ok(self.attr_from(&node, &attr))
    }

    /// File capabilities do not survive a change of owner or content (capabilities(7)).
    pub(super) fn drop_capabilities(&self, node: &Node) -> Result<(), FsError> {
        let Some(pinned) = self.pin(node)? else { return Ok(()) };
        let upper = self.upper()?;
        if node.kind == FileKind::Regular && upper.xattr(&pinned, CAPABILITY)?.is_some() {
            upper.remove_xattr(&pinned, CAPABILITY)?;
        }
        Ok(())
    }
}
