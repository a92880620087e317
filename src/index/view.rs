//! A finished index, mapped: every access is checked against the bounds of the file and the checksum of its page.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::format::{self, Header, PAGE_BYTES, Section};
use super::{Encoding, IndexError};
use crate::model::Digest;
use crate::sys::files;
use crate::sys::mmap::Mapping;

/// A directory of indexes, held by descriptor from the first that is opened in it: a supervisor in its namespaces does not
/// find it by path. All indexes of a mount share one.
#[derive(Debug)]
pub struct IndexDir {
    path: PathBuf,
    held: OnceLock<OwnedFd>,
}

impl IndexDir {
    /// The directory at `path`, which need not be there yet.
    #[must_use]
    pub fn at(path: &Path) -> Arc<Self> {
        Arc::new(Self { path: path.to_owned(), held: OnceLock::new() })
    }

    fn held(&self) -> std::io::Result<&OwnedFd> {
        if let Some(held) = self.held.get() {
            return Ok(held);
        }
        let path = if self.path.as_os_str().is_empty() { Path::new(".") } else { &self.path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = files::openat(rustix::fs::CWD, path, flags, Mode::empty())?;
        Ok(self.held.get_or_init(|| dir))
    }

    /// Removes the file of that name, if it still is this one. One that is published between the look and the removal goes in
    /// its place, as publishing takes no lock: then the next mount builds one that was there, and nothing else is lost.
    fn remove(&self, name: &OsString, id: (u64, u64)) -> std::io::Result<bool> {
        Ok(files::unlink_same(self.held()?, name, id)?)
    }
}

/// The index of one layer.
#[derive(Debug)]
pub struct LayerIndex {
    /// Of the index, or for messages of what it was made of.
    path: PathBuf,
    /// `None` when it only is in memory.
    home: Option<Home>,
    mapping: Mapping,
    header: Header,
    encoding: Encoding,
    body_start: usize,
    /// One bit for each page whose checksum was found right.
    checked: Vec<AtomicU64>,
    is_discarded: AtomicBool,
}

/// Where an index was published.
#[derive(Debug)]
struct Home {
    dir: Arc<IndexDir>,
    name: OsString,
    /// Device and number of the file that is mapped.
    id: (u64, u64),
}

impl LayerIndex {
    /// Maps the index at `path`. Takes the same time for every size.
    ///
    /// # Errors
    /// [`IndexError::Stale`] when it must be built again, [`IndexError::Io`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let name = path.file_name().unwrap_or_default();
        Self::open_in(&IndexDir::at(path.parent().unwrap_or(Path::new(""))), name.as_ref())
    }

    /// The same, of a directory that indexes share.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in(dir: &Arc<IndexDir>, name: &Path) -> Result<Self, IndexError> {
        let path = &dir.path.join(name);
        let io = |source| IndexError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        dir.held().map_err(io)?;
        let mapping = Mapping::of_published_file(&file).map_err(io)?;
        let (dir, id) = (Arc::clone(dir), (metadata.dev(), metadata.ino()));
        Self::of(mapping, path, Some(Home { dir, name: name.as_os_str().to_owned(), id }))
    }

    /// An index that only is in memory; `path` is what messages call it.
    pub(super) fn in_memory(bytes: Vec<u8>, path: &Path) -> Result<Self, IndexError> {
        Self::of(Mapping::of_bytes(bytes), path, None)
    }

    fn of(mapping: Mapping, path: &Path, home: Option<Home>) -> Result<Self, IndexError> {
        let stale = |reason| IndexError::Stale { path: path.to_owned(), reason };
        let bytes = mapping.bytes();
        let (header, rest) = Header::read_from_prefix(bytes).map_err(|_| stale("shorter than its header"))?;
        if header.magic != format::MAGIC {
            return Err(stale("wrong magic"));
        }
        if header.version.get() != format::VERSION {
            return Err(stale(IndexError::OTHER_VERSION));
        }
        let body_bytes = header.body_bytes.get();
        let pages = body_bytes.div_ceil(PAGE_BYTES);
        let table_bytes = usize::try_from(pages.saturating_mul(format::DIGEST_BYTES)).unwrap_or(usize::MAX);
        let table = rest.get(..table_bytes).ok_or_else(|| stale("shorter than its page table"))?;
        if format::checksum(&header, table) != header.checksum {
            return Err(stale("wrong checksum"));
        }
        let body_start = format::HEADER_BYTES.saturating_add(table_bytes);
        if bytes.len().checked_sub(body_start).and_then(|len| u64::try_from(len).ok()) != Some(body_bytes) {
            return Err(stale("not as long as it says"));
        }
        let encoding = Encoding::from_number(header.encoding.get());
        let encoding = encoding.ok_or_else(|| stale("unknown encoding"))?;
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(0);
        let checked = (0..words).map(|_| AtomicU64::new(0)).collect();
        Ok(Self {
            path: path.to_owned(),
            home,
            mapping,
            header,
            encoding,
            body_start,
            checked,
            is_discarded: AtomicBool::new(false),
        })
    }

    /// Gives back the memory of the pages that were read so far; what comes from the disk again is checked again.
    ///
    /// # Errors
    /// What madvise(2) says.
    pub fn release_memory(&self) -> std::io::Result<()> {
        self.mapping.release()?;
        self.checked.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        Ok(())
    }

    /// Whether some of it could not be read, so that what was taken from it since it was opened counts for nothing.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        self.mapping.has_fault()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells it from any other index, down to the last bit: the checksum of all its checksums.
    #[must_use]
    pub fn checksum(&self) -> [u8; 32] {
        self.header.checksum
    }

    /// The whole file, after a look at every page of it. It counts only if [`Self::has_fault`] is false afterwards.
    ///
    /// # Errors
    /// [`IndexError::Stale`] when a page is damaged.
    pub fn whole(&self) -> Result<&[u8], IndexError> {
        match self.damaged_pages()[..] {
            [] => Ok(self.mapping.bytes()),
            _ => Err(self.stale("a page has a wrong checksum")),
        }
    }

    /// The sha256 of the uncompressed layer.
    #[must_use]
    pub fn diff_id(&self) -> Digest {
        Digest::from_bytes(self.header.diff_id)
    }

    /// The sha256 of the blob.
    #[must_use]
    pub fn blob_digest(&self) -> Digest {
        Digest::from_bytes(self.header.blob_digest)
    }

    /// Bytes of the blob.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.header.blob_bytes.get()
    }

    /// Bytes of the uncompressed layer.
    #[must_use]
    pub fn tar_bytes(&self) -> u64 {
        self.header.tar_bytes.get()
    }

    /// How the blob holds the tar.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub(super) fn stale(&self, reason: &'static str) -> IndexError {
        IndexError::Stale { path: self.path.clone(), reason }
    }

    /// Checked bytes of a section.
    pub(super) fn bytes(&self, section: Section, offset: u64, len: u64) -> Result<&[u8], IndexError> {
        let place = self.header.sections[section as usize];
        let end = offset.checked_add(len).filter(|end| *end <= place.len.get());
        let start = place.offset.get().checked_add(offset);
        let (Some(_), Some(start)) = (end, start) else {
            return Err(self.stale("a reference leaves its section"));
        };
        let stop = start.checked_add(len).filter(|stop| *stop <= self.header.body_bytes.get());
        let Some(stop) = stop else { return Err(self.stale("a section leaves the file")) };
        if len > 0 {
            for page in start / PAGE_BYTES..=(stop - 1) / PAGE_BYTES {
                self.check_page(page)?;
            }
        }
        self.body(start, stop).ok_or_else(|| self.stale("a section leaves the file"))
    }

    fn body(&self, start: u64, stop: u64) -> Option<&[u8]> {
        let start = self.body_start.checked_add(usize::try_from(start).ok()?)?;
        let stop = self.body_start.checked_add(usize::try_from(stop).ok()?)?;
        self.mapping.bytes().get(start..stop)
    }

    /// Where in the file there are pages that do not have their checksum.
    #[must_use]
    pub fn damaged_pages(&self) -> Vec<u64> {
        let pages = self.header.body_bytes.get().div_ceil(PAGE_BYTES);
        let start = u64::try_from(self.body_start).unwrap_or(u64::MAX);
        let damaged = (0..pages).filter(|page| self.check_page(*page).is_err());
        damaged.map(|page| start.saturating_add(page * PAGE_BYTES)).collect()
    }

    fn check_page(&self, page: u64) -> Result<(), IndexError> {
        let number = usize::try_from(page).unwrap_or(usize::MAX);
        let bit = 1 << (page % 64);
        let Some(word) = self.checked.get(number / 64) else { return Err(self.stale("no such page")) };
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let start = page * PAGE_BYTES;
        let stop = (start + PAGE_BYTES).min(self.header.body_bytes.get());
        let digest_at = format::HEADER_BYTES + number * 32;
        let digest = self.mapping.bytes().get(digest_at..digest_at + 32);
        let content = self.body(start, stop).map(blake3::hash);
        if content.as_ref().map(|hash| &hash.as_bytes()[..]) != digest {
            self.discard();
            return Err(self.stale("a page has a wrong checksum"));
        }
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a damaged index away, so that the next mount builds it again.
    fn discard(&self) {
        if self.is_discarded.swap(true, Ordering::Relaxed) || self.has_fault() {
            return;
        }
        let path = self.path.display();
        let Some(home) = &self.home else { return tracing::error!("{path}: its index in memory is damaged") };
        match home.dir.remove(&home.name, home.id) {
            Ok(true) => tracing::error!("{path}: damaged; removed, so that the next mount builds it again"),
            Ok(false) => tracing::error!("{path}: damaged; there is another one already"),
            Err(error) => tracing::error!("{path}: damaged, and cannot be removed: {error}"),
        }
    }

    /// All of a section, checked.
    pub(super) fn section(&self, section: Section) -> Result<&[u8], IndexError> {
        self.bytes(section, 0, self.header.sections[section as usize].len.get())
    }

    /// How many records of a type a section holds.
    pub(super) fn count<T>(&self, section: Section) -> u64 {
        let size = u64::try_from(size_of::<T>()).unwrap_or(u64::MAX);
        self.header.sections[section as usize].len.get() / size
    }

    /// A range of records.
    pub(super) fn records<T>(&self, section: Section, first: u64, count: u64) -> Result<&[T], IndexError>
    where
        T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned,
    {
        let size = u64::try_from(size_of::<T>()).unwrap_or(u64::MAX);
        let (offset, len) = (first.checked_mul(size), count.checked_mul(size));
        let (Some(offset), Some(len)) = (offset, len) else {
            return Err(self.stale("a reference leaves its section"));
        };
        let bytes = self.bytes(section, offset, len)?;
        <[T]>::ref_from_bytes(bytes).map_err(|_| self.stale("a record is cut"))
    }

    /// One record.
    pub(super) fn record<T>(&self, section: Section, number: u64) -> Result<&T, IndexError>
    where
        T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned,
    {
        self.records(section, number, 1)?.first().ok_or_else(|| self.stale("a record is cut"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Expected, build};
    use crate::sys::file_range::FileRange;

    /// The index of a layer, in a directory of its own, and then damaged in its last page.
    fn damaged(dir: &Path) -> (LayerIndex, PathBuf) {
        let store = dir.join("index");
        std::fs::create_dir(&store).unwrap();
        std::fs::write(dir.join("blob"), vec![0; 4096]).unwrap();
        let blob = FileRange::open(&dir.join("blob")).unwrap();
        build(&blob, &Expected::default(), &store, "a.lfx", &|_| {}).unwrap();
        let path = store.join("a.lfx");
        let index = LayerIndex::open(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        (index, store)
    }

    #[test]
    fn a_damaged_index_goes_wherever_its_directory_is() {
        let dir = tempfile::tempdir().unwrap();
        let (index, store) = damaged(dir.path());
        // As for a supervisor that left the file system it was started in.
        std::fs::rename(&store, dir.path().join("elsewhere")).unwrap();
        assert_eq!(index.damaged_pages().len(), 1);
        assert_eq!(std::fs::read_dir(dir.path().join("elsewhere")).unwrap().count(), 0);
    }

    #[test]
    fn a_newer_index_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (index, store) = damaged(dir.path());
        let blob = FileRange::open(&dir.path().join("blob")).unwrap();
        build(&blob, &Expected::default(), &store, "a.lfx", &|_| {}).unwrap();
        assert_eq!(index.damaged_pages().len(), 1);
        assert!(LayerIndex::open(&store.join("a.lfx")).unwrap().damaged_pages().is_empty());
    }
}
