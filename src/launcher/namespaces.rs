//! The namespaces of a running container, joined from outside.

use std::io;
use std::os::unix::fs::MetadataExt as _;

use nix::sched::{CloneFlags, setns};

use super::failure::{Context as _, Failure, Step};
use crate::sys::process::Watched;

/// Those of process `pid`, which is held as `other`, that are not ours.
pub(super) fn foreign(pid: u32, other: &Watched) -> Step<CloneFlags> {
    let all = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("mnt", CloneFlags::CLONE_NEWNS),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("net", CloneFlags::CLONE_NEWNET),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ];
    let mut foreign = CloneFlags::empty();
    for (name, flag) in all {
        let of = |process: &str| {
            let path = format!("/proc/{process}/ns/{name}");
            std::fs::metadata(&path).map(|namespace| namespace.ino()).at("look at", path)
        };
        if of(&pid.to_string())? != of("self")? {
            foreign |= flag;
        }
    }
    // The number says nothing any more when the process has ended. Those two every container has.
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if other.has_ended().stage("poll")? || !foreign.contains(own) {
        return Err(Box::new(Failure::new("look at the container", &io::Error::other("it has just ended"))));
    }
    Ok(foreign)
}

/// Joins namespaces of a container.
pub(super) fn join(other: &Watched, namespaces: CloneFlags) -> Step<()> {
    setns(other.as_fd(), namespaces).stage("join the container's namespaces").map_err(|failure| {
        let ended = other.has_ended().unwrap_or(false);
        if ended { Box::new(failure.hint("the container has just ended")) } else { failure }
    })
}
