//! What a user wants of a container, as it was understood: it is stored, so that the container can be started again.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::health::HealthCheck;
use super::log::LogLimits;
use super::restarting::RestartPolicy;
use crate::launcher::{Network, Volume};

/// What the user asked for; `None` and empty leave it to the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wishes {
    /// Replaces the image's entrypoint; empty for none.
    pub entrypoint: Option<String>,
    /// Replaces the image's command.
    pub command: Vec<OsString>,
    /// `KEY=value`, after the image's.
    pub env: Vec<OsString>,
    /// Working directory.
    pub workdir: Option<OsString>,
    /// `user[:group]`
    pub user: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// Groups of the user's beyond those of the container's files, by name or number.
    pub groups: Vec<String>,
    /// What asks it to stop; the image's when not set.
    pub stop_signal: Option<String>,
    /// Seconds until one that was asked to stop is killed; negative for never.
    pub stop_timeout: Option<i64>,
    /// Seconds after which it is killed.
    pub timeout: Option<u64>,
    /// When it runs again.
    pub restart: RestartPolicy,
    /// How its health is checked.
    pub health: Option<HealthCheck>,
    /// A first process that is not the program.
    pub init: bool,
    /// A terminal.
    pub terminal: bool,
    /// What detaches a terminal, in docker's notation; ctrl-p,ctrl-q when not set.
    pub detach_keys: Option<String>,
    /// Standard input.
    pub interactive: bool,
    /// Read-only root.
    pub read_only: bool,
    /// Its network.
    pub network: Network,
    /// The kernel keeps what is written until close or flush.
    pub writeback: bool,
    /// What is kept of its output, if anything is.
    pub log: LogLimits,
}
