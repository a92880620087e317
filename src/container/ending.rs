//! Removing containers, also those whose files belong to ids that only their user namespace has.

use std::io;
use std::time::{Duration, Instant};

use super::{Container, ContainerError, ContainerId, Containers, ProcessId, Removal, State};
use crate::launcher::{IdMaps, as_root_of};
use crate::sys::process;

/// How long the server of a mount that was taken away may wait for the last open file.
const CLOSE_WAIT: Duration = Duration::from_secs(3);
/// What asks a program to stop, unless its image says otherwise (signal(7)).
const SIGTERM: i32 = 15;
/// What it cannot refuse.
const SIGKILL: i32 = 9;
/// How long a program has from its stop signal until it is killed, as docker and podman have it.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// How long a container that was killed may take to end.
const END_WAIT: Duration = Duration::from_secs(10);

/// Removes a container; `force` ends it first.
///
/// # Errors
/// [`ContainerError`]
pub fn remove(containers: &Containers, text: &str, force: bool) -> Result<ContainerId, ContainerError> {
    let container = containers.find(text)?;
    let id = container.id();
    if force {
        end(&container)?;
    }
    delete(containers.detach(container)?, &IdMaps::for_caller())?;
    Ok(id)
}

/// Removes what interrupted runs and removals left: half-removed directories, and containers that were to go at their
/// end but whose supervisor was killed. Failures are logged: nobody waits for this.
pub fn sweep(containers: &Containers) {
    if let Err(error) = try_sweep(containers) {
        tracing::warn!("removing what interrupted containers left: {error}");
    }
}

fn try_sweep(containers: &Containers) -> Result<(), ContainerError> {
    for removal in containers.leftovers()? {
        delete(removal, &IdMaps::for_caller())?;
    }
    for (container, status) in containers.list_with_status()? {
        if container.config().remove_at_end && status.can_remove() {
            delete(containers.detach(container)?, &IdMaps::for_caller())?;
        }
    }
    Ok(())
}

/// Deletes the files of a container that is out of sight.
pub(super) fn delete(removal: Removal, maps: &IdMaps) -> Result<(), ContainerError> {
    match removal.delete() {
        Err(error) if error.is_permission_denied() && *maps != IdMaps::Identity => {
            let inside = as_root_of(maps, || removal.delete().map_err(io::Error::other));
            inside.map_err(ContainerError::io("remove", removal.path()))
        }
        result => result,
    }
}

/// Stops a running container as its image wishes, has the server of a mounted one unmount it, and waits until nobody holds it.
fn end(container: &Container) -> Result<(), ContainerError> {
    let status = container.status()?;
    if !status.held {
        return Ok(());
    }
    match status.state {
        State::Running { process, .. } => {
            let wanted = container.config().image.process.stop_signal.as_deref();
            let stop = wanted.and_then(process::signal_number).unwrap_or(SIGTERM);
            signal(container, process, stop)?;
            if !ends_within(container, STOP_WAIT) {
                signal(container, process, SIGKILL)?;
            }
        }
        State::Mounted { server, .. } => {
            // It unmounts what is its own, wherever that is now.
            signal(container, server, SIGTERM)?;
            // What is still open there would keep the server for as long; its changes are about to go anyway.
            if !ends_within(container, CLOSE_WAIT) {
                signal(container, server, SIGKILL)?;
            }
        }
        State::Created | State::Exited { .. } => {}
    }
    ends_within(container, END_WAIT);
    Ok(())
}

fn signal(container: &Container, process: ProcessId, number: i32) -> Result<(), ContainerError> {
    let failed = ContainerError::io("signal the process of", container.dir());
    match process
        .is_alive()
        .and_then(|alive| if alive { process::signal(process.pid, number) } else { Ok(()) })
    {
        Ok(()) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Whether nobody holds a container any more, after waiting for that.
fn ends_within(container: &Container, time: Duration) -> bool {
    let since = Instant::now();
    // One that cannot be read has been removed by who held it.
    while container.status().is_ok_and(|status| status.held) {
        if since.elapsed() >= time {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
