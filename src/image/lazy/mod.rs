//! Images that are mounted before their layers are here.
//!
//! What is needed of a layer before it can be mounted is its index. Where one can be had, the layer's bytes come by HTTP range when
//! they are read, brought by a process of their own ([`fetcher`]), and lie in a file with holes until all of them are there.
//! Then the blob is checked and becomes one of the store; with the last one the image gets its name.
//!
//! Nothing is believed: each granule that is read must hash to what the index says. The index is made by us of verified bytes, or
//! by somebody whom the user trusts ([`LazySpec::trusted`]), and compared with the bytes when all are there.

mod fetcher;
mod files;
mod finish;
mod link;
mod queue;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::attached::{self, Attached};
use super::files::Directory;
use super::manifest::Manifest;
use super::pull::{self, Found, PullSpec, Pulling, Source};
use super::{Image, ImageError, Sought, oci_layout};
use crate::index::LayerIndex;
use crate::layer::{KnownBy, LayerSource, Toc, TocAnnotation};
use crate::model::limits::LAYER_BYTES_MAX;
use crate::model::{Digest, ImageConfig};
use crate::registry::{Endpoint, RegistryError, Wanted};
use crate::store::{Arriving, Store, StoreLock};
use crate::sys::file_range::FileRange;

use fetcher::Fetcher;
use files::LazyFiles;
use finish::Finishing;
use link::Fetched;

/// When that comes which nobody has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// Never.
    Off,
    /// While nobody waits for anything.
    Idle,
    /// At once.
    Now,
}

/// What is to be mounted, and how.
#[derive(Clone, Debug)]
pub struct LazySpec {
    /// The image.
    pub pull: PullSpec,
    /// Attached indexes that may be used: digests of their manifests.
    pub trusted: Vec<Digest>,
    /// When the rest comes.
    pub background: Background,
    /// How long a read waits for a registry that does not answer.
    pub wait: Duration,
}

/// A layer that is not here.
#[derive(Clone, Copy, Debug)]
struct Layer {
    digest: Digest,
    size: u64,
    diff_id: Digest,
}

impl Layer {
    /// What its index is called.
    fn index_name(&self) -> String {
        format!("{}.lfx", self.digest.hex())
    }

    /// The index that lies there, if it is of this layer.
    fn index(&self, path: &Path) -> Option<LayerIndex> {
        let index = LayerIndex::open(path).ok()?;
        let is_its = index.diff_id() == self.diff_id
            && index.blob_digest() == self.digest
            && index.blob_bytes() == self.size;
        is_its.then_some(index)
    }
}

/// Opens an image of a registry without its layers, where that is possible; where it is not, `tell` hears why, and there is no answer: it is
/// to be pulled. The same when all of it is here. Layers of which no index can be had are brought before.
///
/// Starts a process, so that this one must have a single thread; it ends when the image and all mounts of it are gone.
///
/// # Errors
/// [`ImageError`]
pub fn open(
    store: &Store,
    spec: &LazySpec,
    sought: &Sought,
    progress: &dyn Pulling,
    tell: &mut dyn FnMut(&str),
) -> Result<Option<Image>, ImageError> {
    let lock = store.lock()?;
    let (name, before) = pull::known(store, &spec.pull.reference)?;
    let version = pull::version(&spec.pull.reference);
    let top = |source: &Source<'_>| source.top(&version, before.is_some());
    let (source, document) = pull::at_first(store, &spec.pull, top)?;
    let found = source.descend(document, &spec.pull.platform)?;
    let (config, _) = source.config(&found.manifest)?;
    let missing = missing(store, &found, &config)?;
    if missing.is_empty() {
        return Ok(None);
    }
    let known = known_layers(&source, spec, &found, &missing, tell)?;
    let annotated =
        |layer: &&Layer| !known.contains_key(&layer.digest) && annotation(&found.manifest, layer).is_some();
    if known.is_empty() && !missing.iter().any(|layer| annotated(&layer)) {
        tell(&format!("{name}: no index of its layers can be had: all of it is pulled before it starts"));
        return Ok(None);
    }
    let (lazy, rest): (Vec<Layer>, Vec<Layer>) =
        missing.iter().partition(|layer| known.contains_key(&layer.digest) || annotated(layer));
    if !has_ranges(&source, &lazy)? {
        tell(&format!(
            "{}: it knows no HTTP ranges, so no part of a layer can be had: all of {name} is pulled before it starts",
            source.registry.name()
        ));
        return Ok(None);
    }
    source.some_layers(&found.manifest, &config, progress, &|digest| {
        rest.iter().any(|layer| layer.digest == digest)
    })?;
    let finishing = Finishing {
        store: store.clone(),
        missing: Mutex::new(lazy.iter().map(|layer| layer.digest).collect()),
        reference: spec.pull.reference.clone(),
        before,
        named: found.named.clone(),
        parts: found.manifest.layers.iter().chain([&found.manifest.config, &found.own]).cloned().collect(),
        seen: source.place_and_parts(&found.manifest),
    };
    let endpoint = source.registry.endpoint().clone();
    drop(source);
    let (arriving, _lock) = begin((store, lock), spec, (endpoint, finishing), &lazy)?;
    let Some(known) = with_tocs(known, &found.manifest, &lazy, &arriving, tell) else { return Ok(None) };
    let files = LazyFiles { layout: Directory(store.oci_dir()), arriving };
    let mut image = oci_layout::open_descriptor(&files, found.own, name, "oci", sought)?;
    for layer in &mut image.layers {
        if let LayerSource::Tar(tar) = layer
            && let Some(known) = tar.blob_digest.and_then(|digest| known.get(&digest))
        {
            tar.known_by = known.clone();
        }
    }
    Ok(Some(image))
}

/// The layers that are not here, each once.
fn missing(store: &Store, found: &Found, config: &ImageConfig) -> Result<Vec<Layer>, ImageError> {
    let mut missing: Vec<Layer> = Vec::new();
    for (layer, diff_id) in found.manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let (digest, size) = (layer.digest, layer.size);
        if size > LAYER_BYTES_MAX {
            let (path, what) = (store.oci_dir(), format!("bytes in layer {digest}"));
            return Err(ImageError::Limit { path, what, count: size, limit: LAYER_BYTES_MAX });
        }
        if !store.blobs().has_whole(digest, size)? && missing.iter().all(|known| known.digest != digest) {
            missing.push(Layer { digest, size, diff_id: *diff_id });
        }
    }
    Ok(missing)
}

/// What is known of layers that are not here.
fn known_layers(
    source: &Source<'_>,
    spec: &LazySpec,
    found: &Found,
    missing: &[Layer],
    tell: &mut dyn FnMut(&str),
) -> Result<BTreeMap<Digest, KnownBy>, ImageError> {
    let store = source.store;
    let own = |layer: &&Layer| layer.index(&store.index_dir().join(layer.index_name())).is_some();
    let mut known: BTreeMap<Digest, KnownBy> =
        missing.iter().filter(own).map(|layer| (layer.digest, KnownBy::OwnIndex)).collect();
    if known.len() == missing.len() {
        return Ok(known);
    }
    match attached::fetch(&source.registry, found.own.digest, &spec.trusted, &store.arriving_dir())? {
        Attached::None => {}
        Attached::Untrusted(digests) => {
            let digests: Vec<String> = digests.iter().map(ToString::to_string).collect();
            tell(&format!(
                "{}: an index is attached, but nobody vouches for it: with --trust-index {} it would be used",
                spec.pull.reference,
                digests.join(" or ")
            ));
        }
        Attached::Trusted(paths) => {
            for layer in missing {
                if let Some(index) = paths.get(&layer.digest).and_then(|path| layer.index(path)) {
                    known.entry(layer.digest).or_insert_with(|| KnownBy::Index(Arc::new(index)));
                }
            }
        }
    }
    Ok(known)
}

/// Whether the registry gives parts of blobs.
fn has_ranges(source: &Source<'_>, layers: &[Layer]) -> Result<bool, ImageError> {
    let Some(layer) = layers.iter().find(|layer| layer.size > 0) else { return Ok(true) };
    let wanted = Wanted { what: "layer", digest: layer.digest, size: layer.size, start: 0 };
    match source.registry.blob_part(wanted, 1, &mut |_| Ok(())) {
        Ok(()) => Ok(true),
        Err(RegistryError::NoRanges { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Starts the process that fetches, and gives the files that it fills, by their names in the layout.
fn begin(
    (store, lock): (&Store, StoreLock),
    spec: &LazySpec,
    (endpoint, finishing): (Endpoint, Finishing),
    layers: &[Layer],
) -> Result<(HashMap<String, FileRange>, StoreLock), ImageError> {
    let mut blobs: Vec<(Arriving, Layer)> = Vec::new();
    let mut views = Vec::new();
    let mut is_patient = true;
    for layer in layers {
        let arriving = store.arriving(layer.digest, layer.size, is_patient)?;
        // Who is at one of them is at all of them.
        is_patient &= arriving.is_first();
        let view = arriving.view().map_err(ImageError::io("open", arriving.path()))?;
        views.push((view, arriving.path().to_owned(), layer, arriving.pieces()));
        blobs.push((arriving, *layer));
    }
    let log = store.arriving_dir().join("log");
    let (background, wait) = (spec.background, spec.wait);
    let fetcher = Fetcher { endpoint, blobs, background, wait, finishing, log };
    let started = fetcher.start(lock).map_err(ImageError::io("start what fetches", store.root()))?;
    let (link, lock) = (Arc::new(started.0), started.1);
    let mut arriving = HashMap::new();
    for (number, (view, path, layer, pieces)) in (0_u32..).zip(views) {
        let fetched = Fetched::new(view, Arc::clone(&link), number, pieces);
        let range = FileRange::arriving(&path, layer.size, Arc::new(fetched));
        arriving.insert(oci_layout::blob_name(layer.digest), range);
    }
    Ok((arriving, lock))
}

/// What the manifest says of a table of contents in a layer.
fn annotation(manifest: &Manifest, layer: &Layer) -> Option<TocAnnotation> {
    let descriptor = manifest.layers.iter().find(|one| one.digest == layer.digest)?;
    TocAnnotation::of(descriptor.annotations.as_ref()?).ok().flatten()
}

/// What is known of all layers that are on their way; `None` when one of them turned out not to have the table of contents that the
/// manifest speaks of.
fn with_tocs(
    mut known: BTreeMap<Digest, KnownBy>,
    manifest: &Manifest,
    layers: &[Layer],
    arriving: &HashMap<String, FileRange>,
    tell: &mut dyn FnMut(&str),
) -> Option<BTreeMap<Digest, KnownBy>> {
    for layer in layers.iter().filter(|layer| !known.contains_key(&layer.digest)).copied().collect::<Vec<_>>()
    {
        let blob = arriving.get(&oci_layout::blob_name(layer.digest))?;
        match Toc::of(blob, &annotation(manifest, &layer)?) {
            Ok(toc) => known.insert(layer.digest, KnownBy::Toc(toc)),
            Err(error) => {
                tell(&format!(
                    "layer {}: {error}: all of the image is pulled before it starts",
                    layer.digest
                ));
                return None;
            }
        };
    }
    Some(known)
}
