//! Renamed directories for those who follow no redirect: kernel overlayfs without root.

use super::node::{Home, LowerPart, Node};
use super::{Fs, FsError, Heard};
use crate::model::{FileKind, FileName, Ino, Name};

impl Fs {
    /// Copies up all that is below renamed directories, where others could not find it, so that no redirect is left.
    pub(super) fn make_directories_whole(&self) -> Result<(), FsError> {
        if self.upper()?.others_follow_redirects() {
            return Ok(());
        }
        self.make_inner_whole(Ino::ROOT, false)
    }

    /// `whole`: all that is in it is to be in the upper.
    fn make_inner_whole(&self, ino: Ino, whole: bool) -> Result<(), FsError> {
        let (upper, node) = (self.upper()?, self.node(ino)?);
        let whole = match self.pin(&node)? {
            Some(pinned) => whole || upper.is_redirected(&*pinned)?,
            // What is only in the layers is where others look for it.
            None if !whole => return Ok(()),
            None => true,
        };
        for name in self.names(ino)? {
            let Some(attr) = self.lookup(ino, name.as_name())? else { continue };
            let done = match attr.metadata.kind {
                FileKind::Directory => self.make_inner_whole(attr.ino, whole),
                _ if whole => self.make_leaf_own(&node, name.as_name(), attr.ino),
                _ => Ok(()),
            };
            self.forget(attr.ino, 1);
            done?;
        }
        if whole {
            let pinned = self.raise(&node, 0)?;
            let alone = node.names_alone();
            upper.make_whole(&*pinned)?;
            drop(alone);
            node.state().lower = LowerPart::None;
            node.touch();
        }
        Ok(())
    }

    /// Gives a name of the layers its object in the upper, under this very name.
    fn make_leaf_own(&self, dir: &Node, name: Name<'_>, ino: Ino) -> Result<(), FsError> {
        let leaf = self.node(ino)?;
        self.raise(&leaf, u64::MAX)?;
        if leaf.state().upper.as_ref().is_some_and(|part| part.home == Home::Index) {
            self.name_in_upper(&leaf, dir, &*self.raise(dir, 0)?, name)?;
        }
        Ok(())
    }

    fn names(&self, ino: Ino) -> Result<Vec<FileName>, FsError> {
        let mut names = Vec::new();
        let mut next = 0;
        // An error that comes after names is told to who reads on. Whoever does not would take them for all.
        while let Heard::Names = self.readdir(ino, next, false, &mut |entry, _| {
            names.extend(entry.file_name().map(Name::to_owned));
            next = entry.next;
            true
        })? {}
        Ok(names)
    }
}
