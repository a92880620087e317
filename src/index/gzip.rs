//! Gzip members (RFC 1952) and decoding from a checkpoint.

use std::io::{self, BufRead, BufReader};

use super::objects::Checkpoint;
use crate::model::TarOffset;
use crate::sys::file_range::{FileRange, RangeReader};
use crate::sys::inflate::{Inflate, InflateError, Stop, Until};

/// Compressed bytes read at once: what a granule needs, roughly.
const INPUT_BYTES: usize = 64 << 10;

/// Why gzip data cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum GzipError {
    /// The blob could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not gzip.
    #[error("{0}")]
    Bad(&'static str),
    /// What is inside of a member is not deflate.
    #[error(transparent)]
    Deflate(#[from] InflateError),
}

/// Compressed bytes, and where they are in the blob.
#[derive(Debug)]
pub(super) struct Source<R> {
    pub(super) reader: R,
    pub(super) offset: u64,
}

impl<R: BufRead> Source<R> {
    pub(super) fn consume(&mut self, count: usize) {
        self.reader.consume(count);
        self.offset += count as u64;
    }

    fn byte(&mut self) -> Result<u8, GzipError> {
        let byte = *self.reader.fill_buf()?.first().ok_or(GzipError::Bad("cut off"))?;
        self.consume(1);
        Ok(byte)
    }

    fn u16(&mut self) -> Result<u16, GzipError> {
        Ok(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    fn u32(&mut self) -> Result<u32, GzipError> {
        Ok(u32::from_le_bytes([self.byte()?, self.byte()?, self.byte()?, self.byte()?]))
    }

    /// Reads the header of a member.
    pub(super) fn header(&mut self) -> Result<(), GzipError> {
        if (self.byte()?, self.byte()?) != (0x1f, 0x8b) {
            return Err(GzipError::Bad("no gzip member begins here"));
        }
        if self.byte()? != 8 {
            return Err(GzipError::Bad("unknown compression method"));
        }
        let flags = self.byte()?;
        if flags & 0xe0 != 0 {
            return Err(GzipError::Bad("reserved flags are set"));
        }
        // Time, extra flags, operating system.
        for _ in 0..6 {
            self.byte()?;
        }
        if flags & 4 != 0 {
            for _ in 0..self.u16()? {
                self.byte()?;
            }
        }
        // File name and comment, each up to a NUL.
        for flag in [8, 16] {
            while flags & flag != 0 && self.byte()? != 0 {}
        }
        if flags & 2 != 0 {
            self.u16()?;
        }
        Ok(())
    }

    /// Reads the trailer of a member: crc32 and length modulo 2^32 of its content.
    pub(super) fn trailer(&mut self) -> Result<(u32, u32), GzipError> {
        Ok((self.u32()?, self.u32()?))
    }

    /// Whether another member follows. Zeros up to the end are padding; anything else is an error.
    pub(super) fn has_member(&mut self) -> Result<bool, GzipError> {
        match self.reader.fill_buf()?.first() {
            None => return Ok(false),
            Some(0x1f) => return Ok(true),
            Some(_) => {}
        }
        loop {
            let bytes = self.reader.fill_buf()?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Err(GzipError::Bad("garbage after the last gzip member"));
            }
            match bytes.len() {
                0 => return Ok(false),
                count => self.consume(count),
            }
        }
    }
}

/// Decodes front to back from a checkpoint on, through as many members as there are.
#[derive(Debug)]
pub struct GzipDecoder {
    inflate: Inflate,
    source: Source<BufReader<RangeReader>>,
    position: TarOffset,
    is_finished: bool,
}

impl GzipDecoder {
    /// Starts at a checkpoint; `window` is the history that it needs.
    ///
    /// # Errors
    /// [`GzipError`]
    pub fn resume(blob: &FileRange, checkpoint: &Checkpoint, window: &[u8]) -> Result<Self, GzipError> {
        let mut inflate = Inflate::new()?;
        let mut before = [0];
        if checkpoint.bits > 0 {
            let at = checkpoint.blob_offset.checked_sub(1);
            blob.read_at(at.ok_or(GzipError::Bad("a checkpoint before the blob"))?, &mut before)?;
        }
        inflate.restart(checkpoint.bits, before[0], window)?;
        let rest = blob.len().checked_sub(checkpoint.blob_offset);
        let rest = rest.and_then(|rest| blob.slice(checkpoint.blob_offset, rest));
        let reader = rest.ok_or(GzipError::Bad("a checkpoint after the blob"))?.reader();
        let source =
            Source { reader: BufReader::with_capacity(INPUT_BYTES, reader), offset: checkpoint.blob_offset };
        Ok(Self { inflate, source, position: checkpoint.place, is_finished: false })
    }

    /// Where in the uncompressed layer the next byte is.
    #[must_use]
    pub fn position(&self) -> TarOffset {
        self.position
    }

    /// Fills `output`; fewer bytes only at the end of the layer.
    ///
    /// # Errors
    /// [`GzipError`]; the decoder is of no use afterwards.
    pub fn read(&mut self, output: &mut [u8]) -> Result<usize, GzipError> {
        let mut filled = 0;
        while filled < output.len() && !self.is_finished {
            let input = self.source.reader.fill_buf()?;
            let is_cut = input.is_empty();
            let step = self.inflate.run(input, &mut output[filled..], Until::Full)?;
            self.source.consume(step.consumed);
            filled += step.produced;
            if step.stop == Stop::End {
                self.source.trailer()?;
                self.is_finished = !self.source.has_member()?;
                if !self.is_finished {
                    self.source.header()?;
                    self.inflate.restart(0, 0, &[])?;
                }
            } else if step.produced == 0 && (is_cut || step.consumed == 0) {
                return Err(GzipError::Bad("cut off"));
            }
        }
        self.position.0 += filled as u64;
        Ok(filled)
    }
}
