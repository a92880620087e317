//! Row 8: from the text that a user typed to an image: its config, and where its layers are.
//!
//! Nothing is copied or unpacked. Archives are walked by their headers, blobs become ranges of the files they lie in; only an
//! archive that is compressed as a whole is decompressed into the store first, once.
//! Every document (manifest, index, config) is verified against its digest here; the bytes of layers are verified by
//! whoever reads them.

use std::path::{Path, PathBuf};

use crate::layer::LayerSource;
use crate::model::{Digest, ImageConfig};
use crate::store::Store;

mod archive;
pub mod attached;
pub mod catalog;
mod describe;
mod docker_archive;
mod documents;
mod error;
pub mod facts;
mod facts_kept;
mod files;
mod import;
pub mod lazy;
mod load;
mod manifest;
mod oci_layout;
mod oldest_archive;
mod open;
mod parallel;
mod platform;
pub mod pull;
pub mod push;
pub mod reference;
mod rootfs;
mod save;
mod seen;
mod write;

pub use catalog::{Catalog, CatalogError, StoredImage};
pub use describe::created_by;
pub use documents::{Broken, Decompressing, Documents, Sought, Stored};
pub use error::ImageError;
pub use facts::Facts;
pub use facts_kept::is_damaged as facts_are_damaged;
pub use load::{LoadSource, Loaded, NewLayer, load, take_layer};
pub use manifest::host_architecture;
pub use open::{named, open, open_sought};
pub use platform::{PlatformError, TargetPlatform};
pub use reference::Reference;
pub use save::{SaveFormat, Saving};
pub use write::{Written, write, write_layer};

use archive::Archive;
use files::{Directory, Files, absent};

/// An image, ready to be mounted.
#[derive(Clone, Debug)]
pub struct Image {
    /// What people call it.
    pub name: String,
    /// What [`open`] takes to find this very image again, whatever happens to its name and to the working directory.
    pub source: String,
    /// How to run it.
    pub config: ImageConfig,
    /// The digest of the config document. (A plain directory: of its path.)
    pub config_digest: Digest,
    /// The layers, base first.
    pub layers: Vec<LayerSource>,
    /// What the image says of itself beyond that.
    pub documents: Documents,
}

#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod import_tests;
#[cfg(test)]
mod oldest_tests;
#[cfg(test)]
mod tests;
