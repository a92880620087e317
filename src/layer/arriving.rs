//! Layers whose blob arrives while they are read: which of its bytes a granule needs.

use std::ops::Range;

use super::chunk_reader::ChunkReader;
use crate::index::{Checkpoint, GRANULE_BYTES};
use crate::model::TarOffset;

impl ChunkReader {
    /// Says that a granule may be read soon.
    pub(super) fn announce(&self, granule: u64) {
        if self.blob().is_arriving()
            && let Some(range) = self.blob_range(granule, false)
        {
            self.blob().announce(range);
        }
    }

    /// What a granule is made of turned out wrong. Whether it has been fetched anew. `is_long_too`: also where that is a long span.
    pub(super) fn doubt(&self, granule: u64, is_long_too: bool) -> bool {
        let arrives = self.blob().is_arriving();
        let range = arrives.then(|| self.blob_range(granule, is_long_too)).flatten();
        range.is_some_and(|range| self.blob().doubt(range.start..self.blob_end(granule).max(range.end)))
    }

    /// Where in the blob the span ends in which a granule's last byte is: that may be another one than its first byte is in.
    fn blob_end(&self, granule: u64) -> u64 {
        let last =
            granule.saturating_mul(GRANULE_BYTES) + (self.granule_len(granule) as u64).saturating_sub(1);
        let found = self.index.checkpoint(TarOffset(last));
        found.ok().flatten().filter(|_| !self.is_plain()).map_or(0, |checkpoint| checkpoint.blob_end)
    }

    fn blob_range(&self, granule: u64, is_long_too: bool) -> Option<Range<u64>> {
        if self.is_plain() {
            let start = granule.checked_mul(GRANULE_BYTES)?;
            return Some(start..start.checked_add(GRANULE_BYTES)?);
        }
        let checkpoint = self.checkpoint(granule).ok()?;
        (is_long_too || !checkpoint.is_long()).then(|| bytes_of(&checkpoint))
    }
}

/// What is read of a blob to decode a span from its checkpoint. The bits before it may be in the byte before; what a granule has of
/// the next span is waited for when it is read.
pub(super) fn bytes_of(checkpoint: &Checkpoint) -> Range<u64> {
    checkpoint.blob_offset.saturating_sub(1)..checkpoint.blob_end
}
