//! What a host may lack or break: `run` says what is wrong and what to do, exits with 125 and leaves nothing, and `doctor` has said
//! so before.
//!
//! | fault | test |
//! |---|---|
//! | no room: start, log, end | [`a_store_that_is_full`] |
//! | no room: what a container changes | `full::full_ext4`, `full::full_tmpfs`, `full::a_quota_that_is_used_up` |
//! | no room: a mount that is to be recorded | `surroundings::a_mount_that_cannot_be_recorded` |
//! | a store that is read-only | [`a_store_that_is_read_only`] |
//! | a home directory that cannot be written to | [`a_home_that_cannot_be_written_to`] |
//! | no XDG_RUNTIME_DIR, or somebody else's | [`a_runtime_directory_that_is_no_use`] |
//! | no /dev/fuse, or something else by that name | `doctor::without_a_device`, `bad_input::no_dev_fuse` |
//! | /dev/fuse that may not be opened | [`a_device_that_may_not_be_opened`] |
//! | no newuidmap; no_new_privs | `doctor::without_what_ranges_of_ids_need` |
//! | newuidmap that is not setuid root | [`helpers_without_power`] |
//! | newuidmap that hangs | `doctor::with_a_helper_that_hangs` |
//! | no user namespaces | `doctor::without_user_namespaces` |
//! | no /dev/net/tun | [`no_device_for_a_network`] |
//! | neither pasta nor slirp4netns | [`nobody_to_carry_a_network`], `network::what_is_not_there` |
//! | a process that is killed | `kills::whoever_is_killed` |
//! | a restart of the machine | [`after_a_restart_of_the_machine`] |

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::*;

fn tiny() -> PathBuf {
    image("tiny").join("docker-gzip.tar")
}

/// A shell script with the program as `$1`, the tiny image as `$2` and the place as `$3`, in which it is.
fn script(place: &Place, text: &str) -> Done {
    let mut bash = Command::new("bash");
    bash.args(["-uc", text, "bash"]).arg(layerfs_path()).arg(tiny()).arg(place.path(""));
    finish(bash.current_dir(place.path("")).env("LAYERFS_ROOT", place.store()))
}

/// The same in a mount namespace of its own, in which it may mount.
fn private(place: &Place, text: &str) -> Done {
    let mut unshare = Command::new("unshare");
    unshare.args(if is_root() { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] });
    unshare.args(["bash", "-uc", text, "bash"]).arg(layerfs_path()).arg(tiny()).arg(place.path(""));
    finish(unshare.current_dir(place.path("")).env("LAYERFS_ROOT", place.store()))
}

/// `run` failed, and said `words`; doctor's line of `check` says `fix`.
#[track_caller]
fn both_say(done: &Done, words: &[&str], check: &str, fix: &str) {
    assert_eq!(done.code, 125, "{done:#?}");
    for word in words {
        assert!(done.err.contains(word), "{word:?}: {done:#?}");
    }
    doctor_says(done, check, fix);
}

#[track_caller]
fn doctor_says(done: &Done, check: &str, fix: &str) {
    let line = done.out.lines().find(|line| line.get(9..).is_some_and(|line| line.starts_with(check)));
    let line = line.unwrap_or_else(|| panic!("no line {check:?}: {done:#?}"));
    assert!(!line.starts_with("ok") && line.contains(fix), "{line}\n{done:#?}");
}

#[test]
fn a_store_that_is_full() {
    needs_mount!();
    let place = Place::new();
    let done = private(
        &place,
        r#"mkdir small; mount -t tmpfs -o size=6m small small; export LAYERFS_ROOT=$PWD/small/store
        "$1" run -d --name a "$2" sh -c 'echo first; until [ -e /go ]; do sleep 0.01; done; yes | head -c 100000; exit 5' >/dev/null
        until "$1" logs a | grep -q first; do sleep 0.02; done
        dd if=/dev/zero of=small/fill bs=1k 2>/dev/null
        "$1" run --name b "$2" true; code=$?
        "$1" doctor
        ls small/store/containers | wc -l
        # What makes no room for itself: a directory is there already.
        dd if=/dev/null of=small/fill bs=1 seek=1 2>/dev/null; "$1" exec a touch /go
        dd if=/dev/zero of=small/fill bs=1k 2>/dev/null
        "$1" wait a
        "$1" ps -a | grep -c 'Exited (5)'
        "$1" rm a
        rm small/fill
        "$1" run --rm --name b "$2" echo again
        ls -A small/store/containers
        exit $code"#,
    );
    both_say(&done, &["No space left on device", "layerfs prune"], "space ", "layerfs prune");
    // One container, its exit code, one line of `ps`; `rm` prints an id.
    let rest: Vec<&str> = done.out.lines().filter(|line| line.len() < 10).collect();
    assert_eq!(rest, ["1", "5", "1", "again"], "{done:#?}");
    place.nothing_left();
}

#[test]
fn a_store_that_is_read_only() {
    needs_mount!();
    let place = Place::new();
    let done = private(
        &place,
        r#"id=$("$1" create --name a "$2" true)
        mount --bind store store && mount -o remount,ro,bind store store
        "$1" run --rm "$2" true; code=$?
        "$1" doctor
        "$1" ps -a --format '{{.Names}} {{.Status}}'
        exit $code"#,
    );
    both_say(&done, &["Read-only file system", "set LAYERFS_ROOT"], "store ", "LAYERFS_ROOT=");
    assert!(done.out.ends_with("a Created\n"), "{done:#?}");
    place.layerfs(&["rm", "a"]).ok();
    assert!(place.containers().is_empty());
    place.nothing_left();
}

#[test]
fn a_home_that_cannot_be_written_to() {
    needs_mount!();
    if is_root() {
        skip!("root keeps nothing in a home directory");
    }
    let place = Place::new();
    let done = script(
        &place,
        r#"unset LAYERFS_ROOT XDG_DATA_HOME; export HOME=/; "$1" run --rm "$2" true; code=$?; "$1" doctor; exit $code"#,
    );
    both_say(&done, &["/.local/share/layerfs", "set LAYERFS_ROOT"], "store ", "LAYERFS_ROOT=");
    place.nothing_left();
}

#[test]
fn a_runtime_directory_that_is_no_use() {
    needs_mount!();
    let place = Place::new();
    let done = script(
        &place,
        r#"for dir in '' /nowhere /proc/1 relative; do XDG_RUNTIME_DIR=$dir "$1" run --rm "$2" echo "<$dir>"; done
        unset XDG_RUNTIME_DIR; "$1" run --rm "$2" echo none"#,
    );
    assert_eq!(done.ok(), "<>\n</nowhere>\n</proc/1>\n<relative>\nnone");
    place.nothing_left();
}

#[test]
fn a_device_that_may_not_be_opened() {
    needs_mount!();
    if !is_root() {
        skip!("only root can make a device");
    }
    let place = Place::new();
    let done = private(
        &place,
        r#"chmod 755 .; cp "$1" program; mknod fuse c 10 229; chmod 600 fuse; mount --bind fuse /dev/fuse
        mkdir theirs; chown 65534:65534 theirs; export LAYERFS_ROOT=$PWD/theirs/store
        as_nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
        as_nobody ./program run --rm "$2" true; code=$?
        as_nobody ./program doctor; ls -A theirs/store/containers; exit $code"#,
    );
    both_say(&done, &["/dev/fuse: Permission denied", "chmod 666"], "/dev/fuse ", "sudo chmod 666 /dev/fuse");
    assert!(done.out.lines().last().unwrap().starts_with("missing"), "nothing is left: {done:#?}");
    place.nothing_left();
}

#[test]
fn helpers_without_power() {
    needs_mount!();
    if is_root() || !has_id_ranges() {
        skip!("only for users with ranges of ids");
    }
    let place = Place::new();
    let done = script(
        &place,
        r#"mkdir bin; cp "$(command -v newuidmap)" "$(command -v newgidmap)" bin; chmod 755 bin/*; PATH=$PWD/bin:$PATH
        "$1" run --rm "$2" echo ran; "$1" doctor
        "$1" run --rm --uidmap 0:1:1000 "$2" true"#,
    );
    assert!(done.out.starts_with("ran\n") && done.err.contains("only one user id inside"), "{done:#?}");
    let words = ["setuid root", "the container's own ids need those ranges"];
    both_say(&done, &words, "newuidmap ", "sudo chmod u+s");
    assert!(place.containers().is_empty());
    place.nothing_left();
}

#[test]
fn no_device_for_a_network() {
    needs_mount!();
    let place = Place::new();
    let done = private(
        &place,
        r#"mkdir empty; mount --bind empty /dev/net || exit 77
        "$1" run --rm --network slirp4netns "$2" true; "$1" doctor; "$1" run --rm -p 80 "$2" true"#,
    );
    if done.code == 77 {
        skip!("this host has no directory /dev/net to hide");
    }
    both_say(&done, &["/dev/net/tun", "modprobe tun"], "network ", "sudo modprobe tun");
    assert!(place.containers().is_empty());
    place.nothing_left();
}

#[test]
fn nobody_to_carry_a_network() {
    needs_mount!();
    let place = Place::new();
    let done = script(
        &place,
        r#"PATH=/nowhere "$1" run --rm -p 80 "$2" true; code=$?; PATH=/nowhere "$1" doctor; exit $code"#,
    );
    let fix = if fs::File::options().read(true).write(true).open("/dev/net/tun").is_ok() {
        "apt-get install passt"
    } else {
        "modprobe tun"
    };
    both_say(&done, &["pasta or slirp4netns is not installed"], "network ", fix);
    assert!(place.containers().is_empty());
    place.nothing_left();
}

/// What is written down is of another time: the number of a process is another's, the socket nobody's.
#[test]
fn after_a_restart_of_the_machine() {
    needs_mount!();
    let place = Place::new();
    let image = tiny();
    let words = ["sh", "-c", "echo started; exec sleep 600"];
    let run = ["run", "-d", "--name", "a", "--stop-signal", "KILL", image.to_str().unwrap()];
    let id = place.layerfs(&[&run[..], &words].concat()).ok().to_owned();
    let processes: Vec<String> = place.processes().iter().map(ToString::to_string).collect();
    finish(Command::new("kill").arg("-9").args(processes));
    place.nothing_left();
    let path = place.store().join("containers").join(id).join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(state["status"], "running");
    let other = Command::new("sleep").arg("600").spawn().unwrap();
    state["process"]["pid"] = other.id().into();
    state["cgroup"] = "/sys/fs/cgroup/of-another-time".into();
    fs::write(&path, state.to_string()).unwrap();
    let status = || place.layerfs(&["ps", "-a", "--format", "{{.State}} {{.Status}}"]).ok().to_owned();
    // Who serves the files, and cannot be seen by ordinary users, may still be at its end.
    assert!(eventually(|| !status().starts_with("running")));
    let (before, mut other) = (status(), other);
    place.layerfs(&["stop", "a"]).ok();
    let refused = place.layerfs(&["kill", "a"]);
    let started = place.layerfs(&["start", "a"]);
    let after = status();
    let removed = place.layerfs(&["rm", "-f", "a"]);
    // It had the number, and nothing else to do with it.
    let is_alive = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(before.starts_with("exited Exited"), "{before}");
    assert!(refused.code == 125 && refused.err.contains("is not running"), "{refused:#?}");
    assert!(started.code == 0 && after.starts_with("running Up"), "{started:#?} {after}");
    assert!(removed.code == 0 && is_alive, "{removed:#?}");
    place.nothing_left();
}
