//! Blobs on their way from a registry: files that grow, are found again after a crash, and become blobs by a rename.
//!
//! The name `.tmp-<hex>` is that of a temporary file: other tools do not take it for a blob, and the collector removes it
//! when nobody has written to it for a day. Who writes holds a lock on the file itself, so of two processes one downloads,
//! and the other takes over where it ended, whatever ended it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::{Blobs, StoreError};
use crate::model::Digest;
use crate::sys::atomic::{self, TEMP_PREFIX};
use crate::sys::lock::FileLock;

/// How often is asked whether somebody else is done. A lock that waits would wait for those who use the blob, too.
const PAUSE: Duration = Duration::from_millis(50);
/// Read at once when what is there is hashed again.
const PIECE_BYTES: usize = 1 << 20;

/// What there is of a blob that is wanted.
#[derive(Debug)]
pub enum Delivery {
    /// All of it: it is in the store.
    Done,
    /// What a file has; the rest is to be written.
    Ours(Box<Partial>),
}

/// A blob that is not complete, and that nobody else writes to.
#[derive(Debug)]
pub struct Partial {
    lock: FileLock,
    target: PathBuf,
    digest: Digest,
    size: u64,
    position: u64,
    hash: Sha256,
}

impl Blobs {
    /// What there is of a blob of that length. While somebody else writes it, `waiting` is told how much is there.
    ///
    /// # Errors
    /// What the system says of the file.
    pub fn deliver(&self, digest: Digest, size: u64, waiting: &dyn Fn(u64)) -> Result<Delivery, StoreError> {
        let path = self.dir().join(format!("{TEMP_PREFIX}{}", digest.hex()));
        let target = self.path(digest);
        let deliver = || -> io::Result<Delivery> {
            loop {
                let is_there = is_complete(&target, size)?;
                if is_there && !path.try_exists()? {
                    return Ok(Delivery::Done);
                }
                let Some(lock) = FileLock::try_exclusive(&path)? else {
                    if is_there {
                        return Ok(Delivery::Done);
                    }
                    waiting(length_of(&path)?);
                    thread::sleep(PAUSE);
                    continue;
                };
                // Whoever had the lock may have made a blob of the file since it was opened.
                if !lock.is_named()? {
                    continue;
                }
                if is_complete(&target, size)? {
                    std::fs::remove_file(&path)?;
                    return Ok(Delivery::Done);
                }
                return Partial::take_up(lock, target.clone(), digest, size)
                    .map(|partial| Delivery::Ours(Box::new(partial)));
            }
        };
        deliver().map_err(StoreError::io("write", &path))
    }
}

impl Partial {
    fn take_up(lock: FileLock, target: PathBuf, digest: Digest, size: u64) -> io::Result<Self> {
        if lock.file().metadata()?.len() > size {
            lock.file().set_len(0)?;
        }
        let mut hash = Sha256::new();
        let mut position = 0;
        let mut buffer = vec![0; PIECE_BYTES];
        let mut reader = File::open(lock.path())?;
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                count => {
                    hash.update(&buffer[..count]);
                    position += count as u64;
                }
            }
        }
        Ok(Self { lock, target, digest, size, position, hash })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.lock.path()
    }

    /// How many bytes are there.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// What pwrite(2) says; `InvalidInput` for more than the blob has.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > self.size.saturating_sub(self.position) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more bytes than the blob has"));
        }
        self.lock.file().write_all_at(bytes, self.position)?;
        self.hash.update(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what is there: it was wrong.
    ///
    /// # Errors
    /// What ftruncate(2) says.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.lock.file().set_len(0).map_err(StoreError::io("empty", self.lock.path()))?;
        (self.position, self.hash) = (0, Sha256::new());
        Ok(())
    }

    /// The digest of what is there.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(self.hash.clone().finalize().into())
    }

    /// Removes it: nothing of it is of use.
    ///
    /// # Errors
    /// What unlink(2) says.
    pub fn discard(self) -> Result<(), StoreError> {
        std::fs::remove_file(self.lock.path()).map_err(StoreError::io("remove", self.lock.path()))
    }

    /// Makes it the blob.
    ///
    /// # Errors
    /// [`StoreError::WrongDigest`] when it is something else; then the file is gone.
    pub fn publish(self) -> Result<(), StoreError> {
        let actual = self.digest();
        let path = self.lock.path();
        if actual != self.digest {
            std::fs::remove_file(path).map_err(StoreError::io("remove", path))?;
            return Err(StoreError::WrongDigest { expected: self.digest, actual, bytes: self.position });
        }
        atomic::publish(self.lock.file(), path, &self.target, 0o644).map_err(|error| {
            // What could not be flushed may be in memory alone: nobody takes it up again.
            std::fs::remove_file(path).ok();
            StoreError::io("write", &self.target)(error)
        })
    }
}

fn is_complete(path: &Path, size: u64) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(found.len() == size),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn length_of(path: &Path) -> io::Result<u64> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::Store;
    use super::*;

    fn digest_of(bytes: &[u8]) -> Digest {
        Digest::from_bytes(Sha256::digest(bytes).into())
    }

    fn ours(blobs: &Blobs, bytes: &[u8]) -> Box<Partial> {
        // A child that another test has forked may hold the lock for a moment.
        match blobs.deliver(digest_of(bytes), bytes.len() as u64, &|_| {}).unwrap() {
            Delivery::Ours(partial) => partial,
            Delivery::Done => panic!("it is there"),
        }
    }

    #[test]
    fn goes_on_where_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Store::open(&dir.path().join("s")).unwrap().blobs();
        let bytes = vec![5; PIECE_BYTES + 77];
        let mut partial = ours(&blobs, &bytes);
        partial.write(&bytes[..PIECE_BYTES + 7]).unwrap();
        drop(partial);
        assert!(!blobs.has(digest_of(&bytes)).unwrap());
        let mut partial = ours(&blobs, &bytes);
        assert_eq!(partial.position(), PIECE_BYTES as u64 + 7);
        assert!(partial.write(&bytes).is_err());
        partial.write(&bytes[PIECE_BYTES + 7..]).unwrap();
        partial.publish().unwrap();
        assert_eq!(std::fs::read(blobs.path(digest_of(&bytes))).unwrap(), bytes);
        assert_eq!(std::fs::read_dir(blobs.dir()).unwrap().count(), 1);
        let again = blobs.deliver(digest_of(&bytes), bytes.len() as u64, &|_| {}).unwrap();
        assert!(matches!(again, Delivery::Done));
    }

    #[test]
    fn other_bytes_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Store::open(&dir.path().join("s")).unwrap().blobs();
        let mut partial = ours(&blobs, b"right");
        partial.write(b"wrong").unwrap();
        assert_eq!(partial.digest(), digest_of(b"wrong"));
        partial.restart().unwrap();
        partial.write(b"wrong").unwrap();
        assert!(matches!(partial.publish(), Err(StoreError::WrongDigest { .. })));
        assert_eq!(std::fs::read_dir(blobs.dir()).unwrap().count(), 0);
        // What is too long is not of this blob.
        std::fs::write(blobs.dir().join(format!(".tmp-{}", digest_of(b"right").hex())), "too long").unwrap();
        assert_eq!(ours(&blobs, b"right").position(), 0);
    }

    #[test]
    fn the_second_waits_and_finds_it_done() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Store::open(&dir.path().join("s")).unwrap().blobs();
        let mut first = ours(&blobs, b"right");
        first.write(b"rig").unwrap();
        let seen = AtomicU64::new(0);
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                let waiting = |bytes| seen.store(bytes, Ordering::Relaxed);
                blobs.deliver(digest_of(b"right"), 5, &waiting).unwrap()
            });
            while seen.load(Ordering::Relaxed) != 3 {
                thread::sleep(PAUSE);
            }
            first.write(b"ht").unwrap();
            first.publish().unwrap();
            assert!(matches!(second.join().unwrap(), Delivery::Done));
        });
    }

    #[test]
    fn the_second_takes_over() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Store::open(&dir.path().join("s")).unwrap().blobs();
        let mut first = ours(&blobs, b"right");
        first.write(b"rig").unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| ours(&blobs, b"right").position());
            thread::sleep(PAUSE);
            drop(first);
            assert_eq!(second.join().unwrap(), 3);
        });
    }
}
