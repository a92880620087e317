//! An archive that comes as a stream, perhaps compressed as a whole: each file in it becomes one in the store's directory of blobs,
//! where it stays if it is one.

use std::cell::Cell;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use super::super::archive::{Archive, ENTRIES_MAX, Member, normalise};
use super::super::docker_archive::named_digest;
use super::super::import::bytes_max;
use super::super::{Decompressing, ImageError};
use super::stock::Stock;
use crate::index::{Encoding, decompress_stream};
use crate::sys::tar_stream::{Entry, Kind, TarStream};

/// Pieces of 256 KiB on their way from the decoder.
const PIECES_AHEAD: usize = 4;

/// Who is told how much of how many bytes has been read.
type Told<'a> = Option<(&'a dyn Decompressing, u64)>;

/// Takes all that comes into stock. `place` is what messages call it.
pub(super) fn archive(
    stock: &mut Stock<'_>,
    source: &mut (dyn Read + Send),
    place: &Path,
    told: Told<'_>,
) -> Result<Archive, ImageError> {
    let mut start = Vec::new();
    let first = (&mut *source).take(Encoding::SNIFF_BYTES as u64).read_to_end(&mut start);
    if first.map_err(ImageError::io("read", place))? == 0 {
        return Err(ImageError::NotAnImage {
            path: place.to_owned(),
            reason: "the file is empty".to_owned(),
        });
    }
    let encoding = Encoding::of(&start);
    let mut source = start.as_slice().chain(source);
    match encoding {
        Encoding::Tar => collect(stock, &mut source, place),
        encoding => collect_decoded(stock, &mut source, encoding, place, told),
    }
}

fn collect_decoded(
    stock: &mut Stock<'_>,
    source: &mut (dyn Read + Send),
    encoding: Encoding,
    place: &Path,
    told: Told<'_>,
) -> Result<Archive, ImageError> {
    let read = AtomicU64::new(0);
    let progress = |done: u64| {
        read.store(done, Ordering::Relaxed);
        if let Some((told, total)) = told {
            told.decompressed(done, total);
        }
    };
    let (send, pieces) = sync_channel(PIECES_AHEAD);
    thread::scope(|scope| {
        let decoder = scope.spawn(|| {
            let send = send;
            let (mut bytes, mut too_much) = (0_u64, None);
            let mut take = |piece: &[u8]| {
                bytes += piece.len() as u64;
                let limit = bytes_max(read.load(Ordering::Relaxed));
                too_much = (bytes > limit).then_some((bytes, limit));
                match too_much.is_none() && send.send(piece.to_vec()).is_ok() {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            };
            let decoded = decompress_stream(source, encoding, &mut take, &progress);
            (decoded, too_much)
        });
        let collected = collect(stock, &mut Pieces { pieces, piece: Vec::new(), used: 0 }, place);
        // Before the archive's word: to it, the bytes only end too early.
        let panicked = |_| ImageError::io("decompress", place)(io::Error::other("a thread panicked"));
        let (decoded, too_much) = decoder.join().map_err(panicked)?;
        if let Some((count, limit)) = too_much {
            let what = format!("bytes that come out of {}", encoding.name());
            return Err(ImageError::Limit { path: place.to_owned(), what, count, limit });
        }
        decoded.map_err(|error| ImageError::undecoded(place, encoding, error))?;
        collected
    })
}

fn collect(stock: &mut Stock<'_>, source: &mut dyn Read, place: &Path) -> Result<Archive, ImageError> {
    let read = Cell::new(0);
    let mut archive = Archive::of_none(place);
    let mut tar = TarStream::new(Counted { source, read: &read });
    let mut entries = 0;
    let unread = |archive: &Archive, entries: u64, error: io::Error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            // What does not even begin like one is no archive.
            let offset = if entries == 0 { 0 } else { read.get() };
            archive.bad(offset, &error.to_string())
        }
        _ => ImageError::io("read", place)(error),
    };
    while let Some(entry) = tar.next_entry().map_err(|error| unread(&archive, entries, error))? {
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(archive.too_much("entries in the archive", entries, ENTRIES_MAX));
        }
        let name = normalise(&entry.path);
        let member = match entry.kind {
            Kind::Regular if is_sparse(&entry) => Member::Sparse,
            Kind::Regular => {
                let mut content =
                    |bytes: &mut [u8]| tar.content(bytes).map_err(|error| unread(&archive, entries, error));
                Member::File(stock.receive(place, named_digest(&name), entry.size, &mut content)?)
            }
            Kind::Link => Member::hard_link(&entry.target),
            Kind::Symlink => Member::symlink(&name, &entry.target),
            Kind::Directory | Kind::Fifo | Kind::Device => continue,
        };
        archive.keep(name, member)?;
    }
    Ok(archive)
}

fn is_sparse(entry: &Entry) -> bool {
    entry.data != [(0, entry.size)]
}

/// Counts what is read.
struct Counted<'a> {
    source: &'a mut dyn Read,
    read: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.read.set(self.read.get() + count as u64);
        Ok(count)
    }
}

/// What comes from the decoder, as a reader.
struct Pieces {
    pieces: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    used: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.used == self.piece.len() {
            match self.pieces.recv() {
                Ok(piece) => (self.piece, self.used) = (piece, 0),
                Err(_) => return Ok(0),
            }
        }
        let count = (self.piece.len() - self.used).min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece[self.used..self.used + count]);
        self.used += count;
        Ok(count)
    }
}
