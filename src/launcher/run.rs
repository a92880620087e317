//! The starter: the process that the user called. Forks the supervisor, writes the id maps, forwards signals and the terminal.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid};

use super::connection::Connection;
use super::early_users::EarlyUsers;
use super::ended::Ended;
use super::events::Events;
use super::failure::{Context as _, EXIT_LAUNCHER, Failure};
use super::plan::{Output, Plan, Window};
use super::rootfs::Rootfs;
use super::signals::BlockedSignals;
use super::starter::Starter;
use super::streams::{self, StreamEnds};
use super::supervisor::{First, Supervisor, exit_code_of_signal};
use super::terminal;
use crate::sys::message_socket::MessageSocket;
use crate::sys::process::{self, Fork};

/// Why [`run`] has no exit code of the program.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program was not started.
    #[error("{0}")]
    NotStarted(Box<Failure>),
    /// A signal came before the program ran.
    #[error("interrupted by {0} before the container was started")]
    Interrupted(Signal),
    /// The supervisor ended without a word. The container has been killed.
    #[error("the container's supervisor died")]
    SupervisorDied,
    /// The program ran, but what it wrote may be lost.
    #[error("the container exited with {code}, but its files could not be made safe: {message}")]
    NotFinished {
        /// Its exit code.
        code: u8,
        /// What went wrong.
        message: String,
    },
}

impl From<Box<Failure>> for LaunchError {
    fn from(failure: Box<Failure>) -> Self {
        Self::NotStarted(failure)
    }
}

impl LaunchError {
    /// The exit code that docker and podman give for it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotStarted(failure) => failure.exit_code,
            Self::Interrupted(signal) => exit_code_of_signal(*signal),
            Self::SupervisorDied | Self::NotFinished { .. } => EXIT_LAUNCHER,
        }
    }
}

/// Runs a container to its end, which has the exit code of its program (128 + n when a signal ended it).
///
/// `users` is a user namespace that was made ahead for the plan's caller. The calling process must have one thread. Its
/// signals are handled here until the container has ended.
///
/// # Errors
/// [`LaunchError`]; its `exit_code` is what to exit with.
pub fn run(
    plan: &Plan,
    users: Option<EarlyUsers>,
    rootfs: Box<dyn Rootfs>,
    events: &mut dyn Events,
) -> Result<Ended, LaunchError> {
    launch((plan, users), CgroupWish::New, events, |given| {
        Supervisor::new(given, rootfs, First::Program).run()
    })
}

/// What the process between starter and program is given.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) plan: &'a Plan,
    pub(super) window: Option<Window>,
    pub(super) starter: Pid,
    /// The user namespace to be in, if there is one already.
    pub(super) users: Option<BorrowedFd<'a>>,
    pub(super) control: MessageSocket,
    pub(super) errors: PipeWriter,
    /// Where the program is to write, if not where we do.
    pub(super) streams: Option<StreamEnds>,
    /// Where its first process learns that its network is there.
    pub(super) connected: Option<PipeReader>,
}

/// The control group that the program is to be in.
#[derive(Clone, Copy, Debug)]
pub(super) enum CgroupWish<'a> {
    /// A new one.
    New,
    /// That of a container that runs, if it has one.
    Of(Option<&'a Path>),
}

/// Forks the process between starter and program, whose exit code `become_it` gives if it returns at all, and is the starter until all is over.
pub(super) fn launch(
    (plan, users): (&Plan, Option<EarlyUsers>),
    cgroup_wish: CgroupWish<'_>,
    events: &mut dyn Events,
    become_it: impl FnOnce(Given<'_>) -> u8,
) -> Result<Ended, LaunchError> {
    let signals = BlockedSignals::new().stage("signals")?;
    let (control, control_there) = MessageSocket::pair().stage("socketpair")?;
    let (errors, errors_there) = io::pipe().stage("pipe")?;
    let (streams, ends) = match plan.output {
        Output::Taken => {
            let input = plan.interactive && !plan.terminal;
            streams::pair(input).map(|(here, there)| (Some(here), Some(there))).stage("pipe")?
        }
        Output::Passed => (None, None),
    };
    let (network, connected) = Connection::pair(plan).stage("pipe")?;
    let window = if plan.terminal { plan.window.or_else(terminal::window) } else { None };
    let starter = getpid();
    let child = match process::fork().stage("fork")? {
        Fork::Child => {
            drop((control, errors, streams, network));
            let (control, errors) = (control_there, errors_there);
            process::exit_now(become_it(Given {
                plan,
                window,
                starter,
                users: users.as_ref().map(AsFd::as_fd),
                control,
                errors,
                streams: ends,
                connected,
            }))
        }
        Fork::Parent(child) => child,
    };
    drop((control_there, errors_there, ends, connected));
    let mut starter = Starter {
        plan,
        events,
        users,
        supervisor: child,
        control: Some(control),
        errors: Some(errors),
        signals,
        container: None,
        running: false,
        deadline: None,
        relay: None,
        streams,
        network,
        outcome: None,
        interrupted: None,
        cgroup_wish,
        cgroup: None,
    };
    let result = starter.serve();
    starter.end(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_dockers() {
        assert_eq!(LaunchError::SupervisorDied.exit_code(), 125);
        assert_eq!(LaunchError::Interrupted(Signal::SIGINT).exit_code(), 130);
        let failure = Failure::new("exec", &io::Error::other("x")).exit_code(127);
        assert_eq!(LaunchError::from(Box::new(failure)).exit_code(), 127);
    }
}
