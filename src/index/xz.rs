//! xz streams and blocks (the .xz file format 1.2.1). Several threads of xz make several blocks, each of which can be
//! decoded on its own; what is in a block is LZMA2, perhaps behind one filter.
//!
//! A block's own check (CRC-32, CRC-64, SHA-256) is not looked at: the digests of layer and granules say more.

use std::fmt;
use std::io::BufRead;

use lzma_rust2::{Action, FilterConfig, FilterType, Lzma2Stream, Status};

use super::pieces::{PieceStart, Pieces};
use super::source::{DecodeError, Source};

/// The longest history that a block may need: twice what `xz -9` uses, and as much as of zstd. A decoder takes no more of
/// it than it has decoded.
const DICTIONARY_BYTES_MAX: u32 = 128 << 20;
/// What a decoder needs besides.
const DECODER_BYTES: u64 = 384 << 10;
const MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
/// Headers of blocks: a byte counts them in units of four bytes.
const HEADER_UNIT: usize = 4;

/// Decodes blocks front to back.
pub(super) struct XzBlocks<R> {
    source: Source<R>,
    /// Of the stream: `None` before its header.
    check: Option<CheckSize>,
    block: Option<Block>,
    dictionary_bytes: u64,
}

impl<R> fmt::Debug for XzBlocks<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XzBlocks").field("is_inside", &self.block.is_some()).finish_non_exhaustive()
    }
}

/// How long the check behind each block is: 0 bytes, then 4, 8, 16, 32, 64.
#[derive(Clone, Copy, Debug)]
struct CheckSize(u8);

impl CheckSize {
    /// Of the check with this number (section 2.1.1.2).
    fn of(check: u8) -> Self {
        Self(check.div_ceil(3))
    }

    fn bytes(self) -> u64 {
        match self.0 {
            0 => 0,
            class => 2 << class.min(5),
        }
    }
}

/// A block that is being decoded.
struct Block {
    lzma: Lzma2Stream,
    start: u64,
    /// After its header, where its compressed data begins.
    data: u64,
    compressed: Option<u64>,
    uncompressed: Option<u64>,
    produced: u64,
}

impl<R: BufRead> XzBlocks<R> {
    /// Starts at the header of a stream.
    pub(super) fn new(source: Source<R>) -> Self {
        Self { source, check: None, block: None, dictionary_bytes: 0 }
    }

    /// Starts at the header of a block, in a stream whose checks are as long as these bits say.
    pub(super) fn resume(source: Source<R>, bits: u8) -> Self {
        Self { check: Some(CheckSize(bits)), ..Self::new(source) }
    }

    fn stream_header(&mut self) -> Result<CheckSize, DecodeError> {
        if self.source.bytes()? != MAGIC {
            return Err(self.source.bad("no xz stream begins here"));
        }
        let flags: [u8; 2] = self.source.bytes()?;
        self.expect_crc32(crc32fast::hash(&flags), "the header of a stream")?;
        match flags {
            [0, check @ 0..=15] => Ok(CheckSize::of(check)),
            _ => Err(self.source.bad("an xz stream has unknown flags")),
        }
    }

    /// Section 3.1; the size byte was read.
    fn block_header(&mut self, size: u8, start: u64) -> Result<Block, DecodeError> {
        let mut header = vec![size; (usize::from(size) + 1) * HEADER_UNIT - 4];
        self.source.exact(&mut header[1..])?;
        self.expect_crc32(crc32fast::hash(&header), "the header of a block")?;
        let data = self.source.offset;
        let fields = BlockFields::read(&header[1..]).map_err(|reason| self.source.bad(reason))?;
        self.dictionary_bytes = self.dictionary_bytes.max(u64::from(fields.dictionary));
        let mut lzma = Lzma2Stream::new(fields.dictionary);
        lzma.set_filters(fields.filter.as_slice()).map_err(|error| self.source.bad(error.to_string()))?;
        let (compressed, uncompressed) = (fields.compressed, fields.uncompressed);
        Ok(Block { lzma, start, data, compressed, uncompressed, produced: 0 })
    }

    /// What comes after the LZMA2 data of a block.
    fn end_block(&mut self) -> Result<(), DecodeError> {
        let (Some(block), Some(check)) = (self.block.take(), self.check) else { return Ok(()) };
        let is_wrong = |said: Option<u64>, found: u64| said.is_some_and(|said| said != found);
        if is_wrong(block.compressed, self.source.offset - block.data)
            || is_wrong(block.uncompressed, block.produced)
        {
            return Err(self.source.bad("an xz block is not as long as its header says"));
        }
        while !(self.source.offset - block.start).is_multiple_of(4) {
            if self.source.byte()? != 0 {
                return Err(self.source.bad("wrong padding after an xz block"));
            }
        }
        self.source.skip(check.bytes())
    }

    /// Section 4, whose first byte was read, and section 2.1.2. What they say of the blocks is known by now.
    fn end_stream(&mut self, start: u64) -> Result<(), DecodeError> {
        let mut crc32 = crc32fast::Hasher::new();
        crc32.update(&[0]);
        let records = self.index_number(&mut crc32)?;
        for _ in 0..records.saturating_mul(2) {
            self.index_number(&mut crc32)?;
        }
        while !(self.source.offset - start).is_multiple_of(4) {
            crc32.update(&self.source.bytes::<1>()?);
        }
        self.expect_crc32(crc32.finalize(), "the index of a stream")?;
        let crc32 = u32::from_le_bytes(self.source.bytes()?);
        let footer: [u8; 6] = self.source.bytes()?;
        if crc32fast::hash(&footer) != crc32 || self.source.bytes()? != *b"YZ" {
            return Err(self.source.bad("an xz stream ends wrong"));
        }
        self.check = None;
        Ok(())
    }

    fn index_number(&mut self, crc32: &mut crc32fast::Hasher) -> Result<u64, DecodeError> {
        let mut bytes = Vec::new();
        loop {
            let byte = self.source.byte()?;
            bytes.push(byte);
            if byte & 0x80 == 0 {
                crc32.update(&bytes);
                return number(&mut &bytes[..])
                    .ok_or_else(|| self.source.bad("a wrong number in an xz index"));
            }
            if bytes.len() > 9 {
                return Err(self.source.bad("a wrong number in an xz index"));
            }
        }
    }

    fn expect_crc32(&mut self, found: u32, of: &str) -> Result<(), DecodeError> {
        match u32::from_le_bytes(self.source.bytes()?) == found {
            true => Ok(()),
            false => Err(self.source.bad(format!("{of} has a wrong CRC-32"))),
        }
    }
}

/// A number of section 1.2, taken off the front of the bytes.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * shift);
        if byte & 0x80 == 0 {
            // A zero at the end would be a second way to write the same number.
            return (*byte != 0 || shift == 0).then_some(value);
        }
    }
    None
}

/// What a block's header says.
struct BlockFields {
    compressed: Option<u64>,
    uncompressed: Option<u64>,
    dictionary: u32,
    filter: Option<FilterConfig>,
}

impl BlockFields {
    /// Reads the fields behind the size byte.
    fn read(header: &[u8]) -> Result<Self, String> {
        const MALFORMED: &str = "the header of an xz block is malformed";
        let (flags, mut rest) = header.split_first().ok_or(MALFORMED)?;
        if flags & 0x3c != 0 {
            return Err("an xz block has unknown flags".to_owned());
        }
        let mut size = |is_there: bool| match is_there {
            true => number(&mut rest).map(Some).ok_or(MALFORMED),
            false => Ok(None),
        };
        let compressed = size(flags & 0x40 != 0)?;
        let uncompressed = size(flags & 0x80 != 0)?;
        let mut filters = Vec::new();
        for _ in 0..=flags & 3 {
            let id = number(&mut rest).ok_or(MALFORMED)?;
            let len = number(&mut rest).and_then(|len| usize::try_from(len).ok()).ok_or(MALFORMED)?;
            let (properties, after) = rest.split_at_checked(len).ok_or(MALFORMED)?;
            rest = after;
            filters.push((id, properties));
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(MALFORMED.to_owned());
        }
        let Some((0x21, [dictionary])) = filters.pop() else {
            return Err("an xz block that is not LZMA2".to_owned());
        };
        let filter = match &filters[..] {
            [] => None,
            [(id, properties)] => Some(filter(*id, properties)?),
            _ => return Err("more than one filter before LZMA2 is not supported".to_owned()),
        };
        Ok(Self { compressed, uncompressed, dictionary: dictionary_bytes(*dictionary)?, filter })
    }
}

/// Section 5.3.1.
fn dictionary_bytes(code: u8) -> Result<u32, String> {
    let bytes = match code {
        0..40 => (2 | u64::from(code & 1)) << (code / 2 + 11),
        40 => u64::from(u32::MAX),
        _ => return Err("an xz block has an unknown dictionary size".to_owned()),
    };
    match u32::try_from(bytes) {
        Ok(bytes @ 0..=DICTIONARY_BYTES_MAX) => Ok(bytes),
        _ => Err(format!(
            "the xz block needs a dictionary of {} MiB, at most {} MiB are accepted: compress with xz -9 or less",
            bytes.div_ceil(1 << 20),
            DICTIONARY_BYTES_MAX >> 20
        )),
    }
}

/// Sections 5.3.2 and 5.3.3.
fn filter(id: u64, properties: &[u8]) -> Result<FilterConfig, String> {
    let filter_type = match FilterType::try_from(id) {
        Ok(filter_type) if filter_type != FilterType::Lzma2 => filter_type,
        _ => return Err(format!("xz filter {id:#x} is not supported")),
    };
    let property = match (filter_type, properties) {
        (FilterType::Delta, [distance]) => u32::from(*distance) + 1,
        (FilterType::Delta, _) => return Err("an xz filter has wrong properties".to_owned()),
        (_, []) => 0,
        (_, properties) => {
            let start = properties.try_into().map_err(|_| "an xz filter has wrong properties")?;
            u32::from_le_bytes(start)
        }
    };
    Ok(FilterConfig { filter_type, property })
}

impl<R: BufRead + Send> Pieces for XzBlocks<R> {
    fn next(&mut self) -> Result<Option<PieceStart>, DecodeError> {
        loop {
            let check = match self.check {
                Some(check) => check,
                None if !self.source.skip_padding()? => return Ok(None),
                None => self.stream_header()?,
            };
            self.check = Some(check);
            let start = self.source.offset;
            match self.source.byte()? {
                0 => self.end_stream(start)?,
                size => {
                    self.block = Some(self.block_header(size, start)?);
                    return Ok(Some(PieceStart { blob_offset: start, bits: check.0 }));
                }
            }
        }
    }

    fn decode(&mut self, output: &mut [u8]) -> Result<usize, DecodeError> {
        while let Some(block) = &mut self.block {
            let input = self.source.reader.fill_buf()?;
            let action = if input.is_empty() { Action::Finish } else { Action::Run };
            let step = block.lzma.process(input, output, action);
            let step = match step {
                Err(_) if action == Action::Finish => return Err(self.source.cut_off()),
                step => step.map_err(|error| self.source.bad(error.to_string()))?,
            };
            block.produced += step.bytes_produced as u64;
            self.source.consume(step.bytes_consumed);
            if step.status == Status::StreamEnd {
                self.end_block()?;
            }
            if step.bytes_produced > 0 {
                return Ok(step.bytes_produced);
            }
            if self.block.is_some() && (action == Action::Finish || step.bytes_consumed == 0) {
                return Err(self.source.cut_off());
            }
        }
        Ok(0)
    }

    fn memory_bytes(&self) -> u64 {
        self.dictionary_bytes + DECODER_BYTES
    }
}
