//! The manifest of an image that has none: that of an archive of `docker save`.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::super::Image;
use super::super::import::encoding_of;
use super::parcel::{Paper, Parcel, Piece, Pieces, Place, config};
use super::{ImageError, PushError};
use crate::index::Encoding;
use crate::layer::TarSource;
use crate::model::Digest;
use crate::store::MEDIA_TYPE_MANIFEST;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Layers go as they lie, plain tars as plain tars: their digest is known then without reading them, and the manifest is the
/// same each time.
pub(super) fn parcel(image: &Image, layers: &[&TarSource]) -> Result<Parcel, PushError> {
    let mut pieces = Pieces::default();
    let mut descriptors = Vec::with_capacity(layers.len());
    for tar in layers {
        let encoding = encoding_of(&tar.blob)?;
        let suffix = match encoding {
            Encoding::Tar => "",
            Encoding::Gzip => "+gzip",
            Encoding::Zstd => "+zstd",
            other => {
                let reason = format!(
                    "the layer with diffID {} is compressed with {}, for which registries have no name: \
                     run `skopeo copy docker-archive:ARCHIVE docker://NAME`, which compresses it again",
                    tar.diff_id,
                    other.name()
                );
                return Err(PushError::Unfit { image: image.name.clone(), reason });
            }
        };
        let digest = match (tar.blob_digest, encoding) {
            (Some(digest), _) => digest,
            (None, Encoding::Tar) => tar.diff_id,
            (None, _) => tar.blob.digest().map_err(ImageError::io("read", tar.blob.path()))?,
        };
        let (size, place) = (tar.blob.len(), Place::File(tar.blob.clone()));
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        descriptors.push(json!({ "mediaType": media_type, "digest": digest, "size": size }));
        pieces.add(Piece { what: "layer", digest, size, place });
    }
    let config = config(image);
    // Keys are sorted: the same image gets the same bytes.
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "config": { "mediaType": CONFIG, "digest": config.digest, "size": config.size },
        "layers": descriptors,
    });
    pieces.add(config);
    let bytes = manifest.to_string().into_bytes();
    let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
    let top = Paper { digest, media_type: MEDIA_TYPE_MANIFEST.to_owned(), bytes };
    Ok(Parcel { pieces: pieces.all, children: Vec::new(), top })
}
