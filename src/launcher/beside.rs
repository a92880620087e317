//! A program beside those that a container runs already (`layerfs exec`).
//!
//! The process between starter and program joins the container's namespaces. Its child is born into the pid namespace, where
//! nothing of the host can be reached through it any more, and becomes the program.

use std::convert::Infallible;
use std::io::{self, PipeReader};
use std::os::fd::AsFd as _;
use std::path::Path;

use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::unistd::setsid;

use super::cgroup::Leaf;
use super::events::Events;
use super::failure::{Context as _, Step};
use super::id_maps;
use super::in_root::{self, Symlinks};
use super::init::UMASK;
use super::namespaces;
use super::own_ids;
use super::plan::Plan;
use super::program::{self, Program};
use super::rlimits;
use super::rootfs;
use super::run::{CgroupWish, Given, LaunchError, launch};
use super::seccomp::{self, Filter};
use super::supervisor::{
    MESSAGE_CGROUP, become_user, close, die_with, drop_groups, receive_cgroup, report, report_end, wait,
    wait_for_end,
};
use crate::sys::process::{self, Fork, NewNamespaces, SingleThread, Watched};

/// Runs a program beside those of the container of which `other`, with the number `pid`, is one; gives its exit code. Of the plan counts what a
/// program has for itself: its arguments, environment, directory, user, terminal, and rights. It is born into the
/// container's control group.
///
/// The calling process must have one thread. Its signals are handled here until the program has ended.
///
/// # Errors
/// [`LaunchError`]; its `exit_code` is what to exit with.
pub fn exec(
    plan: &Plan,
    (pid, other): (u32, &Watched),
    cgroup: Option<&Path>,
    events: &mut dyn Events,
) -> Result<u8, LaunchError> {
    launch((plan, None), CgroupWish::Of(cgroup), events, |given| {
        Beside { given, pid, other, filter: None }.run()
    })
    .map(|ended| ended.code())
}

/// The process between starter and program.
struct Beside<'a> {
    given: Given<'a>,
    pid: u32,
    other: &'a Watched,
    filter: Option<Filter>,
}

/// Who to be in the user namespace that was joined, if that is another one, and the namespaces that are left to join.
type Joined = (Option<(u32, u32)>, CloneFlags);

impl Beside<'_> {
    fn run(mut self) -> ! {
        let Err(failure) = self.start();
        failure.exit(&self.given.errors)
    }

    fn start(&mut self) -> Step<Infallible> {
        die_with(self.given.starter)?;
        // Away from the terminal's signals, as a supervisor.
        setsid().stage("setsid")?;
        // Before the container's processes can see us: nobody may look into, or trace, a process from outside.
        prctl::set_dumpable(false).stage("PR_SET_DUMPABLE")?;
        self.given.control.send(MESSAGE_CGROUP, None).stage("ask for the control group")?;
        self.filter = seccomp::filter_of(self.given.plan)?;
        let leaf = receive_cgroup(&self.given.control)?;
        let single = id_maps::is_single_of(self.pid).stage("read the id map")?;
        let first = own_ids::first_of(self.pid).stage("read the id map")?;
        let foreign = namespaces::foreign(self.pid, self.other)?;
        // As long as `/proc` is the host's.
        rlimits::adjust_oom_score(self.given.plan)?;
        if foreign.contains(CloneFlags::CLONE_NEWUSER) {
            rlimits::allow(self.given.plan, None)?;
        }
        // In the container's /proc we are not to be seen.
        let single_thread = SingleThread::ensure().stage("fork")?;
        // From inside of its control groups nobody finds the way into them.
        let last = foreign & CloneFlags::CLONE_NEWCGROUP;
        namespaces::join(self.other, foreign - last)?;
        if foreign.contains(CloneFlags::CLONE_NEWUSER) {
            prctl::set_dumpable(false).stage("PR_SET_DUMPABLE")?;
            die_with(self.given.starter)?;
        }
        // Still as the caller, to whom the control group belongs: the container's root may be somebody else.
        let user = foreign.contains(CloneFlags::CLONE_NEWUSER).then_some(first);
        let (go, stays) = io::pipe().stage("pipe")?;
        let leaf = leaf.as_ref().map(Leaf::as_fd);
        let forked = process::fork_into_as(single_thread, NewNamespaces::default(), leaf);
        let program = match forked.stage("fork into the container's control group")? {
            Fork::Child => {
                drop(stays);
                self.become_program((user, last), go, single)
            }
            Fork::Parent(program) => program,
        };
        drop(go);
        self.given.streams = None;
        report(&program, &self.given.control)?;
        close(&mut self.given.errors)?;
        // From here on the starter's end is noticed by the closed socket: the program may have lost its death signal.
        prctl::set_pdeathsig(None).stage("death signal")?;
        wait_for_end(&program, &self.given.control)?;
        let code = wait(&program)?;
        report_end(code, "", &self.given.control);
        drop(stays);
        process::exit_now(code)
    }

    fn become_program(&mut self, joined: Joined, go: PipeReader, single: bool) -> ! {
        let failure = match self.try_become_program(joined, go, single) {
            Err(failure) => failure,
            Ok(never) => match never {},
        };
        failure.exit(&self.given.errors)
    }

    fn try_become_program(&mut self, (user, last): Joined, go: PipeReader, single: bool) -> Step<Infallible> {
        if let Some(user) = user {
            drop_groups(single)?;
            become_user(user)?;
            prctl::set_dumpable(false).stage("PR_SET_DUMPABLE")?;
        }
        program::die_with_supervisor()?;
        namespaces::join(self.other, last)?;
        rlimits::limit(self.given.plan)?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
        process::new_session_keyring().stage("session keyring")?;
        let root = rootfs::open_directory(Path::new("/")).at("open", "/")?;
        let root = root.as_fd();
        let program = Program {
            plan: self.given.plan,
            filter: self.filter.as_deref(),
            window: self.given.window,
            single,
            is_first: false,
            go,
            control: self.given.control.try_clone().stage("socket")?,
            streams: self.given.streams.take(),
        };
        let user = program.user(root)?;
        setsid().stage("setsid")?;
        let devpts = || in_root::open(root, Path::new("/dev/pts"), Symlinks::Refused);
        program.connect_stdio(devpts, root, &user)?;
        program.become_it(root, &user)
    }
}
