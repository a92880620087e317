//! Removing containers, also those whose files belong to ids that only their user namespace has.

use std::io;
use std::time::{Duration, Instant};

use super::{Container, ContainerError, ContainerId, Containers, Removal, State};
use crate::launcher::{IdMaps, as_root_of};
use crate::sys::{fuse_mount, process};

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
    for container in containers.list()? {
        if container.config().remove_at_end && container.status()?.can_remove() {
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

/// Kills a running container, unmounts a mounted one, and waits until nobody holds it.
fn end(container: &Container) -> Result<(), ContainerError> {
    let status = container.status()?;
    if !status.held {
        return Ok(());
    }
    match status.state {
        State::Running { process, .. } => {
            process::kill(process.pid).map_err(ContainerError::io("kill the process of", container.dir()))?;
        }
        State::Mounted { mountpoint, .. } => {
            fuse_mount::unmount_lazily(&mountpoint).map_err(ContainerError::io("unmount", &mountpoint))?;
        }
        State::Created | State::Exited { .. } => {}
    }
    let since = Instant::now();
    while container.status().is_ok_and(|status| status.held) && since.elapsed() < END_WAIT {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
