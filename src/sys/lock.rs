//! flock(2) as a guard: held by a descriptor, so it ends with the process that holds it, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// How long [`FileLock::exclusive_soon`] asks again. Whoever only looks ([`is_held`]) holds the lock for microseconds.
const SOON: Duration = Duration::from_millis(500);
/// What a word may be at most.
const WORD_BYTES_MAX: u64 = 4096;
/// How long it sleeps in between.
const PAUSE: Duration = Duration::from_millis(2);

/// A lock on a file, given back when dropped. A forked child shares it; it ends when the last copy of the descriptor does.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Waits until nobody holds it exclusively. The file is created when missing.
    ///
    /// # Errors
    /// What open(2) and flock(2) say.
    pub fn shared(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        file.lock_shared()?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Waits until nobody else holds it. The file is created when missing.
    ///
    /// # Errors
    /// What open(2) and flock(2) say.
    pub fn exclusive(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        file.lock()?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// As [`Self::exclusive`], but `None` when somebody holds it.
    ///
    /// # Errors
    /// What open(2) and flock(2) say.
    pub fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        Ok(granted(file.try_lock())?.then(|| Self { file, path: path.to_owned() }))
    }

    /// As [`Self::try_exclusive`], but asks again for half a second: a reader that tests whether the lock is held must
    /// not make its real holder fail.
    ///
    /// # Errors
    /// What open(2) and flock(2) say.
    pub fn exclusive_soon(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        let end = Instant::now() + SOON;
        loop {
            if granted(file.try_lock())? {
                return Ok(Some(Self { file, path: path.to_owned() }));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Takes a shared lock on an existing file itself and makes sure that nobody unlinked it meanwhile; `None` when
    /// somebody holds it exclusively or it is gone.
    ///
    /// # Errors
    /// What open(2), flock(2) and fstat(2) say.
    pub fn pin(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if !granted(file.try_lock_shared())? || file.metadata()?.nlink() == 0 {
            return Ok(None);
        }
        Ok(Some(Self { file, path: path.to_owned() }))
    }

    /// Takes the lock on an existing file itself, for its removal; `None` when somebody holds it.
    ///
    /// # Errors
    /// What open(2) and flock(2) say.
    pub fn try_exclusive_existing(path: &Path) -> io::Result<Option<Self>> {
        // NFS makes it a lock of the whole file, for which the descriptor must be writable (flock(2)).
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if is_unwritable(&error) => File::open(path)?,
            file => file?,
        };
        Ok(granted(file.try_lock())?.then(|| Self { file, path: path.to_owned() }))
    }

    /// The locked file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves a word in the file for those who watch the lock ([`Watch::word`]), also when the file is gone by then.
    ///
    /// # Errors
    /// What pwrite(2) says.
    pub fn leave_word(&self, word: &str) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        self.file.set_len(0)?;
        self.file.write_all_at(word.as_bytes(), 0)
    }

    /// Whether its path still leads to it: who had the lock before may have moved or removed the file.
    ///
    /// # Errors
    /// What fstat(2) and stat(2) say.
    pub fn is_named(&self) -> io::Result<bool> {
        let own = self.file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The locked file, for who passes the descriptor on.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Whether somebody holds the lock exclusively now. Never waits. A missing file is held by nobody.
///
/// # Errors
/// What open(2) and flock(2) say.
pub fn is_held(path: &Path) -> io::Result<bool> {
    Watch::of(path)?.map_or(Ok(false), |file| file.is_held())
}

/// Watches a lock through a descriptor: also when the file is renamed or unlinked meanwhile.
#[derive(Debug)]
pub struct Watch(File);

impl Watch {
    /// Opens a file; `None` when there is none.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => file.map(|file| Some(Self(file))),
        }
    }

    /// As [`Self::of`], below a directory.
    ///
    /// # Errors
    /// What openat(2) says.
    pub fn at(dir: impl AsFd, path: &str) -> io::Result<Option<Self>> {
        match rustix::fs::openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            file => Ok(Some(Self(file?.into()))),
        }
    }

    /// What a holder left there, if any did ([`FileLock::leave_word`]).
    ///
    /// # Errors
    /// What read(2) says.
    pub fn word(&self) -> io::Result<Option<String>> {
        use std::io::Read as _;
        let mut word = String::new();
        (&self.0).take(WORD_BYTES_MAX).read_to_string(&mut word)?;
        Ok(Some(word).filter(|word| !word.is_empty()))
    }

    /// Whether somebody holds the lock exclusively now. Never waits.
    ///
    /// # Errors
    /// What flock(2) says.
    pub fn is_held(&self) -> io::Result<bool> {
        let is_free = granted(self.0.try_lock_shared())?;
        if is_free {
            self.0.unlock()?;
        }
        Ok(!is_free)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn is_unwritable(error: &io::Error) -> bool {
    use io::ErrorKind::{ExecutableFileBusy, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | ExecutableFileBusy)
}

fn granted(answer: Result<(), TryLockError>) -> io::Result<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// For tests that ask for a lock which has just been let go: a child that another test has forked holds all descriptors
/// until it executes something.
#[cfg(test)]
pub(crate) fn soon<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        match ask() {
            Some(answer) => return answer,
            None => assert!(since.elapsed().as_secs() < 30, "still held"),
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn exclusive_keeps_others_out_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!is_held(&path).unwrap());
        let held = FileLock::exclusive(&path).unwrap();
        assert!(is_held(&path).unwrap());
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        assert!(FileLock::exclusive_soon(&path).unwrap().is_none());
        drop(held);
        soon(|| (!is_held(&path).unwrap()).then_some(()));
        soon(|| FileLock::try_exclusive(&path).unwrap());
    }

    #[test]
    fn shared_does_not_look_held_but_keeps_exclusive_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::shared(&path).unwrap();
        assert!(!is_held(&path).unwrap());
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop(held);
    }

    #[test]
    fn a_removed_file_cannot_be_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        assert!(FileLock::pin(&path).unwrap().is_none());
        std::fs::write(&path, "x").unwrap();
        let pin = FileLock::pin(&path).unwrap().unwrap();
        assert!(FileLock::try_exclusive_existing(&path).unwrap().is_none());
        drop(pin);
        let held = soon(|| FileLock::try_exclusive_existing(&path).unwrap());
        assert_eq!((held.file().write(b"y").unwrap(), std::fs::read(&path).unwrap()), (1, b"y".to_vec()));
    }

    #[test]
    fn what_may_not_be_written_can_be_locked() {
        // Nobody may write to a program that runs, not even root.
        let path = std::env::current_exe().unwrap();
        assert!(OpenOptions::new().write(true).open(&path).is_err());
        assert!(FileLock::try_exclusive_existing(&path).unwrap().is_some());
    }
}
