//! What a caller of [`super::run()`] may hear while a container runs.

use std::io;
use std::path::Path;

use super::streams::Stream;

/// What a caller of [`super::run()`] may want to know while it runs.
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
