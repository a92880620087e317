//! A program beside those that a container runs already (`layerfs exec`).
//!
//! The process between starter and program joins the container's namespaces but that of mounts: there it could not see itself
//! in `/proc`. Its child is born into the pid namespace, joins the mounts too, and becomes the program.

use std::convert::Infallible;
use std::io::{self, PipeReader};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::unistd::{setgroups, setsid};

use super::failure::{Context as _, Failure, Step};
use super::in_root::{self, Symlinks};
use super::init::UMASK;
use super::plan::Plan;
use super::program::{self, Program};
use super::rootfs;
use super::run::{Events, Given, LaunchError, launch};
use super::supervisor::{become_user, close, die_with, report, report_end, wait, wait_for_end};
use super::{id_maps, own_ids};
use crate::sys::process::{self, Fork, Watched};

/// Runs a program beside the one that `other`, with the number `pid`, is; gives its exit code. Of the plan counts what a
/// program has for itself: its arguments, environment, directory, user, terminal, and rights.
///
/// The calling process must have one thread. Its signals are handled here until the program has ended.
///
/// # Errors
/// [`LaunchError`]; its `exit_code` is what to exit with.
pub fn exec(plan: &Plan, (pid, other): (u32, &Watched), events: &mut dyn Events) -> Result<u8, LaunchError> {
    launch(plan, events, |given| Beside { given, pid, other }.run())
}

/// The process between starter and program.
struct Beside<'a> {
    given: Given<'a>,
    pid: u32,
    other: &'a Watched,
}

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
        let single = id_maps::is_single_of(self.pid).stage("read the id map")?;
        let first = own_ids::first_of(self.pid).stage("read the id map")?;
        let (here, with_child) = self.foreign_namespaces()?;
        self.join(here)?;
        if here.contains(CloneFlags::CLONE_NEWUSER) {
            if !single {
                setgroups(&[]).stage("supplementary groups")?;
            }
            become_user(first)?;
            prctl::set_dumpable(false).stage("PR_SET_DUMPABLE")?;
            die_with(self.given.starter)?;
        }
        let (go, stays) = io::pipe().stage("pipe")?;
        let program = match process::fork().stage("fork")? {
            Fork::Child => {
                drop(stays);
                self.become_program(with_child, go, single)
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

    /// Those of the container that are not ours: what is joined here, and what by the child.
    fn foreign_namespaces(&self) -> Step<(CloneFlags, CloneFlags)> {
        let all = [
            ("user", CloneFlags::CLONE_NEWUSER),
            ("mnt", CloneFlags::CLONE_NEWNS),
            ("pid", CloneFlags::CLONE_NEWPID),
            ("net", CloneFlags::CLONE_NEWNET),
            ("ipc", CloneFlags::CLONE_NEWIPC),
            ("uts", CloneFlags::CLONE_NEWUTS),
            ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        ];
        let mut foreign = CloneFlags::empty();
        for (name, flag) in all {
            let of = |process: &str| {
                let path = format!("/proc/{process}/ns/{name}");
                std::fs::metadata(&path).map(|namespace| namespace.ino()).at("look at", path)
            };
            if of(&self.pid.to_string())? != of("self")? {
                foreign |= flag;
            }
        }
        // The number says nothing any more when the process has ended. Those two every container has.
        let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
        if self.other.has_ended().stage("poll")? || !foreign.contains(own) {
            return Err(Box::new(Failure::new(
                "look at the container",
                &io::Error::other("it has just ended"),
            )));
        }
        let mounts = foreign & CloneFlags::CLONE_NEWNS;
        Ok((foreign - mounts, mounts))
    }

    fn join(&self, namespaces: CloneFlags) -> Step<()> {
        setns(self.other.as_fd(), namespaces).stage("join the container's namespaces").map_err(|failure| {
            let ended = self.other.has_ended().unwrap_or(false);
            if ended { Box::new(failure.hint("the container has just ended")) } else { failure }
        })
    }

    fn become_program(&mut self, mounts: CloneFlags, go: PipeReader, single: bool) -> ! {
        let failure = match self.try_become_program(mounts, go, single) {
            Err(failure) => failure,
            Ok(never) => match never {},
        };
        failure.exit(&self.given.errors)
    }

    fn try_become_program(&mut self, mounts: CloneFlags, go: PipeReader, single: bool) -> Step<Infallible> {
        program::die_with_supervisor()?;
        self.join(mounts)?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
        process::new_session_keyring().stage("session keyring")?;
        let root = rootfs::open_directory(Path::new("/")).at("open", "/")?;
        let root = root.as_fd();
        let program = Program {
            plan: self.given.plan,
            filter: self.given.filter,
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
