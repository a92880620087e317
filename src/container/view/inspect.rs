//! The documents of `inspect`. The field names are docker's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::host_config::{HostConfig, InspectedMount, host_config, mounts};
use crate::container::health::Health;
use crate::container::{
    Config, Container, ContainerError, ContainerId, LayerRecord, Moment, ProcessId, Purpose, State, Status,
    Wishes, ports,
};
use crate::model::Digest;

/// How long ago something is that never was (Go's zero time).
const NEVER: &str = "0001-01-01T00:00:00Z";
/// What the image's own wishes may not say again.
const OF_CONTAINER: [&str; 4] = ["Hostname", "Tty", "OpenStdin", "Image"];

/// A container that is looked at.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Which.
    pub container: Container,
    /// What is true of it.
    pub status: Status,
    /// How much it has changed in bytes, where that was asked for and could be found out.
    pub written: Option<u64>,
}

/// What is to be found out for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspecting {
    /// What is written down.
    Known,
    /// The size of its changes, too.
    Size,
}

/// The documents of `inspect`: a JSON array.
///
/// # Errors
/// When its ports cannot be read.
pub fn inspect(all: &[Inspected], inspecting: Inspecting) -> Result<String, ContainerError> {
    let documents = all.iter().map(|one| inspected(one, inspecting)).collect::<Result<Vec<_>, _>>()?;
    let mut text =
        serde_json::to_string_pretty(&documents).map_err(ContainerError::document(Path::new("inspect")))?;
    text.push('\n');
    Ok(text)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'a> {
    id: ContainerId,
    created: Moment,
    path: &'a str,
    args: &'a [String],
    state: InspectedState,
    image: Digest,
    image_name: &'a str,
    image_source: &'a str,
    name: &'a str,
    purpose: Purpose,
    restart_count: u32,
    log_path: PathBuf,
    /// Who makes it.
    #[serde(rename = "OCIRuntime")]
    oci_runtime: String,
    /// What that one is told, once it was started.
    #[serde(rename = "OCIConfigPath", skip_serializing_if = "Option::is_none")]
    oci_config_path: Option<PathBuf>,
    graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_rw: Option<Option<u64>>,
    mounts: Vec<InspectedMount>,
    config: InspectedConfig,
    host_config: HostConfig,
    network_settings: ports::InspectedNetwork,
    layers: &'a [LayerRecord],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    status: &'static str,
    running: bool,
    paused: bool,
    restarting: bool,
    /// Whether the kernel killed it for a limit of its own.
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    dead: bool,
    unclean: bool,
    pid: u32,
    exit_code: u8,
    started_at: String,
    finished_at: String,
    mountpoint: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Health>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    name: &'static str,
    data: GraphData,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GraphData {
    /// Nothing when changes are refused.
    upper_dir: Option<PathBuf>,
    work_dir: Option<PathBuf>,
}

/// What the image wishes, and what the user did.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    hostname: String,
    user: String,
    tty: bool,
    open_stdin: bool,
    env: Vec<String>,
    cmd: Vec<String>,
    image: String,
    working_dir: String,
    entrypoint: Vec<String>,
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

fn inspected(one: &Inspected, inspecting: Inspecting) -> Result<Document<'_>, ContainerError> {
    let container = &one.container;
    let config = container.config();
    let (path, args) =
        config.command.split_first().map_or(("", &[][..]), |(path, args)| (path.as_str(), args));
    Ok(Document {
        id: config.id,
        created: config.created,
        path,
        args,
        state: InspectedState { health: container.health().ok().flatten(), ..inspected_state(&one.status) },
        image: config.image.config_digest,
        image_name: &config.image.name,
        image_source: &config.image.source,
        name: &config.name,
        purpose: config.purpose,
        restart_count: container.restart_count(),
        log_path: container.log_path(),
        oci_runtime: oci_runtime(config),
        oci_config_path: container.oci_config_path(),
        graph_driver: GraphDriver { name: "layerfs", data: graph_data(container) },
        size_rw: (inspecting == Inspecting::Size).then_some(one.written),
        mounts: mounts(config),
        config: inspected_config(config),
        host_config: host_config(config),
        network_settings: ports::network(container, &one.status)?,
        layers: &config.image.layers,
    })
}

fn oci_runtime(config: &Config) -> String {
    let own = config.run.as_ref().and_then(|wishes| wishes.runtime.as_ref());
    own.map_or_else(|| "layerfs".to_owned(), |path| path.to_string_lossy().into_owned())
}

fn graph_data(container: &Container) -> GraphData {
    let dirs = container.upper_dirs();
    GraphData {
        upper_dir: dirs.as_ref().map(|dirs| dirs.upper.clone()),
        work_dir: dirs.map(|dirs| dirs.work),
    }
}

fn inspected_state(status: &Status) -> InspectedState {
    let mut shown = InspectedState {
        status: status.word(),
        running: status.is_running(),
        paused: status.is_paused(),
        restarting: status.is_restarting(),
        oom_killed: false,
        dead: false,
        unclean: status.is_unclean(),
        pid: 0,
        exit_code: 0,
        started_at: NEVER.to_owned(),
        finished_at: NEVER.to_owned(),
        mountpoint: None,
        health: None,
    };
    // A process that is gone has no number: somebody else may have it by now.
    let pid = |process: &ProcessId| if status.held { process.pid } else { 0 };
    match &status.state {
        State::Created => {}
        State::Running { process, started, .. } => {
            shown.pid = pid(process);
            shown.started_at = started.to_string();
        }
        State::Mounted { server, mountpoint, started } => {
            shown.pid = pid(server);
            shown.started_at = started.to_string();
            shown.mountpoint = Some(mountpoint.clone());
        }
        State::Exited { exit_code, started, finished, .. }
        | State::Restarting { exit_code, started, finished, .. } => {
            shown.oom_killed = matches!(status.state, State::Exited { oom_killed: true, .. });
            shown.exit_code = *exit_code;
            shown.started_at = started.to_string();
            shown.finished_at = finished.to_string();
        }
    }
    shown
}

fn inspected_config(config: &Config) -> InspectedConfig {
    let image = &config.image.process;
    // A mount has no wishes of its own.
    let unset = Wishes::default();
    let wishes = config.run.as_ref().unwrap_or(&unset);
    let text = |text: &std::ffi::OsString| text.to_string_lossy().into_owned();
    let hostname = match config.purpose {
        Purpose::Run => wishes.hostname.clone().unwrap_or_else(|| config.id.short()),
        Purpose::Mount => String::new(),
    };
    let (entrypoint, image_cmd) = match &wishes.entrypoint {
        None => (image.entrypoint.clone(), image.cmd.clone()),
        Some(own) => (Some(own.clone()).filter(|own| !own.is_empty()).into_iter().collect(), Vec::new()),
    };
    let cmd = match wishes.command.is_empty() {
        true => image_cmd,
        false => wishes.command.iter().map(text).collect(),
    };
    let is_own = |name: &String| !OF_CONTAINER.contains(&name.as_str());
    let others = image.other.iter().filter(|(name, _)| is_own(name));
    InspectedConfig {
        hostname,
        user: wishes.user.clone().unwrap_or_else(|| image.user.clone()),
        tty: wishes.terminal,
        open_stdin: wishes.interactive,
        env: variables(image.env.iter().cloned().chain(wishes.env.iter().map(text))),
        cmd,
        image: config.image.name.clone(),
        working_dir: wishes.workdir.as_ref().map_or_else(|| image.working_dir.clone(), text),
        entrypoint,
        labels: config.labels().into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        stop_signal: image.stop_signal.clone(),
        other: others.map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

/// Of equal names the last one, where the first one was.
fn variables(all: impl Iterator<Item = String>) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut found: Vec<String> = Vec::new();
    for variable in all {
        match found.iter_mut().find(|known| name(known) == name(&variable)) {
            Some(known) => *known = variable,
            None => found.push(variable),
        }
    }
    found
}
