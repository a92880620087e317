//! A server process of our own: forked, ready when its parent says so, deaf to the terminal.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, PipeReader, PipeWriter, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::process::{self, Fork};

/// Which side of the fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The caller's process, which waits for the server.
    Parent(Waiter),
    /// The server's process.
    Child(Notifier),
}

/// Waits for what the server says.
#[derive(Debug)]
pub struct Waiter {
    pipe: PipeReader,
}

/// Says how the server's start went; the parent waits for it.
#[derive(Debug)]
pub struct Notifier {
    pipe: PipeWriter,
}

/// What the server begins with when it is ready.
const READY: u8 = b'r';
/// And when it failed.
const FAILED: u8 = b'f';
/// What it ends with. The end of the pipe comes later: the server's own children have it, too.
const END: u8 = 0;
/// Longest message that is taken from the server.
const MESSAGE_BYTES_MAX: u64 = 64 << 10;

/// Forks a server.
///
/// Must be called while the process has a single thread: the child goes on to allocate and to start threads.
///
/// # Errors
/// What pipe(2) or fork(2) say; `ResourceBusy` when there are other threads.
pub fn fork() -> io::Result<Forked> {
    let (reader, writer) = io::pipe()?;
    match process::fork()? {
        Fork::Parent(_) => Ok(Forked::Parent(Waiter { pipe: reader })),
        Fork::Child => Ok(Forked::Child(Notifier { pipe: writer })),
    }
}

impl Waiter {
    /// Waits until the server is ready; gives what else it says.
    ///
    /// # Errors
    /// What the server says went wrong, or that it died without a word.
    pub fn wait(mut self) -> Result<String, String> {
        let mut message = Vec::new();
        let mut bytes = BufReader::new(io::Read::take(&mut self.pipe, MESSAGE_BYTES_MAX));
        let read = bytes.read_until(END, &mut message);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match (read, message.as_slice()) {
            (Ok(_), [READY, note @ .., END]) => Ok(text(note)),
            (Ok(_), [FAILED, failure @ .., END]) => Err(text(failure)),
            _ => Err("the server died while it was starting".to_owned()),
        }
    }
}

impl Notifier {
    /// The mount is usable: the parent may return.
    ///
    /// # Errors
    /// What write(2) says, `EPIPE` when the parent is gone.
    pub fn ready(self) -> io::Result<()> {
        self.ready_but("")
    }

    /// The same, with something to be told.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub fn ready_but(mut self, note: &str) -> io::Result<()> {
        self.pipe.write_all(&said(READY, note))
    }

    /// It did not work; the parent prints the message.
    ///
    /// # Errors
    /// What write(2) says.
    pub fn failed(mut self, message: &str) -> io::Result<()> {
        self.pipe.write_all(&said(FAILED, message))
    }
}

fn said(what: u8, text: &str) -> Vec<u8> {
    let room = usize::try_from(MESSAGE_BYTES_MAX).unwrap_or(usize::MAX) - 2;
    let text = text.bytes().filter(|byte| *byte != END).take(room);
    std::iter::once(what).chain(text).chain([END]).collect()
}

/// Leaves the terminal and the caller's directory: a new session, `/` as working directory, standard input from
/// `/dev/null`, standard output and error to `log`, which only the caller may read when it is made; and none of what else
/// the caller had open, whose other ends and locks would last as long as we do.
///
/// # Errors
/// What setsid(2), chdir(2), open(2) and dup2(2) say.
pub fn detach(log: &Path) -> io::Result<()> {
    for fd in process::inherited_descriptors() {
        process::close_inherited(*fd)?;
    }
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    // In a directory that others may have filled: no link is followed, and nobody waits for a reader.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let log = File::options().append(true).create(true).mode(0o600).custom_flags(flags).open(log)?;
    let kind = log.metadata()?.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the log is neither a file nor /dev/null"));
    }
    let null = File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&log)?;
    nix::unistd::dup2_stderr(&log)?;
    Ok(())
}

/// Raises the limit of open files to what is allowed, and clears the umask: modes are chosen by those who ask. What goes
/// beyond the caller's limit of file sizes (setrlimit(2)) becomes an error, and not the end of the server.
///
/// # Errors
/// What getrlimit(2), setrlimit(2) and sigaction(2) say.
pub fn prepare() -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::signal::{SigHandler, Signal};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    // SAFETY: no handler of ours is replaced; ignoring a signal runs no code.
    unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    Ok(())
}

/// Blocks the signals that end a server, for this thread and those it starts; [`wait_for_end`] takes them.
///
/// # Errors
/// What pthread_sigmask(3) says.
pub fn block_end_signals() -> io::Result<()> {
    Ok(end_signals().thread_block()?)
}

/// Waits for SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// What sigwait(3) says.
pub fn wait_for_end() -> io::Result<()> {
    end_signals().wait()?;
    Ok(())
}

fn end_signals() -> nix::sys::signal::SigSet {
    use nix::sys::signal::{SigSet, Signal};
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect::<SigSet>()
}
