//! Row 3, the waist: one read-only layer, whatever it is made of.
//!
//! Above it nobody knows about tars and blobs; below it nobody knows about unions.

use std::fmt::Debug;

use crate::model::{Digest, EntryId, FileName, Metadata, Name, Timestamp};

mod arriving;
mod bring;
mod chunk_cache;
mod chunk_reader;
mod diff_layer;
mod dir_layer;
#[cfg(test)]
mod encoding_tests;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod objects;
#[cfg(test)]
mod one_file;
mod read_counts;
mod read_on;
mod scrub;
#[cfg(test)]
mod scrub_tests;
mod source;
mod spill;
mod start_trace;
mod stored;
mod suspended;
mod tar_layer;
#[cfg(test)]
mod tar_tests;
mod toc;
mod turns;

pub use chunk_cache::ChunkCache;
pub use diff_layer::DiffLayer;
pub use dir_layer::DirLayer;
pub use error::{LayerError, Place};
pub use read_counts::ReadMeter;
pub use read_on::ReadOn;
pub use scrub::{Damage, Hit, PathsMax, Scrubbed};
pub use source::{KnownBy, LayerSource, TarSource};
pub use spill::{Spill, SpillDir};
pub use start_trace::StartTrace;
pub use tar_layer::TarLayer;
pub use toc::{Toc, TocAnnotation, TocCache, TocError, TocLayer};

/// One object of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What stat(2) says of it.
    pub metadata: Metadata,
    /// Names that it has within this layer (a directory: 1).
    pub names: u32,
    /// A directory that the layer never mentions, only something inside it. Its attributes are those of the layer
    /// below if there is such a directory, else `0755 root:root`, which is what `metadata` holds.
    pub implied: bool,
    /// A directory that hides everything the layers below have in it.
    pub opaque: bool,
}

/// What a layer says of a name in one of its directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has the object.
    Entry(EntryId),
    /// A hard link to this path of some layer below (normalised, relative to the root).
    LinkBelow(Box<[u8]>),
    /// It hides what the layers below have under this name.
    Whiteout,
    /// It says nothing.
    Absent,
}

/// One name of a directory of a layer; `found` is never [`Found::Absent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirItem {
    /// The name (of what is hidden, for a whiteout).
    pub name: FileName,
    /// What is under it.
    pub found: Found,
}

/// An extended attribute: name and value.
pub type Xattr = (Box<[u8]>, Box<[u8]>);

/// One read-only layer. Never changes while it is mounted.
///
/// Every error means that the answer is unknown; "not there" is [`Found::Absent`] or an empty answer, never an error.
pub trait Layer: Send + Sync + Debug {
    /// Its root directory.
    fn root(&self) -> EntryId;

    /// Whether an entry's number alone leads to it, in this and every later mount; else its path must be known.
    fn is_found_by_number(&self) -> bool;

    /// The object itself.
    ///
    /// # Errors
    /// [`LayerError`], also when there is no such entry.
    fn entry(&self, id: EntryId) -> Result<Entry, LayerError>;

    /// What is under a name in a directory. A `dir` that is no directory holds nothing.
    ///
    /// # Errors
    /// [`LayerError`]
    fn lookup(&self, dir: EntryId, name: Name<'_>) -> Result<Found, LayerError>;

    /// All names of a directory, sorted by bytes.
    ///
    /// # Errors
    /// [`LayerError`]
    fn read_dir(&self, dir: EntryId) -> Result<Vec<DirItem>, LayerError>;

    /// The target of a symlink.
    ///
    /// # Errors
    /// [`LayerError`]
    fn read_link(&self, id: EntryId) -> Result<Vec<u8>, LayerError>;

    /// All extended attributes, sorted by name, without those that belong to an overlay's own bookkeeping.
    ///
    /// # Errors
    /// [`LayerError`]
    fn xattrs(&self, id: EntryId) -> Result<Vec<Xattr>, LayerError>;

    /// Verified bytes of a regular file from `offset`; fewer than `buffer` holds only at the end of the file.
    ///
    /// # Errors
    /// [`LayerError::Corrupt`] when the bytes are not those that the image promised: then nothing was read.
    fn read_at(&self, id: EntryId, offset: u64, buffer: &mut [u8]) -> Result<usize, LayerError>;

    /// Every path (relative to the root, without a leading `/`) of an object with more than one name.
    ///
    /// # Errors
    /// [`LayerError`]
    fn paths(&self, id: EntryId) -> Result<Vec<Box<[u8]>>, LayerError>;

    /// What name_to_handle_at(2) says of the object, if it lies in a directory; others' uppers refer to it by that.
    ///
    /// # Errors
    /// [`LayerError`]
    fn file_handle(&self, _id: EntryId) -> Result<Option<Vec<u8>>, LayerError> {
        Ok(None)
    }

    /// The digest of everything in it (image-spec config.md, diffID); `None` of a directory, which nobody has hashed.
    fn diff_id(&self) -> Option<Digest> {
        None
    }

    /// When the object, its attributes included, was last changed, if anybody could change it between two mounts: the
    /// one time that no program can set.
    ///
    /// # Errors
    /// [`LayerError`]
    fn changed_at(&self, _id: EntryId) -> Result<Option<Timestamp>, LayerError> {
        Ok(None)
    }

    /// How many decoders it keeps for readers that may go on, and the bytes of memory that they take.
    fn suspended_decoders(&self) -> (u64, u64) {
        (0, 0)
    }

    /// Gives back memory that holds only what can be read again. Every entry that was told since the call before stays
    /// known, and those of `in_use`; the others are to be looked up again before they are asked for.
    fn release_memory(&self, _in_use: &dyn Fn() -> Vec<EntryId>) {}
}
