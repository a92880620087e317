//! Making an upper whole: afterwards others, that know nothing of extent maps and of the link index, see the same tree.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::node::{Home, LowerPart, Node};
use super::{Fs, FsError};
use crate::model::{FileKind, Ino, Name};
use crate::upper::Looked;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completed {
    /// Files whose content was copied from a layer.
    pub files: u64,
    /// Names of hard links that were made.
    pub names: u64,
}

impl Fs {
    /// Copies what files of the upper still share with the layers, gives objects of the link index all the names in the
    /// upper that lead to them, and, where others follow no redirect, copies up what is in renamed directories. The upper
    /// is not bound to these layers any more, so nothing may be changed in this mount afterwards.
    ///
    /// # Errors
    /// [`FsError`]; what was done until then is done, and doing it again goes on.
    pub fn complete(&self) -> Result<Completed, FsError> {
        let _using = self.using_layers();
        self.make_directories_whole()?;
        let mut completed = Completed::default();
        let upper = self.upper()?;
        let has_links = upper.has_indexed()?;
        self.table.hold(Ino::ROOT);
        // Each is forgotten when its turn has come.
        let mut directories = vec![Ino::ROOT];
        let mut result = Ok(());
        while let Some(ino) = directories.pop() {
            if result.is_ok() {
                result = self.complete_dir(ino, has_links, &mut directories, &mut completed);
            }
            self.forget(ino, 1);
        }
        result?;
        // All names are in the upper now; here they would count as one more.
        for ino in upper.all_indexed()? {
            upper.forget_indexed(ino)?;
            if let Some(node) = self.table.get(ino) {
                let mut state = node.state();
                state.lower = LowerPart::None;
                if let Some(part) = state.upper.as_mut() {
                    part.home = Home::Named;
                }
            }
        }
        upper.completed()?;
        Ok(completed)
    }

    fn complete_dir(
        &self,
        ino: Ino,
        has_links: bool,
        directories: &mut Vec<Ino>,
        completed: &mut Completed,
    ) -> Result<(), FsError> {
        let dir = self.node(ino)?;
        let view = self.view(&dir)?;
        // What is only in the layers has nothing to complete, except names of objects of the link index.
        if view.upper.is_none() && !has_links {
            return Ok(());
        }
        for name in self.merged_names(&view.lower, view.upper.as_ref().map(Arc::as_ref))? {
            let Some(attr) = self.lookup(ino, name.as_name())? else { continue };
            if attr.metadata.kind == FileKind::Directory {
                directories.push(attr.ino);
                continue;
            }
            let result = self.complete_leaf(&dir, attr.ino, name.as_name(), completed);
            self.forget(attr.ino, 1);
            result?;
        }
        Ok(())
    }

    fn complete_leaf(
        &self,
        dir: &Node,
        ino: Ino,
        name: Name<'_>,
        completed: &mut Completed,
    ) -> Result<(), FsError> {
        let node = self.node(ino)?;
        if node.sharing().is_some() {
            self.complete_file(&node)?;
            completed.files += 1;
        }
        if node.kind == FileKind::Regular
            && let Some(pinned) = self.pin(&node)?
        {
            // Also of a file that was whole before, should a crash have left its record in the mark.
            self.upper()?.own_record(&pinned)?;
        }
        let is_indexed = node.state().upper.as_ref().is_some_and(|part| part.home == Home::Index);
        if is_indexed {
            let pinned = self.raise(dir, 0)?;
            completed.names += u64::from(self.name_in_upper(&node, dir, &pinned, name)?);
        }
        Ok(())
    }

    /// Gives an object of the link index this name in the upper too, if only the layers have it. Returns whether it did.
    pub(super) fn name_in_upper(
        &self,
        node: &Node,
        dir: &Node,
        pinned: &OwnedFd,
        name: Name<'_>,
    ) -> Result<bool, FsError> {
        let upper = self.upper()?;
        if !matches!(upper.look(pinned, name)?, Looked::Absent) {
            return Ok(false);
        }
        let going = upper.name_going(node.ino, &self.table.path(dir.ino, name))?;
        let alone = dir.names_alone();
        upper.name_indexed(going, pinned, name)?;
        drop(alone);
        if let LowerPart::Leaf(_, names) = &mut node.state().lower {
            *names = names.saturating_sub(1);
        }
        Ok(true)
    }
}
