//! Blobs that are written but not visible yet: an image is published when all of it is there and has been checked.
//!
//! Until then they are temporary files, which a killed process leaves for the collector.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Blobs, StoreError};
use crate::model::Digest;
use crate::sys::atomic::{ClosedTempFile, TempFile};

/// A blob that is being written, hashed on the way. Gone when dropped.
#[derive(Debug)]
pub struct NewBlob {
    blobs: Blobs,
    temp: TempFile,
    hash: Sha256,
    bytes: u64,
}

/// A blob that is complete. Gone when dropped, unless published. It holds no descriptor: there may be thousands.
#[derive(Debug)]
pub struct StagedBlob {
    blobs: Blobs,
    temp: ClosedTempFile,
    digest: Digest,
    bytes: u64,
}

impl Blobs {
    /// Begins a blob that nobody sees before [`StagedBlob::publish`].
    ///
    /// # Errors
    /// When nothing can be written here.
    pub fn stage(&self) -> Result<NewBlob, StoreError> {
        let temp = TempFile::create_in(self.dir()).map_err(StoreError::io("create a file in", self.dir()))?;
        Ok(NewBlob { blobs: self.clone(), temp, hash: Sha256::new(), bytes: 0 })
    }
}

impl NewBlob {
    /// Adds to it.
    ///
    /// # Errors
    /// When there is no room, or the system says something else.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let Self { blobs, temp, hash, bytes: count } = self;
        hash.update(bytes);
        *count += bytes.len() as u64;
        temp.file().write_all(bytes).map_err(StoreError::io("write a blob to", blobs.dir()))
    }

    /// Adds all that comes out of a reader, whose failure `unread` names.
    ///
    /// # Errors
    /// What `unread` makes of the reader's error, or why nothing can be written.
    pub fn add_all<E: From<StoreError>>(
        &mut self,
        source: &mut dyn io::Read,
        unread: impl FnOnce(io::Error) -> E,
    ) -> Result<(), E> {
        let mut buffer = vec![0; super::blobs::COPY_BYTES];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => self.add(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unread(error)),
            }
        }
    }

    /// Nothing more comes.
    #[must_use]
    pub fn finish(self) -> StagedBlob {
        let Self { blobs, temp, hash, bytes } = self;
        let digest = Digest::from_bytes(hash.finalize().into());
        StagedBlob { blobs, temp: temp.close(), digest, bytes }
    }
}

impl StagedBlob {
    /// What it hashes to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it lies for now.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// Makes it durable and visible; where the blob is by now, that one stays.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn publish(self) -> Result<PathBuf, StoreError> {
        let path = self.blobs.path(self.digest);
        if !self.blobs.has_whole(self.digest, self.bytes)? {
            let publish = |temp: ClosedTempFile| temp.open()?.publish(&path, 0o644);
            publish(self.temp).map_err(StoreError::io("write", &path))?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    fn names(blobs: &Blobs) -> Vec<String> {
        let entries = std::fs::read_dir(blobs.dir()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn seen_when_published_and_gone_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Store::open(&dir.path().join("s")).unwrap().blobs();
        let staged = || {
            let mut blob = blobs.stage().unwrap();
            blob.add(b"ab").unwrap();
            blob.add_all::<StoreError>(&mut &b"c"[..], |error| panic!("{error}")).unwrap();
            blob.finish()
        };
        let blob = staged();
        let digest = Digest::from_bytes(Sha256::digest(b"abc").into());
        assert_eq!((blob.digest(), blob.bytes()), (digest, 3));
        assert_eq!(std::fs::read(blob.path()).unwrap(), b"abc");
        assert!(!blobs.has(digest).unwrap() && names(&blobs).len() == 1);
        drop(blob);
        drop(blobs.stage().unwrap());
        assert!(names(&blobs).is_empty());
        let (one, two) = (staged(), staged());
        for blob in [one, two] {
            assert_eq!(std::fs::read(blob.publish().unwrap()).unwrap(), b"abc");
        }
        assert_eq!(names(&blobs), [digest.hex()]);
    }
}
