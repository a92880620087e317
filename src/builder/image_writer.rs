//! A built image in the store: its blobs, its config and manifest, its name.

use serde_json::json;

use super::{BuildError, Built};
use crate::layer::{LayerSource, TarSource};
use crate::model::ImageConfig;
use crate::store::{Descriptor, MEDIA_TYPE_MANIFEST, Store, StoreError};

const MEDIA_TYPE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MEDIA_TYPE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// How a compressed layer begins, and what that adds to its media type.
const COMPRESSIONS: [(&[u8], &str); 2] = [(b"\x1f\x8b", "+gzip"), (b"\x28\xb5\x2f\xfd", "+zstd")];

/// Writes the image and names it; without a name it is called by its config's digest.
pub(super) fn write(
    store: &Store,
    config: &ImageConfig,
    layers: &[LayerSource],
    name: Option<&str>,
) -> Result<Built, BuildError> {
    let tars = layers.iter().filter_map(|layer| match layer {
        LayerSource::Tar(tar) => Some(tar),
        // Refused as a base image.
        LayerSource::Directory(_) => None,
    });
    let layers = tars.map(|tar| layer(store, tar)).collect::<Result<Vec<_>, StoreError>>()?;
    let config = put(store, MEDIA_TYPE_CONFIG, &serde_json::to_vec(config)?)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "config": config,
        "layers": layers,
    });
    let manifest = put(store, MEDIA_TYPE_MANIFEST, &serde_json::to_vec(&manifest)?)?;
    let own_name = config.digest.to_string();
    store.refs().set(name.unwrap_or(&own_name), &manifest)?;
    Ok(Built { config_digest: config.digest, manifest_digest: manifest.digest })
}

/// The descriptor of a layer that is in the store when this returns.
fn layer(store: &Store, tar: &TarSource) -> Result<Descriptor, StoreError> {
    let blobs = store.blobs();
    let (digest, size) = match tar.blob_digest {
        Some(digest) if blobs.has(digest)? => (digest, tar.blob.len()),
        Some(digest) => (digest, blobs.put(digest, &mut tar.blob.reader())?),
        None => blobs.put_unnamed(&mut tar.blob.reader())?,
    };
    let mut head = [0; 4];
    let length = blobs.get(digest)?.read_at(0, &mut head).map_err(|source| StoreError::Io {
        action: "read",
        path: blobs.path(digest),
        source,
    })?;
    let compression = COMPRESSIONS.iter().find(|(magic, _)| head[..length].starts_with(magic));
    let suffix = compression.map_or("", |(_, suffix)| suffix);
    Ok(Descriptor::new(&format!("{MEDIA_TYPE_LAYER}{suffix}"), digest, size))
}

fn put(store: &Store, media_type: &str, bytes: &[u8]) -> Result<Descriptor, StoreError> {
    let (digest, size) = store.blobs().put_unnamed(&mut &bytes[..])?;
    Ok(Descriptor::new(media_type, digest, size))
}
