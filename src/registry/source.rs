//! The bytes of a blob on their way to a registry, hashed as they are read.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::RegistryError;
use crate::model::Digest;
use crate::sys::file_range::FileRange;

/// Where the bytes are.
#[derive(Debug)]
pub enum Bytes<'a> {
    /// In memory.
    Memory(&'a [u8]),
    /// In a file.
    File(&'a FileRange),
}

/// A blob that is sent. Its last bytes are given away only if all of it has the digest that it is called by: a registry never
/// gets the whole of a damaged one.
pub struct Source<'a> {
    what: &'static str,
    digest: Digest,
    bytes: Bytes<'a>,
    position: u64,
    /// Where the request ends.
    end: u64,
    sha256: Sha256,
    /// How far the hash is: what is sent again is not hashed again.
    hashed: u64,
    error: Option<RegistryError>,
    /// Told how much of it was read; its error ends the transfer.
    told: &'a mut dyn FnMut(u64) -> io::Result<()>,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("digest", &self.digest)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl<'a> Source<'a> {
    /// `what` is config or layer, for messages.
    pub fn new(
        what: &'static str,
        digest: Digest,
        bytes: Bytes<'a>,
        told: &'a mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Self {
        let sha256 = Sha256::new();
        Self { what, digest, bytes, position: 0, end: 0, sha256, hashed: 0, error: None, told }
    }

    pub(super) fn what(&self) -> &'static str {
        self.what
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// Its name in messages.
    pub(super) fn called(&self) -> String {
        format!("{} {}", self.what, self.digest)
    }

    pub(super) fn size(&self) -> u64 {
        match self.bytes {
            Bytes::Memory(bytes) => bytes.len() as u64,
            Bytes::File(range) => range.len(),
        }
    }

    /// How much was given away, at least once.
    pub(super) fn furthest(&self) -> u64 {
        self.hashed
    }

    /// The next request has the bytes from `position` to `end`.
    pub(super) fn seek(&mut self, position: u64, end: u64) {
        (self.position, self.end) = (position, end);
    }

    /// Why the last request could not have all its bytes.
    pub(super) fn take_error(&mut self) -> Option<RegistryError> {
        self.error.take()
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        let (what, digest) = (self.what, self.digest);
        let unread = |source| RegistryError::Unread { what, digest, source };
        let rest = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let want = rest.min(buffer.len());
        let buffer = &mut buffer[..want];
        match self.bytes {
            Bytes::Memory(bytes) => {
                let start = usize::try_from(self.position).unwrap_or(usize::MAX);
                let part = bytes.get(start..).and_then(|rest| rest.get(..want));
                buffer.copy_from_slice(part.ok_or_else(|| unread(io::ErrorKind::UnexpectedEof.into()))?);
            }
            Bytes::File(range) => {
                if range.read_at(self.position, buffer).map_err(unread)? != want {
                    return Err(unread(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
        self.position += want as u64;
        let is_new = self.position > self.hashed;
        if is_new {
            let new = usize::try_from(self.position - self.hashed).unwrap_or(usize::MAX).min(want);
            self.sha256.update(&buffer[want - new..]);
            self.hashed = self.position;
        }
        if is_new && self.hashed == self.size() {
            let actual = Digest::from_bytes(self.sha256.clone().finalize().into());
            if actual != digest {
                let place = match self.bytes {
                    Bytes::Memory(_) => String::new(),
                    Bytes::File(range) => format!("{}: ", range.path().display()),
                };
                return Err(RegistryError::Damaged { place, what, expected: digest, actual });
            }
        }
        (self.told)(self.position).map_err(unread)?;
        Ok(want)
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.error.is_some() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.next(buffer).map_err(|error| {
            self.error = Some(error);
            io::ErrorKind::InvalidData.into()
        })
    }
}
