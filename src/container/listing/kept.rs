//! What earlier lists have read, kept in one file beside the containers: to open and read two documents of each takes
//! most of the time of a long list, and a look at what stat(2) says of them a fifth of that.
//!
//! ```text
//! 0      Header
//! 56     records        one for each container, sorted by id
//! ...    texts          of all records, back to back: of each its length, U32, and its bytes
//! ```
//!
//! Nobody needs it: it may be missing, old, or damaged, and may be deleted at any time. What it says of a document
//! counts only while the document is the very file that was read: the same inode, and not changed since. Inodes are
//! used again at once, and the clock that a file system writes down goes in steps; so nothing is kept of a document
//! that was changed less than [`SETTLED`] before it was read, as told by the file system itself. And nothing counts
//! after the next boot, before which a clock may be set back, and to which a power cut may lead.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags};
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::encoding::Record;
use crate::container::{ContainerId, documents};
use crate::sys::boot;

/// What it is called: no id, so no container.
pub(super) const NAME: &str = ".listed";
/// Longer than the steps of any file system's clock, and than what its clocks for different times differ by.
pub(super) const SETTLED: Duration = Duration::from_secs(2);
/// A hundred thousand containers have less.
pub(super) const FILE_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 8] = *b"layerfls";
/// Grows with every change of this file and of [`super::encoding`], and of how a document is understood.
const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U32,
    records: U32,
    /// The boot that it belongs to.
    boot: U64,
    /// The blake3 of all the rest.
    checksum: [u8; 32],
}

/// Which file it was that was read, and in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Identity {
    inode: U64,
    bytes: U64,
    changed_secs: I64,
    changed_nanos: U32,
}

/// What stat(2) says of a document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Which it is.
    pub(super) identity: Identity,
    /// Of a state: nothing of it is to be taken up by others.
    pub(super) at_rest: bool,
}

/// The bytes of the file.
#[derive(Debug)]
pub(super) struct File {
    bytes: Vec<u8>,
    written: SystemTime,
}

/// What the file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept<'a> {
    records: &'a [Record],
    texts: &'a [u8],
}

impl Identity {
    /// Of no file: there is no inode 0.
    pub(super) const NONE: Self =
        Self { inode: U64::ZERO, bytes: U64::ZERO, changed_secs: I64::ZERO, changed_nanos: U32::ZERO };

    fn of(stat: &Statx) -> Self {
        Self {
            inode: stat.stx_ino.into(),
            bytes: stat.stx_size.into(),
            changed_secs: stat.stx_ctime.tv_sec.into(),
            changed_nanos: stat.stx_ctime.tv_nsec.into(),
        }
    }

    /// How many bytes it has.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether it was last changed so long before `now` that what changes it from then on gives it another time.
    pub(super) fn is_settled(&self, settled: Duration, now: SystemTime) -> bool {
        let secs = u64::try_from(self.changed_secs.get()).unwrap_or(0);
        let changed = Duration::new(secs, self.changed_nanos.get());
        now.duration_since(UNIX_EPOCH).is_ok_and(|now| changed.saturating_add(settled) <= now)
    }
}

impl Seen {
    /// Of the file at a path; none when nothing can be told.
    pub(super) fn at(dir: impl AsFd, path: &str) -> Option<Self> {
        Self::asked(dir, path, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Of an open file.
    pub(super) fn of(file: impl AsFd) -> Option<Self> {
        Self::asked(file, "", AtFlags::EMPTY_PATH)
    }

    fn asked(dir: impl AsFd, path: &str, flags: AtFlags) -> Option<Self> {
        let wanted =
            StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::INO | StatxFlags::SIZE | StatxFlags::CTIME;
        // A server's files are asked for at the server, as when they are opened.
        let stat = rustix::fs::statx(dir, path, flags | AtFlags::STATX_FORCE_SYNC, wanted).ok()?;
        let mode = u32::from(stat.stx_mode);
        let is_known = stat.stx_mask & wanted.bits() == wanted.bits();
        let is_plain = FileType::from_raw_mode(mode) == FileType::RegularFile;
        (is_known && is_plain)
            .then(|| Self { identity: Identity::of(&stat), at_rest: documents::is_mode_at_rest(mode) })
    }
}

impl File {
    /// The file in `dir`, if it can be read and is whole.
    pub(super) fn read(dir: &OwnedFd) -> Option<Self> {
        match read(dir).map(Self::checked) {
            Ok(Some(file)) => return Some(file),
            Ok(None) => tracing::debug!("{NAME} is of another version, of another boot, or damaged"),
            Err(error) => tracing::debug!("{NAME}: {error}"),
        }
        None
    }

    fn checked(self) -> Option<Self> {
        let (header, body) = Header::ref_from_prefix(&self.bytes).ok()?;
        let is_ours = header.magic == MAGIC && header.version.get() == VERSION;
        let is_now = header.boot.get() == boot::id() && header.boot.get() != 0;
        (is_ours && is_now && header.checksum == checksum(header, body)).then_some(self)
    }

    /// What it says.
    pub(super) fn kept(&self) -> Option<Kept<'_>> {
        let (header, body) = Header::ref_from_prefix(&self.bytes).ok()?;
        let count = usize::try_from(header.records.get()).ok()?;
        let (records, texts) = <[Record]>::ref_from_prefix_with_elems(body, count).ok()?;
        Some(Kept { records, texts })
    }

    /// Whether it was written so lately that what it lacks may not have been settled then.
    pub(super) fn is_new(&self, now: SystemTime) -> bool {
        now.duration_since(self.written).is_ok_and(|age| age < SETTLED)
    }
}

impl<'a> Kept<'a> {
    /// What is kept of a container.
    pub(super) fn record(&self, id: &ContainerId) -> Option<&'a Record> {
        let at = self.records.binary_search_by(|record| record.id().cmp(id.as_bytes()));
        at.ok().and_then(|at| self.records.get(at))
    }

    /// The texts of all records.
    pub(super) fn texts(&self) -> &'a [u8] {
        self.texts
    }
}

/// The whole file.
pub(super) fn file(mut records: Vec<Record>, texts: &[u8]) -> io::Result<Vec<u8>> {
    records.sort_unstable_by_key(|record| *record.id());
    let count = u32::try_from(records.len()).map_err(io::Error::other)?;
    let mut header = Header {
        magic: MAGIC,
        version: VERSION.into(),
        records: count.into(),
        boot: boot::id().into(),
        checksum: [0; 32],
    };
    let body = [records.as_bytes(), texts].concat();
    header.checksum = checksum(&header, &body);
    Ok([header.as_bytes(), &body].concat())
}

fn checksum(header: &Header, body: &[u8]) -> [u8; 32] {
    let blank = Header { checksum: [0; 32], ..*header };
    let mut hasher = blake3::Hasher::new();
    hasher.update(blank.as_bytes()).update(body);
    *hasher.finalize().as_bytes()
}

fn read(dir: &OwnedFd) -> io::Result<File> {
    // Nobody waits for whatever else may have the name.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::openat(dir, NAME, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    let size = usize::try_from(metadata.len()).ok().filter(|size| *size <= FILE_BYTES_MAX);
    let (true, Some(size)) = (metadata.is_file(), size) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file of a size that it has"));
    };
    let mut bytes = Vec::with_capacity(size.saturating_add(1));
    file.take(metadata.len()).read_to_end(&mut bytes)?;
    Ok(File { bytes, written: metadata.modified()? })
}

const _: () = {
    assert!(size_of::<Header>() == 56);
    assert!(size_of::<Identity>() == 28);
};
