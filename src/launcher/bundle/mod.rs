//! A plan as an OCI bundle: the configuration (runtime-spec 1.0) from which an OCI runtime makes a container, beside the root
//! filesystem that is mounted already.
//!
//! The user namespace is the supervisor's, in which the runtime itself runs; so there is none in the configuration. A
//! network that is to be connected is there already, too.

mod mounts;

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::capabilities::Capabilities;
use super::environment;
use super::failure::{Context as _, Failure, Step};
use super::init::UMASK;
use super::plan::{Device, Network, Plan};
use super::rlimits;
use super::seccomp;
use super::user::User;

/// The configuration, from the directory that the mount point of the root filesystem is in.
pub const OCI_CONFIG: &str = "bundle/config.json";
const DIRECTORY: &str = "bundle";
const CONFIG: &str = "config.json";

/// What is found out about a container's process only when its root filesystem is there.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) user: User,
    /// The container has a single id.
    pub(super) single: bool,
    /// Capabilities that it can get at all.
    pub(super) bounding: Capabilities,
    /// Capabilities that it has.
    pub(super) own: Capabilities,
}

/// A bundle's directory.
#[derive(Debug)]
pub(super) struct Bundle(PathBuf);

impl Bundle {
    /// The one of a container, in place of what an earlier start has left.
    pub(super) fn make(plan: &Plan) -> Step<Self> {
        let path = plan.rootfs_mount_point.with_file_name(DIRECTORY);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("remove", &path),
            _ => DirBuilder::new().mode(0o700).create(&path).at("create", &path)?,
        }
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the configuration, and the files that are made for the container. `places` are those of its generated files that
    /// there is a place for.
    pub(super) fn write(&self, plan: &Plan, process: &Process, places: &[PathBuf]) -> Step<()> {
        let files = self.0.join("files");
        DirBuilder::new().mode(0o755).create(&files).at("create", &files)?;
        let config = self.config(plan, process, places)?;
        let path = self.0.join(CONFIG);
        let text = serde_json::to_vec_pretty(&config).map_err(io::Error::from).at("write", &path)?;
        fs::write(&path, text).at("write", &path)
    }

    fn config(&self, plan: &Plan, process: &Process, places: &[PathBuf]) -> Step<Value> {
        let Plan {
            hostname, args, cwd, terminal, read_only, rootfs_mount_point, rlimits, oom_score_adj, ..
        } = plan;
        ensure_complete(plan);
        let env = environment::complete(plan, &process.user.home);
        let mut program = json!({
            "terminal": terminal,
            "user": {
                "uid": process.user.uid,
                "gid": process.user.gid,
                "umask": UMASK,
                "additionalGids": process.user.groups,
            },
            "args": texts(args)?,
            "env": texts(&env)?,
            "cwd": text(cwd)?,
            "capabilities": capabilities(process),
            "rlimits": rlimits.iter().map(rlimit).collect::<Vec<_>>(),
            "noNewPrivileges": plan.no_new_privileges || process.single,
        });
        if let Some(adjustment) = oom_score_adj {
            program["oomScoreAdj"] = (*adjustment).into();
        }
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": program,
            "root": {"path": text(rootfs_mount_point)?, "readonly": read_only},
            "hostname": hostname,
            "mounts": mounts::all(plan, process, &self.0, places)?,
            "linux": linux(plan)?,
        }))
    }
}

/// All fields of a plan by name: one that is added has to be thought of here, before a runtime leaves out what was asked for.
fn ensure_complete(plan: &Plan) {
    let Plan {
        id: _,
        hostname: _,
        args: _,
        env: _,
        cwd: _,
        create_cwd: _,
        user: _,
        groups: _,
        timeout: _,
        init: _,
        subreaper: _,
        terminal: _,
        window: _,
        interactive: _,
        output: _,
        network: _,
        published: _,
        volumes: _,
        tmpfs: _,
        files: _,
        read_only: _,
        id_maps: _,
        own_ids: _,
        added_user: _,
        rootfs_mount_point: _,
        masked_paths: _,
        read_only_paths: _,
        capabilities: _,
        capabilities_of_users: _,
        seccomp: _,
        writable_sys: _,
        devices: _,
        no_new_privileges: _,
        rlimits: _,
        oom_score_adj: _,
        shm_bytes: _,
        resources: _,
        runtime: _,
    } = plan;
}

fn linux(plan: &Plan) -> Step<Value> {
    let mut linux = json!({
        "namespaces": namespaces(plan),
        "maskedPaths": texts(&plan.masked_paths)?,
        "readonlyPaths": texts(&plan.read_only_paths)?,
    });
    let filter = seccomp::oci_of(plan).map_err(io::Error::other).stage("seccomp")?;
    if let Some(filter) = filter {
        linux["seccomp"] = filter;
    }
    if !plan.devices.is_empty() {
        // Where the runtime keeps a list of devices; what there are nodes of is told by the mounts.
        let rules: Step<Vec<Value>> = plan.devices.iter().map(device_rule).collect();
        linux["resources"] = json!({"devices": rules?});
    }
    Ok(linux)
}

fn namespaces(plan: &Plan) -> Vec<Value> {
    let mut kinds = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    if plan.network == Network::None {
        kinds.push("network");
    }
    kinds.iter().map(|kind| json!({"type": kind})).collect()
}

fn capabilities(process: &Process) -> Value {
    // What another user than root keeps has to be ambient: the file that is executed gives none.
    let kept = if process.user.uid == 0 { Capabilities::NONE } else { process.own };
    json!({
        "bounding": process.bounding,
        "effective": process.own,
        "permitted": process.own,
        "inheritable": kept,
        "ambient": kept,
    })
}

fn rlimit(limit: &rlimits::Rlimit) -> Value {
    json!({"type": limit.resource.oci_name(), "soft": limit.soft, "hard": limit.hard})
}

fn device_rule(device: &Device) -> Step<Value> {
    let stat = rustix::fs::stat(&device.source).at("device", &device.source)?;
    let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::BlockDevice => "b",
        _ => "c",
    };
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": "rwm"}))
}

/// What JSON can hold.
fn text(of: &(impl AsRef<OsStr> + ?Sized)) -> Step<&str> {
    of.as_ref().to_str().ok_or_else(|| {
        let problem = io::Error::other(format!("{:?} is not UTF-8", of.as_ref()));
        let failure = Failure::new("configuration", &problem);
        Box::new(failure.hint("an OCI runtime takes nothing else: leave --runtime out"))
    })
}

fn texts(of: &[impl AsRef<OsStr>]) -> Step<Vec<&str>> {
    of.iter().map(text).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
