//! The index file (`.lfx`), version 3. This file is the format.
//!
//! ```text
//! 0      Header                       HEADER_BYTES
//! 320    page table                   32 bytes for each page of the body: its blake3
//! ...    body                         pages of PAGE_BYTES (the last may be shorter), holding the sections back to back
//! ```
//!
//! All integers are little-endian, all records unaligned and of fixed size; `Header::sections` says where in the body each
//! section lies. `Header::checksum` is the blake3 of header (with that field zero) and page table, checked when the file
//! is opened; a page is checked when it is first looked at, so that opening costs the same for every size.
//!
//! | section | content |
//! |---|---|
//! | inodes | [`InodeRecord`]; the root is number 0 |
//! | dirents | [`DirentRecord`]; a directory's are one range, sorted by the bytes of their names |
//! | strings | names and link targets, back to back, each name once |
//! | xattrs | sets of extended attributes: count u32, then for each (sorted by name) name length u16, value length u32, name, value; offset 0 is the empty set |
//! | extents | [`ExtentRecord`]: the data of sparse files, by file offset |
//! | links | [`LinkRecord`]: every name of every object with more than one, by inode |
//! | below | [`BelowRecord`]: targets of hard links that are not in this layer |
//! | spans | [`SpanRecord`]: checkpoints from which decoding can start, by offset; none in a plain tar |
//! | windows | for each checkpoint inside a gzip member a zstd frame: the window, zero where no byte is referenced |
//! | granules | blake3 of each [`GRANULE_BYTES`] of the uncompressed layer (the last may be shorter) |
//!
//! Names: *inode number* is the position in the inode section, *tar offset* a position in the uncompressed layer.
//! A file of another version is not converted but built again.
//!
//! A checkpoint's place in the blob, by `Header::encoding`:
//!
//! | encoding | checkpoints are at | `blob_offset` is of | `bits` | window |
//! |---|---|---|---|---|
//! | gzip | boundaries of deflate blocks, starts of members | the first byte of which nothing is used yet | unused most significant bits of the byte before | up to 32 KiB, none at the start of a member |
//! | zstd | frames | the frame's magic | 0 | none |
//! | xz | blocks | the block's header | length of the stream's checks: 0, 4, 8, 16, 32, 64 bytes | none |
//! | bzip2 | streams | the stream's magic | 0 | none |

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of every index.
pub(crate) const MAGIC: [u8; 8] = *b"layerlfx";
/// Grows with every change to anything in this file, and to what the builder makes of a tar.
pub const VERSION: u32 = 3;
/// The unit of the body's checksums.
pub(crate) const PAGE_BYTES: u64 = 64 << 10;
/// The unit of verification and caching of the layer's content.
pub const GRANULE_BYTES: u64 = 128 << 10;
/// Uncompressed bytes between checkpoints: at 512 KiB windows are 1 % of the blob and a random read decodes half of that.
pub const SPAN_BYTES: u64 = 512 << 10;

/// `Header::encoding`: the blob is the tar.
pub(crate) const ENCODING_TAR: u32 = 0;
/// `Header::encoding`: one or more gzip members.
pub(crate) const ENCODING_GZIP: u32 = 1;
/// `Header::encoding`: one or more zstd frames.
pub(crate) const ENCODING_ZSTD: u32 = 2;
/// `Header::encoding`: one or more xz streams.
pub(crate) const ENCODING_XZ: u32 = 3;
/// `Header::encoding`: one or more bzip2 streams.
pub(crate) const ENCODING_BZIP2: u32 = 4;

/// Bytes of a digest.
pub(crate) const DIGEST_BYTES: u64 = 32;

/// Where a section lies in the body.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct SectionRecord {
    pub(crate) offset: U64,
    pub(crate) len: U64,
}

/// The sections, in the order of `Header::sections`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Inodes,
    Dirents,
    Strings,
    Xattrs,
    Extents,
    Links,
    Below,
    Spans,
    Windows,
    Granules,
}

/// How many sections there are.
pub(crate) const SECTIONS: usize = 10;

/// The start of the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) encoding: U32,
    pub(crate) checksum: [u8; 32],
    pub(crate) blob_digest: [u8; 32],
    pub(crate) diff_id: [u8; 32],
    pub(crate) blob_bytes: U64,
    pub(crate) tar_bytes: U64,
    pub(crate) body_bytes: U64,
    pub(crate) sections: [SectionRecord; SECTIONS],
    pub(crate) reserved: [u8; 24],
}

/// Size of [`Header`].
pub(crate) const HEADER_BYTES: usize = 320;

/// `InodeRecord::flags`: a directory that only a path mentions.
pub(crate) const FLAG_IMPLIED: u8 = 1;
/// `InodeRecord::flags`: an opaque directory.
pub(crate) const FLAG_OPAQUE: u8 = 2;
/// `InodeRecord::flags`: content is in extents, not contiguous.
pub(crate) const FLAG_SPARSE: u8 = 4;
/// `InodeRecord::flags`: has entries in the links section.
pub(crate) const FLAG_LINKED: u8 = 8;

/// One object. What `place`, `first` and `count` mean depends on its kind:
///
/// | kind | `size` | `place` | `first`, `count` |
/// |---|---|---|---|
/// | file | bytes | tar offset of the content | range of extents, when sparse |
/// | directory | 0 | parent inode << 32, number of its own dirent | range of dirents |
/// | symlink | bytes of the target | offset of the target in strings | |
/// | device | 0 | major << 32, minor | |
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct InodeRecord {
    pub(crate) size: U64,
    pub(crate) place: U64,
    pub(crate) mtime_secs: I64,
    pub(crate) mtime_nanos: U32,
    pub(crate) uid: U32,
    pub(crate) gid: U32,
    pub(crate) xattrs: U32,
    pub(crate) first: U32,
    pub(crate) count: U32,
    pub(crate) mode: U16,
    /// `S_IFMT` bits >> 12.
    pub(crate) kind: u8,
    pub(crate) flags: u8,
}

/// `DirentRecord::kind`: `target` is an inode number.
pub(crate) const DIRENT_OBJECT: u8 = 0;
/// `DirentRecord::kind`: hides the name in layers below.
pub(crate) const DIRENT_WHITEOUT: u8 = 1;
/// `DirentRecord::kind`: `target` is a number in the below section.
pub(crate) const DIRENT_BELOW: u8 = 2;

/// One name in a directory.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct DirentRecord {
    pub(crate) name: U32,
    pub(crate) target: U32,
    pub(crate) name_len: U16,
    pub(crate) kind: u8,
    pub(crate) reserved: u8,
}

/// A stretch of data in a sparse file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct ExtentRecord {
    pub(crate) file_offset: U64,
    pub(crate) len: U64,
    pub(crate) tar_offset: U64,
}

/// One name of an object with several.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct LinkRecord {
    pub(crate) inode: U32,
    pub(crate) parent: U32,
    pub(crate) dirent: U32,
}

/// A path in some layer below.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct BelowRecord {
    pub(crate) offset: U32,
    pub(crate) len: U32,
}

/// A place from which decoding can start.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct SpanRecord {
    pub(crate) tar_offset: U64,
    /// What is there depends on the encoding.
    pub(crate) blob_offset: U64,
    /// In the windows section.
    pub(crate) window: U64,
    /// Of the zstd frame.
    pub(crate) window_len: U32,
    /// Of the window itself: at most 32768.
    pub(crate) window_bytes: U16,
    /// What else the decoder must know: 0 to 7.
    pub(crate) bits: u8,
    pub(crate) reserved: u8,
}

const _: () = {
    assert!(size_of::<Header>() == HEADER_BYTES);
    assert!(std::mem::offset_of!(Header, checksum) == 16);
    assert!(std::mem::offset_of!(Header, blob_digest) == 48);
    assert!(std::mem::offset_of!(Header, diff_id) == 80);
    assert!(std::mem::offset_of!(Header, blob_bytes) == 112);
    assert!(std::mem::offset_of!(Header, sections) == 136);
    assert!(size_of::<InodeRecord>() == 52);
    assert!(std::mem::offset_of!(InodeRecord, mtime_nanos) == 24);
    assert!(std::mem::offset_of!(InodeRecord, first) == 40);
    assert!(std::mem::offset_of!(InodeRecord, kind) == 50);
    assert!(size_of::<DirentRecord>() == 12);
    assert!(size_of::<ExtentRecord>() == 24);
    assert!(size_of::<LinkRecord>() == 12);
    assert!(size_of::<BelowRecord>() == 8);
    assert!(size_of::<SpanRecord>() == 32);
    assert!(std::mem::offset_of!(SpanRecord, window_len) == 24);
};

/// The checksum of header and page table.
pub(crate) fn checksum(header: &Header, page_table: &[u8]) -> [u8; 32] {
    let mut blank = *header;
    blank.checksum = [0; 32];
    let mut hasher = blake3::Hasher::new();
    hasher.update(blank.as_bytes()).update(page_table);
    *hasher.finalize().as_bytes()
}
