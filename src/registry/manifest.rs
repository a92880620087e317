//! Manifests and indexes (distribution-spec, "Pulling manifests").

use sha2::{Digest as _, Sha256};

use super::http::{Answer, Content, Method};
use super::{Registry, RegistryError};
use crate::model::Digest;

/// What the specification asks registries to take, and other clients read.
pub(super) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// What is understood, and old forms so that an error can name them.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Which manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// What has this tag now.
    Tag(String),
    /// This very one.
    Digest(Digest),
}

/// A manifest or an index, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What the registry says that it is, without parameters; empty when it says nothing of use.
    pub media_type: String,
    /// What its bytes hash to.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A manifest that the registry has taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Put {
    pub(super) digest: Digest,
    /// The manifest as whose referrer the registry lists it, if it keeps such lists (`OCI-Subject`).
    pub(super) subject: Option<Digest>,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Registry {
    /// The manifest. Its digest is that of its bytes, and the one that was asked for, or that the registry has told.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub fn manifest(&self, version: &Version) -> Result<Document, RegistryError> {
        let what = self.called(version);
        let answer = self.ask(Method::Get, &self.manifest_path(version), &what, &accepting())?;
        if answer.status != 200 {
            return Err(self.refused(&what, answer));
        }
        let told = told_digest(&answer);
        let media_type = answer.header("content-type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        // Nothing is said by those that call everything JSON or text.
        let media_type = if media_type.starts_with("application/vnd.") { media_type } else { String::new() };
        let bytes = answer.read(MANIFEST_BYTES_MAX).map_err(|error| self.wrong(&what, &error.to_string()))?;
        let limit = || RegistryError::Limit { registry: self.name(), what, limit: MANIFEST_BYTES_MAX };
        let bytes = bytes.ok_or_else(limit)?;
        let digest = digest_of(&bytes);
        let promised = match version {
            Version::Digest(digest) => Some(*digest),
            Version::Tag(_) => told,
        };
        match promised {
            Some(expected) if expected != digest => {
                let (registry, what) = (self.name(), "manifest");
                Err(RegistryError::WrongDigest { registry, what, expected, actual: digest })
            }
            _ => Ok(Document { media_type, digest, bytes }),
        }
    }

    /// The digest of the manifest, without fetching it; `None` when the registry does not tell it.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub fn manifest_digest(&self, version: &Version) -> Result<Option<Digest>, RegistryError> {
        let what = self.called(version);
        let answer = self.ask(Method::Head, &self.manifest_path(version), &what, &accepting())?;
        match answer.status {
            200 => Ok(told_digest(&answer)),
            // Not everybody has HEAD.
            405 | 501 => Ok(None),
            _ => Err(self.refused(&what, answer)),
        }
    }

    /// Gives the repository a manifest or an index, all parts of which it has. Returns its digest, which the registry has
    /// confirmed.
    ///
    /// # Errors
    /// [`RegistryError`], also [`RegistryError::OtherDigest`].
    pub fn put_manifest(
        &self,
        version: &Version,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        Ok(self.put(version, media_type, bytes)?.digest)
    }

    /// The same, and tells what the registry made of it.
    pub(super) fn put(
        &self,
        version: &Version,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Put, RegistryError> {
        let what = self.called(version);
        let url = self.base.at(&self.manifest_path(version));
        let headers = [("content-type", media_type.to_owned())];
        let answer = self.ask_url(Method::Put, &url, &what, &headers, || Content::Bytes(bytes))?;
        if !(200..=204).contains(&answer.status) {
            return Err(self.refused(&what, answer));
        }
        let digest = digest_of(bytes);
        let subject = answer.header("oci-subject").and_then(|told| told.trim().parse().ok());
        // The specification says that it should tell, not that it must.
        let told =
            told_digest(&answer).map_or_else(|| self.manifest_digest(version), |told| Ok(Some(told)))?;
        match told {
            Some(told) if told != digest => Err(self.other_digest(what, digest, told)),
            _ => Ok(Put { digest, subject }),
        }
    }

    fn called(&self, version: &Version) -> String {
        let separator = if matches!(version, Version::Tag(_)) { ':' } else { '@' };
        format!("{}{separator}{version}", self.endpoint.repository)
    }

    fn manifest_path(&self, version: &Version) -> String {
        format!("/v2/{}/manifests/{version}", self.endpoint.repository)
    }
}

pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn accepting() -> [(&'static str, String); 1] {
    [("accept", ACCEPTED.to_owned())]
}

fn told_digest(answer: &Answer) -> Option<Digest> {
    answer.header("docker-content-digest")?.trim().parse().ok()
}
