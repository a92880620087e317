//! Layers as overlay filesystems are told them: directories of differences, and whatever else holds a layer.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Caches, Layers, MountError, MountSpec, OpenCaches, Progress};
use crate::index::{Expected, IndexDir, IndexError, LayerIndex, build};
use crate::layer::{DiffLayer, Layer, LayerSource, TarLayer};
use crate::model::Digest;
use crate::model::limits::IMAGE_LAYERS_MAX;
use crate::sys::file_range::FileRange;
use crate::sys::memory;
use crate::union::Union;

/// One layer.
#[derive(Clone, Debug)]
pub enum OverlayLayer {
    /// A directory in which names and attributes may hide what is below.
    Differences(PathBuf),
    /// A blob with its index, wherever they lie.
    Indexed {
        /// The index.
        index: PathBuf,
        /// The bytes that it is of.
        blob: FileRange,
    },
    /// A blob of which only the digest is known; its index is kept with the others.
    Blob {
        /// The bytes.
        blob: FileRange,
        /// What they must hash to.
        digest: Digest,
    },
    /// A layer of an image.
    OfImage(LayerSource),
}

/// What is to be mounted.
#[derive(Clone, Debug)]
pub struct OverlaySpec {
    /// The layers, base first.
    pub layers: Vec<OverlayLayer>,
    /// Where indexes are kept of those that need one.
    pub index_dir: PathBuf,
    /// What else is kept of layers.
    pub caches: Caches,
    /// Where it will be mounted. A layer that holds this directory goes on showing what is in it now.
    pub target: PathBuf,
}

impl OverlaySpec {
    /// Opens all layers. They are never looked for by their paths again, so that what is mounted over them, or over what
    /// is above them, does not matter.
    ///
    /// # Errors
    /// [`MountError`] names the layer and the file.
    pub fn layers(&self, progress: &dyn Progress) -> Result<Layers, MountError> {
        if self.layers.len() > IMAGE_LAYERS_MAX {
            return Err(MountError::TooManyLayers(self.layers.len()));
        }
        let caches = self.caches.open();
        let indexes = IndexDir::at(&self.index_dir);
        let open = |(place, layer)| self.open(place, layer, &indexes, &caches, progress);
        let layers = self.layers.iter().enumerate().map(open).collect::<Result<_, _>>()?;
        Ok(Layers { union: Union::new(layers), caches })
    }

    fn open(
        &self,
        place: usize,
        layer: &OverlayLayer,
        indexes: &Arc<IndexDir>,
        caches: &OpenCaches,
        progress: &dyn Progress,
    ) -> Result<Arc<dyn Layer>, MountError> {
        let failed = |source| MountError::Index { layer: place + 1, source: Box::new(source) };
        let report = |done, total| progress.indexed(place + 1, self.layers.len(), done, total);
        let (index, blob) = match layer {
            OverlayLayer::Differences(path) => {
                return Ok(Arc::new(DiffLayer::open(path)?.beside_mount(&self.target)?));
            }
            OverlayLayer::OfImage(source) => {
                let index_dir = self.index_dir.clone();
                let spec = MountSpec { layers: Vec::new(), index_dir, caches: Caches::default() };
                return spec.open_layer(place, source, indexes, caches, progress);
            }
            OverlayLayer::Indexed { index, blob } => {
                (LayerIndex::open(index).and_then(|index| fitting(index, blob)).map_err(failed)?, blob)
            }
            OverlayLayer::Blob { blob, digest } => {
                let report = |done| report(done, blob.len());
                (self.index(indexes, blob, *digest, &report).map_err(failed)?, blob)
            }
        };
        let layer = TarLayer::new(Arc::new(index), blob.clone(), Arc::clone(&caches.chunks));
        Ok(caches.help(place, layer))
    }

    /// The index of a blob: the one that is kept, unless it is missing, damaged or of another version.
    fn index(
        &self,
        indexes: &Arc<IndexDir>,
        blob: &FileRange,
        digest: Digest,
        report: &(dyn Fn(u64) + Sync),
    ) -> Result<LayerIndex, IndexError> {
        let name = format!("{}.lfx", digest.hex());
        let open = || LayerIndex::open_in(indexes, name.as_ref());
        match open().and_then(|index| fitting(index, blob)) {
            Ok(index) if index.blob_digest() == digest => return Ok(index),
            Ok(_) | Err(_) => tracing::debug!("{name}: built"),
        }
        build(blob, &Expected { blob: Some(digest), diff_id: None }, &self.index_dir, &name, report)?;
        memory::give_back();
        open()
    }
}

/// An index that can be of the blob. That it is, each granule's digest shows.
fn fitting(index: LayerIndex, blob: &FileRange) -> Result<LayerIndex, IndexError> {
    if index.blob_bytes() != blob.len() {
        let reason = "not of this blob: it is of another length";
        return Err(IndexError::Stale { path: index.path().to_owned(), reason });
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::fs::{FsError, OwnerView};
    use crate::model::{Ino, Name};

    struct Silent;

    impl Progress for Silent {
        fn indexed(&self, _: usize, _: usize, _: u64, _: u64) {}
    }

    fn tar(name: &str, content: &[u8]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, content).unwrap();
        tar.into_inner().unwrap()
    }

    fn content(layers: Layers, name: &str) -> Result<Option<Vec<u8>>, FsError> {
        let fs = layers.into_fs(None, OwnerView::Image).unwrap();
        let Some(attr) = fs.lookup(Ino::ROOT, Name::new(name.as_bytes()).unwrap())? else { return Ok(None) };
        let mut buffer = vec![0; usize::try_from(attr.metadata.size).unwrap()];
        let length = fs.read(attr.ino, 0, &mut buffer)?;
        buffer.truncate(length);
        Ok(Some(buffer))
    }

    #[test]
    fn every_kind_of_layer() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let written = |name: &str, bytes: &[u8]| {
            std::fs::write(at(name), bytes).unwrap();
            FileRange::open(&at(name)).unwrap()
        };
        let blob = written("blob", &tar("a", b"of the blob"));
        let digest = Digest::from_bytes(Sha256::digest(tar("a", b"of the blob")).into());
        std::fs::create_dir_all(at("diff/mnt")).unwrap();
        std::fs::write(at("diff/.wh.b"), "").unwrap();
        std::fs::write(at("diff/c"), "of the directory").unwrap();
        let layers = |layers: Vec<OverlayLayer>| {
            OverlaySpec {
                layers,
                index_dir: dir.path().to_owned(),
                caches: Caches::default(),
                target: at("diff/mnt"),
            }
            .layers(&Silent)
        };
        let own = layers(vec![OverlayLayer::Blob { blob: blob.clone(), digest }]).unwrap();
        assert_eq!(content(own, "a").unwrap(), Some(b"of the blob".to_vec()));

        let index = at(&format!("{}.lfx", digest.hex()));
        let other = written("other", &tar("b", b"of another"));
        let other_digest = Digest::from_bytes(Sha256::digest(tar("b", b"of another")).into());
        let all = vec![
            OverlayLayer::Blob { blob: other.clone(), digest: other_digest },
            OverlayLayer::Indexed { index: index.clone(), blob },
            OverlayLayer::Differences(at("diff")),
        ];
        let all = layers(all).unwrap();
        for (name, expected) in
            [("a", Some(&b"of the blob"[..])), ("b", None), ("c", Some(b"of the directory"))]
        {
            assert_eq!(content(all.clone(), name).unwrap().as_deref(), expected, "{name}");
        }

        let wrong = layers(vec![OverlayLayer::Blob { blob: other.clone(), digest }]).unwrap();
        assert!(content(wrong, "a").is_err(), "bytes of another blob must not be shown");
        let swapped = layers(vec![OverlayLayer::Indexed { index, blob: other }]).unwrap();
        assert!(content(swapped, "a").is_err(), "bytes of another blob must not be shown");
    }
}
