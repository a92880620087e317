//! What containers have changed, their processes, their names, and their end together.

use std::fs;

use crate::support::*;

fn tiny() -> std::path::PathBuf {
    image("tiny").join("docker-gzip.tar")
}

/// What is done, and what it has to be told as.
const CHANGES: &str = "chmod 600 /etc/group; rm /etc/passwd; mkdir -p /x/y; echo >/x/y/z; ln /etc/shadow /etc/second; \
    rm -r /hard/many; mkdir /hard/many; echo >/hard/many/new; mv /root /moved 2>/dev/null; touch /tmp/t; rm /tmp/t";

fn expected(told: &str) {
    let lines: Vec<&str> = told.lines().collect();
    for line in [
        "C /etc",
        "C /etc/group",
        "D /etc/passwd",
        "A /etc/second",
        "A /x",
        "A /x/y",
        "A /x/y/z",
        "C /tmp",
        "C /etc/shadow",
        "C /hard",
    ] {
        assert!(lines.contains(&line), "{line}: {told}");
    }
    for absent in ["/etc/hosts", "/dev", "/proc", "/sys", "/bin", "/etc/hostname"] {
        assert!(!lines.iter().any(|line| line.get(2..) == Some(absent)), "{absent}: {told}");
    }
    assert!(lines.contains(&"A /hard/many/new"), "{told}");
}

#[test]
fn the_same_while_it_runs_and_after() {
    needs_mount!();
    let place = Place::new();
    let script =
        format!("{CHANGES}; trap 'exit 0' TERM; echo ready >/tmp/ready; while :; do sleep 0.1; done");
    let mut run = place.command();
    finish(run.args(["run", "-d", "--name", "one"]).arg(tiny()).args(["sh", "-c", &script])).ok();
    place.layerfs(&["exec", "one", "sh", "-c", "while ! [ -e /tmp/ready ]; do sleep 0.1; done"]).ok();
    let running = place.layerfs(&["diff", "one"]).ok().to_owned();
    expected(&running);
    place.layerfs(&["stop", "one"]).ok();
    let stopped = place.layerfs(&["diff", "one"]).ok().to_owned();
    let only = |told: &str, other: &str| -> Vec<String> {
        told.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::to_owned).collect()
    };
    let none = Vec::<String>::new();
    assert_eq!((only(&running, &stopped), only(&stopped, &running)), (none.clone(), none));
    let json: serde_json::Value =
        serde_json::from_str(place.layerfs(&["diff", "--format", "json", "one"]).ok()).unwrap();
    assert!(json["deleted"].as_array().unwrap().contains(&"/etc/passwd".into()), "{json}");
    let fresh = place.command().args(["create", "--name", "two"]).arg(tiny()).arg("sh").output().unwrap();
    assert!(fresh.status.success());
    assert_eq!(place.layerfs(&["diff", "two"]).ok(), "");
}

#[test]
fn processes_as_the_container_numbers_them() {
    needs_mount!();
    let place = Place::new();
    let mut run = place.command();
    let script = "sleep 1000 & trap 'exit 0' TERM; while :; do sleep 0.1; done";
    finish(run.args(["run", "-d", "--name", "one"]).arg(tiny()).args(["sh", "-c", script])).ok();
    // Until it has become what it is to be.
    let wait = "until grep -q 1000 /proc/2/cmdline && ! grep -q trap /proc/2/cmdline; do sleep 0.1; done";
    place.layerfs(&["exec", "one", "sh", "-c", wait]).ok();
    let table = place.layerfs(&["top", "one"]).ok().to_owned();
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let heading = ["USER", "PID", "PPID", "%CPU", "ELAPSED", "TTY", "TIME", "COMMAND"];
    assert_eq!(cells(table.lines().next().unwrap()), heading);
    let first = cells(table.lines().nth(1).unwrap());
    assert_eq!((&*first[0], &*first[1], &*first[2]), ("root", "1", "0"), "{table}");
    let sleeper = table.lines().find(|line| line.ends_with("sleep 1000")).unwrap();
    assert_eq!(cells(sleeper)[2], "1", "{table}");
    let some = place.layerfs(&["top", "one", "pid,comm", "huser"]).ok().to_owned();
    assert_eq!(cells(some.lines().next().unwrap()), ["PID", "COMMAND", "HUSER"]);
    assert!(place.layerfs(&["top", "one", "nonsense"]).err.contains("ppid"));
    place.layerfs(&["stop", "one"]).ok();
    assert!(place.layerfs(&["top", "one"]).err.contains("not running"));
}

#[test]
fn another_name_while_it_runs() {
    needs_mount!();
    let place = Place::new();
    let mut run = place.command();
    let script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    finish(run.args(["run", "-d", "--rm", "--name", "one"]).arg(tiny()).args(["sh", "-c", script])).ok();
    place.layerfs(&["rename", "one", "two"]).ok();
    assert_eq!(place.layerfs(&["exec", "two", "echo", "here"]).ok(), "here");
    assert!(place.layerfs(&["exec", "one", "true"]).err.contains("no such container"));
    assert!(place.layerfs(&["rename", "two", "two"]).err.contains("that it has"));
    assert!(place.layerfs(&["rename", "two", "a/b"]).err.contains("not a container name"));
    let mut other = place.command();
    finish(other.args(["create", "--name", "one"]).arg(tiny()).arg("sh")).ok();
    assert!(place.layerfs(&["rename", "two", "one"]).err.contains("in use"));
    place.layerfs(&["stop", "two"]).ok();
    // It took its new name with it.
    place.layerfs(&["rename", "one", "two"]).ok();
    assert_eq!(fs::read_dir(place.store().join("names")).map_or(2, Iterator::count), 2);
}

#[test]
fn only_what_nobody_uses_goes() {
    needs_mount!();
    let place = Place::new();
    let make = |words: &[&str], script: &str| {
        let mut layerfs = place.command();
        finish(layerfs.args(words).arg(tiny()).args(["sh", "-c", script])).ok();
    };
    make(&["run", "-d", "--name", "live"], "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    make(&["run", "--name", "done"], "echo text >/file");
    make(&["create", "--name", "fresh"], "true");
    let kept = place.layerfs(&["prune", "--containers", "-f", "--filter", "until=1h"]);
    assert_eq!(kept.ok(), "Total reclaimed space: 0B");
    let said = place.layerfs(&["prune", "--containers", "-f"]).ok().to_owned();
    assert!(said.starts_with("Deleted Containers:\n") && said.contains("kB"), "{said}");
    let left = place.layerfs(&["ps", "-a"]).ok().to_owned();
    assert!(left.contains("live") && !left.contains("done") && !left.contains("fresh"), "{left}");
    place.layerfs(&["rm", "-f", "live"]).ok();
}
