//! What a user wants of a container, as it was understood: it is stored, so that the container can be started again.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::health::HealthCheck;
use super::log::LogLimits;
use super::restarting::RestartPolicy;
use super::rights::Rights;
use super::volumes::UsedVolume;
use crate::launcher::{Device, Names, Network, Resources, Rlimit, Tmpfs, UserNamespace};
use crate::model::port::{Port, Publish};

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
    /// Files and directories of the host, and volumes.
    pub volumes: Vec<UsedVolume>,
    /// Fresh tmpfs mounts.
    pub tmpfs: Vec<Tmpfs>,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: Option<u64>,
    /// Resource limits of processes.
    pub rlimits: Vec<Rlimit>,
    /// `oom_score_adj`
    pub oom_score_adj: Option<i32>,
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
    /// Which ids it has.
    pub user_namespace: UserNamespace,
    /// Its network.
    pub network: Network,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// What it may do.
    pub rights: Rights,
    /// Its ports that are to be reached through the host's.
    pub publish: Vec<Publish>,
    /// And all that are exposed, by the image or here, through any that are free.
    pub publish_all: bool,
    /// Ports to expose beside the image's.
    pub expose: Vec<Port>,
    /// Who knows names, and which.
    pub names: Names,
    /// The kernel keeps what is written until close or flush.
    pub writeback: bool,
    /// What is kept of its output, if anything is.
    pub log: LogLimits,
    /// Labels, over the image's.
    pub labels: BTreeMap<String, String>,
    /// What it may take.
    pub resources: Resources,
    /// The OCI runtime that makes it, by its absolute path; layerfs itself when not set.
    pub runtime: Option<OsString>,
}
