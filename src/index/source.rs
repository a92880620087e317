//! Compressed bytes on their way into a decoder.

use std::io::{self, BufRead};

use super::blob_reader::BlobReader;
use crate::sys::file_range::FileRange;
use crate::sys::inflate::InflateError;

/// Why a blob cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It could not be read, or there was no memory to decode it: that says nothing about its bytes.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its bytes are not what its encoding promises.
    #[error("{reason} (at offset {offset} of the compressed layer)")]
    Bad {
        /// Where in the blob.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
}

/// The error that a decoder got no memory.
pub(super) fn no_memory() -> DecodeError {
    DecodeError::Io(io::Error::new(io::ErrorKind::OutOfMemory, "not enough memory to decode the layer"))
}

/// The bytes of a blob, and where they are in it.
#[derive(Debug)]
pub(super) struct Source<R> {
    pub(super) reader: R,
    pub(super) offset: u64,
}

/// The rest of a blob in a file.
pub(super) type BlobSource = Source<BlobReader>;

impl BlobSource {
    pub(super) fn at(blob: &FileRange, offset: u64) -> Result<Self, DecodeError> {
        let rest = blob.len().checked_sub(offset).and_then(|rest| blob.slice(offset, rest));
        let after = || DecodeError::Bad { offset, reason: "a checkpoint after the end".to_owned() };
        let reader = BlobReader::new(&rest.ok_or_else(after)?);
        Ok(Self { reader, offset })
    }
}

impl<R: BufRead> Source<R> {
    /// An error at this place.
    pub(super) fn bad(&self, reason: impl Into<String>) -> DecodeError {
        DecodeError::Bad { offset: self.offset, reason: reason.into() }
    }

    /// What inflate says of the bytes here.
    pub(super) fn not_inflated(&self, error: InflateError) -> DecodeError {
        match error {
            InflateError::Memory => no_memory(),
            InflateError::Data | InflateError::State(_) => self.bad(error.to_string()),
        }
    }

    /// The error that the bytes end too early.
    pub(super) fn cut_off(&self) -> DecodeError {
        self.bad("cut off")
    }

    /// Bytes that are there; none at the end.
    pub(super) fn fill(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.reader.consume(count);
        self.offset += count as u64;
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let Some(byte) = self.fill()?.first().copied() else { return Err(self.cut_off()) };
        self.consume(1);
        Ok(byte)
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut bytes = [0; N];
        self.exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn exact(&mut self, bytes: &mut [u8]) -> Result<(), DecodeError> {
        bytes.iter_mut().try_for_each(|byte| {
            *byte = self.byte()?;
            Ok(())
        })
    }

    pub(super) fn skip(&mut self, mut count: u64) -> Result<(), DecodeError> {
        while count > 0 {
            let there = self.fill()?.len();
            if there == 0 {
                return Err(self.cut_off());
            }
            let step = usize::try_from(count).unwrap_or(usize::MAX).min(there);
            self.consume(step);
            count -= step as u64;
        }
        Ok(())
    }

    /// Skips zeros, with which files are padded to the length of a block; whether anything follows them.
    pub(super) fn skip_padding(&mut self) -> Result<bool, DecodeError> {
        loop {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Ok(false);
            }
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let is_done = zeros < bytes.len();
            self.consume(zeros);
            if is_done {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_memory_is_no_corruption() {
        let source = Source { reader: &b""[..], offset: 7 };
        for (error, is_bad) in [(InflateError::Memory, false), (InflateError::Data, true)] {
            assert_eq!(matches!(source.not_inflated(error), DecodeError::Bad { offset: 7, .. }), is_bad);
        }
    }
}
