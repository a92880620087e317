//! A layer whose content is verified by a table of contents (TOC) that the image's manifest vouches for, so that any part of
//! its blob can be read, and believed, before the rest is there: eStargz and zstd:chunked.
//!
//! ```text
//! annotation of the layer -> digest of the TOC -> names, metadata, digest of every chunk -> content
//! ```
//!
//! The TOC is read once, and nothing of the blob but what holds it; afterwards a read fetches the chunks that it needs.
//! Entries mean what those of a tar mean ([`crate::index`]): a TOC becomes an index in memory. A TOC that leaves anything
//! open (a chunk without digest, sizes that contradict each other, a name that was no text) is refused as a whole: then the
//! layer has to be read as a whole.
//!
//! Where the TOC differs from the tar, there is no telling: times without nanoseconds (eStargz rounds them), attributes as
//! only libarchive writes them. Its author vouches for both.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::index::{Encoding, LayerIndex};
use crate::model::Digest;
use crate::model::digest::DigestError;
use crate::sys::file_range::FileRange;

mod cache;
mod contents;
mod decoding;
mod entries;
mod error;
mod estargz;
mod json;
#[cfg(test)]
mod tests;
mod toc_layer;
mod zstd_chunked;

pub use cache::TocCache;
pub use error::TocError;
pub use toc_layer::TocLayer;

use contents::Contents;

/// Uncompressed bytes of a TOC: 150 to 300 for each file, so that a million files fit. What others accept is 150 MiB.
const TOC_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a chunk, and of what lies before it in its gzip member: decoded at once, and kept in memory. Writers make
/// chunks of 4 MiB at most (eStargz) or 64 KiB on average (zstd:chunked).
const CHUNK_BYTES_MAX: u64 = 64 << 20;

/// What the descriptor of a layer says of a TOC in its blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TocAnnotation {
    /// stargz-snapshotter, docs/estargz.md, "Content Verification".
    EStargz {
        /// Of the TOC as it is.
        toc_digest: Digest,
    },
    /// containers/storage, docs/containers-storage-zstd-chunked.md.
    ZstdChunked {
        /// Of the TOC compressed.
        checksum: Digest,
        /// `offset:length:length uncompressed:type`
        position: String,
    },
}

const ESTARGZ_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// The prefixes of annotations of zstd:chunked: the documented one, and that of podman up to 4.3 and its contemporaries.
const ZSTD_CHUNKED: [&str; 2] = ["io.github.containers.zstd-chunked", "io.containers.zstd-chunked"];

impl TocAnnotation {
    /// Looks for it among the annotations of a descriptor. Who writes both means a blob in zstd: the digest of the other
    /// is for a snapshotter that understands zstd, too.
    ///
    /// # Errors
    /// [`TocError::Annotation`] for one that is not written as it should be.
    pub fn of(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, TocError> {
        for prefix in ZSTD_CHUNKED {
            let checksum = digest(annotations, &format!("{prefix}.manifest-checksum"))?;
            let position = annotations.get(&format!("{prefix}.manifest-position"));
            if let (Some(checksum), Some(position)) = (checksum, position) {
                return Ok(Some(Self::ZstdChunked { checksum, position: position.clone() }));
            }
        }
        Ok(digest(annotations, ESTARGZ_DIGEST)?.map(|toc_digest| Self::EStargz { toc_digest }))
    }
}

fn digest(annotations: &BTreeMap<String, String>, name: &str) -> Result<Option<Digest>, TocError> {
    let Some(value) = annotations.get(name) else { return Ok(None) };
    let wrong =
        |error: DigestError| TocError::Annotation { name: name.to_owned(), reason: error.to_string() };
    value.parse().map(Some).map_err(wrong)
}

/// A TOC, verified and understood. Clones share it.
#[derive(Clone, Debug)]
pub struct Toc {
    /// A file's place in it is its number in `contents`.
    index: Arc<LayerIndex>,
    contents: Arc<Contents>,
    encoding: Encoding,
}

impl Toc {
    /// Reads the TOC that an annotation speaks of.
    ///
    /// # Errors
    /// [`TocError`]; then the layer has to be read as a whole.
    pub fn of(blob: &FileRange, annotation: &TocAnnotation) -> Result<Self, TocError> {
        match annotation {
            TocAnnotation::EStargz { toc_digest } => Self::of_estargz(blob, *toc_digest),
            TocAnnotation::ZstdChunked { checksum, position } => {
                Self::of_zstd_chunked(blob, *checksum, position)
            }
        }
    }

    /// Reads the TOC of an eStargz blob, which must have this sha256. Reads the blob's footer and the TOC, nothing else.
    ///
    /// # Errors
    /// [`TocError`]
    pub fn of_estargz(blob: &FileRange, toc_digest: Digest) -> Result<Self, TocError> {
        let found = twice(blob, &|doubtful| estargz::find(blob, toc_digest, doubtful))?;
        estargz::understand(blob, &found)
    }

    /// Reads the TOC of a zstd:chunked blob from its `position` (`offset:length:length uncompressed:type`); compressed, it
    /// must have this sha256. Reads nothing else of the blob.
    ///
    /// # Errors
    /// [`TocError`]
    pub fn of_zstd_chunked(blob: &FileRange, checksum: Digest, position: &str) -> Result<Self, TocError> {
        let position = zstd_chunked::Position::parse(position, blob)?;
        let json = twice(blob, &|doubtful| zstd_chunked::fetch(blob, checksum, &position, doubtful))?;
        zstd_chunked::understand(blob, &position, &json)
    }
}

/// Reads, and when the bytes are wrong once more, after the blob was told which are in doubt: what `read` noted.
fn twice<T>(blob: &FileRange, read: &dyn Fn(&mut Range<u64>) -> Result<T, TocError>) -> Result<T, TocError> {
    let mut doubtful = 0..blob.len();
    match read(&mut doubtful) {
        Err(error @ (TocError::Bad { .. } | TocError::Mismatch { .. })) => {
            tracing::warn!("{error}: reading it again");
            blob.doubt(doubtful.clone());
            read(&mut doubtful)
        }
        result => result,
    }
}
