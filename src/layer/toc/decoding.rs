//! What comes out of stretches of a blob.

use std::panic::{self, AssertUnwindSafe};

use crate::index::{DecodeError, Decoder, Encoding};
use crate::sys::file_range::FileRange;

/// Decoded at once of what is thrown away, or is not known to be long.
const PIECE_BYTES: usize = 128 << 10;

/// Starts to decode a stretch of a blob at its beginning.
pub(super) fn decoder(
    blob: &FileRange,
    encoding: Encoding,
    offset: u64,
    end: u64,
) -> Result<Decoder, DecodeError> {
    let stretch = end.checked_sub(offset).and_then(|len| blob.slice(offset, len));
    let outside = || DecodeError::Bad { offset, reason: "a chunk outside of the blob".to_owned() };
    let stretch = stretch.ok_or_else(outside)?;
    stretch.await_bytes(0..stretch.len()).map_err(DecodeError::Io)?;
    Decoder::from_start(encoding, &stretch)
}

/// Decodes up to `place` and throws away what comes out; then up to the end of `output`.
pub(super) fn read(decoder: &mut Decoder, place: u64, output: &mut [u8]) -> Result<(), DecodeError> {
    let mut waste = Vec::new();
    while decoder.position().0 < place {
        let rest = place - decoder.position().0;
        waste.resize(usize::try_from(rest).unwrap_or(PIECE_BYTES).min(PIECE_BYTES), 0);
        fill(decoder, &mut waste)?;
    }
    fill(decoder, output)
}

fn fill(decoder: &mut Decoder, output: &mut [u8]) -> Result<(), DecodeError> {
    let position = decoder.position().0;
    if decoder.read(output)? == output.len() {
        return Ok(());
    }
    Err(DecodeError::Bad {
        offset: 0,
        reason: format!("fewer bytes than promised come out behind {position}"),
    })
}

/// All that comes out of a decoder, which must not be more than `bytes_max`.
pub(super) fn read_all(decoder: &mut Decoder, bytes_max: u64) -> Result<Vec<u8>, DecodeError> {
    let (mut all, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
    while let count @ 1.. = decoder.read(&mut piece)? {
        all.extend_from_slice(&piece[..count]);
        if all.len() as u64 > bytes_max {
            let reason = format!("more than {} MiB come out", bytes_max >> 20);
            return Err(DecodeError::Bad { offset: 0, reason });
        }
    }
    Ok(all)
}

/// A decoder that panics on hostile bytes has not decoded them: the process lives on.
pub(super) fn guarded<T>(decode: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    let panicked = || DecodeError::Bad { offset: 0, reason: "the decoder panicked".to_owned() };
    panic::catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(panicked()))
}
