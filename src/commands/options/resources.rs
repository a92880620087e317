//! What a container may take.

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};

use crate::container::Wishes;
use crate::launcher::{Cgroups, Limit, Resources};

/// What a container may take
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct ResourceArgs {
    /// Memory, as 512m or 2g
    #[arg(long, short = 'm', value_name = "BYTES")]
    pub memory: Option<String>,
    /// Memory and swap together; -1: all swap there is (default: twice the memory)
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Memory that is left to it as long as others have more than they reserved
    #[arg(long, value_name = "BYTES")]
    pub memory_reservation: Option<String>,
    /// How many processors, as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// Share of a busy processor: 2 to 262144, where 1024 is usual
    #[arg(long, short = 'c', value_name = "SHARES")]
    pub cpu_shares: Option<u64>,
    /// Period of --cpu-quota in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// Processor time in each period, in microseconds; -1: all there is
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Which processors, as 0-3,5
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Which memory nodes, as 0,1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// How many processes and threads; -1: as many as there may be (default: 2048, where that can be limited)
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Share of a busy disk: 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// Refused: control groups of version 2 do not have it
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub oom_kill_disable: Option<bool>,
    /// Where its control group is made: a slice where systemd divides them, else a path
    #[arg(long, value_name = "SLICE|PATH")]
    pub cgroup_parent: Option<String>,
    /// Whether it has a control group: where one can be made, or not at all
    #[arg(long, value_enum, default_value = "enabled")]
    pub cgroups: CgroupsArg,
}

/// `--cgroups`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CgroupsArg {
    /// Where one can be made.
    #[default]
    Enabled,
    /// Not at all.
    Disabled,
    /// Podman's, for its monitor.
    #[value(hide = true)]
    NoConmon,
    /// Podman's, for services of systemd.
    #[value(hide = true)]
    Split,
}

/// Docker's: below that a container does not even start.
const MEMORY_MIN: u64 = 6 << 20;
/// Docker's, and the kernel's.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
const PERIOD: std::ops::RangeInclusive<u64> = 1000..=1_000_000;
const QUOTA_MIN: u64 = 1000;
const WEIGHT: std::ops::RangeInclusive<u16> = 10..=1000;
const NANOS_DIGITS: usize = 9;

impl ResourceArgs {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, wishes: &mut Wishes) -> anyhow::Result<()> {
        wishes.resources = self.resources()?;
        Ok(())
    }

    /// What a container may take that was made with `old`: what is given here, else that.
    pub(in crate::commands) fn changed_from(&self, old: &Resources) -> anyhow::Result<Resources> {
        ensure!(
            self.cgroup_parent.is_none(),
            "--cgroup-parent: where a control group is made stays as it is"
        );
        ensure!(
            self.cgroups == CgroupsArg::Enabled,
            "--cgroups: whether there is a control group stays as it is"
        );
        let mut asked = self.clone();
        match (&asked.memory, &asked.memory_swap) {
            (None, Some(_)) => asked.memory = old.memory.map(|bytes| bytes.to_string()),
            (Some(_), None) => {
                asked.memory_swap = old.memory_swap.map(|swap| match swap {
                    Limit::Of(bytes) => bytes.to_string(),
                    Limit::Unlimited => "-1".to_owned(),
                });
            }
            _ => {}
        }
        let new = asked.resources()?;
        let old = old.clone();
        let by_cpus = new.nano_cpus.is_some();
        let by_quota = new.cpu_quota.is_some() || new.cpu_period.is_some();
        Ok(Resources {
            cgroups: old.cgroups,
            parent: old.parent,
            memory: new.memory.or(old.memory),
            memory_swap: new.memory_swap.or(old.memory_swap),
            memory_reservation: new.memory_reservation.or(old.memory_reservation),
            cpu_shares: new.cpu_shares.or(old.cpu_shares),
            // Two ways to say one thing: the later one counts.
            cpu_period: if by_cpus { None } else { new.cpu_period.or(old.cpu_period) },
            cpu_quota: if by_cpus { None } else { new.cpu_quota.or(old.cpu_quota) },
            nano_cpus: if by_quota { None } else { new.nano_cpus.or(old.nano_cpus) },
            cpuset_cpus: new.cpuset_cpus.or(old.cpuset_cpus),
            cpuset_mems: new.cpuset_mems.or(old.cpuset_mems),
            pids_limit: new.pids_limit.or(old.pids_limit),
            blkio_weight: new.blkio_weight.or(old.blkio_weight),
        })
    }

    fn resources(&self) -> anyhow::Result<Resources> {
        ensure!(
            self.oom_kill_disable != Some(true),
            "--oom-kill-disable: control groups of version 2 have no such switch; give the container more memory, or \
             --oom-score-adj"
        );
        let (memory, memory_swap, memory_reservation) = self.memory()?;
        let (nano_cpus, cpu_quota) = self.processor_time()?;
        if let Some(shares) = self.cpu_shares.filter(|shares| *shares != 0) {
            ensure!(
                shares >= *SHARES.start(),
                "--cpu-shares: the minimum allowed cpu-shares is {}",
                SHARES.start()
            );
            ensure!(
                shares <= *SHARES.end(),
                "--cpu-shares: the maximum allowed cpu-shares is {}",
                SHARES.end()
            );
        }
        if let Some(weight) = self.blkio_weight.filter(|weight| *weight != 0) {
            ensure!(WEIGHT.contains(&weight), "--blkio-weight: range of blkio weight is from 10 to 1000");
        }
        for (option, list) in [("--cpuset-cpus", &self.cpuset_cpus), ("--cpuset-mems", &self.cpuset_mems)] {
            if let Some(list) = list {
                ensure!(is_list(list), "{option}: invalid value {list:?}: give numbers and ranges, as 0-3,5");
            }
        }
        Ok(Resources {
            cgroups: match self.cgroups {
                CgroupsArg::Enabled => Cgroups::Enabled,
                CgroupsArg::Disabled => Cgroups::Disabled,
                CgroupsArg::NoConmon | CgroupsArg::Split => {
                    bail!(
                        "--cgroups: enabled and disabled are supported; no-conmon and split are podman's own"
                    )
                }
            },
            parent: self.cgroup_parent.clone().filter(|parent| !parent.is_empty()),
            memory,
            memory_swap,
            memory_reservation,
            cpu_shares: self.cpu_shares.filter(|shares| *shares != 0),
            cpu_period: self.cpu_period.filter(|period| *period != 0),
            cpu_quota,
            nano_cpus,
            cpuset_cpus: self.cpuset_cpus.clone().filter(|list| !list.is_empty()),
            cpuset_mems: self.cpuset_mems.clone().filter(|list| !list.is_empty()),
            pids_limit: self.pids_limit.map(|limit| match u64::try_from(limit) {
                Ok(0) | Err(_) => Limit::Unlimited,
                Ok(limit) => Limit::Of(limit),
            }),
            blkio_weight: self.blkio_weight.filter(|weight| *weight != 0),
        })
    }

    /// The messages are docker's.
    fn memory(&self) -> anyhow::Result<(Option<u64>, Option<Limit>, Option<u64>)> {
        let size = |option: &str, text: &Option<String>| -> anyhow::Result<Option<u64>> {
            let Some(text) = text else { return Ok(None) };
            let size =
                bytes(text).with_context(|| format!("{option}: invalid size {text:?}: give it as 512m"))?;
            Ok(Some(size).filter(|size| *size != 0))
        };
        let memory = size("--memory", &self.memory)?;
        let swap = match self.memory_swap.as_deref() {
            Some("-1") => Some(Limit::Unlimited),
            _ => size("--memory-swap", &self.memory_swap)?.map(Limit::Of),
        };
        let reservation = size("--memory-reservation", &self.memory_reservation)?;
        ensure!(
            memory.is_none_or(|memory| memory >= MEMORY_MIN),
            "--memory: minimum memory limit allowed is 6MB"
        );
        ensure!(
            swap.is_none() || memory.is_some(),
            "--memory-swap: you should always set the memory limit when using the memoryswap limit (--memory)"
        );
        if let (Some(memory), Some(Limit::Of(swap))) = (memory, swap) {
            ensure!(
                swap >= memory,
                "--memory-swap: minimum memoryswap limit should be larger than memory limit: it is both together"
            );
        }
        if let (Some(memory), Some(reservation)) = (memory, reservation) {
            ensure!(
                memory >= reservation,
                "--memory: minimum memory limit can not be less than memory reservation limit"
            );
        }
        ensure!(
            reservation.is_none_or(|reservation| reservation >= MEMORY_MIN),
            "--memory-reservation: minimum memory reservation allowed is 6MB"
        );
        Ok((memory, swap, reservation))
    }

    fn processor_time(&self) -> anyhow::Result<(Option<u64>, Option<Limit>)> {
        let nanos = self.cpus.as_deref().map(nano_cpus).transpose()?.filter(|nanos| *nanos != 0);
        if nanos.is_some() {
            ensure!(self.cpu_period.is_none(), "--cpu-period and --cpus cannot be set together");
            ensure!(self.cpu_quota.is_none(), "--cpu-quota and --cpus cannot be set together");
            let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let most_nanos = u64::try_from(most).unwrap_or(u64::MAX).saturating_mul(1_000_000_000);
            ensure!(
                nanos.is_some_and(|nanos| nanos >= 10_000_000 && nanos <= most_nanos),
                "--cpus: range of CPUs is from 0.01 to {most}.00, as there are only {most} CPUs available"
            );
        }
        if let Some(period) = self.cpu_period.filter(|period| *period != 0) {
            ensure!(
                PERIOD.contains(&period),
                "--cpu-period: CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
            );
        }
        let quota = match self.cpu_quota.map(u64::try_from) {
            None | Some(Ok(0)) => None,
            Some(Err(_)) => Some(Limit::Unlimited),
            Some(Ok(quota)) => {
                ensure!(
                    quota >= QUOTA_MIN,
                    "--cpu-quota: CPU cfs quota can not be less than 1ms (i.e. 1000)"
                );
                Some(Limit::Of(quota))
            }
        };
        Ok((nanos, quota))
    }
}

/// A number of bytes as docker takes it: `6291456`, `6m`, `6MB`, `6MiB`, `1.5g`.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits =
        lower.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let unit = unit.trim_start();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" if unit == "ib" => return None,
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || part.contains('.') {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    // Digits beyond these are less than a byte.
    let part = &part[..part.len().min(18)];
    let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let part = if part.is_empty() { 0 } else { part.parse::<u128>().ok()? };
    whole.checked_add(u64::try_from((part << shift) / scale).ok()?)
}

/// `1.5` as thousandths of a millionth, without the detour of floating point.
fn nano_cpus(text: &str) -> anyhow::Result<u64> {
    let invalid = || format!("--cpus: {text:?} is no number of processors: give it as 1.5");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_some = !(whole.is_empty() && part.is_empty());
    ensure!(is_some && is_number(whole) && is_number(part) && part.len() <= NANOS_DIGITS, "{}", invalid());
    format!("{whole}{part:0<NANOS_DIGITS$}").parse().with_context(invalid)
}

/// Numbers and ranges, as `0-3,5`.
fn is_list(text: &str) -> bool {
    let is_number =
        |text: &str| text.parse::<u32>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.is_empty()
        || text.split(',').all(|range| match range.split_once('-') {
            None => is_number(range),
            Some((first, last)) => {
                is_number(first) && is_number(last) && first.parse::<u32>().ok() <= last.parse().ok()
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, number) in [
            ("6291456", 6 << 20),
            ("6m", 6 << 20),
            ("6MB", 6 << 20),
            ("6MiB", 6 << 20),
            ("512k", 512 << 10),
            ("1.5g", 3 << 29),
            ("0.1k", 102),
            ("2 g", 2 << 30),
            ("100b", 100),
        ] {
            assert_eq!(bytes(text), Some(number), "{text}");
        }
        for wrong in
            ["", "m", "-1", "1x", "1.2.3m", "1mm", "ib", "1ib", "18446744073709551616", "99999999p", ".5m"]
        {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn numbers_of_processors() {
        assert_eq!(nano_cpus("1.5").unwrap(), 1_500_000_000);
        assert_eq!(nano_cpus(".25").unwrap(), 250_000_000);
        assert_eq!(nano_cpus("2").unwrap(), 2_000_000_000);
        assert_eq!(nano_cpus("0.000000001").unwrap(), 1);
        for wrong in ["", ".", "x", "-1", "1.0000000001", "1e3", "1.2.3"] {
            assert!(nano_cpus(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists() {
        assert!(["0", "0-3,5", "1,2", ""].iter().all(|list| is_list(list)));
        assert!(!["x", "0-", "3-1", ",", "0;1", "+1", "-1"].iter().any(|list| is_list(list)));
    }

    #[test]
    fn what_is_refused() {
        let refused = |args: ResourceArgs| args.resources().unwrap_err().to_string();
        let text = |text: &str| Some(text.to_owned());
        let asked = ResourceArgs::default;
        let cases = [
            (ResourceArgs { memory: text("5m"), ..asked() }, "6MB"),
            (ResourceArgs { memory: text("lots"), ..asked() }, "--memory: invalid"),
            (ResourceArgs { memory_swap: text("1g"), ..asked() }, "always set the memory limit"),
            (ResourceArgs { memory: text("1g"), memory_swap: text("1m"), ..asked() }, "larger than memory"),
            (ResourceArgs { memory: text("8m"), memory_reservation: text("9m"), ..asked() }, "reservation"),
            (ResourceArgs { cpus: text("100000"), ..asked() }, "--cpus: range of CPUs is from 0.01"),
            (ResourceArgs { cpus: text("0.001"), ..asked() }, "--cpus: range"),
            (ResourceArgs { cpus: text("0.5"), cpu_quota: Some(1), ..asked() }, "--cpu-quota and --cpus"),
            (ResourceArgs { cpu_period: Some(999), ..asked() }, "--cpu-period"),
            (ResourceArgs { cpu_quota: Some(999), ..asked() }, "--cpu-quota"),
            (ResourceArgs { cpu_shares: Some(1), ..asked() }, "minimum allowed cpu-shares is 2"),
            (ResourceArgs { blkio_weight: Some(9), ..asked() }, "--blkio-weight"),
            (ResourceArgs { cpuset_cpus: text("a"), ..asked() }, "--cpuset-cpus"),
            (ResourceArgs { oom_kill_disable: Some(true), ..asked() }, "--oom-kill-disable"),
            (ResourceArgs { cgroups: CgroupsArg::NoConmon, ..asked() }, "--cgroups"),
        ];
        for (args, why) in cases {
            let said = refused(args.clone());
            assert!(said.contains(why), "{args:?}: {said}");
        }
    }

    #[test]
    fn what_is_changed() {
        let text = |text: &str| Some(text.to_owned());
        let old = Resources {
            memory: Some(64 << 20),
            memory_swap: Some(Limit::Of(128 << 20)),
            cpu_quota: Some(Limit::Of(50_000)),
            pids_limit: Some(Limit::Of(9)),
            ..Resources::default()
        };
        let change = |args: ResourceArgs| args.changed_from(&old);
        let asked = ResourceArgs::default;
        assert_eq!(change(asked()).unwrap(), old);
        let swap = change(ResourceArgs { memory_swap: text("-1"), ..asked() }).unwrap();
        assert_eq!((swap.memory, swap.memory_swap), (Some(64 << 20), Some(Limit::Unlimited)));
        let cpus = change(ResourceArgs { cpus: text("0.5"), pids_limit: Some(7), ..asked() }).unwrap();
        assert_eq!((cpus.nano_cpus, cpus.cpu_quota), (Some(500_000_000), None));
        assert_eq!(cpus.pids_limit, Some(Limit::Of(7)));
        for (args, why) in [
            (ResourceArgs { memory: text("256m"), ..asked() }, "larger than memory"),
            (ResourceArgs { cgroup_parent: text("/x"), ..asked() }, "--cgroup-parent"),
            (ResourceArgs { cgroups: CgroupsArg::Disabled, ..asked() }, "--cgroups"),
        ] {
            let said = change(args).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn what_is_wished_for() {
        let text = |text: &str| Some(text.to_owned());
        let args = ResourceArgs {
            memory: text("64m"),
            memory_swap: text("-1"),
            cpus: text("0.5"),
            pids_limit: Some(-1),
            cpu_shares: Some(0),
            ..ResourceArgs::default()
        };
        let wanted = Resources {
            memory: Some(64 << 20),
            memory_swap: Some(Limit::Unlimited),
            nano_cpus: Some(500_000_000),
            pids_limit: Some(Limit::Unlimited),
            ..Resources::default()
        };
        assert_eq!(args.resources().unwrap(), wanted);
        assert_eq!(ResourceArgs::default().resources().unwrap(), Resources::default());
    }
}
