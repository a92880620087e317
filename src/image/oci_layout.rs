//! OCI image layouts (image-spec image-layout.md), in a directory or an archive.

use std::collections::{BTreeMap, HashSet};

use super::files::{Files, read_document};
use super::manifest::{self, Document, Manifest};
use super::reference::{self, Reference};
use super::{Broken, Documents, Image, ImageError, Sought, Stored, TargetPlatform};
use crate::layer::{LayerSource, TarSource};
use crate::model::limits::IMAGE_LAYERS_MAX;
use crate::model::{Digest, ImageConfig};
use crate::store::{CONTAINERD_NAME, Descriptor, Index, Store, StoreError};
use crate::sys::file_range::FileRange;

/// An index in an index in an index: nobody makes more.
pub(super) const INDEX_DEPTH_MAX: usize = 4;
/// Marks provenance documents that buildkit puts beside the images.
pub(super) const ATTESTATION: &str = "vnd.docker.reference.type";

/// Opens the image with that name (any name when there is only one image), or `@DIGEST` of its manifest.
/// `transport` is what the [`Image::source`] begins with.
pub(super) fn open(
    files: &dyn Files,
    tag: Option<&str>,
    transport: &str,
    sought: &Sought,
) -> Result<Image, ImageError> {
    let descriptor = match tag.and_then(|tag| tag.strip_prefix('@')) {
        Some(digest) => pinned(files, digest)?,
        None => choose(files, &index(files)?.manifests, tag, &sought.platform())?.clone(),
    };
    let place = files.place().display();
    let name = match descriptor.annotation(CONTAINERD_NAME).or(descriptor.ref_name()) {
        // Only a tag: says nothing without the place.
        Some(tag) if !tag.contains([':', '/']) => format!("{place}:{}", tag.escape_debug()),
        Some(name) => reference::familiar(name),
        None => place.to_string(),
    };
    open_descriptor(files, descriptor, name, transport, sought)
}

/// All images, one after the other; of those with the same name and without any that for the platform.
pub(super) fn each(
    files: &dyn Files,
    transport: &str,
    sought: &Sought,
    take: &mut dyn FnMut(Image) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let all = index(files)?.manifests;
    let images: Vec<&Descriptor> = all.iter().filter(|one| one.annotation(ATTESTATION).is_none()).collect();
    let is_named = |one: &Descriptor| one.annotation(CONTAINERD_NAME).or(one.ref_name()).is_some();
    let mut wanted: Vec<Descriptor> = Vec::new();
    if !images.is_empty() && images.iter().all(|one| !is_named(one) && one.platform.is_some()) {
        wanted.push(for_platform(files, &all, &sought.platform())?.clone());
    } else {
        for one in images {
            let name = one.annotation(CONTAINERD_NAME).or(one.ref_name());
            wanted.push(match name {
                Some(_) => choose(files, &all, name, &sought.platform())?.clone(),
                None => one.clone(),
            });
        }
    }
    let mut done = HashSet::new();
    for descriptor in wanted {
        if done.insert(descriptor.digest) {
            let name = files.place().display().to_string();
            take(open_descriptor(files, descriptor, name, transport, sought)?)?;
        }
    }
    Ok(())
}

/// Opens the image that a descriptor of `index.json` points to.
pub(super) fn open_descriptor(
    files: &dyn Files,
    mut descriptor: Descriptor,
    name: String,
    transport: &str,
    sought: &Sought,
) -> Result<Image, ImageError> {
    let names = names(files, descriptor.digest);
    let mut top = None;
    for _ in 0..INDEX_DEPTH_MAX {
        let (bytes, _) = document(files, &descriptor, "manifest")?;
        match manifest::parse(&bytes, &descriptor.media_type) {
            Ok(Document::Manifest(manifest)) => {
                let source = format!("{transport}:{}:@{}", files.place().display(), descriptor.digest);
                let stored = Stored { descriptor, bytes };
                let mut image = assemble(files, &manifest, stored, (name, source), sought)?;
                image.documents.names = names;
                image.documents.index = top;
                return Ok(image);
            }
            Ok(Document::Index(index)) => {
                top.get_or_insert_with(|| Stored { descriptor: descriptor.clone(), bytes });
                let annotations = descriptor.annotations.take();
                descriptor = for_platform(files, &index.manifests, &sought.platform())?.clone();
                // The name stands above, at the index.
                descriptor.annotations.get_or_insert_default().extend(annotations.into_iter().flatten());
            }
            Err(reason) => return Err(wrong(files, format!("manifest {}", descriptor.digest), reason)),
        }
    }
    Err(wrong(
        files,
        format!("index {}", descriptor.digest),
        format!("more than {INDEX_DEPTH_MAX} indexes in each other"),
    ))
}

fn index(files: &dyn Files) -> Result<Index, ImageError> {
    let Some(range) = files.open("index.json")? else {
        let reason = "an OCI layout without index.json".to_owned();
        return Err(ImageError::NotAnImage { path: files.place().to_owned(), reason });
    };
    let (bytes, _) = read_document(files, &range, "index.json")?;
    serde_json::from_slice(&bytes)
        .map_err(|error| wrong(files, "index.json".into(), format!("not an OCI index: {error}")))
}

/// What `index.json` calls a document. Nothing depends on it, so one that cannot be read gives no names.
fn names(files: &dyn Files, digest: Digest) -> Vec<String> {
    let Ok(index) = index(files) else { return Vec::new() };
    let named = index.manifests.iter().filter(|one| one.digest == digest);
    named.filter_map(|one| one.annotation(CONTAINERD_NAME).or(one.ref_name()).map(str::to_owned)).collect()
}

/// The manifest with that digest, whether a name leads to it or not.
fn pinned(files: &dyn Files, digest: &str) -> Result<Descriptor, ImageError> {
    // What nothing in the image leads to is not missing in it.
    let absent = || ImageError::NoSuchTag {
        path: files.place().to_owned(),
        tag: format!("@{digest}"),
        images: index(files).map_or_else(|_| Vec::new(), |index| all_names(&index)),
    };
    let digest: Digest = digest.parse().map_err(|_| absent())?;
    let range = files.open(&blob_name(digest))?.ok_or_else(absent)?;
    Ok(Descriptor::new("", digest, range.len()))
}

fn all_names(index: &Index) -> Vec<String> {
    let name = |one: &Descriptor| one.annotation(CONTAINERD_NAME).or(one.ref_name()).map(str::to_owned);
    index.manifests.iter().filter_map(name).collect()
}

fn choose<'a>(
    files: &dyn Files,
    all: &'a [Descriptor],
    tag: Option<&str>,
    platform: &TargetPlatform,
) -> Result<&'a Descriptor, ImageError> {
    let path = || files.place().to_owned();
    let images: Vec<&Descriptor> = all.iter().filter(|one| one.annotation(ATTESTATION).is_none()).collect();
    let names = || {
        images
            .iter()
            .filter_map(|one| one.annotation(CONTAINERD_NAME).or(one.ref_name()).map(str::to_owned))
            .collect()
    };
    let Some(tag) = tag else {
        return match images[..] {
            [] => {
                Err(ImageError::NotAnImage { path: path(), reason: "an OCI layout without any image".into() })
            }
            [one] => Ok(one),
            _ if images.iter().all(|one| one.ref_name().is_none() && one.platform.is_some()) => {
                for_platform(files, all, platform)
            }
            _ => Err(ImageError::Ambiguous { path: path(), images: names() }),
        };
    };
    let exact = |one: &&&Descriptor| [one.ref_name(), one.annotation(CONTAINERD_NAME)].contains(&Some(tag));
    let mut found: Vec<&Descriptor> = images.iter().filter(exact).copied().collect();
    // A text that is no complete name can only be a tag as it stands.
    for wanted in tag.parse().iter().flat_map(Reference::candidates) {
        if found.is_empty() {
            found = images.iter().filter(|one| full_name(one).as_ref() == Some(&wanted)).copied().collect();
        }
    }
    match found[..] {
        [] => Err(ImageError::NoSuchTag { path: path(), tag: tag.to_owned(), images: names() }),
        [one] => Ok(one),
        // One name, several platforms.
        _ => platform
            .choose(found.iter().filter_map(|one| Some((*one, TargetPlatform::of(one.platform.as_ref()?)))))
            .ok_or_else(|| ImageError::Ambiguous { path: path(), images: names() }),
    }
}

/// Gives names to images of the store: all of them, or none. What was called so in other words is not called so any more.
///
/// # Errors
/// As [`crate::store::Refs::set`].
pub(super) fn give_names(store: &Store, names: &BTreeMap<String, Descriptor>) -> Result<(), StoreError> {
    let wanted: HashSet<Reference> = names.keys().filter_map(|name| name.parse().ok()).collect();
    store.refs().set_all_instead(names, |one| full_name(one).is_some_and(|name| wanted.contains(&name)))
}

/// What an entry of `index.json` is called, completed.
pub(super) fn full_name(descriptor: &Descriptor) -> Option<Reference> {
    descriptor.annotation(CONTAINERD_NAME).or(descriptor.ref_name())?.parse().ok()
}

/// The descriptor of an index that fits the platform best.
pub(super) fn for_platform<'a>(
    files: &dyn Files,
    all: &'a [Descriptor],
    platform: &TargetPlatform,
) -> Result<&'a Descriptor, ImageError> {
    let offered = all.iter().filter_map(|one| Some((one, TargetPlatform::of(one.platform.as_ref()?))));
    if let Some(found) = platform.choose(offered.clone()) {
        return Ok(found);
    }
    if let [one] = all
        && one.platform.is_none()
    {
        return Ok(one);
    }
    let available = offered.map(|(_, platform)| platform.to_string()).collect();
    Err(ImageError::Platform { path: files.place().to_owned(), wanted: platform.to_string(), available })
}

fn assemble(
    files: &dyn Files,
    manifest: &Manifest,
    stored: Stored,
    (name, source): (String, String),
    sought: &Sought,
) -> Result<Image, ImageError> {
    let media_type = |what: &str, descriptor: &Descriptor, reason| ImageError::MediaType {
        path: files.place().to_owned(),
        what: format!("{what} {}", descriptor.digest),
        media_type: descriptor.media_type.clone(),
        reason,
    };
    manifest::check_config(&manifest.config.media_type)
        .map_err(|reason| media_type("config", &manifest.config, reason))?;
    for layer in &manifest.layers {
        manifest::check_layer(&layer.media_type).map_err(|reason| media_type("layer", layer, reason))?;
    }
    let (bytes, config_digest) = document(files, &manifest.config, "config")?;
    let config = parse_config(files, &bytes, config_digest)?;
    check_layers(files, manifest.layers.len(), &config, config_digest)?;
    let mut layers = Vec::with_capacity(manifest.layers.len());
    let mut broken = Vec::new();
    for (place, (layer, diff_id)) in manifest.layers.iter().zip(&config.rootfs.diff_ids).enumerate() {
        let blob = match sized_blob(files, layer, "layer") {
            Err(error) if sought.with_broken_layers => {
                broken.push(Broken::of(place, *diff_id, &error));
                continue;
            }
            blob => blob?,
        };
        layers.push(LayerSource::Tar(TarSource::new(blob, Some(layer.digest), *diff_id)));
    }
    let documents = Documents {
        names: Vec::new(),
        config: bytes,
        manifest: Some(stored),
        index: None,
        layers: manifest.layers.clone(),
        broken,
    };
    Ok(Image { name, source, config, config_digest, layers, documents })
}

/// Reads an image configuration.
pub(super) fn parse_config(
    files: &dyn Files,
    bytes: &[u8],
    digest: Digest,
) -> Result<ImageConfig, ImageError> {
    let config: ImageConfig = serde_json::from_slice(bytes)
        .map_err(|error| wrong(files, format!("config {digest}"), format!("not an image config: {error}")))?;
    if !matches!(config.os.as_str(), "" | "linux") {
        let (path, os) = (files.place().to_owned(), config.os.escape_debug().to_string());
        return Err(ImageError::System { path, config_digest: digest, os });
    }
    Ok(config)
}

/// Checks that manifest and config speak of the same layers.
pub(super) fn check_layers(
    files: &dyn Files,
    layers: usize,
    config: &ImageConfig,
    config_digest: Digest,
) -> Result<(), ImageError> {
    let diff_ids = config.rootfs.diff_ids.len();
    if layers != diff_ids {
        return Err(ImageError::LayerCount {
            path: files.place().to_owned(),
            layers,
            config_digest,
            diff_ids,
        });
    }
    if layers > IMAGE_LAYERS_MAX {
        let (path, what) = (files.place().to_owned(), "layers in one image".to_owned());
        return Err(ImageError::Limit { path, what, count: layers as u64, limit: IMAGE_LAYERS_MAX as u64 });
    }
    Ok(())
}

pub(super) fn document(
    files: &dyn Files,
    descriptor: &Descriptor,
    what: &'static str,
) -> Result<(Vec<u8>, Digest), ImageError> {
    let range = sized_blob(files, descriptor, what)?;
    let (bytes, actual) = read_document(files, &range, what)?;
    if actual != descriptor.digest {
        let (path, expected) = (files.place().to_owned(), descriptor.digest);
        return Err(ImageError::WrongDigest { path, what, expected, actual });
    }
    Ok((bytes, actual))
}

fn sized_blob(
    files: &dyn Files,
    descriptor: &Descriptor,
    what: &'static str,
) -> Result<FileRange, ImageError> {
    let range = blob(files, descriptor.digest, what)?;
    if range.len() != descriptor.size {
        return Err(ImageError::WrongSize {
            path: files.place().to_owned(),
            what,
            digest: descriptor.digest,
            expected: descriptor.size,
            actual: range.len(),
        });
    }
    Ok(range)
}

fn blob(files: &dyn Files, digest: Digest, what: &str) -> Result<FileRange, ImageError> {
    let name = blob_name(digest);
    files.open(&name)?.ok_or_else(|| ImageError::Missing {
        path: files.place().to_owned(),
        what: format!("{what} {digest}"),
        name,
    })
}

pub(super) fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

pub(super) fn wrong(files: &dyn Files, what: String, reason: String) -> ImageError {
    ImageError::Document { path: files.place().to_owned(), what, reason }
}
