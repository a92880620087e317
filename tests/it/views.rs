//! Containers found, listed, described and chosen: filters, templates, labels.

use crate::support::*;

/// Containers that are removed with their test.
struct Some {
    place: Place,
}

impl Some {
    /// `one` runs, `two` has ended with 3, `three` was only made.
    #[track_caller]
    fn three() -> Self {
        let some = Self { place: Place::new() };
        some.make(
            &["run", "-d", "--name", "one", "--label", "who=a", "-l", "bare"],
            "echo x >/file; sleep 1000",
        );
        some.make(&["create", "--name", "two", "--label", "who=b"], "exit 3");
        assert_eq!(some.run(&["start", "-a", "two"]).code, 3);
        some.make(&["create", "--name", "three"], "sleep 1000");
        some
    }

    #[track_caller]
    fn make(&self, words: &[&str], script: &str) {
        let mut layerfs = self.place.command();
        let tar = image("tiny").join("docker-gzip.tar");
        finish(layerfs.args(words).arg(tar).args(["sh", "-c", script])).ok();
    }

    fn run(&self, words: &[&str]) -> Done {
        self.place.layerfs(words)
    }

    /// The names that `ps` gives, in its order.
    #[track_caller]
    fn names(&self, options: &[&str]) -> String {
        let done = self.run(&[&["ps", "--format", "{{.Names}}"], options].concat());
        done.ok().replace('\n', " ")
    }
}

impl Drop for Some {
    fn drop(&mut self) {
        self.run(&["rm", "-f", "-a"]);
    }
}

#[test]
fn which_ones_ps_lists() {
    needs_mount!();
    let some = Some::three();
    for (options, wanted) in [
        (&[][..], "one"),
        (&["-a"], "three two one"),
        (&["-a", "--sort", "created"], "one two three"),
        (&["-a", "--sort", "names"], "one three two"),
        (&["-l"], "three"),
        (&["-n", "2"], "three two"),
        (&["-f", "status=exited"], "two"),
        (&["-f", "status=created", "-f", "status=running"], "three one"),
        (&["-a", "-f", "name=^t"], "three two"),
        (&["-a", "-f", "label=who"], "two one"),
        (&["-a", "-f", "label=who=b"], "two"),
        (&["-a", "-f", "label!=who"], "three"),
        (&["-a", "-f", "exited=3"], "two"),
        (&["-a", "-f", "before=two"], "one"),
        (&["-a", "-f", "since=two"], "three"),
        (&["-f", "exited=3"], ""),
    ] {
        assert_eq!(some.names(options), wanted, "{options:?}");
    }
    let done = some.run(&["ps", "-f", "color=red"]);
    assert!(
        done.code == 125 && done.err.contains("invalid filter") && done.err.contains("ancestor"),
        "{done:#?}"
    );
    let done = some.run(&["ps", "--format", "{{.Nope}}"]);
    assert!(done.code == 125 && done.err.contains("map has no entry for key \"Nope\""), "{done:#?}");
}

#[test]
fn how_ps_shows_them() {
    needs_mount!();
    let some = Some::three();
    let done = some.run(&["ps", "-a", "--format", r"table {{.Names}}\t{{.State}}\t{{.Label `who`}}"]);
    assert_eq!(done.ok(), "NAMES   STATE     WHO\nthree   created\ntwo     exited    b\none     running   a");
    let json: serde_json::Value =
        serde_json::from_str(some.run(&["ps", "-a", "--format", "json"]).ok()).unwrap();
    assert_eq!((&json[1]["Names"][0], &json[1]["ExitCode"]), (&"two".into(), &3.into()));
    assert_eq!(json[2]["Labels"], serde_json::json!({"who": "a", "bare": ""}));
    assert!(json[2]["Pid"].as_u64().unwrap() > 1);
    // It has written two bytes, and directories are none.
    let size = || some.run(&["ps", "-s", "--noheading"]).ok().ends_with("   2B");
    assert!(eventually(size), "{}", some.run(&["ps", "-s"]).out);
    let size = some.run(&["inspect", "-s", "-f", "{{.SizeRw}} {{.Config.Labels.who}}", "one"]);
    assert_eq!(size.ok(), "2 a");
}

#[test]
fn what_inspect_picks_out() {
    needs_mount!();
    let some = Some::three();
    let said = |template: &str, name: &str| some.run(&["inspect", "-f", template, name]).ok().to_owned();
    assert_eq!(said("{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}", "two"), "exited 3 0");
    assert_eq!(said("{{if .State.Running}}yes{{end}} {{.HostConfig.NetworkMode}}", "one"), "yes none");
    assert_eq!(
        said("{{range .Config.Env}}{{println .}}{{end}}", "one").lines().next(),
        Some("PATH=/bin:/usr/bin")
    );
    assert_eq!(said("{{index .Config.Cmd 1}} {{json .Config.Labels}}", "three"), "-c {}");
    let tar = image("tiny").join("docker-gzip.tar");
    assert_eq!(said("{{.Os}}", tar.to_str().unwrap()), "linux");
    let done = some.run(&["inspect", "--type", "image", "one"]);
    assert_eq!(done.code, 125, "{done:#?}");
    let done = some.run(&["inspect", "--type", "container", tar.to_str().unwrap()]);
    assert!(done.code == 125 && done.err.contains("no such container"), "{done:#?}");
    let done = some.run(&["inspect", "-f", "{{.State", "one"]);
    assert!(done.code == 125 && done.err.contains("unclosed action"), "{done:#?}");
}

#[test]
fn all_the_latest_and_those_that_filters_find() {
    needs_mount!();
    let some = Some::three();
    let done = some.run(&["stop", "-i", "-t", "0", "nobody", "one"]);
    assert_eq!((done.ok(), some.names(&[])), ("one", String::new()));
    assert_eq!(some.run(&["start", "--all"]).ok().lines().count(), 3);
    assert_eq!(some.run(&["wait", "two"]).ok(), "3");
    assert_eq!(some.names(&["-f", "status=running"]), "three one");
    assert_eq!(some.run(&["kill", "--filter", "label=who"]).ok().lines().count(), 1);
    assert_eq!(some.run(&["wait", "one"]).ok(), "137");
    assert_eq!(some.run(&["stop", "-a", "-t", "0"]).ok().lines().count(), 1);
    assert_eq!(some.run(&["wait", "-l"]).ok(), "137");
    let done = some.run(&["rm", "nobody"]);
    assert!(done.code == 125 && done.err.contains("no such container"), "{done:#?}");
    assert_eq!(some.run(&["rm", "-v", "-i", "nobody"]).ok(), "");
    some.run(&["rm", "--filter", "label=who"]).ok();
    assert_eq!(some.names(&["-a"]), "three");
    let cidfile = some.place.path("cid");
    let id = some.run(&["ps", "-a", "-q", "--no-trunc"]).ok().to_owned();
    std::fs::write(&cidfile, &id).unwrap();
    assert_eq!(some.run(&["rm", "--cidfile", cidfile.to_str().unwrap()]).ok(), id);
    assert_eq!(some.run(&["ps", "-aq"]).ok(), "");
    some.run(&["rm", "-a"]).ok();
    let done = some.run(&["rm"]);
    assert!(done.code == 125 && done.err.contains("Usage"), "{done:#?}");
}
