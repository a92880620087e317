//! Chunks of bytes between the threads of a build.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use crate::sys::file_range::FileRange;

/// Bytes that several threads look at.
pub(super) type Chunk = Arc<Vec<u8>>;

/// How much is handed over at once: enough that channels cost nothing, little enough to stay in the cache.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// Chunks on their way between two threads: evens out the pace, 2 MiB at most.
pub(super) const CHUNKS_AHEAD: usize = 8;

/// Sends a blob down a channel, front to back, for as long as somebody listens. `each` sees what is sent; `progress` is told
/// how many bytes of the blob were sent so far.
pub(super) fn send(
    blob: &FileRange,
    to: &SyncSender<Chunk>,
    each: &mut dyn FnMut(&[u8]),
    progress: &(dyn Fn(u64) + Sync),
) -> io::Result<()> {
    let mut position = 0;
    while position < blob.len() {
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = blob.read_at(position, &mut chunk)?;
        chunk.truncate(count);
        position += count as u64;
        each(&chunk);
        if to.send(Arc::new(chunk)).is_err() {
            // Who listened has ended and says why.
            break;
        }
        progress(position);
    }
    Ok(())
}

/// What comes out of a channel, as a reader; the end of the channel is the end of the stream.
#[derive(Debug)]
pub(super) struct ChunkReader {
    receiver: Receiver<Chunk>,
    chunk: Chunk,
    used: usize,
}

impl ChunkReader {
    pub(super) fn new(receiver: Receiver<Chunk>) -> Self {
        Self { receiver, chunk: Chunk::default(), used: 0 }
    }

    /// Reads to the end, so that the sender never waits.
    pub(super) fn drain(self) {
        self.receiver.iter().for_each(drop);
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.used == self.chunk.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.chunk, self.used) = (chunk, 0),
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.chunk[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used = (self.used + count).min(self.chunk.len());
    }
}
