//! What can go wrong in a layer.

use std::{fmt, io};

use crate::model::{BlobOffset, Digest, EntryId, TarOffset};

/// Why a layer could not answer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Bytes that are not what the image promised.
    #[error("layer {diff_id}: corrupt data at offset {place}: {reason}")]
    Corrupt {
        /// The layer.
        diff_id: Digest,
        /// Where in it.
        place: Place,
        /// What was wrong with them.
        reason: String,
    },
    /// The index contradicts itself or names an entry that is not there.
    #[error("layer {layer}: bad entry {}: {reason}", entry.0)]
    BadEntry {
        /// The layer, for people.
        layer: String,
        /// The entry.
        entry: EntryId,
        /// What was wrong.
        reason: &'static str,
    },
    /// The file below could not be read.
    #[error("layer {layer}: {source}")]
    Io {
        /// The layer, for people.
        layer: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A place in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In its uncompressed bytes.
    Tar(TarOffset),
    /// In its bytes as delivered: all that is known when they alone are read.
    Blob(BlobOffset),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tar(offset) => write!(f, "{} of the uncompressed layer", offset.0),
            Self::Blob(offset) => write!(f, "{} of the compressed layer", offset.0),
        }
    }
}
