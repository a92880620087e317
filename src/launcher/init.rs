//! The container's first process: from the clone to what makes it its program, as a list of named steps.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read as _};
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::prctl;
use nix::unistd::{sethostname, setsid};

use super::failure::{Context as _, EXIT_LAUNCHER, Step};
use super::id_maps;
use super::in_root::{self, Symlinks};
use super::mounts::{self, Carried};
use super::own_ids::OwnIds;
use super::passwd;
use super::plan::{Network, Plan};
use super::program::{self, Program};
use super::read_ahead;
use super::rlimits;
use super::rootfs;
use super::supervisor::{MESSAGE_NETWORK, become_user, drop_groups};
use crate::sys::mount_attributes::attach;
use crate::sys::process;

/// Docker's and podman's.
pub(super) const UMASK: u32 = 0o022;

/// What the first process is given.
#[derive(Debug)]
pub(super) struct Init<'a> {
    pub(super) program: Program<'a>,
    /// Descriptors that keep the root filesystem's server alive; ours must go.
    pub(super) close: Vec<RawFd>,
    /// What was mounted with the supervisor's ids, when ours are others.
    pub(super) carried: Option<Carried>,
    pub(super) errors: PipeWriter,
    /// A byte comes when the network is there; closed when that failed. Nothing when there is none to wait for.
    pub(super) connected: Option<PipeReader>,
}

impl Init<'_> {
    /// Becomes the program, or says why not.
    pub(super) fn run(mut self) -> ! {
        let Err(failure) = self.start();
        failure.exit(&self.errors)
    }

    fn start(&mut self) -> Step<std::convert::Infallible> {
        let plan = self.program.plan;
        for fd in &self.close {
            process::close_inherited(*fd).stage("close the root filesystem's descriptors")?;
        }
        if let Some(own) = &plan.own_ids {
            self.enter_own_ids(own)?;
        }
        prctl::set_dumpable(false).stage("PR_SET_DUMPABLE")?;
        program::die_with_supervisor()?;
        // What is made in the container is for all its users, whatever the caller's own files are.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
        ask_for_network(&self.program)?;
        // Needs nothing of the root filesystem, so it can be done while that gets ready.
        let (root, volumes) = match self.carried.take() {
            Some(Carried { root, volumes }) => (Some(root), volumes),
            None => (None, mounts::of_host(plan)?),
        };
        let prepared = mounts::prepare(plan, volumes, self.program.single)?;
        leave_host(root, &plan.rootfs_mount_point)?;
        self.wait_for_go();
        let root = enter_root()?;
        let root = root.as_fd();
        read_ahead::begin(root, plan);
        mounts::attach_all(&prepared, root)?;
        configure_namespaces(plan)?;
        passwd::add_user(root, plan).stage("add the user to /etc/passwd")?;
        rlimits::adjust_oom_score(plan)?;
        rlimits::limit(plan)?;
        let user = self.program.user(root)?;
        setsid().stage("setsid")?;
        self.program.connect_stdio(|| prepared.devpts.try_clone(), root, &user)?;
        mounts::protect(plan, prepared, root)?;
        if plan.create_cwd {
            in_root::open_or_make_directory(root, &plan.cwd, Symlinks::Inside)
                .at("make the working directory", &plan.cwd)?;
        }
        wait_for_network(self.connected.take());
        self.program.become_it(root, &user)
    }

    /// Becomes root of a user namespace of its own, once the supervisor has written its maps.
    fn enter_own_ids(&mut self, own: &OwnIds) -> Step<()> {
        self.wait_for_go();
        self.program.single = id_maps::is_single_here().stage("read the id map")?;
        drop_groups(self.program.single)?;
        become_user(own.first())
    }

    /// Waits until the root filesystem is served. When the supervisor has failed, it has also said why.
    fn wait_for_go(&mut self) {
        if self.program.go.read_exact(&mut [0]).is_err() {
            process::exit_now(EXIT_LAUNCHER);
        }
    }
}

/// Nobody else could give it away: while we cannot be traced, no other process may open our namespaces.
pub(super) fn ask_for_network(program: &Program<'_>) -> Step<()> {
    if !program.plan.network.is_connected() {
        return Ok(());
    }
    let path = "/proc/self/ns/net";
    let network = File::open(path).at("open", path)?;
    program.control.send(MESSAGE_NETWORK, Some(network.as_fd())).stage("ask for a network")
}

/// The starter says itself why there is none.
pub(super) fn wait_for_network(connected: Option<PipeReader>) {
    if let Some(mut connected) = connected
        && connected.read_exact(&mut [0]).is_err()
    {
        process::exit_now(EXIT_LAUNCHER);
    }
}

/// Makes the root filesystem the root, and lets go of the host's: a mount that is attached nowhere yet, or else what is
/// mounted on `target`.
///
/// Nothing is asked of the root filesystem, so it need not be served: to unmount takes a grace period of the kernel, a
/// millisecond or two, in which that can get ready.
pub(super) fn leave_host(mount: Option<OwnedFd>, target: &Path) -> Step<()> {
    let target = match mount {
        None => target,
        Some(mount) => {
            let old = rootfs::open_directory(Path::new("/")).at("open", "/")?;
            attach(mount.as_fd(), old.as_fd()).at("mount on", "/")?;
            // What lies on top of the root: `/` is below it.
            Path::new("/..")
        }
    };
    // Old root on top of the new one, on the same place: no directory of the image is needed for it.
    rustix::process::pivot_root(target, target).stage("pivot_root")?;
    rootfs::detach(Path::new("/")).stage("unmount the host's root")
}

/// Enters the root filesystem, which is served now, and gives its root.
pub(super) fn enter_root() -> Step<OwnedFd> {
    rustix::process::chdir("/").stage("enter the new root")?;
    rootfs::open_directory(Path::new("/")).at("open", "/")
}

fn configure_namespaces(plan: &Plan) -> Step<()> {
    sethostname(&plan.hostname).stage("host name")?;
    if plan.network != Network::Host {
        process::loopback_up().stage("bring up lo")?;
    }
    process::new_session_keyring().stage("session keyring")
}
