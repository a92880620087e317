//! What a name in `lowerdir=` stands for.
//!
//! A directory is one layer of differences. A file `NAME.lfx` is the index of one layer, whose blob is `NAME` beside it or
//! lies in the same store; a file named by its digest, as in an OCI layout, is the blob of one. Everything else is an
//! image, as for `layerfs mount`, and brings all of its layers; `oci:`, `dir:` and the like work too, with `\:`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::progress::Told;
use super::{environment, inspect};
use crate::image;
use crate::index::LayerIndex;
use crate::model::Digest;
use crate::mount::{Caches, OverlayLayer};
use crate::store::Store;
use crate::sys::file_range::FileRange;

/// Layers, and where indexes are kept: nowhere, if no layer needs one.
#[derive(Debug, Default)]
pub(super) struct Lowers {
    /// Base first.
    pub(super) layers: Vec<OverlayLayer>,
    /// The store's; empty as long as there is none.
    pub(super) index_dir: PathBuf,
    /// The store's, without a trace: which image this is nobody says.
    pub(super) caches: Caches,
}

impl Lowers {
    /// Finds all layers; `names` has the topmost first. The caller's store is touched only if a name needs it.
    pub(super) fn find(names: &[OsString]) -> anyhow::Result<Self> {
        let mut lowers = Self::default();
        let mut store = None;
        for name in names.iter().rev() {
            lowers.add(name, &mut store).with_context(|| format!("lowerdir {}", name.display()))?;
        }
        Ok(lowers)
    }

    fn add(&mut self, name: &OsStr, store: &mut Option<Store>) -> anyhow::Result<()> {
        let path = Path::new(name);
        if path.is_dir() {
            self.layers.push(OverlayLayer::Differences(path.to_owned()));
            return Ok(());
        }
        if path.is_file() && path.extension() == Some(OsStr::new("lfx")) {
            self.layers.push(indexed(path)?);
            return Ok(());
        }
        let store = match store {
            Some(store) => store,
            none => none.insert(environment::store()?),
        };
        self.index_dir = store.index_dir();
        self.caches.spill = environment::spill(store)?;
        match named_by_digest(path) {
            Some(digest) if path.is_file() => {
                let blob = FileRange::open(path)?;
                self.layers.push(OverlayLayer::Blob { blob, digest });
            }
            _ => {
                let name = name.to_str().context("not UTF-8, and no directory")?;
                let image = image::open_sought(name, store, &inspect::any(Told::Progress))?;
                self.layers.extend(image.layers.into_iter().map(OverlayLayer::OfImage));
            }
        }
        Ok(())
    }
}

fn indexed(index: &Path) -> anyhow::Result<OverlayLayer> {
    let digest = LayerIndex::open(index)?.blob_digest();
    let beside = index.with_extension("");
    let in_store = index.canonicalize()?.parent().and_then(Path::parent).map(|root| {
        let blobs: PathBuf = [Path::new("oci"), Path::new("blobs"), Path::new("sha256")].iter().collect();
        root.join(blobs).join(digest.hex())
    });
    for blob in [Some(beside.clone()), in_store].into_iter().flatten() {
        if blob.is_file() {
            let blob = FileRange::open(&blob).with_context(|| blob.display().to_string())?;
            return Ok(OverlayLayer::Indexed { index: index.to_owned(), blob });
        }
    }
    bail!("its blob {digest} is neither {} nor in the index's store", beside.display())
}

/// The digest that a blob's path ends with: `.../sha256/<hex>`.
fn named_by_digest(path: &Path) -> Option<Digest> {
    let algorithm = path.parent()?.file_name()?.to_str()?;
    let hex = path.file_name()?.to_str()?;
    format!("{algorithm}:{hex}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_need_no_store() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["top", "base"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let names = ["top", "base"].map(|name| dir.path().join(name).into_os_string());
        let lowers = Lowers::find(&names).unwrap();
        let paths: Vec<_> = lowers
            .layers
            .iter()
            .map(|layer| match layer {
                OverlayLayer::Differences(path) => path.file_name().unwrap().to_str().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(paths, ["base", "top"]);
        assert_eq!(lowers.index_dir, PathBuf::new());
    }

    #[test]
    fn blobs_are_known_by_their_names() {
        let hex = "ab".repeat(32);
        assert!(named_by_digest(&Path::new("/oci/blobs/sha256").join(&hex)).is_some());
        assert!(named_by_digest(&Path::new("/oci/blobs/md5").join(&hex)).is_none());
        assert!(named_by_digest(Path::new("/oci/blobs/sha256/short")).is_none());
        assert!(named_by_digest(Path::new("/")).is_none());
    }

    #[test]
    fn an_index_without_its_blob() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lfx");
        std::fs::write(&path, "no index").unwrap();
        assert!(Lowers::find(&[path.into()]).unwrap_err().to_string().contains("a.lfx"));
    }
}
