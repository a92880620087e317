//! Changing what a container may take, and when it runs again.

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
    let limits = change.resources != old.resources && status.is_running();
    if let (true, State::Running { cgroup, .. }) = (limits, &status.state) {
        let leaf = cgroup.as_ref().ok_or(ContainerError::NoCgroup { id, name })?;
        if let Err(error) = launcher::limit(leaf, &change.resources) {
            // What was set before it.
            if let Err(error) = launcher::limit(leaf, &old.resources) {
                tracing::warn!(%error, "limits of before the change");
            }
            return Err(error.into());
        }
    }
    Ok(containers.change(id, |config| {
        if let Some(wishes) = &mut config.run {
            wishes.resources.clone_from(&change.resources);
            wishes.restart = change.restart;
        }
    })?)
}
