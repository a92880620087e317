//! Limits of a container's processes.

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::container::Wishes;
use crate::launcher::{Resource, Rlimit};

/// Limits of a container's processes
#[derive(Clone, Debug, Args)]
pub struct RlimitArgs {
    /// Limit a resource of each process, or of the user: nofile, nproc, core, ... (setrlimit(2)); -1 is no limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// How likely the kernel kills it when memory runs out: -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub oom_score_adj: Option<i32>,
}

impl RlimitArgs {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, wishes: &mut Wishes) -> anyhow::Result<()> {
        let limits = self.ulimit.iter().map(|text| rlimit(text).with_context(|| format!("--ulimit {text}")));
        wishes.rlimits = limits.collect::<anyhow::Result<_>>()?;
        wishes.oom_score_adj = self.oom_score_adj;
        Ok(())
    }
}

fn rlimit(text: &str) -> anyhow::Result<Rlimit> {
    let (name, values) = text.split_once('=').context("expected NAME=SOFT[:HARD]")?;
    let resource = Resource::by_name(name).with_context(|| {
        format!("{name:?} cannot be limited; known are {}", Resource::names().collect::<Vec<_>>().join(", "))
    })?;
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        number => number.parse::<u64>().with_context(|| format!("{number:?} is no number")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let limit = Rlimit { resource, soft: value(soft)?, hard: value(hard)? };
    ensure!(limit.soft <= limit.hard, "the soft limit is above the hard one");
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let made = |text: &str| rlimit(text).map(|limit| (limit.soft, limit.hard)).ok();
        assert_eq!(made("nofile=10"), Some((10, 10)));
        assert_eq!(made("core=0:-1"), Some((0, u64::MAX)));
        assert_eq!(made("nproc=unlimited"), Some((u64::MAX, u64::MAX)));
        for wrong in ["nofile", "nofile=", "fly=1", "nofile=2:1", "nofile=a", "nofile=-2"] {
            assert_eq!(made(wrong), None, "{wrong}");
        }
    }
}
