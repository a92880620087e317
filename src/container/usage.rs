//! What running containers take of the machine: from their control groups, else from their processes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use super::{Container, State, Status};
use crate::launcher::{Network, Usage};

mod table;

pub use table::{Row, UnknownField, rows_as_json, rows_as_table, rows_by_template};

/// What a container has used until a moment; `None` where nobody counts, or it does not run.
#[derive(Clone, Debug)]
pub struct Sample {
    taken: Instant,
    used: Usage,
    /// Bytes received and sent by a network of its own.
    network: Option<(u64, u64)>,
}

impl Sample {
    /// Looks at a container.
    #[must_use]
    pub fn of(container: &Container, status: &Status) -> Self {
        let pid = match &status.state {
            State::Running { process, .. } if status.held => Some(process.pid),
            _ => None,
        };
        let mut used = status.cgroup().map(|cgroup| cgroup.usage()).unwrap_or_default();
        if let Some(pid) = pid
            && (used.cpu_micros.is_none() || used.memory.is_none() || used.pids.is_none())
        {
            let counted = of_processes(pid);
            used.cpu_micros = used.cpu_micros.or(counted.cpu_micros);
            used.memory = used.memory.or(counted.memory);
            used.pids = used.pids.or(counted.pids);
        }
        let has_network = container.config().run.as_ref().is_some_and(|run| run.network != Network::Host);
        let network = pid
            .filter(|_| has_network)
            .and_then(|pid| Some(traffic(&fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?)));
        Self { taken: Instant::now(), used, network }
    }
}

/// The processes of a pid namespace, added up.
fn of_processes(first: u32) -> Usage {
    let space_of = |process: &Path| fs::metadata(process.join("ns/pid")).map(|space| space.ino()).ok();
    let Some(space) = space_of(Path::new(&format!("/proc/{first}"))) else { return Usage::default() };
    let mut sum = Usage { cpu_micros: Some(0), memory: Some(0), pids: Some(0), ..Usage::default() };
    let add = |to: &mut Option<u64>, more: u64| *to = to.map(|sum| sum.saturating_add(more));
    for process in fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
        let text = |file: &str| fs::read_to_string(process.join(file)).unwrap_or_default();
        if space_of(&process) == Some(space) {
            let (stat, status) = (text("stat"), text("status"));
            add(&mut sum.cpu_micros, processor_micros(&stat).unwrap_or_default());
            add(&mut sum.memory, field(&status, "VmRSS:").unwrap_or_default().saturating_mul(1024));
            add(&mut sum.pids, field(&status, "Threads:").unwrap_or_default());
        }
    }
    sum
}

/// What a clock tick of /proc is on every architecture that there is a layerfs for.
const MICROS_PER_TICK: u64 = 10_000;

/// Fields 14 and 15 of proc_pid_stat(5); the second one, in parentheses, may hold anything.
fn processor_micros(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    user.checked_add(system)?.checked_mul(MICROS_PER_TICK)
}

/// A number of proc_pid_status(5) or proc_meminfo(5).
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Bytes received and sent, in a table of proc_pid_net(5), but for what a host sends itself.
fn traffic(table: &str) -> (u64, u64) {
    let mut sum = (0_u64, 0_u64);
    for line in table.lines() {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> =
            numbers.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        if let (false, Some(received), Some(sent)) = (name.trim() == "lo", numbers.first(), numbers.get(8)) {
            sum = (sum.0.saturating_add(*received), sum.1.saturating_add(*sent));
        }
    }
    sum
}

/// All the memory of the machine, in bytes.
fn memory_of_machine() -> Option<u64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 99 100";
        assert_eq!(processor_micros(stat), Some(110_000));
        assert_eq!(processor_micros("7 (a) S 1"), None);
        assert_eq!(field("Name:\tx\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  \
            eth0: 100 2 0 0 0 0 0 0 50 1 0 0 0 0 0 0\n  eth1: 1 2 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(table), (101, 52));
        assert!(memory_of_machine().unwrap() > 1 << 20);
    }

    #[test]
    fn processes_of_a_namespace() {
        let used = of_processes(std::process::id());
        // At least this one.
        assert!(
            used.pids.unwrap() >= 1 && used.memory.unwrap() > 1 << 20 && used.cpu_micros.is_some(),
            "{used:?}"
        );
        assert_eq!(of_processes(u32::MAX), Usage::default());
    }
}
