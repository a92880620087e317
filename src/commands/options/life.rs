//! What becomes of a container, and what it is known by.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::attachment::DetachKeysArg;
use crate::commands::environment;
use crate::container::Wishes;
use crate::container::log::LogLimits;
use crate::container::restarting::RestartPolicy;
use crate::sys::process;

/// What becomes of a container
#[derive(Clone, Debug, Args)]
pub struct LifeArgs {
    /// Label the container, for filters and people; of equal keys the last one wins, and all win over the image's
    #[arg(long, short = 'l', value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Read labels from a file: KEY=VALUE or KEY in each line, taken literally; # begins a comment
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<PathBuf>,
    /// What is kept of the output: max-size=BYTES of a file (k, m, g), max-file=N files
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,
    /// Run the command below a first process that passes signals on and collects orphans
    #[arg(long)]
    pub init: bool,
    /// Run it again when it ends, in the background: no, on-failure[:N], always or unless-stopped. After a restart of the
    /// system nothing starts by itself: that is for a systemd user unit, or cron's @reboot, with `layerfs start`
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub restart: String,
    /// What asks it to stop, in place of the image's stop signal or SIGTERM
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// How long it has from then until it is killed; -1: as long as it takes (default: 10)
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub stop_timeout: Option<i64>,
    /// Kill it after that time; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub timeout: u64,
    /// What detaches
    #[command(flatten)]
    pub keys: DetachKeysArg,
}

impl LifeArgs {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, wishes: &mut Wishes) -> anyhow::Result<()> {
        wishes.init = self.init;
        wishes.restart = self.restart_policy()?;
        if let Some(signal) = &self.stop_signal {
            let known = process::signal_number(signal).is_some();
            ensure!(known, "--stop-signal {signal}: no such signal");
        }
        wishes.stop_signal.clone_from(&self.stop_signal);
        wishes.stop_timeout = self.stop_timeout;
        wishes.timeout = Some(self.timeout).filter(|seconds| *seconds > 0);
        wishes.log = log_limits(&self.log_opt)?;
        wishes.labels = labels(&self.label_file, &self.label)?;
        wishes.detach_keys = self.keys.checked()?;
        Ok(())
    }
}

/// What `--label-file` and `--label` say.
fn labels(files: &[PathBuf], labels: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("--label-file {}", file.display()))?;
        for line in
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            found.extend([label(line).with_context(|| format!("--label-file {}", file.display()))?]);
        }
    }
    for text in labels {
        found.extend([label(text).with_context(|| format!("--label {text}"))?]);
    }
    Ok(found)
}

/// `KEY=VALUE`; without a value it is empty.
fn label(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    ensure!(!key.is_empty(), "no key before the =");
    Ok((key.to_owned(), value.to_owned()))
}

impl LifeArgs {
    /// `--restart`
    pub(in crate::commands) fn restart_policy(&self) -> anyhow::Result<RestartPolicy> {
        self.restart.parse().context("--restart")
    }
}

/// Docker's `max-size` and `max-file`.
fn log_limits(options: &[String]) -> anyhow::Result<LogLimits> {
    let mut limits = LogLimits::default();
    for option in options {
        match option.split_once('=') {
            Some(("max-size", "-1")) => limits.bytes = None,
            Some(("max-size", size)) => {
                let bytes = environment::bytes_of(&size.to_ascii_uppercase()).filter(|bytes| *bytes > 0);
                limits.bytes = Some(bytes.with_context(|| format!("--log-opt {option}: such as 10m"))?);
            }
            Some(("max-file", files)) => {
                let files = files.parse().ok().filter(|files| (1..=LOG_FILES_MAX).contains(files));
                limits.files =
                    files.with_context(|| format!("--log-opt {option}: from 1 to {LOG_FILES_MAX}"))?;
            }
            _ => bail!("--log-opt {option}: max-size=BYTES and max-file=N are known"),
        }
    }
    Ok(limits)
}

/// Each is renamed when one is full.
const LOG_FILES_MAX: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_files_and_options() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("labels");
        std::fs::write(&file, "# comment\n\n a=file\nb=x = y\r\nc\n").unwrap();
        let found = labels(&[file], &["a=option".to_owned(), "d".to_owned(), "d=2".to_owned()]).unwrap();
        let pairs: Vec<_> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("a", "option"), ("b", "x = y"), ("c", ""), ("d", "2")]);
        assert!(labels(&[], &["=x".to_owned()]).is_err() && labels(&["/nowhere".into()], &[]).is_err());
    }

    #[test]
    fn limits_of_logs() {
        let limits = |options: &[&str]| {
            log_limits(&options.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map(|limits| (limits.bytes, limits.files))
                .map_err(|error| error.to_string())
        };
        assert_eq!(limits(&[]), Ok((None, 1)));
        assert_eq!(limits(&["max-size=10m", "max-file=3"]), Ok((Some(10 << 20), 3)));
        assert_eq!(limits(&["max-size=5", "max-size=-1"]), Ok((None, 1)));
        for wrong in ["max-size=0", "max-size=x", "max-file=0", "max-file=1001", "tag=x", "max-size"] {
            assert!(limits(&[wrong]).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
