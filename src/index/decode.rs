//! The decoding stage of a build: gzip members to chunks, with a checkpoint every so often.

use std::io::BufRead as _;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::format::SPAN_BYTES;
use super::gzip::{GzipError, Source};
use super::stream::{CHUNK_BYTES, Chunk, ChunkReader};
use super::window::Found;
use crate::model::limits::LAYER_BYTES_MAX;
use crate::sys::inflate::{Inflate, InflateError, Stop, Until, WINDOW_BYTES};

/// A member that starts here makes a checkpoint, because such a one needs no window.
const MEMBER_SPAN_BYTES: u64 = SPAN_BYTES / 4;

/// Why decoding ended early.
#[derive(Debug)]
pub(super) enum Halt {
    Gzip(GzipError),
    /// Another stage hung up.
    Stopped,
    /// Beyond [`LAYER_BYTES_MAX`].
    TooLong,
}

impl From<GzipError> for Halt {
    fn from(error: GzipError) -> Self {
        Self::Gzip(error)
    }
}

impl From<InflateError> for Halt {
    fn from(error: InflateError) -> Self {
        Self::Gzip(GzipError::Deflate(error))
    }
}

/// Decodes all members of `source`. A deflate block longer than a span delays the next checkpoint to its end.
pub(super) fn gzip(
    source: &mut Source<ChunkReader>,
    send: &mut dyn FnMut(Chunk) -> Result<(), Halt>,
    checkpoints: &SyncSender<Found>,
) -> Result<(), Halt> {
    let mut stage = Stage {
        inflate: Inflate::new()?,
        checkpoints,
        chunk: vec![0; CHUNK_BYTES],
        filled: 0,
        position: 0,
        last_checkpoint: 0,
        member_start: 0,
        crc32: crc32fast::Hasher::new(),
    };
    source.header()?;
    stage.checkpoint(source.offset, 0)?;
    while stage.step(source)? {
        if stage.filled == stage.chunk.len() {
            send(Arc::new(std::mem::replace(&mut stage.chunk, vec![0; CHUNK_BYTES])))?;
            stage.filled = 0;
        }
    }
    stage.chunk.truncate(stage.filled);
    send(Arc::new(stage.chunk))
}

struct Stage<'a> {
    inflate: Inflate,
    checkpoints: &'a SyncSender<Found>,
    chunk: Vec<u8>,
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
        let mut room = self.chunk.len() - self.filled;
        if let Ok(limit @ 1..) = usize::try_from(before_wanted) {
            room = room.min(limit);
        }
        let output = &mut self.chunk[self.filled..self.filled + room];
        let input = source.reader.fill_buf().map_err(GzipError::Io)?;
        let is_cut = input.is_empty();
        let step = self.inflate.run(input, output, until)?;
        self.crc32.update(&output[..step.produced]);
        source.consume(step.consumed);
        self.filled += step.produced;
        self.position += step.produced as u64;
        if self.position > LAYER_BYTES_MAX {
            return Err(Halt::TooLong);
        }
        match step.stop {
            Stop::Boundary { bits } => self.checkpoint(source.offset, bits)?,
            Stop::End => return self.end_member(source),
            Stop::Full if step.produced == 0 && (is_cut || step.consumed == 0) => {
                return Err(GzipError::Bad("cut off").into());
            }
            Stop::Full => {}
        }
        Ok(true)
    }

    fn end_member(&mut self, source: &mut Source<ChunkReader>) -> Result<bool, Halt> {
        let (crc32, len) = source.trailer()?;
        if std::mem::take(&mut self.crc32).finalize() != crc32 {
            return Err(GzipError::Bad("wrong CRC-32").into());
        }
        if u64::from(len) != (self.position - self.member_start) & 0xffff_ffff {
            return Err(GzipError::Bad("wrong length").into());
        }
        if !source.has_member()? {
            return Ok(false);
        }
        source.header()?;
        self.inflate.restart(0, 0, &[])?;
        self.member_start = self.position;
        if self.position - self.last_checkpoint >= MEMBER_SPAN_BYTES {
            self.checkpoint(source.offset, 0)?;
        }
        Ok(true)
    }

    fn checkpoint(&mut self, blob_offset: u64, bits: u8) -> Result<(), Halt> {
        let mut window = [0; WINDOW_BYTES];
        let len = self.inflate.window(&mut window)?;
        let window = window[..len].to_vec();
        self.last_checkpoint = self.position;
        let found = Found { tar_offset: self.position, blob_offset, bits, window };
        self.checkpoints.send(found).map_err(|_| Halt::Stopped)
    }
}
