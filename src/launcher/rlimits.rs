//! Resource limits of processes, and how likely the kernel is to kill them when memory runs out.

use nix::sys::prctl;
use nix::sys::resource::{Resource as Nix, setrlimit};
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
const NAMES: [(&str, Resource, Nix); 16] = [
    ("as", Resource::As, Nix::RLIMIT_AS),
    ("core", Resource::Core, Nix::RLIMIT_CORE),
    ("cpu", Resource::Cpu, Nix::RLIMIT_CPU),
    ("data", Resource::Data, Nix::RLIMIT_DATA),
    ("fsize", Resource::Fsize, Nix::RLIMIT_FSIZE),
    ("locks", Resource::Locks, Nix::RLIMIT_LOCKS),
    ("memlock", Resource::Memlock, Nix::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::Msgqueue, Nix::RLIMIT_MSGQUEUE),
    ("nice", Resource::Nice, Nix::RLIMIT_NICE),
    ("nofile", Resource::Nofile, Nix::RLIMIT_NOFILE),
    ("nproc", Resource::Nproc, Nix::RLIMIT_NPROC),
    ("rss", Resource::Rss, Nix::RLIMIT_RSS),
    ("rtprio", Resource::Rtprio, Nix::RLIMIT_RTPRIO),
    ("rttime", Resource::Rttime, Nix::RLIMIT_RTTIME),
    ("sigpending", Resource::Sigpending, Nix::RLIMIT_SIGPENDING),
    ("stack", Resource::Stack, Nix::RLIMIT_STACK),
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
    for limit in &plan.rlimits {
        let Some((name, _, number)) = NAMES.iter().find(|row| row.1 == limit.resource) else { continue };
        setrlimit(*number, limit.soft, limit.hard).stage(&format!("--ulimit {name}"))?;
    }
    Ok(())
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
