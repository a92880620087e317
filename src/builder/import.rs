//! A root filesystem in a tar becomes an image of one layer.

use std::io::Read;
use std::path::PathBuf;

use serde_json::json;

use super::dockerfile;
use super::error::ImportError;
use super::stage::Stage;
use super::steps::{self, Step};
use crate::container::Moment;
use crate::image::{self, Reference, Written};
use crate::layer::LayerSource;
use crate::model::ImageConfig;
use crate::mount::{Caches, MountSpec, Progress};
use crate::store::Store;

/// What begins a line and changes only the config.
const CHANGES: [&str; 9] =
    ["CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"];

/// What is to be imported, and what the image says of itself.
#[derive(Clone, Debug)]
pub struct ImportSpec {
    /// The image's name.
    pub name: Option<String>,
    /// Instructions of Dockerfiles.
    pub changes: Vec<String>,
    /// The comment of its history.
    pub message: String,
    /// The system that it is for.
    pub os: String,
    /// And the architecture.
    pub architecture: String,
    /// And its variant.
    pub variant: Option<String>,
    /// Where the tar comes from, for messages.
    pub place: PathBuf,
}

/// Puts a tar into the store as an image. Its index is built with it, which reads all of it.
///
/// # Errors
/// [`ImportError`]; then no image is new in the store.
pub fn import(
    store: &Store,
    source: &mut dyn Read,
    spec: &ImportSpec,
    progress: &dyn Progress,
) -> Result<Written, ImportError> {
    let wrong = |source| ImportError::Name { name: spec.name.clone().unwrap_or_default(), source };
    let name = spec.name.as_deref().map(str::parse::<Reference>).transpose().map_err(wrong)?;
    let mut config = configured(spec)?;
    // Nothing is collected before it has its name.
    let _lock = store.lock()?;
    let layer = image::take_layer(store, source, &spec.place)?;
    config.rootfs.diff_ids = vec![layer.tar.diff_id];
    let layers = vec![LayerSource::Tar(layer.tar)];
    MountSpec { layers, index_dir: store.index_dir(), caches: Caches::default() }.layers(progress)?;
    layer.blob.publish()?;
    let name = name.map(|name| name.familiar());
    Ok(image::write(store, &serde_json::to_vec(&config)?, &[layer.descriptor], name.as_deref())?)
}

fn configured(spec: &ImportSpec) -> Result<ImageConfig, ImportError> {
    let config = ImageConfig {
        architecture: spec.architecture.clone(),
        os: spec.os.clone(),
        ..ImageConfig::default()
    };
    let mut stage = Stage::new(config, Vec::new(), '\\');
    for change in &spec.changes {
        change_config(&mut stage, change)
            .map_err(|reason| ImportError::Change { change: change.clone(), reason })?;
    }
    let mut config = stage.config;
    let now = Moment::now().to_string();
    config.other.insert("created".to_owned(), json!(now));
    config.other.insert("history".to_owned(), json!([{ "created": now, "comment": spec.message }]));
    config.other.extend(spec.variant.iter().map(|variant| ("variant".to_owned(), json!(variant))));
    config.rootfs.other.insert("type".to_owned(), json!("layers"));
    Ok(config)
}

fn change_config(stage: &mut Stage, change: &str) -> Result<(), String> {
    // podman also takes KEYWORD=VALUE.
    let text = match change.split_once('=') {
        Some((keyword, rest)) if keyword.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            format!("{keyword} {rest}")
        }
        _ => change.to_owned(),
    };
    let (lines, escape) = dockerfile::lines(&text).map_err(|error| error.reason)?;
    let [line] = lines.as_slice() else { return Err("expected one instruction".to_owned()) };
    if !CHANGES.contains(&line.keyword.as_str()) {
        return Err(format!("{} is not one of {}", line.keyword, CHANGES.join(", ")));
    }
    let step = steps::step(line, escape).map_err(|error| error.reason)?;
    match stage.configure(&step)? {
        Some(Step::Workdir(dir)) => stage.enter(dir).map(drop),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(changes: &[&str]) -> ImportSpec {
        ImportSpec {
            name: None,
            changes: changes.iter().map(|change| (*change).to_owned()).collect(),
            message: "why".to_owned(),
            os: "linux".to_owned(),
            architecture: "arm".to_owned(),
            variant: Some("v7".to_owned()),
            place: PathBuf::from("root.tar"),
        }
    }

    #[test]
    fn changes_are_instructions() {
        let all =
            ["CMD=/bin/sh", "env A=b", "ENV=C=d", "WORKDIR /w", "EXPOSE 80", "LABEL x=\"y z\"", "USER 7"];
        let config = configured(&spec(&all)).unwrap();
        assert_eq!(config.config.cmd, ["/bin/sh", "-c", "/bin/sh"]);
        assert_eq!(config.config.env, ["A=b", "C=d"]);
        assert_eq!((config.config.working_dir.as_str(), config.config.user.as_str()), ("/w", "7"));
        assert_eq!(config.config.labels["x"], "y z");
        assert_eq!(config.other["variant"], "v7");
        assert_eq!(config.other["history"][0]["comment"], "why");
        for wrong in ["RUN x", "CMD", "", "CMD a\nUSER b", "EXPOSE x", "FROM a", "COPY a b"] {
            let error = configured(&spec(&[wrong])).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--change {wrong:?}: ")), "{error}");
        }
    }
}
