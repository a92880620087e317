//! Everything that is known of an image, as `inspect` shows it: the field names are docker's where docker has one.

use serde::Serialize;
use serde_json::Value;

use super::Image;
use crate::index::Encoding;
use crate::layer::LayerSource;
use crate::model::{Digest, ImageConfig};
use crate::sys::file_range::FileRange;

/// One step of an image's history (image-spec config.md).
#[derive(serde::Deserialize)]
struct Step {
    #[serde(default)]
    created_by: Option<String>,
    #[serde(default)]
    empty_layer: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Described<'a> {
    id: Digest,
    name: &'a str,
    source: &'a str,
    repo_tags: &'a [String],
    digest: Option<Digest>,
    media_type: Option<&'a str>,
    annotations: Value,
    created: Value,
    author: Value,
    architecture: &'a str,
    variant: Value,
    os: &'a str,
    os_version: Value,
    config: Value,
    history: Value,
    #[serde(rename = "RootFS")]
    root_fs: RootFs<'a>,
    size: u64,
    layers: Vec<DescribedLayer>,
    /// The config document with all its fields, whoever wrote them.
    image_config: Value,
    manifest: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs<'a> {
    r#type: &'static str,
    layers: &'a [Digest],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedLayer {
    diff_id: Option<Digest>,
    digest: Option<Digest>,
    media_type: Option<String>,
    /// Told by its bytes, whatever the media type says.
    encoding: Option<&'static str>,
    size: Option<u64>,
    /// The file that it lies in, and from where on, unless that is compressed as a whole.
    path: Option<String>,
    offset: Option<u64>,
    annotations: Value,
    created_by: Option<String>,
    /// Why it cannot be used.
    broken: Option<String>,
}

impl Image {
    /// The image as a JSON array of one object.
    ///
    /// # Errors
    /// None in practice: everything in it can be written as JSON.
    pub fn describe(&self) -> serde_json::Result<String> {
        let config: Value = serde_json::from_slice(&self.documents.config).unwrap_or(Value::Null);
        let field = |name: &str| config.get(name).cloned().unwrap_or(Value::Null);
        let manifest = self.documents.manifest.as_ref();
        let document: Value =
            manifest.and_then(|stored| serde_json::from_slice(&stored.bytes).ok()).unwrap_or(Value::Null);
        let layers = self.describe_layers();
        let described = Described {
            id: self.config_digest,
            name: &self.name,
            source: &self.source,
            repo_tags: &self.documents.names,
            digest: manifest.map(|stored| stored.descriptor.digest),
            media_type: manifest.map(|stored| stored.descriptor.media_type.as_str()),
            annotations: document.get("annotations").cloned().unwrap_or(Value::Null),
            created: field("created"),
            author: field("author"),
            architecture: &self.config.architecture,
            variant: field("variant"),
            os: &self.config.os,
            os_version: field("os.version"),
            config: field("config"),
            history: field("history"),
            root_fs: RootFs { r#type: "layers", layers: &self.config.rootfs.diff_ids },
            size: layers.iter().filter_map(|layer| layer.size).fold(0, u64::saturating_add),
            layers,
            image_config: config.clone(),
            manifest: document,
        };
        Ok(serde_json::to_string_pretty(&[described])? + "\n")
    }

    /// All layers by their place, base first; `None` for one that was left out as broken.
    #[must_use]
    pub fn layers_by_place(&self) -> Vec<Option<&LayerSource>> {
        let mut sources = self.layers.iter();
        let count = self.layers.len() + self.documents.broken.len();
        let is_broken = |place| self.documents.broken.iter().any(|broken| broken.place == place);
        (0..count).map(|place| if is_broken(place) { None } else { sources.next() }).collect()
    }

    fn describe_layers(&self) -> Vec<DescribedLayer> {
        let created_by = created_by(&self.config, self.layers.len() + self.documents.broken.len());
        let layers = self.layers_by_place().into_iter().zip(created_by).enumerate();
        let describe = |(place, (source, created_by)): (usize, (Option<&LayerSource>, Option<String>))| {
            let promised = self.documents.layers.get(place);
            let broken = self.documents.broken.iter().find(|broken| broken.place == place);
            let tar = match source {
                Some(LayerSource::Tar(tar)) => Some(tar),
                _ => None,
            };
            let path = match source {
                Some(LayerSource::Directory(path)) => Some(path.as_path()),
                _ => tar.map(|tar| tar.blob.path()),
            };
            DescribedLayer {
                diff_id: self.config.rootfs.diff_ids.get(place).copied(),
                digest: promised.map(|one| one.digest).or(tar.and_then(|tar| tar.blob_digest)),
                media_type: promised.map(|one| one.media_type.clone()),
                encoding: tar.map(|tar| encoding_name(&tar.blob)),
                size: promised.map(|one| one.size).or(tar.map(|tar| tar.blob.len())),
                path: path.map(|path| path.display().to_string()),
                offset: tar.filter(|tar| !tar.blob.is_stand_in()).map(|tar| tar.blob.offset()),
                annotations: promised
                    .and_then(|one| serde_json::to_value(one.annotations.as_ref()?).ok())
                    .unwrap_or(Value::Null),
                created_by,
                broken: broken.map(|broken| broken.reason.clone()),
            }
        };
        layers.map(describe).collect()
    }
}

fn encoding_name(blob: &FileRange) -> &'static str {
    let mut start = [0; Encoding::SNIFF_BYTES];
    match blob.read_at(0, &mut start) {
        Ok(count) => Encoding::of(&start[..count]).name(),
        Err(_) => "unreadable",
    }
}

/// What made each layer, when the history says so: its steps that are not marked as empty are the layers, in order.
#[must_use]
pub fn created_by(config: &ImageConfig, layers: usize) -> Vec<Option<String>> {
    let history = config.other.get("history").cloned().unwrap_or(Value::Null);
    let steps: Vec<Step> = serde_json::from_value(history).unwrap_or_default();
    let made: Vec<Option<String>> =
        steps.into_iter().filter(|step| !step.empty_layer).map(|step| step.created_by).collect();
    // A history of another length speaks of something else; to guess would be to lie.
    if made.len() == layers { made } else { vec![None; layers] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_matched_or_left_out() {
        let config = |history: &str| -> ImageConfig {
            serde_json::from_str(&format!(r#"{{"rootfs":{{}},"history":{history}}}"#)).unwrap()
        };
        let two = config(r#"[{"created_by":"a"},{"created_by":"ENV","empty_layer":true},{"comment":"x"}]"#);
        assert_eq!(created_by(&two, 2), [Some("a".to_owned()), None]);
        assert_eq!(created_by(&two, 3), [None, None, None]);
        assert_eq!(created_by(&config("7"), 1), [None]);
    }
}
