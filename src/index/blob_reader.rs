//! The compressed bytes from a checkpoint on.

use std::io::{self, BufRead, Read};

use crate::sys::file_range::{FileRange, RangeReader};

/// Bytes read at once: what a granule needs, roughly.
const BYTES: usize = 64 << 10;
/// The same for who has come so far that somebody reads on: each piece costs the decoder a copy of its window.
const BYTES_LATER: usize = 4 * BYTES;
/// So far: what the decoding of a span needs, roughly.
const LATER: u64 = 3 * BYTES as u64;

/// Reads a blob from some place on: little by little at first, because most who begin in the middle want little.
#[derive(Debug)]
pub(super) struct BlobReader {
    rest: RangeReader,
    buffer: Vec<u8>,
    used: usize,
    filled: usize,
    read: u64,
}

impl BlobReader {
    pub(super) fn new(rest: &FileRange) -> Self {
        Self { rest: rest.reader(), buffer: vec![0; BYTES], used: 0, filled: 0, read: 0 }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.buffer.len() as u64
    }
}

impl Read for BlobReader {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(output)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.filled {
            if self.read >= LATER && self.buffer.len() < BYTES_LATER {
                self.buffer.resize(BYTES_LATER, 0);
            }
            (self.used, self.filled) = (0, 0);
            self.filled = self.rest.read(&mut self.buffer)?;
            self.read += self.filled as u64;
        }
        Ok(&self.buffer[self.used..self.filled])
    }

    fn consume(&mut self, count: usize) {
        self.used = self.filled.min(self.used.saturating_add(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_once_however_it_is_read() {
        let bytes: Vec<u8> = (0..1_500_007_u32).flat_map(u32::to_le_bytes).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let range = FileRange::open(file.path()).unwrap();
        for at_once in [1000, 70_000, 1 << 20] {
            let (mut reader, mut read) = (BlobReader::new(&range), Vec::new());
            let mut piece = vec![0; at_once];
            while let count @ 1.. = reader.read(&mut piece).unwrap() {
                read.extend_from_slice(&piece[..count]);
            }
            assert!(read == bytes, "{at_once} at once");
            assert_eq!(reader.memory_bytes(), BYTES_LATER as u64);
        }
        let mut reader = BlobReader::new(&range);
        assert_eq!(reader.fill_buf().unwrap().len(), BYTES);
        reader.consume(BYTES - 1);
        assert_eq!(reader.fill_buf().unwrap(), &bytes[BYTES - 1..BYTES]);
        assert_eq!(reader.memory_bytes(), BYTES as u64);
    }
}
