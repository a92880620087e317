//! `image prune`: images without a name, or all that no container uses; and blobs that nothing leads to for a day.

use std::collections::HashSet;
use std::time::Duration;

use super::filter::Filters;
use super::naming::take;
use super::removal::{drop_nameless, free};
use super::{ImagesError, PATIENCE, Users};
use crate::container::Containers;
use crate::image::{Catalog, StoredImage};
use crate::model::Digest;
use crate::store::{self, Freed, Store};

/// Blobs that nothing leads to are left by who was killed, unless they are so young that somebody may still come to their
/// name: no tool takes longer to write one image.
const NAMELESS_AGE_MIN: Duration = Duration::from_secs(24 * 3600);

/// Which images go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those without a name.
    Dangling,
    /// All that no container uses.
    Unused,
}

/// What would go, or went.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// The images.
    pub images: Vec<StoredImage>,
    /// What is given back.
    pub freed: Freed,
    /// Why blobs stay that nothing leads to.
    pub left: Option<String>,
}

/// What there is to remove, and how many bytes that gives back. Nothing is changed.
///
/// # Errors
/// [`ImagesError`]
pub fn look(
    store: &Store,
    containers: &Containers,
    which: Which,
    filters: &Filters,
) -> Result<Pruned, ImagesError> {
    let _lock = store.lock()?;
    let users = Users::read(store, containers)?;
    let (images, candidates) = meant(store, &users, which, filters)?;
    let without: HashSet<Digest> =
        images.iter().flat_map(|image| &image.entries).map(|entry| entry.digest).collect();
    let bytes = store::freeable(store, &candidates, &users.needed(), &without)?;
    Ok(Pruned { images, freed: Freed { bytes, ..Freed::default() }, left: None })
}

/// Removes it.
///
/// # Errors
/// [`ImagesError`]
pub fn prune(
    store: &Store,
    containers: &Containers,
    which: Which,
    filters: &Filters,
) -> Result<Pruned, ImagesError> {
    let lock = store.lock_alone(PATIENCE)?;
    let users = Users::read(store, containers)?;
    let (images, candidates) = meant(store, &users, which, filters)?;
    for image in &images {
        take(store, image, image.names().map(|name| name.written.as_str()).collect())?;
        drop_nameless(store, image)?;
    }
    let (freed, left) = free(store, &lock, &candidates, &users);
    Ok(Pruned { images, freed, left })
}

/// The images, and the blobs that they lead to with those that nothing leads to.
fn meant(
    store: &Store,
    users: &Users,
    which: Which,
    filters: &Filters,
) -> Result<(Vec<StoredImage>, Vec<Digest>), ImagesError> {
    let is_meant = |image: &StoredImage| {
        (which == Which::Unused || image.is_dangling()) && filters.admit(image) && users.of(image).is_empty()
    };
    let images: Vec<StoredImage> = Catalog::read(store)?.images.into_iter().filter(is_meant).collect();
    let mut candidates = Vec::new();
    for entry in images.iter().flat_map(|image| &image.entries) {
        candidates.extend(store::leads_to(store, entry.digest)?);
    }
    // Whoever asks for some images only, asks for nothing else.
    if filters.is_empty() {
        let nameless = store::nameless_blobs(store, &users.needed(), NAMELESS_AGE_MIN)?;
        candidates.extend(nameless.into_iter().map(|(digest, _)| digest));
    }
    Ok((images, candidates))
}
