//! Zstandard frames (RFC 8878): one or many, with skippable ones between and after them (tables of contents of
//! zstd:chunked and of the seekable format), which are part of the blob and of no layer.

use std::fmt;
use std::io::BufRead;

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::pieces::{PieceStart, Pieces};
use super::source::{DecodeError, Source, no_memory};

/// The longest history that a frame may need: 128 MiB, as the zstd tool and its library accept by default, and more than
/// any compression level but `--long=28` and above asks for.
const WINDOW_LOG_MAX: u32 = 27;
/// What a decoder needs besides: a block of input, one of output, tables.
const DECODER_BYTES: u64 = 768 << 10;
/// How the library says that it got no memory; the error has no other mark.
const NO_MEMORY: &str = "Allocation error : not enough memory";
/// RFC 8878, section 3.1.1.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The longest header of a frame: magic, descriptor, window, dictionary, content size.
const HEADER_BYTES_MAX: usize = 4 + 1 + 1 + 4 + 8;

/// Decodes frames front to back.
pub(super) struct ZstdFrames<R> {
    source: Source<R>,
    decoder: Decoder<'static>,
    /// The header of the frame, which was read to look at and which the decoder still has to see.
    header: Vec<u8>,
    is_inside: bool,
    /// The largest so far: the decoder keeps it for the next frame.
    window_bytes: u64,
}

impl<R> fmt::Debug for ZstdFrames<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZstdFrames").field("is_inside", &self.is_inside).finish_non_exhaustive()
    }
}

impl<R: BufRead> ZstdFrames<R> {
    /// Starts at the magic of a frame.
    pub(super) fn new(source: Source<R>) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        let header = Vec::with_capacity(HEADER_BYTES_MAX);
        Ok(Self { source, decoder, header, is_inside: false, window_bytes: 0 })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.source.bytes()?;
        self.header.extend_from_slice(&bytes);
        Ok(bytes)
    }

    /// Reads what comes after the magic, for limits and for words that say more than the decoder's.
    fn read_header(&mut self) -> Result<(), DecodeError> {
        let [descriptor] = self.take()?;
        let is_single_segment = descriptor & 0x20 != 0;
        let mut window = 0;
        if !is_single_segment {
            let [byte] = self.take()?;
            let base = 1_u64 << (10 + (byte >> 3));
            window = base + base / 8 * u64::from(byte & 7);
        }
        let dictionary = match descriptor & 3 {
            0 => 0,
            1 => u32::from(self.take::<1>()?[0]),
            2 => u32::from(u16::from_le_bytes(self.take()?)),
            _ => u32::from_le_bytes(self.take()?),
        };
        let content = match descriptor >> 6 {
            0 if is_single_segment => u64::from(self.take::<1>()?[0]),
            0 => 0,
            1 => u64::from(u16::from_le_bytes(self.take()?)) + 256,
            2 => u64::from(u32::from_le_bytes(self.take()?)),
            _ => u64::from_le_bytes(self.take()?),
        };
        if is_single_segment {
            window = content;
        }
        if dictionary != 0 {
            let reason =
                format!("the zstd frame needs dictionary {dictionary}, which no image can bring along");
            return Err(self.source.bad(reason));
        }
        if window > 1 << WINDOW_LOG_MAX {
            return Err(self.source.bad(format!(
                "the zstd frame needs a window of {} MiB, at most {} MiB are accepted: compress with --long=27 or less",
                window.div_ceil(1 << 20),
                (1_u64 << WINDOW_LOG_MAX) >> 20
            )));
        }
        self.window_bytes = self.window_bytes.max(window);
        Ok(())
    }
}

impl<R: BufRead + Send> Pieces for ZstdFrames<R> {
    fn next(&mut self) -> Result<Option<PieceStart>, DecodeError> {
        loop {
            let blob_offset = self.source.offset;
            if matches!(self.source.fill()?.first(), None | Some(0)) && !self.source.skip_padding()? {
                return Ok(None);
            }
            self.header.clear();
            match self.take()? {
                MAGIC => {
                    self.read_header()?;
                    self.is_inside = true;
                    return Ok(Some(PieceStart { blob_offset, bits: 0 }));
                }
                [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                    let len = u32::from_le_bytes(self.source.bytes()?);
                    self.source.skip(u64::from(len))?;
                }
                _ if blob_offset == 0 => return Err(self.source.bad("no zstd frame begins here")),
                _ => return Err(self.source.bad("garbage after a zstd frame")),
            }
        }
    }

    fn decode(&mut self, output: &mut [u8]) -> Result<usize, DecodeError> {
        while self.is_inside {
            let is_header = !self.header.is_empty();
            let bytes = if is_header { &self.header[..] } else { self.source.reader.fill_buf()? };
            let is_cut = bytes.is_empty();
            let (mut input, mut room) = (InBuffer::around(bytes), OutBuffer::around(&mut *output));
            let wanted = self.decoder.run(&mut input, &mut room);
            let (used, produced) = (input.pos(), room.pos());
            let wanted = wanted.map_err(|error| match error.to_string() {
                words if words == NO_MEMORY => no_memory(),
                words => self.source.bad(words),
            })?;
            if is_header {
                self.header.drain(..used);
            } else {
                self.source.consume(used);
            }
            // 0 means that the frame was decoded to its end and that all of it is out.
            self.is_inside = wanted != 0;
            if produced > 0 {
                return Ok(produced);
            }
            if self.is_inside && is_cut {
                return Err(self.source.cut_off());
            }
        }
        Ok(0)
    }

    fn memory_bytes(&self) -> u64 {
        self.window_bytes + DECODER_BYTES
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_memory_is_said_so() {
        // ZSTD_error_memory_allocation, as functions return it.
        assert_eq!(zstd::zstd_safe::get_error_name(0_usize.wrapping_sub(64)), super::NO_MEMORY);
    }
}
