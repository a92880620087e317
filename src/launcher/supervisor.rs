//! The supervisor: owns the container's user and mount namespace, serves its root filesystem, waits for its first process.
//!
//! It outlives the process that the user started just long enough to take everything down: when that one is gone, even by
//! SIGKILL, the container is killed, and what was written is made safe.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::os::fd::{AsFd as _, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, getppid, setgroups, setresgid, setresuid, setsid};
use rustix::mount::{MountPropagationFlags, mount_change};

use super::cgroup::Leaf;
use super::failure::{Context as _, EXIT_LAUNCHER, EXIT_SIGNAL_BASE, Failure, Step};
use super::host;
use super::id_maps::{self, IdMaps};
use super::init::Init;
use super::inside::{Work, Worker};
use super::mounts::{self, Carried};
use super::plan::{Network, Plan};
use super::program::Program;
use super::rlimits;
use super::rootfs::Rootfs;
use super::run::Given;
use super::runtime::Runtime;
use super::seccomp::{self, Filter};
use crate::sys::message_socket::MessageSocket;
use crate::sys::process::{self, Child, Fork, NewNamespaces};

/// To the starter: the user namespace is there, its maps can be written.
pub(super) const MESSAGE_READY: &[u8] = b"R";
/// From the starter: ranges were mapped.
pub(super) const MESSAGE_RANGES: &[u8] = b"G";
/// From the starter: a single id was mapped.
pub(super) const MESSAGE_SINGLE: &[u8] = b"S";
/// To the starter, with the pidfd: the container's first process; its number follows.
pub(super) const MESSAGE_PROCESS: &[u8] = b"P";
/// To the starter, with a descriptor of it: the supervisor's user namespace, if it has one of its own.
pub(super) const MESSAGE_USERS: &[u8] = b"U";
/// To the starter, with a descriptor of it: the container's network namespace, which is to be connected.
pub(super) const MESSAGE_NETWORK: &[u8] = b"N";
/// To the starter, with the master: the container's terminal.
pub(super) const MESSAGE_TERMINAL: &[u8] = b"T";
/// To the starter: the control group is wanted. From it: there is none, or with a descriptor, this one.
pub(super) const MESSAGE_CGROUP: &[u8] = b"C";
/// To the starter: memory was short, and a process of the container was killed for that.
pub(super) const MESSAGE_OUT_OF_MEMORY: &[u8] = b"O";
/// To the starter: all is over; the exit code follows, and after a space what could not be made safe.
pub(super) const MESSAGE_EXIT: &[u8] = b"X";

/// The supervisor of a container.
#[derive(Debug)]
pub(super) struct Supervisor<'a> {
    pub(super) given: Given<'a>,
    pub(super) rootfs: Box<dyn Rootfs>,
    pub(super) first: First<'a>,
    filter: Option<Filter>,
}

/// What the first process in the root filesystem is for.
#[derive(Debug)]
pub(super) enum First<'a> {
    /// It becomes the container's program.
    Program,
    /// It does this, in no namespace of its own but that of mounts; taken when it is forked.
    Work(Option<Work<'a>>),
}

/// A root filesystem that is mounted, whether there is one id only, and what a first process with other ids needs.
struct Mounted {
    close: Vec<RawFd>,
    single: bool,
    carried: Option<Carried>,
}

impl<'a> Supervisor<'a> {
    pub(super) fn new(given: Given<'a>, rootfs: Box<dyn Rootfs>, first: First<'a>) -> Self {
        Self { given, rootfs, first, filter: None }
    }

    /// Runs the container from its namespaces to its end.
    pub(super) fn run(mut self) -> ! {
        let Err(failure) = self.supervise();
        failure.exit(&self.given.errors)
    }

    fn supervise(&mut self) -> Step<Infallible> {
        die_with(self.given.starter)?;
        // Away from the terminal's signals: the starter gets them, and passes on what is meant for the container.
        setsid().stage("setsid")?;
        let single = self.enter_namespaces()?;
        die_with(self.given.starter)?;
        // Made while the root filesystem is mounted.
        self.given.control.send(MESSAGE_CGROUP, None).stage("ask for a control group")?;
        let plan = self.given.plan;
        let target = &plan.rootfs_mount_point;
        let close = self.rootfs.mount(target).at("mount the root filesystem on", target)?;
        let carried = plan.own_ids.is_some().then(|| mounts::carry(plan)).transpose()?;
        let leaf = receive_cgroup(&self.given.control)?;
        self.give_users()?;
        let (go, first) = self.clone_first_process(Mounted { close, single, carried }, leaf.as_ref())?;
        // Nobody may look into, or trace, a process that holds the whole container. Not before: the id maps of a child that
        // cannot be traced are root's to write.
        prctl::set_dumpable(false).stage("PR_SET_DUMPABLE")?;
        let started = self.start(go, &first);
        let go = match started {
            Ok(go) => go,
            Err(failure) => {
                kill(&first);
                wait(&first)?;
                self.take_down();
                return Err(failure);
            }
        };
        self.watch(go, &first, leaf.as_ref())
    }

    /// Gives whether the container has a single id.
    fn enter_namespaces(&mut self) -> Step<bool> {
        if self.given.plan.id_maps == IdMaps::Identity {
            unshare(CloneFlags::CLONE_NEWNS).stage("make a mount namespace")?;
            make_private(self.given.plan)?;
            self.filter = seccomp::filter_of(self.given.plan)?;
            return id_maps::is_single_here().stage("read the id map");
        }
        match self.given.users {
            Some(users) => {
                setns(users, CloneFlags::CLONE_NEWUSER).stage("enter the user namespace")?;
                unshare(CloneFlags::CLONE_NEWNS).stage("make a mount namespace")?;
            }
            None => unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
                .stage("make a user namespace")
                .map_err(|failure| Box::new(explain_no_user_namespace(*failure)))?,
        }
        self.given.control.send(MESSAGE_READY, None).stage("ask for id maps")?;
        // While the starter's helpers write them.
        self.filter = seccomp::filter_of(self.given.plan)?;
        let answer = self.given.control.receive().stage("wait for id maps")?;
        let single = match answer.as_ref().map(|message| message.bytes.as_slice()) {
            Some(MESSAGE_RANGES) => false,
            Some(MESSAGE_SINGLE) => true,
            // The starter has failed, and knows why.
            _ => process::exit_now(EXIT_LAUNCHER),
        };
        drop_groups(single)?;
        become_root()?;
        make_private(self.given.plan)?;
        Ok(single)
    }

    /// The programs of the host that connect a network are in this user namespace, whatever one the network belongs to.
    fn give_users(&self) -> Step<()> {
        let plan = self.given.plan;
        if !plan.network.is_connected() || plan.id_maps == IdMaps::Identity {
            return Ok(());
        }
        let path = "/proc/self/ns/user";
        let users = File::open(path).at("open", path)?;
        self.given.control.send(MESSAGE_USERS, Some(users.as_fd())).stage("ask for a network")
    }

    /// The first process waits for a byte in the pipe whose end this gives.
    fn clone_first_process(&mut self, mounted: Mounted, leaf: Option<&Leaf>) -> Step<(PipeWriter, Child)> {
        let (reader, writer) = io::pipe().stage("pipe")?;
        let plan = self.given.plan;
        let mut namespaces = match (&self.first, &plan.runtime, plan.network) {
            (First::Work(_), _, _) => NewNamespaces::of_mounts(),
            // The runtime makes the others.
            (First::Program, Some(_), network) if network.is_connected() => {
                NewNamespaces::of_runtime().with_network()
            }
            (First::Program, Some(_), _) => NewNamespaces::of_runtime(),
            (First::Program, None, Network::Host) => NewNamespaces::of_container(),
            (First::Program, None, _) => NewNamespaces::of_container().with_network(),
        };
        if plan.own_ids.is_some() {
            namespaces = namespaces.with_user();
        }
        let forked = process::fork_into(namespaces, leaf.map(Leaf::as_fd));
        match forked.stage("make the container's namespaces")? {
            Fork::Child => {
                drop(writer);
                self.become_first_process(mounted, reader)
            }
            Fork::Parent(child) => {
                // So that their readers learn when the program's are closed.
                self.given.streams = None;
                self.given.connected = None;
                self.give_ids(writer, child)
            }
        }
    }

    /// Writes the id maps of a first process that waits for its own.
    fn give_ids(&self, mut go: PipeWriter, first: Child) -> Step<(PipeWriter, Child)> {
        if let Some(own) = &self.given.plan.own_ids {
            own.write(first.pid).stage("write the container's id maps").map_err(explain_no_ids)?;
            rlimits::allow(self.given.plan, rustix::process::Pid::from_raw(first.pid))?;
            rlimits::adjust_oom_score_of(first.pid, self.given.plan)?;
            go.write_all(b"i").stage("write the container's id maps")?;
        }
        Ok((go, first))
    }

    fn become_first_process(&mut self, mounted: Mounted, go: PipeReader) -> ! {
        let copies =
            self.given.control.try_clone().and_then(|control| Ok((control, self.given.errors.try_clone()?)));
        let Ok((control, errors)) = copies else { process::exit_now(EXIT_LAUNCHER) };
        let Mounted { close, single, carried } = mounted;
        let plan = self.given.plan;
        if let First::Work(work) = &mut self.first {
            let Some(work) = work.take() else { process::exit_now(EXIT_LAUNCHER) };
            Worker { plan, work, close, go, errors }.run()
        }
        let program = Program {
            plan,
            filter: self.filter.as_deref(),
            window: self.given.window,
            single,
            is_first: true,
            go,
            control,
            streams: self.given.streams.take(),
        };
        let connected = self.given.connected.take();
        if let Some(path) = &plan.runtime {
            // It executes nothing in its own place, which would close it: its own copy is to be the last.
            if let Err(failure) = self::close(&mut self.given.errors) {
                failure.exit(&errors)
            }
            Runtime { path, program, close, errors, connected }.run()
        }
        Init { program, close, carried, errors, connected }.run()
    }

    /// Lets the first process go on as soon as there is something to go on with.
    fn start(&mut self, mut go: PipeWriter, first: &Child) -> Step<PipeWriter> {
        self.rootfs.serve().stage("serve the root filesystem")?;
        if let Err(error) = go.write_all(b"g") {
            tracing::debug!(%error, "the container's first process is gone already");
        }
        host::leave()?;
        // A runtime's first process tells by itself who the program is.
        if self.given.plan.runtime.is_none() {
            report(first, &self.given.control)?;
        }
        Ok(go)
    }

    /// Stays until the first process has ended.
    fn watch(&mut self, go: PipeWriter, first: &Child, leaf: Option<&Leaf>) -> Step<Infallible> {
        // From here on the starter's end is noticed by the closed socket, so that there is time to make things safe.
        prctl::set_pdeathsig(None).stage("death signal")?;
        close(&mut self.given.errors)?;
        wait_for_end(first, &self.given.control)?;
        let code = wait(first)?;
        if leaf.is_some_and(|leaf| leaf.oom_kills() > 0)
            && let Err(error) = self.given.control.send(MESSAGE_OUT_OF_MEMORY, None)
        {
            tracing::debug!(%error, "nobody is left to hear that memory was short");
        }
        if let Some(leaf) = leaf {
            leaf.remove(&self.given.plan.id);
        }
        let problem = self.take_down();
        report_end(code, &problem.unwrap_or_default(), &self.given.control);
        drop(go);
        process::exit_now(code)
    }

    /// Makes safe what was written, once the mount has ended with its last process. Gives what went wrong.
    fn take_down(&mut self) -> Option<String> {
        let error = self.rootfs.finish().err()?;
        tracing::error!(%error, "finishing the root filesystem");
        Some(error.to_string())
    }
}

/// The death of the starter is ours.
pub(super) fn die_with(starter: Pid) -> Step<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).stage("death signal")?;
    if getppid() != starter {
        process::exit_now(EXIT_LAUNCHER);
    }
    Ok(())
}

/// The answer to [`MESSAGE_CGROUP`].
pub(super) fn receive_cgroup(control: &MessageSocket) -> Step<Option<Leaf>> {
    match control.receive().stage("wait for a control group")? {
        Some(message) if message.bytes == MESSAGE_CGROUP => Ok(message.fd.map(Leaf::of)),
        // The starter has failed, and knows why.
        _ => process::exit_now(EXIT_LAUNCHER),
    }
}

/// Leaves the caller's supplementary groups. Where an ordinary user has written the map of a single id the kernel refuses it:
/// groups could take rights away, too (user_namespaces(7)).
pub(super) fn drop_groups(single: bool) -> Step<()> {
    match setgroups(&[]) {
        Err(Errno::EPERM) if single => Ok(()),
        dropped => dropped.stage("supplementary groups"),
    }
}

/// Root of the user namespace that was entered.
pub(super) fn become_root() -> Step<()> {
    become_user((0, 0))
}

/// User and group of the user namespace that was entered.
pub(super) fn become_user((uid, gid): (u32, u32)) -> Step<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid).stage("become root of the user namespace")?;
    setresuid(uid, uid, uid).stage("become root of the user namespace")
}

/// Tells the starter which process is, or will be, the program.
pub(super) fn report(program: &Child, control: &MessageSocket) -> Step<()> {
    let mut number = MESSAGE_PROCESS.to_vec();
    number.extend(program.pid.to_string().bytes());
    control.send(&number, Some(program.pidfd.as_fd())).stage("report the program's process")
}

/// Tells the starter that all is over.
pub(super) fn report_end(code: u8, problem: &str, control: &MessageSocket) {
    let mut message = MESSAGE_EXIT.to_vec();
    message.extend(format!("{code} {problem}").bytes());
    if let Err(error) = control.send(&message, None) {
        tracing::debug!(%error, "nobody is left to hear the exit code");
    }
}

/// Only the program may hold the error pipe open: its end says that it runs.
pub(super) fn close(errors: &mut PipeWriter) -> Step<()> {
    let (_, nowhere) = io::pipe().stage("pipe")?;
    *errors = nowhere;
    Ok(())
}

/// Waits until a program has ended, and kills it when the starter has gone.
pub(super) fn wait_for_end(program: &Child, control: &MessageSocket) -> Step<()> {
    loop {
        let mut fds = [
            PollFd::new(program.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).stage("poll"),
        }
        if fds[0].any().unwrap_or(false) {
            return Ok(());
        }
        if fds[1].any().unwrap_or(false) && !matches!(control.receive(), Ok(Some(_))) {
            kill(program);
            return Ok(());
        }
    }
}

/// What is mounted here is not mounted on the host. A runtime sees the host's files for as long as its container runs: so what
/// is unmounted on the host is unmounted there, too.
fn make_private(plan: &Plan) -> Step<()> {
    let kind = match plan.runtime {
        None => MountPropagationFlags::PRIVATE,
        Some(_) => MountPropagationFlags::DOWNSTREAM,
    };
    mount_change("/", kind | MountPropagationFlags::REC).stage("make the mount namespace private")
}

fn explain_no_ids(failure: Box<Failure>) -> Box<Failure> {
    match failure.errno.map(Errno::from_raw) {
        Some(Errno::EPERM) => Box::new(failure.hint(
            "are all of these ids ours? Ids of others need CAP_SETUID, CAP_SETGID and CAP_SETFCAP, and ranges in \
             /etc/subuid and /etc/subgid",
        )),
        _ => failure,
    }
}

fn explain_no_user_namespace(failure: Failure) -> Failure {
    match failure.errno.map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => failure.hint(
            "user namespaces are switched off for ordinary users; see sysctl kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns, and the seccomp profile of an outer container",
        ),
        Some(Errno::ENOSPC | Errno::EUSERS) => {
            failure.hint("too many user namespaces; see sysctl user.max_user_namespaces")
        }
        Some(Errno::EINVAL) => failure.hint("this kernel has no user namespaces (CONFIG_USER_NS)"),
        _ => failure,
    }
}

fn kill(child: &Child) {
    if let Err(error) = process::send_signal(child.pidfd.as_fd(), Signal::SIGKILL as i32) {
        tracing::debug!(%error, "killing the container");
    }
}

/// Collects the end of a child as an exit code.
pub(super) fn wait(child: &Child) -> Step<u8> {
    loop {
        match waitpid(Pid::from_raw(child.pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(u8::try_from(code).unwrap_or(EXIT_LAUNCHER)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(exit_code_of_signal(signal)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).stage("wait for the container"),
        }
    }
}

/// 128 plus the number, as a shell says it.
pub(super) fn exit_code_of_signal(signal: Signal) -> u8 {
    u8::try_from(signal as i32).map_or(EXIT_LAUNCHER, |number| EXIT_SIGNAL_BASE.saturating_add(number))
}
