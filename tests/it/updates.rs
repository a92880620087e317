//! What is changed of containers after they were made; waiting for, showing and removing several; docker's names of commands.

use crate::support::*;

/// Containers that end with their test.
struct Some {
    place: Place,
}

impl Some {
    fn new() -> Self {
        Self { place: Place::new() }
    }

    fn run(&self, options: &[&str], script: &str) -> Done {
        let mut layerfs = self.place.command();
        layerfs.args(["run", "-d", "-q"]).args(options).arg(image("tiny").join("docker-gzip.tar"));
        finish(layerfs.args(["sh", "-c", script]))
    }

    fn layerfs(&self, words: &[&str]) -> Done {
        self.place.layerfs(words)
    }
}

impl Drop for Some {
    fn drop(&mut self) {
        for id in self.place.containers() {
            self.layerfs(&["rm", "-f", &id]);
        }
    }
}

#[test]
fn a_policy_counts_from_then_on() {
    needs_mount!();
    let all = Some::new();
    let id = all.run(&["--name", "one"], "echo run; while ! test -e /end; do sleep 0.1; done; rm /end").out;
    assert_eq!(all.layerfs(&["update", "--restart", "always", "one"]).out, id);
    all.layerfs(&["exec", "one", "touch", "/end"]).ok();
    assert!(eventually(|| all.layerfs(&["logs", "one"]).out == "run\nrun\n"), "it runs again");
    all.layerfs(&["update", "--restart", "no", "one"]).ok();
    all.layerfs(&["exec", "one", "touch", "/end"]).ok();
    assert_eq!(all.layerfs(&["wait", "one"]).ok(), "0");
    // Of one at rest, too; and limits stay for the next start.
    all.layerfs(&["update", "--memory", "64m", "--pids-limit", "9", "one"]).ok();
    let done = all.layerfs(&["update", "--memory", "256m", "--memory-swap", "1m", "one"]);
    assert!(done.code == 125 && done.err.contains("larger than memory"), "{done:#?}");
    let done = all.layerfs(&["update", "--restart", "sometimes", "one"]);
    assert!(done.code == 125 && done.err.contains("sometimes"), "{done:#?}");
    all.run(&["--name", "two", "--rm"], "sleep 1000").ok();
    let done = all.layerfs(&["update", "--restart", "always", "two"]);
    assert!(done.code == 125 && done.err.contains("--rm"), "{done:#?}");
}

#[test]
fn a_limit_that_cannot_be_set_changes_nothing() {
    needs_mount!();
    let all = Some::new();
    all.run(&["--name", "one", "--cgroups", "disabled"], "sleep 1000").ok();
    let done = all.layerfs(&["update", "--memory", "64m", "one"]);
    assert!(done.code == 125 && done.err.contains("control group"), "{done:#?}");
    // It was not written down either: the next start would be refused.
    all.layerfs(&["stop", "-t", "0", "one"]).ok();
    all.layerfs(&["start", "one"]).ok();
}

/// What two change at the same time, both have changed.
#[test]
fn many_change_it_at_once() {
    needs_mount!();
    let all = Some::new();
    all.layerfs(&["create", "-q", "--name", "one", image("tiny").join("docker-gzip.tar").to_str().unwrap()])
        .ok();
    let changes = [["--memory", "64m"], ["--cpus", "1"], ["--pids-limit", "9"], ["--restart", "always"]];
    for _ in 0..5 {
        all.layerfs(&[
            "update",
            "--memory",
            "1g",
            "--cpus",
            "2",
            "--pids-limit",
            "8",
            "--restart",
            "no",
            "one",
        ])
        .ok();
        std::thread::scope(|scope| {
            for [option, value] in changes {
                let all = &all;
                scope.spawn(move || all.layerfs(&["update", option, value, "one"]).ok().to_owned());
            }
        });
        let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}";
        assert_eq!(all.layerfs(&["inspect", "--format", format, "one"]).ok(), "67108864 1000000000 9 always");
    }
}

#[test]
fn what_is_waited_for() {
    needs_mount!();
    let all = Some::new();
    let check = ["--health-cmd", "test -e /well", "--health-interval", "100ms", "--name", "one"];
    all.run(&check, "sleep 0.5; touch /well; sleep 1000").ok();
    assert_eq!(all.layerfs(&["wait", "--condition", "running", "one"]).ok(), "-1");
    assert_eq!(all.layerfs(&["wait", "--condition", "healthy", "-i", "10ms", "one"]).ok(), "-1");
    assert_eq!(all.layerfs(&["exec", "one", "ls", "/well"]).ok(), "/well");
    all.run(&["--name", "two"], "sleep 0.5; exit 3").ok();
    assert_eq!(all.layerfs(&["wait", "--condition", "stopped", "--condition", "paused", "two"]).ok(), "3");
    assert_eq!(all.layerfs(&["wait", "two", "two"]).ok(), "3\n3");
    assert_eq!(all.layerfs(&["wait", "--condition", "exited", "nosuch"]).code, 125);
}

#[test]
fn several_logs() {
    needs_mount!();
    let all = Some::new();
    all.run(&["--name", "one"], "echo a; echo b").ok();
    all.run(&["--name", "two"], "sleep 0.3; echo c").ok();
    let mut lines: Vec<String> =
        all.layerfs(&["logs", "-f", "-n", "one", "two"]).ok().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["one a", "one b", "two c"]);
    assert_eq!(all.layerfs(&["logs", "--tail", "1", "two", "one"]).ok(), "c\nb");
}

#[test]
fn dockers_names_and_labels() {
    needs_mount!();
    let all = Some::new();
    all.run(&["--name", "one", "-l", "a=b"], ":").ok();
    all.run(&["--name", "two", "-l", "a=c"], ":").ok();
    assert_eq!(all.layerfs(&["container", "wait", "one", "two"]).ok(), "0\n0");
    let names = |filter: &str| {
        let ls = ["container", "ls", "-a", "--format", "{{.Names}}", "--filter", filter];
        all.layerfs(&ls).ok().to_owned()
    };
    assert_eq!(names("label=a"), "two\none");
    assert_eq!(all.layerfs(&["container", "inspect", "-f", "{{.Name}}", "one"]).ok(), "one");
    all.layerfs(&["container", "prune", "-f", "--filter", "label!=a=b"]).ok();
    assert_eq!(names("label=a"), "one");
    all.layerfs(&["prune", "--containers", "-f", "--filter", "label=a=b", "--filter", "until=1h"]).ok();
    assert_eq!(names("label=a"), "one", "it is too young");
    let done = all.layerfs(&["container", "prune", "-f", "--filter", "name=one"]);
    assert!(done.code == 125 && done.err.contains("name=one"), "{done:#?}");
    let tiny = image("tiny").join("docker-gzip.tar");
    all.layerfs(&["container", "run", "--rm", "-q", tiny.to_str().unwrap(), "true"]).ok();
    all.layerfs(&["container", "rm", "one"]).ok();
    assert_eq!(names("label=a"), "");
}
