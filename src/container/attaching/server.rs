//! The side of the process that runs a container: it gives what the program writes to all who are attached.
//!
//! Nobody is waited for. What one has no room for is kept for it up to a limit; then the program waits, as it would for a slow
//! terminal; and who takes nothing for some time is let go.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{Mode, OFlags};

use super::message::{Asked, BYTES_MAX, Told};
use crate::launcher::{Input, Stream};
use crate::sys::message_socket::{Listener, MessageSocket};

/// The socket in a container's directory.
pub(in crate::container) const SOCKET: &str = "ctl.sock";
/// Bytes that are kept for one before the program has to wait.
const KEPT_BYTES_MAX: usize = 64 << 10;
/// How long one may take nothing while others wait for it.
const STALLED_MAX: Duration = Duration::from_secs(5);
/// Who can be attached at the same time.
const CLIENTS_MAX: usize = 64;

/// Those who are attached to a container.
#[derive(Debug)]
pub(in crate::container) struct Server {
    listener: Listener,
    clients: Vec<Client>,
    terminal: bool,
    input: bool,
    /// Whether the program has read what it was given.
    reads: bool,
}

#[derive(Debug)]
struct Client {
    socket: MessageSocket,
    kept: VecDeque<Vec<u8>>,
    kept_bytes: usize,
    /// When it last took something, or had nothing to take.
    progress: Instant,
    is_gone: bool,
}

impl Server {
    /// Listens in a container's directory; `first` is attached from the beginning.
    pub(in crate::container) fn new(
        directory: &Path,
        (terminal, input): (bool, bool),
        first: Option<MessageSocket>,
    ) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory: OwnedFd = rustix::fs::open(directory, flags, Mode::empty())?;
        let listener = Listener::bind(directory, SOCKET)?;
        let mut server = Self { listener, clients: Vec::new(), terminal, input, reads: false };
        if let Some(first) = first {
            server.welcome(first);
        }
        Ok(server)
    }

    pub(in crate::container) fn interests(&self) -> Vec<PollFd<'_>> {
        let client = |client: &'_ Client| {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, self.reads);
            events.set(PollFlags::POLLOUT, !client.kept.is_empty());
            events
        };
        let listener = PollFd::new(self.listener.as_fd(), PollFlags::POLLIN);
        let clients = self.clients.iter().map(|one| PollFd::new(one.socket.as_fd(), client(one)));
        std::iter::once(listener).chain(clients).collect()
    }

    /// Until somebody has stalled for too long.
    pub(in crate::container) fn wait_at_most(&self) -> Option<Duration> {
        let slow = self.clients.iter().filter(|client| client.is_slow());
        slow.map(|client| STALLED_MAX.saturating_sub(client.progress.elapsed())).min()
    }

    pub(in crate::container) fn has_room(&self) -> bool {
        !self.clients.iter().any(Client::is_slow)
    }

    /// Takes what those say who are attached, and lets in who wants to be.
    pub(in crate::container) fn turn(
        &mut self,
        found: &[PollFlags],
        input: &mut dyn Input,
    ) -> io::Result<()> {
        if let Some((listener, clients)) = found.split_first() {
            for (client, found) in self.clients.iter_mut().zip(clients) {
                client.turn(*found, input)?;
            }
            if !listener.is_empty() {
                self.let_in();
            }
        }
        for client in self.clients.iter_mut().filter(|client| client.is_slow()) {
            if client.progress.elapsed() >= STALLED_MAX {
                tracing::info!("one who is attached takes nothing, and is let go");
                client.is_gone = true;
            }
        }
        self.drop_gone();
        self.reads = input.is_ready();
        Ok(())
    }

    /// The program wrote this.
    pub(in crate::container) fn wrote(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.chunks(BYTES_MAX) {
            let message = Told::Wrote(stream, piece).encode();
            for client in &mut self.clients {
                client.tell(message.clone());
            }
        }
    }

    /// The program has ended, with an exit code or in no good order: all are told, and go. Waits for those who are behind.
    pub(in crate::container) fn end(mut self, how: Result<u8, String>) {
        let last = match &how {
            Ok(code) => Told::Exited(*code),
            Err(why) => Told::Refused(why),
        };
        for client in &mut self.clients {
            client.tell(last.encode());
        }
        loop {
            self.clients.retain(|client| !client.is_gone && client.progress.elapsed() < STALLED_MAX);
            let Some(client) = self.clients.first_mut() else { return };
            client.see_off();
        }
    }

    fn let_in(&mut self) {
        match self.listener.accept() {
            Ok(Some(socket)) => self.welcome(socket),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "one who wanted to be attached is not"),
        }
    }

    fn welcome(&mut self, socket: MessageSocket) {
        let mut client =
            Client { socket, kept: VecDeque::new(), kept_bytes: 0, progress: Instant::now(), is_gone: false };
        if self.clients.len() >= CLIENTS_MAX {
            client.tell(Told::Refused("too many are attached to the container").encode());
            return;
        }
        client.tell(Told::Hello { terminal: self.terminal, input: self.input }.encode());
        self.clients.push(client);
    }

    fn drop_gone(&mut self) {
        self.clients.retain(|client| !client.is_gone);
    }
}

/// How often the end of the slow is looked at.
const LAST_WAIT_MILLISECONDS: u16 = 100;

impl Client {
    fn is_slow(&self) -> bool {
        self.kept_bytes >= KEPT_BYTES_MAX && !self.is_gone
    }

    fn turn(&mut self, found: PollFlags, input: &mut dyn Input) -> io::Result<()> {
        if found.contains(PollFlags::POLLOUT) {
            self.pass();
        }
        let is_left = found.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
        // What it said last is lost with it when the program does not read.
        if is_left && !input.is_ready() {
            self.is_gone = true;
        } else if found.contains(PollFlags::POLLIN) || is_left {
            self.hear(input)?;
        }
        Ok(())
    }

    /// Waits a while for one who has not taken everything, or not left. Until then what is said is listened to: the kernel would
    /// otherwise take a closed socket with something unread in it for an error, and drop what we said last.
    fn see_off(&mut self) {
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, !self.kept.is_empty());
        let mut fds = [PollFd::new(self.socket.as_fd(), events)];
        if let Err(error) = poll(&mut fds, PollTimeout::from(LAST_WAIT_MILLISECONDS)) {
            tracing::debug!(%error, "waiting for one who is attached");
            return;
        }
        let found = fds[0].revents().unwrap_or(PollFlags::empty());
        if found.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.is_gone = !matches!(self.socket.receive(), Ok(Some(_)));
        }
        self.pass();
    }

    fn hear(&mut self, input: &mut dyn Input) -> io::Result<()> {
        let message = match self.socket.receive() {
            Ok(Some(message)) => message,
            Ok(None) => {
                self.is_gone = true;
                return Ok(());
            }
            Err(error) => {
                tracing::debug!(%error, "one who was attached");
                self.is_gone = true;
                return Ok(());
            }
        };
        match Asked::decode(&message.bytes) {
            Some(Asked::Input(bytes)) => input.give(bytes)?,
            Some(Asked::InputEnds) => input.end()?,
            Some(Asked::Resized(window)) => input.resize(window),
            None => self.is_gone = true,
        }
        Ok(())
    }

    fn tell(&mut self, message: Vec<u8>) {
        if self.kept.is_empty() {
            self.progress = Instant::now();
        }
        self.kept_bytes += message.len();
        self.kept.push_back(message);
        self.pass();
    }

    /// Passes on what there is room for.
    fn pass(&mut self) {
        while let Some(message) = self.kept.front() {
            match self.socket.send_now(message) {
                Ok(true) => {
                    self.kept_bytes -= message.len();
                    self.kept.pop_front();
                    self.progress = Instant::now();
                }
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(%error, "one who was attached");
                    self.is_gone = true;
                    self.kept.clear();
                    self.kept_bytes = 0;
                }
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The supervisor may have a copy.
        self.socket.shut_down();
    }
}
