//! The last steps of a process that becomes a program of a container: those of its first process, and of one that is put
//! beside it.

use std::ffi::CString;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{
    Gid, Pid, Uid, execve, getegid, geteuid, getpid, setgroups, setpgid, setresgid, setresuid, tcsetpgrp,
};
use rustix::fs::{OFlags, ResolveFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::capabilities::Capabilities;
use super::environment;
use super::failure::{Context as _, EXIT_LAUNCHER, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, Failure, Step};
use super::mounts;
use super::plan::{Plan, Window};
use super::streams::StreamEnds;
use super::supervisor::{MESSAGE_TERMINAL, drop_groups};
use super::terminal;
use super::user::{self, User};
use crate::sys::message_socket::MessageSocket;
use crate::sys::process::Fork;
use crate::sys::seccomp::{self, Instruction};
use crate::sys::{first_process, process, scoped};

/// What it is to become, and with what.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) plan: &'a Plan,
    pub(super) filter: Option<&'a [Instruction]>,
    pub(super) window: Option<Window>,
    /// Whether there is one id only.
    pub(super) single: bool,
    /// Whether it is the container's first, whose terminal is the console.
    pub(super) is_first: bool,
    /// A byte comes when the root filesystem is served; closed when the supervisor ends.
    pub(super) go: PipeReader,
    pub(super) control: MessageSocket,
    /// Where to write, if not where we do.
    pub(super) streams: Option<StreamEnds>,
}

impl Program<'_> {
    /// Who it runs as.
    pub(super) fn user(&self, root: BorrowedFd<'_>) -> Step<User> {
        let mut user = user::resolve(root, &self.plan.user).stage(&format!("user {:?}", self.plan.user))?;
        self.check_user(&user)?;
        user.groups.extend(user::groups(root, &self.plan.groups).stage("additional groups")?);
        Ok(user)
    }

    /// A container with one id has no other user, and no groups.
    fn check_user(&self, user: &User) -> Step<()> {
        let only = (geteuid().as_raw(), getegid().as_raw());
        let hint = format!(
            "the container has a single id, {}; ranges in /etc/subuid and /etc/subgid give more",
            only.0
        );
        if self.single && !self.plan.groups.is_empty() {
            let message = format!("{} cannot be added to the user's groups", self.plan.groups.join(", "));
            let failure = Failure::new("additional groups", &io::Error::other(message));
            return Err(Box::new(failure.hint(hint)));
        }
        if self.single && (user.uid, user.gid) != only {
            let message = format!("id {}:{} does not exist in this container", user.uid, user.gid);
            return Err(Box::new(Failure::new("user", &io::Error::other(message)).hint(hint)));
        }
        Ok(())
    }

    /// The terminal is given away before anything of the image's choice can run.
    pub(super) fn connect_stdio(
        &self,
        devpts: impl FnOnce() -> io::Result<OwnedFd>,
        root: BorrowedFd<'_>,
        user: &User,
    ) -> Step<()> {
        if self.plan.terminal {
            let pair = terminal::open(devpts().stage("terminal")?.as_fd(), self.window).stage("terminal")?;
            terminal::give_to(&pair, user.uid).stage("terminal")?;
            if self.is_first {
                terminal::show_as_console(&pair, root).stage("terminal")?;
            }
            self.control.send(MESSAGE_TERMINAL, Some(pair.master.as_fd())).stage("terminal")?;
            return terminal::adopt(pair).stage("terminal");
        }
        if let Some(input) = self.streams.as_ref().and_then(|streams| streams.input.as_ref()) {
            nix::unistd::dup2_stdin(input).stage("standard input")?;
        } else if !self.plan.interactive {
            let null = mounts::open_null(root).at("open", "/dev/null")?;
            nix::unistd::dup2_stdin(&null).stage("standard input")?;
        }
        if let Some(StreamEnds { output, errors, .. }) = &self.streams {
            nix::unistd::dup2_stdout(output).stage("standard output")?;
            nix::unistd::dup2_stderr(errors).stage("standard error")?;
        }
        give_pipes_to(user).stage("standard streams")
    }

    /// Everything that takes rights away, and the program itself.
    pub(super) fn become_it(&self, root: BorrowedFd<'_>, user: &User) -> Step<std::convert::Infallible> {
        process::reset_signal_actions();
        process::close_all_on_exec().stage("close_range")?;
        // Root may enter what the user perhaps may not, as an image's /root; as podman has it.
        let entered = enter_cwd(root, &self.plan.cwd).is_ok();
        self.drop_privileges(user)?;
        self.ensure_supervised()?;
        if self.plan.init && self.is_first {
            self.leave_first_process()?;
        }
        if self.plan.subreaper {
            prctl::set_child_subreaper(true).stage("subreaper")?;
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).stage("signal mask")?;
        if !entered {
            enter_cwd(root, &self.plan.cwd)?;
        }
        execute(self.plan, user)
    }

    /// Returns in a child, which becomes the program; this process stays as the container's first, with no more rights.
    fn leave_first_process(&self) -> Step<()> {
        // None may get lost before it is waited for.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None).stage("signal mask")?;
        // Unlike the program it still has the memory of a process of the host.
        prctl::set_dumpable(false).stage("PR_SET_DUMPABLE")?;
        match process::fork().stage("fork")? {
            Fork::Parent(child) => first_process::stay_as_first(child.pid),
            Fork::Child => {}
        }
        let own = Pid::from_raw(0);
        setpgid(own, own).stage("process group")?;
        if self.plan.terminal {
            tcsetpgrp(io::stdin(), getpid()).stage("foreground of the terminal")?;
        }
        Ok(())
    }

    /// From all capabilities of the user namespace to those of the plan. The filter is loaded while we still may, and before
    /// the ids change, so that it needs no no_new_privs.
    fn drop_privileges(&self, user: &User) -> Step<()> {
        let kept = self.available()?;
        rustix::thread::clear_ambient_capability_set().stage("ambient capabilities")?;
        for number in 0..64 {
            let one = CapabilitySet::from_bits_retain(1 << number);
            if kept.contains(one) {
                continue;
            }
            match rustix::thread::remove_capability_from_bounding_set(one) {
                Ok(()) => {}
                // Beyond the last one that this kernel has.
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(error).stage("bounding capabilities"),
            }
        }
        if self.plan.no_new_privileges || self.single {
            prctl::set_no_new_privs().stage("no_new_privs")?;
        }
        if let Some(filter) = self.filter {
            seccomp::install(filter).stage("seccomp")?;
        }
        if user.uid != 0 && self.plan.capabilities_of_users != Capabilities::NONE {
            // A change from root to another user would clear what that one is to keep. execve(2) ends this.
            rustix::thread::set_keep_capabilities(true).stage("keep capabilities")?;
        }
        self.set_ids(user)?;
        // Others of that user must not look into us as long as we are not the program; fs.suid_dumpable may say otherwise.
        prctl::set_dumpable(false).stage("PR_SET_DUMPABLE")?;
        self.keep_capabilities(kept, user)?;
        // A change of ids has cleared it.
        die_with_supervisor()
    }

    /// Those of the plan that we have. In an outer container root may lack some; but what was asked for by name must be there.
    pub(super) fn available(&self) -> Step<CapabilitySet> {
        let ours = rustix::thread::capabilities(None).stage("capabilities")?.permitted;
        let named = self.plan.capabilities_of_users;
        let missing = if named == Capabilities::ALL { Capabilities::NONE } else { named.beyond(ours) };
        match missing.names().next() {
            None => Ok(self.plan.capabilities.bits().intersection(ours)),
            Some(name) => {
                let problem = io::Error::other(format!("who starts the container does not have {name}"));
                Err(Box::new(Failure::new("capabilities", &problem)))
            }
        }
    }

    /// So much of the plan's; the ids have been changed. What another user than root keeps has to be ambient: the file that is
    /// executed gives none.
    fn keep_capabilities(&self, available: CapabilitySet, user: &User) -> Step<()> {
        let kept = match user.uid {
            0 => available,
            _ => self.plan.capabilities_of_users.bits().intersection(available),
        };
        let inheritable = if user.uid == 0 { CapabilitySet::empty() } else { kept };
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable };
        rustix::thread::set_capabilities(None, sets).stage("capabilities")?;
        for one in inheritable.iter() {
            rustix::thread::configure_capability_in_ambient_set(one, true).stage("ambient capabilities")?;
        }
        Ok(())
    }

    fn set_ids(&self, user: &User) -> Step<()> {
        let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        if self.single {
            tracing::debug!(?groups, "a container with a single id has no supplementary groups");
            drop_groups(true)?;
        } else {
            setgroups(&groups).stage("supplementary groups")?;
        }
        let hint = |failure: Box<Failure>| {
            Box::new(failure.hint("is the id within the ranges of /etc/subuid and /etc/subgid?"))
        };
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        setresgid(gid, gid, gid).stage(&format!("group {gid}")).map_err(hint)?;
        setresuid(uid, uid, uid).stage(&format!("user {uid}")).map_err(hint)
    }

    /// The supervisor may have died while no death signal was set.
    fn ensure_supervised(&self) -> Step<()> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(self.go.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).stage("poll")?;
        if fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
            process::exit_now(EXIT_LAUNCHER);
        }
        Ok(())
    }
}

pub(super) fn die_with_supervisor() -> Step<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).stage("death signal")
}

/// `PIPEFS_MAGIC` (linux/magic.h).
const PIPEFS_MAGIC: u32 = 0x5049_5045;

/// Lets a user other than root open `/dev/stdout` and its like when they are pipes, as servers do that log there. Only pipes:
/// terminals and files belong to the user of the host, and keep belonging.
fn give_pipes_to(user: &User) -> io::Result<()> {
    if user.uid == 0 {
        return Ok(());
    }
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    for fd in [input.as_fd(), output.as_fd(), errors.as_fd()] {
        let magic = rustix::fs::fstatfs(fd)?.f_type;
        if u32::try_from(magic) == Ok(PIPEFS_MAGIC) {
            match rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(user.uid)), None) {
                Ok(()) => {}
                // Another user of the host made it, so it is not ours to give.
                Err(rustix::io::Errno::PERM) => tracing::debug!("a standard stream is another user's pipe"),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Enters the working directory, and makes sure that it is below the root.
fn enter_cwd(root: BorrowedFd<'_>, cwd: &Path) -> Step<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let directory = scoped::open(root, cwd, flags, resolve)
        .at("working directory", cwd)
        .map_err(|failure| Box::new(failure.exit_code(EXIT_LAUNCHER)))?;
    rustix::process::fchdir(&directory).at("working directory", cwd)?;
    let now = rustix::process::getcwd(Vec::new()).at("working directory", cwd)?;
    // The kernel writes "(unreachable)" before a path that is not below the root.
    if now.as_bytes().first() == Some(&b'/') {
        return Ok(());
    }
    Err(Box::new(Failure::new("working directory", &io::Error::other("not inside the container")).on(cwd)))
}

fn execute(plan: &Plan, user: &User) -> Step<std::convert::Infallible> {
    let environment = environment::complete(plan, &user.home);
    let Some(program) = plan.args.first() else {
        return Err(Box::new(Failure::new("exec", &io::Error::other("no command given"))));
    };
    let paths = environment::candidates(program, &environment);
    let args = to_c_strings(&plan.args)?;
    let variables = to_c_strings(&environment)?;
    let mut refused = None;
    for path in to_c_strings(&paths)? {
        let Err(error) = execve(&path, &args, &variables);
        match error {
            nix::Error::ENOENT | nix::Error::ENOTDIR => {}
            // execvp(3): go on, but remember it.
            nix::Error::EACCES => refused = Some(error),
            error => {
                refused = Some(error);
                break;
            }
        }
    }
    let path = Path::new(program);
    Err(Box::new(match refused {
        Some(error) => Failure::new("exec", &error.into()).on(path).exit_code(EXIT_NOT_EXECUTABLE),
        None => not_found(path, &paths),
    }))
}

fn not_found(program: &Path, paths: &[std::ffi::OsString]) -> Failure {
    let failure = Failure::new("exec", &nix::Error::ENOENT.into()).on(program).exit_code(EXIT_NOT_FOUND);
    if paths.iter().any(|path| Path::new(path).exists()) {
        return failure.hint("the file is there, but its interpreter or dynamic loader is not");
    }
    failure
}

fn to_c_strings(strings: &[std::ffi::OsString]) -> Step<Vec<CString>> {
    strings
        .iter()
        .map(|string| CString::new(string.clone().into_vec()))
        .collect::<Result<_, _>>()
        .map_err(io::Error::from)
        .stage("arguments and environment")
}
