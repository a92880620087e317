//! An image in the store: its manifest and its names, and the media types of what it is made of.

use std::collections::BTreeMap;

use serde_json::json;

use super::oci_layout;

use crate::index::Encoding;
use crate::layer::TarSource;
use crate::model::Digest;
use crate::store::{Descriptor, MEDIA_TYPE_MANIFEST, Store, StoreError};
use crate::sys::file_range::FileRange;

/// Media type of the configs of OCI images.
pub(super) const MEDIA_TYPE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MEDIA_TYPE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image that is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The image's id.
    pub config_digest: Digest,
    /// What its name leads to.
    pub manifest_digest: Digest,
}

/// Writes an image whose layers are in the store and names it; without a name it is called by its config's digest.
///
/// # Errors
/// [`StoreError`]
pub fn write(
    store: &Store,
    config: &[u8],
    layers: &[Descriptor],
    name: Option<&str>,
) -> Result<Written, StoreError> {
    let config = put(store, MEDIA_TYPE_CONFIG, config)?;
    let manifest = put(store, MEDIA_TYPE_MANIFEST, &manifest(&config, layers))?;
    let own_name = config.digest.to_string();
    let name = name.unwrap_or(&own_name).to_owned();
    oci_layout::give_names(store, &BTreeMap::from([(name, manifest.clone())]))?;
    Ok(Written { config_digest: config.digest, manifest_digest: manifest.digest })
}

/// The descriptor of a layer that is in the store when this returns.
///
/// # Errors
/// [`StoreError`], also when the layer is not what it should be.
pub fn write_layer(store: &Store, tar: &TarSource) -> Result<Descriptor, StoreError> {
    let blobs = store.blobs();
    let (digest, size) = match tar.blob_digest {
        Some(digest) if blobs.has(digest)? => (digest, tar.blob.len()),
        Some(digest) => (digest, blobs.put(digest, &mut tar.blob.reader())?),
        None => blobs.put_unnamed(&mut tar.blob.reader())?,
    };
    let read = |source| StoreError::Io { action: "read", path: blobs.path(digest), source };
    let encoding = encoding_of(&blobs.get(digest)?).map_err(read)?;
    Ok(Descriptor::new(layer_type(encoding), digest, size))
}

/// The manifest of an image (image-spec manifest.md), the same bytes for the same image.
pub(super) fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "config": config,
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}

/// The media type of a layer. For xz and bzip2 there is none: such a layer is as a plain one to who reads only the type.
pub(super) fn layer_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Encoding::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        Encoding::Tar | Encoding::Xz | Encoding::Bzip2 => MEDIA_TYPE_LAYER,
    }
}

/// How a file is compressed, told by its first bytes.
pub(super) fn encoding_of(file: &FileRange) -> std::io::Result<Encoding> {
    let mut start = [0; Encoding::SNIFF_BYTES];
    let count = file.read_at(0, &mut start)?;
    Ok(Encoding::of(&start[..count]))
}

fn put(store: &Store, media_type: &str, bytes: &[u8]) -> Result<Descriptor, StoreError> {
    let (digest, size) = store.blobs().put_unnamed(&mut &bytes[..])?;
    Ok(Descriptor::new(media_type, digest, size))
}
