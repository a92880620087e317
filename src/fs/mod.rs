//! Row 5: filesystem semantics, without FUSE. One file per family of verbs; errno is chosen in [`FsError::errno`].
//!
//! A node is looked up, changed and forgotten by its number ([`Ino`]). What changes is copied up first; parents before
//! children. The kernel serialises changes of one directory (it holds the directory's lock while it asks), so no lock
//! here does; what protects against everything else is that objects of the upper are reached by descriptors of their
//! directories and checked by inode number, never by a path.

mod all_names;
mod attr;
mod caller;
mod changes;
mod complete;
mod copy_up;
mod counts;
mod create;
mod error;
mod file;
mod find;
mod known;
mod leaves;
mod link;
mod link_counts;
mod listing;
mod lookup;
mod node;
mod owners;
mod pins;
mod readdir;
mod release;
mod remove;
mod rename;
mod setattr;
mod settle;
mod sharing;
mod shed;
mod statfs;
mod table;
mod take_over;
mod whole;
mod xattr;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use attr::Attr;
pub use caller::Caller;
pub use changes::{Change, Changed, ChangesError};
pub use complete::Completed;
pub use create::New;
pub use error::FsError;
pub use file::{Content, Seek};
pub use owners::{IdRange, IdView, OwnerView};
pub use readdir::{DirEntry, DirName, Heard};
pub use rename::{End, RenameMode};
pub use shed::Hearer;
pub use statfs::Space;

use counts::Counts;
use node::{LowerPart, Node, UpperPart};
use owners::Owners;
use pins::Pins;
use release::Release;
use settle::Unsettled;
use shed::Shed;
use table::Table;

use crate::model::{FileKind, Ino};
use crate::union::{LinkCounts, Union};
use crate::upper::{Origin, Upper};

/// A mounted image: its layers and, unless it is read-only, its upper.
#[derive(Debug)]
pub struct Fs {
    union: Union,
    upper: Option<Upper>,
    owners: Owners,
    table: Table,
    pins: Pins,
    unsettled: Unsettled,
    link_counts: LinkCounts,
    release: Release,
    counts: Counts,
    shed: Shed,
    /// Reading a file of a layer sets its time of access.
    keeps_access_times: bool,
}

impl Fs {
    /// Puts layers and upper together. Without an upper every change is refused with `EROFS`.
    ///
    /// # Errors
    /// [`FsError`] when a root directory cannot be read.
    pub fn new(union: Union, upper: Option<Upper>, owners: OwnerView) -> Result<Self, FsError> {
        let mut lower = union.root()?;
        let part = match &upper {
            Some(upper) => {
                let root = upper.root()?;
                if root.marks.opaque {
                    lower.parts.clear();
                } else if root.marks.ino.is_none() && !lower.parts.is_empty() {
                    let metadata = union.dir_metadata(&lower)?;
                    let xattrs = union.dir_xattrs(&lower)?;
                    let content = &mut |_: u64, _: &mut [u8]| Ok(0);
                    let origin = Origin {
                        metadata,
                        xattrs,
                        ino: Ino::ROOT,
                        target: &[],
                        content,
                        keep_bytes: 0,
                        later: None,
                    };
                    upper.adopt_root(&root, &origin)?;
                }
                Some(UpperPart::named(root.attr.st_ino))
            }
            None => None,
        };
        let lower = Arc::new(lower);
        let root = Node::new(Ino::ROOT, FileKind::Directory, LowerPart::Dir(Arc::clone(&lower)), part);
        let fs = Self {
            union,
            keeps_access_times: upper.is_some(),
            upper,
            owners: owners.into(),
            table: Table::with_root(root),
            pins: Pins::new(),
            unsettled: Unsettled::default(),
            link_counts: LinkCounts::default(),
            release: Release::default(),
            counts: Counts::default(),
            shed: Shed::default(),
        };
        fs.take_over(&lower)?;
        fs.recover()?;
        fs.name_the_rest()?;
        Ok(fs)
    }

    /// The same, whose times of access do not change by reading (mount(8), `noatime`).
    #[must_use]
    pub fn without_access_times(mut self) -> Self {
        self.keeps_access_times = false;
        self.upper = self.upper.map(Upper::without_access_times_of_files);
        self.without_access_times_of_dirs()
    }

    /// The same, where reading a directory does not change its time of access (mount(8), `nodiratime`).
    #[must_use]
    pub fn without_access_times_of_dirs(mut self) -> Self {
        self.upper = self.upper.map(Upper::without_access_times_of_dirs);
        self
    }

    fn upper(&self) -> Result<&Upper, FsError> {
        self.upper.as_ref().ok_or(FsError::ReadOnly)
    }

    fn node(&self, ino: Ino) -> Result<Arc<Node>, FsError> {
        self.table.get(ino).ok_or(FsError::Stale(ino))
    }
}
