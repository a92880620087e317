//! Nodes: what the kernel holds a number for.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::io::Errno;
use std::time::{SystemTime, UNIX_EPOCH};

use super::known::Known;
use super::listing::Listing;
use super::sharing::Sharing;
use crate::model::{FileKind, Ino, Timestamp};
use crate::union::{LowerDir, LowerRef};

/// One filesystem object that the kernel, or a child that it knows, refers to.
///
/// Lock order: `copy_up` of a child, then of its parent, and so on up; then an object's turn in the upper; then `names`, of
/// two directories that of the lower number first; then what is unsettled; then the table; then `state`; then `sharing`;
/// then `listing`. Only `copy_up`, the turn and `names` are held across I/O.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) ino: Ino,
    pub(super) kind: FileKind,
    /// It was found sharing content. Its map may have been written since without a flush.
    pub(super) found_sharing: bool,
    /// What of the layers it was first found as; `None` when that was an object of the upper alone.
    pub(super) origin: Option<LowerRef>,
    state: Mutex<State>,
    copy_up: Mutex<()>,
    names: RwLock<()>,
    sharing: Mutex<Option<Sharing>>,
    /// Of a directory that was read.
    listing: OnceLock<Box<Mutex<Listing>>>,
    known: Mutex<Known>,
}

/// Where a node's bytes and attributes are.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Its object in the layers.
    pub(super) lower: LowerPart,
    /// Its object in the upper; wins.
    pub(super) upper: Option<UpperPart>,
    /// The inode number of a copy that is about to get its place in the upper, where others may see it first.
    pub(super) coming: Option<u64>,
    /// It has no name any more.
    pub(super) removed: bool,
    /// When it was first read in a day, of an object of a layer: no layer can keep that.
    pub(super) read_at: Option<Timestamp>,
    /// Why its data could not be flushed when nobody waited for that. The next fsync(2) is told.
    pub(super) flush_failed: Option<Errno>,
    /// Counts changes of a directory's names.
    pub(super) version: u64,
}

/// A node's object in the layers.
#[derive(Clone, Debug)]
pub(super) enum LowerPart {
    /// Born in the upper, or a copied-up object whose original does not matter any more.
    None,
    /// Not a directory, with the number of the layers' names that still lead to it.
    Leaf(LowerRef, u32),
    /// A directory.
    Dir(Arc<LowerDir>),
}

/// A node's object in the upper.
#[derive(Clone, Debug)]
pub(super) struct UpperPart {
    /// Its inode number there: tells it from whatever else may be under the name by now.
    pub(super) st_ino: u64,
    /// Where to find it.
    pub(super) home: Home,
    /// A descriptor that keeps it alive when no known name leads to it.
    pub(super) pinned: Option<Arc<OwnedFd>>,
}

/// Where an object of the upper can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// Under its names.
    Named,
    /// In the link index, which holds one of its links.
    Index,
    /// It has no known name, but a link of this number in `work/tmp`.
    Kept(u64),
}

impl Node {
    pub(super) fn new(ino: Ino, kind: FileKind, lower: LowerPart, upper: Option<UpperPart>) -> Self {
        Self {
            ino,
            kind,
            found_sharing: false,
            origin: lower.origin(),
            state: Mutex::new(State {
                lower,
                upper,
                coming: None,
                removed: false,
                flush_failed: None,
                read_at: None,
                version: 0,
            }),
            copy_up: Mutex::new(()),
            names: RwLock::new(()),
            sharing: Mutex::new(None),
            listing: OnceLock::new(),
            known: Mutex::default(),
        }
    }

    /// The state, to read or change; never held across I/O.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its object in the upper is the one with this inode number there.
    pub(super) fn is_in_upper_as(&self, st_ino: u64) -> bool {
        let state = self.state();
        let known = state.upper.as_ref().map(|part| part.st_ino).or(state.coming);
        known == Some(st_ino)
    }

    /// Keeps a second copy-up of the same object, or of parts of it, away.
    pub(super) fn copy_up(&self) -> MutexGuard<'_, ()> {
        self.copy_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For who changes attributes: keeps those away who put them back after the rest of the content was copied.
    pub(super) fn attributes(&self) -> Option<MutexGuard<'_, ()>> {
        // Nothing shares content again that shares none.
        let shares = self.sharing().is_some();
        shares.then(|| self.copy_up())
    }

    /// For a copy-up that gives this directory a name that it had already: it puts the times of the directory back, so
    /// nobody else may change them until then. Held for that one step.
    pub(super) fn names_alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// For everybody else who changes the names or the times of this directory. Nothing is copied up while it is held.
    pub(super) fn names_shared(&self) -> RwLockReadGuard<'_, ()> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Self::names_shared`] of two directories, which may be the same.
    pub(super) fn names_of_both<'a>(
        &'a self,
        other: &'a Self,
    ) -> (RwLockReadGuard<'a, ()>, Option<RwLockReadGuard<'a, ()>>) {
        let (first, second) = if self.ino <= other.ino { (self, other) } else { (other, self) };
        (first.names_shared(), (first.ino != second.ino).then(|| second.names_shared()))
    }

    /// What of its content is still the layer's. Changed only under `copy_up`; never held across I/O.
    pub(super) fn sharing(&self) -> MutexGuard<'_, Option<Sharing>> {
        self.sharing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names that were told to readers of this directory.
    pub(super) fn listing(&self) -> MutexGuard<'_, Listing> {
        let listing = self.listing.get_or_init(Box::default);
        listing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What need not be asked again; never held across I/O, and nothing is locked under it.
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that an object of a layer was read. As of a filesystem that is mounted `relatime`, the time is kept if there
    /// was none since the last change, or a day ago (mount(8)).
    pub(super) fn was_read(&self) {
        const DAY_SECS: i64 = 24 * 3600;
        let now = now();
        let mut state = self.state();
        if state.read_at.is_none_or(|before| now.secs - before.secs >= DAY_SECS) {
            state.read_at = Some(now);
        }
    }

    /// Says that the names of this directory changed.
    pub(super) fn touch(&self) {
        self.state().version += 1;
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}

impl LowerPart {
    fn origin(&self) -> Option<LowerRef> {
        match self {
            Self::None => None,
            Self::Leaf(lower, _) => Some(*lower),
            Self::Dir(dir) => dir.parts.first().copied(),
        }
    }

    /// The layers' side of a directory; an empty one for an object born in the upper.
    pub(super) fn dir(&self) -> Arc<LowerDir> {
        match self {
            Self::Dir(dir) => Arc::clone(dir),
            Self::None | Self::Leaf(..) => Arc::default(),
        }
    }
}
