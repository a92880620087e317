//! How a container's health is checked.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};

use crate::container::health::{HealthCheck, OnFailure};
use crate::container::spoken_time;
use crate::model::healthcheck::Healthcheck;
use crate::model::image_config::ProcessConfig;

/// How a container's health is checked
#[derive(Clone, Debug, Args)]
pub struct HealthArgs {
    /// Check the health of the container in the background by this, for the shell or as a JSON array; none: do not
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// From one check to the next (default: 30s)
    #[arg(long, value_name = "DURATION")]
    pub health_interval: Option<String>,
    /// How long one may take (default: 30s)
    #[arg(long, value_name = "DURATION")]
    pub health_timeout: Option<String>,
    /// How long failures do not count after the start (default: 0s)
    #[arg(long, value_name = "DURATION")]
    pub health_start_period: Option<String>,
    /// So many failures in a row are unhealthy (default: 3)
    #[arg(long, value_name = "N")]
    pub health_retries: Option<u32>,
    /// What is done to an unhealthy container
    #[arg(long, value_enum, default_value = "none")]
    pub health_on_failure: OnFailureArg,
    /// Do not check what the image says
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period"])]
    pub no_healthcheck: bool,
}

/// `--health-on-failure`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFailureArg {
    /// Nothing but showing it.
    None,
    /// SIGKILL; then its restart policy counts.
    Kill,
    /// It is stopped.
    Stop,
    /// It is stopped and started again.
    Restart,
}

impl HealthArgs {
    /// What the image says, with what is said here in its place.
    pub(in crate::commands) fn wanted(&self, image: &ProcessConfig) -> anyhow::Result<Option<HealthCheck>> {
        if self.no_healthcheck {
            return Ok(None);
        }
        let of_image = image.healthcheck().context("the image's Healthcheck")?;
        let mut wanted: Healthcheck = of_image.unwrap_or_default();
        if let Some(command) = &self.health_cmd {
            wanted.test = test_of(command);
        }
        let given = [
            ("--health-interval", &self.health_interval, &mut wanted.interval),
            ("--health-timeout", &self.health_timeout, &mut wanted.timeout),
            ("--health-start-period", &self.health_start_period, &mut wanted.start_period),
        ];
        for (option, text, place) in given {
            if let Some(text) = text {
                *place = nanoseconds(text).with_context(|| format!("{option} {text}: such as 1m30s"))?;
            }
        }
        if let Some(retries) = self.health_retries {
            wanted.retries = retries;
        }
        let on_failure = match self.health_on_failure {
            OnFailureArg::None => OnFailure::None,
            OnFailureArg::Kill => OnFailure::Kill,
            OnFailureArg::Stop => OnFailure::Stop,
            OnFailureArg::Restart => OnFailure::Restart,
        };
        let check = HealthCheck::of(&wanted, on_failure)?;
        let is_wished_for = self.health_cmd.is_none()
            && (self.health_interval.is_some()
                || self.health_timeout.is_some()
                || self.health_start_period.is_some()
                || self.health_retries.is_some()
                || on_failure != OnFailure::None);
        ensure!(
            check.is_some() || !is_wished_for,
            "nothing checks the health: the image says nothing of it, so give --health-cmd as well"
        );
        Ok(check)
    }
}

/// As podman has it: an array is a command, anything else is for the shell.
fn test_of(command: &str) -> Vec<String> {
    match serde_json::from_str::<Vec<String>>(command) {
        Ok(list) if matches!(list.first().map(String::as_str), Some("CMD" | "CMD-SHELL" | "NONE")) => list,
        Ok(list) => [vec!["CMD".to_owned()], list].concat(),
        Err(_) if command == "none" => vec!["NONE".to_owned()],
        Err(_) => vec!["CMD-SHELL".to_owned(), command.to_owned()],
    }
}

fn nanoseconds(text: &str) -> Option<u64> {
    let duration: Duration = spoken_time::duration(text)?;
    u64::try_from(duration.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        assert_eq!(test_of("a || b"), ["CMD-SHELL", "a || b"]);
        assert_eq!(test_of(r#"["a", "b c"]"#), ["CMD", "a", "b c"]);
        assert_eq!(test_of(r#"["CMD-SHELL", "a"]"#), ["CMD-SHELL", "a"]);
        assert_eq!(test_of("none"), ["NONE"]);
        assert_eq!(nanoseconds("1m30s"), Some(90_000_000_000));
        assert_eq!(nanoseconds("soon"), None);
    }
}
