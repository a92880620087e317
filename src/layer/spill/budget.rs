//! How much all spill files of a store may take together, and what goes when it is more.
//!
//! There is no ledger: what they take is asked of the filesystem, now and then, by whoever writes. Who finds too much takes
//! the directory's lock (flock(2) on the file `lock`), looks again, and frees an eighth of the budget beyond what is
//! needed, so that the next time is not soon. The file that was written to, or read from for the first time since it
//! had a second chance, longest ago comes first, and in each file a hand goes round: who was used since it last came by
//! stays until it comes again.

use std::fs::{File, TryLockError};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::file::SpillFile;
use crate::index::GRANULE_BYTES;
use crate::model::Digest;
use crate::sys::files;

/// What spill files take at most when nobody says otherwise.
const BYTES_DEFAULT: u64 = 10 << 30;
/// The same as a part of what is free where they are, what they take themselves included: one in ten.
const FREE_PARTS: u64 = 10;
/// How much a process writes between two looks at what all files take, unless the budget is small.
const UNSEEN_BYTES_MAX: u64 = 16 << 20;
/// The part of the budget that is freed beyond what is needed, and the most that is written unseen: one in eight.
const SLACK_PARTS: u64 = 8;
/// Unit of `stx_blocks` (statx(2)).
const BLOCK_BYTES: u64 = 512;
/// Every granule is given a second chance in the first round and dropped in the second.
const ROUNDS: u32 = 2;

/// The name of the lock file.
const LOCK: &str = "lock";

/// The right to create, replace and evict spill files.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    /// `None` when another process has it: that may be stopped for ever, and readers would wait for it.
    pub(super) fn take(dir: BorrowedFd<'_>) -> Result<Option<Self>, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(files::openat(dir, LOCK, flags, Mode::RUSR | Mode::WUSR)?);
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
}

/// The byte budget, and what this process has written since it last looked.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: Option<u64>,
    unseen: u64,
    unseen_max: u64,
}

/// One spill file, as its directory tells of it.
struct Known {
    name: String,
    bytes: u64,
    changed: (i64, u32),
}

impl Budget {
    /// At most `bytes_max` for all spill files of the directory; `None` for the usual.
    pub(super) fn new(bytes_max: Option<u64>) -> Self {
        Self { bytes_max, unseen: 0, unseen_max: 0 }
    }

    /// To be called before `bytes` are written: makes room when there may be too much. `false` when there can be no room.
    pub(super) fn ask(&mut self, dir: BorrowedFd<'_>, bytes: u64) -> Result<bool, Errno> {
        self.unseen += bytes;
        if self.unseen < self.unseen_max {
            return Ok(true);
        }
        let known = list(dir)?;
        let limit = self.limit(dir, &known)?;
        self.unseen = bytes;
        self.unseen_max = (limit / SLACK_PARTS).min(UNSEEN_BYTES_MAX);
        if limit < SLACK_PARTS * GRANULE_BYTES {
            return Ok(false);
        }
        if total(&known) + self.unseen_max > limit {
            self.evict(dir)?;
        }
        Ok(true)
    }

    fn limit(&self, dir: BorrowedFd<'_>, known: &[Known]) -> Result<u64, Errno> {
        if let Some(bytes) = self.bytes_max {
            return Ok(bytes);
        }
        let stat = files::fstatvfs(dir)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize).saturating_add(total(known));
        Ok(BYTES_DEFAULT.min(free / FREE_PARTS))
    }

    /// Frees what is needed to stay within the budget while `unseen_max` are written.
    fn evict(&self, dir: BorrowedFd<'_>) -> Result<(), Errno> {
        // Who has it is making room.
        let Some(_lock) = DirLock::take(dir)? else { return Ok(()) };
        let mut known = list(dir)?;
        let limit = self.limit(dir, &known)?;
        let excess = (total(&known) + self.unseen_max).saturating_sub(limit);
        if excess == 0 {
            return Ok(());
        }
        let mut wanted = excess + limit / SLACK_PARTS;
        known.sort_by_key(|known| known.changed);
        for _ in 0..ROUNDS {
            for Known { name, bytes, .. } in &known {
                let freed = match SpillFile::open(dir, name) {
                    Ok(Some(file)) => file.evict(wanted)?,
                    Ok(None) => {
                        files::unlinkat(dir, name.as_str(), AtFlags::empty())?;
                        *bytes
                    }
                    Err(Errno::NOENT) => 0,
                    Err(error) => return Err(error),
                };
                wanted = wanted.saturating_sub(freed);
                if wanted == 0 {
                    return Ok(());
                }
            }
        }
        // What lies there without the map's knowledge, after a power cut say, is never given a chance, nor freed.
        for Known { name, bytes, .. } in &known {
            match files::unlinkat(dir, name.as_str(), AtFlags::empty()) {
                Err(error) if error != Errno::NOENT => return Err(error),
                _ => wanted = wanted.saturating_sub(*bytes),
            }
            if wanted == 0 {
                break;
            }
        }
        Ok(())
    }
}

fn total(known: &[Known]) -> u64 {
    known.iter().map(|known| known.bytes).sum()
}

/// All files that are called as spill files are; others are not ours.
fn list(dir: BorrowedFd<'_>) -> Result<Vec<Known>, Errno> {
    let mut known = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if Digest::from_hex(name).is_err() {
            continue;
        }
        let mask = StatxFlags::TYPE | StatxFlags::BLOCKS | StatxFlags::MTIME;
        let stat = match files::statx(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW, mask) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile {
            let changed = (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
            known.push(Known { name: name.to_owned(), bytes: stat.stx_blocks * BLOCK_BYTES, changed });
        }
    }
    Ok(known)
}
