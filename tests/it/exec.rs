//! Programs beside the one that a container runs.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::*;

/// A container in the background, ended with its test.
struct Running {
    place: Place,
}

impl Running {
    #[track_caller]
    fn new(options: &[&str], script: &str) -> Self {
        let place = Place::new();
        let mut layerfs = place.command();
        layerfs.args(["run", "-d", "--name", "one"]).args(options);
        layerfs.arg(image("tiny").join("docker-gzip.tar")).args(["sh", "-c", script]);
        finish(&mut layerfs).ok();
        Self { place }
    }

    fn exec(&self, options: &[&str], command: &[&str]) -> Done {
        self.place.layerfs(&[&["exec"], options, &["one"], command].concat())
    }

    fn sh(&self, options: &[&str], script: &str) -> Done {
        self.exec(options, &["sh", "-c", script])
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.place.layerfs(&["rm", "-f", "one"]);
    }
}

const IDLE: &str = "trap 'exit 33' TERM; while :; do sleep 0.1; done";

#[test]
fn it_is_in_the_container() {
    needs_mount!();
    let one = Running::new(&["-e", "A=1", "-e", "B=2", "-w", "/tmp", "-h", "box"], IDLE);
    let said = one.sh(&["-e", "B=3", "-e", "C=4"], "echo $A $B $C $TINY; pwd; hostname; id -u; id -g; umask");
    assert_eq!(said.ok(), "1 3 4 yes\n/tmp\nbox\n0\n0\n0022");
    assert_eq!(one.sh(&["-w", "/hard"], "pwd").ok(), "/hard");
    let namespaces = "for name in user mnt pid net ipc uts cgroup; do readlink /proc/$1/ns/$name; done";
    let of = |process: &str| one.exec(&[], &["sh", "-c", namespaces, "sh", process]).ok().to_owned();
    let first = of("1");
    assert_eq!(first, of("self"));
    assert!(first.lines().count() == 7, "{first}");
    // One sees what the other writes.
    one.sh(&[], "echo text >/tmp/file").ok();
    assert_eq!(one.exec(&[], &["cat", "/tmp/file"]).ok(), "text");
    // The loop forks now and then, and is two for that moment.
    assert!(eventually(|| one.sh(&[], "ps | grep -c '[w]hile'").ok() == "1"));
}

#[test]
fn it_may_no_more_than_the_first() {
    needs_mount!();
    let one = Running::new(&[], IDLE);
    let rights = "grep -E '^(Cap|Seccomp:|NoNewPrivs|Uid|Gid|Groups)' /proc/$1/status";
    let of = |process: &str| one.exec(&[], &["sh", "-c", rights, "sh", process]).ok().to_owned();
    assert_eq!(of("1"), of("self"));
    assert!(of("self").contains("Seccomp:\t2"));
    // Nothing of ours is open in it, and nobody sees into it.
    assert_eq!(one.sh(&[], "ls /proc/self/fd | wc -l").ok().trim(), "4");
    assert_ne!(one.exec(&[], &["mount", "-t", "tmpfs", "x", "/tmp"]).code, 0);
    assert_ne!(one.exec(&[], &["unshare", "-U", "true"]).code, 0);
}

#[test]
fn users_of_the_container() {
    needs_mount!();
    let one = Running::new(&[], IDLE);
    let done = one.sh(&["-u", "33:34"], "id -u; id -g");
    if is_root() || has_id_ranges() {
        assert_eq!(done.ok(), "33\n34");
        let capabilities = one.sh(&["-u", "33"], "grep -E 'Cap(Eff|Prm)' /proc/self/status | cut -f2");
        assert_eq!(capabilities.ok(), "0000000000000000\n0000000000000000");
    } else {
        assert!(done.code == 125 && done.err.contains("single id"), "{done:#?}");
    }
    let done = one.sh(&["-u", "nosuch"], "true");
    assert!(done.code == 125 && done.err.contains("nosuch"), "{done:#?}");
}

#[test]
fn exit_codes_and_errors() {
    needs_mount!();
    let one = Running::new(&[], IDLE);
    assert_eq!(one.sh(&[], "exit 7").code, 7);
    assert_eq!(one.sh(&[], "kill -9 $$").code, 137);
    assert_eq!(one.exec(&[], &["nosuch"]).code, 127);
    assert_eq!(one.exec(&[], &["/etc"]).code, 126);
    let done = one.sh(&["-w", "/not/there"], "true");
    assert!(done.code == 125 && done.err.contains("/not/there"), "{done:#?}");
    let done = one.place.layerfs(&["exec", "nobody", "true"]);
    assert!(done.code == 125 && done.err.contains("no such container"), "{done:#?}");
    one.place.layerfs(&["stop", "one"]).ok();
    let done = one.exec(&[], &["true"]);
    assert!(done.code == 125 && done.err.contains("is not running"), "{done:#?}");
}

#[test]
fn input_terminal_and_background() {
    needs_mount!();
    let one = Running::new(&[], IDLE);
    let script = r#"printf 'a\nb\n' | LAYERFS_ROOT=$2 "$1" exec -i one wc -l; echo x | LAYERFS_ROOT=$2 "$1" exec one cat"#;
    let piped = shell(script, &[Path::new(&layerfs_path()), &one.place.store()]);
    assert_eq!(piped.ok().trim(), "2");
    assert_eq!(one.sh(&["-t"], "test -t 0 && test -t 1 && echo $TERM | wc -c").code, 0);
    one.sh(&["-d"], "sleep 0.3; echo late >/tmp/late").ok();
    assert!(eventually(|| one.exec(&[], &["cat", "/tmp/late"]).out == "late\n"));
    assert_eq!(one.exec(&["-d"], &["nosuch"]).code, 127);
}

#[test]
fn it_ends_with_who_asked_and_with_the_container() {
    needs_mount!();
    let one = Running::new(&[], IDLE);
    let exec = |script: &str| {
        let mut command = one.place.command();
        command.args(["exec", "one", "sh", "-c", script]).stdin(Stdio::null());
        let child = command.spawn().unwrap();
        assert!(eventually(|| one.sh(&[], "cat /proc/[0-9]*/cmdline | grep -c long").ok() != "0"));
        child
    };
    let long = "trap 'exit 5' USR1; : long; while :; do sleep 0.1; done";
    let is_gone = || eventually(|| !one.sh(&[], "cat /proc/[0-9]*/cmdline").out.contains(": long"));
    // A signal is passed on.
    let mut child = exec(long);
    assert!(eventually(|| {
        Command::new("kill").args(["-USR1", &child.id().to_string()]).status().unwrap();
        child.try_wait().unwrap().is_some_and(|status| exit_code(status) == 5)
    }));
    assert!(is_gone());
    // Of who is killed nothing stays.
    let mut child = exec(long);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_gone());
    let mut child = exec(long);
    one.place.layerfs(&["stop", "one"]).ok();
    assert_eq!(exit_code(child.wait().unwrap()), 137);
    one.place.nothing_left();
}
