//! Changing what a container may take, and when it runs again.

use super::containers::in_use;
use super::restarting::RestartPolicy;
use super::{Container, ContainerError, ContainerId, Containers, State, attaching};
use crate::launcher::{self, LaunchError, Resources};

/// What is to be true of a container from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it may take.
    pub resources: Resources,
    /// When it runs again.
    pub restart: RestartPolicy,
}

/// Why a container stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The container, or its directory.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A limit cannot be set.
    #[error(transparent)]
    Limit(#[from] LaunchError),
    /// It is removed when it ends.
    #[error("container {} ({name}) is removed when it ends (--rm), so it cannot run again", id.short())]
    Removed {
        /// Which.
        id: ContainerId,
        /// Its name.
        name: String,
    },
    /// Nobody is there to run it again.
    #[error(
        "container {} ({name}) runs in the foreground, and ends with the command that has started it: stop it, and start it \
         again in the background",
        id.short()
    )]
    Foreground {
        /// Which.
        id: ContainerId,
        /// Its name.
        name: String,
    },
}

/// Sets the limits of a container, if it runs, and writes down the change.
///
/// # Errors
/// [`UpdateError`]; then nothing has changed.
pub fn update(containers: &Containers, container: &Container, change: &Change) -> Result<(), UpdateError> {
    let config = container.config();
    let (id, name) = (container.id(), config.name.clone());
    let old = config.run.clone().unwrap_or_default();
    let runs_again = change.restart != RestartPolicy::No && change.restart != old.restart;
    if runs_again && config.remove_at_end {
        return Err(UpdateError::Removed { id, name });
    }
    let status = container.status()?;
    if runs_again && status.is_running() && !attaching::is_served(container) {
        return Err(UpdateError::Foreground { id, name });
    }
    if status.held && !status.is_running() && !matches!(status.state, State::Restarting { .. }) {
        // It is being started with what was, or removed.
        return Err(in_use(container)?.into());
    }
    let leaf = match &status.state {
        State::Running { cgroup, .. } if change.resources != old.resources && status.is_running() => {
            Some(cgroup.as_ref().ok_or(ContainerError::NoCgroup { id, name })?)
        }
        _ => None,
    };
    let write = |resources: &Resources, restart: RestartPolicy| {
        containers.change(id, |config| {
            if let Some(wishes) = &mut config.run {
                wishes.resources.clone_from(resources);
                wishes.restart = restart;
            }
        })
    };
    write(&change.resources, change.restart)?;
    if let Some(Err(error)) = leaf.map(|leaf| launcher::limit(leaf, &change.resources)) {
        write(&old.resources, old.restart)?;
        return Err(error.into());
    }
    Ok(())
}
