//! Verified granules in memory, shared by all layers of a process: the least recently used go first, but before them what
//! somebody has passed by who reads a layer front to back. That is in the kernel's page cache, and pushing out what others
//! use for it would help nobody; and the memory that it was in is still in the processor's cache when it is used again.
//! With them goes the other memory that reading costs: decoders for who reads on, and buffers for the next granules.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::read_counts::ReadCounts;
use super::suspended::Suspended;
use crate::index::GRANULE_BYTES;

/// What the cache takes at most when nobody says otherwise.
const BYTES_DEFAULT: u64 = 256 << 20;
/// The same as a part of the machine's memory: one in twenty.
const MEMORY_PARTS: u64 = 20;
/// Independently locked parts, so that readers of different granules rarely wait for each other.
const SHARDS: u64 = 8;
/// Buffers kept for the next granules: memory fresh from the system costs a third of what checking its content does.
const BUFFERS_MAX: usize = 16;

/// How far a reader who passes by may look back, in granules: files are read in nearly the order of the layer. A multiple
/// of [`SHARDS`], so that what lies behind is in the same shard.
const BEHIND: u64 = 2 * SHARDS;

/// The part of the cache up to which nothing is dropped early: all of a small image, and the beginning of a large one.
const ROOMY_PARTS: u64 = 8;

/// Names a layer within the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LayerKey(u64);

/// Granules of several layers, bounded in bytes.
#[derive(Debug)]
pub struct ChunkCache {
    shards: Vec<Mutex<Shard>>,
    shard_bytes_max: u64,
    next_layer: AtomicU64,
    /// Of granules that had to go.
    buffers: Mutex<Vec<Vec<u8>>>,
    pub(super) suspended: Suspended,
    /// What its layers count: they share it as they share this.
    pub(super) counts: ReadCounts,
}

#[derive(Debug)]
struct Shard {
    granules: LruCache<(LayerKey, u64), Kept>,
    bytes: u64,
}

#[derive(Debug)]
struct Kept {
    bytes: Arc<Vec<u8>>,
    is_marked: bool,
    /// It came when somebody passed by.
    is_passed: bool,
}

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) bytes: Arc<Vec<u8>>,
    /// Nobody has found it since it was marked.
    pub(super) is_marked: bool,
}

impl ChunkCache {
    /// A cache of at most `bytes_max` bytes of content.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let shard = || Mutex::new(Shard { granules: LruCache::unbounded(), bytes: 0 });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            shard_bytes_max: bytes_max / SHARDS,
            next_layer: AtomicU64::new(0),
            buffers: Mutex::default(),
            suspended: Suspended::default(),
            counts: ReadCounts::default(),
        }
    }

    /// A cache of the usual size: 256 MiB or 5 % of memory, whatever is less.
    #[must_use]
    pub fn with_default_size() -> Self {
        let part = memory_bytes().map_or(BYTES_DEFAULT, |memory| memory / MEMORY_PARTS);
        Self::new(BYTES_DEFAULT.min(part))
    }

    /// A name for another layer.
    pub(super) fn add_layer(&self) -> LayerKey {
        LayerKey(self.next_layer.fetch_add(1, Ordering::Relaxed))
    }

    fn shard(&self, granule: u64) -> Option<&Mutex<Shard>> {
        self.shards.get(usize::try_from(granule % SHARDS).unwrap_or(0))
    }

    pub(super) fn get(&self, layer: LayerKey, granule: u64) -> Option<Hit> {
        // No code between lock and unlock can panic; a poisoned cache would still be a right cache.
        let mut shard = self.shard(granule)?.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = shard.granules.get_mut(&(layer, granule))?;
        Some(Hit { bytes: Arc::clone(&kept.bytes), is_marked: std::mem::take(&mut kept.is_marked) })
    }

    /// Marks a granule, if it is there, for who finds it first.
    pub(super) fn mark(&self, layer: LayerKey, granule: u64) {
        let Some(shard) = self.shard(granule) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = shard.granules.peek_mut(&(layer, granule)) {
            kept.is_marked = true;
        }
    }

    /// A buffer of a granule's length or less; whatever was in it still is.
    pub(super) fn buffer(&self, len: usize) -> Vec<u8> {
        let recycled = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // The end of a layer takes no more than it is counted for.
        let is_whole = len as u64 == GRANULE_BYTES;
        is_whole.then(recycled).flatten().unwrap_or_else(|| vec![0; len])
    }

    /// Takes back what [`Self::buffer`] gave.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < BUFFERS_MAX && buffer.len() as u64 == GRANULE_BYTES {
            buffers.push(buffer);
        }
    }

    /// Whether it is there; that nobody has asked for it stays as it is.
    pub(super) fn has(&self, layer: LayerKey, granule: u64) -> bool {
        let Some(shard) = self.shard(granule) else { return false };
        shard.lock().unwrap_or_else(PoisonError::into_inner).granules.contains(&(layer, granule))
    }

    /// Adds verified bytes.
    pub(super) fn put(&self, layer: LayerKey, granule: u64, bytes: Arc<Vec<u8>>) {
        let Some(shard) = self.shard(granule) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::new();
        shard.bytes += bytes.len() as u64;
        let kept = Kept { bytes, is_marked: false, is_passed: false };
        if let Some((_, old)) = shard.granules.push((layer, granule), kept) {
            shard.bytes -= old.bytes.len() as u64;
            gone.push(old.bytes);
        }
        while shard.bytes > self.shard_bytes_max {
            let Some((_, old)) = shard.granules.pop_lru() else { break };
            shard.bytes -= old.bytes.len() as u64;
            gone.push(old.bytes);
        }
        drop(shard);
        // What a reader still looks at is freed when it is done.
        gone.into_iter().filter_map(Arc::into_inner).for_each(|buffer| self.give_back(buffer));
    }

    /// Somebody passes by a granule. What was left behind in the same way is dropped, unless there is plenty of room.
    pub(super) fn pass(&self, layer: LayerKey, granule: u64) {
        let Some(shard) = self.shard(granule) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = shard.granules.peek_mut(&(layer, granule)) {
            kept.is_passed = true;
        }
        if shard.bytes <= self.shard_bytes_max / ROOMY_PARTS {
            return;
        }
        let Some(behind) = granule.checked_sub(BEHIND) else { return };
        if !shard.granules.peek(&(layer, behind)).is_some_and(|kept| kept.is_passed) {
            return;
        }
        let Some(dropped) = shard.granules.pop(&(layer, behind)) else { return };
        shard.bytes -= dropped.bytes.len() as u64;
        drop(shard);
        if let Some(buffer) = Arc::into_inner(dropped.bytes) {
            self.give_back(buffer);
        }
    }

    /// Drops what there is of a layer.
    pub(super) fn remove_layer(&self, layer: LayerKey) {
        self.suspended.remove_layer(layer);
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let mut freed = 0;
            shard.granules.retain(|(of, _), kept| {
                let keep = *of != layer;
                freed += if keep { 0 } else { kept.bytes.len() as u64 };
                keep
            });
            shard.bytes -= freed;
        }
    }

    /// Bytes that it holds at most.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.shard_bytes_max * SHARDS
    }

    /// Bytes that it holds now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).bytes).sum()
    }
}

/// The machine's memory (proc_meminfo(5)); `None` where there is no /proc.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

impl Default for ChunkCache {
    fn default() -> Self {
        Self::with_default_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_memory() {
        assert!(memory_bytes().unwrap() > 64 << 20);
    }

    #[test]
    fn what_was_passed_by_goes_and_the_rest_stays() {
        // In each shard there is room for 12 granules, and one is plenty.
        let cache = ChunkCache::new(120 * SHARDS);
        let layer = cache.add_layer();
        for granule in 0..100 {
            cache.put(layer, granule, Arc::new(vec![0; 10]));
            if granule >= 10 {
                cache.pass(layer, granule);
            }
        }
        let there = |granule: &u64| cache.has(layer, *granule);
        let expected: Vec<u64> = (0..10).chain(100 - BEHIND..100).collect();
        assert_eq!((0..100).filter(there).collect::<Vec<_>>(), expected);
        assert_eq!(cache.bytes(), 10 * expected.len() as u64);
        // What is put again was not passed by.
        cache.put(layer, 99 - BEHIND, Arc::new(vec![0; 10]));
        cache.pass(layer, 99);
        assert!(cache.has(layer, 99 - BEHIND));
    }

    #[test]
    fn stays_within_its_bytes_and_keeps_what_was_used() {
        let cache = ChunkCache::new(8 * 1000);
        let (a, b) = (cache.add_layer(), cache.add_layer());
        // All multiples of SHARDS share a shard of 1000 bytes.
        for granule in 0..10 {
            cache.put(a, granule * SHARDS, Arc::new(vec![0; 300]));
            assert!(cache.get(a, 0).is_some(), "used every time");
        }
        assert_eq!(cache.bytes(), 900);
        assert!(cache.get(a, 2 * SHARDS).is_none());
        assert!(cache.get(b, 0).is_none());
        cache.put(a, 0, Arc::new(vec![0; 200]));
        assert_eq!(cache.bytes(), 800);
        cache.put(b, 1, Arc::new(vec![0; 5000]));
        assert!(cache.get(b, 1).is_none(), "larger than the shard");
        cache.put(b, 1, Arc::new(vec![0; 50]));
        cache.remove_layer(a);
        assert_eq!(cache.bytes(), 50);
    }
}
