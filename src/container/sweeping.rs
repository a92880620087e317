//! Removing what processes that were killed have left behind. There is no daemon that would notice: whoever makes the next
//! container does it.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::ending::{delete, discard, groups_left};
use super::{Container, ContainerError, ContainerId, Containers, Seen, attaching, documents};
use crate::launcher::{Cgroup, IdMaps, SLIRP4NETNS_SOCKET, groups_here};
use crate::sys::atomic::TEMP_PREFIX;

/// Removes what interrupted runs and removals left: half-removed directories, containers that were to go at their end but
/// whose supervisor was killed, what belonged to the processes of others, names and volumes of nobody. Failures are logged:
/// nobody waits for this.
pub fn sweep(containers: &Containers) {
    if let Err(error) = try_sweep(containers) {
        tracing::warn!("removing what interrupted containers left: {error}");
    }
}

fn try_sweep(containers: &Containers) -> Result<(), ContainerError> {
    let Seen { restless, at_rest } = containers.look_through()?;
    for removal in containers.leftovers_among(&restless)? {
        log(delete(removal, containers, &IdMaps::for_caller()));
    }
    log(containers.volumes().and_then(|volumes| volumes.sweep()));
    log(containers.forget_names(&at_rest));
    log(containers.forget_unpublished(&restless));
    let groups = groups_here();
    // One that is at rest has groups when it was killed as it was being started again.
    let ids: BTreeSet<ContainerId> = restless
        .iter()
        .chain(groups.iter().map(|(id, _)| id))
        .filter_map(|id| ContainerId::parse(id))
        .collect();
    for id in ids {
        log(sweep_one(containers, id, &groups));
    }
    Ok(())
}

fn sweep_one(
    containers: &Containers,
    id: ContainerId,
    groups: &[(String, Cgroup)],
) -> Result<(), ContainerError> {
    let Some((container, status)) = containers.unheld(id)? else {
        tracing::debug!("container {}: left alone, somebody has it", id.short());
        return Ok(());
    };
    let is_to_go = container.config().remove_at_end && !container.is_set_aside()?;
    let groups = groups_left(&container, &status.state, groups);
    // Of those that go when they end, and of those that were killed, somebody always has to look what has become.
    let may_rest = !container.config().remove_at_end && !status.state.is_live() && !container.is_new()?;
    if !is_to_go && !may_rest && groups.is_empty() && files_left(&container)?.is_empty() {
        return Ok(());
    }
    // Held, so that nobody starts it meanwhile; unless somebody else has been faster.
    let held = match containers.hold(container) {
        Err(error @ (ContainerError::InUse { .. } | ContainerError::NotFound(_))) => {
            tracing::debug!("left alone: {error}");
            return Ok(());
        }
        held => held?,
    };
    groups.iter().for_each(Cgroup::end);
    if is_to_go {
        return discard(containers, held);
    }
    // Who gives it another name, or other limits, has a document under way.
    let _alone = containers.lock_names()?;
    files_left(&held)?.into_iter().try_for_each(remove_file)?;
    // Somebody may have started it before we had it, and been killed.
    if may_rest && !held.status()?.state.is_live() { documents::lay_to_rest(held.dir()) } else { Ok(()) }
}

/// One that cannot be removed must not keep the others.
fn log(removed: Result<(), ContainerError>) {
    if let Err(error) = removed {
        tracing::warn!("removing what interrupted containers left: {error}");
    }
}

/// What processes that are gone have left in a container's directory: sockets that nobody listens to, documents that never
/// got their name.
fn files_left(container: &Container) -> Result<Vec<PathBuf>, ContainerError> {
    let mut found = Vec::new();
    let mut list = || -> io::Result<()> {
        for entry in std::fs::read_dir(container.dir())? {
            let entry = entry?;
            let name = entry.file_name();
            let is_socket = name == attaching::SOCKET || name == SLIRP4NETNS_SOCKET;
            if is_socket || name.as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes()) {
                found.push(entry.path());
            }
        }
        Ok(())
    };
    match list() {
        // Somebody else has removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map(|()| found).map_err(ContainerError::io("list", container.dir())),
    }
}

fn remove_file(path: PathBuf) -> Result<(), ContainerError> {
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ContainerError::io("remove", &path)(error))
        }
        _ => Ok(()),
    }
}
