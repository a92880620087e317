//! What callers bring along, and what else goes on around a mount or a container.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::*;

/// A shell script with the program as `$1`, the tiny image as `$2` and the place as `$3`.
fn script(place: &Place, text: &str) -> Done {
    let mut bash = Command::new("bash");
    bash.args(["-uc", text, "bash"]).arg(layerfs_path()).arg(image("tiny").join("oci")).arg(place.path(""));
    finish(bash.env("LAYERFS_ROOT", place.store()))
}

#[test]
fn a_running_container_keeps_no_mount_busy() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&[], image("tiny").join("oci"));
    let mut run = place.command();
    run.args(["run", "--rm"]).arg(image("tiny").join("oci")).args(["sh", "-c", "echo ready; exec sleep 60"]);
    let mut child = run.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line)
        .unwrap();
    place.layerfs(&["umount".as_ref(), place.mnt().as_os_str()]).ok();
    // The server has ended although the container runs.
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    drop(mounted);
    place.nothing_left();
}

#[test]
fn the_callers_umask_stays_outside() {
    needs_mount!();
    let place = Place::new();
    let done = script(
        &place,
        "umask 077; \"$1\" run --rm -v /usr:/made/here \"$2\" sh -c 'umask; stat -c %a /etc/hosts /made'",
    );
    assert_eq!(done.ok(), "0022\n644\n755");
}

#[test]
fn a_caller_that_ignores_its_children() {
    needs_mount!();
    let place = Place::new();
    let ignore = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])";
    let done = script(&place, &format!("python3 -c '{ignore}' \"$1\" run --rm \"$2\" sh -c 'exit 3'"));
    assert_eq!((done.code, done.err.contains("No child")), (3, false), "{done:#?}");
}

#[test]
fn a_second_signal_does_not_lose_the_end() {
    needs_mount!();
    if is_root() || !has_id_ranges() {
        skip!("only newgidmap can be made slow");
    }
    let place = Place::new();
    // Until the signals are blocked, nothing is there yet that one could lose: the ids are prepared beside what comes before.
    let done = script(
        &place,
        "cd \"$3\"; printf '#!/bin/sh\\n: >%s/started; sleep 3\\nexec /usr/bin/newgidmap \"$@\"\\n' \"$PWD\" >newgidmap; chmod +x newgidmap
         PATH=$PWD:$PATH \"$1\" run \"$2\" true & until test -e started && grep -q 'SigBlk:.*[1-9a-f]' /proc/$!/status; do sleep 0.05; done
         kill -INT $!; kill -TERM $!
         wait $!; echo $?; \"$1\" ps -a | grep -c 'Exited (130)'",
    );
    assert_eq!(done.ok(), "130\n1");
}

#[test]
fn within_a_namespace_of_one_id() {
    needs_mount!();
    let place = Place::new();
    assert_eq!(script(&place, "unshare -Ur \"$1\" run --rm \"$2\" id -u").ok(), "0");
}

#[test]
fn output_that_nobody_reads() {
    needs_mount!();
    let place = Place::new();
    let done = script(
        &place,
        "for c in 'ps -a' 'completions bash'; do { sleep 0.3; \"$1\" $c; } | true; echo ${PIPESTATUS[0]}; done",
    );
    assert_eq!((done.ok(), done.err.as_str()), ("0\n0", ""));
    let done = script(&place, "\"$1\" ps >/dev/full");
    assert_eq!(done.code, 125, "{done:#?}");
}

#[test]
fn an_interrupted_mount_leaves_no_container() {
    needs_mount!();
    let archive = image("debian").join("docker-gzip.tar");
    if !archive.exists() {
        skip!("must run: no image {}: run scripts/images", archive.display());
    }
    let place = Place::new();
    let mut child = place.command().arg("mount").arg(&archive).arg(place.mnt()).spawn().unwrap();
    let index = place.store().join("index");
    assert!(eventually(|| fs::read_dir(&index).is_ok_and(|files| files.count() > 0)));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(place.containers(), Vec::<String>::new());
    place.nothing_left();
}

#[test]
fn rm_force_of_a_mount_in_use() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&[], image("tiny").join("oci"));
    let open = fs::File::open(mounted.path("hard/plain")).unwrap();
    place.layerfs(&["rm", "-f", &mounted.id]).ok();
    assert!(place.containers().is_empty());
    drop((open, mounted));
    place.nothing_left();
}

#[test]
fn rm_of_a_container_that_is_mounted_again() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&[], image("tiny").join("oci"));
    let id = mounted.id.clone();
    mounted.unmount();
    place.mount(&["--rm", "--container", &id], image("tiny").join("oci")).unmount();
    assert_eq!(place.containers(), Vec::<String>::new());
}

#[test]
fn umount_through_a_symlink() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&[], image("tiny").join("oci"));
    std::os::unix::fs::symlink("mnt", place.path("link")).unwrap();
    place.layerfs(&["umount".as_ref(), place.path("link").as_os_str()]).ok();
    assert!(!is_mounted(&place.mnt()));
    drop(mounted);
    let done = place.layerfs(&["umount".as_ref(), place.path("link").as_os_str()]);
    assert!(done.code == 125 && done.err.contains("no layerfs mount"), "{done:#?}");
}

/// An image of nothing but a program, as `FROM scratch` makes it, still has to resolve names.
#[test]
fn an_image_without_etc() {
    needs_mount!();
    let place = Place::new();
    let done = script(
        &place,
        "cd \"$3\"; mkdir -p bare/bin; cp /bin/busybox bare/bin
         \"$1\" run --rm --hostname box ./bare /bin/busybox cat /etc/hostname",
    );
    assert_eq!(done.ok(), "box");
    let done = script(&place, "cd \"$3\"; ln -s bin bare/proc; \"$1\" run --rm ./bare /bin/busybox true");
    assert!(done.code == 125 && done.err.contains("mount /proc: a symlink in this image"), "{done:#?}");
}

/// A store that is full when the mount is to be written down.
#[test]
fn a_mount_that_cannot_be_recorded() {
    needs_mount!();
    if !is_root() {
        skip!("a small filesystem for the store is for root to mount");
    }
    let place = Place::new();
    let done = script(
        &place,
        "cd \"$3\"; mkdir small; mount -t tmpfs -o size=2m small small; export LAYERFS_ROOT=$PWD/small/store
         id=$(\"$1\" mount \"$2\" mnt) && \"$1\" umount mnt
         dd if=/dev/zero of=small/fill bs=4k 2>/dev/null
         \"$1\" mount --container $id mnt; code=$?
         umount -l small; exit $code",
    );
    assert!(done.code == 125 && done.err.contains("No space left"), "{done:#?}");
    assert!(!is_mounted(&place.mnt()));
    assert!(Path::new(&place.mnt()).read_dir().unwrap().next().is_none());
    place.nothing_left();
}
