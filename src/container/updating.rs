//! Changing what a container may take, and when it runs again.

use std::io;
use std::thread;
use std::time::Duration;

use super::containers::in_use;
use super::restarting::RestartPolicy;
use super::{Container, ContainerError, ContainerId, Containers, State, Status, attaching};
use crate::launcher::{self, LaunchError, Resources};
use crate::sys::lock::FileLock;

/// How often, and for how long each time, the end of one who has a container that has ended is waited for.
const LET_GO_TRIES: u32 = 500;
const LET_GO_POLL: Duration = Duration::from_millis(10);

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

/// A container that nobody else updates meanwhile.
#[derive(Debug)]
pub struct Turn {
    container: Container,
    _lock: FileLock,
}

impl Turn {
    /// Waits until nobody else updates it, and looks at it again.
    ///
    /// # Errors
    /// [`ContainerError`]
    pub fn wait(containers: &Containers, container: &Container) -> Result<Self, ContainerError> {
        let path = container.dir().join("updating");
        let lock = match FileLock::exclusive(&path) {
            // It was removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            lock => Some(lock.map_err(ContainerError::io("lock", &path))?),
        };
        let gone = || ContainerError::NotFound(container.id().to_string());
        let (container, lock) = containers.load(container.id())?.zip(lock).ok_or_else(gone)?;
        Ok(Self { container, _lock: lock })
    }

    /// As it is now.
    #[must_use]
    pub fn container(&self) -> &Container {
        &self.container
    }
}

/// Sets the limits of a container, if it runs, and writes down the change.
///
/// # Errors
/// [`UpdateError`]; then nothing has changed.
pub fn update(containers: &Containers, turn: &Turn, change: &Change) -> Result<(), UpdateError> {
    let container = turn.container();
    let config = container.config();
    let (id, name) = (container.id(), config.name.clone());
    let old = config.run.clone().unwrap_or_default();
    let runs_again = change.restart != RestartPolicy::No && change.restart != old.restart;
    if runs_again && config.remove_at_end {
        return Err(UpdateError::Removed { id, name });
    }
    let status = settled(container)?;
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

/// What is true of it when whoever is at its end has written that down and let go of it.
fn settled(container: &Container) -> Result<Status, ContainerError> {
    for _ in 0..LET_GO_TRIES {
        let status = container.status()?;
        let is_ending = match &status.state {
            State::Exited { .. } => status.held,
            State::Running { process, .. } => {
                status.held && process.is_alive().is_ok_and(|is_alive| !is_alive)
            }
            _ => false,
        };
        if !is_ending {
            return Ok(status);
        }
        thread::sleep(LET_GO_POLL);
    }
    container.status()
}
