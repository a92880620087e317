//! Removes what nothing needs: caches that were not used for long, and blobs that no name leads to.
//!
//! Errs on the side of keeping. For blobs, a document that cannot be read ends the collection before anything is removed,
//! and every descriptor in a reachable document is followed, whatever field it stands in. Caches can be made again.

use std::collections::HashSet;
use std::fs::DirEntry;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{Store, StoreError, StoreLockExclusive};
use crate::model::Digest;
use crate::model::limits::DOCUMENT_BYTES_MAX;
use crate::sys::atomic::TEMP_PREFIX;
use crate::sys::lock::FileLock;

/// Temporary files younger than this are somebody's who is writing: not everybody takes our locks.
const TEMPORARY_AGE_MIN: Duration = Duration::from_secs(24 * 3600);

/// Which blobs may be removed.
#[derive(Clone, Debug)]
pub struct GcPolicy {
    /// Younger ones stay: another tool may be writing an image to the layout, and knows nothing of our locks. It may also
    /// use one again that is old, so no age is enough for a layout that others write to meanwhile.
    pub blob_age_min: Duration,
    /// What is needed though no name leads to it (containers).
    pub keep: HashSet<Digest>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs.
    pub blobs: u64,
    /// Indexes.
    pub indexes: u64,
    /// Spill files, start traces and decompressed archives.
    pub caches: u64,
    /// Temporary files that a crash left behind.
    pub temporaries: u64,
    /// Bytes of all of them; of a spill file those that it took.
    pub bytes: u64,
    /// Blobs that nothing reaches but somebody is using.
    pub in_use: u64,
}

/// What the names lead to.
#[derive(Debug, Default)]
pub(super) struct Reached {
    pub(super) live: HashSet<Digest>,
    /// The documents that do not say where they lead.
    pub(super) broken: Vec<StoreError>,
}

/// What a document refers to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mention {
    pub(super) digest: Digest,
    /// A layer leads nowhere, whatever its bytes look like.
    pub(super) is_layer: bool,
}

/// Removes what was made of images, is of none in the store and was not used for `unused`: indexes, spill files, start
/// traces, decompressed archives; and temporary files of yesterday. Blobs stay. Whoever uses a cache goes on with it; it is
/// made again when it is needed.
///
/// # Errors
/// [`StoreError`]
pub fn collect_caches(
    store: &Store,
    _lock: &StoreLockExclusive,
    unused: Duration,
) -> Result<Collected, StoreError> {
    // Of images that cannot be read, caches are of no use.
    let live = reachable(store, &HashSet::new())?.live;
    let mut done = Collected::default();
    for (entry, age) in files_of(store.blobs().dir())? {
        remove_temporary(&entry, age, &mut done)?;
    }
    for (entry, age) in files_of(&store.index_dir())? {
        match digest_named(&entry, ".lfx") {
            Some(digest) if age < unused || live.contains(&digest) || store.blobs().has(digest)? => {}
            Some(_) => done.indexes += remove_file(&entry, &mut done.bytes)?,
            None => remove_temporary(&entry, age, &mut done)?,
        }
    }
    // Spill files are named by the diffID, start traces by the config.
    let mut entries = files_of(&store.spill_dir())?;
    entries.extend(files_of(&store.trace_dir())?);
    for (entry, age) in entries {
        match digest_leading(&entry) {
            Some(digest) if age < unused || live.contains(&digest) => {}
            Some(_) => done.caches += remove_file(&entry, &mut done.bytes)?,
            None => remove_temporary(&entry, age, &mut done)?,
        }
    }
    let imports = store.imports().clean(None, unused)?;
    done.caches += imports.imports;
    done.temporaries += imports.temporaries;
    done.bytes += imports.bytes;
    for (entry, age) in super::arriving::unused(store, unused)? {
        match digest_leading(&entry).or_else(|| digest_named(&entry, ".lfx")) {
            Some(_) => done.caches += remove_file(&entry, &mut done.bytes)?,
            None => remove_temporary(&entry, age, &mut done)?,
        }
    }
    Ok(done)
}

/// Removes blobs that nothing reaches. The lock says that none of us is adding anything; that no other tool is, the caller
/// must know.
///
/// # Errors
/// [`StoreError`]; what is reachable is never touched.
pub fn collect_blobs(
    store: &Store,
    _lock: &StoreLockExclusive,
    policy: &GcPolicy,
) -> Result<Collected, StoreError> {
    let Reached { live, broken } = reachable(store, &policy.keep)?;
    if let Some(error) = broken.into_iter().next() {
        return Err(error);
    }
    let mut done = Collected::default();
    for (entry, age) in files_of(store.blobs().dir())? {
        let digest = digest_named(&entry, "");
        if age >= policy.blob_age_min && digest.is_some_and(|digest| !live.contains(&digest)) {
            remove_blob(&entry, &mut done)?;
        }
    }
    Ok(done)
}

/// All digests that can be reached from the names, and those to keep.
fn reachable(store: &Store, keep: &HashSet<Digest>) -> Result<Reached, StoreError> {
    reachable_without(store, keep, &HashSet::new())
}

/// The same when these are not in the index any more.
pub(super) fn reachable_without(
    store: &Store,
    keep: &HashSet<Digest>,
    without: &HashSet<Digest>,
) -> Result<Reached, StoreError> {
    let names = store.refs().read()?.manifests;
    let names = names.iter().map(|known| known.digest).filter(|digest| !without.contains(digest));
    let roots = names.chain(keep.iter().copied());
    let mut reached = Reached::default();
    let mut open: Vec<Mention> = roots.map(|digest| Mention { digest, is_layer: false }).collect();
    let mut read = HashSet::new();
    while let Some(Mention { digest, is_layer }) = open.pop() {
        reached.live.insert(digest);
        if !is_layer && read.insert(digest) && store.blobs().has(digest)? {
            match mentioned(store, digest) {
                Ok(found) => open.extend(found),
                Err(error) => reached.broken.push(error),
            }
        }
    }
    Ok(reached)
}

/// Every digest that the blob refers to, if it is a manifest, an index or a config.
pub(super) fn mentioned(store: &Store, digest: Digest) -> Result<Vec<Mention>, StoreError> {
    let range = store.blobs().get(digest)?;
    let path = store.blobs().path(digest);
    if range.len() > DOCUMENT_BYTES_MAX {
        return Ok(Vec::new());
    }
    let bytes = std::fs::read(&path).map_err(StoreError::io("read", &path))?;
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Ok(Vec::new());
    }
    let document: Value = serde_json::from_slice(&bytes)
        .map_err(|error| StoreError::Document { path: path.clone(), reason: format!("not JSON: {error}") })?;
    let mut found = Vec::new();
    if document.get("schemaVersion").is_some() {
        mentions_in(&document, false, &mut found);
    } else if let Some(Value::Array(diff_ids)) = document.pointer("/rootfs/diff_ids") {
        // Uncompressed layers: no blobs of ours, but spill files are named by them. What else a config says, in labels
        // and variables, is its author's.
        let digests = diff_ids.iter().filter_map(digest_of);
        found.extend(digests.map(|digest| Mention { digest, is_layer: true }));
    }
    Ok(found)
}

/// What a manifest or an index refers to: descriptors, whatever field they stand in. Annotations are free text.
fn mentions_in(value: &Value, is_layer: bool, found: &mut Vec<Mention>) {
    match value {
        // serde_json itself bounds the depth at 128.
        Value::Object(fields) => {
            let digest = fields.get("digest").and_then(digest_of);
            found.extend(digest.map(|digest| Mention { digest, is_layer }));
            for (key, field) in fields.iter().filter(|(key, _)| *key != "annotations") {
                mentions_in(field, is_layer || key == "layers", found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| mentions_in(item, is_layer, found)),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn digest_of(value: &Value) -> Option<Digest> {
    value.as_str()?.parse().ok()
}

pub(super) fn files_of(dir: &Path) -> Result<Vec<(DirEntry, Duration)>, StoreError> {
    let list = || -> io::Result<Vec<_>> {
        let now = SystemTime::now();
        let aged = |entry: io::Result<DirEntry>| {
            let aged = || {
                let entry = entry?;
                // A clock that went back makes a file young, which keeps it.
                let age = now.duration_since(entry.metadata()?.modified()?).unwrap_or_default();
                Ok((entry, age))
            };
            // Temporary files and those of caches come and go meanwhile.
            Some(aged()).filter(|aged: &io::Result<_>| !aged.as_ref().is_err_and(is_gone))
        };
        std::fs::read_dir(dir)?.filter_map(aged).collect()
    };
    list().map_err(StoreError::io("list", dir))
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

pub(super) fn digest_named(entry: &DirEntry, suffix: &str) -> Option<Digest> {
    Digest::from_hex(entry.file_name().to_str()?.strip_suffix(suffix)?).ok()
}

/// The digest that a cache is of: what follows it is what it was used for.
fn digest_leading(entry: &DirEntry) -> Option<Digest> {
    let name = entry.file_name();
    let name = name.to_str()?;
    Digest::from_hex(name.split_once('-').map_or(name, |(digest, _)| digest)).ok()
}

fn remove_blob(entry: &DirEntry, done: &mut Collected) -> Result<(), StoreError> {
    let path = entry.path();
    match FileLock::try_exclusive_existing(&path).map_err(StoreError::io("lock", &path))? {
        Some(_lock) => done.blobs += remove_file(entry, &mut done.bytes)?,
        None => done.in_use += 1,
    }
    Ok(())
}

fn remove_temporary(entry: &DirEntry, age: Duration, done: &mut Collected) -> Result<(), StoreError> {
    // Anything else was put there by people or by a later version: not ours to remove.
    let is_temporary = entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX);
    if is_temporary && age >= TEMPORARY_AGE_MIN {
        done.temporaries += remove_file(entry, &mut done.bytes)?;
    }
    Ok(())
}

fn remove_file(entry: &DirEntry, bytes: &mut u64) -> Result<u64, StoreError> {
    let path = entry.path();
    let metadata = match entry.metadata() {
        Err(error) if is_gone(&error) => return Ok(0),
        metadata => metadata.map_err(StoreError::io("read", &path))?,
    };
    match std::fs::remove_file(&path) {
        Err(error) if is_gone(&error) => return Ok(0),
        removed => removed.map_err(StoreError::io("remove", &path))?,
    }
    // A sparse file is longer than what it takes.
    *bytes += metadata.len().min(metadata.blocks() * 512);
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::super::{Descriptor, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};
    use super::*;
    use crate::sys::lock::soon;

    const AT_ONCE: Duration = Duration::ZERO;
    const LATER: Duration = Duration::from_secs(3600);

    fn policy(blob_age_min: Duration) -> GcPolicy {
        GcPolicy { blob_age_min, keep: HashSet::new() }
    }

    fn put(store: &Store, text: &str) -> Descriptor {
        let (digest, size) = store.blobs().put_unnamed(&mut text.as_bytes()).unwrap();
        Descriptor::new(MEDIA_TYPE_MANIFEST, digest, size)
    }

    /// An index with one manifest with a config and a layer; returns all four.
    fn put_image(store: &Store, salt: &str) -> [Digest; 4] {
        let layer = put(store, &format!("layer {salt}"));
        let config = put(store, &format!(r#"{{"os":"{salt}"}}"#));
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}"}},"layers":[{{"digest":"{}"}}]}}"#,
            config.digest, layer.digest
        );
        let manifest = put(store, &text);
        let index =
            put(store, &format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}"}}]}}"#, manifest.digest));
        store
            .refs()
            .set(
                &format!("image:{salt}"),
                &Descriptor { media_type: MEDIA_TYPE_INDEX.into(), ..index.clone() },
            )
            .unwrap();
        [layer.digest, config.digest, manifest.digest, index.digest]
    }

    #[test]
    fn keeps_the_reachable_and_removes_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let kept = put_image(&store, "one");
        let gone = put_image(&store, "two");
        store.refs().remove("image:two").unwrap();
        std::fs::write(store.blobs().dir().join("README"), "people's").unwrap();
        let lock = store.lock_exclusive().unwrap();
        assert_eq!(collect_blobs(&store, &lock, &policy(LATER)).unwrap(), Collected::default());
        let done = collect_blobs(&store, &lock, &policy(AT_ONCE)).unwrap();
        assert_eq!((done.blobs, done.in_use), (4, 0));
        assert!(kept.iter().all(|digest| store.blobs().has(*digest).unwrap()));
        assert!(!gone.iter().any(|digest| store.blobs().has(*digest).unwrap()));
        assert!(store.blobs().dir().join("README").exists());
    }

    #[test]
    fn keeps_what_is_pinned_or_needed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let (pinned, needed) = (put(&store, "pinned").digest, put(&store, "needed").digest);
        let pin = store.blobs().pin(pinned).unwrap();
        let lock = store.lock_exclusive().unwrap();
        let mut policy = policy(AT_ONCE);
        policy.keep.insert(needed);
        let done = collect_blobs(&store, &lock, &policy).unwrap();
        assert_eq!((done.blobs, done.in_use), (0, 1));
        drop(pin);
        let since = std::time::Instant::now();
        let done = loop {
            let done = collect_blobs(&store, &lock, &policy).unwrap();
            // A child that another test has forked holds all descriptors until it executes something.
            if done.in_use == 0 || since.elapsed().as_secs() >= 30 {
                break done;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        assert_eq!((done.blobs, done.in_use), (1, 0));
        assert!(store.blobs().has(needed).unwrap());
    }

    /// Collectors among writers: whatever has a name at the end is whole.
    #[test]
    fn collecting_while_others_write() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("s");
        let store = Store::open(&root).unwrap();
        let removed = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let root = &root;
                scope.spawn(move || {
                    // Each opens the store itself, as a process would.
                    let store = Store::open(root).unwrap();
                    for round in 0..15 {
                        let lock = store.lock().unwrap();
                        put_image(&store, &format!("{thread}-{round}"));
                        drop(lock);
                        if round % 2 == 0 {
                            assert!(store.refs().remove(&format!("image:{thread}-{round}")).unwrap());
                        }
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..200 {
                    if let Ok(lock) = store.lock_exclusive() {
                        let done = collect_blobs(&store, &lock, &policy(AT_ONCE)).unwrap();
                        removed.fetch_add(done.blobs, std::sync::atomic::Ordering::Relaxed);
                    }
                    std::thread::yield_now();
                }
            });
        });
        let lock = soon(|| store.lock_exclusive().ok());
        removed.fetch_add(
            collect_blobs(&store, &lock, &policy(AT_ONCE)).unwrap().blobs,
            std::sync::atomic::Ordering::Relaxed,
        );
        let names = store.refs().list().unwrap();
        assert_eq!(names.len(), 3 * 7);
        let live = reachable(&store, &HashSet::new()).unwrap().live;
        assert_eq!(live.len(), 3 * 7 * 4);
        assert!(live.iter().all(|digest| store.blobs().has(*digest).unwrap()));
        assert_eq!(std::fs::read_dir(store.blobs().dir()).unwrap().count(), live.len());
        assert_eq!(removed.into_inner(), 3 * 8 * 4);
    }

    #[test]
    fn indexes_go_with_their_blob_and_age() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let [layer, ..] = put_image(&store, "one");
        let elsewhere = Digest::from_bytes([5; 32]);
        for digest in [layer, elsewhere] {
            std::fs::write(store.index_dir().join(format!("{}.lfx", digest.hex())), "index").unwrap();
        }
        let lock = store.lock_exclusive().unwrap();
        assert_eq!(collect_caches(&store, &lock, LATER).unwrap().indexes, 0);
        assert_eq!(collect_caches(&store, &lock, AT_ONCE).unwrap().indexes, 1);
        assert!(store.index_dir().join(format!("{}.lfx", layer.hex())).exists());
    }

    #[test]
    fn caches_go_with_their_image_and_age() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let [known, other] = [Digest::from_bytes([5; 32]), Digest::from_bytes([6; 32])];
        let config = put(&store, &format!(r#"{{"rootfs":{{"diff_ids":["{known}"]}}}}"#)).digest;
        let manifest = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{config}"}}}}"#);
        store.refs().set("image:one", &put(&store, &manifest)).unwrap();
        let [spill, trace] = [store.spill_dir(), store.trace_dir()];
        let kept =
            [spill.join(known.hex()), trace.join(config.hex()), trace.join(format!("{}-12", config.hex()))];
        let gone =
            [spill.join(other.hex()), trace.join(other.hex()), trace.join(format!("{}-12", other.hex()))];
        let others = [spill.join("lock"), trace.join("README")];
        for path in kept.iter().chain(&gone).chain(&others) {
            std::fs::write(path, "cache").unwrap();
        }
        let lock = store.lock_exclusive().unwrap();
        assert_eq!(collect_caches(&store, &lock, LATER).unwrap().caches, 0);
        assert_eq!(collect_caches(&store, &lock, AT_ONCE).unwrap().caches, 3);
        assert!(kept.iter().chain(&others).all(|path| path.exists()));
        assert!(!gone.iter().any(|path| path.exists()));
    }

    /// For who prunes, blobs are not to be taken, whatever leads to them, nor what somebody is still writing.
    #[test]
    fn of_images_only_what_can_be_made_again_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let nameless = put(&store, "nameless").digest;
        store.refs().set("broken:1", &put(&store, "{broken")).unwrap();
        let dirs = [store.blobs().dir().to_owned(), store.index_dir(), store.spill_dir(), store.trace_dir()];
        let [young, old] = ["young", "old"]
            .map(|name| dirs.iter().map(|dir| dir.join(format!("{TEMP_PREFIX}{name}"))).collect::<Vec<_>>());
        for path in young.iter().chain(&old) {
            std::fs::write(path, "left").unwrap();
        }
        for path in &old {
            let yesterday = SystemTime::now() - TEMPORARY_AGE_MIN;
            std::fs::File::options().write(true).open(path).unwrap().set_modified(yesterday).unwrap();
        }
        let lock = store.lock_exclusive().unwrap();
        let done = collect_caches(&store, &lock, AT_ONCE).unwrap();
        assert_eq!((done.temporaries, done.bytes, done.blobs), (4, 16, 0));
        assert!(store.blobs().has(nameless).unwrap() && young.iter().all(|path| path.exists()));
    }

    #[test]
    fn a_document_may_begin_with_a_space_and_a_layer_with_a_brace() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let [layer, config] = [put(&store, "{no JSON").digest, put(&store, "config").digest];
        let text = format!(
            "\n\t {{\"schemaVersion\":2,\"config\":{{\"digest\":\"{config}\"}},\"layers\":[{{\"digest\":\"{layer}\"}}]}}"
        );
        store.refs().set("image:one", &put(&store, &text)).unwrap();
        let lock = store.lock_exclusive().unwrap();
        assert_eq!(collect_blobs(&store, &lock, &policy(AT_ONCE)).unwrap().blobs, 0);
        // What is a layer of one may be a document of another.
        let inner = put(&store, &format!(r#"{{"schemaVersion":2,"config":{{"digest":"{config}"}}}}"#)).digest;
        let outer = format!(r#"{{"schemaVersion":2,"layers":[{{"digest":"{inner}"}}]}}"#);
        store.refs().set("image:two", &put(&store, &outer)).unwrap();
        store.refs().remove("image:one").unwrap();
        store.refs().set("image:three", &Descriptor::new(MEDIA_TYPE_MANIFEST, inner, 1)).unwrap();
        collect_blobs(&store, &lock, &policy(AT_ONCE)).unwrap();
        assert!(store.blobs().has(config).unwrap());
    }

    #[test]
    fn what_is_only_talked_about_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let [label, note, nested] = ["label", "note", "nested"].map(|text| put(&store, text).digest);
        let config = put(
            &store,
            &format!(r#"{{"rootfs":{{"diff_ids":[]}},"config":{{"Labels":{{"a":"{label}"}}}}}}"#),
        );
        let rest = format!(r#""annotations":{{"digest":"{note}"}},"unknown":[{{"digest":"{nested}"}}]"#);
        let manifest = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{}"}},{rest}}}"#, config.digest);
        store.refs().set("image:one", &put(&store, &manifest)).unwrap();
        let lock = store.lock_exclusive().unwrap();
        assert_eq!(collect_blobs(&store, &lock, &policy(AT_ONCE)).unwrap().blobs, 2);
        let has = |digest| store.blobs().has(digest).unwrap();
        assert_eq!([config.digest, nested, label, note].map(has), [true, true, false, false]);
    }

    #[test]
    fn a_broken_document_stops_everything() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let broken = put(&store, "{broken");
        store.refs().set("broken:1", &broken).unwrap();
        let garbage = put(&store, "garbage").digest;
        let lock = store.lock_exclusive().unwrap();
        let error = collect_blobs(&store, &lock, &policy(AT_ONCE)).unwrap_err().to_string();
        assert!(error.contains(&broken.digest.hex()), "{error}");
        assert!(store.blobs().has(garbage).unwrap());
    }
}
