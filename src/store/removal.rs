//! Blobs of images that were removed: those that nothing else leads to go at once, unless somebody seems to be writing.
//!
//! Programs that know nothing of our locks write blobs first and the name last, and do not write again what lies there
//! already. So a blob may be somebody's before anything leads to it. Two things tell that somebody is at work, and then
//! nothing is removed: a young file that skopeo, podman and buildah receive a blob in, and a young blob that nothing leads to.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use super::gc::{digest_named, files_of, is_gone, mentioned, reachable_without};
use super::{Store, StoreError, StoreLockExclusive};
use crate::model::Digest;
use crate::sys::atomic::{self, TEMP_PREFIX};

/// How the files begin, beside `index.json`, in which containers/image receives a blob.
const RECEIVED_PREFIX: &str = "oci-put-blob";

/// How young a file must be to say that somebody is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace(pub Duration);

impl Default for Grace {
    /// Ten minutes: a large layer comes in pieces, each of which makes its file young again.
    fn default() -> Self {
        Self(Duration::from_secs(600))
    }
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that stay, because somebody seems to be writing to the layout.
    pub held_back: u64,
}

/// Everything that a document leads to, and itself: documents before what they lead to, so that what is left when a removal
/// is interrupted is led to by nothing.
///
/// # Errors
/// [`StoreError`] when something in it cannot be read. What is missing or no document leads nowhere.
pub fn leads_to(store: &Store, digest: Digest) -> Result<Vec<Digest>, StoreError> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut open = vec![(digest, false)];
    while let Some((digest, is_layer)) = open.pop() {
        if !seen.insert(digest) {
            continue;
        }
        found.push(digest);
        if !is_layer && store.blobs().has(digest)? {
            match mentioned(store, digest) {
                Ok(mentions) => open.extend(mentions.into_iter().map(|one| (one.digest, one.is_layer))),
                // Damaged: whatever it led to is found as a blob that nothing leads to.
                Err(StoreError::Document { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Blobs that nothing leads to, neither a name nor `keep`, and that are older than that: left by who was interrupted.
///
/// # Errors
/// [`StoreError`]; also when a document that is reached cannot be read.
pub fn nameless_blobs(
    store: &Store,
    keep: &HashSet<Digest>,
    age_min: Duration,
) -> Result<Vec<(Digest, u64)>, StoreError> {
    let live = live(store, keep, &HashSet::new())?;
    let mut found = Vec::new();
    for (entry, age) in files_of(store.blobs().dir())? {
        if let Some(digest) =
            digest_named(&entry, "").filter(|digest| age >= age_min && !live.contains(digest))
        {
            match entry.metadata() {
                Ok(metadata) => found.push((digest, metadata.len())),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(StoreError::io("read", &entry.path())(error)),
            }
        }
    }
    Ok(found)
}

/// How many bytes [`free`] would give back if these were not in the index any more.
///
/// # Errors
/// [`StoreError`]; also when a document that is reached cannot be read.
pub fn freeable(
    store: &Store,
    candidates: &[Digest],
    keep: &HashSet<Digest>,
    without: &HashSet<Digest>,
) -> Result<u64, StoreError> {
    let live = live(store, keep, without)?;
    let gone: HashSet<&Digest> = candidates.iter().filter(|digest| !live.contains(digest)).collect();
    let mut bytes = 0;
    for digest in gone {
        match std::fs::symlink_metadata(store.blobs().path(*digest)) {
            Ok(metadata) => bytes += metadata.len(),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(StoreError::io("read", &store.blobs().path(*digest))(error)),
        }
    }
    Ok(bytes)
}

/// Removes those of these blobs that nothing leads to any more, neither a name nor `keep`. `candidates` are in the order of
/// [`leads_to`]. Nobody of ours is adding anything, the lock says.
///
/// # Errors
/// [`StoreError`]; also when a document that is reached cannot be read, as nobody knows then what it needs. What is reached
/// is never touched.
pub fn free(
    store: &Store,
    _lock: &StoreLockExclusive,
    candidates: &[Digest],
    keep: &HashSet<Digest>,
    grace: Grace,
) -> Result<Freed, StoreError> {
    let live = live(store, keep, &HashSet::new())?;
    // Of what several lead to the last time counts: then all documents that lead to it have gone before.
    let (mut gone, mut seen) = (Vec::new(), HashSet::new());
    for digest in candidates.iter().rev() {
        if !live.contains(digest) && seen.insert(*digest) && store.blobs().has(*digest)? {
            gone.push(*digest);
        }
    }
    gone.reverse();
    let mut freed = Freed::default();
    if gone.is_empty() {
        return Ok(freed);
    }
    let ours: HashSet<Digest> = candidates.iter().copied().collect();
    if somebody_writes(store, &live, &ours, grace)? {
        freed.held_back = gone.len() as u64;
        return Ok(freed);
    }
    for digest in gone {
        let path = store.blobs().path(digest);
        let removed = std::fs::symlink_metadata(&path).and_then(|metadata| {
            std::fs::remove_file(&path)?;
            Ok(metadata.len())
        });
        match removed {
            Ok(bytes) => {
                freed.blobs += 1;
                freed.bytes += bytes;
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(StoreError::io("remove", &path)(error)),
        }
    }
    atomic::sync_dir(store.blobs().dir()).map_err(StoreError::io("flush", store.blobs().dir()))?;
    Ok(freed)
}

fn live(
    store: &Store,
    keep: &HashSet<Digest>,
    without: &HashSet<Digest>,
) -> Result<HashSet<Digest>, StoreError> {
    let reached = reachable_without(store, keep, without)?;
    match reached.broken.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(reached.live),
    }
}

fn somebody_writes(
    store: &Store,
    live: &HashSet<Digest>,
    ours: &HashSet<Digest>,
    grace: Grace,
) -> Result<bool, StoreError> {
    let begins =
        |entry: &std::fs::DirEntry, prefix: &str| entry.file_name().to_string_lossy().starts_with(prefix);
    for (entry, age) in files_of(&store.oci_dir())? {
        if age < grace.0 && begins(&entry, RECEIVED_PREFIX) {
            return Ok(true);
        }
    }
    for (entry, age) in files_of(store.blobs().dir())? {
        // Temporary files are our own, and their writers would hold the lock.
        if age >= grace.0 || begins(&entry, TEMP_PREFIX) {
            continue;
        }
        let is_regular = entry.file_type().map(|kind| kind.is_file());
        match is_regular {
            Ok(false) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Ok(true) | Err(_) => {}
        }
        if digest_named(&entry, "").is_some_and(|digest| !live.contains(&digest) && !ours.contains(&digest)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::{Descriptor, MEDIA_TYPE_MANIFEST};
    use super::*;
    use crate::sys::lock::soon;

    fn put(store: &Store, text: &str) -> Descriptor {
        let (digest, size) = store.blobs().put_unnamed(&mut text.as_bytes()).unwrap();
        Descriptor::new(MEDIA_TYPE_MANIFEST, digest, size)
    }

    /// A manifest with a config and two layers, one of which all have.
    fn put_image(store: &Store, salt: &str) -> [Digest; 4] {
        let [own, shared] =
            [format!("layer {salt}"), "shared".to_owned()].map(|text| put(store, &text).digest);
        let config = put(store, &format!(r#"{{"os":"{salt}"}}"#)).digest;
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{config}"}},"layers":[{{"digest":"{shared}"}},{{"digest":"{own}"}}]}}"#
        );
        let manifest = put(store, &text);
        store.refs().set(&format!("image:{salt}"), &manifest).unwrap();
        [manifest.digest, config, own, shared]
    }

    #[test]
    fn what_others_need_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let (one, two) = (put_image(&store, "one"), put_image(&store, "two"));
        store.refs().remove("image:one").unwrap();
        let found = leads_to(&store, one[0]).unwrap();
        assert_eq!(found[0], one[0], "the manifest goes first");
        assert_eq!(found.iter().collect::<HashSet<_>>(), one.iter().collect());
        let lock = soon(|| store.lock_exclusive().ok());
        let kept = HashSet::from([one[0]]);
        assert_eq!(free(&store, &lock, &found, &kept, Grace::default()).unwrap(), Freed::default());
        let bytes = |keep| freeable(&store, &found, keep, &HashSet::new()).unwrap();
        assert_eq!(bytes(&kept), 0);
        let expected = bytes(&HashSet::new());
        let freed = free(&store, &lock, &found, &HashSet::new(), Grace::default()).unwrap();
        assert_eq!((freed.blobs, freed.held_back, freed.bytes), (3, 0, expected));
        let without = HashSet::from([two[0]]);
        assert!(freeable(&store, &two, &HashSet::new(), &without).unwrap() > expected, "with what both had");
        assert!(two.iter().all(|digest| store.blobs().has(*digest).unwrap()));
    }

    #[test]
    fn nothing_goes_while_somebody_writes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let one = put_image(&store, "one");
        store.refs().remove("image:one").unwrap();
        let lock = soon(|| store.lock_exclusive().ok());
        let found = leads_to(&store, one[0]).unwrap();
        let held_back = |grace| free(&store, &lock, &found, &HashSet::new(), grace).unwrap().held_back;
        let received = store.oci_dir().join("oci-put-blob123");
        std::fs::write(&received, "half").unwrap();
        assert_eq!(held_back(Grace::default()), 4);
        std::fs::remove_file(&received).unwrap();
        put(&store, "somebody's");
        assert_eq!(held_back(Grace::default()), 4);
        assert_eq!(held_back(Grace(Duration::ZERO)), 0);
        assert!(!store.blobs().has(one[0]).unwrap());
        assert_eq!(nameless_blobs(&store, &HashSet::new(), Duration::ZERO).unwrap().len(), 1);
        assert!(nameless_blobs(&store, &HashSet::new(), Duration::from_secs(60)).unwrap().is_empty());
    }

    #[test]
    fn a_broken_document_of_another_image_keeps_everything() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let one = put_image(&store, "one");
        let broken = put(&store, "{broken");
        store.refs().set("broken:1", &broken).unwrap();
        store.refs().remove("image:one").unwrap();
        let lock = soon(|| store.lock_exclusive().ok());
        assert!(free(&store, &lock, &one, &HashSet::new(), Grace::default()).is_err());
        assert!(store.blobs().has(one[0]).unwrap());
        assert_eq!(leads_to(&store, broken.digest).unwrap(), [broken.digest]);
    }
}
