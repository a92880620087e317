//! Files that are open, and who has their bytes. Only of [`Writes::PassedThrough`](super::Writes): otherwise the kernel
//! opens files without asking.
//!
//! The kernel wants all opens of a file to be of one kind at a time (fs/fuse/iomode.c): either reads and writes come here
//! and stay in its page cache, or it does them itself upon the file of the upper, which is registered once. So the first
//! one decides, until the last one is closed.
//!
//! What the kernel does itself it does as whoever registered the file, without asking whether the writer may keep setuid,
//! and it goes on to show the mode that it knows. Hence: files with setuid, setgid or capabilities are never passed
//! through; files are registered without `CAP_FSETID` (capabilities(7)), so that a bit that is set later goes with the
//! next write; and as long as they are open their attributes are asked for each time.
//!
//! A mapping may outlive the last close, and nothing tells when it is written to: so the attributes of no regular file are
//! believed for longer than [`MAPPED`]. Should such a file get setuid meanwhile, the next one to read it may see what was
//! there when it opened it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::{BackingId, FopenFlags};
use rustix::thread::CapabilitySet;

use crate::fs::{Content, Fs};
use crate::model::Ino;

/// Those that are open, by number. Of one lock for each remainder, held while a file is looked at for the first time.
#[derive(Debug)]
pub(super) struct Opened {
    files: [Mutex<HashMap<Ino, File>>; LOCKS],
    /// How many wait for a release, and at most.
    waiting: AtomicUsize,
    waiting_max: usize,
}

/// So that those who open files, and those who ask for attributes, rarely wait for each other.
const LOCKS: usize = 32;
/// How long times may be out of date that change by writing into a mapping of a file that was closed.
const MAPPED: Duration = Duration::from_secs(1);

/// How often, and for how long each time, the release of a file is waited for that is perhaps still open. The thread that
/// has it may not have run since, on a machine with too much to do.
const RELEASE_TRIES: u32 = 1000;
const RELEASE_POLL: Duration = Duration::from_millis(1);

/// A file that is open.
#[derive(Debug)]
struct File {
    count: u64,
    how: How,
    /// Its release was waited for in vain.
    stays: bool,
}

/// Who has a file's bytes.
#[derive(Clone, Debug)]
pub(super) enum How {
    /// Reads and writes come here. What the kernel remembers of earlier ones is true only if all came here.
    Asked {
        /// It is.
        keeps: bool,
    },
    /// The kernel, by this registration.
    Passed(Arc<BackingId>),
}

/// Whether the kernel may go on with what it remembers of a file.
pub(super) fn kept(keeps: bool) -> FopenFlags {
    if keeps { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() }
}

impl Opened {
    /// Of a mount whose requests this many threads answer.
    pub(super) fn of(readers: usize) -> Self {
        // One of them has to hear of the release.
        Self { files: Default::default(), waiting: AtomicUsize::new(0), waiting_max: readers - 1 }
    }

    /// Notes an open of a regular file; `register` hands a file of the upper to the kernel.
    ///
    /// Whatever is in the way, it can be opened, and then read and written through the server, which says what is wrong.
    pub(super) fn open(
        &self,
        fs: &Fs,
        ino: Ino,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> How {
        self.await_release(fs, ino);
        let mut files = self.lock(ino);
        if let Some(file) = files.get_mut(&ino) {
            file.count += 1;
            return file.how.clone();
        }
        let how = match fs.content(ino) {
            Ok(Content::Layers) => How::Asked { keeps: true },
            Ok(Content::Privileged) => How::Asked { keeps: false },
            Ok(Content::Upper(pinned)) => passed(&pinned, register),
            Err(error) => {
                tracing::warn!("inode {}: opened all the same: {error}", ino.0);
                How::Asked { keeps: false }
            }
        };
        files.insert(ino, File { count: 1, how: how.clone(), stays: false });
        how
    }

    /// close(2) returns before its message is answered, and one thread may hear of that after another one hears of the next
    /// open. Should the file have got setuid between the two, it must not be taken for one that is still passed through.
    fn await_release(&self, fs: &Fs, ino: Ino) {
        let may_be_closed = || {
            let files = self.lock(ino);
            let passes =
                files.get(&ino).is_some_and(|file| matches!(file.how, How::Passed(_)) && !file.stays);
            drop(files);
            passes && matches!(fs.content(ino), Ok(Content::Privileged))
        };
        if !may_be_closed() {
            return;
        }
        let more = |waiting| (waiting < self.waiting_max).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return;
        }
        let is_closed = (0..RELEASE_TRIES).any(|_| {
            std::thread::sleep(RELEASE_POLL);
            !may_be_closed()
        });
        if let (false, Some(file)) = (is_closed, self.lock(ino).get_mut(&ino)) {
            file.stays = true;
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes the end of one.
    pub(super) fn release(&self, ino: Ino) {
        let mut files = self.lock(ino);
        let Some(file) = files.get_mut(&ino) else { return };
        file.count -= 1;
        file.stays = false;
        let ended = if file.count == 0 { files.remove(&ino) } else { None };
        drop(files);
        // A system call takes the registration back.
        drop(ended);
    }

    /// How long the kernel may believe the attributes of a regular file.
    pub(super) fn valid_for(&self, ino: Ino) -> Duration {
        let passes = self.lock(ino).get(&ino).is_some_and(|file| matches!(file.how, How::Passed(_)));
        if passes { Duration::ZERO } else { MAPPED }
    }

    fn lock(&self, ino: Ino) -> MutexGuard<'_, HashMap<Ino, File>> {
        let at = usize::try_from(ino.0 % LOCKS as u64).unwrap_or(0);
        self.files[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not where the kernel refuses: an upper on overlayfs, no memory.
fn passed(pinned: &OwnedFd, register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>) -> How {
    match without_fsetid(|| register(pinned.as_fd())) {
        Ok(id) => How::Passed(Arc::new(id)),
        Err(error) => {
            tracing::debug!("passthrough: {error}");
            How::Asked { keeps: false }
        }
    }
}

/// Runs `act` in a thread that may not keep setuid when it writes.
pub(super) fn without_fsetid<T>(act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = rustix::thread::capabilities(None)?;
    let mut less = before;
    less.effective.remove(CapabilitySet::FSETID);
    rustix::thread::set_capabilities(None, less)?;
    let result = act();
    rustix::thread::set_capabilities(None, before)?;
    result
}
