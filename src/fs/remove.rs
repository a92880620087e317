//! unlink and rmdir.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::find::{Found, FoundLower};
use super::node::{Home, LowerPart, Node, UpperPart};
use super::{End, Fs, FsError};
use crate::model::{FileKind, Ino, Name};
use crate::union::LowerRef;
use crate::upper::{Going, Kept, Object, There, Upper};

/// An object one of whose names is about to go. Dropped, it stays as it is.
pub(super) struct Leaving<'a> {
    end: End<'a>,
    ino: Ino,
    node: Option<Arc<Node>>,
    /// What the upper has of it.
    object: Option<&'a Object>,
    /// Keeps it for those who have it open, when it has no name any more.
    pinned: Option<Arc<OwnedFd>>,
    /// Does so in its place.
    kept: Option<Kept<'a>>,
    /// It is in the link index.
    indexed: bool,
    /// The layers' names that will lead to it still, if it is in the link index.
    lower_names: u32,
    /// The name is one of several that the layers have of it.
    going: Option<Going<'a>>,
    /// The name is one that the layers have.
    from_layers: bool,
    is_gone: bool,
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
        let _using = self.using_layers();
        let upper = self.upper()?;
        let dir = self.node(parent)?;
        let view = self.view(&dir)?;
        let (found, there) = self.find_there(&view, name)?;
        let found = found.ok_or(FsError::NotFound)?;
        match (found.kind == FileKind::Directory, directory) {
            (true, false) => return Err(FsError::IsADirectory),
            (false, true) => return Err(FsError::NotADirectory),
            (true, true) => self.must_be_empty(&found)?,
            (false, false) => {}
        }
        let still = self.to_hold_still(&found);
        let _still = still.as_ref().map(|node| node.copy_up());
        let pinned = self.raise(&dir, 0)?;
        let (found, there) = match still {
            Some(_) => {
                let (found, there) = self.find_there(&self.view(&dir)?, name)?;
                (found.ok_or(FsError::NotFound)?, there)
            }
            None => (found, there),
        };
        let hide = self.union.lookup(&view.lower, name)?.is_some();
        // An object of the link index may have this name in the upper too, or only in the layers.
        let in_upper = there == There::Object;
        let leaving = self.leaving(&found, End { parent, name }, in_upper)?;
        let names = dir.names_shared();
        if in_upper {
            upper.remove(&pinned, name, found.kind, hide)?;
        } else {
            upper.hide(&pinned, name)?;
        }
        drop(names);
        dir.touch();
        self.left(leaving);
        Ok(())
    }

    /// The node that must not be copied up while one of its names goes away: the kernel writes dirty pages of a mapping
    /// back without the locks that keep everything else apart. Its copy-up lock is to be taken, and it is looked at again.
    pub(super) fn to_hold_still(&self, found: &Found) -> Option<Arc<Node>> {
        let may_be_copied = match &found.upper {
            None => true,
            // All its names are being given to it, perhaps.
            Some((_, Home::Index)) => self.upper.as_ref().is_some_and(Upper::is_shared),
            Some(_) => false,
        };
        if may_be_copied && found.kind == FileKind::Regular { self.table.get(found.ino) } else { None }
    }

    /// Before a name goes away: holds on to an object that may be left without a name but still open, and finds out
    /// all that the layers must say, because afterwards there is no way back.
    pub(super) fn leaving<'a>(
        &'a self,
        found: &'a Found,
        end: End<'a>,
        in_upper: bool,
    ) -> Result<Leaving<'a>, FsError> {
        let mut leaving = Leaving {
            end,
            ino: found.ino,
            node: self.table.get(found.ino),
            object: found.upper.as_ref().map(|(object, _)| object),
            pinned: None,
            kept: None,
            indexed: matches!(found.upper, Some((_, Home::Index))),
            lower_names: 0,
            going: None,
            from_layers: !in_upper,
            is_gone: false,
        };
        if let FoundLower::Leaf(lower) = found.lower {
            if leaving.indexed {
                // Whether it is the last one must be certain, as the object would go with it; so what a node knows does
                // not do.
                let names = self.visible_names(lower, found.ino)?;
                leaving.lower_names = names.saturating_sub(u32::from(!in_upper));
            }
            if !in_upper && (leaving.indexed || self.is_linked(lower, found.ino)?) {
                let path = self.table.path(end.parent, end.name);
                leaving.going = Some(self.upper()?.name_going(found.ino, &path)?);
            }
        }
        if let Some(node) = &leaving.node {
            (leaving.pinned, leaving.kept) = self.hold_on(node)?;
        }
        Ok(leaving)
    }

    /// Sees to it that an object can still be reached when its last name is gone: by a descriptor, and when there are
    /// many of those by a link in `work/tmp`.
    fn hold_on(&self, node: &Node) -> Result<(Option<Arc<OwnedFd>>, Option<Kept<'_>>), FsError> {
        let is_kept = |part: &UpperPart| matches!(part.home, Home::Kept(_));
        if node.state().upper.as_ref().is_some_and(is_kept) {
            return Ok((None, None));
        }
        let Some(pinned) = self.pin(node)? else { return Ok((None, None)) };
        let mut kept = None;
        // What the link index leads to may get names again from there.
        let is_named = node.state().upper.as_ref().is_some_and(|part| part.home == Home::Named);
        if node.kind == FileKind::Regular && is_named && !self.pins.may_hold() {
            match self.upper()?.keep(&pinned) {
                Ok(link) => kept = Some(link),
                Err(error) => tracing::debug!("inode {}: holds a descriptor: {error}", node.ino.0),
            }
        }
        if let Some(part) = node.state().upper.as_mut() {
            part.pinned = Some(Arc::clone(&pinned));
        }
        Ok((Some(pinned), kept))
    }

    /// After the name has gone.
    pub(super) fn left(&self, mut leaving: Leaving<'_>) {
        leaving.is_gone = true;
        if let Some(going) = leaving.going.take() {
            going.gone();
        }
        if let Some(node) = leaving.node.clone() {
            self.left_by(&node, &mut leaving);
        }
        if leaving.indexed && leaving.lower_names == 0 {
            self.drop_from_index(leaving.ino);
        }
        // The index has a link to what it leads to.
        if let Some(object) = leaving.object {
            self.forget_number(leaving.ino, object);
        }
    }

    fn left_by(&self, node: &Node, leaving: &mut Leaving<'_>) {
        let nameless = self.table.remove_place(leaving.ino, leaving.end.parent, leaving.end.name);
        let mut state = node.state();
        state.removed = nameless;
        if let (true, LowerPart::Leaf(_, names)) = (leaving.from_layers, &mut state.lower) {
            *names = names.saturating_sub(1);
        }
        if let Some(part) = state.upper.as_mut() {
            part.pinned = None;
            match (nameless, leaving.kept.take()) {
                (true, Some(kept)) => part.home = Home::Kept(kept.stay()),
                (true, None) => {
                    part.pinned.clone_from(&leaving.pinned);
                    if part.pinned.is_some() {
                        self.pins.holds(leaving.ino);
                    }
                }
                (false, kept) => leaving.kept = kept,
            }
        }
        if nameless && node.kind == FileKind::Directory && state.upper.is_some() {
            // The whiteouts that hid the layers' names are gone with it.
            state.lower = LowerPart::None;
            state.version += 1;
        }
        drop(state);
        if nameless && let Err(error) = self.forget_unsettled(node) {
            tracing::warn!("inode {}: takes room a little longer: {error}", node.ino.0);
        }
    }

    /// Forgets the number that is kept beside the upper for an object, if that is gone.
    fn forget_number(&self, ino: Ino, object: &Object) {
        let forget = || Ok(self.upper()?.forget_number(object)?);
        if let Err(error) = forget() {
            let error: FsError = error;
            tracing::warn!("inode {}: its number stays recorded: {error}", ino.0);
        }
    }

    /// Takes an object that the layers' names do not lead to out of the link index, unless the upper's do.
    fn drop_from_index(&self, ino: Ino) {
        let drop = || {
            let upper = self.upper()?;
            match upper.indexed(ino)? {
                Some(indexed) if indexed.attr.nlink > 1 => Ok(()),
                Some(indexed) => {
                    upper.forget_indexed(ino)?;
                    Ok(upper.forget_number(&indexed)?)
                }
                // Without it a counter may still be there.
                None => Ok(upper.forget_indexed(ino)?),
            }
        };
        if let Err(error) = drop() {
            let error: FsError = error;
            tracing::warn!("inode {}: stays in the link index: {error}", ino.0);
        }
    }

    /// After a crash: counts the names that went in that moment, and takes what no name leads to out of the link index.
    pub(super) fn recover(&self) -> Result<(), FsError> {
        let Some(upper) = &self.upper else { return Ok(()) };
        upper.recover()?;
        for ino in upper.with_names_gone()? {
            let Some(lower) = LowerRef::of_number(ino) else { continue };
            // What the layers cannot say today they may say another day.
            if matches!(self.visible_names(lower, ino), Ok(0)) {
                self.drop_from_index(ino);
            }
        }
        Ok(())
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

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let (false, Some(node)) = (self.is_gone, &self.node)
            && let Some(part) = node.state().upper.as_mut()
        {
            part.pinned = None;
        }
    }
}
