//! Documents of the OCI image layout (image-spec image-layout.md, image-index.md, descriptor.md), as far as the store
//! and images read them. Fields nobody here knows are kept, so that rewriting `index.json` loses nothing of other tools.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::Digest;

/// The contents of the file `oci-layout`.
pub const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The annotation that names an image in `index.json`.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Containerd and docker write the whole name here.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Media type of an image manifest.
pub const MEDIA_TYPE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index.
pub const MEDIA_TYPE_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Points to a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is. Required by the specification; a missing one is read as empty.
    #[serde(default)]
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Free-form; [`REF_NAME`] is one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// What it runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture, in Go's words.
    #[serde(default)]
    pub architecture: String,
    /// Operating system, in Go's words.
    #[serde(default)]
    pub os: String,
    /// Everything else (variant, features).
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An index: `index.json`, or one image for several platforms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What it points to.
    pub manifests: Vec<Descriptor>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Descriptor {
    /// A descriptor without anything optional.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let media_type = media_type.to_owned();
        Self { media_type, digest, size, annotations: None, platform: None, other: Map::new() }
    }

    /// The value of an annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The name that `index.json` gives it.
    #[must_use]
    pub fn ref_name(&self) -> Option<&str> {
        self.annotation(REF_NAME)
    }

    /// What it is called: containerd and docker write the whole name into an annotation of their own, and only the tag into the
    /// standard one.
    #[must_use]
    pub fn full_name(&self) -> Option<&str> {
        self.annotation(CONTAINERD_NAME).or(self.ref_name())
    }

    /// The same without a name.
    #[must_use]
    pub fn nameless(mut self) -> Self {
        if let Some(annotations) = &mut self.annotations {
            annotations.remove(REF_NAME);
            annotations.remove(CONTAINERD_NAME);
        }
        self.annotations = self.annotations.filter(|annotations| !annotations.is_empty());
        self
    }
}

impl Index {
    /// An index of nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { schema_version: 2, manifests: Vec::new(), other: Map::new() }
    }

    /// Takes a name from what has it, as it is written in either annotation; what has no other then stays without one. Returns
    /// whether anything had it.
    pub fn take_name(&mut self, name: &str) -> bool {
        self.take_names(|one| one.full_name() == Some(name) || one.ref_name() == Some(name))
    }

    /// The same of all entries of which that holds.
    pub fn take_names(&mut self, has_it: impl Fn(&Descriptor) -> bool) -> bool {
        let mut rest = Vec::with_capacity(self.manifests.len());
        let mut taken = Vec::new();
        for one in std::mem::take(&mut self.manifests) {
            if one.full_name().is_some() && has_it(&one) {
                taken.push(one.nameless())
            } else {
                rest.push(one)
            }
        }
        let had = !taken.is_empty();
        for one in taken {
            if !rest.iter().any(|other: &Descriptor| other.digest == one.digest) {
                rest.push(one);
            }
        }
        self.manifests = rest;
        had
    }
}
