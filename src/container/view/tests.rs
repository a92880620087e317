use serde_json::Value;

use super::*;
use crate::container::Source;
use crate::container::restarting::RestartPolicy;
use crate::container::{
    Container, Containers, ImageRecord, LayerRecord, Moment, NewContainer, Owners, ProcessId, Purpose, State,
    Status, UsedVolume, Wishes,
};
use crate::launcher::{HostAddress, Limit, Names, Resources};
use crate::model::Digest;
use crate::model::image_config::ProcessConfig;
use crate::template::Template;

const HEADINGS: [&str; 7] = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];

fn row(container: &Container, status: Status) -> Row {
    Row { listed: Listed::of(container, status), written: None }
}

fn looked_at(container: &Container, status: Status) -> Inspected {
    Inspected { container: container.clone(), status, written: None }
}

fn inspected(container: &Container, status: Status) -> Value {
    let text = inspect(&[looked_at(container, status)], Inspecting::Known).unwrap();
    serde_json::from_str(&text).unwrap()
}

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
    let status = Status { state: State::Running { process, started, cgroup: None }, held: true };
    let id = one.id().short();
    let table = |rows: &[Row], width| aligned(&table(rows, started, width, false));
    let text = table(&[row(&one, status)], Width::Short);
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
    let full = table(&[row(&one, one.status().unwrap())], Width::Full);
    assert!(full.contains(&one.id().to_string()) && full.contains("sleep 1000\""), "{full}");
    assert!(!full.contains('\u{1b}'));
    assert_eq!(table(&[], Width::Short).lines().count(), 1);
}

#[test]
fn documents() {
    let (_dir, one) = container(&["python3", "-m", "http.server"], Purpose::Run);
    let finished = one.config().created;
    let status = Status {
        state: State::Exited { exit_code: 3, started: finished, finished, oom_killed: false },
        held: false,
    };
    let value = inspected(&one, status);
    let first = &value[0];
    assert_eq!(first["Id"], one.id().to_string());
    assert_eq!((&first["Path"], &first["Args"][1]), (&"python3".into(), &"http.server".into()));
    assert_eq!((&first["State"]["Status"], &first["State"]["ExitCode"]), (&"exited".into(), &3.into()));
    assert_eq!(first["Config"]["Env"][0], "A=1");
    assert_eq!(first["GraphDriver"]["Data"]["UpperDir"], one.upper_dir().to_str().unwrap());
    assert_eq!(inspect(&[], Inspecting::Known).unwrap(), "[]\n");
}

#[test]
fn a_dead_server_has_no_pid() {
    let (_dir, one) = container(&[], Purpose::Mount);
    let server = ProcessId { pid: 4, start_ticks: 5 };
    let state = State::Mounted { server, mountpoint: "/m".into(), started: one.config().created };
    for (held, pid, word) in [(true, 4, "mounted"), (false, 0, "exited")] {
        let value = inspected(&one, Status { state: state.clone(), held });
        let shown = &value[0]["State"];
        assert_eq!(
            (&shown["Pid"], &shown["Status"], &shown["Unclean"]),
            (&pid.into(), &word.into(), &(!held).into())
        );
        assert_eq!(value[0]["Path"], "");
    }
}

/// A container with wishes of its own.
fn wished() -> (tempfile::TempDir, Container) {
    let (dir, one) = container(&["x"], Purpose::Run);
    let mut image = one.config().image.clone();
    image.process.labels =
        [("a".to_owned(), "image".to_owned()), ("b".to_owned(), "image".to_owned())].into();
    image.process.cmd = vec!["serve".to_owned()];
    image.process.other = [("Tty".to_owned(), true.into()), ("ExposedPorts".to_owned(), Value::Null)].into();
    let mut mount = crate::launcher::Volume::new("/host".into(), "/data".into());
    mount.flags.read_only = true;
    let volume = UsedVolume { source: Source::Path, mount };
    let wishes = Wishes {
        labels: [("a".to_owned(), "user".to_owned())].into(),
        env: vec!["B=2".into(), "A=3".into()],
        user: Some("33".to_owned()),
        entrypoint: Some("/entry".to_owned()),
        volumes: vec![volume],
        read_only: true,
        restart: RestartPolicy::OnFailure(Some(3)),
        resources: Resources {
            memory: Some(1 << 20),
            memory_swap: Some(Limit::Unlimited),
            nano_cpus: Some(1_500_000_000),
            pids_limit: Some(Limit::Of(7)),
            ..Resources::default()
        },
        names: Names { hosts: vec![("db".to_owned(), HostAddress::Gateway)], ..Names::default() },
        ..Wishes::default()
    };
    let new = NewContainer {
        name: Some("wished".to_owned()),
        image,
        purpose: Purpose::Run,
        command: vec!["/entry".into()],
        owners: Owners::Image,
        changes: crate::container::Changes::Own,
        remove_at_end: false,
        run: Some(wishes),
    };
    let held = Containers::open(dir.path()).unwrap().create(new).unwrap();
    (dir, (*held).clone())
}

#[test]
fn the_users_wishes_win() {
    let (_dir, one) = wished();
    let value = &inspected(&one, Status { state: State::Created, held: false })[0];
    let config = &value["Config"];
    assert_eq!(config["Labels"], serde_json::json!({"a": "user", "b": "image"}));
    assert_eq!(config["Env"], serde_json::json!(["A=3", "B=2"]));
    assert_eq!((&config["User"], &config["Entrypoint"][0]), (&"33".into(), &"/entry".into()));
    assert_eq!((&config["Cmd"], &config["Tty"]), (&serde_json::json!([]), &false.into()));
    assert!(config.get("ExposedPorts").is_some());
    assert_eq!(config["Hostname"], one.id().short());
    assert_eq!(value["HostConfig"]["Binds"][0], "/host:/data:ro");
    assert_eq!(value["HostConfig"]["NetworkMode"], "none");
    let limits = serde_json::json!({
        "Memory": 1_048_576, "MemorySwap": -1, "NanoCpus": 1_500_000_000, "CpuQuota": 0, "PidsLimit": 7, "CpusetCpus": "",
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}, "ExtraHosts": ["db:host-gateway"], "Dns": [],
    });
    for (name, limit) in limits.as_object().unwrap() {
        assert_eq!(&value["HostConfig"][name], limit, "{name}");
    }
    assert_eq!(
        (&value["Mounts"][0]["Destination"], &value["Mounts"][0]["RW"]),
        (&"/data".into(), &false.into())
    );
    assert_eq!((&value["State"]["ExitCode"], &value["State"]["Status"]), (&0.into(), &"created".into()));
    assert_eq!(value["State"]["StartedAt"], "0001-01-01T00:00:00Z");
    assert!(value.get("SizeRw").is_none());
    let sized =
        Inspected { written: Some(17), ..looked_at(&one, Status { state: State::Created, held: false }) };
    let text = inspect(&[sized], Inspecting::Size).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()[0]["SizeRw"], 17);
}

#[test]
fn what_templates_see() {
    let (_dir, one) = wished();
    let now = Moment::from_seconds(one.config().created.seconds() + 61);
    let sized = Row { written: Some(2000), ..row(&one, Status { state: State::Created, held: false }) };
    let words = words(&sized, now, Width::Short);
    let template = r#"{{.ID}} {{.Names}} {{.Command}} {{.RunningFor}} {{.State}} {{.Size}} {{.Label "a"}} {{.Label "none"}} {{.Mounts}}"#;
    let said = Template::parse(template).unwrap().render(&words).unwrap();
    let id = one.id().short();
    assert_eq!(said, format!("{id} wished \"/entry\" About a minute ago created 2kB user  /data"));
    // Each word has a heading, and the other way round.
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&words), keys(&headings()));
}

#[test]
fn podmans_array() {
    let (_dir, one) = wished();
    let now = one.config().created;
    let exited = State::Exited { exit_code: 7, started: now, finished: now, oom_killed: false };
    let text = json_list(&[row(&one, Status { state: exited, held: false })], now).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let first = &value[0];
    assert_eq!((&first["Names"][0], &first["Labels"]["a"]), (&"wished".into(), &"user".into()));
    assert_eq!(
        (&first["ExitCode"], &first["State"], &first["Exited"]),
        (&7.into(), &"exited".into(), &true.into())
    );
    assert_eq!((&first["Created"], &first["Size"]), (&now.seconds().into(), &Value::Null));
}
