//! bzip2 streams: one, or many back to back (pbzip2). Within a stream blocks begin at any bit and are not looked for.

use std::fmt;
use std::io::BufRead;

use bzip2::{Decompress, Status};

use super::pieces::{PieceStart, Pieces};
use super::source::{DecodeError, Source, no_memory};

/// What a decoder needs at most: 4 bytes for each of the 900,000 of a block, and tables.
const DECODER_BYTES: u64 = 4 << 20;

/// Decodes streams front to back.
pub(super) struct Bzip2Streams<R> {
    source: Source<R>,
    /// Of the stream; `None` between two.
    decoder: Option<Decompress>,
}

impl<R> fmt::Debug for Bzip2Streams<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bzip2Streams").field("is_inside", &self.decoder.is_some()).finish_non_exhaustive()
    }
}

impl<R: BufRead> Bzip2Streams<R> {
    /// Starts at the start of a stream.
    pub(super) fn new(source: Source<R>) -> Self {
        Self { source, decoder: None }
    }
}

impl<R: BufRead + Send> Pieces for Bzip2Streams<R> {
    fn next(&mut self) -> Result<Option<PieceStart>, DecodeError> {
        let blob_offset = self.source.offset;
        if self.source.fill()?.first() != Some(&b'B') {
            return match self.source.skip_padding()? {
                true => Err(self.source.bad("garbage after a bzip2 stream")),
                false => Ok(None),
            };
        }
        self.decoder = Some(Decompress::new(false));
        Ok(Some(PieceStart { blob_offset, bits: 0 }))
    }

    fn decode(&mut self, output: &mut [u8]) -> Result<usize, DecodeError> {
        while let Some(decoder) = &mut self.decoder {
            let input = self.source.reader.fill_buf()?;
            let is_cut = input.is_empty();
            let before = (decoder.total_in(), decoder.total_out());
            let status = decoder.decompress(input, output);
            let used = decoder.total_in().wrapping_sub(before.0);
            let produced = decoder.total_out().wrapping_sub(before.1);
            let (used, produced) =
                (usize::try_from(used).unwrap_or(0), usize::try_from(produced).unwrap_or(0));
            match status.map_err(|error| self.source.bad(error.to_string()))? {
                Status::StreamEnd => self.decoder = None,
                Status::MemNeeded => return Err(no_memory()),
                _ => {}
            }
            self.source.consume(used);
            if produced > 0 {
                return Ok(produced);
            }
            if self.decoder.is_some() && (is_cut || used == 0) {
                return Err(self.source.cut_off());
            }
        }
        Ok(0)
    }

    fn memory_bytes(&self) -> u64 {
        DECODER_BYTES
    }
}
