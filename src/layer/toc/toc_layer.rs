//! A layer made of a table of contents and a blob, of which only what is read must be there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::cache::{TocCache, VerifiedChunk};
use super::contents::{Chunk, Contents, Stored};
use super::{Toc, decoding};
use crate::index::{Content, DecodeError, Decoder, Encoding};
use crate::layer::objects::Objects;
use crate::layer::turns::{Turns, Waited};
use crate::layer::{DirItem, Entry, Found, Layer, LayerError, Place, Xattr};
use crate::model::{BlobOffset, Digest, EntryId, Name};
use crate::sys::file_range::FileRange;

/// How often wrong bytes of a layer are brought again. Of a layer that has so many, the blob is wrong.
const REREADS_MAX: u32 = 16;

/// A layer that is read chunk by chunk. Later mounts of the same layer, which know more of it, may number its objects in
/// another way.
#[derive(Debug)]
pub struct TocLayer {
    objects: Objects,
    contents: Arc<Contents>,
    encoding: Encoding,
    diff_id: Digest,
    blob: FileRange,
    cache: Arc<TocCache>,
    /// Its name in the cache.
    key: u64,
    /// By offset of the gzip member or zstd frame.
    turns: Turns,
    /// See [`REREADS_MAX`].
    rereads: AtomicU32,
}

impl TocLayer {
    /// The layer that `toc` describes, and of which `blob` holds the content; `diff_id` is what the image's config calls
    /// it.
    ///
    /// # Errors
    /// [`LayerError::BadEntry`] when the TOC has no root directory.
    pub fn new(toc: &Toc, diff_id: Digest, blob: FileRange) -> Result<Self, LayerError> {
        let Toc { index, contents, encoding } = toc.clone();
        let cache = Arc::new(TocCache::default());
        let key = cache.add_layer();
        let objects = Objects::new(index, diff_id);
        objects.inode(objects.root())?;
        let (turns, rereads) = (Turns::default(), AtomicU32::new(0));
        Ok(Self { objects, contents, encoding, diff_id, blob, cache, key, turns, rereads })
    }

    /// Keeps what was read in a cache that several layers share.
    #[must_use]
    pub fn with_cache(mut self, cache: &Arc<TocCache>) -> Self {
        (self.key, self.cache) = (cache.add_layer(), Arc::clone(cache));
        self
    }

    /// Fills `buffer` with as much as the file has from `offset` on.
    fn content(&self, id: EntryId, offset: u64, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let inode = self.objects.inode(id)?;
        let Content::Contiguous(file) = inode.content else {
            return Err(self.objects.entry_error(id, "not a regular file"));
        };
        let rest = inode.metadata.size.saturating_sub(offset);
        let count = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        let (mut offset, mut rest) = (offset, &mut buffer[..count]);
        while !rest.is_empty() {
            let chunk = self.contents.chunk_at(file.0, offset);
            let (number, chunk) =
                chunk.ok_or_else(|| self.objects.entry_error(id, "its chunks end too early"))?;
            let filled = self.fill(number, chunk, offset - chunk.file_offset, rest)?;
            rest = &mut rest[filled..];
            offset += filled as u64;
        }
        Ok(count)
    }

    /// Fills the beginning of `output` with what a chunk has from `skip` on; how much that is.
    fn fill(&self, number: u32, chunk: &Chunk, skip: u64, output: &mut [u8]) -> Result<usize, LayerError> {
        let there = usize::try_from(chunk.len - skip).unwrap_or(usize::MAX);
        let count = there.min(output.len());
        let output = &mut output[..count];
        match &chunk.stored {
            None => output.fill(0),
            Some(stored) => {
                let verified = self.chunk(number, stored)?;
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                let bytes = verified.bytes().get(skip..).and_then(|bytes| bytes.get(..count));
                let short = || self.corrupt(stored, "a chunk is shorter than it should be".to_owned());
                output.copy_from_slice(bytes.ok_or_else(short)?);
            }
        }
        Ok(count)
    }

    /// One thread decodes a member at a time: who comes later finds the chunk in the cache.
    fn chunk(&self, number: u32, stored: &Stored) -> Result<VerifiedChunk, LayerError> {
        let cached = || self.cache.get(self.key, number);
        let _turn = match self.turns.take(stored.offset, cached) {
            Waited::Turn(turn) => turn,
            Waited::Found(chunk) => return Ok(chunk),
        };
        let mut decoded = self.decode(number, stored);
        // What comes from far away may be wrong once, and right the next time.
        let is_worth_it = || {
            self.blob.doubt(self.contents.member(stored.offset).range)
                || self.rereads.fetch_add(1, Ordering::Relaxed) < REREADS_MAX
        };
        if let Err(DecodeError::Bad { reason, .. }) = &decoded
            && is_worth_it()
        {
            let (diff_id, offset) = (self.diff_id, stored.offset);
            tracing::warn!(%diff_id, offset, reason, "wrong bytes in a layer: reading again");
            decoded = self.decode(number, stored);
        }
        decoded.map_err(|error| match error {
            DecodeError::Io(source) => LayerError::Io { layer: self.diff_id.to_string(), source },
            DecodeError::Bad { reason, .. } => {
                tracing::error!(diff_id = %self.diff_id, offset = stored.offset, reason, "corrupt layer");
                self.corrupt(stored, reason)
            }
        })
    }

    /// Decodes the member that a chunk is in. Others in it are kept, too: they come with it, and who reads small files
    /// that were put together comes for them next.
    fn decode(&self, wanted: u32, stored: &Stored) -> Result<VerifiedChunk, DecodeError> {
        decoding::guarded(|| {
            let member = self.contents.member(stored.offset);
            let (start, end) = (member.range.start, member.range.end);
            let mut decoder = decoding::decoder(&self.blob, self.encoding, start, end)?;
            let mut found = None;
            for number in member.chunks {
                match self.next_chunk(&mut decoder, *number) {
                    Ok(Some(chunk)) if *number == wanted => found = Some(chunk),
                    // A wrong one on the way is for its own readers to hear of.
                    Ok(_) => {}
                    Err(_) if found.is_some() => break,
                    Err(error) => return Err(error),
                }
            }
            let reason = || "the bytes do not have the digest that the table of contents says".to_owned();
            found.ok_or_else(|| DecodeError::Bad { offset: start, reason: reason() })
        })
    }

    /// Decodes and keeps a chunk; `None` when its bytes are wrong.
    fn next_chunk(&self, decoder: &mut Decoder, number: u32) -> Result<Option<VerifiedChunk>, DecodeError> {
        let Some(Chunk { len, stored: Some(stored), .. }) = self.contents.chunk(number) else {
            return Ok(None);
        };
        let mut bytes = vec![0; usize::try_from(*len).unwrap_or(0)];
        decoding::read(decoder, stored.inner, &mut bytes)?;
        let chunk = VerifiedChunk::new(bytes, &stored.digest);
        if let Some(chunk) = &chunk {
            self.cache.put(self.key, number, chunk.clone());
        }
        Ok(chunk)
    }

    fn corrupt(&self, stored: &Stored, reason: String) -> LayerError {
        let place = Place::Blob(BlobOffset(stored.offset));
        LayerError::Corrupt { diff_id: self.diff_id, place, reason }
    }
}

impl Layer for TocLayer {
    fn release_memory(&self, _in_use: &dyn Fn() -> Vec<EntryId>) {
        self.cache.remove_layer(self.key);
        self.objects.release_memory();
    }

    fn diff_id(&self) -> Option<Digest> {
        Some(self.diff_id)
    }

    fn root(&self) -> EntryId {
        self.objects.root()
    }

    fn is_found_by_number(&self) -> bool {
        false
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

impl Drop for TocLayer {
    fn drop(&mut self) {
        self.cache.remove_layer(self.key);
    }
}
