//! Signals, and what is left when a process of ours is killed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::{CALLERS, Caller, Rootfs};

#[test]
fn signals_reach_the_program() {
    needs_root!();
    for caller in CALLERS {
        let rootfs = Rootfs::new(caller);
        let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
        let mut child = rootfs.command(&[], &["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        kill(pid(child.id()), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(9), "{caller:?}");
    }
}

#[test]
fn nothing_survives_the_starter_or_the_supervisor() {
    needs_root!();
    for caller in CALLERS {
        for victim in ["starter", "supervisor"] {
            survive(caller, victim);
        }
    }
}

/// Every process of the container holds the pipe, so its end says that all are gone.
fn survive(caller: Caller, victim: &str) {
    let rootfs = Rootfs::new(caller);
    let script = "sleep 600 & echo ready; exec sleep 600";
    let mut child = rootfs.command(&[], &["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut ready = String::new();
    output.read_line(&mut ready).unwrap();
    let starter = child.id();
    let children = fs::read_to_string(format!("/proc/{starter}/task/{starter}/children")).unwrap();
    let supervisor: u32 = children.trim().parse().unwrap();
    kill(pid(if victim == "starter" { starter } else { supervisor }), Signal::SIGKILL).unwrap();
    let since = Instant::now();
    output.read_to_end(&mut Vec::new()).unwrap();
    assert!(since.elapsed() < Duration::from_secs(10), "{caller:?} {victim}");
    let status = child.wait().unwrap();
    assert_eq!(status.code(), (victim == "supervisor").then_some(125), "{caller:?} {victim}");
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(&*rootfs.path().to_string_lossy()), "{caller:?} {victim}");
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}
