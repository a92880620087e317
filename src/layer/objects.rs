//! What an index says of names and objects, in the words of this row.

use std::sync::Arc;

use super::chunk_reader::bad_index;
use super::{DirItem, Entry, Found, LayerError, Xattr};
use crate::index::{Child, IndexError, Inode, InodeNumber, LayerIndex};
use crate::model::{Digest, EntryId, Name};

/// The objects of a layer that has an index.
#[derive(Debug)]
pub(super) struct Objects {
    index: Arc<LayerIndex>,
    diff_id: Digest,
}

impl Objects {
    pub(super) fn new(index: Arc<LayerIndex>, diff_id: Digest) -> Self {
        Self { index, diff_id }
    }

    pub(super) fn index(&self) -> &LayerIndex {
        &self.index
    }

    pub(super) fn bad(&self, id: EntryId) -> impl Fn(IndexError) -> LayerError {
        let diff_id = self.diff_id;
        move |error| bad_index(diff_id, id, &error)
    }

    pub(super) fn entry_error(&self, entry: EntryId, reason: &'static str) -> LayerError {
        LayerError::BadEntry { layer: self.diff_id.to_string(), entry, reason }
    }

    fn number(&self, id: EntryId) -> Result<InodeNumber, LayerError> {
        let number = u32::try_from(id.0).ok().filter(|number| u64::from(*number) < self.index.inode_count());
        number.map(InodeNumber).ok_or_else(|| self.entry_error(id, "there is no such entry"))
    }

    pub(super) fn inode(&self, id: EntryId) -> Result<Inode, LayerError> {
        self.index.inode(self.number(id)?).map_err(self.bad(id))
    }

    /// An answer, unless part of the index could not be read while it was put together.
    pub(super) fn whole<T>(&self, id: EntryId, answer: Result<T, LayerError>) -> Result<T, LayerError> {
        if self.index.has_fault() {
            return Err(self.entry_error(id, "the index cannot be read any more"));
        }
        answer
    }

    pub(super) fn release_memory(&self) {
        if let Err(error) = self.index.release_memory() {
            tracing::debug!("{}: {error}", self.index.path().display());
        }
    }

    pub(super) fn root(&self) -> EntryId {
        EntryId(u64::from(self.index.root().0))
    }

    pub(super) fn entry(&self, id: EntryId) -> Result<Entry, LayerError> {
        let inode = self.whole(id, self.inode(id))?;
        let (names, implied, opaque) = (inode.names, inode.implied, inode.opaque);
        Ok(Entry { metadata: inode.metadata, names, implied, opaque })
    }

    pub(super) fn lookup(&self, dir: EntryId, name: Name<'_>) -> Result<Found, LayerError> {
        let child = self.inode(dir).and_then(|inode| self.index.child(&inode, name).map_err(self.bad(dir)));
        Ok(self.whole(dir, child)?.map_or(Found::Absent, found))
    }

    pub(super) fn read_dir(&self, dir: EntryId) -> Result<Vec<DirItem>, LayerError> {
        let children = self.inode(dir).and_then(|inode| self.index.children(&inode).map_err(self.bad(dir)));
        let item = |(name, child)| DirItem { name, found: found(child) };
        Ok(self.whole(dir, children)?.into_iter().map(item).collect())
    }

    pub(super) fn read_link(&self, id: EntryId) -> Result<Vec<u8>, LayerError> {
        let target = |inode: Inode| Ok(self.index.target(&inode).map_err(self.bad(id))?.to_vec());
        self.whole(id, self.inode(id).and_then(target))
    }

    pub(super) fn xattrs(&self, id: EntryId) -> Result<Vec<Xattr>, LayerError> {
        self.whole(id, self.inode(id).and_then(|inode| self.index.xattrs(&inode).map_err(self.bad(id))))
    }

    pub(super) fn paths(&self, id: EntryId) -> Result<Vec<Box<[u8]>>, LayerError> {
        let paths = |number| self.index.paths(number).map_err(self.bad(id));
        self.whole(id, self.number(id).and_then(paths))
    }
}

fn found(child: Child) -> Found {
    match child {
        Child::Object(number) => Found::Entry(EntryId(u64::from(number.0))),
        Child::Whiteout => Found::Whiteout,
        Child::Below(path) => Found::LinkBelow(path),
    }
}
