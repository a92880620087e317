//! What a `--format` of `ps` can name: docker's words, and podman's.

use serde_json::{Map, Value, json};

use super::table::{Width, command, id, size_text};
use super::{Row, harmless, network_mode, status_text};
use crate::container::{Moment, State, moment, ports};

/// What a template is filled in with for one container.
#[must_use]
pub fn words(row: &Row, now: Moment, width: Width) -> Value {
    let (about, status) = (&row.listed.about, &row.listed.status);
    let label = |(key, value): (&str, &str)| (harmless(key), Value::from(harmless(value)));
    let labels: Map<String, Value> = about.labels().into_iter().map(label).collect();
    let image_id = about.image.config_digest.hex();
    let ago = format!("{} ago", moment::in_words(about.created.age(now)));
    let mounts: Vec<String> =
        about.volumes().map(|one| one.mount.destination.display().to_string()).collect();
    let (pid, exit_code, started) = match &status.state {
        State::Running { process, started, .. } if status.held => (process.pid, 0, Some(*started)),
        State::Mounted { server, started, .. } if status.held => (server.pid, 0, Some(*started)),
        State::Exited { exit_code, started, .. } | State::Restarting { exit_code, started, .. } => {
            (0, *exit_code, Some(*started))
        }
        State::Running { .. } | State::Mounted { .. } | State::Created => (0, 0, None),
    };
    let mut words = json!({
        "AutoRemove": about.remove_at_end,
        "Command": command(row, width),
        "Created": ago,
        "CreatedAt": time(about.created),
        "CreatedHuman": ago,
        "ExitCode": exit_code,
        "Exited": status.word() == "exited",
        "ID": id(row, width),
        "Id": id(row, width),
        "Image": about.image.name,
        "ImageID": match width {
            Width::Short => image_id.chars().take(12).collect(),
            Width::Full => image_id,
        },
        "Mounts": mounts.join(","),
        "Names": about.name,
        "Networks": network_mode(about.network()).unwrap_or_default(),
        "Pid": pid,
        "Ports": ports::cell_of(&row.listed),
        "RunningFor": ago,
        "Size": size_text(row),
        "StartedAt": started.map(time).unwrap_or_default(),
        "State": status.word(),
        "Status": status_text(&row.listed, now),
    });
    if let Value::Object(fields) = &mut words {
        for value in fields.values_mut() {
            if let Value::String(text) = value {
                *text = harmless(text);
            }
        }
        fields.insert("Label".to_owned(), labels.clone().into());
        fields.insert("Labels".to_owned(), labels.into());
    }
    words
}

/// The headings of columns, by what fills them.
#[must_use]
pub fn headings() -> Value {
    json!({
        "AutoRemove": "AUTO REMOVE",
        "Command": "COMMAND",
        "Created": "CREATED",
        "CreatedAt": "CREATED AT",
        "CreatedHuman": "CREATED",
        "ExitCode": "EXIT CODE",
        "Exited": "EXITED",
        "ID": "CONTAINER ID",
        "Id": "CONTAINER ID",
        "Image": "IMAGE",
        "ImageID": "IMAGE ID",
        "Label": "LABEL",
        "Labels": "LABELS",
        "Mounts": "MOUNTS",
        "Names": "NAMES",
        "Networks": "NETWORKS",
        "Pid": "PID",
        "Ports": "PORTS",
        "RunningFor": "CREATED",
        "Size": "SIZE",
        "StartedAt": "STARTED AT",
        "State": "STATE",
        "Status": "STATUS",
    })
}

/// As docker writes times in lists: `2001-02-03 04:05:06 +0000 UTC`.
fn time(moment: Moment) -> String {
    let text = moment.to_string();
    let seconds = text.split('.').next().unwrap_or_default();
    format!("{} +0000 UTC", seconds.replace('T', " "))
}
