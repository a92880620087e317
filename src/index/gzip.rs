//! Gzip members (RFC 1952).

use std::io::BufRead;

use super::pieces::{PieceStart, Pieces};
use super::source::{BlobSource, DecodeError, Source};
use crate::sys::file_range::FileRange;
use crate::sys::inflate::{Inflate, Stop, Until, WINDOW_BYTES};

impl<R: BufRead> Source<R> {
    /// Reads the header of a member.
    pub(super) fn gzip_header(&mut self) -> Result<(), DecodeError> {
        if self.bytes()? != [0x1f, 0x8b] {
            return Err(self.bad("no gzip member begins here"));
        }
        if self.byte()? != 8 {
            return Err(self.bad("unknown compression method"));
        }
        let flags = self.byte()?;
        if flags & 0xe0 != 0 {
            return Err(self.bad("reserved flags are set"));
        }
        // Time, extra flags, operating system.
        self.skip(6)?;
        if flags & 4 != 0 {
            let len = u16::from_le_bytes(self.bytes()?);
            self.skip(u64::from(len))?;
        }
        // File name and comment, each up to a NUL.
        for flag in [8, 16] {
            while flags & flag != 0 && self.byte()? != 0 {}
        }
        if flags & 2 != 0 {
            self.skip(2)?;
        }
        Ok(())
    }

    /// Reads the trailer of a member: crc32 and length modulo 2^32 of its content.
    pub(super) fn gzip_trailer(&mut self) -> Result<(u32, u32), DecodeError> {
        Ok((u32::from_le_bytes(self.bytes()?), u32::from_le_bytes(self.bytes()?)))
    }

    /// Whether another member follows. Zeros up to the end are padding; anything else is an error.
    pub(super) fn has_gzip_member(&mut self) -> Result<bool, DecodeError> {
        if self.fill()?.first() == Some(&0x1f) {
            return Ok(true);
        }
        match self.skip_padding()? {
            true => Err(self.bad("garbage after the last gzip member")),
            false => Ok(false),
        }
    }
}

/// Decodes members from a checkpoint on. Their checksums are not looked at: the granules have better ones.
#[derive(Debug)]
pub(super) struct GzipMembers {
    inflate: Inflate,
    source: BlobSource,
    is_inside: bool,
}

impl GzipMembers {
    /// Starts at the header of a member.
    pub(super) fn new(source: BlobSource) -> Result<Self, DecodeError> {
        let inflate = Inflate::new().map_err(|error| source.not_inflated(error))?;
        Ok(Self { inflate, source, is_inside: false })
    }

    /// Starts between two blocks, of which the first uses `bits` bits of the byte before `blob_offset`; `window` is the
    /// history that it needs.
    pub(super) fn resume(
        blob: &FileRange,
        blob_offset: u64,
        bits: u8,
        window: &[u8],
    ) -> Result<Self, DecodeError> {
        let source = BlobSource::at(blob, blob_offset)?;
        let mut inflate = Inflate::new().map_err(|error| source.not_inflated(error))?;
        let mut before = [0];
        if bits > 0 {
            let at = blob_offset.checked_sub(1);
            blob.read_at(at.ok_or_else(|| source.bad("a checkpoint before the blob"))?, &mut before)?;
        }
        inflate.restart(bits, before[0], window).map_err(|error| source.not_inflated(error))?;
        Ok(Self { inflate, source, is_inside: true })
    }
}

impl Pieces for GzipMembers {
    fn next(&mut self) -> Result<Option<PieceStart>, DecodeError> {
        if !self.is_inside {
            if !self.source.has_gzip_member()? {
                return Ok(None);
            }
            self.source.gzip_header()?;
            self.inflate.restart(0, 0, &[]).map_err(|error| self.source.not_inflated(error))?;
            self.is_inside = true;
        }
        Ok(Some(PieceStart { blob_offset: self.source.offset, bits: 0 }))
    }

    fn decode(&mut self, output: &mut [u8]) -> Result<usize, DecodeError> {
        while self.is_inside {
            let input = self.source.reader.fill_buf()?;
            let is_cut = input.is_empty();
            let step = self.inflate.run(input, output, Until::Full);
            let step = step.map_err(|error| self.source.not_inflated(error))?;
            self.source.consume(step.consumed);
            if step.stop == Stop::End {
                self.source.gzip_trailer()?;
                self.is_inside = false;
            } else if step.produced == 0 && (is_cut || step.consumed == 0) {
                return Err(self.source.cut_off());
            }
            if step.produced > 0 {
                return Ok(step.produced);
            }
        }
        Ok(0)
    }

    fn memory_bytes(&self) -> u64 {
        WINDOW_BYTES as u64 * 3 + self.source.reader.memory_bytes()
    }
}
