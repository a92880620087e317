//! What the encodings have in common: a blob is a row of pieces, each of which can be decoded without those before it.

use std::fmt::Debug;

use super::source::DecodeError;

/// Where a piece begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PieceStart {
    /// In the blob: what the decoder is told to start from.
    pub(super) blob_offset: u64,
    /// What else it must know: 3 bits.
    pub(super) bits: u8,
}

/// A decoder of gzip members, zstd frames, xz blocks or bzip2 streams, front to back.
pub(super) trait Pieces: Debug + Send {
    /// Goes on to the next piece when one was decoded to its end; `None` at the end of the blob.
    fn next(&mut self) -> Result<Option<PieceStart>, DecodeError>;

    /// Decodes some of the piece into `output`, which has room; 0 bytes at the piece's end.
    fn decode(&mut self, output: &mut [u8]) -> Result<usize, DecodeError>;

    /// Bytes of memory that it holds on to, about.
    fn memory_bytes(&self) -> u64;
}
