//! Removing containers, also those whose files belong to ids that only their user namespace has.

use std::io;
use std::time::Duration;

use super::stopping::{self, END_WAIT, SIGKILL, SIGTERM, Stop, StopWait};
use super::{Container, ContainerError, ContainerId, Containers, Held, OwnVolumes, Removal, State};
use crate::launcher::{Cgroup, IdMaps, as_root_of, groups_here};

/// How long the server of a mount that was taken away may wait for the last open file.
const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// How a container is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// It is ended first, and has so long for that.
    pub force: Option<StopWait>,
    /// And with it the volumes that it alone has and nobody has named.
    pub volumes: bool,
}

/// Removes a container.
///
/// # Errors
/// [`ContainerError`]
pub fn remove(containers: &Containers, text: &str, how: How) -> Result<ContainerId, ContainerError> {
    let container = containers.find(text)?;
    let id = container.id();
    if let Some(wait) = how.force {
        end(&container, wait)?;
    }
    let own = match how.volumes || container.config().remove_at_end {
        true => OwnVolumes::Go,
        false => OwnVolumes::Stay,
    };
    let held = match containers.hold(container.clone()) {
        // It was to go at its end. Who removes it may still be at it, and does not mind help.
        Err(ContainerError::NotFound(_)) if how.force.is_some() => {
            delete(containers.removal_of(&container, own), containers, &IdMaps::for_caller())?;
            return Ok(id);
        }
        held => held?,
    };
    groups_left(&held, &held.status()?.state, &groups_here()).iter().for_each(Cgroup::end);
    delete(held.detach(containers, own)?, containers, &IdMaps::for_caller())?;
    Ok(id)
}

/// What there is of the control groups of a container that nobody runs: it was killed with all who would have removed them.
pub(super) fn groups_left(container: &Container, state: &State, here: &[(String, Cgroup)]) -> Vec<Cgroup> {
    let id = container.id().to_string();
    let recorded = match state {
        State::Running { cgroup: Some(leaf), .. } => Some(Cgroup::whole(leaf)),
        _ => None,
    };
    let found = here.iter().filter(|(one, _)| *one == id).map(|(_, group)| group.clone());
    found.chain(recorded).filter(|group| group.path().exists()).collect()
}

/// Takes back a container that did not come about.
///
/// # Errors
/// [`ContainerError`]
pub fn discard(containers: &Containers, held: Held) -> Result<(), ContainerError> {
    delete(held.detach(containers, OwnVolumes::Go)?, containers, &IdMaps::for_caller())
}

/// Deletes the volumes that go with a container that is out of sight, and its files. In this order: who is killed in between
/// leaves what says which volumes they are.
pub(super) fn delete(removal: Removal, containers: &Containers, maps: &IdMaps) -> Result<(), ContainerError> {
    let removed = match removal.volumes() {
        [] => Ok(()),
        volumes => containers.volumes().and_then(|all| all.remove_anonymous(volumes, containers)),
    };
    delete_files(&removal, maps)?;
    removed
}

/// Deletes the files of what is out of sight.
pub(super) fn delete_files(removal: &Removal, maps: &IdMaps) -> Result<(), ContainerError> {
    match removal.delete() {
        Err(error) if error.is_permission_denied() && *maps != IdMaps::Identity => {
            let inside = as_root_of(maps, || removal.delete().map_err(io::Error::other));
            inside.map_err(ContainerError::io("remove", removal.path()))
        }
        result => result,
    }
}

/// Ends a container. One that is gone meanwhile, as those that go by themselves, has ended.
pub(super) fn end(container: &Container, wait: StopWait) -> Result<(), ContainerError> {
    match end_present(container, wait) {
        Err(ContainerError::NotFound(_)) => Ok(()),
        result => result,
    }
}

/// Stops a running container as its image wishes, has the server of a mounted one unmount it, and waits until nobody holds it.
fn end_present(container: &Container, wait: StopWait) -> Result<(), ContainerError> {
    let status = container.settled_status()?;
    match status.state {
        _ if !status.held => return Ok(()),
        State::Running { .. } | State::Restarting { .. } => {
            stopping::halt(container, &Stop { wait, ..Stop::default() })?
        }
        State::Mounted { server, .. } => {
            // It unmounts what is its own, wherever that is now.
            stopping::signal(container, server, SIGTERM)?;
            // What is still open there would keep the server for as long; its changes are about to go anyway.
            if !stopping::ends_within(container, Some(CLOSE_WAIT)) {
                stopping::signal(container, server, SIGKILL)?;
            }
        }
        State::Created | State::Exited { .. } => {}
    }
    stopping::ends_within(container, Some(END_WAIT));
    Ok(())
}
