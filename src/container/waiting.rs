//! Waiting for the end of containers.

use std::time::Duration;

use super::restarting::RestartPolicy;
use super::{Container, ContainerError, Containers, ProcessId, State};
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
    let runs_again = policy != RestartPolicy::No;
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
            Ok(State::Restarting { .. }) => std::thread::sleep(RESTART_LOOK),
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

fn wait_for_program(container: &Container, program: ProcessId) -> Result<(), ContainerError> {
    let watched = program.watch().and_then(|program| program.map_or(Ok(()), |program| program.wait()));
    watched.map_err(ContainerError::io("wait for the process of", container.dir()))
}

fn not_running(container: &Container) -> ContainerError {
    ContainerError::NotRunning { id: container.id(), name: container.config().name.clone() }
}
