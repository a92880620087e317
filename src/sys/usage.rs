//! What this process takes of the machine.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// As far as it can be told: what cannot is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all threads in their own code, in nanoseconds.
    pub user_ns: u64,
    /// The same in the kernel.
    pub system_ns: u64,
    /// Memory that is not swapped out (proc_pid_status(5)).
    pub resident_bytes: u64,
}

/// What it has taken until now.
#[must_use]
pub fn of_this_process() -> Usage {
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    let (user_ns, system_ns) =
        usage.map_or((0, 0), |usage| (nanos(usage.user_time()), nanos(usage.system_time())));
    Usage { user_ns, system_ns, resident_bytes: resident_bytes().unwrap_or(0) }
}

fn nanos(time: TimeVal) -> u64 {
    let micros = time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_usec());
    u64::try_from(micros).unwrap_or(0).saturating_mul(1000)
}

fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        let before = of_this_process();
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        let bytes = text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096;
        // Other tests run meanwhile.
        assert!(before.resident_bytes.abs_diff(bytes) < bytes / 2, "{before:?}, {text}");
        let mut x = 1_u64;
        while of_this_process().user_ns <= before.user_ns {
            (0..100_000_u64).for_each(|y| x = std::hint::black_box(x ^ y));
        }
        assert!(of_this_process().user_ns < before.user_ns + 60_000_000_000);
    }
}
