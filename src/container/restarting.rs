//! Running a container again when its program has ended (`--restart`), by the process in the background that ran it before.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd as _;

use super::{Container, ContainerError};
use crate::launcher::BlockedSignals;
use crate::sys::atomic;

/// When a container runs again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When its exit code is not 0; so many times, if there is a number.
    OnFailure(Option<u32>),
    /// Whenever it ends by itself.
    Always,
    /// The same: there is nobody who would start it after a restart of the system.
    UnlessStopped,
}

/// A text that is no restart policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no restart policy: no, on-failure[:N], always and unless-stopped are known")]
pub struct NoPolicy(String);

impl FromStr for RestartPolicy {
    type Err = NoPolicy;

    fn from_str(text: &str) -> Result<Self, NoPolicy> {
        let wrong = || NoPolicy(text.to_owned());
        match text.split_once(':') {
            None => match text {
                "" | "no" => Ok(Self::No),
                "on-failure" => Ok(Self::OnFailure(None)),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                _ => Err(wrong()),
            },
            // Docker's 0 is "as often as it takes".
            Some(("on-failure", count)) => {
                let count: u32 = count.parse().map_err(|_| wrong())?;
                Ok(Self::OnFailure(Some(count).filter(|count| *count > 0)))
            }
            Some(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => formatter.write_str("no"),
            Self::OnFailure(None) => formatter.write_str("on-failure"),
            Self::OnFailure(Some(count)) => write!(formatter, "on-failure:{count}"),
            Self::Always => formatter.write_str("always"),
            Self::UnlessStopped => formatter.write_str("unless-stopped"),
        }
    }
}

impl RestartPolicy {
    /// Whether one that ended like this runs again, which it has done `restarts` times.
    fn wants(self, exit_code: u8, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(most) => exit_code != 0 && most.is_none_or(|most| restarts < most),
            Self::Always | Self::UnlessStopped => true,
        }
    }
}

/// Docker's first pause.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// And its longest.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A container that ran for so long begins with the first pause again.
const RAN_WELL: Duration = Duration::from_secs(10);

/// How often a container was run again, and how long it waits before that.
#[derive(Debug)]
pub(super) struct Restarts {
    policy: RestartPolicy,
    count: u32,
    pause: Duration,
}

impl Restarts {
    pub(super) fn new(policy: RestartPolicy) -> Self {
        Self { policy, count: 0, pause: PAUSE_MIN }
    }

    /// The pause until it runs again after it ran for so long and ended with this code; `None` when it does not.
    pub(super) fn next(&mut self, exit_code: u8, ran: Duration) -> Option<Duration> {
        if !self.policy.wants(exit_code, self.count) {
            return None;
        }
        Some(self.again(ran))
    }

    /// The pause of one that runs again whatever its policy is.
    pub(super) fn again(&mut self, ran: Duration) -> Duration {
        self.count = self.count.saturating_add(1);
        let pause = if ran >= RAN_WELL { PAUSE_MIN } else { self.pause };
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    /// The policy is this one from now on.
    pub(super) fn follow(&mut self, policy: RestartPolicy) {
        self.policy = policy;
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }
}

/// Waits for so long; whether nobody has said meanwhile that it is to end. The signals were blocked before.
pub(super) fn wait(pause: Duration, signals: &BlockedSignals, container: &Container) -> io::Result<bool> {
    let end = Instant::now() + pause;
    loop {
        while let Some(signal) = signals.next()? {
            if matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP) {
                return Ok(false);
            }
        }
        // First: who has come just before the end, and has waked nobody, is not to be passed over either.
        if is_stopped(container)? {
            return Ok(false);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(true);
        }
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        // Rounded up, so that nothing is left of it then.
        let left = left + Duration::from_millis(1);
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Written by who stops a container, before anything is done to it.
pub(super) fn mark_stopped(container: &Container) -> Result<(), ContainerError> {
    let path = mark(container.dir());
    match std::fs::File::create(&path) {
        // It has just removed itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        made => made.map(drop).map_err(ContainerError::io("write", &path)),
    }
}

/// Whether somebody has stopped it since it was started.
pub(super) fn is_stopped(container: &Container) -> io::Result<bool> {
    mark(container.dir()).try_exists()
}

/// Nobody has stopped it, and it was not run again.
pub(super) fn begin(container: &Container) -> io::Result<()> {
    for path in [mark(container.dir()), counted(container.dir())] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Writes down how often it was run again.
pub(super) fn note_count(container: &Container, count: u32) -> io::Result<()> {
    atomic::write_volatile(&counted(container.dir()), count.to_string().as_bytes(), 0o600)
}

/// How often it was run again since it was started.
pub(super) fn count(container: &Container) -> u32 {
    let text = std::fs::read_to_string(counted(container.dir()));
    text.ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn mark(dir: &Path) -> PathBuf {
    dir.join("stopped")
}

fn counted(dir: &Path) -> PathBuf {
    dir.join("restarts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), text);
        }
        assert_eq!("on-failure:0".parse(), Ok(RestartPolicy::OnFailure(None)));
        for wrong in ["never", "on-failure:", "on-failure:-1", "on-failure:x", "always:3", "Always"] {
            assert!(wrong.parse::<RestartPolicy>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn pauses_grow_until_it_runs_well() {
        let mut restarts = Restarts::new(RestartPolicy::Always);
        let mut pause = |ran| restarts.next(0, Duration::from_secs(ran)).unwrap().as_millis();
        assert_eq!([pause(1), pause(1), pause(9), pause(10), pause(1)], [100, 200, 400, 100, 200]);
        assert_eq!((0..20).map(|_| pause(0)).last(), Some(60_000));
    }

    #[test]
    fn failures_are_counted() {
        let mut restarts = Restarts::new(RestartPolicy::OnFailure(Some(2)));
        let mut again = |code| restarts.next(code, Duration::ZERO).is_some();
        assert_eq!([again(0), again(1), again(255), again(1)], [false, true, true, false]);
        assert!(Restarts::new(RestartPolicy::No).next(1, Duration::ZERO).is_none());
        assert!(Restarts::new(RestartPolicy::OnFailure(None)).next(0, Duration::ZERO).is_none());
    }
}
