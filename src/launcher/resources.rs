//! What a container may take: as it was asked for, and as the files of its control group say it.

use serde::{Deserialize, Serialize};

/// What a container may take. Nothing is limited but what is set, and the number of processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Whether it has a control group at all.
    pub cgroups: Cgroups,
    /// The control group, or the slice of systemd, that its own is made in.
    pub parent: Option<String>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; twice the memory when only that is limited.
    pub memory_swap: Option<Limit>,
    /// Bytes of memory that are left to it while the host has others to take from.
    pub memory_reservation: Option<u64>,
    /// Its share of a busy processor, from 2 to 262144; 1024 is everybody's.
    pub cpu_shares: Option<u64>,
    /// Microseconds in which it may run for `cpu_quota`.
    pub cpu_period: Option<u64>,
    /// Microseconds for which it may run, on all processors together, in each period.
    pub cpu_quota: Option<Limit>,
    /// How many processors it may use, in thousandths of a millionth.
    pub nano_cpus: Option<u64>,
    /// Which processors it may use, as `0-3,5`.
    pub cpuset_cpus: Option<String>,
    /// Which memory nodes it may use.
    pub cpuset_mems: Option<String>,
    /// How many processes and threads it may have.
    pub pids_limit: Option<Limit>,
    /// Its share of a busy disk, from 10 to 1000.
    pub blkio_weight: Option<u16>,
}

/// Whether a container has a control group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroups {
    /// Where the host lets us make one.
    #[default]
    Enabled,
    /// It has not.
    Disabled,
}

/// An upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// This many.
    Of(u64),
    /// As many as there are.
    Unlimited,
}

impl Limit {
    fn text(self) -> String {
        match self {
            Self::Of(number) => number.to_string(),
            Self::Unlimited => "max".to_owned(),
        }
    }
}

/// A value for one file of a control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// What was typed for it; `None` for what nobody asked for, which is left out where it cannot be had.
    pub(super) option: Option<&'static str>,
    /// Which controller has the file.
    pub(super) controller: &'static str,
    /// The file and what is written to it; of several the first that exists.
    pub(super) ways: Vec<(&'static str, String)>,
}

/// Podman's.
const PIDS_DEFAULT: u64 = 2048;
/// Docker's, in microseconds.
const PERIOD_DEFAULT: u64 = 100_000;
const NANOS_PER_CPU: u64 = 1_000_000_000;

impl Resources {
    /// The files to write, in that order.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let set = |option, controller, file, value| Setting {
            option: Some(option),
            controller,
            ways: vec![(file, value)],
        };
        let mut settings = Vec::new();
        if let Some(bytes) = self.memory {
            settings.push(set("--memory", "memory", "memory.max", bytes.to_string()));
        }
        settings.extend(self.swap());
        if let Some(bytes) = self.memory_reservation {
            settings.push(set("--memory-reservation", "memory", "memory.low", bytes.to_string()));
        }
        if let Some(shares) = self.cpu_shares {
            settings.push(set("--cpu-shares", "cpu", "cpu.weight", weight_of_shares(shares).to_string()));
        }
        settings.extend(self.cpu_time());
        if let Some(list) = &self.cpuset_cpus {
            settings.push(set("--cpuset-cpus", "cpuset", "cpuset.cpus", list.clone()));
        }
        if let Some(list) = &self.cpuset_mems {
            settings.push(set("--cpuset-mems", "cpuset", "cpuset.mems", list.clone()));
        }
        if let Some(weight) = self.blkio_weight {
            settings.push(Setting {
                option: Some("--blkio-weight"),
                controller: "io",
                ways: vec![
                    ("io.bfq.weight", weight.to_string()),
                    ("io.weight", io_weight(weight).to_string()),
                ],
            });
        }
        settings.push(Setting {
            option: self.pids_limit.map(|_| "--pids-limit"),
            controller: "pids",
            ways: vec![("pids.max", self.pids_limit.unwrap_or(Limit::Of(PIDS_DEFAULT)).text())],
        });
        settings
    }

    /// Version 2 limits swap alone. Without a wish it is as much as memory, as docker and podman have it.
    fn swap(&self) -> Option<Setting> {
        let memory = self.memory?;
        let (option, swap) = match self.memory_swap {
            None => (None, Limit::Of(memory)),
            Some(Limit::Unlimited) => (Some("--memory-swap"), Limit::Unlimited),
            Some(Limit::Of(both)) => (Some("--memory-swap"), Limit::Of(both.saturating_sub(memory))),
        };
        Some(Setting { option, controller: "memory", ways: vec![("memory.swap.max", swap.text())] })
    }

    fn cpu_time(&self) -> Option<Setting> {
        let (option, quota, period) = match (self.nano_cpus, self.cpu_quota, self.cpu_period) {
            (Some(nanos), ..) => {
                let quota = u128::from(nanos) * u128::from(PERIOD_DEFAULT) / u128::from(NANOS_PER_CPU);
                ("--cpus", Limit::Of(u64::try_from(quota).unwrap_or(u64::MAX)), PERIOD_DEFAULT)
            }
            (None, Some(quota), period) => ("--cpu-quota", quota, period.unwrap_or(PERIOD_DEFAULT)),
            (None, None, Some(period)) => ("--cpu-period", Limit::Unlimited, period),
            (None, None, None) => return None,
        };
        let value = format!("{} {period}", quota.text());
        Some(Setting { option: Some(option), controller: "cpu", ways: vec![("cpu.max", value)] })
    }

    /// What was typed that needs a control group.
    #[must_use]
    pub fn needs_cgroup(&self) -> Option<&'static str> {
        let parent = self.parent.as_ref().map(|_| "--cgroup-parent");
        parent.or_else(|| self.settings().iter().find_map(|setting| setting.option))
    }
}

/// As the OCI runtime specification converts them: 2 to 262144 become 1 to 10000.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// As the OCI runtime specification converts them: 10 to 1000 become 1 to 10000.
fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.clamp(10, 1000) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(resources: &Resources) -> Vec<(&'static str, String)> {
        resources.settings().into_iter().flat_map(|setting| setting.ways).collect()
    }

    #[test]
    fn nothing_asked_for() {
        let nothing = Resources::default();
        assert_eq!(written(&nothing), [("pids.max", "2048".to_owned())]);
        assert_eq!(nothing.needs_cgroup(), None);
        assert_eq!(Resources { parent: Some("x".into()), ..nothing }.needs_cgroup(), Some("--cgroup-parent"));
    }

    #[test]
    fn swap_is_what_is_beyond_memory() {
        let swap = |memory_swap| {
            let asked = Resources { memory: Some(100), memory_swap, ..Resources::default() };
            let setting = asked.swap().unwrap();
            (setting.option, setting.ways[0].1.clone())
        };
        assert_eq!(swap(None), (None, "100".into()));
        assert_eq!(swap(Some(Limit::Of(150))), (Some("--memory-swap"), "50".into()));
        assert_eq!(swap(Some(Limit::Of(100))), (Some("--memory-swap"), "0".into()));
        assert_eq!(swap(Some(Limit::Unlimited)), (Some("--memory-swap"), "max".into()));
    }

    #[test]
    fn processor_time() {
        let asked = |nano_cpus, cpu_quota, cpu_period| {
            let asked = Resources { nano_cpus, cpu_quota, cpu_period, ..Resources::default() };
            asked.cpu_time().map(|setting| (setting.option.unwrap(), setting.ways[0].1.clone()))
        };
        assert_eq!(asked(Some(1_500_000_000), None, None), Some(("--cpus", "150000 100000".into())));
        assert_eq!(asked(Some(10_000_000), None, None), Some(("--cpus", "1000 100000".into())));
        assert_eq!(asked(None, Some(Limit::Of(5000)), None), Some(("--cpu-quota", "5000 100000".into())));
        assert_eq!(asked(None, Some(Limit::Of(5)), Some(9)), Some(("--cpu-quota", "5 9".into())));
        assert_eq!(asked(None, None, Some(50_000)), Some(("--cpu-period", "max 50000".into())));
        assert_eq!(asked(None, None, None), None);
    }

    #[test]
    fn weights_keep_their_ends() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 39, 10_000]);
        assert_eq!([10, 500, 1000].map(io_weight), [1, 4950, 10_000]);
        let asked = Resources { blkio_weight: Some(500), ..Resources::default() };
        let ways = [("io.bfq.weight", "500".to_owned()), ("io.weight", "4950".to_owned())];
        assert_eq!(asked.settings()[0].ways, ways);
    }
}
