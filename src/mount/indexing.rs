//! Indexes without a mount: built ahead, or looked at to see whether they are whole.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{MountError, MountSpec, Progress};
use crate::index::{self, Expected, IndexDir, IndexError, LayerIndex};
use crate::layer::{ChunkCache, KnownBy, LayerSource, TarLayer, TarSource};
use crate::model::Digest;

/// A layer whose index is there.
#[derive(Clone, Debug)]
pub struct IndexedLayer {
    /// Its place, counted from 1 at the base.
    pub layer: usize,
    /// The digest of the uncompressed layer.
    pub diff_id: Digest,
    /// That of its bytes as delivered.
    pub blob_digest: Digest,
    /// How it is compressed.
    pub encoding: &'static str,
    /// Bytes as delivered.
    pub blob_bytes: u64,
    /// Bytes uncompressed.
    pub tar_bytes: u64,
    /// Objects in it.
    pub entries: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Where the index is.
    pub index: PathBuf,
    /// Whether it was built just now.
    pub built: bool,
}

/// A damaged stretch of an index.
#[derive(Clone, Debug)]
pub struct IndexDamage {
    /// The index.
    pub path: PathBuf,
    /// Where in it, when only a part is damaged.
    pub offset: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

impl MountSpec {
    /// Builds what [`Self::layers`] would build, and tells of every layer that has an index.
    ///
    /// # Errors
    /// [`MountError`] of the first layer that has none; those below it have theirs.
    pub fn build_ahead(&self, progress: &dyn Progress) -> Result<Vec<IndexedLayer>, MountError> {
        let mut indexed = Vec::new();
        let indexes = IndexDir::at(&self.index_dir);
        for (place, source) in self.layers.iter().enumerate() {
            let LayerSource::Tar(tar) = source else { continue };
            let failed = |source| MountError::Index { layer: place + 1, source: Box::new(source) };
            let built = AtomicBool::new(false);
            let report = |done| {
                built.store(true, Ordering::Relaxed);
                progress.indexed(place + 1, self.layers.len(), done, tar.blob.len());
            };
            let index = self.index(&indexes, tar, &report).map_err(failed)?;
            let io = |source| IndexError::Io { path: index.path().to_owned(), source };
            let index_bytes = index.path().metadata().map_err(io).map_err(failed)?.len();
            indexed.push(IndexedLayer {
                layer: place + 1,
                diff_id: index.diff_id(),
                blob_digest: index.blob_digest(),
                encoding: index.encoding().name(),
                blob_bytes: index.blob_bytes(),
                tar_bytes: index.tar_bytes(),
                entries: index.inode_count(),
                index_bytes,
                index: index.path().to_owned(),
                built: built.load(Ordering::Relaxed),
            });
        }
        Ok(indexed)
    }

    /// Bytes, as delivered, of the layers that have no index. What cannot be told counts as known.
    #[must_use]
    pub fn bytes_to_index(&self) -> u64 {
        let unknown = |source: &LayerSource| {
            let LayerSource::Tar(tar) = source else { return 0 };
            if !matches!(tar.known_by, KnownBy::OwnIndex) {
                return 0;
            }
            let name = index::key(&tar.blob, tar.blob_digest.as_ref(), &tar.diff_id);
            let is_known = name.map_or(true, |name| self.index_dir.join(name).exists());
            if is_known { 0 } else { tar.blob.len() }
        };
        self.layers.iter().map(unknown).sum()
    }

    /// Opens one layer to be checked. A damaged index is told to `damage` and built again.
    ///
    /// # Errors
    /// [`IndexError`] when there is none and none can be built.
    pub fn layer_to_check(
        &self,
        tar: &TarSource,
        damage: &mut dyn FnMut(IndexDamage),
        report: &(dyn Fn(u64) + Sync),
    ) -> Result<TarLayer, IndexError> {
        let io = |source| IndexError::Io { path: tar.blob.to_path_buf(), source };
        let name = index::key(&tar.blob, tar.blob_digest.as_ref(), &tar.diff_id).map_err(io)?;
        let path = self.index_dir.join(&name);
        let mut is_damaged = false;
        match LayerIndex::open(&path) {
            Ok(index) => {
                for offset in index.damaged_pages() {
                    let reason = "a page has a wrong checksum; built again".to_owned();
                    damage(IndexDamage { path: path.clone(), offset: Some(offset), reason });
                    is_damaged = true;
                }
            }
            Err(error @ IndexError::Stale { .. }) if !error.is_other_version() => {
                let reason = format!("{error}; built again");
                damage(IndexDamage { path: path.clone(), offset: None, reason });
                is_damaged = true;
            }
            Err(_) => {}
        }
        if is_damaged {
            let expected = Expected { blob: tar.blob_digest, diff_id: Some(tar.diff_id) };
            index::build(&tar.blob, &expected, &self.index_dir, &name, report)?;
        }
        let index = Arc::new(self.index(&IndexDir::at(&self.index_dir), tar, report)?);
        // Every granule is looked at once: there is nothing to gain from keeping them.
        Ok(TarLayer::new(index, tar.blob.clone(), Arc::new(ChunkCache::new(0))))
    }
}
