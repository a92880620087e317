//! How many names objects with several have. No layer changes, so what the layers show is counted once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::{Fs, FsError};
use crate::model::Ino;
use crate::union::{Lower, LowerRef};

/// Counts that are remembered, each some 80 bytes.
const COUNTS_KEPT: usize = 32 << 10;
/// An object with so few names is counted anew each time. What is left has so many that all those of an image fit.
const FEW_NAMES: u32 = 8;

/// The counts of names in the layers. Taken alone, never across I/O.
#[derive(Debug)]
pub(super) struct LinkCounts(Mutex<LruCache<LowerRef, u32>>);

impl Default for LinkCounts {
    fn default() -> Self {
        // Room is made when it is needed, which `LruCache::new` would make at once.
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl LinkCounts {
    fn lock(&self) -> MutexGuard<'_, LruCache<LowerRef, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fs {
    /// How many of the layers' names of an object still lead to it, wherever their directories are now.
    pub(super) fn visible_names(&self, lower: LowerRef, ino: Ino) -> Result<u32, FsError> {
        if !self.is_linked(lower, ino)? {
            return Ok(1);
        }
        let visible = self.names_in_layers(lower)?;
        let gone = match &self.upper {
            Some(upper) => upper.names_gone(ino)?,
            None => 0,
        };
        Ok(visible.saturating_sub(gone))
    }

    /// How many names of a layer's object the layers together show.
    pub(super) fn names_in_layers(&self, lower: LowerRef) -> Result<u32, FsError> {
        let known = self.link_counts.lock().get(&lower).copied();
        if let Some(visible) = known {
            return Ok(visible);
        }
        let _using = self.using_layers();
        let paths = self.union.paths(lower)?;
        let mut visible = 0_u32;
        for path in &paths {
            if matches!(self.union.resolve(path)?, Some(Lower::Leaf(leaf, _)) if leaf == lower) {
                visible += 1;
            }
        }
        if paths.len() > FEW_NAMES as usize {
            let mut counts = self.link_counts.lock();
            counts.put(lower, visible);
            if counts.len() > COUNTS_KEPT {
                counts.pop_lru();
            }
        }
        Ok(visible)
    }
}
