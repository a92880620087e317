//! What can go wrong with a table of contents.

use std::io;
use std::path::PathBuf;

use crate::index::{DecodeError, IndexError};
use crate::model::Digest;
use crate::sys::file_range::FileRange;

/// Why a layer cannot be read by its table of contents. It still can be read as a whole.
#[derive(Debug, thiserror::Error)]
pub enum TocError {
    /// The blob could not be read, which says nothing about its bytes.
    #[error("{}: cannot read the table of contents: {source}", path.display())]
    Io {
        /// The file that the layer is in.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not the one that the manifest vouches for.
    #[error("{}: the table of contents is {found}, but the image says {expected}: pull the layer as a whole", path.display())]
    Mismatch {
        /// The file that the layer is in.
        path: PathBuf,
        /// What it must be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// There is none where it should be, or what it says cannot be.
    #[error("{}: no usable table of contents: {reason}: pull the layer as a whole", path.display())]
    Bad {
        /// The file that the layer is in.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An annotation of the layer is malformed.
    #[error("annotation {name} of the layer: {reason}: pull the layer as a whole")]
    Annotation {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

impl TocError {
    pub(super) fn bad(blob: &FileRange, reason: impl Into<String>) -> Self {
        Self::Bad { path: blob.to_path_buf(), reason: reason.into() }
    }

    pub(super) fn io(blob: &FileRange, source: io::Error) -> Self {
        Self::Io { path: blob.to_path_buf(), source }
    }

    pub(super) fn undecoded(blob: &FileRange, error: DecodeError) -> Self {
        match error {
            DecodeError::Io(source) => Self::io(blob, source),
            error @ DecodeError::Bad { .. } => Self::bad(blob, error.to_string()),
        }
    }

    pub(super) fn no_index(blob: &FileRange, error: IndexError) -> Self {
        match error {
            IndexError::Tar { reason, .. } => Self::bad(blob, reason),
            error => Self::bad(blob, error.to_string()),
        }
    }
}
