//! Lookup and forget: the kernel learns a number, and gives it back.

use std::sync::Arc;

use super::find::{Found, FoundLower};
use super::node::{Home, Node};
use super::sharing::Sharing;
use super::{Attr, Fs, FsError};
use crate::model::{FileKind, Ino, Name};

impl Fs {
    /// What a name leads to; `None` when nothing does. Counts one lookup for [`Self::forget`].
    ///
    /// # Errors
    /// [`FsError`]
    pub fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Option<Attr>, FsError> {
        let _using = self.using_layers();
        let dir = self.node(parent)?;
        match self.find(&self.view(&dir)?, name)? {
            Some(found) => self.enter(found, parent, name).map(Some),
            None => Ok(None),
        }
    }

    /// Takes back `count` lookups of a node.
    pub fn forget(&self, ino: Ino, count: u64) {
        let forgotten = self.table.forget(ino, count);
        for node in &forgotten.gone {
            self.pins.forget(node.ino);
            let home = node.state().upper.as_ref().map(|part| part.home);
            if let (Some(upper), Some(Home::Kept(serial))) = (&self.upper, home) {
                upper.drop_kept(serial);
            }
        }
        if forgotten.shrunk {
            self.release.want();
        }
        self.release_memory();
    }

    /// Puts what was found into the table, counting one lookup.
    pub(super) fn enter(&self, found: Found, parent: Ino, name: Name<'_>) -> Result<Attr, FsError> {
        let node = self.enter_node(&found, parent, name)?;
        let attr = match found.upper {
            Some((object, _)) => {
                let attr = self.attr_from(&node, &object.attr);
                self.pins.keep(node.ino, object.pinned);
                // A directory may have been looked at while a copy got its place there. Of one that was just created
                // it is too late for an error.
                let settled = if found.kind == FileKind::Directory { self.attr_of(&node).ok() } else { None };
                Ok(settled.unwrap_or(attr))
            }
            None => self.attr_of(&node),
        };
        if attr.is_err() {
            // The kernel will not learn of this lookup.
            self.forget(node.ino, 1);
        }
        attr
    }

    fn enter_node(&self, found: &Found, parent: Ino, name: Name<'_>) -> Result<Arc<Node>, FsError> {
        // Known nodes keep their own count, so it is only made for new ones.
        if let Some(node) = self.table.enter_known(found.ino, parent, name) {
            return Ok(node);
        }
        self.release.told(1);
        let names = match found.lower {
            FoundLower::Leaf(lower) => self.visible_names(lower, found.ino)?,
            _ => 0,
        };
        let node = self.table.enter(found.to_node(names), parent, name);
        if node.sharing().as_ref().is_some_and(Sharing::is_unsettled) {
            // Left behind by a server that was killed.
            self.unsettled.add(&node, &self.table);
        }
        Ok(node)
    }
}
