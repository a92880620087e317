//! Images from registries into the store: what is missing, and nothing else.
//!
//! Documents come first, layers side by side, the name last. A layer is indexed while it is downloaded: who builds the index
//! reads the file that grows. Several platforms of an image have one name, which leads to their index; only the manifest of
//! the one that is wanted is fetched.

mod layers;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::files::Files;
use super::manifest::{self, Document, Manifest};
use super::oci_layout::{self, INDEX_DEPTH_MAX};
use super::seen::Seen;
use super::{ImageError, Reference, TargetPlatform};
use crate::model::limits::DOCUMENT_BYTES_MAX;
use crate::model::{Digest, ImageConfig};
use crate::registry::{self, Endpoint, Patience, Registry, RegistryError, Version, Wanted};
use crate::store::{Descriptor, Store};
use crate::sys::atomic;
use crate::sys::file_range::FileRange;

/// What is to be pulled, and from where.
#[derive(Clone, Debug)]
pub struct PullSpec {
    /// The image.
    pub reference: Reference,
    /// For which platform; `None` is this machine.
    pub platform: Option<TargetPlatform>,
    /// Where it may be had, in the order in which they are asked; the registry itself last.
    pub endpoints: Vec<Endpoint>,
    /// How long is waited.
    pub patience: Patience,
}

/// What is in the store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The name that leads to it.
    pub name: String,
    /// The image's id: the digest of its config.
    pub config_digest: Digest,
    /// What the name leads to: the digest of the manifest, or of the index of several.
    pub digest: Digest,
    /// Whether that is something else than before.
    pub is_new: bool,
}

/// Hears how it goes. Called from several threads.
pub trait Pulling: Debug + Sync {
    /// These are the layers, base first; each is told of once.
    fn layers(&self, layers: &[Descriptor]);
    /// What is known of a layer.
    fn layer(&self, digest: Digest, state: LayerState);
}

/// How far a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// It was in the store.
    Known,
    /// Another process is at it, and has so many bytes.
    Elsewhere(u64),
    /// So many bytes are there.
    Received(u64),
    /// It is in the store now.
    Complete,
}

/// Brings an image into the store and gives it its name.
///
/// # Errors
/// [`ImageError`], mostly [`ImageError::Registry`]; what was downloaded completely, or in part, is used the next time.
pub fn pull(store: &Store, spec: &PullSpec, progress: &dyn Pulling) -> Result<Pulled, ImageError> {
    let _lock = store.lock()?;
    let (name, before) = known(store, &spec.reference)?;
    let version = version(&spec.reference);
    let (source, document) = at_first(store, spec, |source| source.top(&version, before.is_some()))?;
    let Found { named: descriptor, manifest, .. } = source.descend(document, &spec.platform)?;
    let (config, config_digest) = source.config(&manifest)?;
    source.some_layers(&manifest, &config, progress, &|_| true)?;
    let (host, repository, parts) = source.place_and_parts(&manifest);
    Seen::of(store).note(&host, &repository, parts.into_iter());
    let is_new = before != Some(descriptor.digest);
    // What another process has published may be known by its name, but not lie there yet after a power cut.
    let dir = store.blobs().dir().to_owned();
    atomic::sync_dir(&dir).map_err(ImageError::io("flush", &dir))?;
    store.refs().set(&name, &descriptor)?;
    Ok(Pulled { name, config_digest, digest: descriptor.digest, is_new })
}

/// Whether the registry has something else under this name than the store has. Also when the store has nothing.
///
/// # Errors
/// [`ImageError::Registry`] when it cannot be asked.
pub fn is_newer(store: &Store, spec: &PullSpec) -> Result<bool, ImageError> {
    let (_, Some(known)) = known(store, &spec.reference)? else { return Ok(true) };
    let version = version(&spec.reference);
    let (_, theirs) = at_first(store, spec, |source| Ok(source.registry.manifest_digest(&version)?))?;
    // Who does not tell it may have anything.
    Ok(theirs != Some(known))
}

/// The repository's tags, at most so many.
///
/// # Errors
/// [`ImageError::Registry`]
pub fn tags(store: &Store, spec: &PullSpec, limit: usize) -> Result<Vec<String>, ImageError> {
    Ok(at_first(store, spec, |source| Ok(source.registry.tags(limit)?))?.1)
}

/// What the first endpoint answers that has an answer; else the last one's error.
pub(super) fn at_first<'a, T>(
    store: &'a Store,
    spec: &PullSpec,
    ask: impl Fn(&Source<'a>) -> Result<T, ImageError>,
) -> Result<(Source<'a>, T), ImageError> {
    let place = PathBuf::from(format!("docker://{}", spec.reference));
    let mut failed = None;
    for endpoint in &spec.endpoints {
        let answer = Registry::open(endpoint, spec.patience).map_err(ImageError::from).and_then(|registry| {
            let source = Source { store, registry, place: Remote(place.clone()) };
            let answer = ask(&source)?;
            Ok((source, answer))
        });
        match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    tracing::warn!("{earlier}");
                }
            }
        }
    }
    let nowhere = || {
        let registry = spec.reference.host().to_owned();
        ImageError::Registry(RegistryError::Settings {
            registry,
            reason: "no place to pull it from".to_owned(),
        })
    };
    Err(failed.unwrap_or_else(nowhere))
}

/// The name that the image has in the store, or will have, and what it leads to.
pub(super) fn known(store: &Store, reference: &Reference) -> Result<(String, Option<Digest>), ImageError> {
    let wanted = reference.essential();
    let is_it = |name: &str| name.parse::<Reference>().is_ok_and(|name| name.essential() == wanted);
    // Other tools may have written it in full.
    let known = store.refs().list()?.into_iter().find(|(name, _)| is_it(name));
    Ok(known.map_or_else(|| (wanted.familiar(), None), |(name, descriptor)| (name, Some(descriptor.digest))))
}

pub(super) fn version(reference: &Reference) -> Version {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Version::Digest(digest),
        (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
    }
}

/// The image's name where messages have a path.
#[derive(Debug)]
struct Remote(PathBuf);

impl Files for Remote {
    fn place(&self) -> &Path {
        &self.0
    }

    fn open(&self, _: &str) -> Result<Option<FileRange>, ImageError> {
        Ok(None)
    }
}

/// Where an image comes from and goes to.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) store: &'a Store,
    pub(super) registry: Registry,
    place: Remote,
}

/// The documents of an image, which are stored.
#[derive(Debug)]
pub(super) struct Found {
    /// What the name leads to: the manifest, or an index.
    pub(super) named: Descriptor,
    /// The manifest.
    pub(super) own: Descriptor,
    pub(super) manifest: Manifest,
}

impl Source<'_> {
    /// The document that the name leads to. What is known is not fetched again if the registry tells its digest beforehand.
    pub(super) fn top(
        &self,
        version: &Version,
        may_be_known: bool,
    ) -> Result<registry::Document, ImageError> {
        let known = match version {
            Version::Digest(digest) => Some(*digest),
            Version::Tag(_) if may_be_known => self.registry.manifest_digest(version)?,
            Version::Tag(_) => None,
        };
        if let Some(digest) = known
            && let Some(bytes) = self.stored(digest)?
        {
            return Ok(registry::Document { media_type: String::new(), digest, bytes });
        }
        Ok(self.registry.manifest(version)?)
    }

    /// Registry and repository, and all that the manifest refers to.
    pub(super) fn place_and_parts(&self, manifest: &Manifest) -> (String, String, Vec<Digest>) {
        let parts = manifest.layers.iter().chain([&manifest.config]).map(|part| part.digest);
        (self.registry.name(), self.registry.repository().to_owned(), parts.collect())
    }

    /// From what the name leads to down to one manifest.
    pub(super) fn descend(
        &self,
        top: registry::Document,
        platform: &Option<TargetPlatform>,
    ) -> Result<Found, ImageError> {
        let platform = platform.clone().unwrap_or_else(TargetPlatform::host);
        let registry::Document { mut media_type, mut digest, mut bytes } = top;
        let mut named = None;
        for _ in 0..INDEX_DEPTH_MAX {
            let what = || format!("manifest {digest}");
            let document =
                manifest::parse(&bytes, &media_type).map_err(|reason| self.wrong(what(), reason))?;
            let media = manifest::media_type(&bytes, &media_type, &document);
            let own = Descriptor::new(&media, digest, bytes.len() as u64);
            self.store.blobs().put(digest, &mut &bytes[..])?;
            let named = &*named.get_or_insert_with(|| own.clone());
            let index = match document {
                Document::Manifest(manifest) => return Ok(Found { named: named.clone(), own, manifest }),
                Document::Index(index) => index,
            };
            let next = oci_layout::for_platform(&self.place, &index.manifests, &platform)?;
            bytes = match self.stored(next.digest)? {
                Some(bytes) => bytes,
                None => self.fetched(next)?,
            };
            if bytes.len() as u64 != next.size {
                let (path, what) = (self.place.0.clone(), "manifest");
                let (expected, actual) = (next.size, bytes.len() as u64);
                return Err(ImageError::WrongSize { path, what, digest: next.digest, expected, actual });
            }
            (media_type, digest) = (next.media_type.clone(), next.digest);
        }
        let reason = format!("more than {INDEX_DEPTH_MAX} indexes in each other");
        Err(self.wrong(format!("index {digest}"), reason))
    }

    /// A manifest that an index names. What the registry calls it must be what the index calls it.
    fn fetched(&self, wanted: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let document = self.registry.manifest(&Version::Digest(wanted.digest))?;
        let what = || format!("manifest {}", wanted.digest);
        manifest::parse(&document.bytes, &document.media_type)
            .map_err(|reason| self.wrong(what(), reason))?;
        Ok(document.bytes)
    }

    /// The image's config, which is stored.
    pub(super) fn config(&self, manifest: &Manifest) -> Result<(ImageConfig, Digest), ImageError> {
        let media_type = |what: &str, descriptor: &Descriptor, reason| ImageError::MediaType {
            path: self.place.0.clone(),
            what: format!("{what} {}", descriptor.digest),
            media_type: descriptor.media_type.clone(),
            reason,
        };
        manifest::check_config(&manifest.config.media_type)
            .map_err(|reason| media_type("config", &manifest.config, reason))?;
        for layer in &manifest.layers {
            manifest::check_layer(&layer.media_type).map_err(|reason| media_type("layer", layer, reason))?;
        }
        let digest = manifest.config.digest;
        let bytes = match self.stored(digest)? {
            Some(bytes) => bytes,
            None => self.small_blob(&manifest.config)?,
        };
        let config = oci_layout::parse_config(&self.place, &bytes, digest)?;
        oci_layout::check_layers(&self.place, manifest.layers.len(), &config, digest)?;
        Ok((config, digest))
    }

    fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let Descriptor { digest, size, .. } = *descriptor;
        if size > DOCUMENT_BYTES_MAX {
            let (path, what) = (self.place.0.clone(), "bytes in config".to_owned());
            return Err(ImageError::Limit { path, what, count: size, limit: DOCUMENT_BYTES_MAX });
        }
        let mut bytes = Vec::new();
        self.registry.blob(Wanted { what: "config", digest, size, start: 0 }, &mut |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        let actual = digest_of(&bytes);
        if actual != digest {
            let (registry, what) = (self.registry.name(), "config");
            return Err(RegistryError::WrongDigest { registry, what, expected: digest, actual }.into());
        }
        self.store.blobs().put(digest, &mut &bytes[..])?;
        Ok(bytes)
    }

    /// A document that the store has, and that is what it should be.
    fn stored(&self, digest: Digest) -> Result<Option<Vec<u8>>, ImageError> {
        let path = self.store.blobs().path(digest);
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() && found.len() <= DOCUMENT_BYTES_MAX => {}
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ImageError::io("read", &path)(error));
            }
            _ => return Ok(None),
        }
        let bytes = std::fs::read(&path).map_err(ImageError::io("read", &path))?;
        Ok(Some(bytes).filter(|bytes| digest_of(bytes) == digest))
    }

    fn wrong(&self, what: String, reason: String) -> ImageError {
        ImageError::Document { path: self.place.0.clone(), what, reason }
    }
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests;
