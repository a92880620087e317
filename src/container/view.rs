//! Containers as people and scripts see them: the table of `ps`, the documents of `inspect`. Nothing is printed here.

use std::path::PathBuf;

use serde::Serialize;

use super::health::Health;
use super::{Container, ContainerError, ContainerId, Moment, ProcessId, Purpose, State, Status, moment};
use crate::model::Digest;
use crate::model::image_config::ProcessConfig;

/// Characters of the command in the table, as docker has it.
const COMMAND_CHARS_MAX: usize = 20;
/// Spaces between columns.
const GAP: usize = 3;
const HEADINGS: [&str; 7] = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];

/// How much of ids and commands a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 12 digits, 20 characters.
    Short,
    /// All (`--no-trunc`).
    Full,
}

/// The table of `ps`.
#[must_use]
pub fn table(rows: &[(Container, Status)], now: Moment, width: Width) -> String {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    lines.extend(rows.iter().map(|(container, status)| cells(container, status, now, width)));
    let mut widths = [0; HEADINGS.len()];
    for line in &lines {
        for (widest, cell) in widths.iter_mut().zip(line) {
            *widest = cell.chars().count().max(*widest);
        }
    }
    lines.iter().map(|line| aligned(line, &widths)).collect()
}

/// The documents of `inspect`: a JSON array.
///
/// # Errors
/// When a status cannot be read.
pub fn inspect(rows: &[(Container, Status)]) -> Result<String, ContainerError> {
    let documents: Vec<Inspected<'_>> =
        rows.iter().map(|(container, status)| inspected(container, status)).collect();
    let mut text = serde_json::to_string_pretty(&documents)
        .map_err(ContainerError::document(std::path::Path::new("inspect")))?;
    text.push('\n');
    Ok(text)
}

fn cells(container: &Container, status: &Status, now: Moment, width: Width) -> [String; 7] {
    let config = container.config();
    let (id, command) = match width {
        Width::Short => (config.id.short(), shortened(&config.command.join(" "))),
        Width::Full => (config.id.to_string(), config.command.join(" ")),
    };
    let command =
        if config.purpose == Purpose::Mount { "(mount)".to_owned() } else { format!("\"{command}\"") };
    let created = format!("{} ago", moment::in_words(config.created.age(now)));
    let cells = [
        id,
        config.image.name.clone(),
        command,
        created,
        status_text(container, status, now),
        String::new(),
        config.name.clone(),
    ];
    cells.map(|cell| harmless(&cell))
}

/// With the health of one that is checked. What cannot be read is not shown.
fn status_text(container: &Container, status: &Status, now: Moment) -> String {
    let text = status.text(now);
    match container.health() {
        Ok(Some(health)) if status.is_running() => format!("{text} ({})", health.text()),
        _ => text,
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= COMMAND_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(COMMAND_CHARS_MAX - 1).chain(['\u{2026}']).collect()
}

/// Commands and names come from images: what would move the cursor is shown instead.
fn harmless(text: &str) -> String {
    let show = |character: char| -> String {
        if character.is_control() { character.escape_default().collect() } else { character.to_string() }
    };
    text.chars().map(show).collect()
}

fn aligned(line: &[String; 7], widths: &[usize; 7]) -> String {
    let mut text = String::new();
    for (cell, width) in line.iter().zip(widths) {
        let padding = width + GAP - cell.chars().count();
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', padding));
    }
    format!("{}\n", text.trim_end())
}

/// The field names are docker's.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected<'a> {
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
    graph_driver: GraphDriver,
    config: &'a ProcessConfig,
    layers: &'a [super::LayerRecord],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    status: &'static str,
    running: bool,
    restarting: bool,
    unclean: bool,
    pid: u32,
    exit_code: Option<u8>,
    started_at: Option<Moment>,
    finished_at: Option<Moment>,
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

fn inspected<'a>(container: &'a Container, status: &Status) -> Inspected<'a> {
    let config = container.config();
    let (path, args) =
        config.command.split_first().map_or(("", &[][..]), |(path, args)| (path.as_str(), args));
    let dirs = container.upper_dirs();
    let data = GraphData {
        upper_dir: dirs.as_ref().map(|dirs| dirs.upper.clone()),
        work_dir: dirs.map(|dirs| dirs.work),
    };
    Inspected {
        id: config.id,
        created: config.created,
        path,
        args,
        state: InspectedState { health: container.health().ok().flatten(), ..inspected_state(status) },
        image: config.image.config_digest,
        image_name: &config.image.name,
        image_source: &config.image.source,
        name: &config.name,
        purpose: config.purpose,
        restart_count: container.restart_count(),
        log_path: container.log_path(),
        graph_driver: GraphDriver { name: "layerfs", data },
        config: &config.image.process,
        layers: &config.image.layers,
    }
}

fn inspected_state(status: &Status) -> InspectedState {
    let mut shown = InspectedState {
        status: status.word(),
        running: status.is_running(),
        restarting: status.is_restarting(),
        unclean: status.is_unclean(),
        pid: 0,
        exit_code: None,
        started_at: None,
        finished_at: None,
        mountpoint: None,
        health: None,
    };
    // A process that is gone has no number: somebody else may have it by now.
    let pid = |process: &ProcessId| if status.held { process.pid } else { 0 };
    match &status.state {
        State::Created => {}
        State::Running { process, started } => {
            shown.pid = pid(process);
            shown.started_at = Some(*started);
        }
        State::Mounted { server, mountpoint, started } => {
            shown.pid = pid(server);
            shown.started_at = Some(*started);
            shown.mountpoint = Some(mountpoint.clone());
        }
        State::Exited { exit_code, started, finished }
        | State::Restarting { exit_code, started, finished, .. } => {
            shown.exit_code = Some(*exit_code);
            shown.started_at = Some(*started);
            shown.finished_at = Some(*finished);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::{Containers, ImageRecord, LayerRecord, NewContainer, Owners};
    use super::*;

    fn container(command: &[&str], purpose: Purpose) -> (tempfile::TempDir, Container) {
        let dir = tempfile::tempdir().unwrap();
        let image = ImageRecord {
            name: "debian:12".into(),
            source: "oci:/x:@sha256:0".into(),
            config_digest: Digest::from_bytes([1; 32]),
            layers: vec![LayerRecord::Tar(Digest::from_bytes([2; 32]))],
            process: ProcessConfig { env: vec!["A=1".into()], ..ProcessConfig::default() },
        };
        let command = command.iter().map(ToString::to_string).collect();
        let name = Some("box".to_owned());
        let new = NewContainer {
            name,
            image,
            purpose,
            command,
            owners: Owners::Image,
            changes: crate::container::Changes::Own,
            remove_at_end: false,
            run: None,
        };
        let held = Containers::open(dir.path()).unwrap().create(new).unwrap();
        (dir, (*held).clone())
    }

    #[test]
    fn table_of_one() {
        let (_dir, one) = container(&["/bin/sh", "-c", "echo \u{1b}[31m; sleep 1000"], Purpose::Run);
        let started = one.config().created;
        let process = ProcessId { pid: 4, start_ticks: 5 };
        let status = Status { state: State::Running { process, started }, held: true };
        let id = one.id().short();
        let text = table(&[(one.clone(), status)], started, Width::Short);
        let lines: Vec<&str> = text.lines().collect();
        let cells = |line: &str| -> Vec<String> {
            line.split("   ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
        };
        assert_eq!(cells(lines[0]), HEADINGS);
        let command = "\"/bin/sh -c echo \\u{1b}[3\u{2026}\"";
        let ago = "Less than a second ago";
        assert_eq!(cells(lines[1]), [&id, "debian:12", command, ago, "Up less than a second", "box"]);
        // Every cell stands below its heading.
        for (heading, cell) in HEADINGS.iter().zip([&id, "debian:12", command, ago, "Up less", "", "box"]) {
            let start = lines[0].find(heading).unwrap();
            let below: String = lines[1].chars().skip(start).collect();
            assert!(below.starts_with(cell), "{heading}: {below}");
        }
        let full = table(&[(one.clone(), one.status().unwrap())], started, Width::Full);
        assert!(full.contains(&one.id().to_string()) && full.contains("sleep 1000\""), "{full}");
        assert!(!full.contains('\u{1b}'));
        assert_eq!(table(&[], started, Width::Short).lines().count(), 1);
    }

    #[test]
    fn documents() {
        let (_dir, one) = container(&["python3", "-m", "http.server"], Purpose::Run);
        let finished = one.config().created;
        let status =
            Status { state: State::Exited { exit_code: 3, started: finished, finished }, held: false };
        let text = inspect(&[(one.clone(), status)]).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let first = &value[0];
        assert_eq!(first["Id"], one.id().to_string());
        assert_eq!((&first["Path"], &first["Args"][1]), (&"python3".into(), &"http.server".into()));
        assert_eq!((&first["State"]["Status"], &first["State"]["ExitCode"]), (&"exited".into(), &3.into()));
        assert_eq!(first["Config"]["Env"][0], "A=1");
        assert_eq!(first["GraphDriver"]["Data"]["UpperDir"], one.upper_dir().to_str().unwrap());
        assert_eq!(inspect(&[]).unwrap(), "[]\n");
    }

    #[test]
    fn a_dead_server_has_no_pid() {
        let (_dir, one) = container(&[], Purpose::Mount);
        let server = ProcessId { pid: 4, start_ticks: 5 };
        let state = State::Mounted { server, mountpoint: "/m".into(), started: one.config().created };
        for (held, pid, word) in [(true, 4, "mounted"), (false, 0, "exited")] {
            let text = inspect(&[(one.clone(), Status { state: state.clone(), held })]).unwrap();
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let shown = &value[0]["State"];
            assert_eq!(
                (&shown["Pid"], &shown["Status"], &shown["Unclean"]),
                (&pid.into(), &word.into(), &(!held).into())
            );
            assert_eq!(value[0]["Path"], "");
        }
    }
}
