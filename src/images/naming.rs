//! Names are given and taken away; images stay.

use super::ImagesError;
use crate::image::catalog::is_called;
use crate::image::{Catalog, CatalogError, Reference};
use crate::store::{Store, StoreError};

/// Gives an image another name, which is taken from what has it. Returns it as it is written.
///
/// # Errors
/// [`ImagesError`]
pub fn tag(store: &Store, image: &str, name: &str) -> Result<String, ImagesError> {
    let refused = |source| ImagesError::Reference { name: name.to_owned(), source };
    let reference: Reference = name.parse().map_err(refused)?;
    if reference.digest().is_some() {
        return Err(ImagesError::Digest(name.to_owned()));
    }
    // What is found is not removed before it has its name.
    let _lock = store.lock()?;
    let catalog = Catalog::read(store)?;
    let meant = catalog.find(image)?;
    let by_name = |entry: &&crate::image::catalog::Entry| entry.name.as_ref() == meant.name;
    let entries = &meant.image.entries;
    let entry = entries.iter().find(by_name).or_else(|| entries.first());
    let manifests = store.refs().read()?.manifests;
    let descriptor = entry.and_then(|entry| manifests.into_iter().find(|one| one.digest == entry.digest));
    // Another tool has just changed the index.
    let descriptor = descriptor.ok_or_else(|| CatalogError::Unknown(image.to_owned()))?;
    let written = reference.familiar();
    store.refs().set_instead(&written, &descriptor, |one| is_called(one, &reference))?;
    Ok(written)
}

/// Takes names from an image, all if none are said. It stays, also without any.
///
/// # Errors
/// [`ImagesError`]; then it has all its names.
pub fn untag(store: &Store, image: &str, names: &[String]) -> Result<Vec<String>, ImagesError> {
    let catalog = Catalog::read(store)?;
    let meant = catalog.find(image)?.image;
    let mut taken = Vec::new();
    for name in names {
        let other = || ImagesError::OtherName { name: name.clone(), image: image.to_owned() };
        let found = catalog.find(name).map_err(|_| other())?;
        match found.name {
            Some(known) if found.image.id == meant.id => taken.push(known.clone()),
            _ => return Err(other()),
        }
    }
    if names.is_empty() {
        taken.extend(meant.names().cloned());
    }
    take(store, meant, taken.iter().map(|name| name.written.as_str()).collect())?;
    Ok(taken.into_iter().map(|name| name.shown).collect())
}

/// Takes those names from an image that it still has.
pub(super) fn take(
    store: &Store,
    image: &crate::image::StoredImage,
    names: Vec<&str>,
) -> Result<(), StoreError> {
    let own: Vec<_> = image.entries.iter().map(|entry| entry.digest).collect();
    store.refs().edit(|index| {
        index.take_names(|one| {
            own.contains(&one.digest) && one.full_name().is_some_and(|name| names.contains(&name))
        })
    })?;
    Ok(())
}
