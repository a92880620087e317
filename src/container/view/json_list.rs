//! `ps --format json`: podman's array, with podman's field names.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Row, network_mode, status_text};
use crate::container::{ContainerId, Moment, State, moment, ports};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed<'a> {
    auto_remove: bool,
    command: &'a [String],
    created_at: String,
    exited: bool,
    exited_at: Option<u64>,
    exit_code: u8,
    id: ContainerId,
    image: &'a str,
    #[serde(rename = "ImageID")]
    image_id: String,
    labels: BTreeMap<&'a str, &'a str>,
    mounts: Vec<String>,
    names: [&'a str; 1],
    networks: Vec<String>,
    pid: u32,
    ports: Vec<ports::ListedPort>,
    size: Option<Size>,
    started_at: Option<u64>,
    state: &'static str,
    status: String,
    created: u64,
}

/// The writable layer's; that of the image is nowhere as a whole.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Size {
    rw_size: u64,
}

/// The JSON array. Times are seconds since 1970.
///
/// # Errors
/// None in practice: everything in it can be written as JSON.
pub fn json_list(rows: &[Row], now: Moment) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&rows.iter().map(|row| listed(row, now)).collect::<Vec<_>>())
}

fn listed(row: &Row, now: Moment) -> Listed<'_> {
    let (about, status) = (&row.listed.about, &row.listed.status);
    let mut listed = Listed {
        auto_remove: about.remove_at_end,
        command: &about.command,
        created_at: format!("{} ago", moment::in_words(about.created.age(now))),
        exited: status.word() == "exited",
        exited_at: None,
        exit_code: 0,
        id: about.id,
        image: &about.image.name,
        image_id: about.image.config_digest.hex(),
        labels: about.labels(),
        mounts: about.volumes().map(|volume| volume.mount.destination.display().to_string()).collect(),
        names: [&about.name],
        networks: network_mode(about.network()).into_iter().collect(),
        pid: 0,
        ports: ports::listed(&row.listed),
        size: row.written.map(|rw_size| Size { rw_size }),
        started_at: None,
        state: status.word(),
        status: status_text(&row.listed, now),
        created: about.created.seconds(),
    };
    match &status.state {
        State::Created => {}
        State::Running { process, started, .. } | State::Mounted { server: process, started, .. } => {
            listed.pid = if status.held { process.pid } else { 0 };
            listed.started_at = Some(started.seconds());
        }
        State::Exited { exit_code, started, finished, .. }
        | State::Restarting { exit_code, started, finished, .. } => {
            listed.exit_code = *exit_code;
            listed.started_at = Some(started.seconds());
            listed.exited_at = Some(finished.seconds());
        }
    }
    listed
}
