//! A layer made of an index and a blob.

use std::sync::Arc;

use super::chunk_cache::ChunkCache;
use super::chunk_reader::{ChunkReader, bad_index};
use super::read_on::{Follower, ReadOn};
use super::spill::Spill;
use super::start_trace::StartTrace;
use super::{DirItem, Entry, Found, Layer, LayerError, Xattr};
use crate::index::{Child, Content, Extent, IndexError, Inode, InodeNumber, LayerIndex};
use crate::model::{Digest, EntryId, Name, TarOffset};
use crate::sys::file_range::FileRange;

/// Extents looked at in one go: a read of a file with many holes goes on from there.
const EXTENTS_AT_ONCE: u64 = 64;

/// A tar, compressed or not, read where it lies.
#[derive(Debug)]
pub struct TarLayer {
    index: Arc<LayerIndex>,
    pub(super) chunks: ChunkReader,
}

impl TarLayer {
    /// A layer of which `blob` holds the bytes and `index` says where they are.
    #[must_use]
    pub fn new(index: Arc<LayerIndex>, blob: FileRange, cache: Arc<ChunkCache>) -> Self {
        let chunks = ChunkReader::new(Arc::clone(&index), blob, cache);
        Self { index, chunks }
    }

    /// Also looks for decoded content in `spill`, and keeps it there.
    #[must_use]
    pub fn with_spill(mut self, spill: &Arc<Spill>) -> Self {
        self.chunks.spill_to(spill);
        self
    }

    /// Its index.
    #[must_use]
    pub fn index(&self) -> &LayerIndex {
        &self.index
    }

    /// Also tells `trace` what is read of it, and is read ahead by it; it is layer number `number` there.
    #[must_use]
    pub fn with_trace(mut self, trace: &Arc<StartTrace>, number: u32) -> Arc<Self> {
        self.chunks.tell(trace.touches(number));
        let layer = Arc::new(self);
        trace.add(number, &layer);
        layer
    }

    /// Also has `read_on` keep ahead of who reads it front to back.
    pub fn read_on_by(self: &Arc<Self>, read_on: &Arc<ReadOn>) {
        self.chunks.follow(Follower::new(read_on, self));
    }

    pub(super) fn chunks(&self) -> &ChunkReader {
        &self.chunks
    }

    fn bad(&self, id: EntryId) -> impl Fn(IndexError) -> LayerError {
        move |error| bad_index(&self.index, id, &error)
    }

    fn entry_error(&self, entry: EntryId, reason: &'static str) -> LayerError {
        LayerError::BadEntry { layer: self.index.diff_id().to_string(), entry, reason }
    }

    fn number(&self, id: EntryId) -> Result<InodeNumber, LayerError> {
        let number = u32::try_from(id.0).ok().filter(|number| u64::from(*number) < self.index.inode_count());
        number.map(InodeNumber).ok_or_else(|| self.entry_error(id, "there is no such entry"))
    }

    fn inode(&self, id: EntryId) -> Result<Inode, LayerError> {
        self.index.inode(self.number(id)?).map_err(self.bad(id))
    }

    /// An answer, unless part of the index could not be read while it was put together.
    fn whole<T>(&self, id: EntryId, answer: Result<T, LayerError>) -> Result<T, LayerError> {
        if self.index.has_fault() {
            return Err(self.entry_error(id, "the index cannot be read any more"));
        }
        answer
    }

    fn children(&self, dir: EntryId) -> Result<Vec<DirItem>, LayerError> {
        let children = self.index.children(&self.inode(dir)?).map_err(self.bad(dir))?;
        Ok(children.into_iter().map(|(name, child)| DirItem { name, found: found(child) }).collect())
    }

    /// Fills `buffer` with as much as the file has from `offset` on.
    fn content(&self, id: EntryId, offset: u64, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let inode = self.inode(id)?;
        let rest = inode.metadata.size.saturating_sub(offset);
        let count = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..count];
        match &inode.content {
            Content::Contiguous(_) if count == 0 => {}
            Content::Contiguous(place) => {
                self.chunks.read(TarOffset(place.0.saturating_add(offset)), buffer)?;
            }
            Content::Sparse(range) => self.read_sparse(id, range, offset, buffer)?,
            _ => return Err(self.entry_error(id, "not a regular file")),
        }
        Ok(count)
    }

    /// Fills `buffer` from `offset` of a file with holes.
    fn read_sparse(
        &self,
        id: EntryId,
        range: &std::ops::Range<u64>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), LayerError> {
        buffer.fill(0);
        let end = offset.saturating_add(buffer.len() as u64);
        let mut position = offset;
        while position < end {
            let extents = self.index.extents(range, position, EXTENTS_AT_ONCE).map_err(self.bad(id))?;
            if extents.is_empty() {
                break;
            }
            for Extent { file_offset, len, place } in extents {
                let start = file_offset.max(position);
                let stop = file_offset.saturating_add(len).min(end);
                if start >= end {
                    return Ok(());
                }
                let inside = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
                let part = buffer.get_mut(inside(start)..inside(stop));
                let part = part.ok_or_else(|| self.entry_error(id, "extents are not in order"))?;
                self.chunks.read(TarOffset(place.0.saturating_add(start - file_offset)), part)?;
                position = stop;
            }
        }
        Ok(())
    }
}

fn found(child: Child) -> Found {
    match child {
        Child::Object(number) => Found::Entry(EntryId(u64::from(number.0))),
        Child::Whiteout => Found::Whiteout,
        Child::Below(path) => Found::LinkBelow(path),
    }
}

impl Layer for TarLayer {
    fn suspended_decoders(&self) -> (u64, u64) {
        self.chunks.suspended()
    }

    fn release_memory(&self, _in_use: &dyn Fn() -> Vec<EntryId>) {
        if let Err(error) = self.index.release_memory() {
            tracing::debug!("{}: {error}", self.index.path().display());
        }
    }

    fn diff_id(&self) -> Option<Digest> {
        Some(self.index.diff_id())
    }

    fn root(&self) -> EntryId {
        EntryId(u64::from(self.index.root().0))
    }

    fn is_found_by_number(&self) -> bool {
        true
    }

    fn entry(&self, id: EntryId) -> Result<Entry, LayerError> {
        let inode = self.whole(id, self.inode(id))?;
        let (names, implied, opaque) = (inode.names, inode.implied, inode.opaque);
        Ok(Entry { metadata: inode.metadata, names, implied, opaque })
    }

    fn lookup(&self, dir: EntryId, name: Name<'_>) -> Result<Found, LayerError> {
        let child = self.inode(dir).and_then(|inode| self.index.child(&inode, name).map_err(self.bad(dir)));
        Ok(self.whole(dir, child)?.map_or(Found::Absent, found))
    }

    fn read_dir(&self, dir: EntryId) -> Result<Vec<DirItem>, LayerError> {
        self.whole(dir, self.children(dir))
    }

    fn read_link(&self, id: EntryId) -> Result<Vec<u8>, LayerError> {
        let target = |inode: Inode| Ok(self.index.target(&inode).map_err(self.bad(id))?.to_vec());
        self.whole(id, self.inode(id).and_then(target))
    }

    fn xattrs(&self, id: EntryId) -> Result<Vec<Xattr>, LayerError> {
        self.whole(id, self.inode(id).and_then(|inode| self.index.xattrs(&inode).map_err(self.bad(id))))
    }

    fn read_at(&self, id: EntryId, offset: u64, buffer: &mut [u8]) -> Result<usize, LayerError> {
        self.whole(id, self.content(id, offset, buffer))
    }

    fn paths(&self, id: EntryId) -> Result<Vec<Box<[u8]>>, LayerError> {
        let paths = |number| self.index.paths(number).map_err(self.bad(id));
        self.whole(id, self.number(id).and_then(paths))
    }
}
