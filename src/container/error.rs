//! What can go wrong with containers.

use std::io;
use std::path::{Path, PathBuf};

use super::ContainerId;
use crate::launcher::UserNamespaceError;

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
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
    /// Neither a name nor the beginning of an id.
    #[error("no such container: {0}")]
    NotFound(String),
    /// The beginning of several ids.
    #[error("{prefix} is the beginning of several container ids: {}", ids.iter().map(|id| id.short()).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// What begins with it.
        ids: Vec<ContainerId>,
    },
    /// A text that cannot be a name.
    #[error(
        "{0:?} is not a container name: it begins with a letter or digit, then come letters, digits, _ . -, at most 255 in all"
    )]
    Name(String),
    /// A rename that changes nothing.
    #[error("renaming a container to the name that it has: {0}")]
    SameName(String),
    /// So many containers that no random name is free.
    #[error("no free container name after {0} attempts: give one with --name")]
    NoFreeName(u32),
    /// Somebody has it.
    #[error("the container name {name} is in use by container {}: remove that, or choose another name", owner.short())]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        owner: ContainerId,
    },
    /// A process holds it.
    #[error("container {} ({name}) is {what}: {hint}", id.short())]
    InUse {
        /// Which.
        id: ContainerId,
        /// Its name.
        name: String,
        /// What it is doing.
        what: &'static str,
        /// What to do.
        hint: String,
    },
    /// It has no program that could be sent a signal.
    #[error("container {} ({name}) is not running", id.short())]
    NotRunning {
        /// Which.
        id: ContainerId,
        /// Its name.
        name: String,
    },
    /// Ids that the caller does not have.
    #[error(transparent)]
    UserNamespace(#[from] UserNamespaceError),
    /// No volume has this name.
    #[error("no such volume: {0}")]
    NoVolume(String),
    /// Containers use it, running or not.
    #[error("volume {name} is used by {users}: remove these containers first")]
    VolumeInUse {
        /// Which.
        name: String,
        /// Their names.
        users: String,
    },
    /// None of its processes may run.
    #[error("container {} ({name}) is paused: unpause it first", id.short())]
    Paused {
        /// Which.
        id: ContainerId,
        /// Its name.
        name: String,
    },
    /// Its processes may run.
    #[error("container {} ({name}) is not paused", id.short())]
    NotPaused {
        /// Which.
        id: ContainerId,
        /// Its name.
        name: String,
    },
    /// It cannot be paused.
    #[error(
        "container {} ({name}) cannot be paused: it has no control group of version 2 (this host gave none when it was started)",
        id.short()
    )]
    NoCgroup {
        /// Which.
        id: ContainerId,
        /// Its name.
        name: String,
    },
    /// A document that does not say what it should.
    #[error("{}: {source}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl ContainerError {
    /// Whether the files belong to somebody else.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// For `map_err`: names what was tried on which file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// For `map_err`: names the document.
    pub(super) fn document(path: &Path) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Document { path: path.to_owned(), source }
    }
}
