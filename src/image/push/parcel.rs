//! What an image is sent as.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::super::files::{Directory, Files as _, read_document};
use super::super::manifest::{self, Document, Manifest};
use super::super::{Image, ImageError, Stored};
use super::{PushError, written};
use crate::layer::LayerSource;
use crate::model::Digest;
use crate::store::{Index, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST, Store};
use crate::sys::file_range::FileRange;

/// Manifests below one index: one for each platform that Go knows, and as many attestations.
const CHILDREN_MAX: usize = 128;

/// An image as a registry takes it.
#[derive(Debug)]
pub struct Parcel {
    /// Configs and layers, each once.
    pub(super) pieces: Vec<Piece>,
    /// The manifests below the top, in an order in which each comes after what it refers to.
    pub(super) children: Vec<Paper>,
    /// What gets the tag.
    pub(super) top: Paper,
}

/// A blob.
#[derive(Debug)]
pub struct Piece {
    /// Config or layer.
    pub what: &'static str,
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    pub(in crate::image) place: Place,
}

/// Where a blob is.
#[derive(Debug)]
pub(in crate::image) enum Place {
    Memory(Vec<u8>),
    File(FileRange),
    /// A file, opened when it is needed.
    Closed(PathBuf),
    /// A blob of the store, opened when it is needed.
    Store,
}

/// A manifest or an index.
#[derive(Debug)]
pub(in crate::image) struct Paper {
    pub(in crate::image) digest: Digest,
    pub(in crate::image) media_type: String,
    pub(in crate::image) bytes: Vec<u8>,
}

impl Parcel {
    /// The parts of an image. One of the store that its name found in an index goes with that, if all of it is there.
    ///
    /// # Errors
    /// [`PushError::Unfit`] for what is no image of a registry, and [`PushError::Image`] when something cannot be read.
    pub fn of(image: &Image, store: &Store) -> Result<Self, PushError> {
        if let Some(index) = &image.documents.index
            && is_stored(image, store)
            && let Some(parcel) = whole(index, store)?
        {
            return Ok(parcel);
        }
        let layers = image.layers.iter().map(|layer| match layer {
            LayerSource::Tar(tar) => Ok(tar),
            LayerSource::Directory(_) => Err(PushError::Unfit {
                image: image.name.clone(),
                reason:
                    "a plain directory is not an image with layers: make one of it with `layerfs build` first"
                        .into(),
            }),
        });
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let Some(manifest) = &image.documents.manifest else {
            return written::parcel(image, &layers);
        };
        let mut pieces = Pieces::default();
        for tar in layers {
            let digest = tar.blob_digest.unwrap_or(tar.diff_id);
            let place = if store.blobs().path(digest) == tar.blob.path() {
                Place::Store
            } else {
                Place::File(tar.blob.clone())
            };
            pieces.add(Piece { what: "layer", digest, size: tar.blob.len(), place });
        }
        pieces.add(config(image));
        Ok(Self { pieces: pieces.all, children: Vec::new(), top: Paper::of(manifest) })
    }

    /// Its configs and layers.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The digest of what gets the tag.
    pub(in crate::image) fn digest(&self) -> Digest {
        self.top.digest
    }

    /// The manifests of single images: the one on top, or those below it.
    pub(in crate::image) fn manifests(&self) -> &[Paper] {
        if self.children.is_empty() { std::slice::from_ref(&self.top) } else { &self.children }
    }
}

impl Paper {
    fn of(stored: &Stored) -> Self {
        let (digest, bytes) = (stored.descriptor.digest, stored.bytes.clone());
        Self { digest, media_type: media_type(&stored.descriptor.media_type, &bytes), bytes }
    }
}

/// The config of an image, which is in memory.
pub(super) fn config(image: &Image) -> Piece {
    let bytes = image.documents.config.clone();
    let size = bytes.len() as u64;
    Piece { what: "config", digest: image.config_digest, size, place: Place::Memory(bytes) }
}

/// Each blob once: images repeat layers, and share them.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) all: Vec<Piece>,
    known: HashSet<Digest>,
}

impl Pieces {
    pub(super) fn add(&mut self, piece: Piece) {
        if self.known.insert(piece.digest) {
            self.all.push(piece);
        }
    }
}

/// What a document is, in the words of whoever led to it, else in its own, else by what is in it.
fn media_type(promised: &str, bytes: &[u8]) -> String {
    if !promised.is_empty() {
        return promised.to_owned();
    }
    let document: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    match document.get("mediaType").and_then(serde_json::Value::as_str) {
        Some(own) => own.to_owned(),
        None if document.get("manifests").is_some() => MEDIA_TYPE_INDEX.to_owned(),
        None => MEDIA_TYPE_MANIFEST.to_owned(),
    }
}

/// Whether an image is one of the store.
#[must_use]
pub fn is_stored(image: &Image, store: &Store) -> bool {
    let place =
        image.source.strip_prefix("oci:").and_then(|rest| rest.rsplit_once(":@")).map(|(place, _)| place);
    place.map(Path::new) == Some(store.oci_dir().as_path())
}

/// An index and all that it refers to; `None` when something of it is not there, as of most that were pulled.
fn whole(top: &Stored, store: &Store) -> Result<Option<Parcel>, PushError> {
    let files = Directory(store.oci_dir());
    let mut pieces = Pieces::default();
    let mut children = Vec::new();
    let wrong = |what: Digest, reason| ImageError::Document {
        path: files.0.clone(),
        what: format!("manifest {what}"),
        reason,
    };
    let Ok(Document::Index(Index { manifests, .. })) =
        manifest::parse(&top.bytes, &top.descriptor.media_type)
    else {
        return Ok(None);
    };
    if manifests.len() > CHILDREN_MAX {
        let (path, what) = (files.0.clone(), "manifests in one index that is pushed".to_owned());
        let (count, limit) = (manifests.len() as u64, CHILDREN_MAX as u64);
        return Err(ImageError::Limit { path, what, count, limit }.into());
    }
    for child in manifests {
        let name = format!("blobs/sha256/{}", child.digest.hex());
        let Some(range) = files.open(&name)? else { return Ok(None) };
        let (bytes, actual) = read_document(&files, &range, "manifest")?;
        if actual != child.digest {
            let (path, what, expected) = (files.0.clone(), "manifest", child.digest);
            return Err(ImageError::WrongDigest { path, what, expected, actual }.into());
        }
        // Nobody writes an index below an index; it is not followed, but its platform is pushed.
        let document = manifest::parse(&bytes, &child.media_type);
        let Document::Manifest(parts) = document.map_err(|reason| wrong(child.digest, reason))? else {
            return Ok(None);
        };
        if !add(&mut pieces, &parts, store)? {
            return Ok(None);
        }
        let media_type = media_type(&child.media_type, &bytes);
        children.push(Paper { digest: child.digest, media_type, bytes });
    }
    Ok(Some(Parcel { pieces: pieces.all, children, top: Paper::of(top) }))
}

/// Whether all that a manifest refers to is in the store.
fn add(pieces: &mut Pieces, parts: &Manifest, store: &Store) -> Result<bool, PushError> {
    let layers = parts.layers.iter().map(|layer| ("layer", layer));
    for (what, part) in layers.chain([("config", &parts.config)]) {
        match std::fs::metadata(store.blobs().path(part.digest)) {
            Ok(metadata) if metadata.len() == part.size => {}
            _ => return Ok(false),
        }
        pieces.add(Piece { what, digest: part.digest, size: part.size, place: Place::Store });
    }
    Ok(true)
}
