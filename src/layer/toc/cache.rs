//! Verified chunks in memory, bounded in bytes: the least recently used go first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use sha2::{Digest as _, Sha256};

/// What a cache holds when nobody says otherwise: a chunk of the largest size, or sixteen of eStargz's usual.
const BYTES_DEFAULT: u64 = 64 << 20;

/// Bytes that have the digest that a TOC says.
#[derive(Clone, Debug)]
pub(super) struct VerifiedChunk(Arc<Vec<u8>>);

impl VerifiedChunk {
    /// The only way to make one; `None` when it is other bytes.
    pub(super) fn new(bytes: Vec<u8>, digest: &[u8; 32]) -> Option<Self> {
        (Sha256::digest(&bytes)[..] == digest[..]).then(|| Self(Arc::new(bytes)))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Chunks of the layers that share it.
#[derive(Debug)]
pub struct TocCache {
    bytes_max: u64,
    next_layer: AtomicU64,
    /// Taken alone, never across I/O.
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    /// By layer and number.
    chunks: LruCache<(u64, u32), VerifiedChunk>,
    bytes: u64,
}

impl TocCache {
    /// A cache of at most `bytes_max` bytes; the chunk that was read last stays, whatever its size.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let held = Held { chunks: LruCache::unbounded(), bytes: 0 };
        Self { bytes_max, next_layer: AtomicU64::new(0), held: Mutex::new(held) }
    }

    /// Bytes that it holds now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    pub(super) fn add_layer(&self) -> u64 {
        self.next_layer.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn get(&self, layer: u64, chunk: u32) -> Option<VerifiedChunk> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.chunks.get(&(layer, chunk)).cloned()
    }

    pub(super) fn put(&self, layer: u64, number: u32, chunk: VerifiedChunk) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.bytes += chunk.bytes().len() as u64;
        if let Some((_, old)) = held.chunks.push((layer, number), chunk) {
            held.bytes -= old.bytes().len() as u64;
        }
        while held.bytes > self.bytes_max && held.chunks.len() > 1 {
            let Some((_, old)) = held.chunks.pop_lru() else { break };
            held.bytes -= old.bytes().len() as u64;
        }
    }

    /// Drops what there is of a layer.
    pub(super) fn remove_layer(&self, layer: u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut freed = 0;
        held.chunks.retain(|(of, _), chunk| {
            let keep = *of != layer;
            freed += if keep { 0 } else { chunk.bytes().len() as u64 };
            keep
        });
        held.bytes -= freed;
    }
}

impl Default for TocCache {
    /// One of 64 MiB.
    fn default() -> Self {
        Self::new(BYTES_DEFAULT)
    }
}
