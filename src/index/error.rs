//! What can go wrong with an index.

use std::io;
use std::path::{Path, PathBuf};

use crate::model::Digest;

/// Why an index could not be built or used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// There is no usable index: damaged, cut short, or of another version. Building it again is the remedy.
    #[error("{}: not a usable layer index: {reason}", path.display())]
    Stale {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system's word.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The blob is not what its encoding promises, or asks for more than is accepted.
    #[error("{}: bad {encoding} data at offset {offset}: {reason}", path.display())]
    Encoded {
        /// The file that the layer is in.
        path: PathBuf,
        /// The compression.
        encoding: &'static str,
        /// Where in the blob.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The uncompressed layer is not a tar that can be a layer.
    #[error("{}: bad tar at offset {offset}{}: {reason}", path.display(), quoted(name))]
    Tar {
        /// The file that the layer is in.
        path: PathBuf,
        /// Where in the uncompressed layer.
        offset: u64,
        /// The entry, when it had a name.
        name: Vec<u8>,
        /// What is wrong.
        reason: String,
    },
    /// The bytes are not those that the manifest names.
    #[error("{}: {what} is {found}, but the image says {expected}: copy the image again", path.display())]
    Mismatch {
        /// The file that the layer is in.
        path: PathBuf,
        /// Which digest.
        what: &'static str,
        /// What it must be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// More than layerfs is willing to handle.
    #[error("{}: the layer has more than {limit} {unit}", path.display())]
    Limit {
        /// The file that the layer is in.
        path: PathBuf,
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
}

impl IndexError {
    pub(super) const OTHER_VERSION: &str = "another version";

    /// Whether an index is whole, but of another version than this program's.
    #[must_use]
    pub fn is_other_version(&self) -> bool {
        matches!(self, Self::Stale { reason, .. } if *reason == Self::OTHER_VERSION)
    }

    /// Whether it is an error of reading or writing this file.
    #[must_use]
    pub fn is_of(&self, file: &Path) -> bool {
        matches!(self, Self::Io { path, .. } if path == file)
    }

    /// Whether [`build`](super::build) is the remedy: there is no index, or none that can be used.
    #[must_use]
    pub fn needs_build(&self) -> bool {
        match self {
            Self::Stale { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

fn quoted(name: &[u8]) -> String {
    if name.is_empty() { String::new() } else { format!(" (\"{}\")", name.escape_ascii()) }
}
