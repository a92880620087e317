//! How many names objects with several have. No layer changes, so what the layers show is counted once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::{Lower, LowerRef, Union};
use crate::layer::LayerError;

/// Counts that are remembered, each some 80 bytes.
const COUNTS_KEPT: usize = 32 << 10;
/// An object with so few names is counted anew each time. If a layer of the most entries (`LAYER_ENTRIES_MAX`) has more
/// objects with many names than are remembered, these have 305 each at most: that often a name is looked up when all are
/// listed, for each layer made for it. In other images it is about once.
const FEW_NAMES: usize = 8;

/// Counts of visible names. For one union only.
#[derive(Debug)]
pub struct LinkCounts {
    /// Taken alone, never across I/O.
    counts: Mutex<LruCache<LowerRef, u32>>,
    /// How often names were looked up.
    #[cfg(test)]
    pub(crate) counted: std::sync::atomic::AtomicUsize,
}

impl Default for LinkCounts {
    fn default() -> Self {
        Self {
            // Room is made when it is needed, which `LruCache::new` would make at once.
            counts: Mutex::new(LruCache::unbounded()),
            #[cfg(test)]
            counted: std::sync::atomic::AtomicUsize::new(0),
        }
    }
}

impl LinkCounts {
    fn lock(&self) -> MutexGuard<'_, LruCache<LowerRef, u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many names of a layer's object, which is no directory, the layers of `union` together show. A hard link that an
    /// upper layer has to it does not count.
    ///
    /// # Errors
    /// [`LayerError`] of the layer that could not answer.
    pub fn visible(&self, union: &Union, lower: LowerRef) -> Result<u32, LayerError> {
        let known = self.lock().get(&lower).copied();
        if let Some(visible) = known {
            return Ok(visible);
        }
        let paths = union.paths(lower)?;
        #[cfg(test)]
        self.counted.fetch_add(paths.len(), std::sync::atomic::Ordering::Relaxed);
        let mut visible = 0_u32;
        for path in &paths {
            let found = union.resolve(path)?;
            visible += u32::from(matches!(found, Some(Lower::Leaf(leaf, _)) if leaf == lower));
        }
        if paths.len() > FEW_NAMES {
            let mut counts = self.lock();
            counts.put(lower, visible);
            if counts.len() > COUNTS_KEPT {
                counts.pop_lru();
            }
        }
        Ok(visible)
    }
}
