//! Carries bytes between the user's terminal and the container's.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use rustix::io::Errno;

use super::plan::Window;
use super::streams::Stream;
use super::terminal::{self, RawMode};

/// Bytes moved at once: a pseudo-terminal holds 4096 (linux/tty.h).
const BUFFER_BYTES: usize = 4096;
/// What a terminal turns into "end of file".
const END_OF_FILE: u8 = 4;

/// The starter's side of a container's terminal.
#[derive(Debug)]
pub(super) struct Relay {
    /// Non-blocking: a container that does not read must not keep us from showing what it writes.
    master: OwnedFd,
    /// Input that the container has not taken yet.
    pending: Vec<u8>,
    /// Standard input, read past the buffer that the library has for it.
    input: io::Stdin,
    /// Whether more input can come.
    input_open: bool,
    /// Whether more output can come.
    output_open: bool,
    /// Restores the user's terminal.
    _raw: Option<RawMode>,
}

/// Who shows what was written.
pub(super) type Shown<'a> = &'a mut dyn FnMut(Stream, &[u8]) -> io::Result<()>;

/// What poll(2) found about a relay.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    output: bool,
    room: bool,
    input: bool,
}

impl Found {
    /// From the entries that [`Relay::interests`] gave.
    pub(super) fn of(fds: &[PollFd<'_>]) -> Self {
        let events = |at: usize| fds.get(at).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
        let master = events(0);
        Self {
            output: master.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR),
            room: master.contains(PollFlags::POLLOUT),
            input: !events(1).is_empty(),
        }
    }
}

impl Relay {
    /// Takes over the container's terminal, and the user's input when it is to reach the container.
    pub(super) fn new(master: OwnedFd, interactive: bool) -> io::Result<Self> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        let raw = if interactive { RawMode::enter()? } else { None };
        let relay = Self {
            master,
            pending: Vec::new(),
            input: io::stdin(),
            input_open: interactive,
            output_open: true,
            _raw: raw,
        };
        // It may have changed since the container's side was given its size.
        relay.resize();
        Ok(relay)
    }

    /// What to wait for: the container's terminal first, then the user's input.
    pub(super) fn interests(&self) -> Vec<PollFd<'_>> {
        if !self.output_open {
            return Vec::new();
        }
        let mut master = PollFlags::POLLIN;
        if !self.pending.is_empty() {
            master |= PollFlags::POLLOUT;
        }
        let mut fds = vec![PollFd::new(self.master.as_fd(), master)];
        if self.input_open && self.pending.is_empty() {
            fds.push(PollFd::new(self.input.as_fd(), PollFlags::POLLIN));
        }
        fds
    }

    /// Moves what can be moved; what was written, `to` there.
    pub(super) fn turn(&mut self, found: Found, to: Shown<'_>) -> io::Result<()> {
        if found.output {
            self.show(to)?;
        }
        if found.input {
            self.take_input()?;
        }
        if found.room || found.input {
            self.pass_input()?;
        }
        Ok(())
    }

    /// Gives the container's terminal the size of the user's.
    pub(super) fn resize(&self) {
        if let Some(window) = terminal::window() {
            self.resize_to(window);
        }
    }

    /// Gives the container's terminal a size.
    pub(super) fn resize_to(&self, window: Window) {
        if let Err(error) = terminal::resize(self.master.as_fd(), window) {
            tracing::debug!(%error, "resizing the container's terminal");
        }
    }

    /// Whether the container has taken all its input.
    pub(super) fn has_passed_all(&self) -> bool {
        self.pending.is_empty()
    }

    /// Passes input of somebody else's on.
    pub(super) fn give(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        self.pass_input()
    }

    /// That one's input has ended.
    pub(super) fn give_end(&mut self) -> io::Result<()> {
        self.give(&[END_OF_FILE])
    }

    /// After the container's end: shows what is left.
    pub(super) fn finish(mut self, to: Shown<'_>) -> io::Result<()> {
        while self.output_open && self.show(to)? {}
        Ok(())
    }

    /// Shows one buffer of output; whether there was any.
    fn show(&mut self, to: Shown<'_>) -> io::Result<bool> {
        let mut buffer = [0; BUFFER_BYTES];
        let count = match rustix::io::read(&self.master, &mut buffer) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            // Nobody has the other side open any more.
            Err(Errno::IO) => 0,
            Err(error) => return Err(error.into()),
        };
        if count == 0 {
            self.output_open = false;
            return Ok(false);
        }
        to(Stream::Output, &buffer[..count])?;
        Ok(true)
    }

    fn take_input(&mut self) -> io::Result<()> {
        let mut buffer = [0; BUFFER_BYTES];
        match rustix::io::read(&self.input, &mut buffer) {
            Ok(0) => {
                self.input_open = false;
                self.pending.push(END_OF_FILE);
            }
            Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The user's terminal is gone.
            Err(Errno::IO) => self.input_open = false,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn pass_input(&mut self) -> io::Result<()> {
        match rustix::io::write(&self.master, &self.pending) {
            Ok(count) => {
                self.pending.drain(..count);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::IO) => self.pending.clear(),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
