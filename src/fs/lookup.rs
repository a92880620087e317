//! Lookup and forget: the kernel learns a number, and gives it back.

use std::sync::Arc;

use super::find::{Found, FoundLower};
use super::node::{Home, Node};
use super::sharing::Sharing;
use super::table::Entered;
use super::{Attr, Fs, FsError};
use crate::model::{FileKind, Ino, Name};
use crate::upper::Recorded;

/// How often the number of what was found may become another object's before it is entered.
const RETRIES: usize = 4;

impl Fs {
    /// What a name leads to; `None` when nothing does. Counts one lookup for [`Self::forget`].
    ///
    /// # Errors
    /// [`FsError`]
    pub fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Option<Attr>, FsError> {
        let _using = self.using_layers();
        let dir = self.node(parent)?;
        match self.find(&self.view(&dir)?, name)? {
            Some(found) => self.enter(found, parent, name, None).map(Some),
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

    /// Puts what was found into the table, counting one lookup. Of an object that was just created it says what is
    /// recorded.
    pub(super) fn enter(
        &self,
        found: Found,
        parent: Ino,
        name: Name<'_>,
        new: Option<Recorded>,
    ) -> Result<Attr, FsError> {
        let (found, entered) = self.enter_table(found, parent, name)?;
        let Some(node) = entered else { return self.leaf_attr(&found) };
        if let Some(recorded) = new {
            node.is_new(recorded);
        }
        let attr = match found.upper {
            Some((object, _)) => {
                let attr = self.attr_from(&node, &object.attr);
                self.pins.keep(node.ino, object.pinned);
                // A directory may have been looked at while a copy got its place there.
                let unsettled = found.kind == FileKind::Directory && new.is_none();
                if unsettled { self.attr_of(&node) } else { Ok(attr) }
            }
            None => self.attr_of(&node),
        };
        if attr.is_err() {
            // The kernel will not learn of this lookup.
            self.forget(node.ino, 1);
        }
        attr
    }

    /// Also returns what was found, which is something else if its number has become another object's meanwhile, and no
    /// node if it needs none.
    fn enter_table(
        &self,
        mut found: Found,
        parent: Ino,
        name: Name<'_>,
    ) -> Result<(Found, Option<Arc<Node>>), FsError> {
        for _ in 0..RETRIES {
            if found.is_leaf() && self.table.enter_leaf_again(found.ino, parent, name) {
                return Ok((found, None));
            }
            // Known nodes keep their own count, so it is only made for new ones.
            let mut entered = self.table.enter_known(found.ino, parent, name, |node| found.is_of(node));
            if matches!(entered, Entered::Unknown) {
                self.release.told(1);
                let names = match found.lower {
                    FoundLower::Leaf(lower) => self.visible_names(lower, found.ino)?,
                    _ => 0,
                };
                if found.is_leaf() && names == 1 && self.table.enter_leaf(found.ino, found.kind, parent, name)
                {
                    return Ok((found, None));
                }
                entered = self.table.enter(found.to_node(names), parent, name, |node| found.is_of(node));
            }
            if let Entered::Node(node) = entered {
                if node.sharing().as_ref().is_some_and(Sharing::is_unsettled) {
                    // Left behind by a server that was killed.
                    self.unsettled.add(&node, &self.table);
                }
                return Ok((found, Some(node)));
            }
            // Now it gets another one.
            let dir = self.view(&*self.node(parent)?)?;
            found = self.find(&dir, name)?.ok_or(FsError::NotFound)?;
        }
        Err(FsError::Stale(found.ino))
    }

    /// The attributes of what was entered without a node.
    fn leaf_attr(&self, found: &Found) -> Result<Attr, FsError> {
        let FoundLower::Leaf(lower) = found.lower else { return Err(FsError::Stale(found.ino)) };
        let metadata = self.union.metadata(lower);
        let metadata = metadata.inspect_err(|_| self.forget(found.ino, 1))?;
        Ok(self.attr_of_layer(found.ino, metadata, 1))
    }
}
