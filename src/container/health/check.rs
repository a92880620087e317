//! One check: a command in the container, in a process of its own, for a limited time.

use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};

use super::super::executing::{self, Execution};
use super::super::{Container, ContainerError, Containers, Moment, Wishes};
use super::{Checked, HealthCheck, whole};
use crate::launcher::EXIT_LAUNCHER;
use crate::sys::process::{self, Child, Fork};

/// Bytes of its output that are kept, as docker has it.
const OUTPUT_BYTES_MAX: usize = 4096;
/// Bytes taken at once.
const BUFFER_BYTES: usize = 4096;
/// As docker writes it, of one that took too long.
const EXIT_TIMEOUT: i32 = -1;

/// A check that runs.
#[derive(Debug)]
pub(super) struct Check {
    child: Child,
    output: PipeReader,
    is_open: bool,
    kept: Vec<u8>,
    began: Moment,
    timeout: Duration,
    deadline: Instant,
    is_overdue: bool,
}

/// Checks a running container now, and gives what came of it; `None` when it was made without a check.
///
/// The calling process must have one thread.
///
/// # Errors
/// [`ContainerError::NotRunning`], or what the system says.
pub fn check_now(containers: &Containers, text: &str) -> Result<Option<Checked>, ContainerError> {
    let container = containers.find(text)?;
    let made_with = container.config().run.as_ref().and_then(|wishes| wishes.health.clone());
    let Some(how) = made_with else { return Ok(None) };
    // Whether it runs is to be an error of its own.
    executing::prepare(containers, text, Wishes::default())?;
    let failed = || ContainerError::io("check", container.dir());
    let mut check = Check::start(&container, &how).map_err(failed())?;
    loop {
        let mut fds = check.interests();
        let timeout = PollTimeout::try_from(check.left()).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(failed()(error.into())),
        }
        if let Some(checked) = check.turn().map_err(failed())? {
            return Ok(Some(checked));
        }
    }
}

impl Check {
    pub(super) fn start(container: &Container, how: &HealthCheck) -> io::Result<Self> {
        let (output, there) = io::pipe()?;
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_RDONLY | OFlag::O_NONBLOCK))?;
        let parent = getpid();
        let child = match process::fork()? {
            Fork::Child => {
                drop(output);
                process::exit_now(run(container, how, there, parent))
            }
            Fork::Parent(child) => child,
        };
        let (began, deadline) = (Moment::now(), Instant::now() + how.timeout);
        let timeout = how.timeout;
        Ok(Self {
            child,
            output,
            is_open: true,
            kept: Vec::new(),
            began,
            timeout,
            deadline,
            is_overdue: false,
        })
    }

    pub(super) fn interests(&self) -> Vec<PollFd<'_>> {
        let mut fds = vec![PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN)];
        if self.is_open {
            fds.push(PollFd::new(self.output.as_fd(), PollFlags::POLLIN));
        }
        fds
    }

    /// Until it has taken too long.
    pub(super) fn left(&self) -> Duration {
        if self.is_overdue { Duration::MAX } else { self.deadline.saturating_duration_since(Instant::now()) }
    }

    /// Takes what it printed; gives what came of it once it has ended.
    pub(super) fn turn(&mut self) -> io::Result<Option<Checked>> {
        self.take_output()?;
        if !self.is_overdue && self.deadline <= Instant::now() {
            self.is_overdue = true;
            self.kill();
        }
        let mut fds = [PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO)? == 0 {
            return Ok(None);
        }
        self.take_output()?;
        let code = match waitpid(Pid::from_raw(self.child.pid), None)? {
            WaitStatus::Exited(_, code) => code,
            _ => i32::from(EXIT_LAUNCHER),
        };
        let (exit_code, output) = if self.is_overdue {
            (EXIT_TIMEOUT, format!("Health check exceeded timeout ({:?})", self.timeout))
        } else {
            (code, String::from_utf8_lossy(&self.kept).into_owned())
        };
        Ok(Some(Checked { start: self.began, end: Moment::now(), exit_code, output }))
    }

    /// Ends it; what came of it nobody wants to know.
    pub(super) fn cancel(self) {
        self.kill();
        if let Err(error) = waitpid(Pid::from_raw(self.child.pid), None) {
            tracing::debug!(%error, "a check that was ended");
        }
    }

    fn kill(&self) {
        // Before the program, which has them for as long as it lives.
        if let Err(error) = whole::end_program_of(&self.child) {
            tracing::warn!(%error, "something of a check may be left");
        }
        if let Err(error) = process::send_signal(self.child.pidfd.as_fd(), Signal::SIGKILL as i32) {
            tracing::debug!(%error, "ending a check");
        }
    }

    fn take_output(&mut self) -> io::Result<()> {
        let mut buffer = [0; BUFFER_BYTES];
        if !self.is_open {
            return Ok(());
        }
        match self.output.read(&mut buffer) {
            Ok(0) => self.is_open = false,
            Ok(count) => {
                let room = OUTPUT_BYTES_MAX - self.kept.len();
                self.kept.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The process of a check.
fn run(container: &Container, how: &HealthCheck, mut output: io::PipeWriter, parent: Pid) -> u8 {
    let run = || -> Result<u8, Box<dyn std::error::Error>> {
        // It holds copies of all that its parent has open, the container's lock among it.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            return Ok(EXIT_LAUNCHER);
        }
        nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        nix::unistd::dup2_stdout(&output)?;
        nix::unistd::dup2_stderr(&output)?;
        let command = how.command.iter().map(Into::into).collect();
        let wishes = Wishes { command, ..Wishes::default() };
        Ok(Execution::of(container, wishes)?.keeping_orphans().run()?)
    };
    match run() {
        Ok(code) => code,
        Err(error) => {
            // That is its output then; nobody is left to hear it when that fails.
            output.write_all(error.to_string().as_bytes()).map_or(EXIT_LAUNCHER, |()| EXIT_LAUNCHER)
        }
    }
}
