//! Control groups of containers, as far as this host has any: limits that cannot be kept, pausing, what is left behind. What needs
//! controllers of version 2 is shown by `scripts/vm`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::*;

/// Containers, ended with their test.
struct Containers {
    place: Place,
}

impl Containers {
    fn new() -> Self {
        Self { place: Place::new() }
    }

    /// `layerfs COMMAND OPTIONS IMAGE sh -c SCRIPT`
    fn sh(&self, command: &[&str], script: &str) -> Done {
        let mut layerfs = self.place.command();
        let image = image("tiny").join("docker-gzip.tar");
        finish(layerfs.args(command).arg(image).args(["sh", "-c", script]))
    }

    fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Done {
        self.place.layerfs(words)
    }

    #[track_caller]
    fn refused(&self, words: &[&str], why: &str) {
        let done = self.run(words);
        assert_eq!(done.code, 125, "{words:?}: {done:#?}");
        assert!(done.err.contains(why), "{words:?}: {done:#?}");
    }

    #[track_caller]
    fn state(&self, name: &str) -> Value {
        let all: Value = serde_json::from_str(self.run(&["inspect", name]).ok()).unwrap();
        all[0]["State"].clone()
    }

    /// The control group that a container was given.
    fn group(&self, id: &str) -> Option<PathBuf> {
        let state = self.place.store().join("containers").join(id).join("state.json");
        let state: Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
        state["cgroup"].as_str().map(PathBuf::from)
    }

    /// Kills everything of this place at once.
    fn kill_all(&self) {
        let pids: Vec<String> = self.place.processes().iter().map(ToString::to_string).collect();
        let mut kill = std::process::Command::new("kill");
        finish(kill.arg("-9").args(pids));
        self.place.nothing_left();
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for id in self.place.containers() {
            self.run(&["rm", "-f", &id]);
        }
    }
}

/// Whether a controller is not there to limit anything with: it is one of version 1.
fn is_of_version_1(controller: &str) -> bool {
    let table = fs::read_to_string("/proc/self/cgroup").unwrap();
    table
        .lines()
        .any(|line| line.split(':').nth(1).unwrap_or_default().split(',').any(|one| one == controller))
}

/// A container's group, where it gets one; `skip` says why not.
macro_rules! needs_group {
    ($all:ident, $id:expr) => {
        match $all.group($id) {
            Some(group) => group,
            None if is_root() && Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() => {
                panic!("root gets a control group where there is version 2")
            }
            None => skip!("this user gets no control group of version 2 here"),
        }
    };
}

#[test]
fn a_limit_that_cannot_be_kept_is_an_error() {
    needs_mount!();
    if !is_of_version_1("memory") || !is_of_version_1("cpu") {
        skip!("here memory and processor time can be limited");
    }
    let all = Containers::new();
    let asked: [&[&str]; 9] = [
        &["-m", "64m"],
        &["--memory", "64m"],
        &["--memory-reservation", "64m"],
        &["--cpus", "0.5"],
        &["-c", "512"],
        &["--cpu-quota", "5000"],
        &["--cpu-period", "5000"],
        &["--cpuset-cpus", "0"],
        &["--blkio-weight", "100"],
    ];
    for option in asked {
        let done = all.sh(&[&["run", "--rm"], option].concat(), "echo ran");
        let long = match option[0] {
            "-m" => "--memory",
            "-c" => "--cpu-shares",
            long => long,
        };
        assert_eq!((done.code, done.out.as_str()), (125, ""), "{option:?}: {done:#?}");
        let said = done.err.lines().last().unwrap();
        assert!(said.contains(&format!("{long}: ")) && said.contains("leave the option out"), "{said}");
    }
    if is_of_version_1("pids") {
        let done = all.sh(&["run", "--rm", "--pids-limit", "5"], "echo ran");
        assert!(done.code == 125 && done.err.contains("--pids-limit: "), "{done:#?}");
    }
    // What nobody asked for is left out.
    assert_eq!(all.sh(&["run", "--rm"], "echo ran").ok(), "ran");
    all.place.nothing_left();
    assert!(all.place.containers().is_empty(), "--rm");
}

#[test]
fn what_makes_no_sense_is_said_before_anything_is_done() {
    let all = Containers::new();
    for (option, why) in [
        (["--memory", "5m"], "minimum memory limit allowed is 6MB"),
        (["--memory", "many"], "--memory: invalid size \"many\""),
        (["--cpus", "9999"], "--cpus: range of CPUs is from 0.01 to"),
        (["--cpuset-cpus", "x"], "--cpuset-cpus: invalid value"),
        (["--cgroups", "no-conmon"], "--cgroups: enabled and disabled are supported"),
        (["--cgroup-parent", "../x"], "--cgroup-parent"),
    ] {
        let done = all.sh(&[&["run"][..], &option].concat(), "true");
        assert_eq!(done.code, 125, "{option:?}: {done:#?}");
        assert!(done.err.contains(why), "{option:?}: {done:#?}");
    }
    let done = all.sh(&["run", "--oom-kill-disable"], "true");
    assert!(done.code == 125 && done.err.contains("--oom-kill-disable: control groups"), "{done:#?}");
    let done = all.sh(&["run", "--cgroups=disabled", "--pids-limit", "5"], "true");
    assert!(done.code == 125 && done.err.contains("--pids-limit: it needs a control group"), "{done:#?}");
}

const COUNTING: &str = "trap 'exit 9' TERM; echo ready; while :; do echo x; sleep 0.02; done";

#[test]
fn paused() {
    needs_mount!();
    let all = Containers::new();
    let id = all.sh(&["run", "-d", "--name", "box"], COUNTING).ok().to_owned();
    assert!(eventually(|| all.run(&["logs", "box"]).out.starts_with("ready\nx\n")));
    if all.group(&id).is_none() {
        all.refused(&["pause", "box"], "cannot be paused: it has no control group of version 2");
    }
    let group = needs_group!(all, &id);
    assert_eq!(all.run(&["pause", "box"]).ok(), "box");
    let printed = all.run(&["logs", "box"]).out;
    let ps = all.run(&["ps"]);
    assert!(ps.ok().contains("(Paused)"), "{ps:#?}");
    let state = all.state("box");
    assert_eq!((&state["Status"], &state["Paused"]), (&"paused".into(), &true.into()), "{state:#}");
    // Who serves its files is not held: it answers.
    assert!(all.run(&["stats", "--mount", "box"]).ok().contains("lookup"));
    all.refused(&["exec", "box", "true"], "is paused");
    all.refused(&["pause", "box"], "is paused");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(all.run(&["logs", "box"]).out, printed, "nothing runs");
    assert_eq!(all.run(&["unpause", "--all"]).ok(), id);
    all.refused(&["unpause", "box"], "is not paused");
    assert!(eventually(|| all.run(&["logs", "box"]).out.len() > printed.len()));
    assert_eq!(all.run(&["exec", "box", "echo", "in"]).ok(), "in");
    assert_eq!(all.state("box")["Status"], "running");

    // Ending one that is paused.
    assert_eq!(all.run(&["pause", "--all"]).ok(), id);
    all.run(&["stop", "box"]).ok();
    assert_eq!(all.state("box")["ExitCode"], 9, "it took its stop signal");
    all.refused(&["pause", "box"], "not running");
    for (starts, how, code) in [(2, &["kill", "box"][..], 137), (3, &["kill", "-s", "TERM", "box"], 9)] {
        all.run(&["start", "box"]).ok();
        assert!(eventually(|| all.run(&["logs", "box"]).out.matches("ready").count() == starts));
        all.run(&["pause", "box"]).ok();
        all.run(how).ok();
        assert!(eventually(|| all.state("box")["Status"] == "exited"), "{how:?}");
        assert_eq!(all.state("box")["ExitCode"], code, "{how:?}");
        assert_eq!(all.state("box")["OOMKilled"], false);
    }
    all.run(&["start", "box"]).ok();
    all.run(&["pause", "box"]).ok();
    all.run(&["rm", "-f", "box"]).ok();
    all.place.nothing_left();
    assert!(!group.exists());
}

#[test]
fn no_group_is_left() {
    needs_mount!();
    let all = Containers::new();
    let id = all.sh(&["run", "-d", "--name", "box"], "sleep 1000").ok().to_owned();
    let group = needs_group!(all, &id);
    let processes = || fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines().count();
    assert_eq!(processes(), 1, "who serves its files is outside");
    all.run(&["exec", "-d", "box", "sleep", "1001"]).ok();
    assert_eq!(processes(), 2);
    all.run(&["stop", "-t", "0", "box"]).ok();
    assert!(!group.exists());

    // Killed with all who would have removed it: who comes next does.
    all.run(&["start", "box"]).ok();
    assert!(group.exists());
    all.kill_all();
    assert!(group.exists());
    assert_eq!(all.sh(&["run", "--rm"], "echo next").ok(), "next");
    assert!(!group.exists());
    for next in [&["rm", "box"][..], &["start", "box"], &["rm", "-f", "box"]] {
        if all.run(&["inspect", "box"]).code != 0 {
            all.sh(&["create", "--name", "box"], "sleep 1000").ok();
        }
        all.run(&["start", "box"]).ok();
        let id = all.state("box")["Pid"].as_u64().unwrap();
        let group = all.group(&all.place.containers()[0]).unwrap();
        assert!(group.exists() && id > 0);
        all.kill_all();
        all.run(next).ok();
        assert_eq!(group.exists(), next[0] == "start", "{next:?}");
    }
    // One that never ran.
    let done = all.sh(&["run", "--rm", "-w", "/proc/self/fd/3"], "true");
    assert_eq!(done.code, 125, "{done:#?}");
    let parent = group.parent().unwrap();
    let ours: Vec<String> = all.place.containers();
    let left = fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|name| ours.iter().any(|id| name.ends_with(id.as_str()))));
}

#[test]
fn a_parent_of_ones_own() {
    needs_mount!();
    let all = Containers::new();
    let parent = format!("layerfs-it-{}", std::process::id());
    let path = format!("/{parent}/inner");
    if !is_root() || Path::new("/run/systemd/system").exists() {
        all.refused(&["create", "--cgroup-parent", &path], "IMAGE");
        skip!("only root of a system without systemd may name one");
    }
    let made = all.sh(&["run", "-d", "--name", "box", "--cgroup-parent", &path], "sleep 1000");
    if made.code == 125 && made.err.contains("no control groups of version 2") {
        skip!("no version 2");
    }
    let group = all.group(made.ok()).unwrap();
    assert!(group.parent().unwrap().ends_with(&path[1..]), "{}", group.display());
    all.run(&["rm", "-f", "box"]).ok();
    assert!(!group.ancestors().nth(2).unwrap().exists(), "what was made for it is gone");
    // Without one nothing is made.
    let id = all.sh(&["run", "-d", "--name", "box", "--cgroups=disabled"], "sleep 1000").ok().to_owned();
    assert_eq!(all.group(&id), None);
    all.refused(&["pause", "box"], "cannot be paused");
}

#[test]
fn what_containers_take() {
    needs_mount!();
    let all = Containers::new();
    let id = all.sh(&["run", "-d", "--name", "busy"], "while :; do :; done").ok().to_owned();
    all.sh(&["run", "-d", "--name", "idle", "--network", "host", "--cgroups", "disabled"], "sleep 1000").ok();
    all.sh(&["create", "--name", "made"], "true").ok();
    let table = all.run(&["stats", "--no-stream"]);
    let lines: Vec<Vec<&str>> = table
        .ok()
        .lines()
        .map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let headings =
        ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    assert_eq!(lines[0], headings);
    assert_eq!(lines.len(), 3, "only those that run: {table:#?}");
    let line = |name: &str| lines.iter().find(|line| line[1] == name).unwrap();
    let (busy, idle) = (line("busy"), line("idle"));
    assert_eq!(busy[0], &id[..12]);
    let share = |line: &[&str]| line[2].strip_suffix('%').unwrap().parse::<f64>().unwrap();
    assert!(share(busy) > 1.0 && share(busy) > share(idle), "{table:#?}");
    assert!(busy[3].contains("iB / ") && busy[4].ends_with('%'), "{table:#?}");
    assert_eq!((busy[5], idle[5], busy[7]), ("0B / 0B", "-- / --", "1"));
    let json = all.run(&["stats", "--no-stream", "--format", "json", "busy"]);
    let json: Value = serde_json::from_str(json.ok()).unwrap();
    assert_eq!((&json["Name"], &json["PIDs"], &json["ID"]), (&"busy".into(), &"1".into(), &id[..12].into()));
    let some =
        all.run(&["stats", "--no-stream", "--no-trunc", "--format", "{{.Name}} {{.ID}}", "made", "busy"]);
    assert_eq!(some.ok().lines().nth(1).unwrap(), format!("busy {id}"));
    assert_eq!(some.ok().lines().count(), 2);
    let every = all.run(&["stats", "-a", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}"]);
    assert!(every.ok().contains("made --\n"), "{every:#?}");
    all.refused(&["stats", "--no-stream", "--format", "{{.Nothing}}"], "at <.Nothing>: map has no entry");
    all.refused(&["stats", "--no-stream", "busy", "nobody"], "no such container: nobody");
    // It goes on until nobody reads it.
    let mut pipe = all.place.command();
    pipe.args(["stats", "--format", "{{.Name}}", "busy"]);
    let program = layerfs_path();
    let done = shell(
        "LAYERFS_ROOT=$2 \"$1\" stats --format '{{.Name}}' busy | head -n 3",
        &[Path::new(&program), &all.place.store()],
    );
    assert_eq!(done.ok(), "busy\nbusy\nbusy");
}
