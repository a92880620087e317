//! Files that end with what their content hashes to: copies of ours, which must not rot unseen.
//!
//! ```text
//! content | blake3 of each PIECE_BYTES of it | magic, length of the content, blake3 of the digests and that length
//! ```

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::{Mutex, TryLockError};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::files;

/// What has a digest of its own.
const PIECE_BYTES: usize = 128 << 10;
const DIGEST_BYTES: usize = 32;
/// The first bytes of the last part.
const MAGIC: [u8; 8] = *b"layersea";
/// Of the last part.
const FOOTER_BYTES: usize = 8 + 8 + DIGEST_BYTES;
/// Digests of more than 1 TiB are not looked for.
const CONTENT_BYTES_MAX: u64 = 1 << 40;

/// Makes the seal of content that is being written.
#[derive(Debug, Default)]
pub struct Sealer {
    /// Boxed: it is large.
    piece: Box<blake3::Hasher>,
    digests: Vec<u8>,
    bytes: u64,
}

impl Sealer {
    /// More of the content.
    pub fn update(&mut self, mut content: &[u8]) {
        while !content.is_empty() {
            let filled = usize::try_from(self.bytes % PIECE_BYTES as u64).unwrap_or(0);
            let (now, rest) = content.split_at(content.len().min(PIECE_BYTES - filled));
            self.piece.update(now);
            self.bytes += now.len() as u64;
            if filled + now.len() == PIECE_BYTES {
                self.end_piece();
            }
            content = rest;
        }
    }

    fn end_piece(&mut self) {
        self.digests.extend_from_slice(self.piece.finalize().as_bytes());
        self.piece.reset();
    }

    /// What belongs behind the content.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        if !self.bytes.is_multiple_of(PIECE_BYTES as u64) {
            self.end_piece();
        }
        let own = digest_of(&self.digests, self.bytes);
        let mut seal = self.digests;
        seal.extend_from_slice(&MAGIC);
        seal.extend_from_slice(&self.bytes.to_le_bytes());
        seal.extend_from_slice(&own);
        seal
    }
}

fn digest_of(digests: &[u8], bytes: u64) -> [u8; DIGEST_BYTES] {
    *blake3::Hasher::new().update(digests).update(&bytes.to_le_bytes()).finalize().as_bytes()
}

/// A sealed file, open: what is read of it is what was written.
#[derive(Debug)]
pub struct SealedFile {
    file: File,
    digests: Vec<u8>,
    bytes: u64,
    /// Where it lies: held open, because a supervisor in its namespaces does not find it by path.
    dir: OwnedFd,
    name: std::ffi::OsString,
    /// The piece that was read last, for readers of less.
    last: Mutex<Option<(u64, Vec<u8>)>>,
}

impl SealedFile {
    /// Takes the open file that has this path; `None` when it has no seal, or a damaged one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(file: File, path: &Path) -> io::Result<Option<Self>> {
        let len = file.metadata()?.len();
        let Some(footer_at) = len.checked_sub(FOOTER_BYTES as u64) else { return Ok(None) };
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, footer_at)?;
        let (start, own) = footer.split_at(16);
        let (magic, bytes) = start.split_at(8);
        let bytes = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        let digest_bytes = bytes.div_ceil(PIECE_BYTES as u64) * DIGEST_BYTES as u64;
        if magic != MAGIC || bytes > CONTENT_BYTES_MAX || bytes + digest_bytes != footer_at {
            return Ok(None);
        }
        let mut digests = vec![0; usize::try_from(digest_bytes).map_err(io::Error::other)?];
        file.read_exact_at(&mut digests, bytes)?;
        if digest_of(&digests, bytes) != own {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = files::openat(CWD, path.parent().unwrap_or(Path::new("/")), flags, Mode::empty())?;
        let name = path.file_name().unwrap_or_default().to_owned();
        Ok(Some(Self { file, digests, bytes, dir, name, last: Mutex::default() }))
    }

    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Length of the content.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `buffer` from `at`, all of which lies in the content.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written: then the file is removed, for it is to be made again.
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let (mut rest, mut at) = (buffer, at);
        while !rest.is_empty() {
            let number = at / PIECE_BYTES as u64;
            let skip = usize::try_from(at % PIECE_BYTES as u64).unwrap_or(0);
            let count = rest.len().min(PIECE_BYTES - skip);
            let (now, later) = rest.split_at_mut(count);
            self.copy_of_piece(number, skip, now)?;
            (rest, at) = (later, at + count as u64);
        }
        Ok(())
    }

    fn copy_of_piece(&self, number: u64, skip: usize, to: &mut [u8]) -> io::Result<()> {
        let mut own = None;
        let mut last = match self.last.try_lock() {
            Ok(last) => Some(last),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let slot = last.as_deref_mut().unwrap_or(&mut own);
        if slot.as_ref().is_none_or(|(of, _)| *of != number) {
            let buffer = slot.take().map(|(_, buffer)| buffer).unwrap_or_default();
            *slot = Some((number, self.piece(number, buffer)?));
        }
        let bytes = slot.as_ref().and_then(|(_, bytes)| bytes.get(skip..skip + to.len()));
        to.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn piece(&self, number: u64, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        let start = number * PIECE_BYTES as u64;
        let len = self.bytes.saturating_sub(start).min(PIECE_BYTES as u64);
        buffer.resize(usize::try_from(len).unwrap_or(0), 0);
        let read = self.file.read_exact_at(&mut buffer, start);
        match read {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
        let digest_at = usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(DIGEST_BYTES);
        let expected = self.digests.get(digest_at..digest_at.saturating_add(DIGEST_BYTES));
        if read.is_ok() && expected.is_some_and(|expected| blake3::hash(&buffer).as_bytes() == expected) {
            return Ok(buffer);
        }
        let name = String::from_utf8_lossy(self.name.as_bytes()).into_owned();
        let done = match self.remove() {
            Ok(()) => "; it was removed and is made again the next time".to_owned(),
            Err(error) => format!("; remove it ({error})"),
        };
        let what = format!("the decompressed copy in the store ({name}) is damaged at offset {start}{done}");
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }

    /// Removes it, if its name still leads to it.
    ///
    /// # Errors
    /// What [`files::unlink_same`] says.
    pub fn remove(&self) -> io::Result<()> {
        let own = self.file.metadata()?;
        match files::unlink_same(&self.dir, &self.name, (own.dev(), own.ino())) {
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(path: &Path, content: &[u8]) -> SealedFile {
        let mut sealer = Sealer::default();
        content.chunks(70_001).for_each(|chunk| sealer.update(chunk));
        std::fs::write(path, [content, &sealer.finish()].concat()).unwrap();
        open(path).unwrap()
    }

    fn open(path: &Path) -> Option<SealedFile> {
        SealedFile::of(File::open(path).unwrap(), path).unwrap()
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy");
        for len in [0, 1, PIECE_BYTES, PIECE_BYTES * 2 + 77] {
            let content: Vec<u8> = (0..len).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
            let copy = sealed(&path, &content);
            assert_eq!(copy.bytes(), len as u64);
            for (at, count) in [(0, len), (len / 2, len / 4), (len - len.min(3), len.min(3))] {
                let mut bytes = vec![0; count];
                copy.read_exact_at(&mut bytes, at as u64).unwrap();
                assert!(bytes == content[at..at + count]);
            }
            let whole = std::fs::read(&path).unwrap();
            let places = (0..whole.len()).step_by(9973).chain(whole.len() - FOOTER_BYTES..whole.len());
            for place in places.chain(len..whole.len()) {
                let mut bad = whole.clone();
                bad[place] ^= 4;
                std::fs::write(&path, &bad).unwrap();
                let Some(copy) = open(&path) else { continue };
                let mut bytes = vec![0; len];
                let error = copy.read_exact_at(&mut bytes, 0).unwrap_err();
                assert!(error.to_string().contains("made again"), "{error}");
                assert!(!path.exists(), "{len}: {place}");
            }
            for cut in [0, len / 2, whole.len() - 1] {
                std::fs::write(&path, &whole[..cut]).unwrap();
                assert!(open(&path).is_none());
            }
        }
    }

    #[test]
    fn another_file_of_that_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy");
        let copy = sealed(&path, b"content");
        std::fs::remove_file(&path).unwrap();
        drop(sealed(&path, b"another"));
        copy.remove().unwrap();
        assert!(path.exists());
    }
}
