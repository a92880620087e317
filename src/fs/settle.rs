//! Making an upper one that others show as it is: kernel overlayfs knows nothing of the link index, and without root it
//! follows no redirect.

use std::sync::Arc;

use super::node::{Home, Node};
use super::{Fs, FsError};
use crate::model::{FileKind, FileName, Ino, Name};
use crate::upper::Looked;

impl Fs {
    /// Gives every hard link of the layers that was copied up all its names in the upper, and copies what is below
    /// renamed directories up where others could not find it. For a tree that nobody looks at meanwhile; afterwards it
    /// is the same.
    ///
    /// # Errors
    /// [`FsError`]; what was done until then is right, and can be done again.
    pub fn settle(&self) -> Result<(), FsError> {
        self.settle_dir(Ino::ROOT, false)?;
        let upper = self.upper()?;
        for ino in upper.all_indexed()? {
            upper.forget_indexed(ino)?;
        }
        Ok(())
    }

    /// `whole`: all that is in it is to be in the upper.
    fn settle_dir(&self, ino: Ino, whole: bool) -> Result<(), FsError> {
        let upper = self.upper()?;
        let node = self.node(ino)?;
        let redirected = match self.pin(&node)? {
            Some(_) if upper.others_follow_redirects() => false,
            Some(pinned) => upper.is_redirected(&*pinned)?,
            None => false,
        };
        let whole = whole || redirected;
        for name in self.names(ino)? {
            let Some(attr) = self.lookup(ino, name.as_name())? else { continue };
            let settled = match attr.metadata.kind {
                FileKind::Directory => self.settle_dir(attr.ino, whole),
                _ => self.settle_leaf(&node, name.as_name(), attr.ino, whole),
            };
            self.forget(attr.ino, 1);
            settled?;
        }
        if whole {
            let pinned = self.raise(&node, 0)?;
            upper.make_whole(&*pinned)?;
            // Whoever looks again finds it so.
            node.touch();
        }
        Ok(())
    }

    fn settle_leaf(&self, dir: &Arc<Node>, name: Name<'_>, ino: Ino, whole: bool) -> Result<(), FsError> {
        let (node, upper) = (self.node(ino)?, self.upper()?);
        if whole {
            self.raise(&node, u64::MAX)?;
        }
        if !node.state().upper.as_ref().is_some_and(|part| part.home == Home::Index) {
            return Ok(());
        }
        let pinned = self.raise(dir, 0)?;
        match upper.look(&*pinned, name)? {
            Looked::Absent => Ok(upper.name_indexed(ino, &*pinned, name)?),
            Looked::Whiteout | Looked::Object(_) => Ok(()),
        }
    }

    fn names(&self, ino: Ino) -> Result<Vec<FileName>, FsError> {
        let mut names = Vec::new();
        self.readdir(ino, 0, false, &mut |entry, _| {
            names.extend(entry.file_name().map(Name::to_owned));
            true
        })?;
        Ok(names)
    }
}
