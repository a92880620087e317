//! The mounts of a bundle: the same as those that [`crate::launcher::mounts`] makes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Process, text};
use crate::launcher::failure::{Context as _, Step};
use crate::launcher::mounts::{TTY_GID, has_cgroup2};
use crate::launcher::plan::{Device, MountFlags, Network, Plan, Tmpfs, Volume};
use crate::launcher::user_mounts;

const INERT: [&str; 3] = ["nosuid", "nodev", "noexec"];

/// All of them, outer ones first. Of the plan's files those at `places` are written to `bundle`.
pub(super) fn all(plan: &Plan, process: &Process, bundle: &Path, places: &[PathBuf]) -> Step<Vec<Value>> {
    user_mounts::check_destinations(plan)?;
    let mut mounts: Vec<(PathBuf, Value)> = Vec::new();
    let is_users = |at: &Path| plan.volumes.iter().any(|volume| volume.destination == at);
    for (at, mount) in usual(plan, process) {
        if !is_users(Path::new(at)) {
            mounts.push((at.into(), mount));
        }
    }
    for (number, file) in plan.files.iter().enumerate() {
        if places.contains(&file.destination) && !is_users(&file.destination) {
            let source = bundle.join("files").join(number.to_string());
            fs::write(&source, &file.content).at("write", &source)?;
            let access = if plan.read_only { "ro" } else { "rw" };
            mounts.push(bind(&source, &file.destination, &[&["bind", access], &INERT[..]].concat())?);
        }
    }
    for tmpfs in &plan.tmpfs {
        mounts.push((tmpfs.destination.clone(), new_tmpfs(tmpfs)?));
    }
    for volume in &plan.volumes {
        mounts.push(of_volume(volume)?);
    }
    for Device { source, destination } in &plan.devices {
        mounts.push(bind(source, destination, &["bind", "nosuid", "noexec"])?);
    }
    mounts.sort_by_key(|(at, _)| at.components().count());
    Ok(mounts.into_iter().map(|(_, mount)| mount).collect())
}

/// What every container has.
fn usual(plan: &Plan, process: &Process) -> Vec<(&'static str, Value)> {
    let mount = |at: &'static str, kind: &str, options: &[&str]| {
        (at, json!({"destination": at, "type": kind, "source": kind, "options": options}))
    };
    let dev = ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"];
    let terminals = format!("gid={TTY_GID}");
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if !process.single {
        pts.push(&terminals);
    }
    let size = format!("size={}", plan.shm_bytes);
    let shm = [&INERT[..], &["mode=1777", &size]].concat();
    let mut mounts = vec![
        mount("/proc", "proc", &INERT),
        sys(plan),
        mount("/dev", "tmpfs", &dev),
        mount("/dev/pts", "devpts", &pts),
        mount("/dev/shm", "tmpfs", &shm),
        mount("/dev/mqueue", "mqueue", &INERT),
    ];
    let cgroup = Path::new("/sys/fs/cgroup");
    let read_only = [&INERT[..], &["ro"]].concat();
    if has_cgroup2(cgroup) {
        mounts.push(mount("/sys/fs/cgroup", "cgroup", &read_only));
    } else if plan.network == Network::Host && cgroup.is_dir() {
        // A copy of /sys brings the host's cgroup version 1 trees along. They are none of the container's business.
        mounts.push(mount("/sys/fs/cgroup", "tmpfs", &read_only));
    }
    mounts
}

/// It shows the network namespace of whoever mounts it, so with the host's network it has to be the host's.
fn sys(plan: &Plan) -> (&'static str, Value) {
    let is_hosts = plan.network == Network::Host;
    let mut options = INERT.to_vec();
    if is_hosts {
        options.extend(["rbind", "rprivate", "rnosuid", "rnodev", "rnoexec"]);
    }
    if !plan.writable_sys {
        options.extend(if is_hosts { &["ro", "rro"][..] } else { &["ro"] });
    }
    let (kind, source) = if is_hosts { ("bind", "/sys") } else { ("sysfs", "sysfs") };
    ("/sys", json!({"destination": "/sys", "type": kind, "source": source, "options": options}))
}

fn of_volume(volume: &Volume) -> Step<(PathBuf, Value)> {
    let mut options = attributes(volume.flags);
    // Nothing is below a file, and crun cannot say it of one.
    let has_below = volume.recursive && volume.source.is_dir();
    if has_below {
        // And all that is mounted below it.
        let below = |option: &&'static str| match *option {
            "ro" => Some("rro"),
            "noexec" => Some("rnoexec"),
            "nosuid" => Some("rnosuid"),
            "nodev" => Some("rnodev"),
            _ => None,
        };
        let below: Vec<&str> = options.iter().filter_map(below).collect();
        options.extend(below);
    }
    options.push(if has_below { "rbind" } else { "bind" });
    bind(&volume.source, &volume.destination, &options)
}

fn bind(source: &Path, destination: &Path, options: &[&str]) -> Step<(PathBuf, Value)> {
    let options: Vec<&str> = options.iter().copied().chain(["rprivate"]).collect();
    let mount = json!({
        "destination": text(destination)?,
        "type": "bind",
        "source": text(source)?,
        "options": options,
    });
    Ok((destination.to_owned(), mount))
}

fn new_tmpfs(tmpfs: &Tmpfs) -> Step<Value> {
    let (uid, gid) = tmpfs.owner;
    let mut options: Vec<String> = attributes(tmpfs.flags).into_iter().map(str::to_owned).collect();
    options.push(format!("mode={:o}", tmpfs.mode));
    let owner = [("uid", uid), ("gid", gid)].into_iter().filter(|(_, id)| *id != 0);
    options.extend(owner.map(|(key, id)| format!("{key}={id}")));
    options.extend(tmpfs.bytes.map(|bytes| format!("size={bytes}")));
    options.extend(tmpfs.inodes.map(|inodes| format!("nr_inodes={inodes}")));
    if tmpfs.fill {
        options.push("tmpcopyup".to_owned());
    }
    Ok(json!({
        "destination": text(&tmpfs.destination)?,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": options,
    }))
}

fn attributes(flags: MountFlags) -> Vec<&'static str> {
    let MountFlags { read_only, no_exec, set_ids, devices } = flags;
    vec![
        if read_only { "ro" } else { "rw" },
        if no_exec { "noexec" } else { "exec" },
        if set_ids { "suid" } else { "nosuid" },
        if devices { "dev" } else { "nodev" },
    ]
}
