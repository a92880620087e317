//! Where a layer's bytes are: what an image hands over and a mount opens.

use std::path::PathBuf;
use std::sync::Arc;

use super::Toc;
use crate::index::LayerIndex;
use crate::model::Digest;
use crate::sys::file_range::FileRange;

/// One layer of an image, not opened yet.
#[derive(Clone, Debug)]
pub enum LayerSource {
    /// A tar, compressed or not.
    Tar(TarSource),
    /// A plain directory, used as it is.
    Directory(PathBuf),
}

/// A tar somewhere in a file.
#[derive(Clone, Debug)]
pub struct TarSource {
    /// The bytes as delivered.
    pub blob: FileRange,
    /// What they must hash to, when the manifest says it (docker-archive does not).
    pub blob_digest: Option<Digest>,
    /// What they must hash to uncompressed.
    pub diff_id: Digest,
    /// Where it is said what is in it.
    pub known_by: KnownBy,
}

impl TarSource {
    /// One that is known by the index that is kept of it.
    #[must_use]
    pub fn new(blob: FileRange, blob_digest: Option<Digest>, diff_id: Digest) -> Self {
        Self { blob, blob_digest, diff_id, known_by: KnownBy::OwnIndex }
    }
}

/// Where it is said what is in a layer.
#[derive(Clone, Debug, Default)]
pub enum KnownBy {
    /// In the index that is kept of it, made of its bytes.
    #[default]
    OwnIndex,
    /// In an index that somebody else made, who is trusted.
    Index(Arc<LayerIndex>),
    /// In a table of contents that the manifest vouches for.
    Toc(Toc),
}
