//! Running a container: from what was asked for to its exit code, with its state written down on the way.

use std::io;

use super::rootfs::ImageRootfs;
use super::{ContainerError, Containers, Held, Moment, ProcessId, State};
use crate::fuse::Writes;
use crate::launcher::{self, Events, LaunchError, Plan};
use crate::mount::Layers;
use crate::upper::UpperOptions;

/// Why a container has no exit code of its own.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It was not started, or its end was not orderly.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Its directory.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A read-only container directory, or none at all.
    #[error("container {0}: it was made read-only and cannot be run")]
    NoUpper(String),
    /// The directory on which the root filesystem is mounted.
    #[error("{path}: {source}")]
    MountPoint {
        /// The directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl RunError {
    /// What to exit with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Launch(error) => error.exit_code(),
            Self::Container(_) | Self::NoUpper(_) | Self::MountPoint { .. } => launcher::EXIT_LAUNCHER,
        }
    }
}

/// Hears that the container has a single id only, and why.
pub type SingleId<'a> = &'a mut dyn FnMut(&str);

/// Writes down when the program starts.
struct Recorder<'a> {
    held: &'a Held,
    started: Moment,
    single_id: SingleId<'a>,
}

impl Events for Recorder<'_> {
    fn single_id(&mut self, reason: &str) {
        (self.single_id)(reason);
    }

    fn started(&mut self, program: i32, _supervisor: i32) -> io::Result<()> {
        self.started = Moment::now();
        let process = match ProcessId::of(u32::try_from(program).map_err(io::Error::other)?) {
            Ok(process) => process,
            // It has ended already; the exit code is about to be written.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let state = State::Running { process, started: self.started };
        self.held.set_state(&state).map_err(io::Error::other)
    }
}

/// Runs a container to its end, and writes that down. One that asked for it is removed, also when it never ran.
///
/// # Errors
/// [`RunError`]
pub fn run(
    containers: &Containers,
    held: Held,
    layers: Layers,
    writes: Writes,
    plan: &Plan,
    single_id: SingleId<'_>,
) -> Result<u8, RunError> {
    let changes = held.changes_dir().ok_or_else(|| RunError::NoUpper(held.id().short()))?;
    let made = std::fs::create_dir_all(&plan.rootfs_mount_point);
    made.map_err(|source| RunError::MountPoint {
        path: plan.rootfs_mount_point.display().to_string(),
        source,
    })?;
    // As podman has it: what is removed at the end need not survive a crash of the system either.
    let upper = UpperOptions { volatile: held.config().remove_at_end, ..UpperOptions::default() };
    let name = held.config().image.name.clone();
    let rootfs = ImageRootfs::new((layers, writes), (changes.to_owned(), upper), name)
        .map_err(ContainerError::io("open", changes))?;
    let mut recorder = Recorder { held: &held, started: Moment::now(), single_id };
    let result = launcher::run(plan, Box::new(rootfs), &mut recorder);
    let started = recorder.started;
    let exit_code = match &result {
        Ok(code) => *code,
        Err(error) => error.exit_code(),
    };
    if held.config().remove_at_end {
        super::ending::delete(held.detach(containers)?, &plan.id_maps)?;
    } else {
        held.set_state(&State::Exited { exit_code, started, finished: Moment::now() })?;
    }
    Ok(result?)
}
