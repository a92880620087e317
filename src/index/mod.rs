//! Row 2: one index file per layer. Names -> metadata -> where the bytes are in the blob, and what they must hash to.
//!
//! [`build`] makes it in one pass over the blob; [`LayerIndex`] maps it afterwards and never parses it. It knows nothing
//! of stores and mounts, and it never reads a file's content: that is the layer row's work.
//!
//! An index can also be made, in memory only, of entries that a table of contents has ([`LayerIndex`] all the same).
//!
//! The format is in `format.rs`; how tars are understood, in `tar/` (what is written) and `tree.rs` (what it means).

use std::io;

use sha2::{Digest as _, Sha256};

use crate::model::Digest;
use crate::sys::file_range::FileRange;

mod agreement;
mod blob_reader;
mod budget;
mod build;
mod bzip2;
mod decode;
mod decoder;
mod decompress;
mod encoding;
mod error;
mod format;
mod gzip;
mod made;
mod objects;
mod pieces;
mod source;
mod stream;
mod tar;
mod tree;
mod view;
mod walk;
mod window;
mod write;
mod xz;
mod zstd_frames;

pub use build::{Expected, build};
pub use decoder::Decoder;
pub use decompress::{decompress, decompress_stream};
pub use encoding::Encoding;
pub use error::IndexError;
pub use format::{GRANULE_BYTES, SPAN_BYTES, VERSION};
pub(crate) use made::{FileInTar, IndexBuilder, only_file, shown_xattrs};
pub use objects::{Checkpoint, Child, Content, Extent, Inode, InodeNumber, XattrPair};
pub use source::DecodeError;
pub(crate) use tree::{Attributes, Body, Data, Xattr};
pub use view::{IndexDir, LayerIndex};

/// The name of a blob's index: by the blob digest when it is known. Without it (docker-archive) the diffID stands for a
/// plain tar, and for anything compressed what can be had without reading it all: diffID, length, both ends.
///
/// # Errors
/// The blob cannot be read.
pub fn key(blob: &FileRange, blob_digest: Option<&Digest>, diff_id: &Digest) -> io::Result<String> {
    const END_BYTES: usize = 4096;
    if let Some(digest) = blob_digest {
        return Ok(format!("{}.lfx", digest.hex()));
    }
    let mut end = [0; END_BYTES];
    let len = blob.read_at(0, &mut end)?;
    if Encoding::of(&end[..len]) == Encoding::Tar {
        return Ok(format!("{}.lfx", diff_id.hex()));
    }
    let mut sha256 = Sha256::new();
    sha256.update(diff_id.as_bytes());
    sha256.update(blob.len().to_le_bytes());
    sha256.update(&end[..len]);
    let len = blob.read_at(blob.len().saturating_sub(END_BYTES as u64), &mut end)?;
    sha256.update(&end[..len]);
    Ok(format!("{}.lfx", Digest::from_bytes(sha256.finalize().into()).hex()))
}
