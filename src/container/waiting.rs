//! Waiting for the end of containers.

use std::time::Duration;

use super::health::HealthStatus;
use super::restarting::RestartPolicy;
use super::{Container, ContainerError, Containers, ProcessId, State, Status};
use crate::launcher::EXIT_SIGNAL_BASE;
use crate::sys::lock::Watch;

/// How long it is until one that is being started or taken down is looked at again.
const PAUSE: Duration = Duration::from_millis(5);
/// The same of one that waits to run again.
const RESTART_LOOK: Duration = Duration::from_millis(50);
/// Of a container that was killed together with its supervisor.
const EXIT_KILLED: u8 = EXIT_SIGNAL_BASE + 9;

/// Waits until a container does not run any more, and gives the exit code of its program; 0 of one that never ran, as docker
/// does.
///
/// # Errors
/// [`ContainerError::NotRunning`] of a mount.
pub fn wait(containers: &Containers, text: &str) -> Result<u8, ContainerError> {
    let container = containers.find(text)?;
    // Before anything else: it may be all that is left at the end.
    let lock = container.lock_path();
    let failed = || ContainerError::io("watch", &lock);
    let Some(watch) = Watch::of(&lock).map_err(failed())? else {
        return Err(ContainerError::NotFound(text.to_owned()));
    };
    let mut program = None;
    // Of one that runs again by itself only the last end counts.
    let policy = container.config().run.as_ref().map(|wishes| wishes.restart).unwrap_or_default();
    let mut runs_again = policy != RestartPolicy::No;
    while watch.is_held().map_err(failed())? {
        match container.status().map(|status| status.state) {
            Ok(State::Running { process, .. })
                if runs_again || program.is_none_or(|known| known == process) =>
            {
                program = Some(process);
                wait_for_program(&container, process)?;
            }
            // It has been started again.
            Ok(State::Running { .. } | State::Created) if program.is_some() => break,
            Ok(State::Exited { exit_code, .. }) if program.is_some() => return Ok(exit_code),
            Ok(State::Mounted { .. }) => return Err(not_running(&container)),
            Ok(State::Restarting { .. }) => {
                runs_again = true;
                std::thread::sleep(RESTART_LOOK);
            }
            Ok(State::Running { .. } | State::Created | State::Exited { .. }) => {}
            // It is being removed.
            Err(ContainerError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
    match container.status().map(|status| status.state) {
        Ok(State::Exited { exit_code, .. } | State::Restarting { exit_code, .. }) => Ok(exit_code),
        Ok(State::Created) if program.is_none() => Ok(0),
        Ok(State::Running { process, .. }) if program.is_none_or(|known| known == process) => Ok(EXIT_KILLED),
        Ok(State::Mounted { .. }) => Err(not_running(&container)),
        // What it was is written over, or gone; but who ran it has left a word.
        Ok(State::Created | State::Running { .. }) | Err(ContainerError::NotFound(_)) => {
            let word = watch.word().map_err(failed())?;
            let gone = || ContainerError::NotFound(text.to_owned());
            word.and_then(|word| word.parse().ok()).ok_or_else(gone)
        }
        Err(error) => Err(error),
    }
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It was made, and has not run.
    Created,
    /// Its program runs.
    Running,
    /// None of its processes may run.
    Paused,
    /// Its program has ended.
    Exited,
    /// Its last health check was a success.
    Healthy,
    /// Its last health checks were failures.
    Unhealthy,
}

impl Condition {
    fn holds(self, container: &Container, status: &Status) -> Result<bool, ContainerError> {
        let health = || container.health().map(|health| health.unwrap_or_default().status);
        Ok(match self {
            Self::Created => status.word() == "created",
            Self::Running => status.is_running() && !status.is_paused(),
            Self::Paused => status.is_paused(),
            Self::Exited => status.word() == "exited",
            Self::Healthy => status.is_running() && health()? == HealthStatus::Healthy,
            Self::Unhealthy => status.is_running() && health()? == HealthStatus::Unhealthy,
        })
    }
}

/// Waits until one of these holds, which is looked for again and again; gives the exit code of a program that has ended.
///
/// # Errors
/// [`ContainerError::NotFound`], also of one that is removed meanwhile, unless its end was waited for.
pub fn wait_until(
    containers: &Containers,
    text: &str,
    conditions: &[Condition],
    interval: Duration,
) -> Result<Option<u8>, ContainerError> {
    let container = containers.find(text)?;
    let lock = container.lock_path();
    let failed = || ContainerError::io("watch", &lock);
    let watch = Watch::of(&lock).map_err(failed())?;
    loop {
        let status = match container.status() {
            // It may have left a word when it went.
            Err(ContainerError::NotFound(_)) if conditions.contains(&Condition::Exited) => {
                let word = watch.map(|watch| watch.word()).transpose().map_err(failed())?.flatten();
                return Ok(word.and_then(|word| word.parse().ok()));
            }
            status => status?,
        };
        for condition in conditions {
            if condition.holds(&container, &status)? {
                return Ok(match status.state {
                    State::Exited { exit_code, .. } => Some(exit_code),
                    _ if status.is_unclean() => Some(EXIT_KILLED),
                    _ => None,
                });
            }
        }
        std::thread::sleep(interval.max(PAUSE));
    }
}

fn wait_for_program(container: &Container, program: ProcessId) -> Result<(), ContainerError> {
    let watched = program.watch().and_then(|program| program.map_or(Ok(()), |program| program.wait()));
    watched.map_err(ContainerError::io("wait for the process of", container.dir()))
}

fn not_running(container: &Container) -> ContainerError {
    ContainerError::NotRunning { id: container.id(), name: container.config().name.clone() }
}
