//! What one layer may ask for while its index is built.
//!
//! A megabyte of gzip can hold a gigabyte of headers, and one path of 2 KB a thousand directories: what is kept in memory
//! is counted here, not in bytes of the blob.

use std::cell::Cell;

use crate::model::limits::LAYER_ENTRIES_MAX;

/// What is counted, each with what all of a layer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    /// Objects, those that only paths imply included.
    Objects,
    /// Bytes of distinct names and targets: 100 for each of the most entries, where real images have 20.
    NameBytes,
    /// Bytes of extended attributes: a label of 40 bytes on five million files.
    XattrBytes,
    /// Stretches of data in sparse files.
    Hunks,
    /// Bytes of symlink targets followed on the way to entries: half a minute of walking at most.
    FollowedBytes,
}

/// The costs in the order of [`Cost`]: what there is of each, and what it is called.
const LIMITS: [(u64, &str); 5] = [
    (LAYER_ENTRIES_MAX, "objects"),
    (1 << 30, "bytes of names"),
    (512 << 20, "bytes of extended attributes"),
    (LAYER_ENTRIES_MAX, "extents of sparse files"),
    (1 << 30, "bytes of symlinks to follow"),
];

/// What of it is left.
#[derive(Debug)]
pub(super) struct Budget {
    left: [Cell<u64>; LIMITS.len()],
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: LIMITS.map(|(limit, _)| Cell::new(limit)) }
    }

    /// Takes some; the error is for people.
    pub(super) fn spend(&self, cost: Cost, amount: usize) -> Result<(), String> {
        let left = &self.left[cost as usize];
        let rest = u64::try_from(amount).ok().and_then(|amount| left.get().checked_sub(amount));
        let (limit, unit) = LIMITS[cost as usize];
        left.set(rest.ok_or_else(|| format!("the layer has more than {limit} {unit}"))?);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn leave(&self, cost: Cost, amount: u64) {
        self.left[cost as usize].set(amount);
    }
}
