//! Raw deflate (RFC 1951) that can stop at, and start from, the boundary between two blocks: what random access needs.
//!
//! A safe face on the zlib interface of libz-rs-sys (pure Rust): its safe sibling cannot prime bits.

use std::mem;

use libz_rs_sys as z;

/// How far back deflate can refer (RFC 1951 section 2).
pub const WINDOW_BYTES: usize = 32768;

/// What ends a call of [`Inflate::run`] early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Nothing but the end of input, output or stream.
    Full,
    /// The next boundary between two blocks, too.
    Block,
}

/// Why [`Inflate::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Input used up or output full.
    Full,
    /// Between two blocks: of the last byte consumed, the `bits` most significant bits are not used yet.
    Boundary {
        /// 0 to 7.
        bits: u8,
    },
    /// The stream is complete.
    End,
}

/// What one call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of input used.
    pub consumed: usize,
    /// Bytes of output written.
    pub produced: usize,
    /// Why it returned.
    pub stop: Stop,
}

/// Why a stream cannot be decoded.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InflateError {
    /// The bytes are not deflate.
    #[error("invalid deflate data")]
    Data,
    /// No memory for the decoder.
    #[error("out of memory for a deflate decoder")]
    Memory,
    /// The decoder refused a call.
    #[error("the deflate decoder refused its state (code {0})")]
    State(i32),
}

/// A raw deflate decoder.
pub struct Inflate {
    /// Boxed because zlib checks that its state still belongs to the stream at this address.
    stream: Box<z::z_stream>,
}

// SAFETY: the stream owns its state, which is plain memory without thread affinity; the pointers to input and output that
// it holds between calls are cleared by `run`.
unsafe impl Send for Inflate {}

impl std::fmt::Debug for Inflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflate").finish_non_exhaustive()
    }
}

impl Inflate {
    /// A decoder at the start of a stream.
    ///
    /// # Errors
    /// [`InflateError::Memory`]
    pub fn new() -> Result<Self, InflateError> {
        let mut stream = Box::new(z::z_stream::default());
        let size = i32::try_from(mem::size_of::<z::z_stream>()).map_err(|_| InflateError::Memory)?;
        // SAFETY: `stream` is a valid, initialised z_stream (from Default above) and the size is its own.
        let code = unsafe { z::inflateInit2_(&raw mut *stream, -15, z::zlibVersion(), size) };
        if code == z::Z_OK { Ok(Self { stream }) } else { Err(InflateError::Memory) }
    }

    /// Makes it ready to decode from between two blocks: `bits` (0 to 7) not yet used bits of `byte`, the one before
    /// the input that follows, and the `window` of output before that point (empty at the start of a stream).
    ///
    /// # Errors
    /// [`InflateError::State`] when the arguments are out of range.
    pub fn restart(&mut self, bits: u8, byte: u8, window: &[u8]) -> Result<(), InflateError> {
        // SAFETY: the stream was initialised by `new` and has not been ended (only Drop does).
        check(unsafe { z::inflateReset(&raw mut *self.stream) })?;
        if bits > 7 {
            return Err(InflateError::State(z::Z_STREAM_ERROR));
        }
        if bits > 0 {
            let value = i32::from(byte >> (8 - bits));
            // SAFETY: as above.
            check(unsafe { z::inflatePrime(&raw mut *self.stream, i32::from(bits), value) })?;
        }
        if window.is_empty() {
            return Ok(());
        }
        let len = u32::try_from(window.len()).map_err(|_| InflateError::State(z::Z_STREAM_ERROR))?;
        // SAFETY: as above; `window` is readable for `len` bytes, its own length.
        check(unsafe { z::inflateSetDictionary(&raw mut *self.stream, window.as_ptr(), len) })
    }

    /// Copies the output of which later bytes may still be copies; returns how many bytes that is.
    ///
    /// # Errors
    /// [`InflateError::State`]
    pub fn window(&self, window: &mut [u8; WINDOW_BYTES]) -> Result<usize, InflateError> {
        let mut len = 0;
        // SAFETY: the stream is initialised; the buffer holds the 32768 bytes that zlib documents as always enough.
        check(unsafe {
            z::inflateGetDictionary(&raw const *self.stream, window.as_mut_ptr(), &raw mut len)
        })?;
        Ok(usize::try_from(len).unwrap_or(WINDOW_BYTES).min(WINDOW_BYTES))
    }

    /// Decodes from `input` into `output`.
    ///
    /// # Errors
    /// [`InflateError::Data`] for anything that is not deflate.
    pub fn run(&mut self, input: &[u8], output: &mut [u8], until: Until) -> Result<Progress, InflateError> {
        let stream = &mut *self.stream;
        let available_in = u32::try_from(input.len()).unwrap_or(u32::MAX);
        let available_out = u32::try_from(output.len()).unwrap_or(u32::MAX);
        stream.next_in = input.as_ptr();
        stream.avail_in = available_in;
        stream.next_out = output.as_mut_ptr();
        stream.avail_out = available_out;
        let flush = if until == Until::Block { z::Z_BLOCK } else { z::Z_NO_FLUSH };
        // SAFETY: the stream is initialised; next_in and next_out come from live slices of at least avail_in and
        // avail_out bytes, the latter exclusively borrowed.
        let code = unsafe { z::inflate(&raw mut *stream, flush) };
        let consumed = available_in - stream.avail_in;
        let produced = available_out - stream.avail_out;
        stream.next_in = std::ptr::null();
        stream.avail_in = 0;
        stream.next_out = std::ptr::null_mut();
        stream.avail_out = 0;
        let stop = match code {
            z::Z_STREAM_END => Stop::End,
            z::Z_OK | z::Z_BUF_ERROR => boundary(stream.data_type, until),
            z::Z_DATA_ERROR | z::Z_NEED_DICT => return Err(InflateError::Data),
            z::Z_MEM_ERROR => return Err(InflateError::Memory),
            other => return Err(InflateError::State(other)),
        };
        let size = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        Ok(Progress { consumed: size(consumed), produced: size(produced), stop })
    }
}

/// Bit 7 of `data_type`: at a block boundary; bit 6: in the last block; bits 0 to 5: unused bits (zlib.h, inflate).
fn boundary(data_type: i32, until: Until) -> Stop {
    let at_boundary = until == Until::Block && data_type & 128 != 0 && data_type & 64 == 0;
    match u8::try_from(data_type & 63) {
        Ok(bits @ 0..=7) if at_boundary => Stop::Boundary { bits },
        _ => Stop::Full,
    }
}

fn check(code: i32) -> Result<(), InflateError> {
    if code == z::Z_OK { Ok(()) } else { Err(InflateError::State(code)) }
}

impl Drop for Inflate {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, ended only here. The code says nothing that could be acted upon.
        unsafe { z::inflateEnd(&raw mut *self.stream) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn deflate(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_boundary_is_a_place_to_start_from() {
        let data: Vec<u8> =
            (0..400_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 20).to_le_bytes()).collect();
        let packed = deflate(&data);
        let (mut first, mut second) = (Inflate::new().unwrap(), Inflate::new().unwrap());
        let mut out = vec![0; data.len() + 1];
        let (mut consumed, mut produced, mut boundaries) = (0, 0, 0);
        loop {
            let step = first.run(&packed[consumed..], &mut out[produced..], Until::Block).unwrap();
            consumed += step.consumed;
            produced += step.produced;
            match step.stop {
                Stop::End => break,
                Stop::Full => assert!(step.consumed + step.produced > 0),
                Stop::Boundary { bits } => {
                    boundaries += 1;
                    let mut window = [0; WINDOW_BYTES];
                    let len = first.window(&mut window).unwrap();
                    assert_eq!(&window[..len], &data[produced.saturating_sub(WINDOW_BYTES)..produced]);
                    let before = if consumed == 0 { 0 } else { packed[consumed - 1] };
                    second.restart(bits, before, &window[..len]).unwrap();
                    let mut rest = vec![0; data.len() - produced];
                    let step = second.run(&packed[consumed..], &mut rest, Until::Full).unwrap();
                    assert_eq!(step.produced, rest.len());
                    assert!(rest == data[produced..]);
                }
            }
        }
        assert!(boundaries > 3, "{boundaries}");
        assert!(out[..produced] == data);
    }

    #[test]
    fn garbage_is_an_error() {
        let mut inflate = Inflate::new().unwrap();
        assert_eq!(inflate.run(&[0xff; 64], &mut [0; 64], Until::Full), Err(InflateError::Data));
        assert!(inflate.restart(8, 0, &[]).is_err());
        inflate.restart(0, 0, &[]).unwrap();
        let packed = deflate(b"again");
        let mut out = [0; 64];
        let step = inflate.run(&packed, &mut out, Until::Full).unwrap();
        assert_eq!((step.stop, &out[..step.produced]), (Stop::End, &b"again"[..]));
    }
}
