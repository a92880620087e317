//! When a blob is whole: it is what the manifest says, or nothing of it stays.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::super::seen::Seen;
use super::super::{ImageError, Reference, pull};
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
    pub(super) reference: Reference,
    /// What the name led to when it was begun.
    pub(super) before: Option<Digest>,
    /// What it will lead to.
    pub(super) named: Descriptor,
    /// All that the image consists of.
    pub(super) parts: Vec<Descriptor>,
    /// Where it comes from, and what was seen there.
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
            self.give_name()?;
        }
        Ok(true)
    }

    /// Unless the name was given to something else meanwhile, or taken away.
    fn give_name(&self) -> Result<(), ImageError> {
        let (host, repository, parts) = &self.seen;
        Seen::of(&self.store).note(host, repository, parts.iter().copied());
        let (name, now) = pull::known(&self.store, &self.reference)?;
        if now != self.before {
            tracing::warn!("{name} is another image by now: the one that has arrived gets no name");
            return Ok(());
        }
        for part in &self.parts {
            // Nothing names them so far, so somebody may have removed one.
            if !self.store.blobs().has_whole(part.digest, part.size)? {
                tracing::warn!("{name}: {} was removed meanwhile: pull it again", part.digest);
                return Ok(());
            }
        }
        Ok(self.store.refs().set(&name, &self.named)?)
    }

    /// What somebody else says of a layer is not kept: its index is made of its bytes.
    fn index(&self, layer: Layer) -> Result<(), ImageError> {
        let (name, dir) = (layer.index_name(), self.store.index_dir());
        let path = dir.join(&name);
        let own = match layer.index(&path) {
            Some(own) => own,
            None => {
                let blob = self.store.blobs().get(layer.digest)?;
                let expected = Expected { blob: Some(layer.digest), diff_id: Some(layer.diff_id) };
                let built = index::build(&blob, &expected, &dir, &name, &|_| {});
                built.and_then(|()| LayerIndex::open(&path)).map_err(|source| {
                    let (path, digest) = (blob.to_path_buf(), layer.digest);
                    ImageError::Unreadable { path, digest, source: Box::new(source) }
                })?
            }
        };
        self.compare(layer, &own, &self.store.arriving_dir().join(&name))
    }

    /// Whoever attached an index that was accepted may have lied: that is found out now.
    fn compare(&self, layer: Layer, own: &LayerIndex, attached: &Path) -> Result<(), ImageError> {
        let Ok(theirs) = LayerIndex::open(attached) else { return Ok(()) };
        if let Ok(false) = own.agrees_with(&theirs) {
            tracing::error!(
                layer = %layer.digest,
                image = %self.reference,
                "the attached index that was trusted does not say what is in the layer: do not trust it again, and do not rely \
                 on what ran on it"
            );
        }
        match std::fs::remove_file(attached) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ImageError::io("remove", attached)(error))
            }
            _ => Ok(()),
        }
    }
}
