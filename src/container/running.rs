//! Running a container: from what was asked for to its exit code, with its state written down on the way.

use std::io;
use std::os::fd::AsFd as _;

use super::log::LogWriter;
use super::rootfs::ImageRootfs;
use super::{ContainerError, Containers, Held, Moment, ProcessId, State};
use crate::fuse::Writes;
use crate::launcher::{self, Events, LaunchError, Output, Plan, Stream};
use crate::mount::Layers;
use crate::sys::{daemon, process};
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
    /// It runs in the background, and this is why it did not start.
    #[error("{message}")]
    Background {
        /// What went wrong.
        message: String,
        /// What to exit with.
        exit_code: u8,
    },
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
            Self::Container(_) | Self::NoUpper(_) | Self::Fork(_) | Self::MountPoint { .. } => {
                launcher::EXIT_LAUNCHER
            }
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
}

/// Writes down when the program starts, and shows what it writes.
struct Recorder<'a> {
    held: &'a Held,
    started: Moment,
    place: &'a mut dyn Place,
}

/// Where a container runs.
trait Place {
    fn single_id(&mut self, reason: &str);

    fn started(&mut self) {}

    fn wrote(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        launcher::show(stream, bytes)
    }
}

impl Events for Recorder<'_> {
    fn single_id(&mut self, reason: &str) {
        self.place.single_id(reason);
    }

    fn started(&mut self, program: i32, _supervisor: i32) -> io::Result<()> {
        self.started = Moment::now();
        match ProcessId::of(u32::try_from(program).map_err(io::Error::other)?) {
            Ok(process) => {
                let state = State::Running { process, started: self.started };
                self.held.set_state(&state).map_err(io::Error::other)?;
            }
            // It has ended already; the exit code is about to be written.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.place.started();
        Ok(())
    }

    fn wrote(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        self.place.wrote(stream, bytes)
    }
}

/// Runs a container to its end, and writes that down. One that asked for it is removed, also when it never ran.
///
/// # Errors
/// [`RunError`]
pub fn run(containers: &Containers, ready: Ready, single_id: SingleId<'_>) -> Result<u8, RunError> {
    run_at(containers, ready, &mut Foreground(single_id))
}

/// Runs a container in a process of its own, and returns when its program runs; what that prints is kept. Gives the layers
/// back, which that process has as well.
///
/// # Errors
/// [`RunError`]; of what happens later the container's state tells.
pub fn run_in_background(
    containers: &Containers,
    ready: Ready,
    single_id: SingleId<'_>,
) -> Result<Layers, RunError> {
    match daemon::fork().map_err(RunError::Fork)? {
        daemon::Forked::Parent(child) => {
            drop(ready.held);
            let note = child.wait().map_err(RunError::said)?;
            if !note.is_empty() {
                single_id(&note);
            }
            Ok(ready.layers)
        }
        daemon::Forked::Child(notifier) => process::exit_now(in_background(containers, ready, notifier)),
    }
}

fn in_background(containers: &Containers, mut ready: Ready, notifier: daemon::Notifier) -> u8 {
    let limits = ready.held.config().run.as_ref().map(|wishes| wishes.log).unwrap_or_default();
    let path = ready.held.log_path();
    let detached = daemon::detach(&path).and_then(|()| LogWriter::open(&path, limits));
    let mut place = Background { notifier: Some(notifier), single_id: String::new(), log: None, input: None };
    let result = detached.and_then(|log| place.arrange(&mut ready.plan).map(|()| log));
    let result = match result {
        Ok(log) => {
            place.log = Some(log);
            run_at(containers, ready, &mut place)
        }
        Err(error) => Err(ContainerError::io("write", &path)(error).into()),
    };
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    match place.notifier.take() {
        // Nobody is left to hear it when that fails.
        Some(notifier) => notifier.failed(&error.to_be_said()).unwrap_or_default(),
        None => tracing::error!("{error}"),
    }
    error.exit_code()
}

struct Foreground<'a>(SingleId<'a>);

impl Place for Foreground<'_> {
    fn single_id(&mut self, reason: &str) {
        (self.0)(reason);
    }
}

struct Background {
    /// Until the program runs.
    notifier: Option<daemon::Notifier>,
    single_id: String,
    log: Option<LogWriter>,
    /// Of a standard input that nobody writes to, so that its end never comes.
    input: Option<io::PipeWriter>,
}

impl Background {
    fn arrange(&mut self, plan: &mut Plan) -> io::Result<()> {
        plan.output = Output::Taken;
        // There is no input to carry to a terminal; it stays open anyway.
        if plan.interactive {
            let (reader, writer) = io::pipe()?;
            nix::unistd::dup2_stdin(reader.as_fd())?;
            self.input = Some(writer);
        }
        plan.interactive &= !plan.terminal;
        Ok(())
    }
}

impl Place for Background {
    fn single_id(&mut self, reason: &str) {
        reason.clone_into(&mut self.single_id);
    }

    fn started(&mut self) {
        if let Some(notifier) = self.notifier.take()
            && let Err(error) = notifier.ready_but(&self.single_id)
        {
            tracing::debug!(%error, "nobody waited for the start");
        }
    }

    /// A log that cannot be written must not keep the program from going on.
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if let Some(log) = &mut self.log
            && let Err(error) = log.write(stream, bytes, Moment::now())
        {
            tracing::error!(%error, bytes = bytes.len(), "what the program wrote is lost");
        }
        Ok(())
    }
}

fn run_at(containers: &Containers, ready: Ready, place: &mut dyn Place) -> Result<u8, RunError> {
    let Ready { held, layers, writes, plan } = ready;
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
    let mut recorder = Recorder { held: &held, started: Moment::now(), place };
    let result = launcher::run(&plan, Box::new(rootfs), &mut recorder);
    let started = recorder.started;
    let exit_code = match &result {
        Ok(code) => *code,
        Err(error) => error.exit_code(),
    };
    if let Err(error) = held.leave_exit_code(exit_code) {
        tracing::warn!(%error, "who waits for the end will not learn the exit code");
    }
    if held.config().remove_at_end {
        super::ending::delete(held.detach(containers)?, &plan.id_maps)?;
    } else {
        held.set_state(&State::Exited { exit_code, started, finished: Moment::now() })?;
    }
    Ok(result?)
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
