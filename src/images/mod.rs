//! Row 10: the images of the store as people manage them: lists, names, removal. What an image is, and which there are, is
//! known in [`crate::image`]; here it is put together with who uses them. Nothing is printed here.
//!
//! Locks: who gives a name holds the store's lock with others, who removes holds it alone, and `index.json` is replaced as a
//! whole under its own. Of a removal the names go first, then blobs, documents before what they lead to: whoever is killed in
//! between leaves blobs that nothing leads to, which `image prune` takes, and never a name that leads nowhere.

pub mod checking;
pub mod filter;
mod glob;
pub mod history;
pub mod naming;
pub mod pruning;
pub mod removal;
mod users;
pub mod view;

pub use users::{Users, claim};

use std::time::Duration;

use crate::container::{ContainerError, ContainerId};
use crate::image::CatalogError;
use crate::image::reference::ReferenceError;
use crate::store::StoreError;

/// How long a removal waits for those who hold the store: all but who builds or brings an image hold it for moments.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// There is no such image, or several.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A container is made of it.
    #[error(
        "{text}: image is in use by container {}: remove that first, or give --force, which takes the image's names away only",
        containers.iter().map(ContainerId::short).collect::<Vec<_>>().join(", ")
    )]
    InUse {
        /// What was typed.
        text: String,
        /// The containers.
        containers: Vec<ContainerId>,
    },
    /// An id, where there are several names.
    #[error("unable to delete image {id:?} by ID with more than one tag ({}): please force removal", names.join(", "))]
    SeveralNames {
        /// What was typed.
        id: String,
        /// All names.
        names: Vec<String>,
    },
    /// A name of something else, or of nothing.
    #[error("{name}: tag not known: it is no name of image {image}")]
    OtherName {
        /// What was typed.
        name: String,
        /// The image that was meant.
        image: String,
    },
    /// A text that cannot name an image.
    #[error("{name:?} cannot be the name of an image: {source}")]
    Reference {
        /// The text.
        name: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// A name with a digest.
    #[error("{0}: a name that is given cannot have a digest: leave out what begins with @")]
    Digest(String),
    /// What was asked for makes no sense.
    #[error(transparent)]
    Filter(#[from] filter::FilterError),
    /// The containers cannot be looked through.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImagesError {
    /// Whether there is no such image.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Catalog(CatalogError::Unknown(_)))
    }

    /// Whether others use the store.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Store(StoreError::Busy { .. }))
    }

    /// Whether a container uses it.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse { .. })
    }
}
