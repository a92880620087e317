//! Which containers are made of which images.

use std::collections::HashSet;
use std::path::Path;

use super::ImagesError;
use crate::container::{ContainerId, Containers, ImageRecord};
use crate::image::{Image, StoredImage};
use crate::model::Digest;
use crate::store::{self, Store, StoreError, StoreLock};

/// What all containers are made of, as it was at one moment.
#[derive(Clone, Debug)]
pub struct Users {
    of: Vec<(ContainerId, ImageRecord)>,
    store: Store,
}

impl Users {
    /// Looks through all containers.
    ///
    /// # Errors
    /// Also when one of them is damaged: it may need any image.
    pub fn read(store: &Store, containers: &Containers) -> Result<Self, ImagesError> {
        Ok(Self { of: containers.images_in_use()?, store: store.clone() })
    }

    /// The containers that are made of an image of the store, whatever they are doing.
    #[must_use]
    pub fn of(&self, image: &StoredImage) -> Vec<ContainerId> {
        let digests: HashSet<Digest> = image.digests().collect();
        // Of an image for several platforms also those that are not for this machine.
        let leads_to = |digest: Digest, wanted| {
            store::leads_to(&self.store, digest).is_ok_and(|all| all.contains(&wanted))
        };
        let is_pinned = |pinned: Digest| {
            digests.contains(&pinned) || image.entries.iter().any(|entry| leads_to(entry.digest, pinned))
        };
        let is_it = |record: &ImageRecord| {
            let is_own = record.config_digest == image.id || record.pinned().is_some_and(is_pinned);
            is_own && self.is_here(&record.source)
        };
        self.of.iter().filter(|(_, record)| is_it(record)).map(|(id, _)| *id).collect()
    }

    /// The documents that containers need, with all that these lead to, also of containers whose image lies elsewhere: that
    /// may be another name of this directory.
    #[must_use]
    pub fn needed(&self) -> HashSet<Digest> {
        let digests =
            |(_, record): &(ContainerId, ImageRecord)| [record.pinned(), Some(record.config_digest)];
        self.of.iter().flat_map(digests).flatten().collect()
    }

    /// Whether an image was opened from this layout.
    fn is_here(&self, source: &str) -> bool {
        let Some(place) = place(source) else { return false };
        let layout = self.store.oci_dir();
        place == layout || is_same(place, &layout)
    }
}

/// Where the layout is that an image was opened from.
fn place(source: &str) -> Option<&Path> {
    Some(Path::new(source.strip_prefix("oci:")?.rsplit_once(":@")?.0))
}

fn is_same(one: &Path, other: &Path) -> bool {
    // What is not there any more has no container that could be started.
    matches!((std::fs::canonicalize(one), std::fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

/// Keeps an image of the store from being removed until the container that is made of it is written down. `None` for one that
/// lies elsewhere.
///
/// # Errors
/// [`StoreError::Missing`] when it was removed since it was opened.
pub fn claim(store: &Store, image: &Image) -> Result<Option<StoreLock>, StoreError> {
    let Some((place, digest)) = place(&image.source).zip(image.source.rsplit_once(":@")) else {
        return Ok(None);
    };
    if place != store.oci_dir() && !is_same(place, &store.oci_dir()) {
        return Ok(None);
    }
    let lock = store.lock()?;
    match digest.1.parse::<Digest>() {
        Ok(digest) if !store.blobs().has(digest)? => {
            Err(StoreError::Missing { digest, path: store.blobs().path(digest) })
        }
        _ => Ok(Some(lock)),
    }
}
