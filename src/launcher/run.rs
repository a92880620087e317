//! The starter: the process that the user called. Forks the supervisor, writes the id maps, forwards signals and the terminal.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};
use rustix::termios::Winsize;

use super::failure::{Context as _, EXIT_LAUNCHER, Failure, Step};
use super::id_maps::{self, Written};
use super::own_ids::OwnIds;
use super::plan::{Output, Plan, Seccomp};
use super::relay::{self, Relay};
use super::rootfs::Rootfs;
use super::seccomp::{self, ProfileError};
use super::streams::{self, Stream, StreamEnds, Streams};
use super::supervisor::{
    MESSAGE_EXIT, MESSAGE_PROCESS, MESSAGE_RANGES, MESSAGE_READY, MESSAGE_SINGLE, MESSAGE_TERMINAL,
    Supervisor, exit_code_of_signal,
};
use super::terminal;
use crate::sys::message_socket::{Message, MessageSocket};
use crate::sys::process::{self, Child, Fork};
use crate::sys::seccomp::Instruction;

/// Why [`run`] has no exit code of the program.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program was not started.
    #[error("{0}")]
    NotStarted(Box<Failure>),
    /// The default filter could not be made.
    #[error(transparent)]
    Seccomp(#[from] ProfileError),
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
            Self::Seccomp(_) | Self::SupervisorDied | Self::NotFinished { .. } => EXIT_LAUNCHER,
        }
    }
}

/// What a caller of [`run`] may want to know while it runs.
pub trait Events {
    /// The plan's id ranges could not be used; the container has a single id. Told at most once.
    fn single_id(&mut self, reason: &str) {
        tracing::warn!(reason, "the container has a single id");
    }

    /// The program runs. Both numbers are as this process sees them.
    ///
    /// # Errors
    /// Any error ends the container.
    fn started(&mut self, program: i32, supervisor: i32) -> io::Result<()> {
        tracing::debug!(program, supervisor, "started");
        Ok(())
    }

    /// The program wrote this: to its terminal, or anywhere when its output is [`Output::Taken`].
    ///
    /// # Errors
    /// Any error ends the container.
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        show(stream, bytes)
    }
}

/// Writes what a program wrote to our own standard output or error.
///
/// # Errors
/// What write(2) says.
pub fn show(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    fn write(mut to: impl io::Write, bytes: &[u8]) -> io::Result<()> {
        to.write_all(bytes).and_then(|()| to.flush())
    }
    match stream {
        Stream::Output => write(io::stdout().lock(), bytes),
        Stream::Errors => write(io::stderr().lock(), bytes),
    }
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvents;

impl Events for NoEvents {}

/// Runs a container to its end, and gives the exit code of its program (128 + n when a signal ended it).
///
/// The calling process must have one thread. Its signals are handled here until the container has ended.
///
/// # Errors
/// [`LaunchError`]; its `exit_code` is what to exit with.
pub fn run(plan: &Plan, rootfs: Box<dyn Rootfs>, events: &mut dyn Events) -> Result<u8, LaunchError> {
    launch(plan, events, |given| Supervisor { given, rootfs }.run())
}

/// What the process between starter and program is given.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) plan: &'a Plan,
    pub(super) filter: Option<&'a [Instruction]>,
    pub(super) window: Option<Winsize>,
    pub(super) starter: Pid,
    pub(super) control: MessageSocket,
    pub(super) errors: PipeWriter,
    /// Where the program is to write, if not where we do.
    pub(super) streams: Option<StreamEnds>,
}

/// Forks the process between starter and program, whose exit code `become_it` gives if it returns at all, and is the starter until all is over.
pub(super) fn launch(
    plan: &Plan,
    events: &mut dyn Events,
    become_it: impl FnOnce(Given<'_>) -> u8,
) -> Result<u8, LaunchError> {
    let filter = match plan.seccomp {
        Seccomp::Default => Some(seccomp::filter(plan.capabilities)?),
        Seccomp::Unconfined => None,
    };
    let signals = BlockedSignals::new().stage("signals")?;
    let (control, control_there) = MessageSocket::pair().stage("socketpair")?;
    let (errors, errors_there) = io::pipe().stage("pipe")?;
    let (streams, ends) = match plan.output {
        Output::Taken => streams::pair().map(|(here, there)| (Some(here), Some(there))).stage("pipe")?,
        Output::Passed => (None, None),
    };
    let window = if plan.terminal { terminal::window() } else { None };
    let starter = getpid();
    let child = match process::fork().stage("fork")? {
        Fork::Child => {
            drop((control, errors, streams));
            let (control, errors, filter) = (control_there, errors_there, filter.as_deref());
            process::exit_now(become_it(Given {
                plan,
                filter,
                window,
                starter,
                control,
                errors,
                streams: ends,
            }))
        }
        Fork::Parent(child) => child,
    };
    drop((control_there, errors_there, ends));
    let mut starter = Starter {
        plan,
        events,
        supervisor: child,
        control: Some(control),
        errors: Some(errors),
        signals,
        container: None,
        running: false,
        relay: None,
        streams,
        outcome: None,
        interrupted: None,
    };
    let result = starter.serve();
    starter.end(result)
}

struct Starter<'a> {
    plan: &'a Plan,
    events: &'a mut dyn Events,
    supervisor: Child,
    control: Option<MessageSocket>,
    errors: Option<PipeReader>,
    signals: BlockedSignals,
    /// The container's first process.
    container: Option<(i32, OwnedFd)>,
    /// Whether it has become the program.
    running: bool,
    relay: Option<Relay>,
    streams: Option<Streams>,
    /// Exit code, and what could not be made safe.
    outcome: Option<(u8, String)>,
    interrupted: Option<Signal>,
}

impl fmt::Debug for Starter<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Starter").field("supervisor", &self.supervisor).finish_non_exhaustive()
    }
}

/// What poll(2) found.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    control: bool,
    errors: bool,
    signal: bool,
    supervisor_ended: bool,
    relay: relay::Found,
    streams: bool,
}

impl Starter<'_> {
    fn serve(&mut self) -> Result<(), LaunchError> {
        loop {
            let found = self.wait().stage("poll")?;
            // First what was said, then the end of who said it.
            if found.control {
                self.hear()?;
            }
            if found.errors {
                self.hear_result_of_start()?;
            }
            if found.signal {
                self.take_signals()?;
            }
            let events = &mut self.events;
            let mut wrote = |stream, bytes: &[u8]| events.wrote(stream, bytes);
            if let Some(relay) = &mut self.relay {
                relay.turn(found.relay, &mut wrote).stage("terminal")?;
            }
            if let (true, Some(streams)) = (found.streams, &mut self.streams) {
                streams.turn(&mut wrote).stage("output")?;
            }
            if found.supervisor_ended && !found.control && !found.errors {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> io::Result<Found> {
        let input = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![input(self.signals.fd.as_fd()), input(self.supervisor.pidfd.as_fd())];
        let control = self.control.as_ref().map(|control| input(control.as_fd()));
        let errors = self.errors.as_ref().map(|errors| input(errors.as_fd()));
        let control_at = fds.len();
        fds.extend(control);
        let errors_at = fds.len();
        fds.extend(errors);
        let streams_at = fds.len();
        fds.extend(self.streams.iter().flat_map(Streams::interests));
        let relay_at = fds.len();
        fds.extend(self.relay.iter().flat_map(Relay::interests));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Found::default()),
            Err(error) => return Err(error.into()),
        }
        let any = |range: std::ops::Range<usize>| fds[range].iter().any(|fd| fd.any().unwrap_or(false));
        Ok(Found {
            signal: any(0..1),
            supervisor_ended: any(1..2),
            control: any(control_at..errors_at),
            errors: any(errors_at..streams_at),
            streams: any(streams_at..relay_at),
            relay: relay::Found::of(&fds[relay_at..]),
        })
    }

    /// A message of the supervisor or of the container's first process.
    fn hear(&mut self) -> Result<(), LaunchError> {
        let Some(control) = &self.control else { return Ok(()) };
        let Some(message) = control.receive().stage("listen to the supervisor")? else {
            self.control = None;
            return Ok(());
        };
        match message.bytes.split_at_checked(1) {
            Some((MESSAGE_READY, _)) => self.write_id_maps()?,
            Some((MESSAGE_PROCESS, number)) => self.container = parse_number(number).zip(message.fd),
            Some((MESSAGE_TERMINAL, _)) => self.start_relay(message)?,
            Some((MESSAGE_EXIT, rest)) => self.outcome = parse_outcome(rest),
            _ => tracing::debug!(?message, "a message that makes no sense"),
        }
        Ok(())
    }

    fn write_id_maps(&mut self) -> Step<()> {
        let written = id_maps::write(&self.plan.id_maps, self.supervisor.pid).stage("write the id maps")?;
        let answer = match &written {
            Written::Ranges => MESSAGE_RANGES,
            Written::Single { reason } if self.plan.own_ids.as_ref().is_some_and(OwnIds::are_many) => {
                let failure = Failure::new("user namespace", &io::Error::other(reason.clone()));
                return Err(Box::new(failure.hint("the container's own ids need those ranges")));
            }
            Written::Single { reason } => {
                self.events.single_id(reason);
                MESSAGE_SINGLE
            }
        };
        let Some(control) = &self.control else { return Ok(()) };
        control.send(answer, None).stage("answer the supervisor")
    }

    fn start_relay(&mut self, message: Message) -> Step<()> {
        if let Some(master) = message.fd {
            self.relay = Some(Relay::new(master, self.plan.interactive).stage("terminal")?);
        }
        Ok(())
    }

    /// The error pipe is closed by execve(2), or brings what went wrong.
    fn hear_result_of_start(&mut self) -> Result<(), LaunchError> {
        let Some(errors) = self.errors.take() else { return Ok(()) };
        if let Some(failure) = Failure::read(errors).stage("read the error record")? {
            return Err(LaunchError::NotStarted(Box::new(failure)));
        }
        // Who it is was said before, but may have come after the look at what there is to hear.
        while self.container.is_none() && self.control.is_some() {
            self.hear()?;
        }
        let Some((program, _)) = self.container else { return Ok(()) };
        self.running = true;
        self.events.started(program, self.supervisor.pid).stage("record the start")?;
        Ok(())
    }

    fn take_signals(&mut self) -> Result<(), LaunchError> {
        while let Some(signal) = self.signals.next().stage("signals")? {
            match signal {
                // The last two are of our own doing: a full log, a reader who has gone.
                Signal::SIGCHLD | Signal::SIGURG | Signal::SIGPIPE | Signal::SIGXFSZ => {}
                Signal::SIGWINCH if self.relay.is_some() => self.resize(),
                signal if self.running => self.forward(signal),
                Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT => {
                    self.interrupted = Some(signal);
                    return Err(LaunchError::Interrupted(signal));
                }
                // Before there is a program, there is nobody to take the others.
                _ => {}
            }
        }
        Ok(())
    }

    fn resize(&self) {
        if let Some(relay) = &self.relay {
            relay.resize();
        }
    }

    fn forward(&self, signal: Signal) {
        let Some((_, pidfd)) = &self.container else { return };
        if let Err(error) = process::send_signal(pidfd.as_fd(), signal as i32) {
            tracing::debug!(%error, %signal, "forwarding a signal");
        }
    }

    /// Makes sure that nothing is left, and says how it went.
    fn end(mut self, result: Result<(), LaunchError>) -> Result<u8, LaunchError> {
        // Without its starter the supervisor takes everything down by itself. What a program wrote may take long to be
        // made safe; but where none ran there is nothing to wait for.
        self.control = None;
        if result.is_err()
            && !self.running
            && !ends_within(&self.supervisor.pidfd, TAKE_DOWN_WAIT_MILLISECONDS)
        {
            kill("supervisor", &self.supervisor.pidfd);
        }
        let waited = waitpid(Pid::from_raw(self.supervisor.pid), None);
        // It has died with the supervisor, unless it had cleared its death signal and the supervisor was killed.
        if let (None, Some((_, pidfd))) = (&self.outcome, &self.container) {
            kill("container", pidfd);
        }
        let mut wrote = |stream, bytes: &[u8]| self.events.wrote(stream, bytes);
        if let Some(relay) = self.relay.take() {
            relay.finish(&mut wrote).stage("terminal")?;
        }
        if let Some(streams) = self.streams.take() {
            streams.finish(&mut wrote).stage("output")?;
        }
        result?;
        waited.stage("wait for the supervisor")?;
        match self.outcome {
            Some((code, message)) if message.is_empty() => Ok(code),
            Some((code, message)) => Err(LaunchError::NotFinished { code, message }),
            None => Err(LaunchError::SupervisorDied),
        }
    }
}

/// How long a supervisor whose container did not start may take to clean up.
const TAKE_DOWN_WAIT_MILLISECONDS: u16 = 5000;

fn ends_within(pidfd: &OwnedFd, milliseconds: u16) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::from(milliseconds)), Ok(count) if count > 0)
}

fn kill(who: &str, pidfd: &OwnedFd) {
    if let Err(error) = process::send_signal(pidfd.as_fd(), Signal::SIGKILL as i32) {
        tracing::debug!(%error, who, "killing");
    }
}

fn parse_number(bytes: &[u8]) -> Option<i32> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn parse_outcome(bytes: &[u8]) -> Option<(u8, String)> {
    let text = String::from_utf8_lossy(bytes);
    let (code, message) = text.split_once(' ')?;
    Some((code.parse().ok()?, message.to_owned()))
}

/// All signals wait in a descriptor; the mask is as it was when this goes, and what waited then was for the container.
#[derive(Debug)]
struct BlockedSignals {
    fd: SignalFd,
    before: SigSet,
}

impl BlockedSignals {
    fn new() -> io::Result<Self> {
        let all = SigSet::all();
        let fd = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut before))?;
        Ok(Self { fd, before })
    }

    fn next(&self) -> io::Result<Option<Signal>> {
        while let Some(info) = self.fd.read_signal()? {
            // Real-time signals have no names, and nobody sends them to us.
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            if signal.is_some() {
                return Ok(signal);
            }
        }
        Ok(None)
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // A second ^C must not end us before the container's end is written down.
        while matches!(self.next(), Ok(Some(_))) {}
        if let Err(error) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None) {
            tracing::warn!(%error, "cannot restore the signal mask");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message() {
        assert_eq!(parse_outcome(b"7 "), Some((7, String::new())));
        assert_eq!(parse_outcome(b"0 no space left"), Some((0, "no space left".into())));
        assert_eq!(parse_outcome(b"300 "), None);
        assert_eq!(parse_outcome(b""), None);
        assert_eq!(parse_number(b"42"), Some(42));
    }

    #[test]
    fn exit_codes_are_dockers() {
        assert_eq!(LaunchError::SupervisorDied.exit_code(), 125);
        assert_eq!(LaunchError::Interrupted(Signal::SIGINT).exit_code(), 130);
        let failure = Failure::new("exec", &io::Error::other("x")).exit_code(127);
        assert_eq!(LaunchError::from(Box::new(failure)).exit_code(), 127);
    }
}
