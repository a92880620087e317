//! The objects of a finished index: what the layer row asks of it.

use std::ops::Range;

use super::format::{
    self, BelowRecord, DirentRecord, ExtentRecord, InodeRecord, LinkRecord, Section, SpanRecord,
};
use super::{IndexError, LayerIndex};
use crate::model::limits::DEPTH_MAX;
use crate::model::{DeviceId, FileKind, FileName, Metadata, Name, TarOffset, Timestamp};
use crate::sys::inflate::WINDOW_BYTES;

/// Beyond this a span is long: 4 MiB take 5 to 100 ms to decode, depending on the encoding.
const LONG_SPAN_BYTES: u64 = 4 << 20;

/// An extended attribute: name and value.
pub type XattrPair = (Box<[u8]>, Box<[u8]>);

/// Number of an object within its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeNumber(pub u32);

/// One object.
#[derive(Clone, Debug)]
pub struct Inode {
    /// What stat(2) says.
    pub metadata: Metadata,
    /// How many names it has in this layer.
    pub names: u32,
    /// A directory that only paths of other entries mention.
    pub implied: bool,
    /// A directory that hides what is below.
    pub opaque: bool,
    /// Where its content is.
    pub content: Content,
    xattrs: u32,
}

/// Where the content of an object is.
#[derive(Clone, Debug)]
pub enum Content {
    /// A file's, from here on without holes.
    Contiguous(TarOffset),
    /// A file's, in these extents.
    Sparse(Range<u64>),
    /// A directory's names.
    Names(Range<u64>),
    /// A symlink's target.
    Target(u64),
    /// None.
    Nothing,
}

/// Data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file.
    pub file_offset: u64,
    /// How many bytes.
    pub len: u64,
    /// Where in the layer.
    pub place: TarOffset,
}

/// What is under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Child {
    /// An object.
    Object(InodeNumber),
    /// Nothing, and nothing below either.
    Whiteout,
    /// A hard link to this path of some layer below.
    Below(Box<[u8]>),
}

/// A place from which decoding can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its number, in order of offset.
    pub number: u64,
    /// Where in the uncompressed layer.
    pub place: TarOffset,
    /// Where the next one is, or the layer's end: all before it may have to be decoded for a byte in between.
    pub end: TarOffset,
    /// Where in the blob.
    pub blob_offset: u64,
    /// Where in the blob the next one is, or the blob's end: decoding reads little more than that.
    pub blob_end: u64,
    /// What else the decoder must know.
    pub bits: u8,
    window: u64,
    window_len: u32,
    window_bytes: u16,
}

impl Checkpoint {
    /// Uncompressed bytes from here to the next: what a read of the last of them costs.
    #[must_use]
    pub fn span_bytes(&self) -> u64 {
        self.end.0.saturating_sub(self.place.0)
    }

    /// Whether the span is so long that nobody should decode it twice: [`LONG_SPAN_BYTES`]. Gzip has such spans only
    /// where one deflate block is as long; zstd, xz and bzip2 usually are one.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.span_bytes() > LONG_SPAN_BYTES
    }
}

impl LayerIndex {
    /// The root directory.
    #[must_use]
    pub fn root(&self) -> InodeNumber {
        InodeNumber(0)
    }

    /// How many objects there are.
    #[must_use]
    pub fn inode_count(&self) -> u64 {
        self.count::<InodeRecord>(Section::Inodes)
    }

    /// One object.
    ///
    /// # Errors
    /// [`IndexError::Stale`], also when there is no such object.
    pub fn inode(&self, number: InodeNumber) -> Result<Inode, IndexError> {
        let record = self.record::<InodeRecord>(Section::Inodes, u64::from(number.0))?;
        let kind = FileKind::from_st_mode(u32::from(record.kind) << 12)
            .ok_or_else(|| self.stale("an inode has an unknown type"))?;
        let has = |flag| record.flags & flag != 0;
        let (size, place) = (record.size.get(), record.place.get());
        let first = u64::from(record.first.get());
        let range = first..first + u64::from(record.count.get());
        let mut rdev = DeviceId::default();
        let content = match kind {
            FileKind::Regular if has(format::FLAG_SPARSE) => Content::Sparse(range),
            FileKind::Regular => Content::Contiguous(TarOffset(place)),
            FileKind::Directory => Content::Names(range),
            FileKind::Symlink => Content::Target(place),
            FileKind::CharDevice | FileKind::BlockDevice => {
                let (major, minor) = halves(place);
                rdev = DeviceId { major, minor };
                Content::Nothing
            }
            FileKind::Fifo | FileKind::Socket => Content::Nothing,
        };
        let mtime = Timestamp { secs: record.mtime_secs.get(), nanos: record.mtime_nanos.get() };
        let (mode, uid, gid) = (record.mode.get() & 0o7777, record.uid.get(), record.gid.get());
        let names = match has(format::FLAG_LINKED) {
            true => u32::try_from(self.links(number)?.len()).unwrap_or(u32::MAX),
            false => 1,
        };
        Ok(Inode {
            metadata: Metadata { kind, mode, uid, gid, rdev, size, mtime },
            names,
            implied: has(format::FLAG_IMPLIED),
            opaque: has(format::FLAG_OPAQUE),
            content,
            xattrs: record.xattrs.get(),
        })
    }

    fn names(&self, inode: &Inode) -> Result<&[DirentRecord], IndexError> {
        match &inode.content {
            Content::Names(range) => self.records(Section::Dirents, range.start, range.end - range.start),
            _ => Ok(&[]),
        }
    }

    fn name(&self, dirent: &DirentRecord) -> Result<&[u8], IndexError> {
        self.bytes(Section::Strings, u64::from(dirent.name.get()), u64::from(dirent.name_len.get()))
    }

    fn child_of(&self, dirent: &DirentRecord) -> Result<Child, IndexError> {
        match dirent.kind {
            format::DIRENT_OBJECT => Ok(Child::Object(InodeNumber(dirent.target.get()))),
            format::DIRENT_WHITEOUT => Ok(Child::Whiteout),
            format::DIRENT_BELOW => {
                let below = self.record::<BelowRecord>(Section::Below, u64::from(dirent.target.get()))?;
                let (offset, len) = (u64::from(below.offset.get()), u64::from(below.len.get()));
                Ok(Child::Below(self.bytes(Section::Strings, offset, len)?.into()))
            }
            _ => Err(self.stale("a name has an unknown kind")),
        }
    }

    /// What is under a name of a directory.
    ///
    /// # Errors
    /// [`IndexError::Stale`]
    pub fn child(&self, dir: &Inode, name: Name<'_>) -> Result<Option<Child>, IndexError> {
        let names = self.names(dir)?;
        let (mut low, mut high) = (0, names.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.name(&names[middle])?.cmp(name.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return self.child_of(&names[middle]).map(Some),
            }
        }
        Ok(None)
    }

    /// All names of a directory, sorted.
    ///
    /// # Errors
    /// [`IndexError::Stale`]
    pub fn children(&self, dir: &Inode) -> Result<Vec<(FileName, Child)>, IndexError> {
        let item = |dirent: &DirentRecord| {
            let name = Name::new(self.name(dirent)?).map_err(|_| self.stale("a name is not valid"))?;
            Ok((name.to_owned(), self.child_of(dirent)?))
        };
        self.names(dir)?.iter().map(item).collect()
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// [`IndexError::Stale`], also when it is none.
    pub fn target(&self, inode: &Inode) -> Result<&[u8], IndexError> {
        match inode.content {
            Content::Target(offset) => self.bytes(Section::Strings, offset, inode.metadata.size),
            _ => Err(self.stale("not a symlink")),
        }
    }

    /// The data of a sparse file that ends after `offset`, in order; at most `count_max` extents.
    ///
    /// # Errors
    /// [`IndexError::Stale`]
    pub fn extents(
        &self,
        range: &Range<u64>,
        offset: u64,
        count_max: u64,
    ) -> Result<Vec<Extent>, IndexError> {
        let records: &[ExtentRecord] =
            self.records(Section::Extents, range.start, range.end - range.start)?;
        let first = records
            .partition_point(|extent| extent.file_offset.get().saturating_add(extent.len.get()) <= offset);
        let extent = |record: &ExtentRecord| Extent {
            file_offset: record.file_offset.get(),
            len: record.len.get(),
            place: TarOffset(record.tar_offset.get()),
        };
        let count = usize::try_from(count_max).unwrap_or(usize::MAX);
        Ok(records[first..].iter().take(count).map(extent).collect())
    }

    /// All extended attributes, sorted by name.
    ///
    /// # Errors
    /// [`IndexError::Stale`]
    pub fn xattrs(&self, inode: &Inode) -> Result<Vec<XattrPair>, IndexError> {
        if inode.xattrs == 0 {
            return Ok(Vec::new());
        }
        let mut at = u64::from(inode.xattrs);
        let mut take = |len: u64| {
            let bytes = self.bytes(Section::Xattrs, at, len);
            at = at.saturating_add(len);
            bytes
        };
        let count = number(take(4)?);
        let mut xattrs = Vec::new();
        for _ in 0..count {
            let name_len = number(take(2)?);
            let value_len = number(take(4)?);
            let name = take(name_len)?.into();
            xattrs.push((name, take(value_len)?.into()));
        }
        Ok(xattrs)
    }

    /// The names of an object that has several. Looks only where it must: a layer may have millions of them.
    fn links(&self, inode: InodeNumber) -> Result<&[LinkRecord], IndexError> {
        let first = self.first_link(inode.0)?;
        let last = inode.0.checked_add(1).map_or(Ok(first), |next| self.first_link(next))?;
        let count = last.checked_sub(first).ok_or_else(|| self.stale("links are not sorted"))?;
        self.records(Section::Links, first, count)
    }

    /// The first link of an object, or of those behind it.
    fn first_link(&self, inode: u32) -> Result<u64, IndexError> {
        let (mut low, mut high) = (0, self.count::<LinkRecord>(Section::Links));
        while low < high {
            let middle = low.midpoint(high);
            let record = self.record::<LinkRecord>(Section::Links, middle)?;
            if record.inode.get() < inode { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// Every path, relative to the root, of an object that has several names.
    ///
    /// # Errors
    /// [`IndexError::Stale`]
    pub fn paths(&self, inode: InodeNumber) -> Result<Vec<Box<[u8]>>, IndexError> {
        self.links(inode)?.iter().map(|link| self.path_of(link.parent.get(), link.dirent.get())).collect()
    }

    fn path_of(&self, parent: u32, dirent: u32) -> Result<Box<[u8]>, IndexError> {
        let (mut parent, mut dirent) = (parent, dirent);
        let mut names = Vec::new();
        for _ in 0..=DEPTH_MAX {
            names.push(self.name(self.record(Section::Dirents, u64::from(dirent))?)?);
            if parent == 0 {
                names.reverse();
                return Ok(names.join(&b'/').into());
            }
            let above = self.record::<InodeRecord>(Section::Inodes, u64::from(parent))?;
            (parent, dirent) = halves(above.place.get());
        }
        Err(self.stale("directories form a circle"))
    }

    /// The blake3 of a granule.
    ///
    /// # Errors
    /// [`IndexError::Stale`]
    pub fn granule_digest(&self, granule: u64) -> Result<[u8; 32], IndexError> {
        self.record::<[u8; 32]>(Section::Granules, granule).copied()
    }

    /// The last checkpoint at or before a place; `None` in a plain tar.
    ///
    /// # Errors
    /// [`IndexError::Stale`]
    pub fn checkpoint(&self, place: TarOffset) -> Result<Option<Checkpoint>, IndexError> {
        let count = self.count::<SpanRecord>(Section::Spans);
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            let record = self.record::<SpanRecord>(Section::Spans, middle)?;
            if record.tar_offset.get() <= place.0 { low = middle + 1 } else { high = middle }
        }
        let Some(number) = low.checked_sub(1) else { return Ok(None) };
        let record = self.record::<SpanRecord>(Section::Spans, number)?;
        let next = if low < count { Some(self.record::<SpanRecord>(Section::Spans, low)?) } else { None };
        let end = next.as_ref().map_or(self.tar_bytes(), |next| next.tar_offset.get());
        let blob_end = next.map_or(self.blob_bytes(), |next| next.blob_offset.get());
        Ok(Some(Checkpoint {
            number,
            place: TarOffset(record.tar_offset.get()),
            end: TarOffset(end),
            blob_offset: record.blob_offset.get(),
            blob_end,
            bits: record.bits & 7,
            window: record.window.get(),
            window_len: record.window_len.get(),
            window_bytes: record.window_bytes.get(),
        }))
    }

    /// The history that a checkpoint needs; empty at the start of a member.
    ///
    /// # Errors
    /// [`IndexError::Stale`]
    pub fn window(&self, checkpoint: &Checkpoint) -> Result<Vec<u8>, IndexError> {
        let bytes = usize::from(checkpoint.window_bytes);
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let packed = self.bytes(Section::Windows, checkpoint.window, u64::from(checkpoint.window_len))?;
        match zstd::bulk::decompress(packed, bytes.min(WINDOW_BYTES)) {
            Ok(window) if window.len() == bytes => Ok(window),
            _ => Err(self.stale("a window cannot be unpacked")),
        }
    }
}

/// The high and the low 32 bits.
fn halves(value: u64) -> (u32, u32) {
    let low = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    (u32::try_from(value >> 32).unwrap_or(0), low)
}

/// A little-endian number of up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
