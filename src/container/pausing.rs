//! Holding what runs in a container, and letting it go on. Whether it is held the kernel knows: it is written down nowhere.

use super::{Container, ContainerError, Containers, State, Status};
use crate::launcher::Cgroup;

impl Status {
    /// Its control group, while it runs in one.
    #[must_use]
    pub fn cgroup(&self) -> Option<Cgroup> {
        match &self.state {
            State::Running { cgroup: Some(path), .. } if self.held => Some(Cgroup::at(path.clone())),
            _ => None,
        }
    }

    /// Whether none of its processes may run. Looks at its control group.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.cgroup().is_some_and(|cgroup| cgroup.is_frozen())
    }
}

/// Lets no process of a running container run.
///
/// # Errors
/// [`ContainerError::NotRunning`], [`ContainerError::Paused`], [`ContainerError::NoCgroup`], or what the system says.
pub fn pause(containers: &Containers, text: &str) -> Result<(), ContainerError> {
    let (container, cgroup) = group_of(containers, text)?;
    if cgroup.is_frozen() {
        let (id, name) = named(&container);
        return Err(ContainerError::Paused { id, name });
    }
    cgroup.freeze().map_err(ContainerError::io("freeze", cgroup.path()))
}

/// Lets the processes of a paused container go on.
///
/// # Errors
/// As [`pause`], with [`ContainerError::NotPaused`].
pub fn unpause(containers: &Containers, text: &str) -> Result<(), ContainerError> {
    let (container, cgroup) = group_of(containers, text)?;
    if !cgroup.is_frozen() {
        let (id, name) = named(&container);
        return Err(ContainerError::NotPaused { id, name });
    }
    cgroup.thaw().map_err(ContainerError::io("thaw", cgroup.path()))
}

/// Lets a container go on that may be paused: else it would not take notice of its stop signal.
pub(super) fn thaw(container: &Container, status: &Status) -> Result<(), ContainerError> {
    let Some(cgroup) = status.cgroup().filter(Cgroup::is_frozen) else { return Ok(()) };
    match cgroup.thaw() {
        // It was removed when its last process had gone.
        Err(_) if !cgroup.path().exists() => Ok(()),
        result => result.map_err(ContainerError::io("thaw", container.dir())),
    }
}

fn group_of(containers: &Containers, text: &str) -> Result<(Container, Cgroup), ContainerError> {
    let container = containers.find(text)?;
    let status = container.settled_status()?;
    let (id, name) = named(&container);
    if !status.is_running() {
        return Err(ContainerError::NotRunning { id, name });
    }
    let cgroup = status.cgroup().ok_or(ContainerError::NoCgroup { id, name })?;
    Ok((container, cgroup))
}

fn named(container: &Container) -> (super::ContainerId, String) {
    (container.id(), container.config().name.clone())
}
