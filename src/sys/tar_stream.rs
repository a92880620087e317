//! A tar stream, entry by entry, as docker and tar(1) write them: ustar, PAX and GNU headers, sparse files of either.

use std::io::{self, Read};

use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, PaxExtension, PaxExtensions};

use crate::model::Timestamp;
use crate::model::limits::{PATH_BYTES_MAX, PAX_BYTES_MAX};

/// A header that needs more than this is refused by the parser before.
const HEADER_BYTES_MAX: usize = 4 << 20;
const BLOCK_BYTES: u64 = 512;
/// Where the time of last change is in a header.
const MTIME: std::ops::Range<usize> = 136..148;

/// Name and value of an extended attribute.
type Xattr = (Box<[u8]>, Box<[u8]>);

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    Regular,
    /// One more name of another entry.
    Link,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A device.
    Device,
}

/// One entry; its content comes from the stream.
#[derive(Debug)]
pub struct Entry {
    /// As it is written there.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Of links.
    pub target: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Whose it is.
    pub uid: u32,
    /// Of which group.
    pub gid: u32,
    /// When it was changed.
    pub mtime: Timestamp,
    /// Its extended attributes.
    pub xattrs: Vec<Xattr>,
    /// Bytes of the file.
    pub size: u64,
    /// Where in the file the bytes of the stream belong, and how many.
    pub data: Vec<(u64, u64)>,
}

/// The stream.
#[derive(Debug)]
pub struct TarStream<R> {
    reader: R,
    parser: Parser,
    /// Read, but not understood yet.
    buffer: Vec<u8>,
    /// Content of the last entry, with its padding, that nobody has read.
    pending: u64,
}

impl<R: Read> TarStream<R> {
    /// Nothing is read yet.
    pub fn new(reader: R) -> Self {
        let limits = Limits {
            max_metadata_size: u32::try_from(PAX_BYTES_MAX).unwrap_or(u32::MAX),
            max_path_len: u32::try_from(PATH_BYTES_MAX).ok(),
            ..Limits::default()
        };
        let mut parser = Parser::new(limits);
        parser.set_allow_empty_path(true);
        // Times before 1970 are such errors to it; what else could be one is looked at here.
        parser.set_ignore_pax_errors(true);
        Self { reader, parser, buffer: Vec::new(), pending: 0 }
    }

    /// The next entry; `None` at the end, up to which everything has been read then.
    ///
    /// # Errors
    /// `InvalidData` and `UnexpectedEof` for what is no whole tar; else what the reader says.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        self.skip()?;
        loop {
            let (consumed, found) = match self.parser.parse(&self.buffer).map_err(damaged)? {
                ParseEvent::NeedData { min_bytes } => {
                    if !self.fill(min_bytes)? {
                        return Ok(None);
                    }
                    continue;
                }
                ParseEvent::End { .. } => {
                    // Who writes must not find the reader gone before the last padding.
                    io::copy(&mut self.reader, &mut io::sink())?;
                    return Ok(None);
                }
                ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
                ParseEvent::Entry { consumed, entry } => {
                    self.pending = padded(&entry)?;
                    let data = vec![(0, entry.size)];
                    (consumed, understood(&entry, entry.size, data)?)
                }
                ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                    self.pending = padded(&entry)?;
                    let data = sparse_map.iter().map(|part| (part.offset, part.length)).collect();
                    let whole = Some(understood(&entry, real_size, data)?);
                    (consumed, whole.flatten().map(|entry| Entry { kind: Kind::Regular, ..entry }))
                }
            };
            self.buffer.drain(..consumed);
            match found {
                Some(entry) => return Ok(Some(entry)),
                None => self.skip()?,
            }
        }
    }

    /// Reads content of the last entry, all that is asked for.
    ///
    /// # Errors
    /// As [`Self::next_entry`].
    pub fn content(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let from_buffer = bytes.len().min(self.buffer.len());
        bytes[..from_buffer].copy_from_slice(&self.buffer[..from_buffer]);
        self.buffer.drain(..from_buffer);
        self.reader.read_exact(&mut bytes[from_buffer..])?;
        self.pending = self.pending.checked_sub(bytes.len() as u64).ok_or_else(|| damaged("sizes differ"))?;
        Ok(())
    }

    fn skip(&mut self) -> io::Result<()> {
        let from_buffer = usize::try_from(self.pending).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.drain(..from_buffer);
        let rest = self.pending - from_buffer as u64;
        self.pending = 0;
        match io::copy(&mut (&mut self.reader).take(rest), &mut io::sink())? == rest {
            true => Ok(()),
            false => Err(cut_off()),
        }
    }

    /// Has at least so many bytes ready; `false` at the end of the stream.
    fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        if bytes > HEADER_BYTES_MAX {
            return Err(damaged("a header is too large"));
        }
        let before = self.buffer.len();
        let missing = bytes.saturating_sub(before).max(1);
        let count = (&mut self.reader).take(missing as u64).read_to_end(&mut self.buffer)?;
        match (count, before) {
            (0, _) if self.buffer.iter().all(|byte| *byte == 0) => Ok(false),
            (count, _) if count < missing => Err(cut_off()),
            _ => Ok(true),
        }
    }
}

/// What an entry is; `None` of what other tars may have besides.
fn understood(entry: &ParsedEntry<'_>, size: u64, data: Vec<(u64, u64)>) -> io::Result<Option<Entry>> {
    let kind = match entry.entry_type {
        EntryType::Regular | EntryType::Continuous if entry.path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => Kind::Regular,
        EntryType::Link => Kind::Link,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char | EntryType::Block => Kind::Device,
        _ => {
            tracing::warn!("{}: an entry of an unknown kind; left out", entry.path.escape_ascii());
            return Ok(None);
        }
    };
    let mut numbers = records(entry).filter(|record| matches!(record.key_bytes(), b"uid" | b"gid" | b"size"));
    let is_number = |value: &[u8]| std::str::from_utf8(value).is_ok_and(|text| text.parse::<u64>().is_ok());
    if !numbers.all(|record| is_number(record.value_bytes())) {
        return Err(damaged("a PAX record is no number"));
    }
    let mut reached = 0;
    for (offset, length) in &data {
        let end = offset.checked_add(*length).filter(|end| *offset >= reached && *end <= size);
        reached = end.ok_or_else(|| damaged("parts of a sparse file lie outside of it"))?;
    }
    let id = |id: u64| u32::try_from(id).map_err(|_| damaged("an owner is no number of 32 bits"));
    let xattrs = entry.xattrs.iter().map(|(name, value)| (name[..].into(), value[..].into()));
    Ok(Some(Entry {
        path: entry.path.to_vec(),
        kind,
        target: entry.link_target.as_deref().unwrap_or_default().to_vec(),
        mode: entry.mode & 0o7777,
        uid: id(entry.uid)?,
        gid: id(entry.gid)?,
        mtime: mtime(entry),
        xattrs: xattrs.collect(),
        size,
        data,
    }))
}

/// To the nanosecond, where the header says so.
fn mtime(entry: &ParsedEntry<'_>) -> Timestamp {
    let exact = records(entry).filter(|record| record.key_bytes() == b"mtime").last();
    let exact = exact.and_then(|record| decimal(std::str::from_utf8(record.value_bytes()).ok()?));
    exact.unwrap_or_else(|| {
        let field = &entry.header.as_bytes()[MTIME];
        let secs = match field.last_chunk() {
            // GNU tar writes what has no octal digits as a number of 96 bits.
            Some(low) if field[0] & 0x80 != 0 => i64::from_be_bytes(*low),
            _ => i64::try_from(entry.mtime).unwrap_or(i64::MAX),
        };
        Timestamp { secs, nanos: 0 }
    })
}

fn records<'a>(entry: &ParsedEntry<'a>) -> impl Iterator<Item = PaxExtension<'a>> {
    entry.pax.map(PaxExtensions::new).into_iter().flatten().filter_map(Result::ok)
}

fn decimal(text: &str) -> Option<Timestamp> {
    let (secs, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let (secs, nanos) = (secs.parse::<i64>().ok()?, digits.parse::<u32>().ok()?);
    if !text.starts_with('-') || nanos == 0 {
        return Some(Timestamp { secs, nanos });
    }
    // A time before 1970 counts its fraction downwards.
    Some(Timestamp { secs: secs.checked_sub(1)?, nanos: 1_000_000_000 - nanos })
}

fn padded(entry: &ParsedEntry<'_>) -> io::Result<u64> {
    entry.size.checked_next_multiple_of(BLOCK_BYTES).ok_or_else(|| damaged("a size is too large"))
}

fn damaged(reason: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the tar stream: {reason}"))
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the tar stream ends in the middle")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970() {
        assert_eq!(decimal("1.5"), Some(Timestamp { secs: 1, nanos: 500_000_000 }));
        assert_eq!(decimal("-1.5"), Some(Timestamp { secs: -2, nanos: 500_000_000 }));
        assert_eq!(decimal("-0.25"), Some(Timestamp { secs: -1, nanos: 750_000_000 }));
        assert_eq!(decimal("7"), Some(Timestamp { secs: 7, nanos: 0 }));
        assert_eq!(decimal("x"), None);
    }

    #[test]
    fn streams_that_end_early() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(700);
        header.set_mode(0o644);
        tar.append_data(&mut header, "a/file", &[7; 700][..]).unwrap();
        let whole = tar.into_inner().unwrap();
        let read = |length: usize| -> io::Result<usize> {
            let mut stream = TarStream::new(&whole[..length]);
            let mut entries = 0;
            while let Some(entry) = stream.next_entry()? {
                assert_eq!((&*entry.path, entry.kind, entry.size), (&b"a/file"[..], Kind::Regular, 700));
                let mut content = [0; 700];
                stream.content(&mut content)?;
                assert_eq!(content, [7; 700]);
                entries += 1;
            }
            Ok(entries)
        };
        assert_eq!(read(whole.len()).unwrap(), 1);
        assert_eq!(read(1536).unwrap(), 1, "without an end");
        assert_eq!(read(0).unwrap(), 0);
        for length in [1, 511, 512, 1000, 1211, 1300] {
            assert_eq!(read(length).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{length}");
        }
    }
}
