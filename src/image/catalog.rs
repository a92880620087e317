//! The images of the store with their names: what `images` lists, and what a name, an id or a digest means.
//!
//! An image is told by its id, the digest of its config. Entries of `index.json` whose documents cannot be read are images of
//! their own, by the digest of the entry: they are there, can be removed, and nothing else is known of them.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;

use super::facts::{self, Facts};
use super::oci_layout::{self, ATTESTATION};
use super::platform::TargetPlatform;
use super::reference::{self, Reference};
use super::{ImageError, facts_kept};
use crate::model::Digest;
use crate::store::{Descriptor, Store, StoreError};

/// All images of a store.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The youngest first; of equals by their id.
    pub images: Vec<StoredImage>,
}

/// One image.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// The digest of its config; of one that cannot be read that of its entry.
    pub id: Digest,
    /// What `index.json` has of it, in that order.
    pub entries: Vec<Entry>,
    /// What is known of it.
    pub facts: Option<Facts>,
    /// Why nothing is.
    pub broken: Option<String>,
}

/// An entry of `index.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The manifest or index that it leads to.
    pub digest: Digest,
    /// What it is called.
    pub name: Option<Name>,
}

/// A name as it is written, and as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// As it is in `index.json`.
    pub written: String,
    /// As people write it, harmless to a terminal.
    pub shown: String,
    /// The same without the tag.
    pub repository: String,
    /// The tag.
    pub tag: Option<String>,
    /// What it means, if it is a reference.
    pub reference: Option<Reference>,
}

/// Why a text means no image.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Nothing is called so.
    #[error("{0}: image not known")]
    Unknown(String),
    /// Several ids begin so.
    #[error("{text}: several images have an id that begins so: {}", ids.iter().map(Digest::hex).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was typed.
        text: String,
        /// Their ids.
        ids: Vec<Digest>,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a text means.
#[derive(Clone, Copy, Debug)]
pub struct Meant<'a> {
    /// The image.
    pub image: &'a StoredImage,
    /// The name, if the text is one; else it is an id or a digest.
    pub name: Option<&'a Name>,
}

impl Name {
    fn of(descriptor: &Descriptor) -> Option<Self> {
        let written = descriptor.full_name()?;
        // What was built without a name is called by its id.
        if written.parse::<Digest>().is_ok() {
            return None;
        }
        let reference: Option<Reference> = written.parse().ok();
        let shown = reference::familiar(written);
        let (repository, tag) = match &reference {
            Some(reference) => (reference.familiar_repository(), reference.tag().map(str::to_owned)),
            None => (shown.clone(), None),
        };
        Some(Self { written: written.to_owned(), shown, repository, tag, reference })
    }

    /// Whether that is what was meant.
    fn means(&self, wanted: &Reference) -> bool {
        let Some(own) = &self.reference else { return false };
        own.host() == wanted.host() && own.path() == wanted.path() && own.tag() == wanted.tag()
    }
}

impl StoredImage {
    /// Its names.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.entries.iter().filter_map(|entry| entry.name.as_ref())
    }

    /// Whether no name leads to it.
    #[must_use]
    pub fn is_dangling(&self) -> bool {
        self.names().next().is_none()
    }

    /// The digests by which containers and names refer to it.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        let manifest = self.facts.as_ref().map(|facts| facts.manifest);
        self.entries.iter().map(|entry| entry.digest).chain(manifest)
    }
}

impl Catalog {
    /// Reads all of it; what was read before is taken from what was kept, and what was not is kept for the next time.
    ///
    /// # Errors
    /// [`StoreError`] when `index.json` cannot be read. What is wrong with an image is said in [`StoredImage::broken`].
    pub fn read(store: &Store) -> Result<Self, StoreError> {
        let index = store.refs().read()?;
        let platform = TargetPlatform::host_in_full();
        let kept_at = store.image_facts();
        let mut kept = facts_kept::read(&kept_at, &platform);
        let count = kept.len();
        let mut known: HashMap<Digest, Result<Facts, String>> = HashMap::new();
        let mut is_new = false;
        let is_image = |one: &Descriptor| one.annotation(ATTESTATION).is_none();
        for descriptor in index.manifests.iter().filter(|one| is_image(one)) {
            if known.contains_key(&descriptor.digest) {
                continue;
            }
            // Its length costs nothing to ask for, and tells that it is there.
            let metadata = std::fs::symlink_metadata(store.blobs().path(descriptor.digest));
            let is_there = metadata.is_ok_and(|metadata| metadata.size() == descriptor.size);
            let found = match kept.remove(&descriptor.digest).filter(|_| is_there) {
                Some(facts) => Ok(facts),
                None => {
                    is_new = true;
                    facts::read(store, descriptor).map_err(|error| error.to_string())
                }
            };
            known.insert(descriptor.digest, found);
        }
        let good = known.iter().filter_map(|(digest, found)| Some((*digest, found.as_ref().ok()?)));
        let good = good.filter(|(_, facts)| !facts.is_stand_in);
        let good_count = good.clone().count();
        // Those that are broken are read each time, and are no reason to write.
        if (is_new && good_count > count - kept.len()) || kept.len() > good_count {
            facts_kept::write(&kept_at, &platform, good);
        }
        Ok(Self::grouped(index.manifests.iter().filter(|one| is_image(one)), known))
    }

    fn grouped<'a>(
        entries: impl Iterator<Item = &'a Descriptor>,
        mut known: HashMap<Digest, Result<Facts, String>>,
    ) -> Self {
        let mut images: Vec<StoredImage> = Vec::new();
        let mut places: HashMap<Digest, usize> = HashMap::new();
        let mut ids: HashMap<Digest, usize> = HashMap::new();
        for descriptor in entries {
            let entry = Entry { digest: descriptor.digest, name: Name::of(descriptor) };
            if let Some(place) = places.get(&entry.digest) {
                if entry.name.is_some() {
                    images[*place].entries.push(entry);
                }
                continue;
            }
            let (facts, broken) = match known.remove(&entry.digest) {
                Some(Ok(facts)) => (Some(facts), None),
                Some(Err(reason)) => (None, Some(reason)),
                None => (None, None),
            };
            let id = facts.as_ref().map_or(entry.digest, |facts| facts.id);
            let place = *ids.entry(id).or_insert_with(|| {
                images.push(StoredImage { id, entries: Vec::new(), facts, broken });
                images.len() - 1
            });
            places.insert(entry.digest, place);
            images[place].entries.push(entry);
        }
        images.sort_by_cached_key(|image| {
            let created = image.facts.as_ref().and_then(|facts| facts.created);
            (std::cmp::Reverse(created), image.id)
        });
        Self { images }
    }

    /// What a text means: a name as it is written, a name as people write it (of a short one also that which podman gives:
    /// `localhost/NAME`), `NAME@DIGEST`, the digest of a manifest, or the beginning of an id, with `sha256:` or without.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`], or [`CatalogError::Ambiguous`] when several ids begin so.
    pub fn find(&self, text: &str) -> Result<Meant<'_>, CatalogError> {
        let named = |is_it: &dyn Fn(&Name) -> bool| {
            let meant = |image| StoredImage::names(image).find(|name| is_it(name)).map(|name| (image, name));
            self.images.iter().find_map(meant).map(|(image, name)| Meant { image, name: Some(name) })
        };
        if let Some(found) = named(&|name| name.written == text) {
            return Ok(found);
        }
        if let Ok(wanted) = text.parse::<Reference>() {
            for candidate in wanted.candidates() {
                let found = match candidate.digest() {
                    None => named(&|name| name.means(&candidate)),
                    Some(digest) => self.by_digest(&candidate, digest),
                };
                if let Some(found) = found {
                    return Ok(found);
                }
            }
        }
        self.by_id(text)
    }

    fn by_digest(&self, wanted: &Reference, digest: Digest) -> Option<Meant<'_>> {
        let is_called = |image: &&StoredImage| {
            let mut references = image.names().filter_map(|name| name.reference.as_ref());
            references.any(|own| own.host() == wanted.host() && own.path() == wanted.path())
        };
        let has_it = |image: &&StoredImage| image.id == digest || image.digests().any(|own| own == digest);
        let found = self.images.iter().filter(has_it).find(is_called);
        found.map(|image| Meant { image, name: None })
    }

    fn by_id(&self, text: &str) -> Result<Meant<'_>, CatalogError> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let unknown = || CatalogError::Unknown(text.escape_debug().to_string());
        if digits.is_empty() || !digits.bytes().all(is_hex) {
            return Err(unknown());
        }
        let begins = |image: &&StoredImage| image.id.hex().starts_with(digits);
        let found: Vec<&StoredImage> = self.images.iter().filter(begins).collect();
        match found[..] {
            [image] => return Ok(Meant { image, name: None }),
            [] => {}
            _ => {
                let ids = found.iter().map(|image| image.id).collect();
                return Err(CatalogError::Ambiguous { text: text.to_owned(), ids });
            }
        }
        let whole = Digest::from_hex(digits).map_err(|_| unknown())?;
        let mut found = self.images.iter().filter(|image| image.digests().any(|own| own == whole));
        found.next().map(|image| Meant { image, name: None }).ok_or_else(unknown)
    }
}

/// The entry of the image whose id begins so, or that has this digest; what [`super::open`] takes when no name is meant.
pub(super) fn entry_by_id(store: &Store, text: &str) -> Result<Option<(Descriptor, String)>, ImageError> {
    let catalog = Catalog::read(store)?;
    let digest = match catalog.by_id(text) {
        Ok(found) => found.image.entries.first().map(|entry| (entry.digest, shown(found.image))),
        Err(CatalogError::Ambiguous { text, ids }) => {
            let images = ids.iter().map(Digest::hex).collect();
            return Err(ImageError::SeveralIds { text, images });
        }
        Err(CatalogError::Store(error)) => return Err(error.into()),
        Err(CatalogError::Unknown(_)) => None,
    };
    let Some((digest, shown)) = digest else { return Ok(None) };
    let manifests = store.refs().read()?.manifests;
    Ok(manifests.into_iter().find(|one| one.digest == digest).map(|found| (found, shown)))
}

/// What an image is called that was found by its id.
fn shown(image: &StoredImage) -> String {
    image.names().next().map_or_else(|| image.id.hex(), |name| name.shown.clone())
}

/// Whether an entry of `index.json` is called that, in whatever words.
#[must_use]
pub fn is_called(descriptor: &Descriptor, wanted: &Reference) -> bool {
    oci_layout::full_name(descriptor).as_ref() == Some(wanted)
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
