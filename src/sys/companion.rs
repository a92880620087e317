//! Programs of the host that work for a container: they live in its user namespace, and no longer than who started them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Gid, Uid, getpid, getppid, setresgid, setresuid, setsid};

use super::process;

/// Starts a program that the kernel kills when this process ends, in whatever way. In a session of its own no signal of the
/// caller's terminal reaches it, and nothing is inherited but its standard streams. With a user namespace it is root there.
///
/// # Errors
/// What fork(2), setns(2) and execve(2) say.
pub fn spawn(command: &mut Command, user_namespace: Option<OwnedFd>) -> io::Result<Child> {
    let parent = getpid();
    let prepare = move || -> io::Result<()> {
        if let Some(namespace) = &user_namespace {
            setns(namespace, CloneFlags::CLONE_NEWUSER)?;
            let (root, wheel) = (Uid::from_raw(0), Gid::from_raw(0));
            setresgid(wheel, wheel, wheel)?;
            setresuid(root, root, root)?;
        }
        setsid()?;
        // A starter has blocked all signals.
        process::reset_signal_actions();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        process::close_all_on_exec()?;
        // Last, as a change of ids clears it. execve(2) keeps it, but for setuid programs.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}
