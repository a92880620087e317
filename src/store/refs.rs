//! Names of images: annotations in `index.json`.
//!
//! Changes are made under `refs.lock`, so that two of our processes never lose each other's; other tools that write to
//! the layout do not know that lock, and the last of them wins.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::PathBuf;

use super::{Blobs, Descriptor, Index, REF_NAME, StoreError};
use crate::model::Digest;
use crate::model::limits::DOCUMENT_BYTES_MAX;
use crate::sys::atomic;
use crate::sys::lock::FileLock;

/// Longest name: what fits a file name, as other tools use names for files.
pub const NAME_BYTES_MAX: usize = 255;

/// The names in one layout.
#[derive(Clone, Debug)]
pub struct Refs {
    index: PathBuf,
    lock: PathBuf,
    blobs: Blobs,
}

impl Refs {
    pub(super) fn at(index: PathBuf, lock: PathBuf, blobs: Blobs) -> Self {
        Self { index, lock, blobs }
    }

    /// What has this very name. Names are compared byte by byte; what `latest` and `docker.io` mean is known above.
    ///
    /// # Errors
    /// [`StoreError::Document`] when `index.json` cannot be read.
    pub fn resolve(&self, name: &str) -> Result<Option<Descriptor>, StoreError> {
        Ok(self.list()?.into_iter().find(|(known, _)| known == name).map(|(_, descriptor)| descriptor))
    }

    /// All names, in the order of the index.
    ///
    /// # Errors
    /// [`StoreError::Document`] when `index.json` cannot be read.
    pub fn list(&self) -> Result<Vec<(String, Descriptor)>, StoreError> {
        let named = |descriptor: Descriptor| Some((descriptor.ref_name()?.to_owned(), descriptor));
        Ok(self.read()?.manifests.into_iter().filter_map(named).collect())
    }

    /// Gives a name to a manifest or index that is in the store, taking it from what had it. That stays in the index without
    /// one, as skopeo leaves it, when it has no other: else nobody would find what takes room there.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the blob is not there, [`StoreError::Name`] for a bad name.
    pub fn set(&self, name: &str, descriptor: &Descriptor) -> Result<(), StoreError> {
        self.set_instead(name, descriptor, |_| false)
    }

    /// The same, and takes from what is called the same in other words what it is called: `is_same` says which that is.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_instead(
        &self,
        name: &str,
        descriptor: &Descriptor,
        is_same: impl Fn(&Descriptor) -> bool,
    ) -> Result<(), StoreError> {
        self.set_all_instead(&BTreeMap::from([(name.to_owned(), descriptor.clone())]), is_same)
    }

    /// Gives several names: all of them, or none.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_all_instead(
        &self,
        names: &BTreeMap<String, Descriptor>,
        is_same: impl Fn(&Descriptor) -> bool,
    ) -> Result<(), StoreError> {
        let mut named = Vec::with_capacity(names.len());
        for (name, descriptor) in names {
            check_name(name)?;
            if !self.blobs.has(descriptor.digest)? {
                let path = self.blobs.path(descriptor.digest);
                return Err(StoreError::Missing { digest: descriptor.digest, path });
            }
            let mut descriptor = descriptor.clone().nameless();
            descriptor.annotations.get_or_insert_default().insert(REF_NAME.to_owned(), name.clone());
            named.push(descriptor);
        }
        self.edit(|index| {
            let is_given = |one: &Descriptor| {
                [one.full_name(), one.ref_name()].into_iter().flatten().any(|name| names.contains_key(name))
            };
            index.take_names(|one| is_given(one) || is_same(one));
            // What had no name has one now.
            let digests: HashSet<Digest> = named.iter().map(|one| one.digest).collect();
            index.manifests.retain(|known| known.full_name().is_some() || !digests.contains(&known.digest));
            index.manifests.extend(named);
        })
    }

    /// Takes a name away; its blobs stay until they are collected. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Document`] when `index.json` cannot be read.
    pub fn remove(&self, name: &str) -> Result<bool, StoreError> {
        self.edit(|index| {
            let before = index.manifests.len();
            index.manifests.retain(|known| known.ref_name() != Some(name));
            index.manifests.len() != before
        })
    }

    /// The whole index.
    ///
    /// # Errors
    /// [`StoreError::Document`] when it cannot be read.
    pub fn read(&self) -> Result<Index, StoreError> {
        let bytes = self.read_bytes()?;
        serde_json::from_slice(&bytes).map_err(|error| self.wrong(format!("not an OCI index: {error}")))
    }

    /// Writes an empty index when there is none.
    pub(super) fn create_missing(&self) -> Result<(), StoreError> {
        if super::exists(&self.index)? {
            return Ok(());
        }
        let _lock = self.lock()?;
        if super::exists(&self.index)? { Ok(()) } else { self.write(&Index::empty()) }
    }

    /// Changes the index as a whole: nobody of ours changes it meanwhile, and after a crash it is the old one or the new one.
    ///
    /// # Errors
    /// [`StoreError::Document`] when it cannot be read; what the system says when it cannot be written.
    pub fn edit<T>(&self, edit: impl FnOnce(&mut Index) -> T) -> Result<T, StoreError> {
        let _lock = self.lock()?;
        let mut index = self.read()?;
        let before = index.clone();
        let answer = edit(&mut index);
        if index != before {
            self.write(&index)?;
        }
        Ok(answer)
    }

    fn lock(&self) -> Result<FileLock, StoreError> {
        FileLock::exclusive(&self.lock).map_err(StoreError::io("lock", &self.lock))
    }

    fn read_bytes(&self) -> Result<Vec<u8>, StoreError> {
        let read = || -> io::Result<Option<Vec<u8>>> {
            if std::fs::metadata(&self.index)?.len() > DOCUMENT_BYTES_MAX {
                return Ok(None);
            }
            std::fs::read(&self.index).map(Some)
        };
        let bytes = read().map_err(StoreError::io("read", &self.index))?;
        bytes.ok_or_else(|| self.wrong(format!("larger than {DOCUMENT_BYTES_MAX} bytes")))
    }

    fn write(&self, index: &Index) -> Result<(), StoreError> {
        let text = serde_json::to_vec(index).map_err(|error| self.wrong(error.to_string()))?;
        // Nobody could read it any more.
        if text.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(
                self.wrong(format!("it would be larger than {DOCUMENT_BYTES_MAX} bytes: remove names first"))
            );
        }
        atomic::write(&self.index, &text, 0o644).map_err(StoreError::io("write", &self.index))
    }

    fn wrong(&self, reason: String) -> StoreError {
        StoreError::Document { path: self.index.clone(), reason }
    }
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:@/+[]".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(StoreError::Name { name: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{MEDIA_TYPE_MANIFEST, Store};
    use super::*;

    fn put(store: &Store, text: &str) -> Descriptor {
        let (digest, size) = store.blobs().put_unnamed(&mut text.as_bytes()).unwrap();
        Descriptor::new(MEDIA_TYPE_MANIFEST, digest, size)
    }

    #[test]
    fn keeps_what_other_tools_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let digest = put(&store, "x").digest;
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"m","extra":[1],"manifests":[{{"mediaType":"a","digest":"{digest}","size":1,"urls":["u"],"platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}}]}}"#
        );
        std::fs::write(store.oci_dir().join("index.json"), text).unwrap();
        store.refs().set("a:1", &put(&store, "y")).unwrap();
        let after = std::fs::read_to_string(store.oci_dir().join("index.json")).unwrap();
        for part in [r#""extra":[1]"#, r#""urls":["u"]"#, r#""variant":"v7""#, r#""mediaType":"m""#] {
            assert!(after.contains(part), "{part} in {after}");
        }
    }

    #[test]
    fn what_loses_its_last_name_stays_in_the_index() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let (one, two) = (put(&store, "one"), put(&store, "two"));
        let refs = store.refs();
        let nameless = || -> Vec<Digest> {
            let all = refs.read().unwrap().manifests.into_iter();
            all.filter(|known| known.ref_name().is_none()).map(|known| known.digest).collect()
        };
        refs.set("a:1", &one).unwrap();
        refs.set("b:1", &one).unwrap();
        refs.set("a:1", &two).unwrap();
        assert!(nameless().is_empty(), "it has another name");
        refs.set("b:1", &two).unwrap();
        assert_eq!(nameless(), [one.digest]);
        refs.set("c:1", &one).unwrap();
        assert!(nameless().is_empty());
    }

    #[test]
    fn an_index_that_nobody_could_read_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let blob = put(&store, "x");
        let names = (0..20_000).map(|number| (format!("{number:0>255}"), blob.clone())).collect();
        let refs = store.refs();
        refs.set("a:1", &blob).unwrap();
        let error = refs.set_all_instead(&names, |_| false).unwrap_err().to_string();
        assert!(error.contains("remove names first"), "{error}");
        assert_eq!(refs.list().unwrap().len(), 1);
    }

    #[test]
    fn bad_names_and_missing_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let blob = put(&store, "x");
        for name in ["", "a b", "a\n", "\u{e9}", &"x".repeat(256)] {
            let error = store.refs().set(name, &blob).unwrap_err();
            assert!(matches!(error, StoreError::Name { .. }), "{name:?}: {error}");
        }
        let missing = Descriptor { digest: Digest::from_bytes([1; 32]), ..blob };
        let error = store.refs().set("a", &missing).unwrap_err().to_string();
        assert!(error.contains(&missing.digest.to_string()), "{error}");
        std::fs::write(store.oci_dir().join("index.json"), "[").unwrap();
        let error = store.refs().list().unwrap_err().to_string();
        assert!(error.contains("index.json") && error.contains("not an OCI index"), "{error}");
    }

    #[test]
    fn many_writers_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("s");
        let store = Store::open(&root).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let root = &root;
                scope.spawn(move || {
                    // Each opens the store itself, as a process would.
                    let store = Store::open(root).unwrap();
                    let _lock = store.lock().unwrap();
                    for round in 0..8 {
                        let blob = put(&store, &format!("{thread} {}", round % 2));
                        store.refs().set(&format!("image{thread}:{round}"), &blob).unwrap();
                        if round % 3 == 0 {
                            assert!(store.refs().remove(&format!("image{thread}:{round}")).unwrap());
                        }
                    }
                });
            }
        });
        let names: Vec<String> = store.refs().list().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 4 * 5);
        for thread in 0..4 {
            for round in [1, 2, 4, 5, 7] {
                assert!(names.contains(&format!("image{thread}:{round}")), "{names:?}");
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u8, u8),
        Remove(u8),
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        /// The index behaves as a map from name to digest.
        #[test]
        fn like_a_map(steps in prop::collection::vec(
            prop_oneof![(0..4u8, 0..3u8).prop_map(|(n, b)| Step::Set(n, b)), (0..4u8).prop_map(Step::Remove)], 0..12
        )) {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("s")).unwrap();
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(name, blob) => {
                        let descriptor = put(&store, &blob.to_string());
                        store.refs().set(&format!("n{name}"), &descriptor).unwrap();
                        model.insert(format!("n{name}"), descriptor.digest);
                    }
                    Step::Remove(name) => {
                        let name = format!("n{name}");
                        prop_assert_eq!(store.refs().remove(&name).unwrap(), model.remove(&name).is_some());
                    }
                }
            }
            for name in 0..4 {
                let name = format!("n{name}");
                let found = store.refs().resolve(&name).unwrap().map(|descriptor| descriptor.digest);
                prop_assert_eq!(found, model.get(&name).copied());
            }
            prop_assert_eq!(store.refs().list().unwrap().len(), model.len());
        }
    }
}
