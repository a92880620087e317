//! When a blob is whole: it is what the manifest says, or nothing of it stays.

use std::sync::{Mutex, PoisonError};

use super::super::ImageError;
use super::super::seen::Seen;
use super::Layer;
use crate::index::{self, Expected, LayerIndex};
use crate::model::Digest;
use crate::store::{Arriving, Descriptor, Store};

/// What an image still lacks, and what is done when it lacks nothing.
#[derive(Debug)]
pub(super) struct Finishing {
    pub(super) store: Store,
    /// The layers that are on their way.
    pub(super) missing: Mutex<Vec<Digest>>,
    pub(super) name: String,
    pub(super) descriptor: Descriptor,
    /// Where it comes from, and all its parts.
    pub(super) seen: (String, String, Vec<Digest>),
}

impl Finishing {
    /// Makes a blob of what has arrived, with the index that a pull would have made; the last one gives the image its name. False when
    /// the bytes are not those of the manifest: then they are to be fetched anew.
    pub(super) fn layer(&self, arriving: &Arriving, layer: Layer) -> Result<bool, ImageError> {
        let _lock = self.store.lock()?;
        let actual = arriving.publish(&self.store)?;
        if actual != layer.digest {
            for piece in 0..arriving.pieces() {
                arriving.mark(piece, false).map_err(ImageError::io("write", arriving.path()))?;
            }
            tracing::warn!(digest = %layer.digest, %actual, "a layer arrived with another digest: all of it is fetched anew");
            return Ok(false);
        }
        self.index(layer)?;
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.retain(|digest| *digest != layer.digest);
        if missing.is_empty() {
            let (host, repository, parts) = &self.seen;
            Seen::of(&self.store).note(host, repository, parts.iter().copied());
            self.store.refs().set(&self.name, &self.descriptor)?;
        }
        Ok(true)
    }

    /// What somebody else says of a layer is not kept: its index is made of its bytes.
    fn index(&self, layer: Layer) -> Result<(), ImageError> {
        let name = format!("{}.lfx", layer.digest.hex());
        let (blob, dir) = (self.store.blobs().get(layer.digest)?, self.store.index_dir());
        let path = dir.join(&name);
        if !path.try_exists().map_err(ImageError::io("read", &path))? {
            let expected = Expected { blob: Some(layer.digest), diff_id: Some(layer.diff_id) };
            index::build(&blob, &expected, &dir, &name, &|_| {}).map_err(|source| {
                let (path, digest) = (blob.to_path_buf(), layer.digest);
                ImageError::Unreadable { path, digest, source: Box::new(source) }
            })?;
        }
        self.compare(layer, &name)
    }

    /// Whoever attached an index that was accepted may have lied: that is found out now.
    fn compare(&self, layer: Layer, name: &str) -> Result<(), ImageError> {
        let attached = self.store.arriving_dir().join(name);
        let Ok(theirs) = LayerIndex::open(&attached) else { return Ok(()) };
        let own = LayerIndex::open(&self.store.index_dir().join(name));
        if !own.and_then(|own| own.agrees_with(&theirs)).is_ok_and(|agree| agree) {
            tracing::error!(
                layer = %layer.digest,
                image = %self.name,
                "the attached index that was trusted does not say what is in the layer: do not trust it again, and do not rely \
                 on what ran on it"
            );
        }
        std::fs::remove_file(&attached).map_err(ImageError::io("remove", &attached))
    }
}
