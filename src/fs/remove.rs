//! unlink and rmdir.

use std::sync::Arc;

use super::find::{Found, FoundLower};
use super::node::{Home, LowerPart, Node, UpperPart};
use super::{Fs, FsError};
use crate::model::{FileKind, Ino, Name};
use crate::upper::{Kept, Looked};

/// What must be known of an object before one of its names goes away.
pub(super) struct Leaving<'a> {
    node: Option<Arc<Node>>,
    ino: Ino,
    /// What will lead to it if this was its last name. Otherwise a descriptor does.
    kept: Option<Kept<'a>>,
    /// It is in the link index.
    indexed: bool,
    /// Of an object with several names in its layer, how many lead to it still, if it is in the link index.
    lower_names: Option<u32>,
}

impl Fs {
    /// Removes a name that leads to anything but a directory.
    ///
    /// # Errors
    /// [`FsError`]
    pub fn unlink(&self, parent: Ino, name: Name<'_>) -> Result<(), FsError> {
        self.remove(parent, name, false)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`FsError::NotEmpty`] when it shows any name.
    pub fn rmdir(&self, parent: Ino, name: Name<'_>) -> Result<(), FsError> {
        self.remove(parent, name, true)
    }

    fn remove(&self, parent: Ino, name: Name<'_>, directory: bool) -> Result<(), FsError> {
        let upper = self.upper()?;
        let dir = self.node(parent)?;
        let view = self.view(&dir)?;
        let found = self.find(&view, name)?.ok_or(FsError::NotFound)?;
        match (found.kind == FileKind::Directory, directory) {
            (true, false) => return Err(FsError::IsADirectory),
            (false, true) => return Err(FsError::NotADirectory),
            (true, true) => self.must_be_empty(&found)?,
            (false, false) => {}
        }
        let pinned = self.raise(&dir, 0)?;
        let leaving = self.leaving(&found)?;
        let hide = self.union.lookup(&view.lower, name)?.is_some();
        // An object of the link index may have this name in the upper too, or only in the layers.
        let in_upper = matches!(upper.look(&pinned, name)?, Looked::Object(_));
        if in_upper {
            upper.remove(&pinned, name, found.kind, hide)?;
        } else {
            upper.hide(&pinned, name)?;
        }
        dir.touch();
        self.left(leaving, parent, name, !in_upper);
        Ok(())
    }

    /// Before a name goes away: holds on to an object that may be left without a name but still open, and finds out
    /// all that the layers must say, because afterwards there is no way back.
    pub(super) fn leaving(&self, found: &Found) -> Result<Leaving<'_>, FsError> {
        let indexed = matches!(found.upper, Some((_, Home::Index)));
        let lower_names = match found.lower {
            FoundLower::Leaf(lower) if indexed => Some(self.visible_names(lower, found.ino)?),
            FoundLower::Leaf(lower) if self.is_linked(lower, found.ino)? => Some(0),
            _ => None,
        };
        let node = self.table.get(found.ino);
        let kept = match &node {
            Some(node) => self.hold_on(node)?,
            None => None,
        };
        Ok(Leaving { node, ino: found.ino, kept, indexed, lower_names })
    }

    /// Sees to it that an object can still be reached when its last name is gone: by a descriptor, and when there are
    /// many of those by a link in `work/tmp`.
    fn hold_on(&self, node: &Node) -> Result<Option<Kept<'_>>, FsError> {
        let is_kept = |part: &UpperPart| matches!(part.home, Home::Kept(_));
        if node.state().upper.as_ref().is_some_and(is_kept) {
            return Ok(None);
        }
        let Some(pinned) = self.pin(node)? else { return Ok(None) };
        let mut kept = None;
        if node.kind == FileKind::Regular && !self.pins.may_hold() {
            match self.upper()?.keep(&pinned) {
                Ok(link) => kept = Some(link),
                Err(error) => tracing::debug!("inode {}: holds a descriptor: {error}", node.ino.0),
            }
        }
        if let Some(part) = node.state().upper.as_mut() {
            part.pinned = Some(pinned);
        }
        Ok(kept)
    }

    /// After the name has gone. `from_layers`: it was the layers' name, so there is one less of those.
    pub(super) fn left(&self, leaving: Leaving<'_>, parent: Ino, name: Name<'_>, from_layers: bool) {
        let Leaving { node, ino, mut kept, indexed, lower_names } = leaving;
        let mut own_links = 1;
        if let Some(node) = &node {
            let nameless = self.table.remove_place(ino, parent, name);
            let mut state = node.state();
            state.removed = nameless;
            if let (true, LowerPart::Leaf(_, names)) = (from_layers, &mut state.lower) {
                *names = names.saturating_sub(1);
            }
            if let Some(part) = state.upper.as_mut() {
                own_links += u32::from(self.keep_or_hold(part, ino, nameless, &mut kept));
            }
            if nameless && node.kind == FileKind::Directory && state.upper.is_some() {
                // The whiteouts that hid the layers' names are gone with it.
                state.lower = LowerPart::None;
                state.version += 1;
            }
        }
        // Not needed, if it still is there.
        drop(kept);
        if from_layers && lower_names.is_some() {
            self.count_gone(ino);
        }
        if let Some(node) = node
            && !matches!(node.kind, FileKind::Regular | FileKind::Directory)
        {
            self.forget_number(&node);
        }
        let lower_names = lower_names.unwrap_or(0).saturating_sub(u32::from(from_layers));
        if indexed && lower_names == 0 {
            self.drop_from_index(ino, own_links);
        }
    }

    /// Settles how an object that has lost a name is reached from now on. Returns whether a link in `work/tmp` is it.
    fn keep_or_hold(
        &self,
        part: &mut UpperPart,
        ino: Ino,
        nameless: bool,
        kept: &mut Option<Kept<'_>>,
    ) -> bool {
        match (nameless, kept.take()) {
            (true, Some(kept)) => (part.home, part.pinned) = (Home::Kept(kept.stay()), None),
            (true, None) if part.pinned.is_some() => self.pins.holds(ino),
            (true, None) => {}
            (false, unused) => {
                *kept = unused;
                part.pinned = None;
            }
        }
        matches!(part.home, Home::Kept(_))
    }

    /// Remembers that one of several names of the layers does not lead to its object any more.
    pub(super) fn count_gone(&self, ino: Ino) {
        let counted = self.upper().and_then(|upper| Ok(upper.one_name_gone(ino)?));
        // The name is gone already: an error would claim that it is not.
        if let Err(error) = counted {
            tracing::warn!("inode {}: shows a link too many from now on: {error}", ino.0);
        }
    }

    /// Forgets the number that is kept beside the upper for an object that is gone. It is pinned still, so nothing
    /// else can have got its inode number there.
    fn forget_number(&self, node: &Node) {
        let Some(part) = node.state().upper.clone() else { return };
        let Some(pinned) = part.pinned else { return };
        let forget = || {
            let upper = self.upper()?;
            match upper.attr(&pinned, b"(deleted)")?.nlink {
                0 => Ok(upper.forget_number(part.st_ino)?),
                _ => Ok(()),
            }
        };
        if let Err(error) = forget() {
            let error: FsError = error;
            tracing::warn!("inode {}: its number stays recorded: {error}", node.ino.0);
        }
    }

    /// Takes an object that the layers' names do not lead to out of the link index, unless the upper's do. `own_links`:
    /// those of our bookkeeping.
    fn drop_from_index(&self, ino: Ino, own_links: u32) {
        let drop = || {
            let upper = self.upper()?;
            match upper.indexed(ino)? {
                Some(indexed) if indexed.attr.nlink <= own_links => Ok(upper.forget_indexed(ino)?),
                _ => Ok(()),
            }
        };
        if let Err(error) = drop() {
            let error: FsError = error;
            tracing::warn!("inode {}: stays in the link index: {error}", ino.0);
        }
    }

    pub(super) fn must_be_empty(&self, found: &Found) -> Result<(), FsError> {
        let lower = match &found.lower {
            FoundLower::Dir(lower) => Arc::clone(lower),
            _ => Arc::default(),
        };
        let names = self.merged_names(&lower, found.upper.as_ref().map(|(object, _)| &object.pinned))?;
        if names.is_empty() { Ok(()) } else { Err(FsError::NotEmpty) }
    }
}
