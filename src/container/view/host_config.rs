//! What a container has of its host, in the documents of `inspect`. The field names are docker's.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::limits::Limits;
use super::{network_mode, volumes};
use crate::container::{Config, Source, UsedVolume, Wishes, ports};
use crate::launcher::{Capabilities, Device, Rlimit, Seccomp, Tmpfs};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InspectedMount {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    source: String,
    destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<&'static str>,
    mode: &'static str,
    #[serde(rename = "RW")]
    rw: bool,
    propagation: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HostConfig {
    binds: Vec<String>,
    log_config: LogConfig,
    network_mode: String,
    auto_remove: bool,
    readonly_rootfs: bool,
    privileged: bool,
    cap_add: Capabilities,
    cap_drop: Capabilities,
    security_opt: Vec<&'static str>,
    devices: Vec<InspectedDevice>,
    tmpfs: BTreeMap<String, String>,
    shm_size: u64,
    ulimits: Vec<Ulimit>,
    oom_score_adj: i32,
    #[serde(flatten)]
    ports: ports::InspectedBindings,
    #[serde(flatten)]
    limits: Limits,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LogConfig {
    r#type: &'static str,
    config: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedDevice {
    path_on_host: String,
    path_in_container: String,
    cgroup_permissions: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ulimit {
    name: String,
    soft: u64,
    hard: u64,
}

pub(super) fn mounts(config: &Config) -> Vec<InspectedMount> {
    let volume = |used: &UsedVolume| InspectedMount {
        r#type: if used.name().is_some() { "volume" } else { "bind" },
        name: used.name().map(str::to_owned),
        source: text(&used.mount.source),
        destination: text(&used.mount.destination),
        driver: used.name().map(|_| "local"),
        mode: mode(used.mount.flags.read_only),
        rw: !used.mount.flags.read_only,
        propagation: "rprivate",
    };
    let tmpfs = |tmpfs: &Tmpfs| InspectedMount {
        r#type: "tmpfs",
        name: None,
        source: String::new(),
        destination: text(&tmpfs.destination),
        driver: None,
        mode: mode(tmpfs.flags.read_only),
        rw: !tmpfs.flags.read_only,
        propagation: "",
    };
    let fresh = config.run.iter().flat_map(|wishes| &wishes.tmpfs);
    volumes(config).map(volume).chain(fresh.map(tmpfs)).collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn mode(read_only: bool) -> &'static str {
    if read_only { "ro" } else { "" }
}

pub(super) fn host_config(config: &Config) -> HostConfig {
    // A mount has no wishes of its own.
    let unset = Wishes::default();
    let wishes = config.run.as_ref().unwrap_or(&unset);
    let device = |device: &Device| InspectedDevice {
        path_on_host: text(&device.source),
        path_in_container: text(&device.destination),
        cgroup_permissions: "rwm",
    };
    let name = |limit: &Rlimit| format!("{:?}", limit.resource).to_ascii_lowercase();
    let ulimit = |limit: &Rlimit| Ulimit { name: name(limit), soft: limit.soft, hard: limit.hard };
    HostConfig {
        binds: volumes(config).map(bind).collect(),
        log_config: log_config(wishes),
        network_mode: network_mode(config.run.as_ref().map(|wishes| &wishes.network)).unwrap_or_default(),
        auto_remove: config.remove_at_end,
        readonly_rootfs: wishes.read_only,
        privileged: wishes.rights.privileged,
        cap_add: wishes.rights.add,
        cap_drop: wishes.rights.drop,
        security_opt: security_options(wishes),
        devices: wishes.devices.iter().map(device).collect(),
        tmpfs: wishes.tmpfs.iter().map(tmpfs_options).collect(),
        shm_size: wishes.shm_bytes.unwrap_or(crate::launcher::SHM_BYTES),
        ulimits: wishes.rlimits.iter().map(ulimit).collect(),
        oom_score_adj: wishes.oom_score_adj.unwrap_or(0),
        ports: ports::bindings(wishes),
        limits: Limits::of(wishes),
    }
}

fn bind(used: &UsedVolume) -> String {
    let options = if used.mount.flags.read_only { "ro" } else { "rw" };
    let source = match &used.source {
        Source::Path => text(&used.mount.source),
        Source::Named(_) | Source::Anonymous => used.name().unwrap_or_default().to_owned(),
    };
    format!("{source}:{}:{options}", used.mount.destination.display())
}

fn log_config(wishes: &Wishes) -> LogConfig {
    let limits = wishes.log;
    let max_size = limits.bytes.map(|bytes| ("max-size", bytes.to_string()));
    let config = max_size.into_iter().chain([("max-file", limits.files.to_string())]).collect();
    LogConfig { r#type: "json-file", config }
}

fn security_options(wishes: &Wishes) -> Vec<&'static str> {
    let seccomp = match wishes.rights.seccomp {
        Seccomp::Default => None,
        Seccomp::Unconfined => Some("seccomp=unconfined"),
        Seccomp::Profile(_) => Some("seccomp=profile"),
    };
    let no_new = wishes.rights.no_new_privileges.then_some("no-new-privileges");
    no_new.into_iter().chain(seccomp).collect()
}

fn tmpfs_options(tmpfs: &Tmpfs) -> (String, String) {
    let size = tmpfs.bytes.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let access = if tmpfs.flags.read_only { "ro" } else { "rw" };
    (text(&tmpfs.destination), format!("{access},mode={:o}{size}", tmpfs.mode))
}
