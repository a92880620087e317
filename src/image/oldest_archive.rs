//! Archives of `docker save` before Docker 1.10: `repositories`, unless only ids were saved, and for each layer `ID/json` and `ID/layer.tar`.
//!
//! Such an archive has no manifest, no config and no digests (Docker Image Specification v1.0.0). They are made here as
//! docker makes them when it loads one: the config is the topmost layer's, with the digests of all layers. So every layer is
//! read once each time that the archive is opened.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::docker_archive::choose;
use super::files::{Files, read_document};
use super::manifest::SavedImage;
use super::oci_layout::{check_layers, parse_config};
use super::{Archive, Documents, Image, ImageError, reference};
use crate::layer::{LayerSource, TarSource};
use crate::model::Digest;
use crate::model::limits::{DOCUMENT_BYTES_MAX, IMAGE_LAYERS_MAX};
use crate::sys::file_range::FileRange;

/// The document that names the images.
pub(super) const REPOSITORIES: &str = "repositories";
/// What a layer says of itself and its place, of no use in a config.
const LAYERS_OWN: [&str; 6] = ["id", "parent", "Size", "throwaway", "parent_id", "layer_id"];
/// What is known of each layer.
const JSON: &str = "/json";

/// `ID/json`, as far as it says where the layer stands and what made it.
#[derive(Deserialize)]
struct LayerJson {
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    created: Option<Value>,
    #[serde(default)]
    author: Option<Value>,
    #[serde(default)]
    comment: Option<Value>,
    #[serde(default)]
    container_config: Option<ContainerConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerConfig {
    #[serde(default)]
    cmd: Option<Vec<String>>,
}

impl LayerJson {
    /// What the image's history says of the layer, as docker writes it when it loads one.
    fn history(&self) -> Value {
        let command = self.container_config.as_ref().and_then(|config| config.cmd.as_ref());
        let fields = [
            ("created", self.created.clone()),
            ("author", self.author.clone()),
            ("created_by", command.map(|words| Value::from(words.join(" ")))),
            ("comment", self.comment.clone()),
        ];
        let is_said = |value: &Value| !value.is_null() && value != "";
        let said =
            fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.filter(is_said)?)));
        Value::Object(said.collect())
    }
}

/// The digests of ranges of files, by path, offset and length: many layers may be links to one, and images have some in common.
#[derive(Debug, Default)]
pub(super) struct Hashed(HashMap<(PathBuf, u64, u64), Digest>);

impl Hashed {
    /// Each range is read once.
    pub(super) fn digest(&mut self, range: &FileRange) -> Result<Digest, ImageError> {
        let place = (range.to_path_buf(), range.offset(), range.len());
        if let Some(known) = self.0.get(&place) {
            return Ok(*known);
        }
        let digest = range.digest().map_err(ImageError::io("read", range.path()))?;
        self.0.insert(place, digest);
        Ok(digest)
    }
}

/// Whether an archive without other documents is one of these.
pub(super) fn is_one(files: &Archive) -> bool {
    files.has(REPOSITORIES) || files.names().any(|name| id_of(name, files).is_some())
}

/// The id of the layer whose `ID/json` this is.
fn id_of<'a>(name: &'a str, files: &Archive) -> Option<&'a str> {
    name.strip_suffix(JSON).filter(|id| files.has(&format!("{id}/layer.tar")))
}

/// Opens the image with that name (any name when there is only one image), the one whose topmost layer has that id, or
/// `@DIGEST` of the config that is made.
pub(super) fn open(files: &Archive, tag: Option<&str>) -> Result<Image, ImageError> {
    let saved = images(files)?;
    let mut hashed = Hashed::default();
    let Some(digest) = tag.and_then(|tag| tag.strip_prefix('@')) else {
        if let Some(image) = saved.iter().find(|image| Some(image.config.as_str()) == tag) {
            return assemble(files, image, image.repo_tags.first().cloned(), &mut hashed);
        }
        let choice = meant(saved);
        if choice.is_empty() {
            let reason = "no image in it: every layer stands upon another one".to_owned();
            return Err(ImageError::NotAnImage { path: files.place().to_owned(), reason });
        }
        let (image, name) = choose(files, &choice, tag).map_err(|error| with_ids(error, &choice))?;
        return assemble(files, image, name, &mut hashed);
    };
    // Another one that is broken does not matter, unless the one that is looked for is not found.
    let mut broken = None;
    for image in &saved {
        match assemble(files, image, image.repo_tags.first().cloned(), &mut hashed) {
            Ok(opened) if opened.config_digest.to_string() == digest => return Ok(opened),
            Ok(_) => {}
            Err(error) => broken = broken.or(Some(error)),
        }
    }
    let images = saved.into_iter().flat_map(|image| image.repo_tags).collect();
    let none = ImageError::NoSuchTag { path: files.place().to_owned(), tag: format!("@{digest}"), images };
    Err(broken.unwrap_or(none))
}

/// All images, one after the other.
pub(super) fn each(
    files: &Archive,
    take: &mut dyn FnMut(Image) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut hashed = Hashed::default();
    for image in meant(images(files)?) {
        take(assemble(files, &image, image.repo_tags.first().cloned(), &mut hashed)?)?;
    }
    Ok(())
}

/// Where some have names those are meant: without a layer in the middle, what is below it looks like an image too.
fn meant(saved: Vec<SavedImage>) -> Vec<SavedImage> {
    let (named, nameless): (Vec<_>, Vec<_>) =
        saved.into_iter().partition(|image| !image.repo_tags.is_empty());
    if named.is_empty() { nameless } else { named }
}

/// Images without names are told apart by their ids.
fn with_ids(error: ImageError, choice: &[SavedImage]) -> ImageError {
    let ids = || choice.iter().map(|image| image.config.clone()).collect();
    match error {
        ImageError::Ambiguous { path, images } if images.is_empty() => {
            ImageError::Ambiguous { path, images: ids() }
        }
        ImageError::NoSuchTag { path, tag, images } if images.is_empty() => {
            ImageError::NoSuchTag { path, tag, images: ids() }
        }
        other => other,
    }
}

/// Every image by the id of its topmost layer: those that have names, and those upon which nothing stands.
fn images(files: &Archive) -> Result<Vec<SavedImage>, ImageError> {
    let mut images: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if files.has(REPOSITORIES) {
        let bytes = document(files, REPOSITORIES)?;
        let named: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(files, REPOSITORIES, format!("not a list of names: {error}")))?;
        for (repository, tags) in named {
            for (tag, id) in tags {
                images.entry(id).or_default().push(format!("{repository}:{tag}"));
            }
        }
    }
    let ids: Vec<&str> = files.names().filter_map(|name| id_of(name, files)).collect();
    let mut parents = HashSet::new();
    for id in &ids {
        // What cannot be read is told when its image is opened.
        parents.extend(layer(files, id).ok().and_then(|layer| layer.parent));
    }
    for id in ids.into_iter().filter(|id| !parents.contains(*id)) {
        images.entry(id.to_owned()).or_default();
    }
    let image = |(id, repo_tags)| SavedImage { config: id, repo_tags, layers: Vec::new() };
    Ok(images.into_iter().map(image).collect())
}

fn layer(files: &Archive, id: &str) -> Result<LayerJson, ImageError> {
    let json = format!("{id}{JSON}");
    serde_json::from_slice(&document(files, &json)?)
        .map_err(|error| wrong(files, &json, format!("not a layer: {error}")))
}

/// The topmost layer and what it stands upon: layers and what made them, base first.
fn chain(files: &Archive, top: &str) -> Result<(Vec<FileRange>, Vec<Value>), ImageError> {
    let too_much = |what: &str, count: u64, limit: u64| {
        let path = files.place().to_owned();
        Err(ImageError::Limit { path, what: what.to_owned(), count, limit })
    };
    let (mut blobs, mut history) = (Vec::new(), Vec::new());
    let (mut met, mut history_bytes) = (HashSet::new(), 0);
    let mut next = Some(top.to_owned());
    while let Some(id) = next.filter(|id| !id.is_empty()) {
        if blobs.len() >= IMAGE_LAYERS_MAX {
            return too_much("layers in one image", blobs.len() as u64 + 1, IMAGE_LAYERS_MAX as u64);
        }
        if !met.insert(id.clone()) {
            return Err(wrong(files, &format!("{id}{JSON}"), "the layer stands upon itself".to_owned()));
        }
        let layer = layer(files, &id)?;
        blobs.push(member(files, &format!("{id}/layer.tar"))?);
        let made = layer.history();
        history_bytes += made.to_string().len() as u64;
        if history_bytes > DOCUMENT_BYTES_MAX {
            return too_much("bytes of history in one image", history_bytes, DOCUMENT_BYTES_MAX);
        }
        history.push(made);
        next = layer.parent;
    }
    blobs.reverse();
    history.reverse();
    Ok((blobs, history))
}

fn assemble(
    files: &Archive,
    image: &SavedImage,
    name: Option<String>,
    hashed: &mut Hashed,
) -> Result<Image, ImageError> {
    let path = || files.place().to_owned();
    let top = document(files, &format!("{}/json", image.config))?;
    let (blobs, history) = chain(files, &image.config)?;
    let diff_ids = blobs.iter().map(|blob| hashed.digest(blob)).collect::<Result<Vec<_>, _>>()?;
    let bytes = config(files, &top, &diff_ids, history)?;
    let config_digest = Digest::from_bytes(Sha256::digest(&bytes).into());
    let config = parse_config(files, &bytes, config_digest)?;
    check_layers(files, blobs.len(), &config, config_digest)?;
    let documents = Documents { names: image.repo_tags.clone(), config: bytes, ..Documents::default() };
    let layer = |(blob, diff_id)| LayerSource::Tar(TarSource::new(blob, None, diff_id));
    Ok(Image {
        name: name.map_or_else(|| path().display().to_string(), |name| reference::familiar(&name)),
        source: format!("docker-archive:{}:@{config_digest}", files.place().display()),
        config,
        config_digest,
        layers: blobs.into_iter().zip(diff_ids).map(layer).collect(),
        documents,
    })
}

/// The config document that stands for the image: always the same bytes for the same archive.
fn config(
    files: &dyn Files,
    top: &[u8],
    diff_ids: &[Digest],
    history: Vec<Value>,
) -> Result<Vec<u8>, ImageError> {
    let made = |error: serde_json::Error| wrong(files, "json", format!("not a layer: {error}"));
    let mut config: Map<String, Value> = serde_json::from_slice(top).map_err(made)?;
    LAYERS_OWN.iter().for_each(|key| drop(config.remove(*key)));
    let diff_ids = diff_ids.iter().map(|diff_id| Value::from(diff_id.to_string())).collect();
    let rootfs =
        [("type".to_owned(), Value::from("layers")), ("diff_ids".to_owned(), Value::Array(diff_ids))];
    config.insert("rootfs".to_owned(), Value::Object(rootfs.into_iter().collect()));
    config.insert("history".to_owned(), Value::Array(history));
    serde_json::to_vec(&config).map_err(made)
}

fn document(files: &dyn Files, name: &str) -> Result<Vec<u8>, ImageError> {
    read_document(files, &member(files, name)?, name).map(|(bytes, _)| bytes)
}

fn member(files: &dyn Files, name: &str) -> Result<FileRange, ImageError> {
    files.open(name)?.ok_or_else(|| ImageError::Missing {
        path: files.place().to_owned(),
        what: format!("a part of an image without {}", super::docker_archive::MANIFEST),
        name: name.escape_debug().to_string(),
    })
}

fn wrong(files: &dyn Files, what: &str, reason: String) -> ImageError {
    ImageError::Document { path: files.place().to_owned(), what: what.to_owned(), reason }
}
