//! Being attached to a container that runs in the background: its output here, what is typed here to it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{Mode, OFlags};

use super::{Container, ContainerError, Containers, State};
use crate::launcher::{self, BlockedSignals, EXIT_SIGNAL_BASE, RawMode};
use crate::sys::message_socket::MessageSocket;
use crate::sys::process::{self, Watched};

mod detach_keys;
mod message;
mod server;

pub use detach_keys::{DetachKeys, NoKey};
pub(super) use server::{SOCKET, Server};

use detach_keys::Typed;
use message::{Asked, BYTES_MAX, Told};

/// How somebody is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Whether our standard input reaches the program.
    pub input: bool,
    /// What detaches a terminal.
    pub keys: DetachKeys,
    /// Whether our signals reach the program.
    pub signals: bool,
}

/// How it came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The program has ended, with this exit code.
    Exited(u8),
    /// The keys were typed: the container goes on.
    Detached,
    /// A signal that is not the program's.
    Signalled(Signal),
}

impl Left {
    /// What to exit with.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Detached => 0,
            Self::Signalled(signal) => {
                u8::try_from(signal as i32).map_or(EXIT_SIGNAL_BASE, |n| EXIT_SIGNAL_BASE + n)
            }
        }
    }
}

/// Why nobody is attached, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It cannot be found, or does not run.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its output was never ours.
    #[error(
        "container {0} was started in the foreground without a terminal: its output goes there, and so does its input"
    )]
    Foreground(String),
    /// Its terminal wants one.
    #[error("the input device is not a TTY: give --no-stdin to see the output alone")]
    NotATerminal,
    /// Who runs it refuses.
    #[error("container {name}: {why}")]
    Refused {
        /// Which.
        name: String,
        /// What it said.
        why: String,
    },
    /// We were let go.
    #[error(
        "container {0} goes on, but what it wrote was not taken for some time, so this command was let go: attach again"
    )]
    LetGo(String),
    /// Its supervisor was killed, or it is that of another version.
    #[error("container {0} has ended without an exit code")]
    Ended(String),
    /// The socket, the terminal, or our own standard streams.
    #[error("attach: {0}")]
    Io(#[from] io::Error),
}

/// How long a container may take to answer: it may be slow to start or to write its log.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Whether a process in the background takes connections for a container.
pub(super) fn is_served(container: &Container) -> bool {
    connect(container).is_ok_and(|socket| socket.is_some())
}

/// `None` where nobody takes connections: there never was a socket, or who listened to it was killed.
fn connect(container: &Container) -> io::Result<Option<MessageSocket>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory: OwnedFd = rustix::fs::open(container.dir(), flags, Mode::empty())?;
    match MessageSocket::connect(directory.as_fd(), server::SOCKET) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        socket => socket.map(Some),
    }
}

/// Attaches our standard streams to a running container, until it ends or we are detached.
///
/// The calling process must have one thread. Its signals are handled here.
///
/// # Errors
/// [`AttachError`]
pub fn attach(containers: &Containers, text: &str, how: &Attach) -> Result<Left, AttachError> {
    let container = containers.find(text)?;
    let name = || container.config().name.clone();
    if !container.settled_status()?.is_running() {
        return Err(ContainerError::NotRunning { id: container.id(), name: name() }.into());
    }
    let socket = connect(&container)?.ok_or_else(|| AttachError::Foreground(name()))?;
    attach_by(&container, socket, how)
}

/// The same, by a connection that is there already.
pub(super) fn attach_by(
    container: &Container,
    socket: MessageSocket,
    how: &Attach,
) -> Result<Left, AttachError> {
    let name = container.config().name.clone();
    let (terminal, reads) = match hello(&socket)? {
        Some(Ok(hello)) => hello,
        Some(Err(why)) => return Err(AttachError::Refused { name, why }),
        None => return Err(AttachError::Ended(name)),
    };
    let input = how.input && reads;
    let is_terminal = rustix::termios::isatty(io::stdin());
    if terminal && input && !is_terminal {
        return Err(AttachError::NotATerminal);
    }
    let program = match container.status().map(|status| status.state) {
        Ok(State::Running { process, .. }) => process.watch()?,
        // It may be over and gone; how it ended is still to be heard.
        Ok(_) | Err(ContainerError::NotFound(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let signals = if how.signals { BlockedSignals::new()? } else { BlockedSignals::of(ending_signals())? };
    let raw = if terminal && input { RawMode::enter()? } else { None };
    let mut attached = Attached {
        socket,
        signals,
        program: program.filter(|_| how.signals),
        terminal,
        typed: Typed::new(&if raw.is_some() { how.keys.clone() } else { DetachKeys::none() }),
        input_open: input,
        unsent: Vec::new(),
        raw,
    };
    attached.tell_size();
    match attached.serve()? {
        Some(Ok(left)) => Ok(left),
        Some(Err(why)) => Err(AttachError::Refused { name, why }),
        None if container.status().is_ok_and(|status| status.is_running()) => Err(AttachError::LetGo(name)),
        None => Err(AttachError::Ended(name)),
    }
}

/// Those that end us when they do not reach the program, and the one that tells of another size.
fn ending_signals() -> SigSet {
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGWINCH].into_iter().collect()
}

/// The first word: terminal and input, or why not; nothing when there is none.
fn hello(socket: &MessageSocket) -> io::Result<Option<Result<(bool, bool), String>>> {
    let end = Instant::now() + ANSWER_MAX;
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let Some(message) = socket.receive()? else { return Ok(None) };
    Ok(match Told::decode(&message.bytes) {
        Some(Told::Hello { terminal, input }) => Some(Ok((terminal, input))),
        Some(Told::Refused(why)) => Some(Err(why.to_owned())),
        _ => Some(Err("it is run by another version of layerfs".to_owned())),
    })
}

struct Attached {
    socket: MessageSocket,
    signals: BlockedSignals,
    /// Whom signals are for.
    program: Option<Watched>,
    terminal: bool,
    typed: Typed,
    input_open: bool,
    /// What the other side has no room for.
    unsent: Vec<Vec<u8>>,
    /// Restores the user's terminal.
    raw: Option<RawMode>,
}

impl Attached {
    /// How it ended, or what the other side said went wrong; `None` when that has gone without a word.
    fn serve(&mut self) -> io::Result<Option<Result<Left, String>>> {
        loop {
            let (signal, socket, input) = self.wait()?;
            if signal && let Some(signal) = self.take_signals()? {
                return Ok(Some(Ok(Left::Signalled(signal))));
            }
            if socket {
                match self.hear()? {
                    Heard::Nothing => {}
                    Heard::Exited(code) => return Ok(Some(Ok(Left::Exited(code)))),
                    Heard::Failed(why) => return Ok(Some(Err(why))),
                    Heard::Gone => return Ok(None),
                }
            }
            if input && self.take_input()? {
                return Ok(Some(Ok(Left::Detached)));
            }
            self.send()?;
        }
    }

    /// Whether there is a signal, a message, and input.
    fn wait(&self) -> io::Result<(bool, bool, bool)> {
        let mut of_socket = PollFlags::POLLIN;
        of_socket.set(PollFlags::POLLOUT, !self.unsent.is_empty());
        let stdin = io::stdin();
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.socket.as_fd(), of_socket),
        ];
        if self.input_open && self.unsent.is_empty() {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok((false, false, false)),
            Err(error) => return Err(error.into()),
        }
        let found = |at: usize| fds.get(at).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
        // Of the socket only what is to be read: it may be found because there is room.
        let is_heard = found(1).intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR);
        Ok((!found(0).is_empty(), is_heard, !found(2).is_empty()))
    }

    fn hear(&self) -> io::Result<Heard> {
        let message = match self.socket.receive() {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(Heard::Gone),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Heard::Gone),
            Err(error) => return Err(error),
        };
        match Told::decode(&message.bytes) {
            Some(Told::Wrote(stream, bytes)) => launcher::show(stream, bytes).map(|()| Heard::Nothing),
            Some(Told::Exited(code)) => Ok(Heard::Exited(code)),
            Some(Told::Refused(why)) => Ok(Heard::Failed(why.to_owned())),
            _ => Ok(Heard::Nothing),
        }
    }

    /// Whether the keys were typed.
    fn take_input(&mut self) -> io::Result<bool> {
        let mut buffer = [0; BYTES_MAX];
        // Past the buffer that the library has for it.
        let count = match rustix::io::read(io::stdin(), &mut buffer) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(false),
            // The user's terminal is gone.
            Err(rustix::io::Errno::IO) => 0,
            Err(error) => return Err(error.into()),
        };
        if count == 0 {
            self.input_open = false;
            // A terminal that has gone has not typed the end of anything.
            if self.raw.is_none() {
                self.unsent.push(Asked::InputEnds.encode());
            }
            return Ok(false);
        }
        let Some(passed) = self.typed.pass(&buffer[..count]) else { return Ok(true) };
        self.unsent.extend(passed.chunks(BYTES_MAX).map(|piece| Asked::Input(piece).encode()));
        Ok(false)
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some(message) = self.unsent.first() {
            match self.socket.send_now(message) {
                Ok(true) => drop(self.unsent.remove(0)),
                Ok(false) => return Ok(()),
                // What it said last is still to be heard.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.unsent.clear(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The signal that ends us, if one does.
    fn take_signals(&mut self) -> io::Result<Option<Signal>> {
        while let Some(signal) = self.signals.next()? {
            match signal {
                // Of our own doing, or nobody's business.
                Signal::SIGCHLD | Signal::SIGURG | Signal::SIGPIPE | Signal::SIGXFSZ => {}
                Signal::SIGWINCH => self.tell_size(),
                // The user's terminal goes, and the container stays.
                Signal::SIGHUP if self.terminal => return Ok(Some(signal)),
                signal if self.program.is_some() => self.forward(signal),
                Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT => {
                    return Ok(Some(signal));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn forward(&self, signal: Signal) {
        let Some(program) = &self.program else { return };
        if let Err(error) = process::send_signal(program.as_fd(), signal as i32) {
            tracing::debug!(%error, %signal, "forwarding a signal");
        }
    }

    fn tell_size(&mut self) {
        if let Some(window) = launcher::window().filter(|_| self.terminal) {
            self.unsent.push(Asked::Resized(window).encode());
        }
    }
}

enum Heard {
    Nothing,
    Exited(u8),
    Failed(String),
    Gone,
}
