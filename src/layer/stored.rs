//! Granules that lie somewhere as they are: in a blob that is the tar itself, or in the spill.

use std::sync::atomic::Ordering;

use super::chunk_reader::{ChunkReader, Failure, VerifiedChunk};
use super::read_counts::Tier;
use super::turns::Waited;
use crate::index::GRANULE_BYTES;

/// Set in the number of a granule of the spill, so that no span has the same one among the turns.
const SPILLED: u64 = 1 << 63;

impl ChunkReader {
    /// From a blob that is the tar itself; and whether somebody passes by. Reads of a file straddle granules, so the readers
    /// of one program meet in many.
    pub(super) fn read_plain(&self, granule: u64) -> Result<(VerifiedChunk, bool), Failure> {
        let clock = self.counts().start(Tier::Waited);
        let _turn = match self.turns.take(granule, || self.cached(granule)) {
            Waited::Turn(turn) => turn,
            Waited::Found(chunk) => {
                clock.stop();
                return Ok((chunk, false));
            }
        };
        let clock = self.counts().start(Tier::Plain);
        let mut bytes = self.cache.buffer(self.granule_len(granule));
        let read = self.blob().read_at(granule * GRANULE_BYTES, &mut bytes);
        let count = read.map_err(|source| self.io(source))?;
        bytes.truncate(count);
        let chunk = self.verify(granule, bytes)?;
        let reads_on = self.reads_on(granule);
        clock.stop();
        Ok((chunk, reads_on))
    }

    /// From the spill, if it is there and right; and whether somebody passes by.
    pub(super) fn read_spilled(&self, granule: u64) -> Option<(VerifiedChunk, bool)> {
        self.spill.as_ref()?;
        let clock = self.counts().start(Tier::Waited);
        let _turn = match self.turns.take(SPILLED | granule, || self.cached(granule)) {
            Waited::Turn(turn) => turn,
            Waited::Found(chunk) => {
                clock.stop();
                return Some((chunk, false));
            }
        };
        let chunk = self.spilled(granule)?;
        Some((chunk, self.reads_on(granule)))
    }

    /// Whether the granule before was the last that was read as it lies: then somebody passes by.
    fn reads_on(&self, granule: u64) -> bool {
        let reads_on = self.last_read.swap(granule, Ordering::Relaxed).checked_add(1) == Some(granule);
        if reads_on {
            self.cache.pass(self.key, granule);
        }
        reads_on
    }

    /// From the spill, if it is there and right.
    pub(super) fn spilled(&self, granule: u64) -> Option<VerifiedChunk> {
        let spill = self.spill.as_ref()?;
        let clock = self.counts().start(Tier::Spill);
        let mut bytes = self.cache.buffer(self.granule_len(granule));
        if !spill.get(granule, &mut bytes) {
            self.cache.give_back(bytes);
            return None;
        }
        let verified = self.verify(granule, bytes).inspect(|_| clock.stop());
        if let Err(Failure::Wrong(_)) = verified {
            spill.forget(granule);
        }
        verified.ok()
    }
}
