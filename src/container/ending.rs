//! Removing containers, also those whose files belong to ids that only their user namespace has.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::stopping::{self, END_WAIT, SIGKILL, SIGTERM, Stop};
use super::{Container, ContainerError, ContainerId, Containers, Removal, Source, State, UsedVolume};
use crate::launcher::{Cgroup, IdMaps, as_root_of, groups_here};

/// How long the server of a mount that was taken away may wait for the last open file.
const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// How a container is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// It is ended first.
    pub force: bool,
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
    if how.force {
        end(&container)?;
    }
    let used =
        if how.volumes || container.config().remove_at_end { volumes_of(&container) } else { Vec::new() };
    let held = match containers.hold(container) {
        // It was to go at its end.
        Err(ContainerError::NotFound(_)) if how.force => return Ok(id),
        held => held?,
    };
    groups_left(&held, &held.status()?.state, &groups_here()).iter().for_each(Cgroup::end);
    delete(held.detach(containers)?, &IdMaps::for_caller())?;
    remove_anonymous(&used, containers)?;
    Ok(id)
}

/// The volumes that a container uses.
pub(super) fn volumes_of(container: &Container) -> Vec<UsedVolume> {
    container.config().run.as_ref().map(|wishes| wishes.volumes.clone()).unwrap_or_default()
}

/// Removes volumes that only a container had that is gone.
pub(super) fn remove_anonymous(used: &[UsedVolume], containers: &Containers) -> Result<(), ContainerError> {
    if used.iter().any(|used| used.source == Source::Anonymous) {
        containers.volumes()?.remove_anonymous(used, containers)?;
    }
    Ok(())
}

/// What there is of the control groups of a container that nobody runs: it was killed with all who would have removed them.
fn groups_left(container: &Container, state: &State, here: &[(String, Cgroup)]) -> Vec<Cgroup> {
    let id = container.id().to_string();
    let recorded = match state {
        State::Running { cgroup: Some(leaf), .. } => Some(Cgroup::whole(leaf)),
        _ => None,
    };
    let found = here.iter().filter(|(one, _)| *one == id).map(|(_, group)| group.clone());
    found.chain(recorded).filter(|group| group.path().exists()).collect()
}

/// Removes what interrupted runs and removals left: half-removed directories, and containers that were to go at their
/// end but whose supervisor was killed. Failures are logged: nobody waits for this.
pub fn sweep(containers: &Containers) {
    if let Err(error) = try_sweep(containers) {
        tracing::warn!("removing what interrupted containers left: {error}");
    }
}

fn try_sweep(containers: &Containers) -> Result<(), ContainerError> {
    let restless = containers.restless()?;
    for removal in containers.leftovers_among(&restless)? {
        delete(removal, &IdMaps::for_caller())?;
    }
    let groups = groups_here();
    // One that is at rest has groups when it was killed as it was being started again.
    let ids: BTreeSet<ContainerId> = restless
        .iter()
        .chain(groups.iter().map(|(id, _)| id))
        .filter_map(|id| ContainerId::parse(id))
        .collect();
    for id in ids {
        let Some((container, status)) = containers.unheld(id)? else { continue };
        let left = groups_left(&container, &status.state, &groups);
        if !left.is_empty()
            // Held, so that nobody starts it meanwhile.
            && let Ok(_held) = containers.hold(container.clone())
        {
            left.iter().for_each(Cgroup::end);
        }
        if container.config().remove_at_end && !container.is_set_aside()? {
            let used = volumes_of(&container);
            delete(containers.detach(container)?, &IdMaps::for_caller())?;
            remove_anonymous(&used, containers)?;
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
    match status.state {
        _ if !status.held => return Ok(()),
        State::Running { .. } | State::Restarting { .. } => stopping::halt(container, &Stop::default())?,
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
