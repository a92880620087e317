//! Ending what runs in a container, and sending it signals, from outside.

use std::time::{Duration, Instant};

use super::containers::in_use;
use super::{Container, ContainerError, Containers, ProcessId, State, Status, pausing, restarting};
use crate::sys::process;

/// What asks a program to stop, unless its image says otherwise (signal(7)).
pub(super) const SIGTERM: i32 = 15;
/// What it cannot refuse.
pub(super) const SIGKILL: i32 = 9;
/// How long a program has from its stop signal until it is killed, as docker and podman have it.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How long one that waits to run again may take to end before it is looked at once more: it may run by then.
const RESTART_LOOK: Duration = Duration::from_millis(100);
/// How long a container whose program was killed may take to end.
pub(super) const END_WAIT: Duration = Duration::from_secs(10);

/// How a container is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// What its program gets; else what the container was made with, what its image says, or SIGTERM.
    pub signal: Option<i32>,
    /// How long the program has until it is killed.
    pub wait: StopWait,
}

/// How long a program has from its stop signal until it is killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopWait {
    /// What the container was made with, else ten seconds.
    #[default]
    AsMade,
    /// So long.
    AtMost(Duration),
    /// As long as it takes.
    ForEver,
}

impl StopWait {
    /// Seconds as docker has them: as long as it takes when negative.
    #[must_use]
    pub fn of_seconds(seconds: i64) -> Self {
        u64::try_from(seconds).map_or(Self::ForEver, |seconds| Self::AtMost(Duration::from_secs(seconds)))
    }

    pub(super) fn time(self, container: &Container) -> Option<Duration> {
        let made_with = || container.config().run.as_ref().and_then(|wishes| wishes.stop_timeout);
        match self {
            Self::AsMade => match made_with() {
                Some(seconds) => Self::of_seconds(seconds).time(container),
                None => Some(STOP_WAIT),
            },
            Self::AtMost(time) => Some(time),
            Self::ForEver => None,
        }
    }
}

/// Stops a running container, and waits until its files are at rest. One that does not run stays as it is.
///
/// # Errors
/// [`ContainerError::InUse`] for a mount, and while a container is being started or does not end.
pub fn stop(containers: &Containers, text: &str, how: &Stop) -> Result<(), ContainerError> {
    let container = containers.find(text)?;
    let status = container.settled_status()?;
    match status.state {
        _ if !status.held => return Ok(()),
        State::Mounted { .. } | State::Created => return Err(in_use(&container)?),
        State::Running { .. } | State::Restarting { .. } => halt(&container, how)?,
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
    let status = container.settled_status()?;
    match status.state {
        State::Running { process, .. } if status.held => {
            let ends = number == SIGKILL || number == stop_signal(&container);
            if ends {
                restarting::mark_stopped(&container)?;
            }
            signal(&container, process, number)?;
            // What ends it is not for later, as docker has it.
            if ends { pausing::thaw(&container, &status) } else { Ok(()) }
        }
        _ => Err(ContainerError::NotRunning { id: container.id(), name: container.config().name.clone() }),
    }
}

/// Stops a container's program, or who waits to run it again.
pub(super) fn halt(container: &Container, how: &Stop) -> Result<(), ContainerError> {
    restarting::mark_stopped(container)?;
    let since = Instant::now();
    loop {
        let status = container.status()?;
        match status.state {
            State::Running { process, .. } if status.held => {
                return stop_program(container, &status, process, how);
            }
            State::Restarting { waits, .. } if status.held && since.elapsed() < END_WAIT => {
                signal(container, waits, SIGTERM)?;
            }
            _ => return Ok(()),
        }
        if ends_within(container, Some(RESTART_LOOK)) {
            return Ok(());
        }
    }
}

/// Asks a program to end, and kills it when it does not.
fn stop_program(
    container: &Container,
    status: &Status,
    program: ProcessId,
    how: &Stop,
) -> Result<(), ContainerError> {
    signal(container, program, how.signal.unwrap_or_else(|| stop_signal(container)))?;
    pausing::thaw(container, status)?;
    if !ends_within(container, how.wait.time(container)) {
        signal(container, program, SIGKILL)?;
    }
    Ok(())
}

/// What asks a container's program to stop.
pub(super) fn stop_signal(container: &Container) -> i32 {
    let config = container.config();
    let made_with = config.run.as_ref().and_then(|wishes| wishes.stop_signal.as_deref());
    let wanted = made_with.or(config.image.process.stop_signal.as_deref());
    wanted.and_then(process::signal_number).unwrap_or(SIGTERM)
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
