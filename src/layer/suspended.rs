//! Decoders that stopped on their way through a layer, kept for whoever reads on.

use std::sync::{Mutex, PoisonError};

use super::chunk_cache::LayerKey;
use crate::index::Decoder;
use crate::model::TarOffset;

/// Few programs read more files at a time.
const DECODERS_MAX: usize = 16;
/// What they may take together, but for the last used: of gzip 350 KiB each, of zstd and xz as much as the history that
/// the blob was compressed with, which is 8 MiB in most and 128 MiB at most.
const BYTES_MAX: u64 = 64 << 20;

/// Of all layers of a process: each stands at the start of a granule, the last used at the end. Never held across I/O.
#[derive(Debug, Default)]
pub(super) struct Suspended {
    decoders: Mutex<Vec<(LayerKey, Decoder)>>,
}

impl Suspended {
    /// Keeps a decoder; those that are unused for longest make room for it. Not when `is_current` says no, which is asked while
    /// nobody can drop those of a layer.
    pub(super) fn keep(&self, layer: LayerKey, decoder: Decoder, is_current: impl FnOnce() -> bool) {
        let mut decoders = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_current() {
            drop(decoders);
            return;
        }
        decoders.push((layer, decoder));
        let mut bytes: u64 = decoders.iter().map(|(_, decoder)| decoder.memory_bytes()).sum();
        let mut out = 0;
        for (_, decoder) in decoders.iter().take(decoders.len() - 1) {
            if decoders.len() - out <= DECODERS_MAX && bytes <= BYTES_MAX {
                break;
            }
            bytes -= decoder.memory_bytes();
            out += 1;
        }
        let out: Vec<_> = decoders.drain(..out).collect();
        // To free a history of MiBs takes a while: nobody has to wait for that.
        drop(decoders);
        drop(out);
    }

    /// The decoder of a layer that stands nearest before a place, and not before `from`.
    pub(super) fn take(&self, layer: LayerKey, from: TarOffset, place: TarOffset) -> Option<Decoder> {
        let mut decoders = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = |(_, (of, decoder)): &(usize, &(LayerKey, Decoder))| {
            *of == layer && (from..=place).contains(&decoder.position())
        };
        let best =
            decoders.iter().enumerate().filter(usable).max_by_key(|(_, (_, decoder))| decoder.position());
        let number = best?.0;
        Some(decoders.remove(number).1)
    }

    /// Whether a decoder of a layer stands at a place, or not before `from` on the way to it.
    pub(super) fn stands_near(&self, layer: LayerKey, from: TarOffset, place: TarOffset) -> bool {
        let decoders = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        decoders.iter().any(|(of, decoder)| *of == layer && (from..=place).contains(&decoder.position()))
    }

    /// How many are kept of a layer, and the memory that they hold on to.
    pub(super) fn held(&self, layer: LayerKey) -> (u64, u64) {
        let decoders = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        let own = || decoders.iter().filter(|(of, _)| *of == layer);
        (own().count() as u64, own().map(|(_, decoder)| decoder.memory_bytes()).sum())
    }

    /// Drops those of a layer.
    pub(super) fn remove_layer(&self, layer: LayerKey) {
        let mut decoders = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        let (out, kept) = std::mem::take(&mut *decoders).into_iter().partition(|(of, _)| *of == layer);
        *decoders = kept;
        drop(decoders);
        let out: Vec<(LayerKey, Decoder)> = out;
        drop(out);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::encoding_tests::{tar_of, through};
    use super::super::tar_tests::{id, noise};
    use super::super::{ChunkCache, Layer as _, TarLayer};
    use super::*;
    use crate::index::{self, Expected, LayerIndex};
    use crate::sys::file_range::FileRange;

    /// Reads a little of as many layers, and then more of each; what is suspended must stay within `bytes_max`.
    fn read_on(command: &str, layers: usize, bytes_max: u64) {
        let data = noise(600_000, 3);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("blob"), through(command, &tar_of(&data))).unwrap();
        let blob = FileRange::open(&dir.path().join("blob")).unwrap();
        index::build(&blob, &Expected::default(), dir.path(), "index", &|_| {}).unwrap();
        let index = Arc::new(LayerIndex::open(&dir.path().join("index")).unwrap());
        let cache = Arc::new(ChunkCache::new(0));
        let layer = |_| TarLayer::new(Arc::clone(&index), blob.clone(), Arc::clone(&cache));
        let layers: Vec<TarLayer> = (0..layers).map(layer).collect();
        for offset in [0, 140_000, 300_000] {
            for layer in &layers {
                let mut bytes = [0; 1000];
                assert_eq!(layer.read_at(id(layer, "big"), offset as u64, &mut bytes).unwrap(), 1000);
                assert!(bytes == data[offset..offset + 1000], "{command} at {offset}");
                let decoders = cache.suspended.decoders.lock().unwrap();
                assert!((1..=DECODERS_MAX).contains(&decoders.len()), "{command}: {}", decoders.len());
                let held: u64 = decoders.iter().map(|(_, decoder)| decoder.memory_bytes()).sum();
                assert!(held <= bytes_max || decoders.len() == 1, "{command}: {held} bytes");
            }
        }
        drop(layers);
        assert!(cache.suspended.decoders.lock().unwrap().is_empty());
    }

    /// A decoder of bytes that turned out wrong meanwhile is not found by who begins again.
    #[test]
    fn what_began_before_a_restart_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("blob"), through("gzip", &tar_of(&noise(600_000, 3)))).unwrap();
        let blob = FileRange::open(&dir.path().join("blob")).unwrap();
        index::build(&blob, &Expected::default(), dir.path(), "index", &|_| {}).unwrap();
        let index = Arc::new(LayerIndex::open(&dir.path().join("index")).unwrap());
        let cache = Arc::new(ChunkCache::new(0));
        let layer = TarLayer::new(index, blob, Arc::clone(&cache));
        layer.read_at(id(&layer, "big"), 0, &mut [0; 1000]).unwrap();
        let (key, decoder) = cache.suspended.decoders.lock().unwrap().pop().unwrap();
        let began = decoder.position();
        cache.suspended.keep(key, decoder, || false);
        assert!(!cache.suspended.stands_near(key, TarOffset(0), began));
    }

    #[test]
    fn many_layers_hold_no_more_than_one() {
        read_on("gzip -6", 40, BYTES_MAX);
        read_on("zstd -1 --long=25", 5, BYTES_MAX);
        // More than all may take, but the last used.
        read_on("zstd -1 --long=27", 3, 0);
    }
}
