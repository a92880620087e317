//! The container's first process: from the clone to what makes it its program, as a list of named steps.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read as _};
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::path::Path;

use nix::unistd::{sethostname, setsid};

use super::failure::{Context as _, EXIT_LAUNCHER, Step};
use super::id_maps::IdMaps;
use super::in_root::{self, Symlinks};
use super::mounts;
use super::plan::{Network, Plan};
use super::program::{self, Program};
use super::rlimits;
use super::rootfs;
use super::supervisor::{MESSAGE_NETWORK, MESSAGE_USERS};
use crate::sys::process;

/// Docker's and podman's.
pub(super) const UMASK: u32 = 0o022;

/// What the first process is given.
#[derive(Debug)]
pub(super) struct Init<'a> {
    pub(super) program: Program<'a>,
    /// Descriptors that keep the root filesystem's server alive; ours must go.
    pub(super) close: Vec<RawFd>,
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
        program::die_with_supervisor()?;
        // What is made in the container is for all its users, whatever the caller's own files are.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
        self.ask_for_network()?;
        // Needs nothing of the root filesystem, so it can be done while that gets ready.
        let prepared = mounts::prepare(plan, self.program.single)?;
        self.wait_for_go();
        let root = pivot(&plan.rootfs_mount_point)?;
        let root = root.as_fd();
        mounts::attach_all(&prepared, root)?;
        configure_namespaces(plan)?;
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
        self.wait_for_network();
        self.program.become_it(root, &user)
    }

    /// Nobody else could give these away: while we cannot be traced, no other process may open our namespaces.
    fn ask_for_network(&self) -> Step<()> {
        let plan = self.program.plan;
        if !plan.network.is_connected() {
            return Ok(());
        }
        let tell = |message: &[u8], path: &str| {
            let namespace = File::open(path).at("open", path)?;
            self.program.control.send(message, Some(namespace.as_fd())).stage("ask for a network")
        };
        if plan.id_maps != IdMaps::Identity {
            tell(MESSAGE_USERS, "/proc/self/ns/user")?;
        }
        tell(MESSAGE_NETWORK, "/proc/self/ns/net")
    }

    /// The starter says itself why there is none.
    fn wait_for_network(&mut self) {
        if let Some(mut connected) = self.connected.take()
            && connected.read_exact(&mut [0]).is_err()
        {
            process::exit_now(EXIT_LAUNCHER);
        }
    }

    /// Waits until the root filesystem is served. When the supervisor has failed, it has also said why.
    fn wait_for_go(&mut self) {
        if self.program.go.read_exact(&mut [0]).is_err() {
            process::exit_now(EXIT_LAUNCHER);
        }
    }
}

/// Makes `target` the root, and lets go of the host's. Gives the new root.
pub(super) fn pivot(target: &Path) -> Step<OwnedFd> {
    let root = rootfs::open_directory(target).at("open", target)?;
    rustix::process::fchdir(&root).at("enter", target)?;
    // Old root on top of the new one, on the same place: no directory of the image is needed for it.
    rustix::process::pivot_root(".", ".").at("pivot_root", target)?;
    rootfs::detach(Path::new(".")).stage("unmount the host's root")?;
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
