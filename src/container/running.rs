//! Running a container: from what was asked for to its exit code, with its state written down on the way.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::attaching::AttachError;
use super::rootfs::ImageRootfs;
use super::{ContainerError, Containers, Held, Moment, OwnVolumes, ProcessId, State, ending, ports};
use crate::fuse::Writes;
use crate::launcher::{self, EarlyUsers, Ended, Events, Input, LaunchError, Plan, PortTaken, Stream};
use crate::model::port::PortError;
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
    /// A port of the host is not to be had.
    #[error(transparent)]
    Port(#[from] PortTaken),
    /// The image exposes what is no port.
    #[error("the image's ExposedPorts: {0}")]
    ExposedPort(#[from] PortError),
    /// A read-only container directory, or none at all.
    #[error("container {0}: it was made read-only and cannot be run")]
    NoUpper(String),
    /// It runs in the background, and this is why it did not start.
    #[error("{message}")]
    Background {
        /// What went wrong.
        message: String,
        /// What to exit with.
        exit_code: u8,
    },
    /// It runs in the background, and this command is not attached to it.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// No process for the background.
    #[error("fork: {0}")]
    Fork(io::Error),
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
    /// As a process in the background says it: the exit code, a space, and what went wrong.
    pub(super) fn to_be_said(&self) -> String {
        format!("{} {self}", self.exit_code())
    }

    /// What such a process said.
    pub(super) fn said(text: String) -> Self {
        match text.split_once(' ').map(|(code, message)| (code.parse(), message)) {
            Some((Ok(exit_code), message)) => Self::Background { message: message.to_owned(), exit_code },
            _ => Self::Background { message: text, exit_code: launcher::EXIT_LAUNCHER },
        }
    }

    /// What to exit with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Launch(error) => error.exit_code(),
            Self::Background { exit_code, .. } => *exit_code,
            Self::Container(_)
            | Self::Port(_)
            | Self::ExposedPort(_)
            | Self::NoUpper(_)
            | Self::Attach(_)
            | Self::Fork(_)
            | Self::MountPoint { .. } => launcher::EXIT_LAUNCHER,
        }
    }
}

/// Hears that the container has a single id only, and why.
pub type SingleId<'a> = &'a mut dyn FnMut(&str);

/// A container that is about to run.
#[derive(Debug)]
pub struct Ready {
    /// Its directory.
    pub held: Held,
    /// Its image.
    pub layers: Layers,
    /// When what it writes reaches us.
    pub writes: Writes,
    /// What it runs.
    pub plan: Plan,
    /// Its user namespace, if that was made ahead.
    pub users: Option<EarlyUsers>,
}

/// Runs a container to its end, and writes that down. One that asked for it is removed, also when it never ran.
///
/// # Errors
/// [`RunError`]
pub fn run(containers: &Containers, ready: Ready, single_id: SingleId<'_>) -> Result<u8, RunError> {
    let Ready { held, layers, writes, mut plan, users } = ready;
    let ran = run_once(&held, (layers, writes), (&mut plan, users), &mut Foreground(single_id));
    finish(containers, held, &plan, &ran)?;
    ran.result.map(|ended| ended.code())
}

struct Foreground<'a>(SingleId<'a>);

impl Events for Foreground<'_> {
    fn single_id(&mut self, reason: &str) {
        (self.0)(reason);
    }
}

/// How a program ran.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) result: Result<Ended, RunError>,
    pub(super) started: Moment,
    /// A process was killed because its memory did not suffice.
    pub(super) oom_killed: bool,
}

impl Ran {
    pub(super) fn exit_code(&self) -> u8 {
        match &self.result {
            Ok(ended) => ended.code(),
            Err(error) => error.exit_code(),
        }
    }
}

/// Runs a container's program to its end.
pub(super) fn run_once(
    held: &Held,
    image: (Layers, Writes),
    what: (&mut Plan, Option<EarlyUsers>),
    events: &mut dyn Events,
) -> Ran {
    let failed = |error| Ran { result: Err(error), started: Moment::now(), oom_killed: false };
    try_run(held, image, what, events).unwrap_or_else(failed)
}

fn try_run(
    held: &Held,
    (layers, writes): (Layers, Writes),
    (plan, users): (&mut Plan, Option<EarlyUsers>),
    events: &mut dyn Events,
) -> Result<Ran, RunError> {
    let changes = held.changes_dir().ok_or_else(|| RunError::NoUpper(held.id().short()))?;
    let made = std::fs::create_dir_all(&plan.rootfs_mount_point);
    made.map_err(|source| RunError::MountPoint {
        path: plan.rootfs_mount_point.display().to_string(),
        source,
    })?;
    // As podman has it: what is removed at the end need not survive a crash of the system either.
    let upper = UpperOptions { volatile: held.config().remove_at_end, ..UpperOptions::default() };
    let name = held.config().image.name.clone();
    let own_ids = plan.own_ids.clone();
    let rootfs = ImageRootfs::new((layers, writes), (changes.to_owned(), upper), own_ids, name)
        .map_err(ContainerError::io("open", changes))?;
    let mut recorder = Recorder { held, started: Moment::now(), cgroup: None, oom_killed: false, events };
    let result = publish(held, plan)
        .and_then(|()| launcher::run(plan, users, Box::new(rootfs), &mut recorder).map_err(RunError::from));
    // What is removed now does not come back; what can be started again must not find a server of its files.
    let result = if upper.volatile { result } else { result.map(Ended::wholly) };
    Ok(Ran { result, started: recorder.started, oom_killed: recorder.oom_killed })
}

/// Chooses the ports of the host, and writes them down before the program runs: who sees it running sees them, too.
fn publish(held: &Held, plan: &mut Plan) -> Result<(), RunError> {
    if let (true, Some(wishes)) = (plan.network.is_connected(), &held.config().run) {
        let wanted = ports::wanted(&held.config().image.process, wishes)?;
        let again = ports::as_before(held.dir(), &wanted);
        // Somebody else may have one of them now; then it is any other, but where one was asked for.
        plan.published = launcher::choose_ports(&again).or_else(|_| launcher::choose_ports(&wanted))?;
    }
    Ok(ports::write(held.dir(), &plan.published)?)
}

/// Writes down how a container ended, or removes it.
pub(super) fn finish(
    containers: &Containers,
    held: Held,
    plan: &Plan,
    ran: &Ran,
) -> Result<(), ContainerError> {
    let Ran { started, oom_killed, .. } = *ran;
    let exit_code = ran.exit_code();
    if let Err(error) = held.leave_exit_code(exit_code) {
        tracing::warn!(%error, "who waits for the end will not learn the exit code");
    }
    if held.config().remove_at_end {
        let removal = held.detach(containers, OwnVolumes::Go)?;
        return ending::delete(removal, containers, &plan.id_maps);
    }
    held.set_state(&State::Exited { exit_code, started, finished: Moment::now(), oom_killed })
}

/// Writes down when the program starts.
struct Recorder<'a> {
    held: &'a Held,
    started: Moment,
    cgroup: Option<PathBuf>,
    oom_killed: bool,
    events: &'a mut dyn Events,
}

impl Events for Recorder<'_> {
    fn single_id(&mut self, reason: &str) {
        self.events.single_id(reason);
    }

    fn cgroup(&mut self, path: &Path) {
        self.cgroup = Some(path.to_owned());
    }

    fn out_of_memory(&mut self) {
        self.oom_killed = true;
    }

    fn started(&mut self, program: i32, supervisor: i32) -> io::Result<()> {
        self.started = Moment::now();
        match ProcessId::of(u32::try_from(program).map_err(io::Error::other)?) {
            Ok(process) => {
                let state = State::Running { process, started: self.started, cgroup: self.cgroup.take() };
                self.held.set_state(&state).map_err(io::Error::other)?;
            }
            // It has ended already; the exit code is about to be written.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.events.started(program, supervisor)
    }

    fn wrote(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        self.events.wrote(stream, bytes)
    }

    fn has_room(&self) -> bool {
        self.events.has_room()
    }

    fn interests(&self) -> Vec<PollFd<'_>> {
        self.events.interests()
    }

    fn wait_at_most(&self) -> Option<Duration> {
        self.events.wait_at_most()
    }

    fn turn(&mut self, found: &[PollFlags], input: &mut dyn Input) -> io::Result<()> {
        self.events.turn(found, input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_start_in_the_background_says() {
        let said = |text: &str| {
            let error = RunError::said(text.to_owned());
            (error.exit_code(), error.to_string())
        };
        assert_eq!(said("127 exec: /x: not there"), (127, "exec: /x: not there".to_owned()));
        assert_eq!(said("the server died"), (125, "the server died".to_owned()));
        assert_eq!(RunError::said("127 x".to_owned()).to_be_said(), "127 x");
    }
}
