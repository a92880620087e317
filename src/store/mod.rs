//! Row 2: content-addressed blobs, names, locks and garbage collection: an OCI image layout on disk.
//!
//! The store owns the directory below its root and nothing else. `oci/` is a layout that skopeo, umoci and buildah read
//! and write (`oci:<root>/oci:NAME:TAG`). The store knows nothing about what is in `index/`, `spill/`, `trace/`
//! and `imported/` but that it can be made again.
//!
//! Invariants: a file in `blobs/sha256` is complete and hashes to its name when the store wrote it; `index.json` is only
//! replaced as a whole, under the lock `refs.lock`.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::sys::atomic;

mod arriving;
mod blobs;
mod check;
mod error;
mod gc;
mod imports;
mod layout;
mod locks;
mod partial;
mod refs;
mod removal;
mod repair;
mod staged;

pub use arriving::{Arriving, ArrivingView, PIECE_BYTES};
pub use blobs::{BlobPin, Blobs};
pub use check::{Checked, Checking, Finding, Repair, check};
pub use error::StoreError;
pub use gc::{Collected, GcPolicy, collect_blobs, collect_caches};
pub use imports::{ImportKey, Imports, NewImport, Removed, Turn};
pub use layout::{
    CONTAINERD_NAME, Descriptor, Index, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST, OCI_LAYOUT, Platform, REF_NAME,
};
pub use locks::{StoreLock, StoreLockExclusive};
pub use partial::{Delivery, Partial};
pub use refs::{NAME_BYTES_MAX, Refs};
pub use removal::{Freed, Grace, free, freeable, leads_to, nameless_blobs};
pub use repair::{Repaired, repair};
pub use staged::{NewBlob, StagedBlob};

/// A store on disk, usable by this user.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store below `root`, creating what is missing (mode 0700).
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be created, belongs to somebody else, or others may write to it.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
        create_dir(&root)?;
        check_owner(&root)?;
        let store = Self { root };
        for dir in [
            store.blob_dir(),
            store.index_dir(),
            store.spill_dir(),
            store.trace_dir(),
            store.containers_dir(),
        ] {
            create_dir(&dir)?;
        }
        let layout = store.oci_dir().join("oci-layout");
        if !exists(&layout)? {
            atomic::write(&layout, OCI_LAYOUT.as_bytes(), 0o644).map_err(StoreError::io("write", &layout))?;
        }
        store.refs().create_missing()?;
        Ok(store)
    }

    /// The directory it lives in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The OCI image layout.
    #[must_use]
    pub fn oci_dir(&self) -> PathBuf {
        self.root.join("oci")
    }

    /// Where layer indexes are kept.
    #[must_use]
    pub fn index_dir(&self) -> PathBuf {
        self.root.join("index")
    }

    /// Where decoded granules are kept.
    #[must_use]
    pub fn spill_dir(&self) -> PathBuf {
        self.root.join("spill")
    }

    /// Where start traces are kept.
    #[must_use]
    pub fn trace_dir(&self) -> PathBuf {
        self.root.join("trace")
    }

    /// Archives that were compressed as a whole.
    #[must_use]
    pub fn imports(&self) -> Imports {
        Imports::at(self.root.join("imported"))
    }

    /// Where containers are kept.
    #[must_use]
    pub fn containers_dir(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// What lists of images have read of them.
    #[must_use]
    pub fn image_facts(&self) -> PathBuf {
        self.root.join("images.json")
    }

    /// Where damaged blobs are put.
    #[must_use]
    pub fn damaged_dir(&self) -> PathBuf {
        self.root.join("damaged")
    }

    /// The blobs.
    #[must_use]
    pub fn blobs(&self) -> Blobs {
        Blobs::at(self.blob_dir())
    }

    /// The names.
    #[must_use]
    pub fn refs(&self) -> Refs {
        Refs::at(self.oci_dir().join("index.json"), self.root.join("refs.lock"), self.blobs())
    }

    fn blob_dir(&self) -> PathBuf {
        self.oci_dir().join("blobs/sha256")
    }
}

fn create_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io("create", path))
}

fn check_owner(root: &Path) -> Result<(), StoreError> {
    let metadata = std::fs::metadata(root).map_err(StoreError::io("read", root))?;
    let caller = rustix::process::geteuid().as_raw();
    if metadata.uid() != caller {
        return Err(StoreError::Owner { path: root.to_owned(), owner: metadata.uid(), caller });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(StoreError::Writable { path: root.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    Ok(())
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn creates_a_private_tree_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("deep/store");
        Store::open(&root).unwrap();
        let store = Store::open(&root).unwrap();
        for path in [store.root(), &store.oci_dir(), &store.index_dir(), &store.containers_dir()] {
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o700, "{}", path.display());
        }
        assert_eq!(std::fs::read_to_string(root.join("oci/oci-layout")).unwrap(), OCI_LAYOUT);
        assert!(root.join("oci/index.json").is_file());
    }

    #[test]
    fn refuses_what_others_can_write_to() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).unwrap();
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("0770") && error.contains("chmod go-w"), "{error}");
    }

    #[test]
    fn refuses_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
            let error = Store::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains("uid 12345") && error.contains("LAYERFS_ROOT"), "{error}");
        }
        let error = Store::open(&dir.path().join("\0")).unwrap_err().to_string();
        assert!(error.starts_with("cannot create"), "{error}");
    }
}
