//! Work on the files of a container from inside: by a process that sees them as the container's programs do, but executes
//! nothing of it and cannot be traced from it.

use std::fmt;
use std::io::{PipeReader, PipeWriter, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::unistd::getppid;

use super::events::Events;
use super::failure::{Context as _, EXIT_LAUNCHER, Step};
use super::id_maps;
use super::init;
use super::mounts;
use super::namespaces;
use super::own_ids;
use super::plan::Plan;
use super::program;
use super::rootfs::{self, Rootfs};
use super::run::{CgroupWish, LaunchError, launch};
use super::supervisor::{First, Supervisor, become_user, die_with, drop_groups};
use crate::sys::process::{self, Watched};

/// What is to be done, given the container's root directory.
pub struct Work<'a>(Box<dyn FnOnce(BorrowedFd<'_>) + 'a>);

impl fmt::Debug for Work<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Work")
    }
}

impl<'a> Work<'a> {
    /// Whoever does it tells by itself how it went.
    pub fn new(work: impl FnOnce(BorrowedFd<'_>) + 'a) -> Self {
        Self(Box::new(work))
    }
}

/// Takes this process, for the rest of its life, into the user and the mount namespace of a running container of which `other`,
/// with the number `pid`, is a process. It becomes root there, or the first user where there is no root, and dies with its
/// parent. Gives the root directory.
///
/// The calling process must have one thread.
///
/// # Errors
/// [`LaunchError::NotStarted`]
pub fn join((pid, other): (u32, &Watched)) -> Result<OwnedFd, LaunchError> {
    let parent = getppid();
    die_with(parent)?;
    // Before the container's processes can see us.
    prctl::set_dumpable(false).stage("PR_SET_DUMPABLE")?;
    let single = id_maps::is_single_of(pid).stage("read the id map")?;
    let first = own_ids::first_of(pid).stage("read the id map")?;
    let foreign = namespaces::foreign(pid, other)?;
    namespaces::join(other, foreign & (CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS))?;
    if foreign.contains(CloneFlags::CLONE_NEWUSER) {
        drop_groups(single)?;
        become_user(first)?;
        prctl::set_dumpable(false).stage("PR_SET_DUMPABLE")?;
        die_with(parent)?;
    }
    Ok(rootfs::open_directory(Path::new("/")).at("open", "/")?)
}

/// Mounts a root filesystem as [`super::run`] does, with the plan's volumes and nothing else, does some work in it, and takes
/// it down again. Of the plan count besides its id maps, its mount point, and whether the root is read-only.
///
/// The calling process must have one thread.
///
/// # Errors
/// [`LaunchError`], of what was done for the work; of the work itself nothing is known here.
pub fn mounted(plan: &Plan, rootfs: Box<dyn Rootfs>, work: Work<'_>) -> Result<(), LaunchError> {
    let first = First::Work(Some(work));
    launch((plan, None), CgroupWish::Of(None), &mut Silent, |given| {
        Supervisor::new(given, rootfs, first).run()
    })
    .map(drop)
}

/// That there is a single id was said when the container was run.
struct Silent;

impl Events for Silent {
    fn single_id(&mut self, reason: &str) {
        tracing::debug!(reason, "the files are seen with a single id");
    }
}

/// The process that does the work on what its supervisor serves.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    pub(super) plan: &'a Plan,
    pub(super) work: Work<'a>,
    /// Descriptors that keep the root filesystem's server alive; ours must go.
    pub(super) close: Vec<RawFd>,
    /// A byte comes when the root filesystem is served.
    pub(super) go: PipeReader,
    pub(super) errors: PipeWriter,
}

impl Worker<'_> {
    /// Does it, or says why not.
    pub(super) fn run(mut self) -> ! {
        let started = self.start();
        match started {
            Ok(root) => (self.work.0)(root.as_fd()),
            Err(failure) => failure.exit(&self.errors),
        }
        process::exit_now(0)
    }

    fn start(&mut self) -> Step<OwnedFd> {
        for fd in &self.close {
            process::close_inherited(*fd).stage("close the root filesystem's descriptors")?;
        }
        program::die_with_supervisor()?;
        let volumes = mounts::prepare_volumes(self.plan)?;
        init::leave_host(None, &self.plan.rootfs_mount_point)?;
        if self.go.read_exact(&mut [0]).is_err() {
            process::exit_now(EXIT_LAUNCHER);
        }
        let root = init::enter_root()?;
        mounts::attach_volumes(&volumes, root.as_fd())?;
        if self.plan.read_only {
            mounts::protect_root(root.as_fd())?;
        }
        Ok(root)
    }
}
