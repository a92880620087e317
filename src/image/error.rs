//! What can go wrong on the way from a text to an image.

use std::io;
use std::path::{Path, PathBuf};

use super::reference::ReferenceError;
use crate::index::IndexError;
use crate::model::Digest;
use crate::registry::RegistryError;
use crate::store::StoreError;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Neither a file nor a name that the store knows.
    #[error(
        "{spec}: no such file, and no image of that name in the store ({}): run `layerfs pull {hint}`", layout.display()
    )]
    NotFound {
        /// What was asked for.
        spec: String,
        /// The store's layout.
        layout: PathBuf,
        /// The name as a registry takes it.
        hint: String,
    },
    /// A path that was said to be one is not there.
    #[error("{spec}: no such file or directory")]
    NoFile {
        /// What was asked for.
        spec: String,
    },
    /// Neither a file nor a possible name.
    #[error("{spec:?}: no such file, and not an image name either: {source}")]
    Reference {
        /// What was asked for.
        spec: String,
        /// What is wrong with it as a name.
        source: ReferenceError,
    },
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
    /// Something that is no image.
    #[error("{}: not an image: {reason}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// How one can tell.
        reason: String,
    },
    /// `docker save | gzip`, which cannot be decompressed into the store.
    #[error(
        "{}: the whole archive is compressed with {format} and has to be decompressed into the store; make that possible, \
         or run `{command}` and use NEW.tar: {source}", path.display()
    )]
    NotImported {
        /// The file.
        path: PathBuf,
        /// How it is compressed.
        format: &'static str,
        /// What undoes it.
        command: String,
        /// Why not.
        source: Box<StoreError>,
    },
    /// A compressed archive that is damaged.
    #[error("{}: damaged {encoding} data: {reason} (at offset {offset}); copy the file again", path.display())]
    Encoded {
        /// The file.
        path: PathBuf,
        /// How it is compressed.
        encoding: &'static str,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// An archive that is damaged.
    #[error("{}: bad archive at offset {offset}: {reason}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// It holds other images.
    #[error("{}: no image {tag:?} in it; it has: {}", path.display(), known(images))]
    NoSuchTag {
        /// The file or directory.
        path: PathBuf,
        /// What was asked for.
        tag: String,
        /// What it has.
        images: Vec<String>,
    },
    /// It holds several images.
    #[error("{}: several images in it, add :NAME to choose one of: {}", path.display(), known(images))]
    Ambiguous {
        /// The file or directory.
        path: PathBuf,
        /// What it has.
        images: Vec<String>,
    },
    /// No variant for this machine.
    #[error("{}: no image for {wanted} in it; it has: {}", path.display(), known(available))]
    Platform {
        /// The file or directory.
        path: PathBuf,
        /// This machine.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// An image for another system.
    #[error("{}: config {config_digest}: an image for {os}, not for linux", path.display())]
    System {
        /// The file or directory.
        path: PathBuf,
        /// The config that says so.
        config_digest: Digest,
        /// For which.
        os: String,
    },
    /// Something that a document refers to is not there.
    #[error("{}: {what} is missing: there is no {} in it; the image is incomplete, copy it again", path.display(), name.escape_debug())]
    Missing {
        /// The file or directory.
        path: PathBuf,
        /// What it is, with its digest.
        what: String,
        /// Its name there.
        name: String,
    },
    /// Bytes that are not what the image promised.
    #[error("{}: {what} is corrupt: expected {expected}, its bytes hash to {actual}; copy the image again", path.display())]
    WrongDigest {
        /// The file or directory.
        path: PathBuf,
        /// Which document.
        what: &'static str,
        /// What was promised.
        expected: Digest,
        /// What is there.
        actual: Digest,
    },
    /// A length that is not what the image promised.
    #[error("{}: {what} {digest} has {actual} bytes, its descriptor says {expected}; copy the image again", path.display())]
    WrongSize {
        /// The file or directory.
        path: PathBuf,
        /// Which blob.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// What was promised.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// Too much of something.
    #[error("{}: {what}: {count}, at most {limit} are accepted", path.display())]
    Limit {
        /// The file or directory.
        path: PathBuf,
        /// Of what.
        what: String,
        /// How much.
        count: u64,
        /// The limit.
        limit: u64,
    },
    /// A document that does not say what it should.
    #[error("{}: {what}: {reason}", path.display())]
    Document {
        /// The file or directory.
        path: PathBuf,
        /// Which document.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A kind of thing that layerfs cannot mount.
    #[error("{}: {what} has media type {media_type:?}: {reason}", path.display())]
    MediaType {
        /// The file or directory.
        path: PathBuf,
        /// Which blob, with its digest.
        what: String,
        /// Its type.
        media_type: String,
        /// Why not.
        reason: &'static str,
    },
    /// Manifest and config contradict each other.
    #[error("{}: the manifest has {layers} layers, its config {config_digest} names {diff_ids}", path.display())]
    LayerCount {
        /// The file or directory.
        path: PathBuf,
        /// Layers in the manifest.
        layers: usize,
        /// The config.
        config_digest: Digest,
        /// Digests in the config.
        diff_ids: usize,
    },
    /// The registry did not have it, or did something strange.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer of a registry that cannot be mounted.
    #[error("{}: layer {digest}: {source}", path.display())]
    Unreadable {
        /// The image.
        path: PathBuf,
        /// The layer.
        digest: Digest,
        /// What is wrong with it.
        source: Box<IndexError>,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImageError {
    /// Whether the image is there, and broken: a new copy would help.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Archive { .. }
                | Self::Encoded { .. }
                | Self::Missing { .. }
                | Self::WrongDigest { .. }
                | Self::WrongSize { .. }
                | Self::Document { .. }
                | Self::LayerCount { .. }
        )
    }

    /// For `map_err`: names what was tried on which file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

fn known(names: &[String]) -> String {
    // An image may be called what it likes; the terminal must not obey it.
    let printable: Vec<_> = names.iter().map(|name| name.escape_debug().to_string()).collect();
    if names.is_empty() { "nothing with a name".to_owned() } else { printable.join(", ") }
}
