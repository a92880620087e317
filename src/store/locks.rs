//! The lock of the whole store: shared by who adds blobs that no name reaches yet, exclusive for the collector.
//!
//! Lock order: store lock, then `refs.lock`, then a single blob.

use std::time::{Duration, Instant};

use super::{Store, StoreError};
use crate::sys::lock::FileLock;

/// How long [`Store::lock_alone`] sleeps in between.
const PAUSE: Duration = Duration::from_millis(2);

/// Nothing is collected while this is held. Hold it from the first blob of an image until its name is set.
#[derive(Debug)]
pub struct StoreLock {
    _lock: FileLock,
}

/// Nobody else adds or collects while this is held.
#[derive(Debug)]
pub struct StoreLockExclusive {
    _lock: FileLock,
}

impl Store {
    /// Waits for a collection to end, then keeps others from starting.
    ///
    /// # Errors
    /// What the system says of the lock file.
    pub fn lock(&self) -> Result<StoreLock, StoreError> {
        let path = self.root().join("lock");
        let lock = FileLock::shared(&path).map_err(StoreError::io("lock", &path))?;
        Ok(StoreLock { _lock: lock })
    }

    /// For [`super::collect_blobs`] and [`super::collect_caches`]. Never waits.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when somebody holds a lock.
    pub fn lock_exclusive(&self) -> Result<StoreLockExclusive, StoreError> {
        let path = self.root().join("lock");
        match FileLock::try_exclusive(&path).map_err(StoreError::io("lock", &path))? {
            Some(lock) => Ok(StoreLockExclusive { _lock: lock }),
            None => Err(StoreError::Busy { path: self.root().to_owned() }),
        }
    }

    /// As [`Self::lock_exclusive`], but asks again for that long: others hold a lock for moments, but for who builds or
    /// brings an image.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when somebody still holds one then.
    pub fn lock_alone(&self, patience: Duration) -> Result<StoreLockExclusive, StoreError> {
        let end = Instant::now() + patience;
        loop {
            match self.lock_exclusive() {
                Err(StoreError::Busy { .. }) if Instant::now() < end => std::thread::sleep(PAUSE),
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::lock::soon;

    #[test]
    fn adders_share_and_the_collector_is_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let (one, two) = (store.lock().unwrap(), store.lock().unwrap());
        assert!(matches!(store.lock_exclusive(), Err(StoreError::Busy { .. })));
        drop(one);
        assert!(matches!(store.lock_exclusive(), Err(StoreError::Busy { .. })));
        drop(two);
        soon(|| store.lock_exclusive().ok());
    }
}
