//! A whole file decoded once, front to back: for what is compressed from outside and cannot be read where it lies.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use super::decode::{self, Halt};
use super::encoding::Encoding;
use super::source::DecodeError;
use super::stream::{self, CHUNKS_AHEAD, Chunk, ChunkReader};
use crate::sys::file_range::FileRange;

/// Decodes `blob` and gives what comes out to `take`, piece by piece, until that breaks off. `progress` is told now and
/// then how many bytes of the blob were read so far.
///
/// # Errors
/// [`DecodeError`]: the blob cannot be read, or is damaged; what was taken until then is of no use.
pub fn decompress(
    blob: &FileRange,
    encoding: Encoding,
    take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), DecodeError> {
    decode_all(encoding, take, |raw| stream::send(blob, &raw, &mut |_| {}, progress))
}

/// The same for what has no places to read at: a pipe.
///
/// # Errors
/// As [`decompress`].
pub fn decompress_stream(
    source: &mut (dyn Read + Send),
    encoding: Encoding,
    take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), DecodeError> {
    decode_all(encoding, take, |raw| stream::send_all(source, &raw, progress))
}

/// Decodes what `read` sends from a thread of its own.
fn decode_all(
    encoding: Encoding,
    take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    read: impl FnOnce(SyncSender<Chunk>) -> io::Result<()> + Send,
) -> Result<(), DecodeError> {
    let (raw, raw_ahead) = sync_channel(CHUNKS_AHEAD);
    let (checkpoints, checkpoints_ahead) = sync_channel(CHUNKS_AHEAD);
    thread::scope(|scope| {
        let reader = scope.spawn(move || read(raw));
        // Nobody will start from them.
        scope.spawn(move || checkpoints_ahead.iter().for_each(drop));
        let raw = ChunkReader::new(raw_ahead);
        let mut send = |chunk: Chunk| match take(&chunk) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Halt::Stopped),
        };
        // A decoder that panics on hostile bytes has not decoded them.
        let decode = AssertUnwindSafe(|| decode::all(encoding, raw, &mut send, &checkpoints));
        let decoded = panic::catch_unwind(decode).unwrap_or(Err(Halt::Panicked));
        drop(checkpoints);
        // Before the decoder's word: to it, the bytes only end too early.
        reader.join().map_err(|_| io::Error::other("a thread of the decompression panicked"))??;
        let bad = |reason: &str| DecodeError::Bad { offset: 0, reason: reason.to_owned() };
        match decoded {
            Ok(()) | Err(Halt::Stopped) => Ok(()),
            Err(Halt::Bad(error)) => Err(error),
            Err(Halt::TooLong) => Err(bad("more than 1 TiB comes out of it")),
            Err(Halt::Panicked) => Err(bad("the decoder panicked")),
        }
    })
}
