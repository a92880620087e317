//! Ending what runs in a container, and sending it signals, from outside.

use std::time::{Duration, Instant};

use super::containers::in_use;
use super::{Container, ContainerError, Containers, ProcessId, State, Status, pausing};
use crate::sys::process;

/// What asks a program to stop, unless its image says otherwise (signal(7)).
pub(super) const SIGTERM: i32 = 15;
/// What it cannot refuse.
pub(super) const SIGKILL: i32 = 9;
/// How long a program has from its stop signal until it is killed, as docker and podman have it.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How long a container whose program was killed may take to end.
pub(super) const END_WAIT: Duration = Duration::from_secs(10);

/// How a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What its program gets; that of the image, else SIGTERM, when there is none.
    pub signal: Option<i32>,
    /// How long the program has until it is killed; `None` for as long as it takes.
    pub wait: Option<Duration>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: None, wait: Some(STOP_WAIT) }
    }
}

/// Stops a running container, and waits until its files are at rest. One that does not run stays as it is.
///
/// # Errors
/// [`ContainerError::InUse`] for a mount, and while a container is being started or does not end.
pub fn stop(containers: &Containers, text: &str, how: &Stop) -> Result<(), ContainerError> {
    let container = containers.find(text)?;
    let status = container.status()?;
    match status.state {
        _ if !status.held => return Ok(()),
        State::Running { process, .. } => stop_program(&container, &status, process, how)?,
        State::Mounted { .. } | State::Created => return Err(in_use(&container)?),
        // About to let go of it.
        State::Exited { .. } => {}
    }
    if ends_within(&container, Some(END_WAIT)) { Ok(()) } else { Err(in_use(&container)?) }
}

/// Sends a signal to the program of a running container.
///
/// # Errors
/// [`ContainerError::NotRunning`]
pub fn kill(containers: &Containers, text: &str, number: i32) -> Result<(), ContainerError> {
    let container = containers.find(text)?;
    let status = container.status()?;
    match status.state {
        State::Running { process, .. } if status.held => {
            signal(&container, process, number)?;
            // What ends it is not for later, as docker has it.
            if number == SIGKILL || number == stop_signal(&container) {
                pausing::thaw(&container, &status)?;
            }
            Ok(())
        }
        _ => Err(ContainerError::NotRunning { id: container.id(), name: container.config().name.clone() }),
    }
}

/// Asks a program to end, and kills it when it does not.
pub(super) fn stop_program(
    container: &Container,
    status: &Status,
    program: ProcessId,
    how: &Stop,
) -> Result<(), ContainerError> {
    signal(container, program, how.signal.unwrap_or_else(|| stop_signal(container)))?;
    pausing::thaw(container, status)?;
    if !ends_within(container, how.wait) {
        signal(container, program, SIGKILL)?;
    }
    Ok(())
}

fn stop_signal(container: &Container) -> i32 {
    let of_image = container.config().image.process.stop_signal.as_deref();
    of_image.and_then(process::signal_number).unwrap_or(SIGTERM)
}

/// Sends a signal; nothing happens when the process has ended.
pub(super) fn signal(container: &Container, process: ProcessId, number: i32) -> Result<(), ContainerError> {
    let failed = ContainerError::io("signal the process of", container.dir());
    let sent = process
        .is_alive()
        .and_then(|alive| if alive { process::signal(process.pid, number) } else { Ok(()) });
    sent.map_err(failed)
}

/// Whether nobody holds a container any more, after waiting for that; `None` waits for ever.
pub(super) fn ends_within(container: &Container, time: Option<Duration>) -> bool {
    let since = Instant::now();
    // One that cannot be read has been removed by who held it.
    while container.status().is_ok_and(|status| status.held) {
        if time.is_some_and(|time| since.elapsed() >= time) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
