//! Decoded granules on disk, shared by all mounts of a store: what is dear to decode is decoded once on this machine.
//!
//! One sparse file for each layer (`file.rs`: the format), a byte budget for all of them (`budget.rs`). What comes out of
//! it is bytes that nobody vouches for: the chunk reader compares them with the layer's index as it does with what it
//! decodes, and says so when they are wrong ([`LayerSpill::forget`]).
//!
//! **What goes in.** A granule that is decoded for the second time by any process of the machine: that the first time is
//! noted in the layer's spill file makes mounts that live shortly count, too. And at once what lies far behind the place
//! where its decoding began ([`FAR_BYTES`]). What the memory cache evicts would be another choice; then everything that is
//! read once, front to back, by a backup say, would be written.
//!
//! **Who waits.** Readers hand granules to one thread by a queue of [`QUEUE_LEN`], and what finds no room there is
//! forgotten; only what lies far behind is then written by who decodes it. The queue, and nothing else, is memory that a mount needs beyond its cache.
//!
//! **What can go wrong.** Nothing that a reader would see: the first error of writing (no room, no permission, a filesystem
//! without holes or locks) ends the writing by this process, with a line in the log; what is there is still read.
//! Deleting a file makes the next write begin a new one; deleting the directory ends the writing.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use crate::model::{Counter, Digest};
use crate::sys::{files, process};

mod budget;
mod file;
#[cfg(test)]
mod tests;

use budget::{Budget, DirLock};
use file::{LayerId, SpillFile, State};

/// What lies further than this behind the place where decoding began is kept at the first time: with the usual
/// checkpoints nothing does; of one long frame, nearly everything. Decoding as much takes some 10 ms.
pub(super) const FAR_BYTES: u64 = 4 << 20;
/// Granules on their way to the disk: 4 MiB.
const QUEUE_LEN: usize = 32;

/// Where spill files are, and how much they may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpillDir {
    /// An existing directory, for nothing else.
    pub path: PathBuf,
    /// Bytes of all files together; `None` for a tenth of what is free there, at most 10 GiB.
    pub bytes_max: Option<u64>,
}

/// The spill files of one store.
#[derive(Debug)]
pub struct Spill {
    /// Opened once: a process that is about to enter namespaces would not find it by its path.
    dir: OwnedFd,
    path: PathBuf,
    bytes_max: Option<u64>,
    /// Something went wrong, or there is no room.
    stopped: AtomicBool,
    queue: OnceLock<SyncSender<Decoded>>,
    /// The other end of the queue, until there is a thread for it.
    queued: Mutex<Option<Receiver<Decoded>>>,
    /// Bytes that this process has written.
    written_bytes: Counter,
    /// Granules that found no room in the queue.
    skipped: Counter,
}

/// One layer's spill file.
#[derive(Debug)]
pub(super) struct LayerSpill {
    spill: Arc<Spill>,
    layer: LayerId,
    /// Held for moments, never across I/O.
    file: Mutex<Option<Arc<SpillFile>>>,
}

/// A granule that was decoded.
#[derive(Debug)]
struct Decoded {
    layer: Arc<LayerSpill>,
    granule: u64,
    bytes: Arc<Vec<u8>>,
    at_once: bool,
}

impl Spill {
    /// The spill files of a directory. Until [`Self::start`] it only reads.
    ///
    /// # Errors
    /// What open(2) says of the directory.
    pub fn open(dir: &SpillDir) -> std::io::Result<Arc<Self>> {
        let SpillDir { path, bytes_max } = dir.clone();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = files::openat(rustix::fs::CWD, &path, flags, Mode::empty())?;
        let (stopped, queue) = (AtomicBool::new(false), OnceLock::new());
        let (written_bytes, skipped) = (Counter::default(), Counter::default());
        let queued = Mutex::default();
        Ok(Arc::new(Self { dir, path, bytes_max, stopped, queue, queued, written_bytes, skipped }))
    }

    /// Takes what is decoded from now on, for the thread that [`Self::start`] makes soon.
    pub fn open_queue(&self) {
        let (sender, receiver) = sync_channel(QUEUE_LEN);
        if self.queue.set(sender).is_ok() {
            *self.queued.lock().unwrap_or_else(PoisonError::into_inner) = Some(receiver);
        }
    }

    /// Lets it write, in a thread of its own: to be called when this process will not fork any more.
    pub fn start(self: &Arc<Self>) {
        self.open_queue();
        let queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(receiver) = queued else { return };
        let bytes_max = self.bytes_max;
        let thread = std::thread::Builder::new().name("spill".to_owned());
        let started = thread.spawn(move || write(&receiver, bytes_max));
        if let Err(error) = started {
            self.stop(&error);
        }
    }

    pub(super) fn layer(self: &Arc<Self>, diff_id: Digest, tar_bytes: u64) -> Arc<LayerSpill> {
        let layer = LayerId { diff_id, tar_bytes };
        Arc::new(LayerSpill { spill: Arc::clone(self), layer, file: Mutex::default() })
    }

    /// Bytes that this process has written into it, and granules that it had no time to look at.
    pub(super) fn written(&self) -> (u64, u64) {
        (self.written_bytes.get(), self.skipped.get())
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn stop(&self, reason: &dyn std::fmt::Display) {
        if !self.stopped.swap(true, Ordering::Relaxed) {
            tracing::warn!("{}: {reason}: decoded data is no longer kept there", self.path.display());
        }
    }
}

impl LayerSpill {
    /// Fills `bytes` with what lies in the place of a granule, to be verified; whether the map says that it is there.
    pub(super) fn get(&self, granule: u64, bytes: &mut [u8]) -> bool {
        let Some(file) = self.opened() else { return false };
        let mut read = || {
            let state = file.state(granule)?;
            if !state.is_here() || !file.read(granule, bytes)? {
                return Ok(false);
            }
            if state == State::Kept {
                // A store that cannot be written to has nobody who evicts.
                file.set_state(granule, State::Used).ok();
            }
            Ok(true)
        };
        read().unwrap_or_else(|error: Errno| {
            tracing::debug!("spill of {}: {error}", self.layer.diff_id);
            false
        })
    }

    /// What [`Self::get`] gave was not the granule.
    pub(super) fn forget(&self, granule: u64) {
        tracing::debug!("spill of {}: granule {granule} is wrong", self.layer.diff_id);
        if let Some(Err(error)) = self.opened().map(|file| file.drop_granule(granule)) {
            tracing::debug!("spill of {}: {error}", self.layer.diff_id);
        }
    }

    /// A granule was decoded, `distance` bytes behind the place where that began, and verified.
    pub(super) fn decoded(self: &Arc<Self>, granule: u64, bytes: &Arc<Vec<u8>>, distance: u64) {
        if self.spill.is_stopped() {
            return;
        }
        let Some(queue) = self.spill.queue.get() else { return };
        let at_once = distance > FAR_BYTES;
        let decoded = Decoded { layer: Arc::clone(self), granule, bytes: Arc::clone(bytes), at_once };
        match queue.try_send(decoded) {
            // To come here again would take longer than to write it now.
            Err(TrySendError::Full(decoded)) if at_once => {
                decoded.take_in_or_stop(&mut Budget::new(self.spill.bytes_max));
            }
            Err(TrySendError::Full(_)) => self.spill.skipped.add(1),
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// The file, if there is one.
    fn opened(&self) -> Option<Arc<SpillFile>> {
        if let Some(file) = self.known() {
            return Some(file);
        }
        let found = SpillFile::open(self.spill.dir.as_fd(), &self.layer.diff_id.hex());
        let file = found.ok()?.filter(|file| file.layer() == self.layer)?;
        self.is_used();
        Some(self.remember(file))
    }

    /// What is used is not what goes first, nor what is collected.
    fn is_used(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let name = self.layer.diff_id.hex();
        if let Err(error) = files::utimensat(self.spill.dir.as_fd(), name, &times, AtFlags::empty()) {
            tracing::debug!("spill of {}: {error}", self.layer.diff_id);
        }
    }

    fn known(&self) -> Option<Arc<SpillFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, file: SpillFile) -> Arc<SpillFile> {
        let file = Arc::new(file);
        let before = self.file.lock().unwrap_or_else(PoisonError::into_inner).replace(Arc::clone(&file));
        // Its last close may free gigabytes: nobody has to wait for that.
        drop(before);
        file
    }

    /// The file that has the name, made if need be; `None` while others are busy with the directory.
    fn current(&self) -> Result<Option<Arc<SpillFile>>, Errno> {
        if let Some(file) = self.known()
            && file.is_whole()?
        {
            return Ok(Some(file));
        }
        let dir = self.spill.dir.as_fd();
        let Some(_lock) = DirLock::take(dir)? else { return Ok(None) };
        let file = match SpillFile::open(dir, &self.layer.diff_id.hex()) {
            Ok(Some(file)) if file.layer() == self.layer => file,
            Ok(_) | Err(Errno::NOENT) => SpillFile::create(dir, self.layer)?,
            Err(error) => return Err(error),
        };
        Ok(Some(self.remember(file)))
    }
}

/// Takes what was decoded until nobody is left who could decode. It does not keep the spill alive: its readers do.
fn write(queue: &Receiver<Decoded>, bytes_max: Option<u64>) {
    process::stand_back();
    let mut budget = Budget::new(bytes_max);
    for decoded in queue {
        decoded.take_in_or_stop(&mut budget);
    }
}

impl Decoded {
    fn take_in_or_stop(&self, budget: &mut Budget) {
        let spill = &self.layer.spill;
        if !spill.is_stopped()
            && let Err(error) = self.take_in(budget)
        {
            spill.stop(&error);
        }
    }

    /// Notes that it was decoded, or keeps it.
    fn take_in(&self, budget: &mut Budget) -> Result<(), Errno> {
        let Self { layer, granule, bytes, at_once } = self;
        let Some(file) = layer.current()? else { return Ok(()) };
        match file.state(*granule)? {
            State::Kept | State::Used => Ok(()),
            State::Absent if !at_once => file.set_state(*granule, State::Seen),
            State::Absent | State::Seen => {
                if budget.ask(layer.spill.dir.as_fd(), bytes.len() as u64)? {
                    file.keep(*granule, bytes)?;
                    layer.spill.written_bytes.add(bytes.len() as u64);
                    return Ok(());
                }
                layer.spill.stop(&"the budget is too small");
                Ok(())
            }
        }
    }
}
