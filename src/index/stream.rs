//! Chunks of bytes between the threads of a build.

use std::io::{self, BufRead, Read};
use std::mem;
use std::ops::Deref;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use crate::sys::file_range::FileRange;

/// How much is handed over at once: enough that channels cost nothing, little enough to stay in the cache.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// Chunks on their way between two threads: evens out the pace, 2 MiB at most.
pub(super) const CHUNKS_AHEAD: usize = 8;

/// Bytes that several threads look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk(Arc<Lent>);

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.buffer.get(..self.0.len).unwrap_or_default()
    }
}

/// A buffer on its way, which comes home when the last thread lets go of it.
#[derive(Debug, Default)]
struct Lent {
    buffer: Vec<u8>,
    len: usize,
    home: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.buffer.is_empty() {
            let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
            home.push(mem::take(&mut self.buffer));
        }
    }
}

/// Buffers of [`CHUNK_BYTES`] to fill: those used last first, which the processor still has in its cache. There never are
/// more of them than were on their way at one time.
#[derive(Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// A buffer; whatever was in it still is.
    pub(super) fn get(&self) -> Vec<u8> {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        used.unwrap_or_else(|| vec![0; CHUNK_BYTES])
    }

    /// The first `len` bytes of a buffer, to be handed on.
    pub(super) fn lend(&self, buffer: Vec<u8>, len: usize) -> Chunk {
        Chunk(Arc::new(Lent { buffer, len, home: Arc::clone(&self.0) }))
    }
}

/// Sends a blob down a channel, front to back, for as long as somebody listens. `each` sees what is sent; `progress` is told
/// how many bytes of the blob were sent so far.
pub(super) fn send(
    blob: &FileRange,
    to: &SyncSender<Chunk>,
    each: &mut dyn FnMut(&[u8]),
    progress: &(dyn Fn(u64) + Sync),
) -> io::Result<()> {
    let buffers = Buffers::default();
    let mut position = 0;
    while position < blob.len() {
        let mut buffer = buffers.get();
        let count = blob.read_at(position, &mut buffer)?;
        position += count as u64;
        let chunk = buffers.lend(buffer, count);
        each(&chunk);
        if to.send(chunk).is_err() {
            // Who listened has ended and says why.
            break;
        }
        progress(position);
    }
    Ok(())
}

/// Sends all that comes out of a reader down a channel, for as long as somebody listens.
pub(super) fn send_all(
    source: &mut (dyn Read + Send),
    to: &SyncSender<Chunk>,
    progress: &(dyn Fn(u64) + Sync),
) -> io::Result<()> {
    let buffers = Buffers::default();
    let mut position = 0;
    loop {
        let mut buffer = buffers.get();
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        position += count as u64;
        if to.send(buffers.lend(buffer, count)).is_err() {
            return Ok(());
        }
        progress(position);
    }
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
