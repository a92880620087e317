//! Granules brought into the cache before anybody asks for them, because an earlier start needed them.

use super::chunk_reader::{ChunkReader, guarded};
use crate::index::GRANULE_BYTES;

/// What became of reading ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// It is in the cache now.
    Now,
    /// There was nothing to do, or it is for others to do.
    Not,
    /// It cannot be decoded.
    Failed,
}

impl ChunkReader {
    /// What decoding up to the end of a granule brings into the cache at most.
    pub(super) fn decoding_bytes(&self, granule: u64) -> u64 {
        let end = granule.saturating_add(1).saturating_mul(GRANULE_BYTES);
        self.checkpoint(granule).map_or(0, |checkpoint| end.saturating_sub(checkpoint.place.0))
    }

    /// Brings a granule into the cache before anybody asks for it, from the spill or, if that is allowed, by decoding. Nobody
    /// waits for that: a span that a reader is decoding is left to it, and a reader who comes meanwhile decodes for itself.
    pub(super) fn bring(&self, granule: u64, may_decode: bool) -> Brought {
        if granule >= self.granules() || self.has(granule) {
            return Brought::Not;
        }
        if self.spilled(granule).is_some() {
            self.counts().ahead.add(1);
            return Brought::Now;
        }
        let Ok(checkpoint) = guarded(|| self.checkpoint(granule)) else { return Brought::Failed };
        if self.turns.is_busy(checkpoint.number) || !may_decode {
            return Brought::Not;
        }
        match guarded(|| self.decode_from(&checkpoint, granule)) {
            Ok(_) => {
                self.counts().ahead.add(1);
                Brought::Now
            }
            Err(_) => Brought::Failed,
        }
    }
}
