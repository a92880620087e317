//! The decoding stage of a build: from the blob's bytes to chunks of the tar, with a checkpoint every so often.

use std::mem;
use std::sync::mpsc::SyncSender;

use super::encoding::Encoding;
use super::format::SPAN_BYTES;
use super::pieces::Pieces;
use super::source::{DecodeError, Source};
use super::stream::{Buffers, Chunk, ChunkReader};
use super::window::Found;
use super::{bzip2::Bzip2Streams, xz::XzBlocks, zstd_frames::ZstdFrames};
use crate::model::limits::LAYER_BYTES_MAX;
use crate::sys::inflate::{Inflate, InflateError, Stop, Until, WINDOW_BYTES};

/// A piece that starts this far from the last checkpoint makes one, because such a one needs no window. Smaller pieces
/// are grouped.
const PIECE_SPAN_BYTES: u64 = SPAN_BYTES / 4;

/// Why decoding ended early.
#[derive(Debug)]
pub(super) enum Halt {
    Bad(DecodeError),
    /// Another stage hung up.
    Stopped,
    /// Beyond [`LAYER_BYTES_MAX`].
    TooLong,
    /// A decoder met what its author did not think of.
    Panicked,
}

impl From<DecodeError> for Halt {
    fn from(error: DecodeError) -> Self {
        Self::Bad(error)
    }
}

impl From<std::io::Error> for Halt {
    fn from(error: std::io::Error) -> Self {
        Self::Bad(error.into())
    }
}

/// Takes a chunk of the tar.
type Send<'a> = dyn FnMut(Chunk) -> Result<(), Halt> + 'a;

/// Decodes all that comes out of `reader`.
pub(super) fn all(
    encoding: Encoding,
    reader: ChunkReader,
    send: &mut Send<'_>,
    checkpoints: &SyncSender<Found>,
) -> Result<(), Halt> {
    let source = Source { reader, offset: 0 };
    match encoding {
        Encoding::Tar => forward(source, send),
        Encoding::Gzip => gzip(source, send, checkpoints),
        Encoding::Zstd => pieces(&mut ZstdFrames::new(source)?, send, checkpoints),
        Encoding::Xz => pieces(&mut XzBlocks::new(source), send, checkpoints),
        Encoding::Bzip2 => pieces(&mut Bzip2Streams::new(source), send, checkpoints),
    }
}

/// A plain tar.
fn forward(mut source: Source<ChunkReader>, send: &mut Send<'_>) -> Result<(), Halt> {
    let buffers = Buffers::default();
    loop {
        let bytes = source.fill()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let mut buffer = buffers.get();
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        source.consume(len);
        if source.offset > LAYER_BYTES_MAX {
            return Err(Halt::TooLong);
        }
        send(buffers.lend(buffer, len))?;
    }
}

/// Checkpoints are only where pieces begin: between them lies a history of MiBs.
fn pieces(pieces: &mut dyn Pieces, send: &mut Send<'_>, checkpoints: &SyncSender<Found>) -> Result<(), Halt> {
    let buffers = Buffers::default();
    let (mut buffer, mut filled) = (buffers.get(), 0);
    let (mut position, mut last_checkpoint) = (0, None);
    while let Some(start) = pieces.next()? {
        if last_checkpoint.is_none_or(|last| position - last >= PIECE_SPAN_BYTES) {
            last_checkpoint = Some(position);
            let (blob_offset, bits) = (start.blob_offset, start.bits);
            let found = Found { tar_offset: position, blob_offset, bits, window: Vec::new() };
            checkpoints.send(found).map_err(|_| Halt::Stopped)?;
        }
        while let count @ 1.. = pieces.decode(&mut buffer[filled..])? {
            filled += count;
            position += count as u64;
            if position > LAYER_BYTES_MAX {
                return Err(Halt::TooLong);
            }
            if filled == buffer.len() {
                send(buffers.lend(mem::replace(&mut buffer, buffers.get()), filled))?;
                filled = 0;
            }
        }
    }
    send(buffers.lend(buffer, filled))
}

/// Gzip members. A deflate block longer than a span delays the next checkpoint to its end.
fn gzip(
    mut source: Source<ChunkReader>,
    send: &mut Send<'_>,
    checkpoints: &SyncSender<Found>,
) -> Result<(), Halt> {
    let buffers = Buffers::default();
    let inflate = Inflate::new().map_err(bad_deflate(&source))?;
    let mut stage = Stage {
        inflate,
        checkpoints,
        buffer: buffers.get(),
        filled: 0,
        position: 0,
        last_checkpoint: 0,
        member_start: 0,
        crc32: crc32fast::Hasher::new(),
    };
    source.gzip_header()?;
    stage.checkpoint(&source, 0)?;
    while stage.step(&mut source)? {
        if stage.filled == stage.buffer.len() {
            let full = mem::replace(&mut stage.buffer, buffers.get());
            send(buffers.lend(full, mem::take(&mut stage.filled)))?;
        }
    }
    send(buffers.lend(stage.buffer, stage.filled))
}

fn bad_deflate(source: &Source<ChunkReader>) -> impl Fn(InflateError) -> Halt {
    move |error| Halt::Bad(source.not_inflated(error))
}

/// Of gzip.
struct Stage<'a> {
    inflate: Inflate,
    checkpoints: &'a SyncSender<Found>,
    buffer: Vec<u8>,
    filled: usize,
    position: u64,
    last_checkpoint: u64,
    member_start: u64,
    crc32: crc32fast::Hasher,
}

impl Stage<'_> {
    /// Decodes some; `false` at the end of the last member.
    fn step(&mut self, source: &mut Source<ChunkReader>) -> Result<bool, Halt> {
        // Stopping at every block would cost time: only look for a boundary once one is wanted.
        let before_wanted = SPAN_BYTES.saturating_sub(self.position - self.last_checkpoint);
        let until = if before_wanted == 0 { Until::Block } else { Until::Full };
        let mut room = self.buffer.len() - self.filled;
        if let Ok(limit @ 1..) = usize::try_from(before_wanted) {
            room = room.min(limit);
        }
        let output = &mut self.buffer[self.filled..self.filled + room];
        let input = source.fill()?;
        let is_cut = input.is_empty();
        let step = self.inflate.run(input, output, until).map_err(bad_deflate(source))?;
        self.crc32.update(&output[..step.produced]);
        source.consume(step.consumed);
        self.filled += step.produced;
        self.position += step.produced as u64;
        if self.position > LAYER_BYTES_MAX {
            return Err(Halt::TooLong);
        }
        match step.stop {
            Stop::Boundary { bits } => self.checkpoint(source, bits)?,
            Stop::End => return self.end_member(source),
            Stop::Full if step.produced == 0 && (is_cut || step.consumed == 0) => {
                return Err(source.cut_off().into());
            }
            Stop::Full => {}
        }
        Ok(true)
    }

    fn end_member(&mut self, source: &mut Source<ChunkReader>) -> Result<bool, Halt> {
        let (crc32, len) = source.gzip_trailer()?;
        if std::mem::take(&mut self.crc32).finalize() != crc32 {
            return Err(source.bad("wrong CRC-32").into());
        }
        if u64::from(len) != (self.position - self.member_start) & 0xffff_ffff {
            return Err(source.bad("wrong length").into());
        }
        if !source.has_gzip_member()? {
            return Ok(false);
        }
        source.gzip_header()?;
        self.inflate.restart(0, 0, &[]).map_err(bad_deflate(source))?;
        self.member_start = self.position;
        if self.position - self.last_checkpoint >= PIECE_SPAN_BYTES {
            self.checkpoint(source, 0)?;
        }
        Ok(true)
    }

    fn checkpoint(&mut self, source: &Source<ChunkReader>, bits: u8) -> Result<(), Halt> {
        let mut window = [0; WINDOW_BYTES];
        let len = self.inflate.window(&mut window).map_err(bad_deflate(source))?;
        let window = window[..len].to_vec();
        self.last_checkpoint = self.position;
        let found = Found { tar_offset: self.position, blob_offset: source.offset, bits, window };
        self.checkpoints.send(found).map_err(|_| Halt::Stopped)
    }
}
