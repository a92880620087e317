//! A stretch of an open file: a blob on its own or inside an archive.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::arrival::Arrival;
use super::sealed::SealedFile;
use crate::model::Digest;

/// Read at once when all of it is hashed.
const PIECE_BYTES: usize = 1 << 20;

/// Read-only bytes `[offset, offset + len)` of a file. Reads are by pread(2), so clones share nothing but the descriptor,
/// and a file that shrinks gives an error, never SIGBUS.
#[derive(Clone, Debug)]
pub struct FileRange {
    file: Content,
    path: Arc<Path>,
    offset: u64,
    len: u64,
}

#[derive(Clone, Debug)]
enum Content {
    /// The file at [`FileRange::path`].
    Own(Arc<File>),
    /// One that stands in for it.
    StandIn(Arc<SealedFile>),
    /// A file that is being written.
    Growing(Arc<File>, Arc<Growth>),
    /// A file with holes, which somebody fills where it is read.
    Arriving(Arc<dyn Arrival>),
}

/// How far a file is that is being written, for those who read it meanwhile ([`FileRange::growing`]).
#[derive(Debug)]
pub struct Growth {
    grown: Mutex<Grown>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct Grown {
    bytes: u64,
    is_ended: bool,
}

impl Growth {
    /// Of a file that has these bytes.
    #[must_use]
    pub fn of(bytes: u64) -> Self {
        Self { grown: Mutex::new(Grown { bytes, is_ended: false }), changed: Condvar::new() }
    }

    /// It has so many bytes now.
    pub fn reaches(&self, bytes: u64) {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner).bytes = bytes;
        self.changed.notify_all();
    }

    /// No more bytes will come.
    pub fn end(&self) {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner).is_ended = true;
        self.changed.notify_all();
    }

    /// Waits until the file has so many bytes; false when it never will.
    fn wait(&self, bytes: u64) -> bool {
        let grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        let is_short = |grown: &mut Grown| grown.bytes < bytes && !grown.is_ended;
        let grown = self.changed.wait_while(grown, is_short).unwrap_or_else(PoisonError::into_inner);
        grown.bytes >= bytes
    }
}

impl Content {
    fn file(&self) -> &File {
        match self {
            Self::Own(file) | Self::Growing(file, _) => file,
            Self::StandIn(file) => file.file(),
            Self::Arriving(arrival) => arrival.file(),
        }
    }
}

impl FileRange {
    /// The whole of the file at `path`.
    ///
    /// # Errors
    /// What open(2) and fstat(2) say.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file: Content::Own(Arc::new(file)), path: path.into(), offset: 0, len })
    }

    /// The content of a file that stands in for the one at `path`, which messages name: its content in another form.
    #[must_use]
    pub fn stand_in(file: SealedFile, path: &Path) -> Self {
        let len = file.bytes();
        Self { file: Content::StandIn(Arc::new(file)), path: path.into(), offset: 0, len }
    }

    /// A file that is being written and will have `len` bytes: who reads what is not there yet waits for it.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn growing(path: &Path, len: u64, growth: &Arc<Growth>) -> io::Result<Self> {
        let file = Content::Growing(Arc::new(File::open(path)?), Arc::clone(growth));
        Ok(Self { file, path: path.into(), offset: 0, len })
    }

    /// A file of which somebody brings what is read: who reads what is not there yet waits for it.
    #[must_use]
    pub fn arriving(path: &Path, len: u64, arrival: Arc<dyn Arrival>) -> Self {
        Self { file: Content::Arriving(arrival), path: path.into(), offset: 0, len }
    }

    /// Whether somebody brings what is read.
    #[must_use]
    pub fn is_arriving(&self) -> bool {
        matches!(self.file, Content::Arriving(_))
    }

    /// Of a file that arrives: waits until all of these bytes are there. Who knows how much will be read waits once.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn await_bytes(&self, range: Range<u64>) -> io::Result<()> {
        self.arrival(range).map_or(Ok(()), |(arrival, range)| arrival.wait(range))
    }

    /// Of a file that arrives: nobody needs any more of it, and whoever waits is told so.
    pub fn give_up(&self) {
        if let Content::Arriving(arrival) = &self.file {
            arrival.give_up();
        }
    }

    /// Of a file that arrives: these bytes may be read soon.
    pub fn announce(&self, range: Range<u64>) {
        if let Some((arrival, range)) = self.arrival(range) {
            arrival.announce(range);
        }
    }

    /// Of a file that arrives: these bytes turned out wrong. Whether they have been fetched anew.
    pub fn doubt(&self, range: Range<u64>) -> bool {
        let Some((arrival, range)) = self.arrival(range) else { return false };
        let doubted = arrival.doubt(range);
        if let Err(error) = &doubted {
            tracing::warn!("{}: {error}", self.path.display());
        }
        doubted.is_ok()
    }

    /// Who brings the bytes, and where they lie in the file.
    fn arrival(&self, range: Range<u64>) -> Option<(&dyn Arrival, Range<u64>)> {
        let Content::Arriving(arrival) = &self.file else { return None };
        let (start, end) = (range.start.min(self.len), range.end.min(self.len));
        (start < end).then(|| (arrival.as_ref(), self.offset + start..self.offset + end))
    }

    /// Whether another file than that at [`Self::path`] is read: then [`Self::offset`] is not a place in that.
    #[must_use]
    pub fn is_stand_in(&self) -> bool {
        matches!(self.file, Content::StandIn(_))
    }

    /// What fstat(2) says of the file.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.file().metadata()
    }

    /// A part of it; `None` when it does not lie inside.
    #[must_use]
    pub fn slice(&self, offset: u64, len: u64) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| Self { offset: self.offset + offset, len, ..self.clone() })
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file that it lies in, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where in that file it begins, for messages.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Fills `buffer` from `position`; fewer bytes only at the end of the range.
    ///
    /// # Errors
    /// What pread(2) says; `UnexpectedEof` when the file became shorter than the range, `InvalidData` when what stands in
    /// for it was damaged.
    pub fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.len.saturating_sub(position);
        let want = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        let (buffer, at) = (&mut buffer[..want], self.offset.saturating_add(position));
        let read = match &self.file {
            Content::Own(file) => file.read_exact_at(buffer, at),
            Content::StandIn(file) => file.read_exact_at(buffer, at),
            Content::Growing(file, growth) => {
                if !growth.wait(at.saturating_add(buffer.len() as u64)) {
                    return Err(io::Error::other(format!(
                        "{}: it was not written to its end",
                        self.path.display()
                    )));
                }
                file.read_exact_at(buffer, at)
            }
            Content::Arriving(_) if want == 0 => Ok(()),
            Content::Arriving(arrival) => {
                arrival.wait(at..at.saturating_add(want as u64))?;
                arrival.file().read_exact_at(buffer, at)
            }
        };
        match read {
            Ok(()) => Ok(want),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{}: the file is shorter than when it was opened", self.path.display()),
            )),
            Err(error) => Err(error),
        }
    }

    /// A reader over the range, from its start.
    #[must_use]
    pub fn reader(&self) -> RangeReader {
        RangeReader { range: self.clone(), position: 0 }
    }

    /// The sha256 of all of it.
    ///
    /// # Errors
    /// What [`Self::read_at`] says.
    pub fn digest(&self) -> io::Result<Digest> {
        let mut sha256 = Sha256::new();
        let mut buffer = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while let count @ 1.. = self.read_at(offset, &mut buffer)? {
            sha256.update(&buffer[..count]);
            offset += count as u64;
        }
        Ok(Digest::from_bytes(sha256.finalize().into()))
    }

    /// The path as an owned value.
    #[must_use]
    pub fn to_path_buf(&self) -> PathBuf {
        self.path.to_path_buf()
    }
}

/// Sequential [`io::Read`] over a [`FileRange`].
#[derive(Debug)]
pub struct RangeReader {
    range: FileRange,
    position: u64,
}

impl io::Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.range.read_at(self.position, buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_a_growing_file_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"first").unwrap();
        let growth = Arc::new(Growth::of(5));
        let range = FileRange::growing(&path, 20, &growth).unwrap();
        let mut buffer = [0; 5];
        assert_eq!((range.read_at(0, &mut buffer).unwrap(), &buffer), (5, b"first"));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut buffer = [0; 10];
                range.read_at(2, &mut buffer).map(|count| (count, buffer))
            });
            std::fs::write(&path, b"firstsecond-").unwrap();
            growth.reaches(12);
            assert_eq!(reader.join().unwrap().unwrap(), (10, *b"rstsecond-"));
            let reader = scope.spawn(|| range.read_at(10, &mut [0; 4]));
            growth.end();
            assert!(reader.join().unwrap().unwrap_err().to_string().contains("not written to its end"));
        });
        assert_eq!(range.read_at(10, &mut [0; 2]).unwrap(), 2);
        assert!(range.read_at(10, &mut [0; 3]).is_err());
    }
}
