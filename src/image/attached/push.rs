//! Indexes on their way to a registry. They are made and compressed before anything is sent: what fails here is heard first.

use std::collections::BTreeMap;
use std::io::{self, Write};

use sha2::{Digest as _, Sha256};
use zstd::stream::write::Encoder;

use super::super::files::Directory;
use super::super::manifest::{self, Document};
use super::super::push::{Paper, Parcel, Piece, Place, PushError, Pusher};
use super::super::{Image, ImageError, Sought, oci_layout};
use super::{ARTIFACT_TYPE, EMPTY, INDEX_BYTES_MAX, PACKED_BYTES_MAX, Part, document, empty_digest};
use crate::index::{IndexError, LayerIndex, VERSION};
use crate::layer::LayerSource;
use crate::model::Digest;
use crate::mount::{Caches, IndexedLayer, MountError, MountSpec, Progress};
use crate::registry::Attachment;
use crate::store::{Descriptor, MEDIA_TYPE_MANIFEST, Store};
use crate::sys::atomic::{ClosedTempFile, TempFile};

/// A tenth smaller than the usual 3, and still faster than most lines.
const ZSTD_LEVEL: i32 = 9;

/// What is attached to images of the store, archives and layouts.
#[derive(Debug)]
pub struct Attachments<'a> {
    store: &'a Store,
    /// By layer: images share them.
    packed: BTreeMap<Digest, Packed>,
    /// By the manifest that they refer to.
    artifacts: BTreeMap<Digest, Artifact>,
}

/// A compressed index, which goes with this.
#[derive(Debug)]
struct Packed {
    part: Part,
    file: ClosedTempFile,
}

#[derive(Debug)]
struct Artifact {
    layers: Vec<Digest>,
    bytes: Vec<u8>,
}

impl<'a> Attachments<'a> {
    /// Nothing yet.
    #[must_use]
    pub fn new(store: &'a Store) -> Self {
        Self { store, packed: BTreeMap::new(), artifacts: BTreeMap::new() }
    }

    /// Makes the indexes of what is to be pushed, as far as they are missing: those of the image, or of each platform of it if all
    /// are pushed. What an index names besides images (provenance, other systems) is passed over. `progress` is told of layers that
    /// are indexed.
    ///
    /// # Errors
    /// [`PushError`]
    pub fn add(&mut self, image: &Image, parcel: &Parcel, progress: &dyn Progress) -> Result<(), PushError> {
        for paper in parcel.manifests() {
            if self.artifacts.contains_key(&paper.digest) {
                continue;
            }
            let layers = if paper.digest == parcel.digest() {
                image.layers.clone()
            } else {
                match self.layers_of(paper)? {
                    Some(layers) => layers,
                    None => continue,
                }
            };
            let artifact = self.artifact(paper, layers, progress)?;
            self.artifacts.extend(artifact.map(|artifact| (paper.digest, artifact)));
        }
        Ok(())
    }

    /// Attaches them to what was pushed of the parcel. Returns the digests of the artifacts' manifests. What the registry has is not
    /// sent.
    ///
    /// # Errors
    /// [`PushError`]
    pub fn push(&self, pusher: &mut Pusher<'_>, parcel: &Parcel) -> Result<Vec<Digest>, PushError> {
        let mut attached = Vec::new();
        for paper in parcel.manifests() {
            let Some(artifact) = self.artifacts.get(&paper.digest) else { continue };
            let packed = artifact.layers.iter().filter_map(|layer| self.packed.get(layer));
            let mut pieces: Vec<Piece> = packed.map(Packed::piece).collect();
            let (digest, size) = (empty_digest(), EMPTY.len() as u64);
            pieces.push(Piece { what: "config", digest, size, place: Place::Memory(EMPTY.to_vec()) });
            pusher.deliver(&pieces)?;
            let attachment = Attachment {
                subject: paper.digest,
                artifact_type: ARTIFACT_TYPE,
                media_type: MEDIA_TYPE_MANIFEST,
                bytes: &artifact.bytes,
            };
            let digest = pusher.registry().attach(&attachment)?;
            if !attached.contains(&digest) {
                attached.push(digest);
            }
        }
        Ok(attached)
    }

    /// The layers of an image of the store that an index names; `None` for anything else.
    fn layers_of(&self, paper: &Paper) -> Result<Option<Vec<LayerSource>>, PushError> {
        let Ok(Document::Manifest(parts)) = manifest::parse(&paper.bytes, &paper.media_type) else {
            return Ok(None);
        };
        let is_image = manifest::check_config(&parts.config.media_type).is_ok()
            && parts.layers.iter().all(|layer| manifest::check_layer(&layer.media_type).is_ok());
        if !is_image {
            return Ok(None);
        }
        let layout = Directory(self.store.oci_dir());
        let descriptor = Descriptor::new(&paper.media_type, paper.digest, paper.bytes.len() as u64);
        let name = paper.digest.to_string();
        match oci_layout::open_descriptor(&layout, descriptor, name, "oci", &Sought::default()) {
            Ok(image) => Ok(Some(image.layers)),
            Err(ImageError::System { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What refers to this manifest; `None` if there is nothing to be indexed.
    fn artifact(
        &mut self,
        paper: &Paper,
        layers: Vec<LayerSource>,
        progress: &dyn Progress,
    ) -> Result<Option<Artifact>, PushError> {
        let index_dir = self.store.index_dir();
        let spec = MountSpec { layers, index_dir, caches: Caches::default() };
        let mut digests = Vec::new();
        for layer in spec.build_ahead(progress)? {
            if !self.packed.contains_key(&layer.blob_digest) {
                let packed = match self.pack(&layer) {
                    // A damaged one is gone when this is told.
                    Err(PushError::Index(MountError::Index { source, .. })) if source.needs_build() => {
                        tracing::warn!("{source}: it is built again");
                        spec.build_ahead(progress)?;
                        self.pack(&layer)
                    }
                    packed => packed,
                };
                self.packed.insert(layer.blob_digest, packed?);
            }
            if !digests.contains(&layer.blob_digest) {
                digests.push(layer.blob_digest);
            }
        }
        if digests.is_empty() {
            return Ok(None);
        }
        let parts: Vec<Part> =
            digests.iter().filter_map(|layer| self.packed.get(layer)).map(|packed| packed.part).collect();
        let subject = Descriptor::new(&paper.media_type, paper.digest, paper.bytes.len() as u64);
        Ok(Some(Artifact { layers: digests, bytes: document(&subject, &parts) }))
    }

    fn pack(&self, layer: &IndexedLayer) -> Result<Packed, PushError> {
        let failed = |source| MountError::Index { layer: layer.layer, source: Box::new(source) };
        let index = LayerIndex::open(&layer.index).map_err(failed)?;
        let whole = index.whole().map_err(failed)?;
        let dir = self.store.index_dir();
        let unwritten = |source| ImageError::io("write to", &dir)(source);
        let mut file = TempFile::create_in(&dir).map_err(unwritten)?;
        let (packed, packed_bytes) = compress(whole, file.file()).map_err(unwritten)?;
        let file = file.close();
        if index.has_fault() {
            let (path, source) = (layer.index.clone(), io::Error::other("a part of it cannot be read"));
            return Err(failed(IndexError::Io { path, source }).into());
        }
        let (bytes, checksum) = (whole.len() as u64, index.checksum());
        for (what, count, limit) in [
            ("bytes in the index of a layer", bytes, INDEX_BYTES_MAX),
            ("bytes in the compressed index of a layer", packed_bytes, PACKED_BYTES_MAX),
        ] {
            if count > limit {
                let (path, what) = (layer.index.clone(), what.to_owned());
                return Err(ImageError::Limit { path, what, count, limit }.into());
            }
        }
        let layer = index.blob_digest();
        let part = Part { layer, bytes, version: VERSION, checksum, packed, packed_bytes };
        Ok(Packed { part, file })
    }
}

#[cfg(test)]
impl Attachments<'_> {
    /// The manifests of the artifacts, by what they refer to.
    pub(super) fn documents(&self) -> BTreeMap<Digest, Vec<u8>> {
        self.artifacts.iter().map(|(subject, artifact)| (*subject, artifact.bytes.clone())).collect()
    }
}

impl Packed {
    fn piece(&self) -> Piece {
        let Part { packed: digest, packed_bytes: size, .. } = self.part;
        Piece { what: "index", digest, size, place: Place::Closed(self.file.path().to_owned()) }
    }
}

/// Writes it compressed: the digest and the length of what was written.
pub(super) fn compress(bytes: &[u8], file: impl Write) -> io::Result<(Digest, u64)> {
    let mut encoder = Encoder::new(Hashed { file, sha256: Sha256::new(), bytes: 0 }, ZSTD_LEVEL)?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    encoder.write_all(bytes)?;
    let written = encoder.finish()?;
    Ok((Digest::from_bytes(written.sha256.finalize().into()), written.bytes))
}

/// A file that is hashed while it is written.
struct Hashed<W> {
    file: W,
    sha256: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.sha256.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
