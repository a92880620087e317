//! What can go wrong in the store.

use std::io;
use std::path::{Path, PathBuf};

use crate::model::Digest;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else's directory: they could change what we verified.
    #[error("store {} belongs to uid {owner}, not to uid {caller}: set LAYERFS_ROOT to a directory of your own", path.display())]
    Owner {
        /// The store.
        path: PathBuf,
        /// Who has it.
        owner: u32,
        /// Who asks.
        caller: u32,
    },
    /// Others may write to it.
    #[error("store {} can be written to by others (mode {mode:04o}): run chmod go-w on it", path.display())]
    Writable {
        /// The store.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The bytes are not those that were promised.
    #[error("expected a blob with digest {expected}, got {actual} ({bytes} bytes)")]
    WrongDigest {
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
        /// How many bytes came.
        bytes: u64,
    },
    /// A blob that something refers to.
    #[error("blob {digest} is missing: there is no file {}", path.display())]
    Missing {
        /// Which one.
        digest: Digest,
        /// Where it should be.
        path: PathBuf,
    },
    /// A text that cannot name an image.
    #[error(
        "{name:?} is not a valid image name: only letters, digits and - . _ : @ / + [ ] are allowed, at most 255"
    )]
    Name {
        /// The text.
        name: String,
    },
    /// A document that does not say what it should.
    #[error("{}: {reason}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody is at work.
    #[error("store {} is in use by another process: try again when it is done", path.display())]
    Busy {
        /// The store.
        path: PathBuf,
    },
}

impl StoreError {
    /// For `map_err`: names what was tried on which file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
