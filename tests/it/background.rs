//! Containers that are started in the background: their life, and what they print.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::*;

/// Containers in the background, ended with their test.
struct Background {
    place: Place,
}

impl Background {
    fn new() -> Self {
        Self { place: Place::new() }
    }

    fn tiny() -> PathBuf {
        image("tiny").join("docker-gzip.tar")
    }

    /// `layerfs COMMAND OPTIONS IMAGE sh -c SCRIPT`
    fn sh(&self, command: &[&str], script: &str) -> Done {
        let mut layerfs = self.place.command();
        finish(layerfs.args(command).arg(Self::tiny()).args(["sh", "-c", script]))
    }

    fn run(&self, words: &[&str]) -> Done {
        self.place.layerfs(words)
    }

    /// A script of bash, with program, store and image as `$1` to `$3`.
    fn script(&self, script: &str) -> Done {
        let (program, store, image) = (layerfs_path(), self.place.store(), Self::tiny());
        shell(script, &[Path::new(&program), &store, &image])
    }

    /// What `logs` prints to standard output, once that is what is awaited.
    #[track_caller]
    fn logs(&self, name: &str, awaited: &str) -> Done {
        let mut last = None;
        let found = eventually(|| last.insert(self.run(&["logs", name])).out == awaited);
        let last = last.unwrap();
        assert!(found, "awaited {awaited:?}, {last:#?}");
        last
    }

    #[track_caller]
    fn status(&self, name: &str, awaited: &str) {
        let mut last = String::new();
        let line = |text: &str| text.lines().find(|line| line.ends_with(name)).unwrap_or_default().to_owned();
        let found = eventually(|| {
            last = line(self.run(&["ps", "-a"]).ok());
            last.contains(awaited)
        });
        assert!(found, "awaited {awaited:?}: {last}");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        for id in self.place.containers() {
            self.run(&["rm", "-f", &id]);
        }
    }
}

const POLITE: &str = "trap 'exit 33' TERM; echo ready; echo warned >&2; while :; do sleep 0.1; done";

#[test]
fn a_life() {
    needs_mount!();
    let all = Background::new();
    let id = all.sh(&["run", "-d", "--name", "one"], &format!("echo x >>/kept; {POLITE}"));
    let id = id.ok();
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let logs = all.logs("one", "ready\n");
    assert_eq!(logs.err, "warned\n", "what went to standard error is shown there");
    all.status("one", "Up ");
    assert_eq!(all.run(&["start", "one"]).ok(), "one", "it runs already");
    assert_eq!(all.run(&["stop", &id[..12]]).ok(), &id[..12]);
    assert_eq!(all.run(&["wait", "one"]).ok(), "33");
    all.status("one", "Exited (33)");
    // Again: with what it had changed, and its log goes on.
    assert_eq!(all.run(&["start", "one"]).ok(), "one");
    all.logs("one", "ready\nready\n");
    assert_eq!(all.run(&["restart", "-t", "5", "one"]).ok(), "one");
    all.logs("one", "ready\nready\nready\n");
    let upper = all.place.store().join("containers").join(id).join("upper/kept");
    let kept = fs::read_to_string(upper);
    // Of a user with ranges it may be another's file.
    assert!(kept.is_err() || kept.unwrap() == "x\nx\nx\n");
    let done = all.run(&["rm", "one"]);
    assert!(done.code == 125 && done.err.contains("layerfs stop"), "{done:#?}");
    all.run(&["rm", "-f", "one"]).ok();
    all.place.nothing_left();
    assert!(all.place.containers().is_empty());
}

#[test]
fn what_goes_by_itself_is_removed_by_force() {
    needs_mount!();
    let all = Background::new();
    all.sh(&["run", "-d", "--rm", "--name", "one"], POLITE).ok();
    all.logs("one", "ready\n");
    assert_eq!(all.run(&["rm", "-f", "one"]).ok().len(), 64);
    assert!(all.place.containers().is_empty());
}

#[test]
fn made_and_started() {
    needs_mount!();
    let all = Background::new();
    let cidfile = all.place.path("cid");
    let cid = cidfile.to_str().unwrap();
    let id = all.sh(&["create", "--name", "made", "--cidfile", cid, "-e", "A=b c"], "echo $A; exit 4");
    assert_eq!(fs::read_to_string(&cidfile).unwrap(), id.ok());
    all.status("made", "Created");
    assert_eq!((all.run(&["logs", "made"]).ok(), all.run(&["wait", "made"]).ok()), ("", "0"));
    let done = all.run(&["start", "-a", "made"]);
    assert_eq!((done.code, done.out.as_str()), (4, "b c\n"), "{done:#?}");
    all.status("made", "Exited (4)");
    // What it printed went where it was started.
    let done = all.run(&["logs", "made"]);
    assert!(done.code == 125 && done.err.contains("printed where it was started"), "{done:#?}");
    all.run(&["start", "made"]).ok();
    assert_eq!(all.run(&["wait", "made"]).ok(), "4");
    assert_eq!(all.run(&["logs", "made"]).ok(), "b c");
    let done = all.sh(&["create", "--cidfile", cid], "true");
    assert!(done.code == 125 && done.err.contains("--cidfile"), "{done:#?}");
    assert_eq!(fs::read_to_string(&cidfile).unwrap(), id.ok(), "another's is not touched");
    let unmade = all.place.path("unmade");
    let done = all.run(&["create", "--cidfile", unmade.to_str().unwrap(), "oci:/surely/not/there"]);
    assert!(done.code == 125 && !unmade.exists(), "{done:#?}");
    let mounted = all.place.mount(&[], Background::tiny());
    let id = mounted.id.clone();
    let done = all.run(&["start", &id]);
    assert!(done.code == 125, "{done:#?}");
    mounted.unmount();
    let done = all.run(&["start", &id]);
    assert!(done.code == 125 && done.err.contains("--container"), "{done:#?}");
}

#[test]
fn what_does_not_start_says_so_at_once() {
    needs_mount!();
    let all = Background::new();
    for (options, program, code) in
        [(&["--rm"][..], "nosuch", 127), (&["--rm"], "/etc", 126), (&["--name", "stays"], "nosuch", 127)]
    {
        let mut command = all.place.command();
        command.args(["run", "-d"]).args(options).arg(Background::tiny()).arg(program);
        let done = finish(&mut command);
        assert_eq!((done.code, done.out.as_str()), (code, ""), "{done:#?}");
        assert!(done.err.contains(program), "{done:#?}");
    }
    all.place.nothing_left();
    all.status("stays", "Exited (127)");
    assert_eq!(all.place.containers().len(), 1);
}

#[test]
fn waiting_for_what_removes_itself() {
    needs_mount!();
    let all = Background::new();
    for (script, code) in [("sleep 0.3; exit 5", "5"), ("sleep 0.2; false", "1")] {
        let id = all.sh(&["run", "-d", "--rm"], script);
        assert_eq!(all.run(&["wait", id.ok()]).ok(), code);
        all.place.nothing_left();
        assert!(eventually(|| all.place.containers().is_empty()), "{:?}", all.place.containers());
        let done = all.run(&["wait", id.ok()]);
        assert!(done.code == 125 && done.err.contains("no such container"), "{done:#?}");
    }
}

#[test]
fn parts_of_a_log() {
    needs_mount!();
    let all = Background::new();
    let script = "for i in 1 2 3 4 5; do echo line $i; done; printf 'no end'; sleep 0.2; echo ' yet'; sleep 1; echo late";
    all.sh(&["run", "-d", "--name", "one"], script).ok();
    // Followed from its beginning to the container's end.
    let followed = all.run(&["logs", "-f", "one"]);
    let whole = "line 1\nline 2\nline 3\nline 4\nline 5\nno end yet\nlate";
    assert_eq!(followed.ok(), whole);
    let tail = |lines: &str| all.run(&["logs", "--tail", lines, "one"]).ok().to_owned();
    assert_eq!([tail("1"), tail("2")], ["late", "no end yet\nlate"]);
    assert_eq!([tail("0"), tail("all"), tail("100")], ["", whole, whole]);
    let stamped = all.run(&["logs", "-t", "one"]);
    for line in stamped.ok().lines() {
        let (time, text) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.len() == 30 && whole.lines().any(|one| one == text), "{line}");
    }
    let (time, _) = stamped.ok().lines().last().unwrap().split_once(' ').unwrap();
    assert_eq!(all.run(&["logs", "--since", time, "one"]).ok(), "late");
    assert_eq!(all.run(&["logs", "--until", time, "--tail", "1", "one"]).ok(), "late");
    assert_eq!(all.run(&["logs", "--since", "1h", "one"]).ok(), whole);
    assert_eq!(all.run(&["logs", "--until", "1h", "one"]).ok(), "");
    for wrong in [&["--since", "yesterday"][..], &["--tail", "x"]] {
        let done = all.run(&[&["logs"], wrong, &["one"]].concat());
        assert!(done.code == 125 && done.err.contains(wrong[1]), "{done:#?}");
    }
    // A reader that goes away is no failure.
    let script = r#"LAYERFS_ROOT=$2 "$1" logs one | head -1"#;
    let done =
        shell(&format!("set -o pipefail; {script}"), &[Path::new(&layerfs_path()), &all.place.store()]);
    assert_eq!(done.ok(), "line 1");
}

#[test]
fn a_log_that_is_full_begins_anew() {
    needs_mount!();
    let all = Background::new();
    let script = "i=0; while [ $i -lt 200 ]; do echo number $i; i=$((i+1)); done";
    let limits = ["--log-opt", "max-size=1k", "--log-opt", "max-file=2"];
    let id = all.sh(&[&["run", "-d", "--name", "one"], &limits[..]].concat(), script);
    assert_eq!(all.run(&["wait", "one"]).ok(), "0");
    let kept = all.run(&["logs", "one"]);
    let numbers: Vec<u32> =
        kept.ok().lines().map(|line| line.strip_prefix("number ").unwrap().parse().unwrap()).collect();
    // Two files, and no gap.
    let expected: Vec<u32> = (200 - u32::try_from(numbers.len()).unwrap()..200).collect();
    assert_eq!(numbers, expected);
    assert!(numbers.len() < 200);
    let dir = all.place.store().join("containers").join(id.ok());
    let sizes = ["log", "log.1"].map(|name| fs::metadata(dir.join(name)).unwrap().len());
    assert!(sizes.iter().all(|bytes| *bytes <= 1024) && !dir.join("log.2").exists(), "{sizes:?}");
}

#[test]
fn input_and_terminal() {
    needs_mount!();
    let all = Background::new();
    all.sh(&["run", "-d", "--name", "closed"], "cat; echo end").ok();
    all.logs("closed", "end\n");
    // Nobody writes, but it stays open.
    all.sh(&["run", "-d", "-i", "--name", "open"], "echo reads; cat; echo end").ok();
    all.logs("open", "reads\n");
    all.status("open", "Up ");
    all.sh(&["run", "-d", "-t", "--name", "terminal"], "test -t 0 && test -t 1 && test -t 2 && echo yes")
        .ok();
    all.logs("terminal", "yes\r\n");
    all.sh(&["run", "-d", "-i", "-t", "--name", "both"], "echo reads; cat; echo end").ok();
    all.logs("both", "reads\r\n");
    all.status("both", "Up ");
    // Its own, and nothing of ours.
    let script = "ls -l /proc/self/fd | grep -c /; readlink /proc/1/fd/1 | cut -d: -f1";
    all.sh(&["run", "-d", "--name", "descriptors"], script).ok();
    assert_eq!(all.run(&["wait", "descriptors"]).ok(), "0");
    assert!(all.run(&["logs", "descriptors"]).ok().ends_with("pipe"));
}

#[test]
fn outlives_who_started_it() {
    needs_mount!();
    let all = Background::new();
    // A session of its own, killed as a whole, as a terminal that is closed.
    let script =
        r#"LAYERFS_ROOT=$2 "$1" run -d --name one "$3" sh -c "$4" </dev/null; kill -KILL 0; sleep 9"#;
    let mut command = Command::new("setsid");
    command.args(["-w", "bash", "-c", script, "bash"]).arg(layerfs_path()).arg(all.place.store());
    command.arg(Background::tiny()).arg(POLITE).stdout(Stdio::null());
    assert!(!command.status().unwrap().success());
    all.logs("one", "ready\n");
    all.status("one", "Up ");
    // By SIGKILL of whoever holds it: nothing stays, and it can be started again.
    let inspected = all.run(&["inspect", "one"]);
    let value: serde_json::Value = serde_json::from_str(inspected.ok()).unwrap();
    let program = value[0]["State"]["Pid"].to_string();
    let script = r#"up() { cut -d' ' -f4 "/proc/$1/stat"; }; kill -KILL "$(up "$(up "$1")")""#;
    shell(script, &[Path::new(&program)]).ok();
    all.place.nothing_left();
    all.status("one", "Exited (unclean)");
    assert_eq!(all.run(&["wait", "one"]).ok(), "137");
    all.run(&["start", "one"]).ok();
    all.logs("one", "ready\nready\n");
}

#[test]
fn what_removes_itself_is_started_once() {
    needs_mount!();
    let all = Background::new();
    all.sh(&["create", "--rm", "--name", "later"], "sleep 0.2; exit 6").ok();
    // This looks for what others left behind.
    all.sh(&["run", "--rm"], "true").ok();
    all.run(&["start", "later"]).ok();
    assert_eq!(all.run(&["wait", "later"]).ok(), "6");
    assert!(eventually(|| all.place.containers().is_empty()));
    all.sh(&["run", "-d", "--rm", "--name", "now"], POLITE).ok();
    let done = all.run(&["restart", "now"]);
    assert!(done.code == 125 && done.err.contains("--rm"), "{done:#?}");
    all.status("now", "Up ");
    // Who waits learns how it ended, though nothing of it is left.
    all.sh(&["run", "-d", "--name", "removed"], POLITE).ok();
    all.logs("removed", "ready\n");
    let script = r#"export LAYERFS_ROOT=$2; "$1" wait removed & sleep 0.2; "$1" rm -f removed >&2; wait"#;
    assert_eq!(all.script(script).ok(), "33");
}

#[test]
fn nothing_of_the_callers_stays_open() {
    needs_mount!();
    let all = Background::new();
    let script = r#"
        export LAYERFS_ROOT=$2
        exec 9>"$2.lock"
        flock 9
        "$1" run -d --name one "$3" sh -c 'while :; do sleep 0.1; done'
        "$1" exec -d one sleep 1000
        exec 9>&-
        flock -n "$2.lock" true"#;
    assert_eq!(all.script(script).code, 0);
    all.status("one", "Up ");
}

#[test]
fn paths_need_not_be_text() {
    needs_mount!();
    let all = Background::new();
    let script = r#"
        export LAYERFS_ROOT=$2
        mkdir "$2."$'\xe4' && cd "$2."$'\xe4'
        echo there >file
        "$1" run --name one -v .:/mnt -w /mnt "$3" cat file
        "$1" start -a one"#;
    let done = all.script(script);
    assert_eq!(done.ok(), "there\nthere");
}
