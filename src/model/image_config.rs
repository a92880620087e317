//! The image configuration (image-spec config.md), as far as layerfs acts on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::Digest;

/// An image's configuration document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// CPU architecture, in Go's words (`amd64`).
    #[serde(default)]
    pub architecture: String,
    /// Operating system, in Go's words.
    #[serde(default)]
    pub os: String,
    /// How to start a process in it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ProcessConfig,
    /// The layers.
    pub rootfs: RootFs,
    /// Everything else, kept for images that are built on this one.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// The `config` object. Docker writes `null` for whatever is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessConfig {
    /// `KEY=value`
    #[serde(default, deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Comes before the command, whatever that is.
    #[serde(default, deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// The command unless the user gives one.
    #[serde(default, deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// `user[:group]`, names or numbers, resolved in the image.
    #[serde(default, deserialize_with = "null_as_default")]
    pub user: String,
    /// Where the process starts.
    #[serde(default, deserialize_with = "null_as_default")]
    pub working_dir: String,
    /// What asks the process to stop; `SIGTERM` when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Free-form labels.
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Everything else, kept for images that are built on this one.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl ProcessConfig {
    /// The `ExposedPorts`, as `80/tcp`; whether they are ports is not checked.
    pub fn exposed_ports(&self) -> impl Iterator<Item = &str> {
        let ports = self.other.get("ExposedPorts").and_then(serde_json::Value::as_object);
        ports.into_iter().flat_map(|ports| ports.keys().map(String::as_str))
    }
}

/// The `rootfs` object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// The digests of the uncompressed layers, base first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
    /// Everything else, kept for images that are built on this one.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// For `deserialize_with`: docker writes `null` where there is nothing.
///
/// # Errors
/// When it is neither `null` nor a `T`.
pub fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    input: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_nulls() {
        let text = r#"{"os":"linux","config":{"Env":null,"Cmd":["sh"],"User":null,"Labels":null},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert!(config.rootfs.diff_ids.is_empty());
    }

    #[test]
    fn what_nobody_knows_is_kept() {
        let text = r#"{"created":"1970-01-01T00:00:00Z","config":{"Volumes":{"/v":{}}},"rootfs":{"type":"layers"},"history":[{"x":1}]}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        let after = serde_json::to_value(&config).unwrap();
        assert_eq!(after["config"]["Volumes"]["/v"], serde_json::json!({}));
        assert_eq!(after["history"][0]["x"], 1);
        assert_eq!(after["rootfs"]["type"], "layers");
    }
}
