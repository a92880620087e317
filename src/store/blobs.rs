//! Blobs named by their sha256.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::StoreError;
use crate::model::Digest;
use crate::sys::atomic::TempFile;
use crate::sys::file_range::FileRange;
use crate::sys::lock::FileLock;

/// Bytes per read while a blob is written: large enough that hashing dominates.
pub(super) const COPY_BYTES: usize = 128 * 1024;

/// The directory `blobs/sha256`.
#[derive(Clone, Debug)]
pub struct Blobs {
    dir: PathBuf,
}

/// Keeps a blob from being collected while it is held.
#[derive(Debug)]
pub struct BlobPin {
    _lock: FileLock,
    range: FileRange,
}

impl BlobPin {
    /// The blob.
    #[must_use]
    pub fn range(&self) -> &FileRange {
        &self.range
    }
}

impl Blobs {
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a blob is, if it is there.
    #[must_use]
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Whether the blob is there.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn has(&self, digest: Digest) -> Result<bool, StoreError> {
        super::exists(&self.path(digest))
    }

    /// Whether the blob is there, and has that length: other tools flush nothing, so a power cut leaves empty ones.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn has_whole(&self, digest: Digest, bytes: u64) -> Result<bool, StoreError> {
        let path = self.path(digest);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(metadata.len() == bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    /// The blob, as it lies there. Its bytes were verified when they were put, not now.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it is not there.
    pub fn get(&self, digest: Digest) -> Result<FileRange, StoreError> {
        let path = self.path(digest);
        match FileRange::open(&path) {
            Ok(range) => Ok(range),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Missing { digest, path })
            }
            Err(error) => Err(StoreError::io("open", &path)(error)),
        }
    }

    /// The blob, kept from being collected as long as the answer lives.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it is not there or being removed at this moment.
    pub fn pin(&self, digest: Digest) -> Result<BlobPin, StoreError> {
        let path = self.path(digest);
        let lock = FileLock::pin(&path).map_err(StoreError::io("lock", &path))?;
        let Some(lock) = lock else { return Err(StoreError::Missing { digest, path }) };
        Ok(BlobPin { _lock: lock, range: self.get(digest)? })
    }

    /// Writes what `source` delivers under the digest that it must have. Nothing is visible unless it does.
    /// Returns its length.
    ///
    /// # Errors
    /// [`StoreError::WrongDigest`] when it is something else.
    pub fn put(&self, digest: Digest, source: &mut dyn Read) -> Result<u64, StoreError> {
        let (temp, actual, bytes) = self.receive(source)?;
        if actual != digest {
            return Err(StoreError::WrongDigest { expected: digest, actual, bytes });
        }
        self.publish(temp, digest)?;
        Ok(bytes)
    }

    /// Writes what `source` delivers under the digest that it has. Returns that and its length.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn put_unnamed(&self, source: &mut dyn Read) -> Result<(Digest, u64), StoreError> {
        let (temp, digest, bytes) = self.receive(source)?;
        self.publish(temp, digest)?;
        Ok((digest, bytes))
    }

    fn receive(&self, source: &mut dyn Read) -> Result<(TempFile, Digest, u64), StoreError> {
        let mut temp =
            TempFile::create_in(&self.dir).map_err(StoreError::io("create a file in", &self.dir))?;
        let (digest, bytes) =
            copy(source, temp.file()).map_err(StoreError::io("write a blob to", &self.dir))?;
        Ok((temp, digest, bytes))
    }

    fn publish(&self, temp: TempFile, digest: Digest) -> Result<(), StoreError> {
        let path = self.path(digest);
        temp.publish(&path, 0o644).map_err(StoreError::io("write", &path))
    }
}

fn copy(source: &mut dyn Read, target: &mut File) -> io::Result<(Digest, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut bytes = 0;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok((Digest::from_bytes(hash.finalize().into()), bytes)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..count]);
        target.write_all(&buffer[..count])?;
        bytes += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    fn digest_of(bytes: &[u8]) -> Digest {
        Digest::from_bytes(Sha256::digest(bytes).into())
    }

    #[test]
    fn put_and_get() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Store::open(&dir.path().join("s")).unwrap().blobs();
        let bytes = vec![7; COPY_BYTES * 2 + 3];
        let digest = digest_of(&bytes);
        assert!(!blobs.has(digest).unwrap());
        assert_eq!(blobs.put(digest, &mut &bytes[..]).unwrap(), bytes.len() as u64);
        assert!(blobs.has(digest).unwrap());
        let mut back = Vec::new();
        blobs.get(digest).unwrap().reader().read_to_end(&mut back).unwrap();
        assert_eq!(back, bytes);
        assert_eq!(blobs.put_unnamed(&mut &bytes[..]).unwrap(), (digest, bytes.len() as u64));
    }

    #[test]
    fn other_bytes_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Store::open(&dir.path().join("s")).unwrap().blobs();
        let digest = digest_of(b"right");
        let error = blobs.put(digest, &mut &b"wrong"[..]).unwrap_err().to_string();
        assert!(
            error.contains(&digest.to_string()) && error.contains(&digest_of(b"wrong").to_string()),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(blobs.dir()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_blob_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Store::open(&dir.path().join("s")).unwrap().blobs();
        let digest = digest_of(b"x");
        for error in [blobs.get(digest).unwrap_err(), blobs.pin(digest).unwrap_err()] {
            assert!(error.to_string().contains(&digest.hex()), "{error}");
            assert!(matches!(error, StoreError::Missing { .. }));
        }
    }
}
