//! Open descriptors of objects of the upper, a bounded number of them.

use std::collections::HashSet;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::file::must_be_regular;
use super::node::{Home, Node, UpperPart};
use super::{Fs, FsError};
use crate::model::Ino;

/// Descriptors kept of each kind: enough for the working set of a build, far below any `RLIMIT_NOFILE` in use (1024
/// is the smallest; mounting raises it to the hard limit).
const KEPT: NonZeroUsize = match NonZeroUsize::new(256) {
    Some(kept) => kept,
    None => NonZeroUsize::MIN,
};

/// How often a name may change under our hands before we say that somebody else changes the upper.
const RETRIES: usize = 4;

/// The descriptors.
#[derive(Debug)]
pub(super) struct Pins {
    /// `O_PATH` descriptors: of directories to act in, of anything to act on.
    paths: Mutex<LruCache<Ino, Arc<OwnedFd>>>,
    /// Regular files, open for reading or for both.
    files: Mutex<LruCache<Ino, OpenFile>>,
    /// Nodes without a name that hold a descriptor of their own.
    held: Mutex<HashSet<Ino>>,
}

/// A regular file of the upper.
#[derive(Clone, Debug)]
pub(super) struct OpenFile {
    pub(super) file: Arc<File>,
    pub(super) writable: bool,
}

impl Pins {
    pub(super) fn new() -> Self {
        Self {
            paths: Mutex::new(LruCache::new(KEPT)),
            files: Mutex::new(LruCache::new(KEPT)),
            held: Mutex::default(),
        }
    }

    /// Keeps a descriptor for later.
    pub(super) fn keep(&self, ino: Ino, pinned: OwnedFd) -> Arc<OwnedFd> {
        let pinned = Arc::new(pinned);
        let evicted = lock(&self.paths).push(ino, Arc::clone(&pinned));
        // Closed here, not under the lock.
        drop(evicted);
        pinned
    }

    /// Closes what belongs to a number.
    pub(super) fn forget(&self, ino: Ino) {
        let path = lock(&self.paths).pop(&ino);
        let file = lock(&self.files).pop(&ino);
        lock(&self.held).remove(&ino);
        drop((path, file));
    }

    /// Whether one more node may hold a descriptor of its own.
    pub(super) fn may_hold(&self) -> bool {
        lock(&self.held).len() < KEPT.get()
    }

    #[cfg(test)]
    pub(super) fn held_count(&self) -> usize {
        lock(&self.held).len()
    }

    /// Counts a node that does.
    pub(super) fn holds(&self, ino: Ino) {
        lock(&self.held).insert(ino);
    }

    fn path(&self, ino: Ino) -> Option<Arc<OwnedFd>> {
        lock(&self.paths).get(&ino).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UpperPart {
    /// An object under its own name.
    pub(super) fn named(st_ino: u64) -> Self {
        Self { st_ino, home: Home::Named, pinned: None }
    }
}

impl Fs {
    /// A descriptor of a node's object in the upper; `None` when it has none.
    pub(super) fn pin(&self, node: &Node) -> Result<Option<Arc<OwnedFd>>, FsError> {
        let Some(part) = node.state().upper.clone() else { return Ok(None) };
        if let Some(pinned) = part.pinned {
            return Ok(Some(pinned));
        }
        if let Some(pinned) = self.pins.path(node.ino) {
            return Ok(Some(pinned));
        }
        for _ in 0..RETRIES {
            if let Some(found) = self.open_home(node, &part)? {
                return Ok(Some(self.pins.keep(node.ino, found)));
            }
        }
        Err(FsError::Lost(node.ino))
    }

    /// Opens the object where it should be; `None` when something else is there.
    fn open_home(&self, node: &Node, part: &UpperPart) -> Result<Option<OwnedFd>, FsError> {
        let upper = self.upper()?;
        if node.ino == Ino::ROOT {
            return Ok(Some(upper.root()?.pinned));
        }
        if part.home == Home::Index {
            return Ok(upper.indexed(node.ino)?.map(|object| object.pinned));
        }
        if let Home::Kept(serial) = part.home {
            return Ok(Some(upper.kept(serial)?));
        }
        for place in self.table.places(node.ino) {
            let parent = self.node(place.parent)?;
            let Some(dir) = self.pin(&parent)? else { continue };
            if let Some(pinned) = upper.pinned_as(&dir, place.name.as_name(), part.st_ino)? {
                return Ok(Some(pinned));
            }
        }
        Ok(None)
    }

    /// The open file of a node that is in the upper; `None` when it is not.
    pub(super) fn open_upper(&self, node: &Node, write: bool) -> Result<Option<Arc<File>>, FsError> {
        must_be_regular(node)?;
        if let Some(open) = lock(&self.pins.files).get(&node.ino)
            && (open.writable || !write)
        {
            return Ok(Some(Arc::clone(&open.file)));
        }
        let Some(pinned) = self.pin(node)? else { return Ok(None) };
        let file = self.upper()?.open_file(&pinned, write)?;
        let evicted =
            lock(&self.pins.files).push(node.ino, OpenFile { file: Arc::clone(&file), writable: write });
        drop(evicted);
        Ok(Some(file))
    }
}
