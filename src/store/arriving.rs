//! Blobs that arrive in pieces, in any order: what is mounted before it is here.
//!
//! `arriving/<hex>-<n>` is a file as long as the blob, with holes; `arriving/<hex>-<n>.map` says which pieces are there. One
//! process writes to a pair, and holds the lock on its map; another one that wants the same blob at the same time takes the
//! next `n`. What a process left is taken up by the next, unless the machine was started anew since: nothing is flushed
//! before the blob is whole.
//!
//! The map: [`MAGIC`], the boot's number and the blob's length (little-endian, 8 bytes each), then a byte for each piece.

use std::fs::{DirBuilder, DirEntry, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Store, StoreError, gc};
use crate::model::Digest;
use crate::sys::atomic;
use crate::sys::boot;
use crate::sys::file_range::FileRange;
use crate::sys::lock::{self, FileLock};

/// A blob arrives in such pieces; the last one may be shorter.
pub const PIECE_BYTES: u64 = 64 << 10;
/// How the map begins.
const MAGIC: [u8; 8] = *b"layerarr";
/// Where its pieces begin.
const HEADER_BYTES: u64 = 24;
/// Processes that want the same blob at the same time.
const WRITERS_MAX: u32 = 64;

/// A blob that arrives, for who writes it.
#[derive(Debug)]
pub struct Arriving {
    lock: FileLock,
    data: File,
    path: PathBuf,
    digest: Digest,
    size: u64,
}

/// The same for who reads it.
#[derive(Debug)]
pub struct ArrivingView {
    data: File,
    map: File,
}

impl Store {
    /// Where blobs are that are not whole, and what is known of them from elsewhere.
    #[must_use]
    pub fn arriving_dir(&self) -> PathBuf {
        self.root().join("arriving")
    }

    /// Begins or goes on with a blob of that length. Who is patient waits half a second for another process to end that is at it, and
    /// else has a file of its own.
    ///
    /// # Errors
    /// What the system says of the files; `ResourceBusy` when too many are at it.
    pub fn arriving(&self, digest: Digest, size: u64, is_patient: bool) -> Result<Arriving, StoreError> {
        let dir = self.arriving_dir();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(StoreError::io("create", &dir))?;
        for number in 0..WRITERS_MAX {
            let path = dir.join(format!("{}-{number}", digest.hex()));
            // Whose mount has just ended is about to end itself, and left pieces there.
            let lock =
                if number == 0 && is_patient { FileLock::exclusive_soon } else { FileLock::try_exclusive };
            let taken =
                Arriving::take(path.clone(), digest, size, lock).map_err(StoreError::io("write", &path))?;
            if let Some(arriving) = taken {
                return Ok(arriving);
            }
        }
        let busy = io::Error::new(io::ErrorKind::ResourceBusy, "too many processes bring this blob");
        Err(StoreError::io("write", &dir)(busy))
    }
}

impl Arriving {
    /// `None` when another process is at this one.
    fn take(
        path: PathBuf,
        digest: Digest,
        size: u64,
        lock: fn(&Path) -> io::Result<Option<FileLock>>,
    ) -> io::Result<Option<Self>> {
        let lock = loop {
            let Some(lock) = lock(&map_path(&path))? else { return Ok(None) };
            // Whoever had the lock may have made a blob of it since it was opened.
            if lock.is_named()? {
                break lock;
            }
        };
        let data = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        let arriving = Self { lock, data, path, digest, size };
        if !arriving.is_of_today()? {
            arriving.data.set_len(0)?;
            arriving.data.set_len(size)?;
            let map = arriving.lock.file();
            map.set_len(0)?;
            map.set_len(HEADER_BYTES + size.div_ceil(PIECE_BYTES))?;
            map.write_all_at(&arriving.header(), 0)?;
        }
        Ok(Some(arriving))
    }

    fn header(&self) -> Vec<u8> {
        [MAGIC, boot::id().to_le_bytes(), self.size.to_le_bytes()].concat()
    }

    /// Whether what is there was written since the machine was started, for a blob of this length.
    fn is_of_today(&self) -> io::Result<bool> {
        let expected = self.header();
        let mut header = vec![0; expected.len()];
        let map = self.lock.file();
        let is_whole = map.metadata()?.len() == HEADER_BYTES + self.pieces();
        if !is_whole || self.data.metadata()?.len() != self.size || boot::id() == 0 {
            return Ok(false);
        }
        map.read_exact_at(&mut header, 0)?;
        Ok(header == expected)
    }

    /// Whether nobody else was at it.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.path.to_string_lossy().ends_with("-0")
    }

    /// The blob.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its length.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file with what is there.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many pieces it has.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.size.div_ceil(PIECE_BYTES)
    }

    /// Which of them are there.
    ///
    /// # Errors
    /// What pread(2) says.
    pub fn there(&self) -> io::Result<Vec<bool>> {
        let mut map = vec![0; usize::try_from(self.pieces()).map_err(io::Error::other)?];
        self.lock.file().read_exact_at(&mut map, HEADER_BYTES)?;
        Ok(map.into_iter().map(|byte| byte == 1).collect())
    }

    /// Writes bytes that belong at `position`.
    ///
    /// # Errors
    /// What pwrite(2) says; `InvalidInput` for what lies behind the blob's end.
    pub fn write(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        if position.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "behind the end of the blob"));
        }
        self.data.write_all_at(bytes, position)
    }

    /// Says of a piece that it is there, all of it; or that it is not.
    ///
    /// # Errors
    /// What pwrite(2) says.
    pub fn mark(&self, piece: u64, is_there: bool) -> io::Result<()> {
        self.lock.file().write_all_at(&[u8::from(is_there)], HEADER_BYTES + piece)
    }

    /// The files for who reads them, which hold no lock.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn view(&self) -> io::Result<ArrivingView> {
        Ok(ArrivingView { data: File::open(&self.path)?, map: File::open(map_path(&self.path))? })
    }

    /// Makes a blob of it, all pieces of which are there. Afterwards nothing may be written to it. Says what it hashes to: if that is
    /// something else, no blob was made.
    ///
    /// # Errors
    /// What the system says.
    pub fn publish(&self, store: &Store) -> Result<Digest, StoreError> {
        let failed = StoreError::io("read", &self.path);
        let actual = FileRange::open(&self.path).and_then(|range| range.digest()).map_err(failed)?;
        if actual == self.digest {
            let target = store.blobs().path(self.digest);
            let done = atomic::publish(&self.data, &self.path, &target, 0o644);
            done.map_err(StoreError::io("write", &target))?;
            std::fs::remove_file(self.lock.path()).map_err(StoreError::io("remove", self.lock.path()))?;
        }
        Ok(actual)
    }
}

impl ArrivingView {
    /// The file with what is there.
    #[must_use]
    pub fn data(&self) -> &File {
        &self.data
    }

    /// Whether a piece is there.
    ///
    /// # Errors
    /// What pread(2) says.
    pub fn has(&self, piece: u64) -> io::Result<bool> {
        let mut byte = [0];
        self.map.read_exact_at(&mut byte, HEADER_BYTES + piece)?;
        Ok(byte == [1])
    }
}

/// The files that nobody is at, and that are of no use: untouched for so long, or of a blob that is there by now.
pub(super) fn unused(store: &Store, unused: Duration) -> Result<Vec<(DirEntry, Duration)>, StoreError> {
    let dir = store.arriving_dir();
    if !super::exists(&dir)? {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (entry, age) in gc::files_of(&dir)? {
        let path = entry.path();
        let name = entry.file_name();
        let hex = name.to_str().and_then(|name| name.split(['-', '.']).next());
        let is_whole = hex.and_then(|hex| Digest::from_hex(hex).ok()).map(|digest| store.blobs().has(digest));
        if age < unused && !is_whole.transpose()?.unwrap_or_default() {
            continue;
        }
        // Both files of a pair stay as long as somebody has the lock on its map.
        let map = map_path(&path);
        let is_busy = lock::is_held(&map).map_err(StoreError::io("lock", &map))?;
        if !is_busy {
            found.push((entry, age));
        }
    }
    Ok(found)
}

fn map_path(path: &Path) -> PathBuf {
    path.with_extension("map")
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn digest_of(bytes: &[u8]) -> Digest {
        Digest::from_bytes(Sha256::digest(bytes).into())
    }

    /// A store, a blob of three pieces, and the same begun.
    fn begun() -> (tempfile::TempDir, Store, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let blob = (0..2 * PIECE_BYTES + 77).map(|at| u8::try_from(at % 251).unwrap()).collect();
        (dir, store, blob)
    }

    fn taken(store: &Store, blob: &[u8]) -> Arriving {
        // A child that another test has forked may hold the lock for a moment.
        crate::sys::lock::soon(|| {
            let arriving = store.arriving(digest_of(blob), blob.len() as u64, true).unwrap();
            arriving.is_first().then_some(arriving)
        })
    }

    #[test]
    fn pieces_in_any_order_become_the_blob() {
        let (_dir, store, blob) = begun();
        let arriving = taken(&store, &blob);
        let view = arriving.view().unwrap();
        let piece = usize::try_from(PIECE_BYTES).unwrap();
        arriving.write(2 * PIECE_BYTES, &blob[2 * piece..]).unwrap();
        arriving.mark(2, true).unwrap();
        assert_eq!(arriving.there().unwrap(), [false, false, true]);
        assert!(view.has(2).unwrap() && !view.has(0).unwrap());
        drop(arriving);
        // The next process goes on.
        let arriving = taken(&store, &blob);
        assert_eq!(arriving.there().unwrap(), [false, false, true]);
        assert!(arriving.write(2 * PIECE_BYTES, &blob[..78]).is_err());
        assert_ne!(arriving.publish(&store).unwrap(), digest_of(&blob));
        assert!(!store.blobs().has(digest_of(&blob)).unwrap());
        arriving.write(0, &blob[..2 * piece]).unwrap();
        assert_eq!(arriving.publish(&store).unwrap(), digest_of(&blob));
        assert_eq!(std::fs::read(store.blobs().path(digest_of(&blob))).unwrap(), blob);
        assert_eq!(std::fs::read_dir(store.arriving_dir()).unwrap().count(), 0);
    }

    #[test]
    fn two_at_the_same_time_have_a_file_each() {
        let (_dir, store, blob) = begun();
        let one = taken(&store, &blob);
        let two = store.arriving(digest_of(&blob), blob.len() as u64, false).unwrap();
        assert_ne!(one.path, two.path);
        for arriving in [one, two] {
            arriving.write(0, &blob).unwrap();
            assert_eq!(arriving.publish(&store).unwrap(), digest_of(&blob));
        }
        assert_eq!(std::fs::read_dir(store.arriving_dir()).unwrap().count(), 0);
    }

    #[test]
    fn what_nobody_is_at_goes() {
        let (_dir, store, blob) = begun();
        let arriving = taken(&store, &blob);
        arriving.mark(0, true).unwrap();
        assert!(unused(&store, Duration::ZERO).unwrap().is_empty());
        drop(arriving);
        crate::sys::lock::soon(|| (unused(&store, Duration::ZERO).unwrap().len() == 2).then_some(()));
        assert!(unused(&store, Duration::from_secs(3600)).unwrap().is_empty());
        store.blobs().put(digest_of(&blob), &mut &blob[..]).unwrap();
        assert_eq!(unused(&store, Duration::from_secs(3600)).unwrap().len(), 2);
        let lock = store.lock_exclusive().unwrap();
        assert_eq!(super::super::collect_caches(&store, &lock, Duration::ZERO).unwrap().caches, 2);
        assert_eq!(std::fs::read_dir(store.arriving_dir()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_written_before_the_machine_started_counts_for_nothing() {
        let (_dir, store, blob) = begun();
        let arriving = taken(&store, &blob);
        arriving.mark(0, true).unwrap();
        arriving.lock.file().write_all_at(&[7; 8], 8).unwrap();
        drop(arriving);
        assert_eq!(taken(&store, &blob).there().unwrap(), [false; 3]);
    }
}
