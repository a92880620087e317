//! What is counted of one mounted tree.

use super::Fs;
use crate::model::Counter;
use crate::model::stats::TreeStats;

/// See [`TreeStats`].
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) copy_ups: Counter,
    pub(super) copied_bytes: Counter,
}

impl Fs {
    /// How much there is, and what became of it since the mount.
    #[must_use]
    pub fn stats(&self) -> TreeStats {
        let (suspended_decoders, suspended_bytes) = self.union.suspended_decoders();
        TreeStats {
            layers: self.union.layer_count() as u64,
            nodes: self.table.len() as u64,
            copy_ups: self.counts.copy_ups.get(),
            copied_bytes: self.counts.copied_bytes.get(),
            suspended_decoders,
            suspended_bytes,
        }
    }
}
