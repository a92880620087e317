//! Resource limits of processes, and how likely the kernel is to kill them when memory runs out.

use nix::sys::prctl;
use rustix::process::{Pid, Resource as Number, Rlimit as Pair, getrlimit, prlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::failure::{Context as _, Step};
use super::plan::Plan;

/// A resource limit (setrlimit(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Of what.
    pub resource: Resource,
    /// Soft limit; [`u64::MAX`] is none.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// What can be limited: its `RLIMIT_` name without that prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Address space in bytes.
    As,
    /// Size of a core file in bytes.
    Core,
    /// CPU seconds.
    Cpu,
    /// Data segment in bytes.
    Data,
    /// Size of a file in bytes.
    Fsize,
    /// File locks.
    Locks,
    /// Locked memory in bytes.
    Memlock,
    /// Bytes in POSIX message queues.
    Msgqueue,
    /// Ceiling of the nice value, as 20 minus it.
    Nice,
    /// Open files.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Resident memory in bytes; without effect.
    Rss,
    /// Real-time priority.
    Rtprio,
    /// Microseconds of real-time scheduling without a system call.
    Rttime,
    /// Queued signals.
    Sigpending,
    /// Stack in bytes.
    Stack,
}

/// All of them, by name.
const NAMES: [(&str, Resource, Number); 16] = [
    ("as", Resource::As, Number::As),
    ("core", Resource::Core, Number::Core),
    ("cpu", Resource::Cpu, Number::Cpu),
    ("data", Resource::Data, Number::Data),
    ("fsize", Resource::Fsize, Number::Fsize),
    ("locks", Resource::Locks, Number::Locks),
    ("memlock", Resource::Memlock, Number::Memlock),
    ("msgqueue", Resource::Msgqueue, Number::Msgqueue),
    ("nice", Resource::Nice, Number::Nice),
    ("nofile", Resource::Nofile, Number::Nofile),
    ("nproc", Resource::Nproc, Number::Nproc),
    ("rss", Resource::Rss, Number::Rss),
    ("rtprio", Resource::Rtprio, Number::Rtprio),
    ("rttime", Resource::Rttime, Number::Rttime),
    ("sigpending", Resource::Sigpending, Number::Sigpending),
    ("stack", Resource::Stack, Number::Stack),
];

impl Resource {
    /// The one of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|row| row.0 == name).map(|row| row.1)
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|row| row.0)
    }

    /// As the configuration of an OCI runtime has it.
    pub(super) fn oci_name(self) -> String {
        let name = NAMES.iter().find(|row| row.1 == self).map_or("", |row| row.0);
        format!("RLIMIT_{}", name.to_ascii_uppercase())
    }
}

/// Limits this process as the plan says.
pub(super) fn limit(plan: &Plan) -> Step<()> {
    for (name, number, limit) in numbered(plan) {
        let pair = Pair { current: finite(limit.soft), maximum: finite(limit.hard) };
        setrlimit(number, pair).stage(&format!("--ulimit {name}"))?;
    }
    Ok(())
}

/// Lets a process, this one if none, have limits that it could not give itself once it is in another user namespace.
pub(super) fn allow(plan: &Plan, process: Option<Pid>) -> Step<()> {
    for (name, number, limit) in numbered(plan) {
        let own = getrlimit(number);
        if own.maximum.is_some_and(|own| own < limit.hard) {
            let pair = Pair { current: own.current, maximum: finite(limit.hard) };
            prlimit(process, number, pair).stage(&format!("--ulimit {name}"))?;
        }
    }
    Ok(())
}

fn numbered(plan: &Plan) -> impl Iterator<Item = (&'static str, Number, &Rlimit)> {
    plan.rlimits.iter().filter_map(|limit| {
        NAMES.iter().find(|row| row.1 == limit.resource).map(|(name, _, number)| (*name, *number, limit))
    })
}

fn finite(limit: u64) -> Option<u64> {
    (limit != u64::MAX).then_some(limit)
}

/// Sets the plan's `oom_score_adj` for a child, which in another user namespace could only make it higher.
pub(super) fn adjust_oom_score_of(pid: i32, plan: &Plan) -> Step<()> {
    let Some(adjustment) = plan.oom_score_adj else { return Ok(()) };
    let path = format!("/proc/{pid}/oom_score_adj");
    std::fs::write(&path, adjustment.to_string()).at("write", &path)
}

/// Sets the plan's `oom_score_adj` for this process. Needs the `/proc` of somebody who can be trusted.
pub(super) fn adjust_oom_score(plan: &Plan) -> Step<()> {
    let Some(adjustment) = plan.oom_score_adj else { return Ok(()) };
    // The file belongs to the host's root while we are not dumpable. Nobody of the container sees us yet.
    prctl::set_dumpable(true).stage("oom_score_adj")?;
    let written = std::fs::write("/proc/self/oom_score_adj", adjustment.to_string());
    prctl::set_dumpable(false).stage("oom_score_adj")?;
    written.at("write", "/proc/self/oom_score_adj")
}
