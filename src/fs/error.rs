//! Where errors become errno: here, once.

use rustix::io::Errno;

use crate::layer::LayerError;
use crate::model::Ino;
use crate::model::name::NameError;
use crate::upper::UpperError;

/// Why an operation on the filesystem failed.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// Nothing under that name.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// The directory still holds names.
    #[error("directory not empty")]
    NotEmpty,
    /// Not a directory where one is needed.
    #[error("not a directory")]
    NotADirectory,
    /// A directory where none may be.
    #[error("is a directory")]
    IsADirectory,
    /// The mount is read-only.
    #[error("read-only file system")]
    ReadOnly,
    /// A directory that cannot move, because others who read the upper could not follow it. Programs copy then.
    #[error("a directory of the layers is not renamed where others read the upper")]
    CrossDevice,
    /// An argument that makes no sense for this object.
    #[error("invalid argument")]
    Invalid,
    /// Not allowed to anyone.
    #[error("operation not permitted")]
    NotPermitted,
    /// This filesystem, or this mode of it, does not have the operation.
    #[error("operation not supported")]
    NotSupported,
    /// Nobody minds that this is not done; the kernel then never asks for it again, and tells programs that it was.
    #[error("not needed")]
    NotNeeded,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// Nothing but holes, or data, from there on (lseek(2)).
    #[error("no such offset")]
    NoOffset,
    /// What a file shares with a layer cannot be had from there.
    #[error(
        "a file of the upper shares content with a file of a layer that is not there, or may be another one: mount it over the layers that it was made with, as they were then (in a directory even chmod, links and cp -a count as changes), or remove the file"
    )]
    LayerChanged,
    /// The kernel asks for a node that it was never given, or gave back.
    #[error("inode {}: unknown", .0.0)]
    Stale(Ino),
    /// The object of the upper is not where it was put: somebody changes the directory behind the mount.
    #[error("inode {}: its file in the upper is gone: the directory was changed behind the mount", .0.0)]
    Lost(Ino),
    /// A name that no filesystem takes.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A layer could not answer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The upper could not do it.
    #[error(transparent)]
    Upper(#[from] UpperError),
    /// An open file of the upper could not be read or written.
    #[error("upper: {operation}: {source}")]
    File {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: Errno,
    },
}

impl FsError {
    /// What the program that asked is told. Damage is logged here, because an errno cannot say what was damaged.
    #[must_use]
    pub fn errno(&self) -> Errno {
        let errno = match self {
            Self::NotFound => Errno::NOENT,
            Self::Exists => Errno::EXIST,
            Self::NotEmpty => Errno::NOTEMPTY,
            Self::NotADirectory => Errno::NOTDIR,
            Self::IsADirectory => Errno::ISDIR,
            Self::ReadOnly => Errno::ROFS,
            Self::CrossDevice => Errno::XDEV,
            Self::Invalid | Self::Name(NameError::Invalid) => Errno::INVAL,
            Self::NotPermitted => Errno::PERM,
            Self::NotSupported => Errno::OPNOTSUPP,
            Self::NotNeeded => Errno::NOSYS,
            Self::NoAttribute => Errno::NODATA,
            Self::NoOffset => Errno::NXIO,
            Self::Stale(_) => Errno::STALE,
            Self::Lost(_) | Self::LayerChanged | Self::Layer(_) => Errno::IO,
            Self::Name(NameError::TooLong) => Errno::NAMETOOLONG,
            Self::Upper(error) => error.errno(),
            Self::File { source, .. } => *source,
        };
        if matches!(errno, Errno::IO | Errno::STALE) {
            tracing::error!("{self}");
        }
        errno
    }
}

/// Puts the operation beside the errno of a call on an open file.
pub(super) trait OnFile<T> {
    fn on_file(self, operation: &'static str) -> Result<T, FsError>;
}

impl<T> OnFile<T> for std::io::Result<T> {
    fn on_file(self, operation: &'static str) -> Result<T, FsError> {
        self.map_err(|error| FsError::File {
            operation,
            source: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })
    }
}

impl<T> OnFile<T> for rustix::io::Result<T> {
    fn on_file(self, operation: &'static str) -> Result<T, FsError> {
        self.map_err(|source| FsError::File { operation, source })
    }
}
