//! What the layers of one mount count while they are read: where granules came from, and how long that took.

use std::sync::Arc;
use std::time::Instant;

use super::{ChunkCache, Spill};
use crate::model::stats::{ReadStats, TierStats};
use crate::model::{Counter, Histogram};

/// Where a granule came from that was not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// In memory at last: another reader decoded it, and was waited for.
    Waited,
    /// Read from the spill.
    Spill,
    /// Decoded from the blob.
    Decoded,
    /// Read from a blob that is not compressed.
    Plain,
}

const TIERS: [(Tier, &str); 4] =
    [(Tier::Waited, "waited"), (Tier::Spill, "spill"), (Tier::Decoded, "decoded"), (Tier::Plain, "plain")];

/// Counted by the layers that share a cache; see [`ReadStats`].
#[derive(Debug, Default)]
pub(super) struct ReadCounts {
    tiers: [Histogram; TIERS.len()],
    pub(super) memory_hits: Counter,
    pub(super) failed: Counter,
    pub(super) ahead: Counter,
    pub(super) decodes_resumed: Counter,
    pub(super) decodes_continued: Counter,
    pub(super) decoded_bytes: Counter,
    pub(super) verified_bytes: Counter,
    pub(super) mismatches: Counter,
}

/// Runs while a granule is on its way; what does not arrive is not counted.
#[derive(Debug)]
pub(super) struct Clock<'a> {
    took: &'a Histogram,
    since: Instant,
}

impl Clock<'_> {
    /// The granule is there.
    pub(super) fn stop(&self) {
        self.took.record(self.since.elapsed());
    }
}

impl ReadCounts {
    /// A granule is looked for in this tier.
    pub(super) fn start(&self, tier: Tier) -> Clock<'_> {
        Clock { took: &self.tiers[tier as usize], since: Instant::now() }
    }
}

/// Tells what was read of the layers that share a cache and a spill. Clones tell the same.
#[derive(Clone, Debug)]
pub struct ReadMeter {
    cache: Arc<ChunkCache>,
    spill: Option<Arc<Spill>>,
}

impl ReadMeter {
    /// For the layers that were made with these.
    #[must_use]
    pub fn new(cache: Arc<ChunkCache>, spill: Option<Arc<Spill>>) -> Self {
        Self { cache, spill }
    }

    /// Everything that was counted until now.
    #[must_use]
    pub fn stats(&self) -> ReadStats {
        let counts = &self.cache.counts;
        let told = |(tier, name): (Tier, &str)| TierStats {
            tier: name.to_owned(),
            took: counts.tiers[tier as usize].snapshot(),
        };
        let (spilled_bytes, spill_skipped) = self.spill.as_ref().map_or((0, 0), |spill| spill.written());
        ReadStats {
            memory_hits: counts.memory_hits.get(),
            tiers: TIERS.map(told).into(),
            failed: counts.failed.get(),
            ahead: counts.ahead.get(),
            decodes_resumed: counts.decodes_resumed.get(),
            decodes_continued: counts.decodes_continued.get(),
            decoded_bytes: counts.decoded_bytes.get(),
            verified_bytes: counts.verified_bytes.get(),
            mismatches: counts.mismatches.get(),
            cache_bytes: self.cache.bytes(),
            cache_bytes_max: self.cache.bytes_max(),
            spilled_bytes,
            spill_skipped,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Barrier;

    use super::*;
    use crate::index::{self, Expected, GRANULE_BYTES, LayerIndex};
    use crate::layer::bring::Brought;
    use crate::layer::tar_tests::{Maker, content, gzip, id, noise};
    use crate::layer::{Layer as _, TarLayer};
    use crate::sys::file_range::FileRange;

    fn opened(dir: &Path, blob: &[u8], cache: &Arc<ChunkCache>) -> TarLayer {
        std::fs::write(dir.join("blob"), blob).unwrap();
        let range = FileRange::open(&dir.join("blob")).unwrap();
        index::build(&range, &Expected::default(), dir, "index", &|_| {}).unwrap();
        let index = Arc::new(LayerIndex::open(&dir.join("index")).unwrap());
        TarLayer::new(index, range, Arc::clone(cache))
    }

    fn counts(cache: &Arc<ChunkCache>) -> ([u64; 4], u64, ReadStats) {
        let stats = ReadMeter::new(Arc::clone(cache), None).stats();
        let tiers: Vec<u64> = stats.tiers.iter().map(|tier| tier.took.count()).collect();
        (tiers.try_into().unwrap(), stats.memory_hits, stats)
    }

    /// A tar with one file, and in how many granules that lies.
    fn tar() -> (Vec<u8>, u64) {
        let data = noise(600_000, 5);
        let granules = (512 + data.len() as u64).div_ceil(GRANULE_BYTES);
        (Maker::default().add(b'0', "big", "", &data).end(), granules)
    }

    #[test]
    fn every_granule_is_counted_once() {
        let (tar, granules) = tar();
        let dir = tempfile::tempdir().unwrap();
        let [gzipped, plain] = [(); 2].map(|()| Arc::new(ChunkCache::new(64 << 20)));
        let layer = opened(dir.path(), &gzip(&tar, 6), &gzipped);
        content(&layer, "big");
        let (tiers, memory, stats) = counts(&gzipped);
        assert_eq!(tiers[0] + tiers[1] + tiers[3], 0, "{stats:?}");
        assert_eq!(tiers[2] + memory, granules);
        assert_eq!((stats.decodes_resumed, stats.decodes_continued), (1, tiers[2] - 1));
        assert!(stats.decoded_bytes >= 600_000 && stats.decoded_bytes <= tar.len() as u64);
        assert!(stats.verified_bytes >= 600_000 && stats.verified_bytes <= stats.decoded_bytes);
        assert_eq!(stats.cache_bytes, stats.verified_bytes);
        assert!(stats.tiers[2].took.total_ns > 0);
        content(&layer, "big");
        assert_eq!(counts(&gzipped).1, memory + granules);
        assert_eq!(counts(&gzipped).2.decoded_bytes, stats.decoded_bytes);

        let layer = opened(dir.path(), &tar, &plain);
        content(&layer, "big");
        let (tiers, memory, stats) = counts(&plain);
        assert_eq!((tiers, memory, stats.decoded_bytes), ([0, 0, 0, granules], 0, 0));
        // The layers of another mount.
        assert_eq!(counts(&gzipped).0[3], 0);
    }

    #[test]
    fn who_waits_for_another_is_told_from_who_decodes() {
        let (tar, _) = tar();
        let dir = tempfile::tempdir().unwrap();
        let mut has_waited = false;
        for round in 0..200_u64 {
            let cache = Arc::new(ChunkCache::new(64 << 20));
            let layer = opened(dir.path(), &gzip(&tar, 1), &cache);
            let (file, barrier) = (id(&layer, "big"), Barrier::new(4));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        barrier.wait();
                        layer.read_at(file, 3 * GRANULE_BYTES, &mut [0; 10]).unwrap();
                    });
                }
            });
            let ([waited, spill, decoded, plain], memory, stats) = counts(&cache);
            assert_eq!((waited + decoded + memory, decoded, spill + plain), (4, 1, 0), "{stats:?}");
            has_waited |= waited > 0;
            if has_waited && round > 5 {
                return;
            }
        }
        panic!("nobody ever waited");
    }

    #[test]
    fn wrong_bytes_and_what_is_read_ahead() {
        let (tar, _) = tar();
        let dir = tempfile::tempdir().unwrap();
        let cache = Arc::new(ChunkCache::new(64 << 20));
        let layer = opened(dir.path(), &tar, &cache);
        let mut wrong = tar.clone();
        wrong[10_000] ^= 1;
        std::fs::write(dir.path().join("blob"), wrong).unwrap();
        layer.read_at(id(&layer, "big"), 0, &mut [0; 10]).unwrap_err();
        let (tiers, _, stats) = counts(&cache);
        assert_eq!((tiers, stats.mismatches, stats.failed), ([0; 4], 2, 1), "read twice, in vain");

        let cache = Arc::new(ChunkCache::new(64 << 20));
        let layer = opened(dir.path(), &gzip(&tar, 6), &cache);
        assert_eq!(layer.chunks().bring(1, true), Brought::Now);
        assert_eq!(layer.chunks().bring(1, true), Brought::Not);
        let (tiers, memory, stats) = counts(&cache);
        assert_eq!((tiers, memory, stats.ahead, stats.failed), ([0, 0, 1, 0], 0, 1, 0));
        assert_eq!(layer.suspended_decoders().0, 1);
        assert!(layer.suspended_decoders().1 > 0);
    }
}
