//! Hard links.

use super::{Attr, Fs, FsError};
use crate::model::{FileKind, Ino, Name};
use crate::upper::{Moved, There};

impl Fs {
    /// Gives an object one more name, copying it up before. Counts one lookup.
    ///
    /// # Errors
    /// [`FsError::Exists`] when the name leads to something.
    pub fn link(&self, ino: Ino, parent: Ino, name: Name<'_>) -> Result<Attr, FsError> {
        let upper = self.upper()?;
        upper.may_be_created(name)?;
        let node = self.node(ino)?;
        if node.kind == FileKind::Directory {
            return Err(FsError::NotPermitted);
        }
        let dir = self.node(parent)?;
        let _using = self.using_layers();
        let lower = self.view(&dir)?.lower;
        let source = self.raise(&node, u64::MAX)?;
        let pinned = self.raise(&dir, 0)?;
        let whiteout = match upper.there(&pinned, name)? {
            There::Object => return Err(FsError::Exists),
            There::Whiteout => true,
            There::Nothing if self.union.lookup(&lower, name)?.is_some() => return Err(FsError::Exists),
            There::Nothing => false,
        };
        let to =
            Moved { dir: std::os::fd::AsFd::as_fd(&*pinned), name, kind: None, whiteout, lower: whiteout };
        let before = self.attr_of(&node)?;
        let _names = dir.names_shared();
        upper.link(std::os::fd::AsFd::as_fd(&*source), &to)?;
        dir.touch();
        self.table.again(&node, parent, name);
        // Too late for an error.
        Ok(self.attr_of(&node).unwrap_or(Attr { nlink: before.nlink + 1, ..before }))
    }
}
