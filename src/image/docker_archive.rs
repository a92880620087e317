//! Archives of `docker save`, `podman save` and buildah: `manifest.json`, a config and layer tars.

use super::files::{Files, read_document};
use super::manifest::SavedImage;
use super::oci_layout::{check_layers, parse_config};
use super::reference::{self, Reference};
use super::{Archive, Broken, Documents, Image, ImageError, Sought, oldest_archive};
use crate::layer::{LayerSource, TarSource};
use crate::model::Digest;
use crate::sys::file_range::FileRange;

/// The document that makes an archive one of these.
pub(super) const MANIFEST: &str = "manifest.json";
/// Newer dockers keep everything here, as an OCI layout does.
const BLOBS: &str = "blobs/sha256/";

/// Opens the image with that name (any name when there is only one image), or `@DIGEST` of its config.
pub(super) fn open(files: &Archive, tag: Option<&str>, sought: &Sought) -> Result<Image, ImageError> {
    let path = || files.place().to_owned();
    let Some(range) = files.open(MANIFEST)? else {
        if oldest_archive::is_one(files) {
            return oldest_archive::open(files, tag);
        }
        let reason = "no manifest.json in it, so no archive of `docker save`".to_owned();
        return Err(ImageError::NotAnImage { path: path(), reason });
    };
    let saved = list(files, &range)?;
    let (image, name) = choose(files, &saved, tag)?;
    let name = name.map_or_else(|| path().display().to_string(), |name| reference::familiar(&name));
    let opened = assemble(files, image, name, sought)?;
    match tag.and_then(|tag| tag.strip_prefix('@')) {
        Some(digest) if opened.config_digest.to_string() != digest => {
            let images = vec![format!("@{}", opened.config_digest)];
            Err(ImageError::NoSuchTag { path: path(), tag: format!("@{digest}"), images })
        }
        _ => Ok(opened),
    }
}

/// All images, one after the other.
pub(super) fn each(
    files: &Archive,
    sought: &Sought,
    take: &mut dyn FnMut(Image) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let Some(range) = files.open(MANIFEST)? else { return oldest_archive::each(files, take) };
    for image in list(files, &range)? {
        let name = image.repo_tags.first().map_or_else(String::new, |name| reference::familiar(name));
        take(assemble(files, &image, name, sought)?)?;
    }
    Ok(())
}

fn list(files: &Archive, range: &FileRange) -> Result<Vec<SavedImage>, ImageError> {
    let (bytes, _) = read_document(files, range, MANIFEST)?;
    serde_json::from_slice(&bytes).map_err(|error| ImageError::Document {
        path: files.place().to_owned(),
        what: MANIFEST.to_owned(),
        reason: format!("not a list of images: {error}"),
    })
}

/// The image, and the name it was found under.
pub(super) fn choose<'a>(
    files: &dyn Files,
    saved: &'a [SavedImage],
    tag: Option<&str>,
) -> Result<(&'a SavedImage, Option<String>), ImageError> {
    let path = files.place().to_owned();
    let names = || saved.iter().flat_map(|image| image.repo_tags.iter().cloned()).collect();
    let Some(tag) = tag else {
        return match saved {
            [] => Err(ImageError::NotAnImage { path, reason: "manifest.json lists no image".into() }),
            [one] => Ok((one, one.repo_tags.first().cloned())),
            _ => Err(ImageError::Ambiguous { path, images: names() }),
        };
    };
    if let Some(digest) = tag.strip_prefix('@') {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let found = saved.iter().find(|image| named_hex(&image.config) == Some(hex));
        // A config whose name is not its digest can only be told when there is no choice.
        let found = found.or(if let [one] = saved { Some(one) } else { None });
        return found
            .map(|image| (image, image.repo_tags.first().cloned()))
            .ok_or_else(|| ImageError::NoSuchTag { path, tag: tag.to_owned(), images: names() });
    }
    let find = |matches: &dyn Fn(&String) -> bool| -> Vec<(&'a SavedImage, Option<String>)> {
        let hit = |image: &'a SavedImage| {
            Some((image, Some(image.repo_tags.iter().find(|name| matches(name))?.clone())))
        };
        saved.iter().filter_map(hit).collect()
    };
    let mut found = Vec::new();
    for wanted in tag.parse().iter().flat_map(Reference::candidates) {
        if found.is_empty() {
            found = find(&|name| name.parse().as_ref() == Ok(&wanted));
        }
    }
    if found.is_empty() {
        found = find(&|name| name.rsplit_once(':').is_some_and(|(_, known)| known == tag));
    }
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(ImageError::Ambiguous { path, images: names() }),
        (None, _) => Err(ImageError::NoSuchTag { path, tag: tag.to_owned(), images: names() }),
    }
}

fn assemble(
    files: &dyn Files,
    image: &SavedImage,
    name: String,
    sought: &Sought,
) -> Result<Image, ImageError> {
    let missing = |what: String, name: &str| ImageError::Missing {
        path: files.place().to_owned(),
        what,
        name: name.to_owned(),
    };
    let range = files.open(&image.config)?.ok_or_else(|| missing("the config".into(), &image.config))?;
    let (bytes, config_digest) = read_document(files, &range, "config")?;
    if let Some(expected) = named_digest(&image.config)
        && expected != config_digest
    {
        let path = files.place().to_owned();
        return Err(ImageError::WrongDigest { path, what: "config", expected, actual: config_digest });
    }
    let config = parse_config(files, &bytes, config_digest)?;
    check_layers(files, image.layers.len(), &config, config_digest)?;
    let mut layers = Vec::with_capacity(image.layers.len());
    let mut broken = Vec::new();
    for (place, (layer, diff_id)) in image.layers.iter().zip(&config.rootfs.diff_ids).enumerate() {
        let blob = files.open(layer).and_then(|found| {
            found.ok_or_else(|| missing(format!("the layer with diffID {diff_id}"), layer))
        });
        let blob = match blob {
            Err(error) if sought.with_broken_layers => {
                broken.push(Broken::of(place, *diff_id, &error));
                continue;
            }
            blob => blob?,
        };
        let blob_digest = layer.starts_with(BLOBS).then(|| named_digest(layer)).flatten();
        layers.push(LayerSource::Tar(TarSource::new(blob, blob_digest, *diff_id)));
    }
    let source = format!("docker-archive:{}:@{config_digest}", files.place().display());
    let names = image.repo_tags.clone();
    let documents = Documents { names, config: bytes, broken, ..Documents::default() };
    Ok(Image { name, source, config, config_digest, layers, documents })
}

/// The digest that a member's name promises: `HEX.json`, `HEX.tar`, `blobs/sha256/HEX`.
pub(super) fn named_digest(name: &str) -> Option<Digest> {
    Digest::from_hex(named_hex(name)?).ok()
}

fn named_hex(name: &str) -> Option<&str> {
    let last = name.rsplit('/').next()?;
    let hex = last.strip_suffix(".json").or(last.strip_suffix(".tar")).unwrap_or(last);
    (hex.len() == 64).then_some(hex)
}
