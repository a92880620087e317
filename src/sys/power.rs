//! Power cuts, for tests: data that was written to files and not flushed is taken back.
//!
//! The model is that of journaling filesystems (ext4 `data=ordered`, xfs): changes of names, attributes and lengths come
//! to the disk in their order, data whenever it is flushed or later. A file that only grew by lost data has not grown.
//! Only calls of the thread that asked for it are seen.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::FallocateFlags;

/// What is lost or kept as one.
const SECTOR_BYTES: u64 = 512;

/// Device and inode number.
type Identity = (u64, u64);

#[derive(Debug)]
enum Step {
    /// Bytes were written here; what was there before, as far as the file went.
    Write { offset: u64, end: u64, before: Vec<u8>, size_before: u64 },
    /// The length was set.
    Resize(u64),
}

#[derive(Debug, Default)]
struct Journal {
    /// What is not flushed yet.
    steps: Vec<(Identity, Step)>,
    /// Kept open: an inode number must stay the file's own.
    files: HashMap<Identity, File>,
}

thread_local! {
    static JOURNAL: RefCell<Option<Journal>> = const { RefCell::new(None) };
}

/// From now on it is known what this thread has written and not flushed.
pub(crate) fn record() {
    JOURNAL.set(Some(Journal::default()));
}

/// Ends that.
pub(crate) fn forget() {
    JOURNAL.set(None);
}

/// Takes what is not flushed back, in those sectors (512 bytes, by their number in the file) that are `lost`. Returns how
/// many pieces there were. What is there now is on the disk.
pub(crate) fn cut(lost: impl Fn(u64) -> bool) -> usize {
    let Some(journal) = JOURNAL.take() else { return 0 };
    let mut undone = 0;
    let mut set_lengths: HashMap<Identity, u64> = HashMap::new();
    for (identity, step) in journal.steps.into_iter().rev() {
        let file = &journal.files[&identity];
        match step {
            Step::Resize(size) => {
                let least = set_lengths.entry(identity).or_insert(size);
                *least = size.min(*least);
            }
            Step::Write { offset, end, before, size_before } => {
                let limit = set_lengths.get(&identity).copied();
                undone += restore(file, offset..end, &before, limit.unwrap_or(u64::MAX), &lost);
                let grew_by_lost = end > size_before
                    && (size_before.max(offset) / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES).all(&lost);
                if limit.is_none() && grew_by_lost {
                    file.set_len(size_before).unwrap();
                }
            }
        }
    }
    record();
    undone
}

fn restore(
    file: &File,
    range: std::ops::Range<u64>,
    before: &[u8],
    limit: u64,
    lost: &impl Fn(u64) -> bool,
) -> usize {
    let size = file.metadata().unwrap().len().min(limit);
    let mut at = range.start;
    let mut undone = 0;
    while at < range.end.min(size) {
        let end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(range.end).min(size);
        if lost(at / SECTOR_BYTES) {
            let place = usize::try_from(at - range.start).unwrap();
            let length = usize::try_from(end - at).unwrap();
            let mut old = before.get(place..before.len().min(place + length)).unwrap_or_default().to_vec();
            old.resize(length, 0);
            if old.iter().all(|byte| *byte == 0) {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(file, hole, at, end - at).unwrap();
            } else {
                file.write_all_at(&old, at).unwrap();
            }
            undone += 1;
        }
        at = end;
    }
    undone
}

fn note(file: impl AsFd, step: impl FnOnce(&File) -> Step) {
    JOURNAL.with_borrow_mut(|journal| {
        let Some(journal) = journal.as_mut() else { return };
        let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        let file = File::options().read(true).write(true).open(link).unwrap();
        let metadata = file.metadata().unwrap();
        let identity = (metadata.dev(), metadata.ino());
        let file = journal.files.entry(identity).or_insert(file);
        journal.steps.push((identity, step(file)));
    });
}

/// Called before so many bytes are written, or may be.
pub(super) fn writes(file: impl AsFd, offset: u64, length: usize) {
    note(file, |file| {
        let size_before = file.metadata().unwrap().len();
        let mut before = vec![0; length];
        let mut done = 0;
        while let count @ 1.. = file.read_at(&mut before[done..], offset + done as u64).unwrap() {
            done += count;
        }
        before.truncate(done);
        Step::Write { offset, end: offset + length as u64, before, size_before }
    });
}

/// Called when the length was set.
pub(super) fn resized(file: impl AsFd) {
    note(file, |file| Step::Resize(file.metadata().unwrap().len()));
}

/// Called when a file was flushed.
pub(super) fn flushed(file: impl AsFd) {
    JOURNAL.with_borrow_mut(|journal| {
        let Some(journal) = journal.as_mut() else { return };
        let stat = rustix::fs::fstat(file).unwrap();
        journal.steps.retain(|(identity, _)| *identity != (stat.st_dev, stat.st_ino));
    });
}

/// Called when everything was flushed.
pub(super) fn flushed_all() {
    JOURNAL.with_borrow_mut(|journal| {
        if let Some(journal) = journal.as_mut() {
            journal.steps.clear();
        }
    });
}
