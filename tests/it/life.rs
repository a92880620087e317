//! What becomes of containers: first processes, being stopped, and being run again.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::containers::*;
use crate::support::*;

#[test]
fn a_first_process_of_ours() {
    needs_mount!();
    let all = All::new();
    let init = |script: &str| all.run(&["--rm", "--init"], script);
    for code in [0, 7, 255] {
        assert_eq!(init(&format!("exit {code}")).code, code);
    }
    assert_eq!(init("kill -KILL $$").code, 137, "unlike process 1");
    let said = init("echo $$; cat /proc/1/comm; tr '\\0' ' ' </proc/1/cmdline");
    let lines: Vec<&str> = said.ok().lines().map(str::trim).collect();
    assert_eq!((lines[0] != "1", &lines[1..]), (true, &["layerfs-init", "layerfs-init"][..]), "{said:?}");
    // It has nothing of the host's, no more rights than the program, and shows nobody what it has in memory.
    let rights = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/$1/status";
    let of = |process: &str| init(&format!("set -- {process}; {rights}")).ok().to_owned();
    assert_eq!(of("1"), of("self"));
    let closed = "ls /proc/1/fd; readlink /proc/1/exe; cat /proc/1/maps; echo end";
    assert_eq!(init(closed).ok(), "end");
    // Orphans are collected: none stays as a zombie.
    let orphan = "sh -c 'sleep 0.1 & exit'; sleep 0.5; grep -s '^State:.*Z' /proc/[0-9]*/status; echo none";
    assert_eq!(init(orphan).ok(), "none");
    for (program, code) in [("nosuch", 127), ("/etc", 126)] {
        let mut layerfs = all.place.command();
        let done = finish(layerfs.args(["run", "--rm", "--init"]).arg(tiny()).arg(program));
        assert!(done.code == code && done.err.contains(program), "{done:#?}");
    }
    all.place.nothing_left();
    assert!(all.place.containers().is_empty());
}

#[test]
fn beside_a_first_process_of_ours() {
    needs_mount!();
    let all = All::new();
    let healthy = ["--health-cmd", "test -e /tmp/well", "--health-interval", "100ms"];
    let script = "touch /tmp/well; sh -c 'sleep 99 & exit'; while :; do sleep 0.05; done";
    all.run(&[&["-d", "--init", "--name", "one"], &healthy[..]].concat(), script).ok();
    assert_eq!(all.layerfs(&["exec", "one", "cat", "/proc/1/comm"]).ok(), "layerfs-init");
    let health = ["inspect", "-f", "{{.State.Health.Status}}", "one"];
    assert!(eventually(|| all.layerfs(&health).ok() == "healthy"), "{:#?}", all.layerfs(&["inspect", "one"]));
    all.layerfs(&["healthcheck", "run", "one"]).ok();
    assert!(all.layerfs(&["top", "one"]).ok().contains("root"));
    all.layerfs(&["cp", "one:/tmp/well", &all.place.path("well").display().to_string()]).ok();
    assert!(all.place.path("well").is_file());
    assert_eq!(all.layerfs(&["diff", "one"]).ok(), "C /tmp\nA /tmp/well");
}

#[test]
fn a_first_process_passes_signals_on() {
    needs_mount!();
    let all = All::new();
    let script = "trap 'exit 33' TERM; trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";
    all.run(&["-d", "--init", "--name", "one"], script).ok();
    assert!(eventually(|| all.layerfs(&["logs", "one"]).out == "ready\n"));
    all.layerfs(&["kill", "-s", "HUP", "one"]).ok();
    assert!(eventually(|| all.layerfs(&["logs", "one"]).out == "ready\nhup\n"));
    all.layerfs(&["stop", "one"]).ok();
    all.status("one", "Exited (33)");
    // At a terminal the program is in its foreground, and not the first process.
    let mut command = Command::new("python3");
    command.arg(support_file("dialog.py")).args([
        "want",
        "> ",
        "send",
        "sleep 100\\n",
        "rest",
        "1",
        "send",
        "\\x03",
    ]);
    command.args(["send", "\\x15echo he'r'e\\n", "want", "here\r\n", "send", "exit 4\\n", "code", "4", "--"]);
    command.arg(layerfs_path()).args(["run", "--rm", "--init", "-it", "-e", "PS1=> "]).arg(tiny()).arg("sh");
    finish(command.env("LAYERFS_ROOT", all.place.store())).ok();
}

#[test]
fn how_it_is_stopped_is_said_when_it_is_made() {
    needs_mount!();
    let all = All::new();
    let script = "trap 'exit 34' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let options = ["-d", "--stop-signal", "USR1", "--stop-timeout", "-1", "--name"];
    all.run(&[&options[..], &["one"]].concat(), script).ok();
    assert!(eventually(|| all.layerfs(&["logs", "one"]).out == "ready\n"));
    all.layerfs(&["stop", "one"]).ok();
    all.status("one", "Exited (34)");
    let options = ["-d", "--stop-timeout", "0", "--name"];
    for (name, words) in [("two", &["stop", "two"][..]), ("three", &["rm", "-f", "three"])] {
        all.run(&[&options[..], &[name]].concat(), script).ok();
        assert!(eventually(|| all.layerfs(&["logs", name]).out == "ready\n"));
        let since = Instant::now();
        all.layerfs(words).ok();
        assert!(since.elapsed() < Duration::from_secs(8), "it is killed at once");
    }
    all.status("two", "Exited (137)");
    // One that would not end in any time.
    all.run(&["-d", "--stop-timeout", "-1", "--name", "four"], script).ok();
    assert!(eventually(|| all.layerfs(&["logs", "four"]).out == "ready\n"));
    let done = all.layerfs(&["rm", "-t", "0", "four"]);
    assert!(done.code == 125 && done.err.contains("--force"), "{done:#?}");
    all.layerfs(&["rm", "-f", "-t", "0", "four"]).ok();
    let done = all.run(&["--stop-signal", "NONE"], "true");
    assert!(done.code == 125 && done.err.contains("--stop-signal NONE"), "{done:#?}");
    let since = Instant::now();
    assert_eq!(all.run(&["--rm", "--timeout", "1"], "sleep 100").code, 137);
    assert!(since.elapsed() >= Duration::from_secs(1) && since.elapsed() < Duration::from_secs(30));
}

#[test]
fn groups() {
    needs_mount!();
    let all = All::new();
    let run = |groups: &[&str]| all.run(&[&["--rm"], groups].concat(), "id -G");
    let done = run(&["--group-add", "4242", "--group-add", "root"]);
    if is_root() || has_id_ranges() {
        assert!(done.ok().split(' ').any(|group| group == "4242"), "{done:#?}");
        let done = run(&["--group-add", "nosuch"]);
        assert!(done.code == 125 && done.err.contains("no group \"nosuch\""), "{done:#?}");
    } else {
        assert!(done.code == 125 && done.err.contains("subgid"), "{done:#?}");
    }
}

#[test]
fn run_again_until_it_is_stopped() {
    needs_mount!();
    let all = All::new();
    // It knows by its files how often it ran.
    let script = "echo x >>/ran; echo run $(wc -l </ran); sleep 0.2; exit 3";
    all.run(&["-d", "--restart", "always", "--name", "one"], script).ok();
    assert!(eventually(|| all.layerfs(&["logs", "one"]).out.contains("run 3\n")));
    assert!(all.inspect("one")["RestartCount"].as_u64().unwrap() >= 2);
    all.status("one", "Restarting (3)");
    let since = Instant::now();
    all.layerfs(&["stop", "one"]).ok();
    assert!(since.elapsed() < Duration::from_secs(10), "not after its pause");
    all.status("one", "Exited (3)");
    let ran = all.layerfs(&["logs", "one"]).out.lines().count();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(all.layerfs(&["logs", "one"]).out.lines().count(), ran, "it stays stopped");
    all.layerfs(&["start", "one"]).ok();
    assert!(eventually(|| all.layerfs(&["logs", "one"]).out.lines().count() > ran + 1));
    all.layerfs(&["rm", "-f", "one"]).ok();
    all.place.nothing_left();
    assert!(all.place.containers().is_empty());
}

#[test]
fn run_again_after_failures() {
    needs_mount!();
    let all = All::new();
    all.run(&["-d", "--restart", "on-failure:2", "--name", "one"], "echo run; exit 5").ok();
    assert_eq!(all.layerfs(&["wait", "one"]).ok(), "5");
    assert_eq!(all.layerfs(&["logs", "one"]).ok(), "run\nrun\nrun");
    assert_eq!(all.inspect("one")["RestartCount"], 2);
    all.run(&["-d", "--restart", "on-failure", "--name", "two"], "echo run").ok();
    assert_eq!(all.layerfs(&["wait", "two"]).ok(), "0");
    assert_eq!(all.layerfs(&["logs", "two"]).ok(), "run");
    // Killed by who uses it: not again; by itself: again.
    let script = "echo run; sleep 100";
    all.run(&["-d", "--restart", "always", "--name", "three"], script).ok();
    all.layerfs(&["kill", "three"]).ok();
    all.status("three", "Exited (137)");
    all.run(&["-d", "--restart", "always", "--name", "four"], script).ok();
    assert!(eventually(|| all.layerfs(&["logs", "four"]).out == "run\n"));
    let killed = all.inspect("four")["State"]["Pid"].to_string();
    Command::new("kill").args(["-KILL", &killed]).status().unwrap();
    let mut logs = None;
    let again = eventually(|| logs.insert(all.layerfs(&["logs", "four"])).out == "run\nrun\n");
    assert!(again, "{logs:#?} {}", all.inspect("four"));
    all.status("four", "Up ");
    for (options, why) in [
        (&["--rm", "-d", "--restart", "always"][..], "--rm and --restart always"),
        (&["--restart", "always"], "give -d, or -it"),
        (&["-d", "--restart", "sometimes"], "sometimes"),
    ] {
        let done = all.run(options, "true");
        assert!(done.code == 125 && done.err.contains(why), "{done:#?}");
    }
    // What does not start at all is told, and not tried again.
    let mut layerfs = all.place.command();
    let done = finish(
        layerfs.args(["run", "-d", "--restart", "always", "--name", "five"]).arg(tiny()).arg("nosuch"),
    );
    assert_eq!(done.code, 127, "{done:#?}");
    all.status("five", "Exited (127)");
}

#[test]
fn health_is_checked() {
    needs_mount!();
    let all = All::new();
    let check = "echo looked; test ! -e /tmp/sick";
    let options =
        ["-d", "--health-cmd", check, "--health-interval", "200ms", "--health-retries", "2", "--name", "one"];
    let done = all.run(&["-d", "--health-interval", "1s"], "true");
    assert!(done.code == 125 && done.err.contains("--health-cmd"), "{done:#?}");
    all.run(&options, "while :; do sleep 0.1; done").ok();
    all.status("one", "(healthy)");
    let health = all.inspect("one")["State"]["Health"].clone();
    assert_eq!((&health["Status"], &health["FailingStreak"]), (&"healthy".into(), &0.into()));
    let last = health["Log"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["ExitCode"], &last["Output"]), (&0.into(), &"looked\n".into()));
    assert_eq!(all.layerfs(&["healthcheck", "run", "one"]).code, 0);
    all.layerfs(&["exec", "one", "touch", "/tmp/sick"]).ok();
    all.status("one", "(unhealthy)");
    assert_eq!(all.layerfs(&["healthcheck", "run", "one"]).code, 1);
    all.layerfs(&["exec", "one", "rm", "/tmp/sick"]).ok();
    all.status("one", "(healthy)");
    assert!(eventually(|| all.inspect("one")["State"]["Health"]["Log"].as_array().unwrap().len() == 5));
    all.layerfs(&["stop", "-t", "0", "one"]).ok();
    all.status("one", "Exited (137)");
    let done = all.layerfs(&["healthcheck", "run", "one"]);
    assert!(done.code == 125 && done.err.contains("is not running"), "{done:#?}");
    all.layerfs(&["rm", "one"]).ok();
    all.place.nothing_left();
}

#[test]
fn checks_that_hang_or_cannot_be_made_are_failures() {
    needs_mount!();
    let all = All::new();
    let options = ["-d", "--health-interval", "100ms", "--health-retries", "1", "--name"];
    let idle = "trap 'exit 4' TERM; echo run; while :; do sleep 0.1; done";
    let hangs = [
        "--health-cmd",
        "echo begun; sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & sleep 1000",
        "--health-timeout",
        "300ms",
    ];
    all.run(&[&options[..], &["one"], &hangs].concat(), idle).ok();
    all.status("one", "(unhealthy)");
    let last = all.inspect("one")["State"]["Health"]["Log"][0].clone();
    assert_eq!(last["ExitCode"], -1);
    assert!(last["Output"].as_str().unwrap().contains("exceeded timeout (300ms)"), "{last}");
    // Nothing of those that hung is left, whatever they have started: one runs at a time.
    assert!(eventually(|| all.inspect("one")["State"]["Health"]["FailingStreak"].as_u64() >= Some(3)));
    let count = "n=$(ps -o stat,comm | grep -v '^Z' | grep -c 'sleep$'); test $n -le 5 || { ps; exit 1; }";
    all.layerfs(&["exec", "one", "sh", "-c", count]).ok();
    all.run(&[&options[..], &["two", "--health-cmd", r#"["/nosuch"]"#]].concat(), idle).ok();
    all.status("two", "(unhealthy)");
    assert!(all.inspect("two")["State"]["Health"]["Log"][0]["Output"].as_str().unwrap().contains("/nosuch"));
    // What is done then.
    let sick = ["--health-cmd", "false", "--health-on-failure"];
    all.run(&[&options[..], &["three"], &sick, &["stop"]].concat(), idle).ok();
    all.status("three", "Exited (4)");
    all.run(&[&options[..], &["four"], &sick, &["kill"]].concat(), idle).ok();
    all.status("four", "Exited (137)");
    all.run(&[&options[..], &["five"], &sick, &["restart"]].concat(), idle).ok();
    assert!(eventually(|| all.layerfs(&["logs", "five"]).out.starts_with("run\nrun\n")));
    // While it starts, failures do not count.
    let slow = ["--health-cmd", "false", "--health-start-period", "1h", "--name", "six"];
    all.run(&[&["-d", "--health-interval", "100ms"], &slow[..]].concat(), idle).ok();
    all.status("six", "(health: starting)");
    let done = all.layerfs(&["healthcheck", "run", "six"]);
    assert_eq!((done.code, done.err.trim()), (1, "unhealthy"), "{done:#?}");
}

#[test]
fn the_images_check_counts_unless_it_is_refused() {
    needs_mount!();
    let all = All::new();
    let context = all.place.path("context");
    std::fs::create_dir(&context).unwrap();
    let check = "HEALTHCHECK --interval=100ms --retries=1 CMD test -e /hard\n";
    std::fs::write(context.join("Dockerfile"), format!("FROM {}\n{check}", tiny().display())).unwrap();
    all.layerfs(&["build", "-t", "checked:1", context.to_str().unwrap()]).ok();
    let run = |options: &[&str]| {
        let idle = ["checked:1", "sh", "-c", "while :; do sleep 0.1; done"];
        all.layerfs(&[&["run", "-d"], options, &idle].concat()).ok().to_owned()
    };
    run(&["--name", "one"]);
    all.status("one", "(healthy)");
    run(&["--name", "two", "--no-healthcheck"]);
    let done = all.layerfs(&["healthcheck", "run", "two"]);
    assert!(done.code == 125 && done.err.contains("without a health check"), "{done:#?}");
    assert!(all.inspect("two")["State"].get("Health").is_none());
}
