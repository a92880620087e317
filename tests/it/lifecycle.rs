//! How a mount begins and ends, and what remains of it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::*;

/// Ends the mount by `end`; the server must go by itself.
fn ends_by(end: impl Fn(&Place)) {
    let place = Place::new();
    let mounted = place.mount(&[], image("tiny").join("oci"));
    fs::write(mounted.path("etc/kept"), "kept").unwrap();
    end(&place);
    place.nothing_left();
    let id = mounted.id.clone();
    let again = place.mount(&["--container", &id], image("tiny").join("oci"));
    assert_eq!(fs::read_to_string(again.path("etc/kept")).unwrap(), "kept");
    again.unmount();
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn layerfs_umount() {
    needs_mount!();
    ends_by(|place| {
        place.layerfs(&[OsStr::new("umount"), place.mnt().as_os_str()]).ok();
    });
}

/// Also of a container that goes away at its end: whoever waited for the end can remove the store.
#[test]
fn layerfs_umount_waits_until_all_is_removed() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&["--rm"], image("tiny").join("oci"));
    (0..2000).for_each(|n| fs::write(mounted.path(&format!("etc/new-{n}")), "x").unwrap());
    place.layerfs(&[OsStr::new("umount"), place.mnt().as_os_str()]).ok();
    assert_eq!(place.containers(), [""; 0]);
}

/// Not only until it has let go of the container: it has the image open and locked until its very end.
#[test]
fn layerfs_umount_waits_for_the_end_of_the_server() {
    needs_mount!();
    let place = Place::new();
    for _ in 0..20 {
        let _mounted = place.mount(&["--rm"], image("tiny").join("oci"));
        let server = format!("/proc/{}", place.server());
        place.layerfs(&[OsStr::new("umount"), place.mnt().as_os_str()]).ok();
        // A zombie waits for its parent only, unless it is that of a first thread whose others go on.
        let stat = fs::read_to_string(format!("{server}/stat")).unwrap_or_default();
        let threads = fs::read_dir(format!("{server}/task")).into_iter().flatten().count();
        let has_ended = [") Z ", ") X "].iter().any(|state| stat.contains(state));
        assert!(threads == 0 || threads == 1 && (has_ended || stat.is_empty()), "{threads} threads: {stat}");
    }
}

#[test]
fn fusermount() {
    needs_mount!();
    ends_by(|place| {
        shell("fusermount3 -u \"$1\"", &[&place.mnt()]).ok();
    });
}

#[test]
fn umount() {
    needs_mount!();
    if !is_root() {
        skip!("umount(8) of a FUSE mount is for root");
    }
    ends_by(|place| {
        shell("umount \"$1\"", &[&place.mnt()]).ok();
    });
}

#[test]
fn sigterm() {
    needs_mount!();
    ends_by(|place| signal(place.server(), "TERM"));
}

/// Two mounts on one path, one that is moved, and something else on top.
const OTHERS: &str = r#"
cd "$2"; ln -s "$1" program; layerfs=$PWD/program; mkdir low low2 other; echo 1 >low/a; echo 2 >low2/a
server() { pgrep -f "^$layerfs -o lowerdir=$1 mnt"; }
gone() { for i in $(seq 1200); do server "$1" >/dev/null || return 0; sleep 0.05; done; return 1; }
timeout 60 "$layerfs" -o lowerdir=low mnt; timeout 60 "$layerfs" -o lowerdir=low2 mnt
kill -TERM "$(server low)"; sleep 2; [ "$(timeout 60 cat mnt/a)" = 2 ]
kill -TERM "$(server low2)"; gone low2; [ "$(timeout 60 cat mnt/a)" = 1 ]
kill -TERM "$(server low)"; gone low; test ! -e mnt/a
timeout 60 "$layerfs" -o lowerdir=low mnt; mount --move mnt other; mount -t tmpfs none mnt; touch mnt/tmpfs
kill -TERM "$(server low)"; gone low; test -e mnt/tmpfs; test ! -e other/a; umount mnt
timeout 60 "$layerfs" -o lowerdir=low mnt; mount -t tmpfs none mnt; touch mnt/tmpfs
kill -TERM "$(server low)"; sleep 2; test -e mnt/tmpfs; umount mnt; [ "$(timeout 60 cat mnt/a)" = 1 ]
kill -TERM "$(server low)"; gone low; test ! -e mnt/a
"#;

#[test]
fn sigterm_leaves_other_mounts() {
    needs_mount!();
    if !is_root() {
        skip!("fusermount3 does not mount on top of an ordinary user's mount");
    }
    let place = Place::new();
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "bash", "-exc", OTHERS, "bash"]);
    command.arg(layerfs_path()).arg(place.path(""));
    let done = finish(&mut command);
    assert_eq!(done.code, 0, "{done:#?}");
    place.nothing_left();
}

/// A mount that is gone but in use, and another in its place.
const IN_ITS_PLACE: &str = r#"
cd "$2"; mkdir low low2; echo 1 >low/a; echo 2 >low2/a; ln -s "$1" program; layerfs=$PWD/program
gone() { for i in $(seq 1200); do pgrep -f "^$layerfs -o lowerdir=$1 mnt" >/dev/null || return 0; sleep 0.05; done; return 1; }
timeout 60 "$layerfs" -o lowerdir=low mnt
exec 7<mnt/a
if [ "$(id -u)" = 0 ]; then umount -l mnt; else fusermount3 -uz mnt; fi
timeout 60 "$layerfs" -o lowerdir=low2 mnt 7<&-
[ "$(cat <&7)" = 1 ]; exec 7<&-
gone low; [ "$(timeout 60 cat mnt/a)" = 2 ]
if [ "$(id -u)" = 0 ]; then umount mnt; else fusermount3 -u mnt; fi; gone low2
"#;

#[test]
fn a_server_that_ends_leaves_what_came_after_it() {
    needs_mount!();
    let place = Place::new();
    let mut command = Command::new("bash");
    let done = finish(command.args(["-ec", IN_ITS_PLACE, "bash"]).arg(layerfs_path()).arg(place.path("")));
    assert_eq!(done.code, 0, "{done:#?}");
    place.nothing_left();
}

#[test]
fn nothing_stays_mounted_when_the_handshake_fails() {
    needs_mount!();
    if !is_root() {
        skip!("fusermount3 has no privileges under strace");
    }
    let place = Place::new();
    fs::create_dir(place.path("low")).unwrap();
    let script = "strace -f -o /dev/null -P /dev/fuse -e trace=read -e inject=read:error=EIO:when=1 \
                  \"$1\" -o lowerdir=\"$2/low\" \"$2/mnt\"";
    let done = shell(script, &[Path::new(&layerfs_path()), &place.path("")]);
    if done.err.contains("strace: ") {
        skip!("strace cannot trace here: {}", done.err);
    }
    assert!(done.code != 0 && done.err.contains("Input/output error"), "{done:#?}");
    place.nothing_left();
}

#[test]
fn foreground_ends_by_sigint() {
    needs_mount!();
    let place = Place::new();
    let mut command = place.command();
    command.args(["mount", "--foreground", "--rm"]).arg(image("tiny").join("oci")).arg(place.mnt());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(eventually(|| is_mounted(&place.mnt())), "not mounted");
    assert!(child.try_wait().unwrap().is_none(), "--foreground returned");
    assert!(place.mnt().join("etc/passwd").exists());
    signal(child.id(), "INT");
    assert_eq!(exit_code(child.wait().unwrap()), 0);
    place.nothing_left();
    assert!(place.containers().is_empty());
}

#[test]
fn the_callers_pipe_is_closed() {
    needs_mount!();
    let place = Place::new();
    // A command substitution waits until nobody holds the pipe any more.
    let script = r#"
        id=$(timeout 60 "$1" mount --rm "$2" "$3" 2>&1) && [ -n "$id" ] && [ "$(wc -w <<<"$id")" = 1 ]
    "#;
    let mut command = Command::new("timeout");
    command.args(["60", "bash", "-ec", script, "bash"]).arg(layerfs_path());
    command.arg(image("tiny").join("oci")).arg(place.mnt()).env("LAYERFS_ROOT", place.store());
    finish(&mut command).ok();
    place.layerfs(&[OsStr::new("umount"), place.mnt().as_os_str()]).ok();
}

#[test]
fn rm_deletes_the_container_directory() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&["--rm"], image("tiny").join("oci"));
    fs::write(mounted.path("etc/gone"), "gone").unwrap();
    assert_eq!(place.containers(), [mounted.id.as_str()]);
    mounted.unmount();
    assert!(eventually(|| place.containers().is_empty()), "{:?}", place.containers());
}

#[test]
fn upper_of_the_users_own() {
    needs_mount!();
    let place = Place::new();
    let upper = place.path("own");
    fs::create_dir_all(&upper).unwrap();
    let option = upper.to_str().unwrap();
    let mounted = place.mount(&["--upper", option], image("tiny").join("docker.tar"));
    fs::write(mounted.path("etc/mine"), "mine").unwrap();
    mounted.unmount();
    assert_eq!(fs::read_to_string(upper.join("upper/etc/mine")).unwrap(), "mine");
    assert!(upper.join("work").is_dir());
    let mounted = place.mount(&["--upper", option], image("tiny").join("docker.tar"));
    assert_eq!(fs::read_to_string(mounted.path("etc/mine")).unwrap(), "mine");
    mounted.unmount();
}

#[test]
fn read_only() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&["--read-only"], image("tiny").join("oci"));
    let error = fs::write(mounted.path("tmp/new"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let error = fs::remove_file(mounted.path("etc/passwd")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    mounted.unmount();
}

#[test]
fn one_container_is_mounted_once() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&[], image("tiny").join("oci"));
    let second = place.path("second");
    fs::create_dir(&second).unwrap();
    let mut command = place.command();
    command.args(["mount", "--container", &mounted.id]).arg(image("tiny").join("oci")).arg(&second);
    let done = finish(&mut command);
    assert_ne!(done.code, 0, "{done:#?}");
    assert!(!done.err.trim().is_empty() && !is_mounted(&second), "{done:#?}");
    assert!(mounted.path("etc/passwd").exists(), "the first mount does not suffer");
    mounted.unmount();
}

#[test]
fn two_containers_of_one_image_are_apart() {
    needs_mount!();
    let (one, other) = (Place::new(), Place::new());
    let first = one.mount(&["--rm"], image("tiny").join("oci"));
    let second = other.mount(&["--rm"], image("tiny").join("oci"));
    fs::write(first.path("etc/passwd"), "changed").unwrap();
    assert_ne!(fs::read(second.path("etc/passwd")).unwrap(), b"changed");
    first.unmount();
    second.unmount();
}

#[test]
fn data_outlives_a_killed_server() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&[], image("tiny").join("oci"));
    let script = r#"
        printf synced >"$1/etc/synced" && sync "$1/etc/synced"
        printf more >>"$1/etc/passwd" && sync "$1/etc/passwd"
        rm "$1/etc/group" && mv "$1/var" "$1/moved"
        sync -f "$1/etc"
    "#;
    shell(script, &[&place.mnt()]).ok();
    signal(place.server(), "KILL");
    assert!(eventually(|| place.processes().is_empty()));
    let id = mounted.id.clone();
    drop(mounted);
    assert!(!is_mounted(&place.mnt()));

    let mounted = place.mount(&["--container", &id], image("tiny").join("oci"));
    assert_eq!(fs::read_to_string(mounted.path("etc/synced")).unwrap(), "synced");
    assert!(fs::read_to_string(mounted.path("etc/passwd")).unwrap().ends_with("more"));
    assert!(!mounted.path("etc/group").exists());
    assert!(mounted.path("moved/lib").is_dir() && !mounted.path("var").exists());
    mounted.unmount();
}

#[test]
fn ps_inspect_rm() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&[], image("tiny").join("oci"));
    let id = mounted.id.clone();
    let short = &id[..id.len().min(12)];
    assert!(place.layerfs(&["ps", "-a"]).ok().contains(short), "a mounted container is listed");
    let done = place.layerfs(&["rm", &id]);
    assert_ne!(done.code, 0, "what is mounted is not removed: {done:#?}");
    mounted.unmount();

    assert!(place.layerfs(&["ps", "-a"]).ok().contains(short), "an unmounted container is listed");
    let done = place.layerfs(&["inspect", &id]);
    let shown: serde_json::Value = serde_json::from_str(done.ok()).expect("inspect prints JSON");
    assert!(shown.to_string().contains(&id), "{shown}");
    place.layerfs(&["rm", &id]).ok();
    assert!(!place.layerfs(&["ps", "-a"]).ok().contains(short));
    assert!(place.containers().is_empty());
    assert_ne!(place.layerfs(&["inspect", &id]).code, 0);
    assert_ne!(place.layerfs(&["rm", &id]).code, 0);
}

#[test]
fn known_image_is_not_indexed_again() {
    needs_mount!();
    let place = Place::new();
    place.mount(&["--rm"], image("tiny").join("docker.tar")).unmount();
    let indexes = |place: &Place| -> Vec<_> {
        let entries = fs::read_dir(place.store().join("index")).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> = entries.map(|path| (inode(&path), path)).collect();
        found.sort();
        found
    };
    let first = indexes(&place);
    assert!(!first.is_empty());
    place.mount(&["--rm"], image("tiny").join("docker.tar")).unmount();
    assert_eq!(indexes(&place), first);
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).unwrap().ino()
}
