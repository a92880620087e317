//! Manifests: OCI (image-spec manifest.md, image-index.md), docker schema 2, and `manifest.json` of `docker save`.

use serde::Deserialize;

use crate::model::image_config::null_as_default;
use crate::store::{Descriptor, Index, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const LAYERS: [&str; 6] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// One image for one platform.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Manifest {
    /// The image configuration.
    pub(super) config: Descriptor,
    /// The layers, base first.
    pub(super) layers: Vec<Descriptor>,
}

/// What a descriptor of an image may point to.
#[derive(Clone, Debug)]
pub(super) enum Document {
    /// One image.
    Manifest(Manifest),
    /// A choice.
    Index(Index),
}

/// One image of `docker save`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SavedImage {
    /// Name of the config in the archive.
    pub(super) config: String,
    /// Names of the image.
    #[serde(default, deserialize_with = "null_as_default")]
    pub(super) repo_tags: Vec<String>,
    /// Names of the layers in the archive, base first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub(super) layers: Vec<String>,
}

/// What every manifest says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// Reads a document that a descriptor with this media type points to.
pub(super) fn parse(bytes: &[u8], promised: &str) -> Result<Document, String> {
    let head: Head = serde_json::from_slice(bytes).map_err(|error| format!("not a manifest: {error}"))?;
    if head.schema_version == 1 || head.media_type.starts_with(DOCKER_SCHEMA_1) {
        return Err(
            "docker schema 1 manifests are not supported: copy the image with skopeo, which converts it"
                .into(),
        );
    }
    if head.schema_version != 2 {
        return Err(format!("schemaVersion {} is not supported, only 2", head.schema_version));
    }
    // A document that can be read as either lets two tools see two images (CVE-2021-41190).
    let is_index = match (head.manifests, head.layers) {
        (Some(_), Some(_)) => return Err("it has both \"manifests\" and \"layers\"".into()),
        (Some(_), None) => true,
        (None, Some(_)) => false,
        (None, None) => return Err("it has neither \"manifests\" nor \"layers\"".into()),
    };
    for media_type in [promised, &head.media_type] {
        match media_type {
            "" => {}
            MEDIA_TYPE_INDEX | DOCKER_INDEX if is_index => {}
            MEDIA_TYPE_MANIFEST | DOCKER_MANIFEST if !is_index => {}
            other => return Err(format!("media type {other:?} does not fit what is in it")),
        }
    }
    let read = if is_index {
        serde_json::from_slice(bytes).map(Document::Index)
    } else {
        serde_json::from_slice(bytes).map(Document::Manifest)
    };
    read.map_err(|error| format!("not a manifest: {error}"))
}

/// The media type of a document that was [`parse`]d: what was promised, else what it says itself, else what its form is.
pub(super) fn media_type(bytes: &[u8], promised: &str, document: &Document) -> String {
    if !promised.is_empty() {
        return promised.to_owned();
    }
    let own = serde_json::from_slice(bytes).map(|head: Head| head.media_type).unwrap_or_default();
    match (own.as_str(), document) {
        ("", Document::Manifest(_)) => MEDIA_TYPE_MANIFEST.to_owned(),
        ("", Document::Index(_)) => MEDIA_TYPE_INDEX.to_owned(),
        _ => own,
    }
}

/// Why a layer with this media type cannot be mounted. How it is compressed is told from its bytes, not from here.
pub(super) fn check_layer(media_type: &str) -> Result<(), &'static str> {
    if LAYERS.contains(&media_type) {
        Ok(())
    } else if media_type.contains("encrypted") {
        Err("encrypted layers are not supported: decrypt it with `skopeo copy --decryption-key`")
    } else if media_type.contains("foreign") || media_type.contains("nondistributable") {
        Err("layers that are not part of the image (Windows base images) are not supported")
    } else {
        Err(
            "not a layer that layerfs knows: it reads tar, tar+gzip and tar+zstd layers of OCI and docker images",
        )
    }
}

/// Why a config with this media type is not that of a container image.
pub(super) fn check_config(media_type: &str) -> Result<(), &'static str> {
    if media_type.is_empty() || CONFIGS.contains(&media_type) {
        Ok(())
    } else {
        Err("this is some other artifact, not a container image")
    }
}

/// This machine in Go's words.
#[must_use]
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_that_lie() {
        let error = |text: &str, promised| parse(text.as_bytes(), promised).unwrap_err();
        assert!(error("{}", "").contains("schemaVersion"));
        assert!(error("[", "").contains("not a manifest"));
        assert!(error(r#"{"schemaVersion":1,"layers":[]}"#, "").contains("schema 1"));
        assert!(error(r#"{"schemaVersion":3,"layers":[]}"#, "").contains("schemaVersion 3"));
        assert!(error(r#"{"schemaVersion":2}"#, "").contains("neither"));
        assert!(error(r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#, "").contains("both"));
        assert!(error(r#"{"schemaVersion":2,"manifests":[]}"#, MEDIA_TYPE_MANIFEST).contains("does not fit"));
        assert!(
            error(r#"{"schemaVersion":2,"layers":[],"mediaType":"text/html"}"#, "").contains("text/html")
        );
        let sha512 = r#"{"schemaVersion":2,"manifests":[{"mediaType":"","size":1,"digest":"sha512:00"}]}"#;
        assert!(error(sha512, "").contains("only sha256"));
    }

    #[test]
    fn media_types_of_layers() {
        for known in LAYERS {
            check_layer(known).unwrap();
        }
        assert!(
            check_layer("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")
                .unwrap_err()
                .contains("decrypt")
        );
        assert!(
            check_layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
                .unwrap_err()
                .contains("Windows")
        );
        assert!(check_layer("text/plain").is_err());
        assert!(check_config("application/vnd.cncf.helm.config.v1+json").is_err());
    }
}
