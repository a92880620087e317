//! Waiting for the end of containers.

use std::time::Duration;

use super::{Container, ContainerError, Containers, State};
use crate::launcher::EXIT_SIGNAL_BASE;
use crate::sys::lock::Watch;

/// How long it is until one that is being started or taken down is looked at again.
const PAUSE: Duration = Duration::from_millis(5);
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
    while watch.is_held().map_err(failed())? {
        match container.status() {
            Ok(status) => wait_for_program(&container, &status.state)?,
            // It is being removed by who held it.
            Err(ContainerError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
    match container.status() {
        Ok(status) => match status.state {
            State::Created => Ok(0),
            State::Exited { exit_code, .. } => Ok(exit_code),
            State::Running { .. } => Ok(EXIT_KILLED),
            State::Mounted { .. } => Err(not_running(&container)),
        },
        Err(gone @ ContainerError::NotFound(_)) => {
            let word = watch.word().map_err(failed())?;
            word.and_then(|word| word.parse().ok()).ok_or(gone)
        }
        Err(error) => Err(error),
    }
}

fn wait_for_program(container: &Container, state: &State) -> Result<(), ContainerError> {
    match state {
        State::Running { process, .. } => {
            let program =
                process.watch().map_err(ContainerError::io("wait for the process of", container.dir()))?;
            let waited = program.map_or(Ok(()), |program| program.wait());
            waited.map_err(ContainerError::io("wait for the process of", container.dir()))
        }
        State::Mounted { .. } => Err(not_running(container)),
        State::Created | State::Exited { .. } => Ok(()),
    }
}

fn not_running(container: &Container) -> ContainerError {
    ContainerError::NotRunning { id: container.id(), name: container.config().name.clone() }
}
