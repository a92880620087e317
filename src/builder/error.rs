//! What can go wrong with a build.

use std::io;
use std::path::PathBuf;

use super::dockerfile::DockerfileError;
use crate::container::ContainerError;
use crate::container::running::RunError;
use crate::fs::FsError;
use crate::image::reference::ReferenceError;
use crate::mount::MountError;
use crate::store::StoreError;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file that the build begins with.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The Dockerfile is not understood, or wants what is not there.
    #[error("{}: {source}", path.display())]
    Dockerfile {
        /// The file.
        path: PathBuf,
        /// Which line and why.
        source: DockerfileError,
    },
    /// The name for the image.
    #[error("-t {name}: {source}")]
    Name {
        /// As given.
        name: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// An instruction could not be carried out.
    #[error("line {line}: {text}: {source}")]
    Step {
        /// Its line.
        line: usize,
        /// The instruction.
        text: String,
        /// Why.
        source: Box<StepError>,
    },
    /// The image could not be written into the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A document could not be written.
    #[error("the image's documents: {0}")]
    Document(#[from] serde_json::Error),
}

/// Why an instruction could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It asks for something that cannot be.
    #[error("{0}")]
    Asked(String),
    /// The command ended like this.
    #[error("the command ended with exit code {0}")]
    Failed(u8),
    /// The base image.
    #[error("{0}")]
    Base(super::BaseError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The step's container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The step's container could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The layers.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The image's files.
    #[error("the image's files: {0}")]
    Fs(#[from] FsError),
    /// The layer could not be written.
    #[error("the layer of this step: {0}")]
    Layer(io::Error),
    /// A file of the build context.
    #[error("{}: {source}", path.display())]
    Context {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl BuildError {
    /// Whether it was a command of the Dockerfile that failed, and not the building.
    #[must_use]
    pub fn is_failed_command(&self) -> bool {
        let Self::Step { source, .. } = self else { return false };
        match &**source {
            StepError::Failed(_) => true,
            // Not found, or not executable.
            StepError::Run(error) => error.exit_code() != crate::launcher::EXIT_LAUNCHER,
            _ => false,
        }
    }
}

impl StepError {
    pub(super) fn context(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Context { path: path.to_owned(), source }
    }
}

impl From<String> for StepError {
    fn from(reason: String) -> Self {
        Self::Asked(reason)
    }
}
