//! Being attached to containers: what is typed, what is shown, and how it ends.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::containers::*;
use crate::support::*;

impl All {
    /// `layerfs WORDS` at a terminal; the steps are those of `dialog.py`. Gives what was shown last.
    #[track_caller]
    fn dialog(&self, steps: &[(&str, &str)], words: &[&str]) -> String {
        let mut command = Command::new("python3");
        command.arg(support_file("dialog.py")).args(steps.iter().flat_map(|(step, text)| [step, text]));
        command.arg("--").arg(layerfs_path()).args(words).env("LAYERFS_ROOT", self.place.store());
        let done = finish(&mut command);
        assert_eq!(done.code, 0, "{steps:?} {done:#?}");
        done.out
    }

    /// With pipes in place of a terminal.
    fn attach(&self, options: &[&str], name: &str) -> Child {
        let mut command = self.place.command();
        command.arg("attach").args(options).arg(name).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// How a command ended, and the rest of what it printed.
fn ended(mut child: Child) -> (i32, String, String) {
    drop(child.stdin.take());
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (exit_code(child.wait().unwrap()), out, err)
}

const SHELL: &[&str] = &["sh"];

fn shell_in(name: &str) -> Vec<String> {
    let image = tiny();
    let words = ["run", "-it", "--name", name, "-e", "PS1=> ", image.to_str().unwrap()];
    words.iter().chain(SHELL).map(ToString::to_string).collect()
}

/// Who waits for the start hears that there is none before others are waited for.
#[test]
fn what_does_not_start_says_so_at_once() {
    needs_mount!();
    let all = All::new();
    // Who is behind has five seconds; on a machine that sleeps as long as that, once is enough.
    let is_at_once = || {
        let since = Instant::now();
        let steps = [("want", "/nosuch: No such file"), ("code", "127")];
        all.dialog(&steps, &["run", "--rm", "-it", tiny().to_str().unwrap(), "/nosuch"]);
        since.elapsed() < Duration::from_secs(4)
    };
    assert!((0..3).any(|_| is_at_once()));
}

#[test]
fn detached_and_attached_again() {
    needs_mount!();
    let all = All::new();
    let words = shell_in("one");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let left = all.dialog(
        &[
            ("size", "31x97"),
            ("want", "> "),
            ("send", "stty size; echo st'art'ed\\n"),
            ("want", "31 97\r\nstarted\r\n"),
            ("size", "33x99"),
            ("send", "until test \"$(stty size)\" = '33 99'; do sleep 0.1; done; echo re'siz'ed\\n"),
            ("want", "resized"),
            ("send", "\\x10\\x11"),
            ("code", "0"),
        ],
        &words,
    );
    assert!(left.contains("read escape sequence"), "{left:?}");
    all.status("one", "Up ");
    // What it printed while nobody looked is in the log, as is what it printed before.
    assert!(all.layerfs(&["logs", "one"]).ok().contains("resized"));
    all.dialog(
        &[
            ("size", "20x70"),
            ("send", "\\n"),
            ("want", "> "),
            ("send", "stty size\\n"),
            ("want", "20 70"),
            // The first of the keys alone is typed.
            ("send", "echo a\\x10b\\n"),
            ("send", "echo ag'ain'\\n"),
            ("want", "again\r\n"),
            ("send", "ab"),
            ("code", "0"),
        ],
        &["attach", "--detach-keys", "a,b", "one"],
    );
    all.dialog(&[("send", "\\x15exit 7\\n"), ("code", "7")], &["attach", "one"]);
    all.status("one", "Exited (7)");
    // And once more, by start.
    all.dialog(
        &[
            ("want", "> "),
            ("send", "echo he'r'e\\n"),
            ("want", "here"),
            ("send", "\\x10\\x11"),
            ("code", "0"),
        ],
        &["start", "-ai", "one"],
    );
    all.status("one", "Up ");
    all.dialog(&[("send", "exit 4\\n"), ("code", "4")], &["start", "-ai", "one"]);
    let done = all.layerfs(&["attach", "one"]);
    assert!(done.code == 125 && done.err.contains("is not running"), "{done:#?}");
    let done = all.layerfs(&["attach", "--detach-keys", "ctrl-", "one"]);
    assert!(done.code == 125 && done.err.contains("--detach-keys ctrl-"), "{done:#?}");
}

#[test]
fn keys_and_jobs_are_the_containers() {
    needs_mount!();
    let all = All::new();
    let words = shell_in("one");
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.splice(1..1, ["--rm", "--detach-keys="]);
    all.dialog(
        &[
            ("want", "> "),
            // Nothing detaches.
            ("send", "\\x10\\x11"),
            ("send", "\\x15echo sl'eep'ing; sleep 100\\n"),
            ("want", "sleeping\r\n"),
            ("rest", "1"),
            ("send", "\\x03"),
            ("want", "> "),
            ("send", "sleep 101\\n"),
            ("want", "sleep 101\r\n"),
            ("rest", "1"),
            ("send", "\\x1a"),
            ("want", "Stopped"),
            ("send", "bg; jobs\\n"),
            ("want", "Running"),
            ("send", "fg\\n"),
            ("want", "sleep 101"),
            ("rest", "1"),
            ("send", "\\x03"),
            ("send", "echo ba'c'k\\n"),
            ("want", "back"),
            ("send", "exit 5\\n"),
            ("code", "5"),
        ],
        &words,
    );
    all.place.nothing_left();
    assert!(all.place.containers().is_empty(), "it was to be removed");
}

#[test]
fn what_happens_to_a_terminal_is_not_the_containers() {
    needs_mount!();
    let all = All::new();
    let words = shell_in("one");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    all.dialog(
        &[("want", "> "), ("send", "echo f'irs't\\n"), ("want", "first"), ("kill", "1"), ("code", "129")],
        &words,
    );
    all.status("one", "Up ");
    all.dialog(
        &[("send", "echo s'econ'd\\n"), ("want", "second"), ("kill", "9"), ("code", "137")],
        &["attach", "one"],
    );
    all.status("one", "Up ");
    all.dialog(&[("send", "exit 3\\n"), ("code", "3")], &["attach", "one"]);
}

#[test]
fn starts_that_fail_say_so() {
    needs_mount!();
    let all = All::new();
    let image = tiny();
    let image = image.to_str().unwrap();
    for (program, code) in [("nosuch", "127"), ("/etc", "126")] {
        let shown = all.dialog(&[("code", code)], &["run", "-it", "--rm", image, program]);
        assert!(shown.contains(program), "{shown:?}");
    }
    let shown = all.dialog(&[("code", "125")], &["run", "-it", "--rm", "-w", "/dev/null", image, "true"]);
    assert!(shown.contains("working directory"), "{shown:?}");
    all.place.nothing_left();
    assert!(all.place.containers().is_empty());
    let done = all.run(&["-it"], "true");
    assert!(done.code == 125 && done.err.contains("not a TTY"), "{done:#?}");
}

#[test]
fn several_see_the_same_and_any_may_type() {
    needs_mount!();
    let all = All::new();
    let script = "while read line; do echo got $line; test $line = last && exit 9; done; echo end";
    all.run(&["-d", "-i", "--name", "one"], script).ok();
    let (mut first, mut second) = (all.attach(&[], "one"), all.attach(&["--no-stdin"], "one"));
    let mut killed = all.attach(&[], "one");
    let line = |child: &mut Child| {
        // By byte: nothing of the rest may be lost in a buffer.
        let mut text = Vec::new();
        let out = child.stdout.as_mut().unwrap();
        while text.last() != Some(&b'\n') {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    };
    let type_into =
        |child: &mut Child, text: &str| child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    // What was written before one was attached is not shown to that one.
    type_into(&mut first, "early\n");
    assert_eq!(line(&mut first), "got early\n");
    thread::scope(|scope| {
        let shown = scope.spawn(|| line(&mut second));
        while !shown.is_finished() {
            type_into(&mut first, "early\n");
            assert_eq!(line(&mut first), "got early\n");
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(shown.join().unwrap(), "got early\n");
    });
    type_into(&mut killed, "one\n");
    let ended_early = |child: &mut Child| {
        let mut lines = std::iter::repeat_with(|| line(child));
        lines.find(|line| line != "got early\n").unwrap()
    };
    assert_eq!(
        (ended_early(&mut killed), line(&mut first)),
        ("got one\n".to_owned(), "got one\n".to_owned())
    );
    killed.kill().unwrap();
    killed.wait().unwrap();
    type_into(&mut first, "last\n");
    assert_eq!(line(&mut first), "got last\n");
    assert_eq!(ended(first).0, 9);
    let (code, out, _) = ended(second);
    assert_eq!((code, out.ends_with("got one\ngot last\n")), (9, true), "{out:?}");
    assert!(all.layerfs(&["logs", "one"]).ok().ends_with("got early\ngot one\ngot last"));
    // The end of one's input is the end of the program's.
    all.layerfs(&["start", "one"]).ok();
    let (code, out, _) = ended(all.attach(&[], "one"));
    assert_eq!((code, out.as_str()), (0, "end\n"));
    // Nobody finds the socket any more.
    let id = all.place.containers().pop().unwrap();
    let socket = all.place.store().join("containers").join(id).join("ctl.sock");
    assert!(eventually(|| !socket.exists()));
}

#[test]
fn who_takes_nothing_keeps_nobody_waiting() {
    needs_mount!();
    let all = All::new();
    let script = "read go; i=0; while [ $i -lt 20000 ]; do echo line $i of many that are of some length; i=$((i+1)); done; echo done";
    all.run(&["-d", "-i", "--name", "one"], script).ok();
    let mut stuck = all.attach(&["--no-stdin"], "one");
    let mut good = all.attach(&[], "one");
    let mut out = BufReader::new(good.stdout.take().unwrap());
    good.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let lines = out.by_ref().lines().take_while(|line| line.as_ref().unwrap() != "done").count();
    assert_eq!(lines, 20000, "the other's are not lost");
    assert_eq!(exit_code(good.wait().unwrap()), 0);
    all.status("one", "Exited (0)");
    let logged = all.layerfs(&["logs", "one"]);
    assert_eq!(logged.ok().lines().count(), 20001);
    // It was let go, and hears why once it reads again; or everything still fitted.
    let mut text = String::new();
    stuck.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    stuck.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    let code = exit_code(stuck.wait().unwrap());
    assert!(code == 125 && text.lines().last().unwrap().contains("container one"), "{code}");
}

#[test]
fn signals_of_who_is_attached() {
    needs_mount!();
    let all = All::new();
    let script = "trap 'exit 33' TERM; trap 'echo hup' HUP; while :; do echo tick; sleep 0.1; done";
    all.run(&["-d", "--name", "one"], script).ok();
    let signal = |child: &Child, signal: &str| {
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    };
    // Who sees something is attached.
    let wait = |child: &mut Child, awaited: &str| {
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == awaited), "{awaited}");
    };
    let mut deaf = all.attach(&["--sig-proxy=false"], "one");
    let mut heard = all.attach(&[], "one");
    wait(&mut deaf, "tick");
    wait(&mut heard, "tick");
    signal(&heard, "-HUP");
    wait(&mut heard, "hup");
    signal(&deaf, "-TERM");
    assert_eq!(ended(deaf).0, 143);
    all.status("one", "Up ");
    signal(&heard, "-TERM");
    assert_eq!(exit_code(heard.wait().unwrap()), 33);
}

#[test]
fn what_was_started_in_the_foreground_stays_there() {
    needs_mount!();
    let all = All::new();
    let mut command = all.place.command();
    command.args(["run", "--name", "one"]).arg(tiny()).args(["sh", "-c", "echo ready; sleep 100"]);
    let mut foreground = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(foreground.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let done = all.layerfs(&["attach", "one"]);
    assert!(done.code == 125 && done.err.contains("started in the foreground"), "{done:#?}");
    // Nobody listens to what one that was killed has left.
    let dir = all.place.store().join("containers").join(all.place.containers().pop().unwrap());
    // A socket's path is short (unix(7)).
    drop(UnixListener::bind(all.place.path("s")).unwrap());
    fs::rename(all.place.path("s"), dir.join("ctl.sock")).unwrap();
    let done = all.layerfs(&["attach", "one"]);
    assert!(done.code == 125 && done.err.contains("started in the foreground"), "{done:#?}");
    let done = all.layerfs(&["update", "--restart", "always", "one"]);
    assert!(done.code == 125 && done.err.contains("foreground"), "{done:#?}");
    foreground.kill().unwrap();
    foreground.wait().unwrap();
    all.place.nothing_left();
    let done = all.run(&["--sig-proxy=false"], "true");
    assert!(done.code == 125 && done.err.contains("--sig-proxy=false"), "{done:#?}");
    // A terminal is not for pipes.
    all.run(&["-d", "-it", "--name", "two"], "read x; echo $x").ok();
    let done = all.layerfs(&["attach", "two"]);
    assert!(done.code == 125 && done.err.contains("not a TTY"), "{done:#?}");
}

#[test]
fn a_socket_that_was_left_is_replaced() {
    needs_mount!();
    let all = All::new();
    all.run(&["-d", "-i", "--name", "one"], "cat; exit 6").ok();
    let inspected: serde_json::Value = serde_json::from_str(all.layerfs(&["inspect", "one"]).ok()).unwrap();
    let program = inspected[0]["State"]["Pid"].to_string();
    let script = r#"up() { cut -d' ' -f4 "/proc/$1/stat"; }; kill -KILL "$(up "$(up "$1")")""#;
    shell(script, &[Path::new(&program)]).ok();
    all.place.nothing_left();
    // Its supervisor is not seen by everybody, but has the lock until it has gone.
    all.status("one", "Exited (unclean)");
    let dir = all.place.store().join("containers").join(all.place.containers().pop().unwrap());
    assert!(dir.join("ctl.sock").exists());
    all.layerfs(&["start", "one"]).ok();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(dir.join("ctl.sock")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ended(all.attach(&[], "one")), (6, String::new(), String::new()));
}
