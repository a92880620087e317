//! Decoding from a checkpoint.

use super::bzip2::Bzip2Streams;
use super::encoding::Encoding;
use super::gzip::GzipMembers;
use super::objects::Checkpoint;
use super::pieces::Pieces;
use super::source::{BlobSource, DecodeError};
use super::xz::XzBlocks;
use super::zstd_frames::ZstdFrames;
use crate::model::TarOffset;
use crate::sys::file_range::FileRange;

/// Decodes a blob front to back from a checkpoint on, whatever its encoding, through as many pieces as there are.
#[derive(Debug)]
pub struct Decoder {
    pieces: Box<dyn Pieces>,
    position: TarOffset,
    is_finished: bool,
}

impl Decoder {
    /// Starts at a checkpoint; `window` is the history that it needs.
    ///
    /// # Errors
    /// [`DecodeError`]; also when the blob is a plain tar, which has no checkpoints.
    pub fn resume(
        encoding: Encoding,
        blob: &FileRange,
        checkpoint: &Checkpoint,
        window: &[u8],
    ) -> Result<Self, DecodeError> {
        let (offset, bits) = (checkpoint.blob_offset, checkpoint.bits);
        let source = || BlobSource::at(blob, offset);
        let pieces: Box<dyn Pieces> = match encoding {
            Encoding::Gzip => Box::new(GzipMembers::resume(blob, offset, bits, window)?),
            Encoding::Zstd => Box::new(ZstdFrames::new(source()?)?),
            Encoding::Xz => Box::new(XzBlocks::resume(source()?, bits)),
            Encoding::Bzip2 => Box::new(Bzip2Streams::new(source()?)),
            Encoding::Tar => return Err(source()?.bad("a checkpoint in a plain tar")),
        };
        let mut decoder = Self { pieces, position: checkpoint.place, is_finished: false };
        decoder.go_on()?;
        Ok(decoder)
    }

    /// Starts at the beginning of a blob in which pieces begin: gzip members, zstd frames and so on.
    ///
    /// # Errors
    /// [`DecodeError`]; also when it is a plain tar.
    pub fn from_start(encoding: Encoding, blob: &FileRange) -> Result<Self, DecodeError> {
        let source = BlobSource::at(blob, 0)?;
        let pieces: Box<dyn Pieces> = match encoding {
            Encoding::Gzip => Box::new(GzipMembers::new(source)?),
            Encoding::Zstd => Box::new(ZstdFrames::new(source)?),
            Encoding::Xz => Box::new(XzBlocks::new(source)),
            Encoding::Bzip2 => Box::new(Bzip2Streams::new(source)),
            Encoding::Tar => return Err(source.bad("not compressed")),
        };
        let mut decoder = Self { pieces, position: TarOffset(0), is_finished: false };
        decoder.go_on()?;
        Ok(decoder)
    }

    fn go_on(&mut self) -> Result<(), DecodeError> {
        self.is_finished = self.pieces.next()?.is_none();
        Ok(())
    }

    /// Where in the uncompressed layer the next byte is.
    #[must_use]
    pub fn position(&self) -> TarOffset {
        self.position
    }

    /// Memory that it holds on to while it is suspended, about.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.pieces.memory_bytes()
    }

    /// Fills `output`; fewer bytes only at the end of the layer.
    ///
    /// # Errors
    /// [`DecodeError`]; the decoder is of no use afterwards.
    pub fn read(&mut self, output: &mut [u8]) -> Result<usize, DecodeError> {
        let mut filled = 0;
        while filled < output.len() && !self.is_finished {
            match self.pieces.decode(&mut output[filled..])? {
                0 => self.go_on()?,
                count => filled += count,
            }
        }
        self.position.0 += filled as u64;
        Ok(filled)
    }
}
