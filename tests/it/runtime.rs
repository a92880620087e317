//! Containers that an OCI runtime of the host makes from what layerfs mounts (`--runtime`).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::support::*;

/// Containers that end with their test.
struct Made {
    place: Place,
    runtime: &'static str,
}

impl Made {
    fn by(runtime: &'static str) -> Self {
        Self { place: Place::new(), runtime }
    }

    fn tiny() -> PathBuf {
        image("tiny").join("docker-gzip.tar")
    }

    /// `layerfs run OPTIONS --runtime RUNTIME IMAGE COMMAND...`
    fn run(&self, options: &[&str], command: &[&str]) -> Done {
        let mut layerfs = self.place.command();
        layerfs.arg("run").args(options).args(["--runtime", self.runtime]).arg(Self::tiny()).args(command);
        finish(&mut layerfs)
    }

    fn layerfs(&self, words: &[&str]) -> Done {
        self.place.layerfs(words)
    }

    fn of(&self, name: &str, field: &str) -> String {
        self.layerfs(&["inspect", "-f", &format!("{{{{.{field}}}}}"), name]).ok().to_owned()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for id in self.place.containers() {
            self.layerfs(&["rm", "-f", &id]);
        }
    }
}

/// Skips the test without a runtime.
macro_rules! needs_runtime {
    () => {
        needs_mount!();
        if runtimes().is_empty() {
            skip!("neither crun nor runc is here");
        }
    };
}

#[test]
fn a_life() {
    needs_runtime!();
    for runtime in runtimes() {
        let made = Made::by(runtime);
        let script =
            "trap 'exit 33' TERM; echo ready; echo warned >&2; echo x >>/kept; while :; do sleep 0.1; done";
        made.run(&["-d", "-q", "--name", "one"], &["sh", "-c", script]).ok();
        assert!(eventually(|| made.layerfs(&["logs", "one"]).out == "ready\n"));
        assert_eq!(made.layerfs(&["logs", "one"]).err, "warned\n");
        assert!(made.of("one", "OCIRuntime").ends_with(runtime));
        let config = fs::read(made.of("one", "OCIConfigPath")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["process"]["args"][2], script);
        assert_eq!(made.layerfs(&["exec", "one", "cat", "/proc/1/comm"]).ok(), "sh");
        assert!(made.layerfs(&["top", "one"]).ok().contains("while :"));
        assert_eq!(made.layerfs(&["stop", "one"]).ok(), "one");
        assert_eq!(made.layerfs(&["wait", "one"]).ok(), "33");
        made.place.nothing_left();
        // And again, on its own changes.
        made.layerfs(&["start", "one"]).ok();
        assert!(eventually(|| made.layerfs(&["exec", "one", "cat", "/kept"]).out == "x\nx\n"));
        made.layerfs(&["kill", "one"]).ok();
        assert_eq!(made.layerfs(&["wait", "one"]).ok(), "137");
        made.layerfs(&["rm", "one"]).ok();
        made.place.nothing_left();
        assert!(made.place.containers().is_empty());
    }
}

#[test]
fn exit_codes() {
    needs_runtime!();
    for runtime in runtimes() {
        let made = Made::by(runtime);
        let run = |options: &[&str], command: &[&str]| {
            made.run(&[&["--rm", "-q", "--net", "none"], options].concat(), command)
        };
        assert_eq!(run(&[], &["sh", "-c", "exit 7"]).code, 7);

        for (command, code) in [("nope", 127), ("/nope", 127), ("/etc/passwd", 126), ("/etc", 126)] {
            let done = run(&[], &[command]);
            assert!(done.code == code && done.err.contains("Error: runtime"), "{command}: {done:#?}");
        }
        let done = run(&["-w", "/nope"], &["true"]);
        assert!(done.code == 125 && done.err.contains("/nope"), "{done:#?}");
        let done = run(&["--init"], &["true"]);
        assert!(done.code == 125 && done.err.contains("--init"), "{done:#?}");
        made.place.nothing_left();
    }
}

#[test]
fn what_it_is_told() {
    needs_runtime!();
    for runtime in runtimes() {
        let made = Made::by(runtime);
        let run = |options: &[&str], script: &str| {
            made.run(&[&["--rm", "-q", "--net", "none"], options].concat(), &["sh", "-c", script])
        };
        let host = made.place.path("host");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("file"), "of the host\n").unwrap();
        let volume = format!("{}:/a/b:ro", host.display());
        assert_eq!(
            run(&["-v", &volume], "cat /a/b/file; touch /a/b/x || echo refused").ok(),
            "of the host\nrefused"
        );
        assert_eq!(run(&["-v", "data:/etc"], "test -s /etc/passwd && echo filled").ok(), "filled");
        assert_eq!(run(&["--tmpfs", "/etc"], "test -s /etc/passwd && stat -fc %T /etc").ok(), "tmpfs");
        assert_eq!(run(&["--read-only"], "touch /x || touch /tmp/x && echo there").ok(), "there");
        let limits = ["--ulimit", "nofile=77", "--oom-score-adj", "500"];
        assert_eq!(run(&limits, "ulimit -n; cat /proc/self/oom_score_adj").ok(), "77\n500");
        assert_eq!(
            run(&["-e", "A=b", "-h", "box"], "echo $A $(hostname) $(cat /etc/hostname)").ok(),
            "b box box"
        );
        assert_eq!(run(&["-i"], "cat; echo read").ok(), "read");
        // A runtime gives the streams, here files, to that user.
        if is_root() {
            assert_eq!(run(&["-w", "/", "-u", "7:8"], "id -u; id -g").ok(), "7\n8");
        }
        made.place.nothing_left();
    }
}

/// Whoever of ours dies, and in whatever way: nothing stays.
#[test]
fn nothing_survives_its_supervisor() {
    needs_runtime!();
    for runtime in runtimes() {
        let made = Made::by(runtime);
        // Starter, supervisor, and who has called the runtime; the last two show themselves to root alone.
        let count = if is_root() { 3 } else { 1 };
        for number in 0..count {
            made.run(&["-d", "-q", "--name", "one", "--net", "none"], &["sleep", "1000"]).ok();
            let program: u32 = made.of("one", "State.Pid").parse().unwrap();
            // Those that made it may be about to end.
            assert!(eventually(|| made.place.processes().len() == count), "{:?}", made.place.processes());
            let mut ours = made.place.processes();
            ours.sort_unstable();
            finish(Command::new("kill").args(["-9", &ours[number].to_string()])).ok();
            let is_gone = || !PathBuf::from(format!("/proc/{program}")).exists();
            assert!(eventually(is_gone), "{runtime}: the program outlives number {number}");
            made.place.nothing_left();
            made.layerfs(&["rm", "-f", "one"]).ok();
        }
    }
}

#[test]
fn a_runtime_that_fails() {
    needs_mount!();
    let place = Place::new();
    let script = place.path("runtime");
    let log = r#"echo '{"level":"error","msg":"no moon tonight"}' >"$4"; exit 1"#;
    fs::write(&script, format!("#!/bin/sh\n{log}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |runtime: &str| {
        let tiny = Made::tiny();
        place.layerfs(&["run", "--rm", "-q", "--runtime", runtime, tiny.to_str().unwrap(), "true"])
    };
    let done = run(script.to_str().unwrap());
    assert!(done.code == 125 && done.err.contains("no moon tonight"), "{done:#?}");
    let done = run("no-such-runtime");
    assert!(done.code == 125 && done.err.contains("--runtime no-such-runtime"), "{done:#?}");
    place.nothing_left();
    assert!(place.containers().is_empty());
}
