//! Where the content of a layer's files lies in its blob, chunk by chunk.

use std::ops::Range;

/// A stretch of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    /// Where in the file it begins.
    pub(super) file_offset: u64,
    /// How long it is; never 0.
    pub(super) len: u64,
    /// Where its bytes are; `None` when all of them are zeros.
    pub(super) stored: Option<Stored>,
}

/// Where a chunk's bytes are, and which.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// Of its gzip member or zstd frame, in the blob.
    pub(super) offset: u64,
    /// In what comes out of that.
    pub(super) inner: u64,
    /// sha256
    pub(super) digest: [u8; 32],
}

/// A gzip member or zstd frame.
#[derive(Debug)]
pub(super) struct Member<'a> {
    /// In the blob. The end is where something else begins: behind the member's, or where it is.
    pub(super) range: Range<u64>,
    /// Numbers of the chunks in it, in order.
    pub(super) chunks: &'a [u32],
}

/// All files of a layer.
#[derive(Debug)]
pub(super) struct Contents {
    /// The first chunk of each file.
    files: Vec<u32>,
    /// File by file, in order.
    chunks: Vec<Chunk>,
    /// Numbers of those that are stored, in the order of the blob.
    by_place: Vec<u32>,
    /// Where in the blob something begins or ends; sorted.
    bounds: Vec<u64>,
}

impl Contents {
    /// The chunk that has the byte at an offset of a file, and its number; `None` behind the file's end.
    pub(super) fn chunk_at(&self, file: u64, offset: u64) -> Option<(u32, &Chunk)> {
        let file = usize::try_from(file).ok()?;
        let start = *self.files.get(file)?;
        let stop = self.files.get(file + 1).map_or(self.chunks.len(), |next| index(*next));
        let chunks = self.chunks.get(index(start)..stop)?;
        let at = chunks.partition_point(|chunk| chunk.file_offset <= offset).checked_sub(1)?;
        let chunk = chunks.get(at)?;
        (offset - chunk.file_offset < chunk.len).then_some((start + u32::try_from(at).ok()?, chunk))
    }

    pub(super) fn chunk(&self, number: u32) -> Option<&Chunk> {
        self.chunks.get(index(number))
    }

    /// What begins at this offset of the blob.
    pub(super) fn member(&self, offset: u64) -> Member<'_> {
        let place = |number: &u32| self.stored_offset(*number);
        let start = self.by_place.partition_point(|number| place(number) < offset);
        let stop = self.by_place.partition_point(|number| place(number) <= offset);
        let end = self.bounds.get(self.bounds.partition_point(|bound| *bound <= offset));
        Member { range: offset..end.copied().unwrap_or(offset), chunks: &self.by_place[start..stop] }
    }

    fn stored_offset(&self, number: u32) -> u64 {
        self.chunk(number).and_then(|chunk| chunk.stored).map_or(0, |stored| stored.offset)
    }
}

/// Collects them.
#[derive(Debug)]
pub(super) struct Collector {
    files: Vec<u32>,
    chunks: Vec<Chunk>,
    bounds: Vec<u64>,
}

impl Collector {
    /// `end` is where in the blob the last chunk ends at the latest.
    pub(super) fn new(end: u64) -> Self {
        Self { files: Vec::new(), chunks: Vec::new(), bounds: vec![end] }
    }

    /// Begins a file; returns its number.
    pub(super) fn begin_file(&mut self) -> Result<u64, String> {
        self.files.push(narrow(self.chunks.len())?);
        Ok(self.files.len() as u64 - 1)
    }

    /// Adds the next chunk of the file that was begun last.
    pub(super) fn add(&mut self, chunk: Chunk) {
        self.bounds.extend(chunk.stored.map(|stored| stored.offset));
        self.chunks.push(chunk);
    }

    /// Something else begins at this place of the blob.
    pub(super) fn bound(&mut self, offset: u64) {
        self.bounds.push(offset);
    }

    /// All that was added, when no two chunks are in each other. The error is for people.
    pub(super) fn finish(mut self) -> Result<Contents, String> {
        self.bounds.sort_unstable();
        self.bounds.dedup();
        let mut by_place = Vec::new();
        for (number, chunk) in self.chunks.iter().enumerate() {
            if let Some(stored) = chunk.stored {
                by_place.push((stored.offset, stored.inner, chunk.len, narrow(number)?));
            }
        }
        by_place.sort_unstable();
        for pair in by_place.windows(2) {
            if let [(offset, inner, len, _), (next_offset, next_inner, ..)] = pair
                && offset == next_offset
                && inner.saturating_add(*len) > *next_inner
            {
                return Err(format!("two chunks overlap at offset {offset} of the blob"));
            }
        }
        let by_place = by_place.into_iter().map(|(.., number)| number).collect();
        Ok(Contents { files: self.files, chunks: self.chunks, by_place, bounds: self.bounds })
    }
}

fn narrow(number: usize) -> Result<u32, String> {
    u32::try_from(number).map_err(|_| "too many chunks".to_owned())
}

/// Lossless: layerfs runs where pointers have 32 bits at least.
fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
