//! What a caller hears of a program while it runs.

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::plan::Window;
use super::streams::Stream;

/// What a caller of [`run`] may want to know while it runs.
pub trait Events {
    /// The plan's id ranges could not be used; the container has a single id. Told at most once.
    fn single_id(&mut self, reason: &str) {
        tracing::warn!(reason, "the container has a single id");
    }

    /// The container has a control group, which is this one's directory. Told before it runs.
    fn cgroup(&mut self, path: &Path) {
        tracing::debug!(path = %path.display(), "control group");
    }

    /// A process of the container was killed because its memory did not suffice. Told at its end.
    fn out_of_memory(&mut self) {
        tracing::debug!("out of memory");
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

    /// Whether more of what the program writes can be taken now; if not, it waits.
    fn has_room(&self) -> bool {
        true
    }

    /// What is to be waited for besides the container.
    fn interests(&self) -> Vec<PollFd<'_>> {
        Vec::new()
    }

    /// How long that may take; `None` for as long as it takes.
    fn wait_at_most(&self) -> Option<Duration> {
        None
    }

    /// Comes after each wait, with what was found of [`Self::interests`], in their order, or with nothing.
    ///
    /// # Errors
    /// Any error ends the container.
    fn turn(&mut self, found: &[PollFlags], _input: &mut dyn Input) -> io::Result<()> {
        tracing::trace!(?found, "nobody is attached");
        Ok(())
    }
}

/// What a program reads that has its output [`super::Output::Taken`].
pub trait Input {
    /// Whether all was taken that was given before.
    fn is_ready(&self) -> bool;

    /// Gives it something to read. What a program without standard input is given goes nowhere.
    ///
    /// # Errors
    /// What write(2) says.
    fn give(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Nothing more comes.
    ///
    /// # Errors
    /// What write(2) says.
    fn end(&mut self) -> io::Result<()>;

    /// Its terminal, if it has one, gets another size.
    fn resize(&mut self, window: Window);
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
