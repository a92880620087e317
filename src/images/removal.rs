//! `rmi`: a name goes; with the last one the image, with all that no other image and no container needs.

use super::naming::take;
use super::{ImagesError, PATIENCE, Users};
use crate::container::Containers;
use crate::image::{Catalog, StoredImage};
use crate::model::Digest;
use crate::store::{self, Freed, Grace, Store, StoreError, StoreLockExclusive};

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Removed {
    /// Names that were taken away.
    pub untagged: Vec<String>,
    /// The id, if the image is gone.
    pub deleted: Option<Digest>,
    /// What that gave back.
    pub freed: Freed,
    /// Why blobs stay that nothing leads to.
    pub left: Option<String>,
}

/// What is removed in spite of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Nothing.
    No,
    /// Several names, of which an id is one.
    Names,
    /// Several names, of which an id is one; containers, which keep what they need.
    Yes,
}

/// Removes what a text means. By a name of several only that goes.
///
/// # Errors
/// [`ImagesError`]; then nothing was removed.
pub fn remove(
    store: &Store,
    containers: &Containers,
    text: &str,
    force: Force,
) -> Result<Removed, ImagesError> {
    let lock = store.lock_alone(PATIENCE)?;
    let catalog = Catalog::read(store)?;
    let meant = catalog.find(text)?;
    let image = meant.image;
    let names = image.names().count();
    if let Some(name) = meant.name
        && names > 1
    {
        let users = Users::read(store, containers)?;
        let nameless = image.entries.iter().filter(|entry| entry.name.is_none()).map(|entry| entry.digest);
        let mut given_up = Vec::new();
        for digest in nameless.chain([digest_of(image, &name.written)]) {
            given_up.extend(store::leads_to(store, digest)?);
        }
        take(store, image, vec![&name.written])?;
        drop_nameless(store, image)?;
        let (freed, left) = free(store, &lock, &given_up, &users);
        return Ok(Removed { untagged: vec![name.shown.clone()], deleted: None, freed, left });
    }
    if names > 1 && force == Force::No {
        let names = image.names().map(|name| name.shown.clone()).collect();
        return Err(ImagesError::SeveralNames { id: text.to_owned(), names });
    }
    let users = Users::read(store, containers)?;
    let used_by = users.of(image);
    if !used_by.is_empty() && force != Force::Yes {
        return Err(ImagesError::InUse { text: text.to_owned(), containers: used_by });
    }
    if !used_by.is_empty() {
        // It is still there, without a name, until nobody uses it.
        take(store, image, image.names().map(|name| name.written.as_str()).collect())?;
        let untagged = image.names().map(|name| name.shown.clone()).collect();
        return Ok(Removed { untagged, ..Removed::default() });
    }
    remove_whole(store, &lock, &users, image)
}

/// Removes all images; of those that containers use, with [`Force::Yes`], the names. What is in use else is told.
///
/// # Errors
/// When the images cannot be listed; each has a result of its own.
pub fn remove_all(
    store: &Store,
    containers: &Containers,
    force: Force,
) -> Result<Vec<Result<Removed, ImagesError>>, ImagesError> {
    let force = if force == Force::No { Force::Names } else { force };
    let ids = Catalog::read(store)?.images.into_iter().map(|image| image.id.to_string());
    let mut done = Vec::new();
    for id in ids {
        match remove(store, containers, &id, force) {
            // Somebody else was first.
            Err(error) if error.is_unknown() => {}
            // Who keeps one from being removed keeps all, and may do so for long.
            Err(error) if error.is_busy() => {
                done.push(Err(error));
                break;
            }
            result => done.push(result),
        }
    }
    Ok(done)
}

fn remove_whole(
    store: &Store,
    lock: &StoreLockExclusive,
    users: &Users,
    image: &StoredImage,
) -> Result<Removed, ImagesError> {
    let mut given_up = Vec::new();
    for entry in &image.entries {
        given_up.extend(store::leads_to(store, entry.digest)?);
    }
    take(store, image, image.names().map(|name| name.written.as_str()).collect())?;
    drop_nameless(store, image)?;
    let (freed, left) = free(store, lock, &given_up, users);
    let untagged = image.names().map(|name| name.shown.clone()).collect();
    Ok(Removed { untagged, deleted: Some(image.id), freed, left })
}

/// Drops the entries of an image that no name leads to. An id that a build gave as a name is none.
pub(super) fn drop_nameless(store: &Store, image: &StoredImage) -> Result<(), StoreError> {
    let is_own = |digest: Digest| image.entries.iter().any(|entry| entry.digest == digest);
    store.refs().edit(|index| {
        index.manifests.retain(|one| {
            let is_name = |name: &str| name.parse::<Digest>().is_err();
            !is_own(one.digest) || one.full_name().is_some_and(is_name)
        });
    })
}

/// Gives back what nothing needs any more. The names are gone by then, so a failure is told, and not one of the removal.
pub(super) fn free(
    store: &Store,
    lock: &StoreLockExclusive,
    given_up: &[Digest],
    users: &Users,
) -> (Freed, Option<String>) {
    match store::free(store, lock, given_up, &users.needed(), Grace::default()) {
        Ok(freed) if freed.held_back > 0 => {
            let left = format!(
                "{} blobs stay for now, as another program seems to be writing to the store: `layerfs image prune` removes \
                 them later",
                freed.held_back
            );
            (freed, Some(left))
        }
        Ok(freed) => (freed, None),
        Err(error) => (Freed::default(), Some(format!("blobs stay: {error}: see `layerfs store check`"))),
    }
}

fn digest_of(image: &StoredImage, name: &str) -> Digest {
    let mut named =
        image.entries.iter().filter(|entry| entry.name.as_ref().is_some_and(|own| own.written == name));
    named.next().map_or(image.id, |entry| entry.digest)
}

#[cfg(test)]
#[path = "removal_tests.rs"]
mod tests;
