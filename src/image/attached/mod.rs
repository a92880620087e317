//! The indexes of an image's layers, attached to its manifest in a registry: who has one can mount without a pass over the layers.
//!
//! An artifact (image-spec manifest.md, "Guidelines for Artifact Usage") whose `subject` is the manifest of one image for one
//! platform, and whose layers are the indexes, each compressed with zstd.
//!
//! **Whom it is believed.** Whoever can push to a repository can attach an index to any image in it. The image's manifest does not
//! vouch for it, and an index says what the names, the owners and the bytes of a layer are. So one is used only if the user has named the
//! artifact's digest, which holds all that is in it. None of it goes where the store keeps the indexes that were made of verified
//! bytes.

use serde::Deserialize;
use serde_json::json;

use super::ImageError;
use crate::model::Digest;
use crate::model::limits::IMAGE_LAYERS_MAX;
use crate::store::{Descriptor, MEDIA_TYPE_MANIFEST};

mod fetch;
mod push;
#[cfg(test)]
mod tests;

pub use fetch::{Attached, fetch};
pub use push::Attachments;

/// What such an artifact is.
pub const ARTIFACT_TYPE: &str = "application/vnd.layerfs.index.v1";
/// An index in it.
const MEDIA_TYPE_PACKED: &str = "application/vnd.layerfs.index.v1+zstd";
/// The config of what has none (image-spec manifest.md, "Guidance for an Empty Descriptor").
const MEDIA_TYPE_EMPTY: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";

/// Of which layer an index is: the digest of its blob.
const LAYER_DIGEST: &str = "org.layerfs.layer.digest";
/// Its length in bytes, decompressed.
const INDEX_SIZE: &str = "org.layerfs.index.size";
/// The version of its format.
const INDEX_VERSION: &str = "org.layerfs.index.version";
/// [`LayerIndex::checksum`](crate::index::LayerIndex::checksum), in hex: whether a file is this index is known without reading all of it.
const INDEX_CHECKSUM: &str = "org.layerfs.index.checksum";

/// A compressed index takes 1 % of a layer, and layers have 10 GiB: this is ten times as much.
const PACKED_BYTES_MAX: u64 = 1 << 30;
/// More than that of ten million entries and 100 GiB takes.
const INDEX_BYTES_MAX: u64 = 4 << 30;

/// An index in an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// The layer's blob.
    layer: Digest,
    /// Bytes of the index.
    bytes: u64,
    version: u32,
    checksum: [u8; 32],
    /// The compressed index.
    packed: Digest,
    packed_bytes: u64,
}

/// The manifest of an artifact, as far as it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    artifact_type: String,
    subject: Option<Descriptor>,
    layers: Vec<Descriptor>,
}

/// The document of an artifact: the same bytes for the same indexes.
fn document(subject: &Descriptor, parts: &[Part]) -> Vec<u8> {
    let layer = |part: &Part| {
        json!({
            "mediaType": MEDIA_TYPE_PACKED,
            "digest": part.packed,
            "size": part.packed_bytes,
            "annotations": {
                LAYER_DIGEST: part.layer,
                INDEX_SIZE: part.bytes.to_string(),
                INDEX_VERSION: part.version.to_string(),
                INDEX_CHECKSUM: Digest::from_bytes(part.checksum).hex(),
            },
        })
    };
    let layers: Vec<_> = parts.iter().map(layer).collect();
    // Keys are sorted.
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": { "mediaType": MEDIA_TYPE_EMPTY, "digest": empty_digest(), "size": EMPTY.len() },
        "layers": layers,
        "subject": { "mediaType": subject.media_type, "digest": subject.digest, "size": subject.size },
    });
    manifest.to_string().into_bytes()
}

/// What is in an artifact; `None` if it is none of ours, or refers to something else.
fn parse(bytes: &[u8], subject: Digest) -> Result<Option<Vec<Part>>, String> {
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|error| format!("not a manifest: {error}"))?;
    let refers = manifest.subject.is_some_and(|descriptor| descriptor.digest == subject);
    if manifest.schema_version != 2 || manifest.artifact_type != ARTIFACT_TYPE || !refers {
        return Ok(None);
    }
    if manifest.layers.len() > IMAGE_LAYERS_MAX {
        return Err(format!("{} indexes, at most {IMAGE_LAYERS_MAX} are accepted", manifest.layers.len()));
    }
    manifest.layers.iter().map(part).collect::<Result<_, _>>().map(Some)
}

fn part(descriptor: &Descriptor) -> Result<Part, String> {
    let Descriptor { digest: packed, size: packed_bytes, .. } = *descriptor;
    let wrong = |reason: String| format!("index {packed}: {reason}");
    if descriptor.media_type != MEDIA_TYPE_PACKED {
        return Err(wrong(format!("its media type {:?} is not {MEDIA_TYPE_PACKED}", descriptor.media_type)));
    }
    let said =
        |key: &str| descriptor.annotation(key).ok_or_else(|| wrong(format!("it has no annotation {key}")));
    let unclear = |key: &str| wrong(format!("its annotation {key} makes no sense"));
    let layer = said(LAYER_DIGEST)?.parse().map_err(|_| unclear(LAYER_DIGEST))?;
    let bytes = said(INDEX_SIZE)?.parse().map_err(|_| unclear(INDEX_SIZE))?;
    let version = said(INDEX_VERSION)?.parse().map_err(|_| unclear(INDEX_VERSION))?;
    let checksum = Digest::from_hex(said(INDEX_CHECKSUM)?).map_err(|_| unclear(INDEX_CHECKSUM))?;
    for (what, bytes, limit) in
        [("compressed ", packed_bytes, PACKED_BYTES_MAX), ("", bytes, INDEX_BYTES_MAX)]
    {
        if bytes > limit {
            return Err(wrong(format!("{bytes} {what}bytes, at most {limit} are accepted")));
        }
    }
    Ok(Part { layer, bytes, version, checksum: *checksum.as_bytes(), packed, packed_bytes })
}

fn empty_digest() -> Digest {
    digest_of(EMPTY)
}

fn digest_of(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}
