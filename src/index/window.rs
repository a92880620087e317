//! Reduces the window of a checkpoint to what is needed of it: about a tenth.
//!
//! Only the 32 KiB after a checkpoint can refer to the window. They are decoded twice, with two made-up windows whose
//! bytes spell out their own position: wherever the two results differ, the byte was copied from the window, and the pair
//! says from where. All other bytes of the window become zero, which zstd makes almost nothing of.

use crate::sys::file_range::FileRange;
use crate::sys::inflate::{Inflate, InflateError, Stop, Until, WINDOW_BYTES};

/// Compression of windows: 3 takes a fifth of a millisecond and what is left is mostly zeros.
const ZSTD_LEVEL: i32 = 3;
/// Compressed bytes to look at for 32 KiB of output: stored blocks take 5 bytes more than they hold; many empty blocks in
/// between are strange but legal, so more is read when this is not enough.
const INPUT_BYTES: usize = WINDOW_BYTES + 4096;
/// Beyond this many compressed bytes the window is kept as it is: a blob of nothing but empty blocks has no end.
const INPUT_BYTES_MAX: usize = 1 << 20;

/// A checkpoint as decoding meets it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) tar_offset: u64,
    pub(super) blob_offset: u64,
    pub(super) bits: u8,
    /// Empty at the start of a member.
    pub(super) window: Vec<u8>,
}

/// Reduces and packs windows.
pub(super) struct Reducer {
    blob: FileRange,
    inflate: Inflate,
    packer: zstd::bulk::Compressor<'static>,
    input: Vec<u8>,
    outputs: [Vec<u8>; 2],
    made_up: [Vec<u8>; 2],
}

impl Reducer {
    pub(super) fn new(blob: FileRange) -> std::io::Result<Self> {
        let byte = |n: usize| u8::try_from(n & 0xff).unwrap_or(0);
        let low = |place: usize| byte(place);
        // The top bit is free: with it the two bytes of one position never are the same.
        let high = |place: usize| {
            let high = byte(place >> 8) | 0x80;
            if high == byte(place) { high & 0x7f } else { high }
        };
        Ok(Self {
            blob,
            inflate: Inflate::new().map_err(std::io::Error::other)?,
            packer: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            input: Vec::new(),
            outputs: [vec![0; WINDOW_BYTES], vec![0; WINDOW_BYTES]],
            made_up: [(0..WINDOW_BYTES).map(low).collect(), (0..WINDOW_BYTES).map(high).collect()],
        })
    }

    /// The packed window of a checkpoint; empty when it has none.
    pub(super) fn pack(&mut self, found: &Found) -> std::io::Result<Vec<u8>> {
        if found.window.is_empty() {
            return Ok(Vec::new());
        }
        let reduced = self.reduce(found)?;
        self.packer.compress(&reduced)
    }

    fn reduce(&mut self, found: &Found) -> std::io::Result<Vec<u8>> {
        let before = u64::from(found.bits > 0);
        self.input.resize(INPUT_BYTES, 0);
        let len = loop {
            let len = self.blob.read_at(found.blob_offset - before, &mut self.input)?;
            let (first, is_whole) = self.decode(found, 0, len).map_err(std::io::Error::other)?;
            if is_whole || len < self.input.len() {
                let (second, _) = self.decode(found, 1, len).map_err(std::io::Error::other)?;
                break first.min(second);
            }
            if self.input.len() >= INPUT_BYTES_MAX {
                return Ok(found.window.clone());
            }
            self.input.resize(self.input.len() * 2, 0);
        };
        let mut reduced = vec![0; found.window.len()];
        let outputs = self.outputs[0][..len].iter().zip(&self.outputs[1][..len]);
        for (low, high) in outputs.filter(|(low, high)| low != high) {
            let place = usize::from(*low) | usize::from(high & 0x7f) << 8;
            if let (Some(to), Some(from)) = (reduced.get_mut(place), found.window.get(place)) {
                *to = *from;
            }
        }
        Ok(reduced)
    }

    /// Decodes with a made-up window; returns how much came out, and whether that is all that can matter.
    fn decode(&mut self, found: &Found, which: usize, len: usize) -> Result<(usize, bool), InflateError> {
        let before = usize::from(found.bits > 0);
        let window = &self.made_up[which][..found.window.len()];
        self.inflate.restart(found.bits, self.input[0], window)?;
        let output = &mut self.outputs[which];
        let (mut used, mut filled) = (before, 0);
        loop {
            let step = self.inflate.run(&self.input[used..len], &mut output[filled..], Until::Full)?;
            used += step.consumed;
            filled += step.produced;
            if step.stop == Stop::End || filled == output.len() {
                return Ok((filled, true));
            }
            if step.consumed == 0 && step.produced == 0 {
                return Ok((filled, false));
            }
        }
    }
}
