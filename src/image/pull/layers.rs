//! The layers: side by side, each downloaded and indexed at once.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::super::manifest::Manifest;
use super::{ImageError, LayerState, Pulling, Source};
use crate::index::{self, Expected, IndexError};
use crate::model::limits::LAYER_BYTES_MAX;
use crate::model::{Digest, ImageConfig};
use crate::registry::{RegistryError, Wanted};
use crate::store::{Delivery, Descriptor, Partial};
use crate::sys::file_range::{FileRange, Growth};

/// Downloads side by side, as docker and podman have 3 and 6: more do not make a line faster.
const AT_ONCE: usize = 4;

/// One layer that is wanted.
#[derive(Clone, Copy, Debug)]
struct Layer {
    digest: Digest,
    size: u64,
    diff_id: Digest,
}

/// What the threads have in common.
struct Work<'a> {
    source: &'a Source<'a>,
    progress: &'a dyn Pulling,
    left: Mutex<VecDeque<Layer>>,
    failed: Mutex<Option<ImageError>>,
    is_stopped: AtomicBool,
}

impl Source<'_> {
    /// Brings the layers into the store that are wanted, and their indexes.
    pub(in crate::image) fn some_layers(
        &self,
        manifest: &Manifest,
        config: &ImageConfig,
        progress: &dyn Pulling,
        is_wanted: &dyn Fn(Digest) -> bool,
    ) -> Result<(), ImageError> {
        progress.layers(&manifest.layers);
        let mut seen = BTreeSet::new();
        let layer = |(layer, diff_id): (&Descriptor, &Digest)| {
            let Descriptor { digest, size, .. } = *layer;
            Layer { digest, size, diff_id: *diff_id }
        };
        let all = manifest.layers.iter().zip(&config.rootfs.diff_ids).map(layer);
        let left: VecDeque<Layer> =
            all.filter(|layer| seen.insert(layer.digest) && is_wanted(layer.digest)).collect();
        if let Some(layer) = left.iter().find(|layer| layer.size > LAYER_BYTES_MAX) {
            let (path, what) = (self.place.0.clone(), format!("bytes in layer {}", layer.digest));
            return Err(ImageError::Limit { path, what, count: layer.size, limit: LAYER_BYTES_MAX });
        }
        let threads = left.len().min(AT_ONCE);
        let work = Work {
            source: self,
            progress,
            left: Mutex::new(left),
            failed: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| work.go_on());
            }
        });
        match work.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Work<'_> {
    /// Takes one layer after the other, until there is none left or one has failed.
    fn go_on(&self) {
        while !self.is_stopped.load(Ordering::Relaxed) {
            let next = self.left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(layer) = next else { return };
            if let Err(error) = self.bring(layer) {
                // Those that are stopped because of the first have nothing to add.
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                self.is_stopped.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    fn bring(&self, layer: Layer) -> Result<(), ImageError> {
        let store = self.source.store;
        let waiting = |bytes| self.progress.layer(layer.digest, LayerState::Elsewhere(bytes));
        match store.blobs().deliver(layer.digest, layer.size, &waiting)? {
            Delivery::Done => {
                self.progress.layer(layer.digest, LayerState::Known);
                if self.has_index(layer)? {
                    return Ok(());
                }
                let blob = store.blobs().get(layer.digest)?;
                self.index(&blob, layer)
            }
            Delivery::Ours(partial) => {
                self.download(partial, layer)?;
                self.progress.layer(layer.digest, LayerState::Complete);
                Ok(())
            }
        }
    }

    fn download(&self, mut partial: Box<Partial>, layer: Layer) -> Result<(), ImageError> {
        let was_begun = partial.position() > 0;
        let indexed = match self.receive(&mut partial, layer) {
            // What an earlier process left may be wrong: after a power cut a file can have zeros at its end.
            // Nor does everybody who takes a range give it.
            Err(ImageError::Registry(RegistryError::WrongDigest { .. } | RegistryError::Answer { .. }))
                if was_begun =>
            {
                tracing::warn!(digest = %layer.digest, "what was there of a layer is of no use: all of it is fetched");
                partial.restart()?;
                self.receive(&mut partial, layer)
            }
            indexed => indexed,
        };
        match indexed {
            Err(
                error @ ImageError::Registry(
                    RegistryError::WrongDigest { .. } | RegistryError::WrongLength { .. },
                ),
            ) => {
                partial.discard()?;
                Err(error)
            }
            Err(error) => Err(error),
            Ok(indexed) => {
                partial.publish()?;
                indexed.map_err(|source| self.unreadable(layer, source))
            }
        }
    }

    /// Downloads what is missing, and checks it; says what came of indexing it meanwhile.
    fn receive(&self, partial: &mut Partial, layer: Layer) -> Result<Result<(), IndexError>, ImageError> {
        let growth = Arc::new(Growth::of(partial.position()));
        let path = partial.path().to_owned();
        let range = FileRange::growing(&path, layer.size, &growth).map_err(ImageError::io("open", &path))?;
        let is_indexed = self.has_index(layer)?;
        thread::scope(|scope| {
            let indexer = (!is_indexed).then(|| scope.spawn(|| self.build(&range, layer)));
            let received = self.fill(partial, layer, &growth);
            // Whoever waits for more must hear that there is none, whatever happened.
            growth.end();
            let indexed = indexer.map_or(Ok(Ok(())), thread::ScopedJoinHandle::join);
            received?;
            let panicked =
                |_| IndexError::Io { path, source: io::Error::other("the thread that indexes it panicked") };
            Ok(indexed.unwrap_or_else(|error| Err(panicked(error))))
        })
    }

    fn fill(&self, partial: &mut Partial, layer: Layer, growth: &Growth) -> Result<(), ImageError> {
        let Layer { digest, size, .. } = layer;
        let path = partial.path().to_owned();
        let wanted = Wanted { what: "layer", digest, size, start: partial.position() };
        let received = self.source.registry.blob(wanted, &mut |bytes| {
            if self.is_stopped.load(Ordering::Relaxed) {
                return Err(io::Error::other("another layer has failed"));
            }
            partial.write(bytes)?;
            growth.reaches(partial.position());
            self.progress.layer(digest, LayerState::Received(partial.position()));
            Ok(())
        });
        received.map_err(|error| match error {
            RegistryError::NotTaken(source) => ImageError::io("write", &path)(source),
            error => error.into(),
        })?;
        let actual = partial.digest();
        if actual != digest {
            let (registry, what) = (self.source.registry.name(), "layer");
            return Err(RegistryError::WrongDigest { registry, what, expected: digest, actual }.into());
        }
        Ok(())
    }

    fn has_index(&self, layer: Layer) -> Result<bool, ImageError> {
        let path = self.source.store.index_dir().join(file_name(layer));
        path.try_exists().map_err(ImageError::io("read", &path))
    }

    fn index(&self, blob: &FileRange, layer: Layer) -> Result<(), ImageError> {
        self.build(blob, layer).map_err(|source| self.unreadable(layer, source))
    }

    fn build(&self, blob: &FileRange, layer: Layer) -> Result<(), IndexError> {
        let expected = Expected { blob: Some(layer.digest), diff_id: Some(layer.diff_id) };
        index::build(blob, &expected, &self.source.store.index_dir(), &file_name(layer), &|_| {})
    }

    fn unreadable(&self, layer: Layer, source: IndexError) -> ImageError {
        let (path, digest) = (self.source.place.0.clone(), layer.digest);
        ImageError::Unreadable { path, digest, source: Box::new(source) }
    }
}

/// The index's name, as [`index::key`] has it for blobs with a known digest.
fn file_name(layer: Layer) -> String {
    format!("{}.lfx", layer.digest.hex())
}
