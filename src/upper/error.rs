//! What can go wrong in the writable layer.

use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::io::Errno;

/// Why the upper could not do something.
#[derive(Debug, thiserror::Error)]
pub enum UpperError {
    /// A system call failed; the operation left nothing half done.
    #[error("upper: {operation}: {source}")]
    System {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: Errno,
    },
    /// Another mount has this upper.
    #[error("{}: in use by another mount: unmount that one first", .0.display())]
    InUse(PathBuf),
    /// The directories cannot hold an upper.
    #[error("{}: {operation}: {source}", path.display())]
    Unusable {
        /// Which directory.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: Errno,
    },
    /// Kernel overlayfs refuses it too.
    #[error(
        "{}: the last mount was volatile, and changes may have been lost: remove volatile and work/incompat/volatile in it to use what is left",
        .0.display()
    )]
    Volatile(PathBuf),
    /// It belongs to other layers: its numbers would mean other files.
    #[error(
        "{}: made with other layers, where {made_with}, and here {these}: mount it over those it was made with, or let layerfs complete copy into it what it shares with those and then mount it over these, or use a new upper",
        path.display()
    )]
    OtherLayers {
        /// The upper.
        path: PathBuf,
        /// In what its layers differ from these.
        made_with: String,
        /// In what these differ from its layers.
        these: String,
    },
    /// A mark that says where something came from cannot be read.
    #[error("{}: damaged mark {mark}: remove the attribute with setfattr -x, or the object", path.display())]
    Mark {
        /// The object.
        path: PathBuf,
        /// The extended attribute.
        mark: String,
    },
    /// Somebody else wrote the upper, or with other rights, in a form that would be misunderstood here.
    #[error("{}: {problem}: {remedy}", path.display())]
    Form {
        /// What it is about.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What its owner can do.
        remedy: &'static str,
    },
}

impl UpperError {
    /// Whether the filesystem has no room: none at all, or none for an attribute of this size (setxattr(2)).
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        matches!(self.errno(), Errno::NOSPC | Errno::DQUOT | Errno::TOOBIG | Errno::RANGE)
    }

    /// The errno of the system call that failed; `EIO` for a damaged mark and a form that is not understood.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::System { source, .. } | Self::Unusable { source, .. } => *source,
            Self::InUse(_) => Errno::BUSY,
            Self::Volatile(_) | Self::OtherLayers { .. } => Errno::INVAL,
            Self::Mark { .. } | Self::Form { .. } => Errno::IO,
        }
    }
}

impl UpperError {
    /// A damaged mark on the object behind a descriptor.
    pub(super) fn damaged(pinned: impl AsFd, name: &[u8], mark: &str) -> Self {
        Self::Mark { path: super::handle::path_of(pinned, name), mark: mark.to_owned() }
    }
}

/// Puts the operation beside the errno.
pub(super) trait At<T> {
    fn at(self, operation: &'static str) -> Result<T, UpperError>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, operation: &'static str) -> Result<T, UpperError> {
        self.map_err(|source| UpperError::System { operation, source })
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, operation: &'static str) -> Result<T, UpperError> {
        self.map_err(|error| UpperError::System {
            operation,
            source: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })
    }
}
