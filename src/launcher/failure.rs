//! What went wrong while a container was started, and how it travels from the process that saw it to the one that says it.

use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sys::process;

/// Exit code when the launcher itself failed (docker's and podman's).
pub const EXIT_LAUNCHER: u8 = 125;
/// Exit code when the program exists but cannot be executed.
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
/// Exit code when there is no such program.
pub const EXIT_NOT_FOUND: u8 = 127;
/// A process that a signal ended has this plus the signal's number.
pub const EXIT_SIGNAL_BASE: u8 = 128;

/// Why a container did not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code that this stands for.
    pub exit_code: u8,
    /// What was being done.
    pub stage: String,
    /// The path that it was done to.
    pub path: Option<String>,
    /// The errno, when there is one.
    pub errno: Option<i32>,
    /// What was wrong, in words.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.stage)?;
        if let Some(path) = &self.path {
            write!(formatter, " {path}")?;
        }
        write!(formatter, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(formatter, " ({hint})")?;
        }
        Ok(())
    }
}

/// What a step of the start gives back.
pub(super) type Step<T> = Result<T, Box<Failure>>;

/// Bytes of all records: what a pipe holds, so that nobody waits for a reader.
const RECORD_BYTES_MAX: usize = 64 << 10;
/// Bytes of each text in a record, so that two records fit, each byte of them as six in JSON.
const TEXT_BYTES_MAX: usize = 700;

impl Failure {
    /// A failure of the launcher itself.
    pub(super) fn new(stage: &str, error: &io::Error) -> Self {
        Self {
            exit_code: EXIT_LAUNCHER,
            stage: shorten(stage.to_owned()),
            path: None,
            errno: error.raw_os_error(),
            message: shorten(error.to_string()),
            hint: None,
        }
    }

    /// Names what it was about.
    pub(super) fn on(mut self, path: &Path) -> Self {
        self.path = Some(shorten(path.to_string_lossy().into_owned()));
        self
    }

    /// Adds what may help.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(shorten(hint.into()));
        self
    }

    /// Changes the exit code.
    pub(super) fn exit_code(mut self, code: u8) -> Self {
        self.exit_code = code;
        self
    }

    /// Sends it up the pipe.
    pub(super) fn write(&self, mut pipe: impl Write) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        pipe.write_all(&bytes)
    }

    /// Sends it up the pipe, and ends this process.
    pub(super) fn exit(&self, pipe: impl Write) -> ! {
        if let Err(error) = self.write(pipe) {
            tracing::error!(%error, failure = %self, "cannot report why the program did not start");
        }
        process::exit_now(self.exit_code)
    }

    /// Reads what came down the pipe; nothing means that the program was executed.
    pub(super) fn read(pipe: impl Read) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        pipe.take(RECORD_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        // Both processes can fail at once; the first record is the cause.
        let mut records = serde_json::Deserializer::from_slice(&bytes).into_iter::<Self>();
        match records.next() {
            Some(record) => Ok(Some(record?)),
            None => Ok(None),
        }
    }
}

fn shorten(mut text: String) -> String {
    let mut len = TEXT_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    text.truncate(len);
    text
}

/// Says what was being done when an [`io::Error`] happened.
pub(super) trait Context<T> {
    /// A stage.
    fn stage(self, stage: &str) -> Step<T>;
    /// A stage and the path that it was about.
    fn at(self, stage: &str, path: impl AsRef<Path>) -> Step<T>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn stage(self, stage: &str) -> Step<T> {
        self.map_err(|error| Box::new(Failure::new(stage, &error.into())))
    }

    fn at(self, stage: &str, path: impl AsRef<Path>) -> Step<T> {
        self.map_err(|error| Box::new(Failure::new(stage, &error.into()).on(path.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_pipe() {
        let error = io::Error::from_raw_os_error(2);
        let failure = Failure::new("exec", &error)
            .on(Path::new("/bin/absent"))
            .hint("h".repeat(10_000))
            .exit_code(EXIT_NOT_FOUND);
        let mut pipe = Vec::new();
        failure.write(&mut pipe).unwrap();
        assert!(pipe.len() < RECORD_BYTES_MAX);
        assert_eq!(Failure::read(&pipe[..]).unwrap(), Some(failure.clone()));
        Failure::new("later", &error).write(&mut pipe).unwrap();
        assert_eq!(Failure::read(&pipe[..]).unwrap(), Some(failure));
        assert_eq!(Failure::read(&b""[..]).unwrap(), None);
        assert!(Failure::read(&b"{"[..]).is_err());
    }

    #[test]
    fn control_characters_and_long_texts_fit() {
        let text = "\u{1}".repeat(5000);
        let failure = Failure::new(&text, &io::Error::other(text.clone()))
            .on(Path::new(&text))
            .hint(text.clone())
            .exit_code(EXIT_NOT_FOUND);
        let mut pipe = Vec::new();
        failure.write(&mut pipe).unwrap();
        failure.write(&mut pipe).unwrap();
        assert!(pipe.len() < RECORD_BYTES_MAX);
        assert_eq!(Failure::read(&pipe[..]).unwrap(), Some(failure));
    }

    #[test]
    fn it_reads_well() {
        let failure = Failure::new("mount", &io::Error::other("refused")).on(Path::new("/proc")).hint("look");
        assert_eq!(failure.to_string(), "mount /proc: refused (look)");
    }
}
