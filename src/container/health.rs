//! Whether what runs in a container works: how that is checked, and what came of it (`health.json`).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Container, ContainerError, Moment};
use crate::model::healthcheck::Healthcheck;
use crate::sys::atomic;

mod check;
mod monitor;
mod whole;

pub use check::check_now;
pub(super) use monitor::Monitor;

/// How a container is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Program and arguments.
    pub command: Vec<String>,
    /// From the end of one check to the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// How long failures do not count after the start, until the first success.
    pub start_period: Duration,
    /// The interval during that time.
    pub start_interval: Duration,
    /// So many failures in a row are unhealthy.
    pub retries: u32,
    /// What is done then.
    pub on_failure: OnFailure,
}

/// What is done to a container that is unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Nothing.
    #[default]
    None,
    /// SIGKILL; its restart policy says what comes then.
    Kill,
    /// It is stopped.
    Stop,
    /// It is stopped, and started again.
    Restart,
}

/// A test that is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the health check {0:?} is neither NONE, CMD with a command, nor CMD-SHELL with a text")]
pub struct NoCheck(Vec<String>);

impl HealthCheck {
    /// What an image or a user says, with docker's defaults; `None` when nothing is checked.
    ///
    /// # Errors
    /// [`NoCheck`]
    pub fn of(wanted: &Healthcheck, on_failure: OnFailure) -> Result<Option<Self>, NoCheck> {
        let words: Vec<&str> = wanted.test.iter().map(String::as_str).collect();
        let command = match words.as_slice() {
            [] | ["NONE", ..] => return Ok(None),
            ["CMD", program, arguments @ ..] => [&[*program], arguments].concat(),
            ["CMD-SHELL", text] => vec!["/bin/sh", "-c", text],
            _ => return Err(NoCheck(wanted.test.clone())),
        };
        let or = |nanoseconds: u64, seconds| match nanoseconds {
            0 => Duration::from_secs(seconds),
            nanoseconds => Duration::from_nanos(nanoseconds),
        };
        Ok(Some(Self {
            command: command.into_iter().map(str::to_owned).collect(),
            interval: or(wanted.interval, 30),
            timeout: or(wanted.timeout, 30),
            start_period: Duration::from_nanos(wanted.start_period),
            start_interval: or(wanted.start_interval, 5),
            retries: if wanted.retries == 0 { 3 } else { wanted.retries },
            on_failure,
        }))
    }
}

/// One word, as docker has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Not known yet.
    #[default]
    Starting,
    /// The last check was a success.
    Healthy,
    /// The last ones were failures.
    Unhealthy,
}

/// What came of the checks; the names are docker's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// What is thought of it.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last checks, the youngest last.
    pub log: Vec<Checked>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Checked {
    /// When it began.
    pub start: Moment,
    /// When it ended.
    pub end: Moment,
    /// 0 is a success; -1 when it took too long.
    pub exit_code: i32,
    /// What it printed, to 4096 bytes.
    pub output: String,
}

/// Checks that are kept.
const LOG_MAX: usize = 5;

impl Health {
    /// Adds a check; whether the container has become unhealthy by it. Within its start period failures do not count.
    fn add(&mut self, checked: Checked, retries: u32, in_start_period: bool) -> bool {
        let before = self.status;
        if checked.exit_code == 0 {
            (self.status, self.failing_streak) = (HealthStatus::Healthy, 0);
        } else if !(in_start_period && before == HealthStatus::Starting) {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.log.push(checked);
        let old = self.log.len().saturating_sub(LOG_MAX);
        self.log.drain(..old);
        self.status == HealthStatus::Unhealthy && before != self.status
    }

    /// As `ps` shows it behind the time since the start.
    #[must_use]
    pub fn text(&self) -> &'static str {
        match self.status {
            HealthStatus::Starting => "health: starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

impl Container {
    /// What came of the checks of its health; `None` when there are none, or none was written down yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn health(&self) -> Result<Option<Health>, ContainerError> {
        if self.config().run.as_ref().is_none_or(|wishes| wishes.health.is_none()) {
            return Ok(None);
        }
        read(self.dir())
    }
}

/// What was written down of the checks of the container in `dir`.
pub(super) fn read(dir: &Path) -> Result<Option<Health>, ContainerError> {
    let path = path_in(dir);
    match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ContainerError::io("read", &path)(error)),
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(ContainerError::document(&path)),
    }
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join("health.json")
}

/// What nobody needs after a power cut.
fn write(container: &Container, health: &Health) -> io::Result<()> {
    atomic::write_volatile(&path_in(container.dir()), &serde_json::to_vec_pretty(health)?, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_defaults() {
        let of = |test: &[&str]| {
            let test = test.iter().map(ToString::to_string).collect();
            HealthCheck::of(&Healthcheck { test, ..Healthcheck::default() }, OnFailure::None)
        };
        let check = of(&["CMD-SHELL", "a || b"]).unwrap().unwrap();
        assert_eq!(check.command, ["/bin/sh", "-c", "a || b"]);
        let seconds = [check.interval, check.timeout, check.start_period].map(|time| time.as_secs());
        assert_eq!((seconds, check.retries), ([30, 30, 0], 3));
        assert_eq!(of(&["CMD", "a", "b c"]).unwrap().unwrap().command, ["a", "b c"]);
        assert!(of(&[]).unwrap().is_none() && of(&["NONE"]).unwrap().is_none());
        for wrong in [&["CMD"][..], &["CMD-SHELL"], &["CMD-SHELL", "a", "b"], &["curl"]] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn failures_in_a_row() {
        let mut health = Health::default();
        let mut add = |exit_code, in_start_period| {
            let at = Moment::from_seconds(1);
            let checked = Checked { start: at, end: at, exit_code, output: String::new() };
            let has_become = health.add(checked, 2, in_start_period);
            (health.text(), health.failing_streak, has_become, health.log.len())
        };
        assert_eq!(add(1, true), ("health: starting", 0, false, 1));
        assert_eq!(add(1, false), ("health: starting", 1, false, 2));
        assert_eq!(add(0, false), ("healthy", 0, false, 3));
        assert_eq!(add(-1, true), ("healthy", 1, false, 4), "a success ends the start");
        assert_eq!(add(1, false), ("unhealthy", 2, true, 5));
        assert_eq!(add(1, false), ("unhealthy", 3, false, 5), "said once");
        assert_eq!(add(0, false), ("healthy", 0, false, 5));
    }
}
