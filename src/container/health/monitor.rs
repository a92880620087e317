//! Checks a container again and again, from the poll loop of the process that runs it.

use std::io;
use std::time::{Duration, Instant};

use nix::poll::PollFd;

use super::super::stopping::{self, SIGKILL};
use super::super::{Container, State, restarting};
use super::check::Check;
use super::{Health, HealthCheck, HealthStatus, OnFailure, write};

/// The checks of a container that runs.
#[derive(Debug)]
pub(in crate::container) struct Monitor {
    container: Container,
    how: HealthCheck,
    health: Health,
    started: Instant,
    next: Instant,
    check: Option<Check>,
    /// When one that was asked to stop is killed.
    kill_at: Option<Instant>,
    wants_restart: bool,
}

impl Monitor {
    /// Of a container whose program has just been started; `None` when it was made without a check.
    pub(in crate::container) fn begin(container: &Container) -> io::Result<Option<Self>> {
        let made_with = container.config().run.as_ref().and_then(|wishes| wishes.health.clone());
        let Some(how) = made_with else { return Ok(None) };
        let health = Health::default();
        write(container, &health)?;
        let started = Instant::now();
        let mut monitor = Self {
            container: container.clone(),
            how,
            health,
            started,
            next: started,
            check: None,
            kill_at: None,
            wants_restart: false,
        };
        monitor.next = started + monitor.pause();
        Ok(Some(monitor))
    }

    pub(in crate::container) fn interests(&self) -> Vec<PollFd<'_>> {
        self.check.as_ref().map(Check::interests).unwrap_or_default()
    }

    pub(in crate::container) fn wait_at_most(&self) -> Duration {
        let now = Instant::now();
        let kill = self.kill_at.map(|at| at.saturating_duration_since(now));
        let check = match &self.check {
            Some(check) => check.left(),
            None => self.next.saturating_duration_since(now),
        };
        kill.map_or(check, |kill| kill.min(check))
    }

    /// Whether the container is to run again once it has ended.
    pub(in crate::container) fn wants_restart(&self) -> bool {
        self.wants_restart
    }

    /// Does what there is to do.
    pub(in crate::container) fn turn(&mut self) -> io::Result<()> {
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill_at = None;
            self.signal(SIGKILL);
        }
        if self.check.is_some() || self.next <= Instant::now() {
            let status = self.container.status().map_err(io::Error::other)?;
            if status.is_paused() {
                // Nothing in it can answer.
                if let Some(check) = self.check.take() {
                    check.cancel();
                }
                self.next = Instant::now() + self.pause();
                return Ok(());
            }
        }
        if let Some(check) = &mut self.check {
            if let Some(checked) = check.turn()? {
                self.check = None;
                let is_new = self.started.elapsed() < self.how.start_period;
                let has_become_unhealthy = self.health.add(checked, self.how.retries, is_new);
                write(&self.container, &self.health)?;
                self.next = Instant::now() + self.pause();
                if has_become_unhealthy {
                    self.act();
                }
            }
        } else if self.next <= Instant::now() {
            self.check = Some(Check::start(&self.container, &self.how)?);
        }
        Ok(())
    }

    /// Until the next check.
    fn pause(&self) -> Duration {
        let is_starting = self.health.status == HealthStatus::Starting;
        if is_starting && self.started.elapsed() < self.how.start_period {
            return self.how.start_interval;
        }
        self.how.interval
    }

    fn act(&mut self) {
        match self.how.on_failure {
            OnFailure::None => {}
            OnFailure::Kill => self.signal(SIGKILL),
            OnFailure::Stop => {
                if let Err(error) = restarting::mark_stopped(&self.container) {
                    tracing::warn!(%error, "a container that is unhealthy may run again");
                }
                self.stop();
            }
            OnFailure::Restart => {
                self.wants_restart = true;
                self.stop();
            }
        }
    }

    fn stop(&mut self) {
        let wait = stopping::StopWait::AsMade.time(&self.container);
        self.kill_at = wait.and_then(|wait| Instant::now().checked_add(wait));
        self.signal(stopping::stop_signal(&self.container));
    }

    fn signal(&self, number: i32) {
        let sent = self.container.status().and_then(|status| match status.state {
            State::Running { process, .. } => stopping::signal(&self.container, process, number),
            _ => Ok(()),
        });
        if let Err(error) = sent {
            tracing::error!(%error, "a container that is unhealthy goes on");
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(check) = self.check.take() {
            check.cancel();
        }
    }
}
