//! What a user wants of a container, as it was understood: it is stored, so that the container can be started again.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::log::LogLimits;
use crate::launcher::{Network, UserNamespace, Volume};

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
    /// A terminal.
    pub terminal: bool,
    /// Standard input.
    pub interactive: bool,
    /// Read-only root.
    pub read_only: bool,
    /// Which ids it has.
    pub user_namespace: UserNamespace,
    /// Its network.
    pub network: Network,
    /// The kernel keeps what is written until close or flush.
    pub writeback: bool,
    /// What is kept of its output, if anything is.
    pub log: LogLimits,
}
