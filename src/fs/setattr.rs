//! Changing attributes.

use std::os::fd::OwnedFd;

use super::create::Caller;
use super::node::Node;
use super::xattr::CAPABILITY;
use super::{Attr, Fs, FsError, OwnerView};
use crate::model::{FileKind, Ino};
use crate::upper::{Change, UpperAttr, without_suid};

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
        let (uid, gid) = self.stored_ids(set)?;
        let change = Change { uid, gid, ..*set };
        // A copy-up to the new size is a truncate already, so it is for files that have nothing else to lose by that.
        let cuts = node.state().upper.is_none() && *set == Change { size: set.size, ..Change::default() };
        let cut = set.size.filter(|_| cuts && self.has_no_privileges(&node));
        let pinned = self.raise(&node, cut.unwrap_or(u64::MAX))?;
        let attr = match (self.change_raised(&node, &pinned, caller, change), cut) {
            (Err(error), Some(size)) => {
                let attr = self.upper()?.attr(&pinned, b"(node)")?;
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

    fn has_no_privileges(&self, node: &Node) -> bool {
        self.attr_of(node).is_ok_and(|attr| attr.metadata.mode & 0o6000 == 0)
            && matches!(self.getxattr(node.ino, CAPABILITY), Err(FsError::NoAttribute))
    }

    fn change_raised(
        &self,
        node: &Node,
        pinned: &OwnedFd,
        caller: Caller,
        mut change: Change,
    ) -> Result<UpperAttr, FsError> {
        let upper = self.upper()?;
        let chowned = node.kind != FileKind::Directory && (change.uid.is_some() || change.gid.is_some());
        if change.size.is_some() && caller.uid != 0 && change.mode.is_none() {
            // The kernel leaves this to us (FUSE_HANDLE_KILLPRIV_V2); root may keep the bits (CAP_FSETID).
            let mode = upper.attr(pinned, b"(node)")?.metadata.mode;
            change.mode = (without_suid(mode) != mode).then(|| without_suid(mode));
        }
        if chowned || change.size.is_some() {
            // Before, as the kernel does it: nothing may fail afterwards.
            self.drop_capabilities(node)?;
        }
        match change.size {
            Some(size) if node.sharing().is_some() => self.resize_shared(node, size, &change),
            _ => Ok(upper.change(pinned, b"(node)", &change)?),
        }
    }

    /// The ids to store. Where all objects are shown as one user's, a chown to that user changes nothing and a chown to
    /// anyone else could not be shown.
    fn stored_ids(&self, set: &Change) -> Result<(Option<u32>, Option<u32>), FsError> {
        match &self.owners {
            OwnerView::Image | OwnerView::Namespace { .. } => Ok((set.uid, set.gid)),
            OwnerView::Caller { uid, gid } => {
                let same = set.uid.is_none_or(|id| id == *uid) && set.gid.is_none_or(|id| id == *gid);
                if same { Ok((None, None)) } else { Err(FsError::NotPermitted) }
            }
        }
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
