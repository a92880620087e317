//! Trying something where it can do no harm, and not for ever.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, setpgid};

use crate::sys::process::{self, Fork};

/// How long anything may take that is tried.
const LIMIT: Duration = Duration::from_secs(10);
/// A pipe takes these at once (pipe(7)).
const ANSWER_BYTES_MAX: usize = 4096;

/// Does `work` in a child process and gives what it says; the child is killed when that takes too long.
///
/// # Errors
/// What the system says; that it took too long, or died.
pub(super) fn ask(work: impl FnOnce() -> String) -> io::Result<String> {
    ask_within(LIMIT, work)
}

fn ask_within(limit: Duration, work: impl FnOnce() -> String) -> io::Result<String> {
    let (mut answer, mut answer_there) = io::pipe()?;
    let child = match process::fork()? {
        Fork::Parent(child) => child,
        Fork::Child => {
            drop(answer);
            let text = match alone() {
                Ok(()) => work(),
                Err(errno) => errno.to_string(),
            };
            let bytes = &text.as_bytes()[..text.len().min(ANSWER_BYTES_MAX)];
            process::exit_now(u8::from(answer_there.write_all(bytes).is_err()));
        }
    };
    drop(answer_there);
    let end = Instant::now() + limit;
    let answered = ready(answer.as_fd(), end);
    let mut bytes = vec![0; ANSWER_BYTES_MAX];
    let read = if answered? { answer.read(&mut bytes)? } else { 0 };
    let is_late = !ready(child.pidfd.as_fd(), end)?;
    if is_late {
        // With the helpers that it waits for. It is not reaped yet, so its number is nobody else's.
        killpg(Pid::from_raw(child.pid), Signal::SIGKILL)?;
    }
    waitpid(Pid::from_raw(child.pid), None)?;
    match (is_late, read) {
        (true, _) => Err(io::Error::other(format!("it took more than {} s", limit.as_secs()))),
        (false, 0) => Err(io::Error::other("the process that tried it was killed: by a seccomp filter?")),
        (false, read) => Ok(String::from_utf8_lossy(&bytes[..read]).into_owned()),
    }
}

/// In a process group of its own, which can be killed as a whole; dies with who asks.
fn alone() -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    setpgid(Pid::from_raw(0), Pid::from_raw(0))
}

/// Whether there is something to be read, or an end, before that time.
fn ready(fd: BorrowedFd<'_>, end: Instant) -> io::Result<bool> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            polled => return Ok(polled? > 0),
        }
    }
}
