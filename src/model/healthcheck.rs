//! How a container's health is checked, as images (`Healthcheck` of a config) and docker write it.

use serde::{Deserialize, Serialize};

use super::image_config::null_as_default;

/// The `Healthcheck` object. Durations are in nanoseconds; 0 stands for the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`; `CMD` and arguments; `CMD-SHELL` and a text for the shell; empty for what the image below says.
    #[serde(deserialize_with = "null_as_default")]
    pub test: Vec<String>,
    /// From the end of one check to the next.
    pub interval: u64,
    /// How long one may take.
    pub timeout: u64,
    /// How long failures do not count after the start, until the first success.
    pub start_period: u64,
    /// The interval during that time.
    pub start_interval: u64,
    /// So many failures in a row are unhealthy.
    pub retries: u32,
}
