//! A layer made of an index and a blob.

use std::sync::Arc;

use super::chunk_cache::ChunkCache;
use super::chunk_reader::ChunkReader;
use super::objects::Objects;
use super::read_on::{Follower, ReadOn};
use super::spill::Spill;
use super::start_trace::StartTrace;
use super::{DirItem, Entry, Found, Layer, LayerError, Xattr};
use crate::index::{Content, Extent, LayerIndex};
use crate::model::{Digest, EntryId, Name, TarOffset};
use crate::sys::file_range::FileRange;

/// Extents looked at in one go: a read of a file with many holes goes on from there.
const EXTENTS_AT_ONCE: u64 = 64;

/// A tar, compressed or not, read where it lies.
#[derive(Debug)]
pub struct TarLayer {
    objects: Objects,
    pub(super) chunks: ChunkReader,
}

impl TarLayer {
    /// A layer of which `blob` holds the bytes and `index` says where they are.
    #[must_use]
    pub fn new(index: Arc<LayerIndex>, blob: FileRange, cache: Arc<ChunkCache>) -> Self {
        let chunks = ChunkReader::new(Arc::clone(&index), blob, cache);
        let diff_id = index.diff_id();
        Self { objects: Objects::new(index, diff_id), chunks }
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
        self.objects.index()
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

    /// Fills `buffer` with as much as the file has from `offset` on.
    fn content(&self, id: EntryId, offset: u64, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let inode = self.objects.inode(id)?;
        let rest = inode.metadata.size.saturating_sub(offset);
        let count = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..count];
        match &inode.content {
            Content::Contiguous(_) if count == 0 => {}
            Content::Contiguous(place) => {
                self.chunks.read(TarOffset(place.0.saturating_add(offset)), buffer)?;
            }
            Content::Sparse(range) => self.read_sparse(id, range, offset, buffer)?,
            _ => return Err(self.objects.entry_error(id, "not a regular file")),
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
            let extents = self.index().extents(range, position, EXTENTS_AT_ONCE);
            let extents = extents.map_err(self.objects.bad(id))?;
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
                let part = part.ok_or_else(|| self.objects.entry_error(id, "extents are not in order"))?;
                self.chunks.read(TarOffset(place.0.saturating_add(start - file_offset)), part)?;
                position = stop;
            }
        }
        Ok(())
    }
}

impl Layer for TarLayer {
    fn suspended_decoders(&self) -> (u64, u64) {
        self.chunks.suspended()
    }

    fn release_memory(&self, _in_use: &dyn Fn() -> Vec<EntryId>) {
        self.objects.release_memory();
    }

    fn diff_id(&self) -> Option<Digest> {
        Some(self.index().diff_id())
    }

    fn root(&self) -> EntryId {
        self.objects.root()
    }

    fn is_found_by_number(&self) -> bool {
        true
    }

    fn entry(&self, id: EntryId) -> Result<Entry, LayerError> {
        self.objects.entry(id)
    }

    fn lookup(&self, dir: EntryId, name: Name<'_>) -> Result<Found, LayerError> {
        self.objects.lookup(dir, name)
    }

    fn read_dir(&self, dir: EntryId) -> Result<Vec<DirItem>, LayerError> {
        self.objects.read_dir(dir)
    }

    fn read_link(&self, id: EntryId) -> Result<Vec<u8>, LayerError> {
        self.objects.read_link(id)
    }

    fn xattrs(&self, id: EntryId) -> Result<Vec<Xattr>, LayerError> {
        self.objects.xattrs(id)
    }

    fn read_at(&self, id: EntryId, offset: u64, buffer: &mut [u8]) -> Result<usize, LayerError> {
        self.objects.whole(id, self.content(id, offset, buffer))
    }

    fn paths(&self, id: EntryId) -> Result<Vec<Box<[u8]>>, LayerError> {
        self.objects.paths(id)
    }
}
