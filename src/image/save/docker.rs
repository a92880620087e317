//! Archives as docker writes them until version 25 (Docker Image Specification v1.2), which older ones load too: a directory for each
//! layer, named by what it stands upon, and the documents that name images at the end.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::super::{ImageError, created_by, import};
use super::tar_out::TarOut;
use super::{Named, Saving, Target as _, write_plain};
use crate::model::Digest;

/// What every layer's file `VERSION` says.
const VERSION: &[u8] = b"1.0";
/// When a layer below the topmost was made: nobody looks at it.
const LONG_AGO: &str = "1970-01-01T00:00:00Z";

/// What is in the archive by now.
#[derive(Default)]
struct Written {
    /// Directories of layers.
    ids: HashSet<String>,
    /// The files of layers, by what is in them.
    layers: HashMap<Digest, String>,
    configs: HashSet<Digest>,
}

/// Writes everything but the end.
pub(super) fn write(saving: &Saving, tar: &mut TarOut<'_>) -> Result<(), ImageError> {
    let mut written = Written::default();
    let mut manifest = Vec::new();
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for named in &saving.images {
        let ids = layer_ids(named);
        let mut files = Vec::with_capacity(ids.len());
        for (place, id) in ids.iter().enumerate() {
            layer(saving, named, (place, &ids), tar, &mut written)?;
            let own = format!("{id}/layer.tar");
            files.push(written.layers.get(&named.layers[place].diff_id).unwrap_or(&own).clone());
        }
        let config = format!("{}.json", named.image.config_digest.hex());
        if written.configs.insert(named.image.config_digest) {
            tar.document(&config, &named.image.documents.config)?;
        }
        let names: Vec<String> = named.names.iter().map(|name| name.familiar()).collect();
        for (name, top) in names.iter().filter_map(|name| Some((name, ids.last()?))) {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
            repositories.entry(repository.to_owned()).or_default().insert(tag.to_owned(), top.clone());
        }
        let names = if names.is_empty() { Value::Null } else { json!(names) };
        manifest.push(json!({ "Config": config, "RepoTags": names, "Layers": files }));
    }
    // Last, so that what is cut off is no archive.
    if !repositories.is_empty() {
        tar.document("repositories", json!(repositories).to_string().as_bytes())?;
    }
    tar.document("manifest.json", Value::Array(manifest).to_string().as_bytes())
}

/// The names of the directories: of a layer and what it stands upon, of the topmost also the config.
fn layer_ids(named: &Named) -> Vec<String> {
    let mut ids: Vec<String> = Vec::with_capacity(named.layers.len());
    for (place, layer) in named.layers.iter().enumerate() {
        let mut hash = Sha256::new();
        let parent = ids.last().map_or("", String::as_str);
        hash.update(format!("{parent} {}", layer.diff_id));
        if place + 1 == named.layers.len() {
            hash.update(format!(" {}", named.image.config_digest));
        }
        ids.push(Digest::from_bytes(hash.finalize().into()).hex());
    }
    ids
}

fn layer(
    saving: &Saving,
    named: &Named,
    (place, ids): (usize, &[String]),
    tar: &mut TarOut<'_>,
    written: &mut Written,
) -> Result<(), ImageError> {
    let (id, source) = (&ids[place], &named.layers[place]);
    if !written.ids.insert(id.clone()) {
        return Ok(());
    }
    tar.directory(id)?;
    tar.document(&format!("{id}/VERSION"), VERSION)?;
    let parent = place.checked_sub(1).map(|below| ids[below].as_str());
    let is_top = place + 1 == ids.len();
    tar.document(&format!("{id}/json"), layer_json(named, place, id, parent, is_top).to_string().as_bytes())?;
    let file = format!("{id}/layer.tar");
    if let Some(same) = written.layers.get(&source.diff_id) {
        return tar.symlink(&file, &format!("../{same}"));
    }
    let bytes = saving.plain_bytes(source, import::encoding_of(&source.blob)?)?;
    tar.file(&file, bytes, &mut |out, place| write_plain(source, out, place))?;
    written.layers.insert(source.diff_id, file);
    Ok(())
}

/// What old dockers know of a layer (Docker Image Specification v1.0): of the topmost the image's config.
fn layer_json(named: &Named, place: usize, id: &str, parent: Option<&str>, is_top: bool) -> Value {
    let mut fields = Map::new();
    if is_top {
        fields = serde_json::from_slice(&named.image.documents.config).unwrap_or_default();
        for newer in ["rootfs", "history"] {
            fields.remove(newer);
        }
    }
    fields.entry("created").or_insert_with(|| json!(LONG_AGO));
    let command = created_by(&named.image.config, named.layers.len()).into_iter().nth(place).flatten();
    if let Some(command) = command {
        let words = fields.entry("container_config").or_insert_with(|| json!({}));
        if let Some(words) = words.as_object_mut() {
            words.insert("Cmd".to_owned(), json!([command]));
        }
    }
    fields.insert("id".to_owned(), json!(id));
    fields.extend(parent.map(|parent| ("parent".to_owned(), json!(parent))));
    Value::Object(fields)
}
