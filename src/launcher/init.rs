//! The container's first process: from the clone to what makes it its program, as a list of named steps.

use std::io::{PipeWriter, Read as _};
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::prctl;
use nix::unistd::{setgroups, sethostname, setsid};

use super::failure::{Context as _, EXIT_LAUNCHER, Step};
use super::id_maps;
use super::in_root::{self, Symlinks};
use super::mounts::{self, Carried};
use super::own_ids::OwnIds;
use super::passwd;
use super::plan::{Network, Plan, Resource};
use super::program::{self, Program};
use super::rootfs;
use super::supervisor::become_user;
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
        // Needs nothing of the root filesystem, so it can be done while that gets ready.
        let (root, volumes) = match self.carried.take() {
            Some(Carried { root, volumes }) => (Some(root), volumes),
            None => (None, mounts::volumes(plan)?),
        };
        let prepared = mounts::prepare(plan, volumes, self.program.single)?;
        self.wait_for_go();
        let root = match root {
            Some(root) => pivot_to(root)?,
            None => pivot(&plan.rootfs_mount_point)?,
        };
        let root = root.as_fd();
        mounts::attach_all(&prepared, root)?;
        configure_namespaces(plan)?;
        set_limits(plan)?;
        passwd::add_user(root, plan).stage("add the user to /etc/passwd")?;
        let user = self.program.user(root)?;
        setsid().stage("setsid")?;
        self.program.connect_stdio(|| prepared.devpts.try_clone(), root, &user)?;
        mounts::protect(plan, prepared, root)?;
        if plan.create_cwd {
            in_root::open_or_make_directory(root, &plan.cwd, Symlinks::Inside)
                .at("make the working directory", &plan.cwd)?;
        }
        self.program.become_it(root, &user)
    }

    /// Becomes root of a user namespace of its own, once the supervisor has written its maps.
    fn enter_own_ids(&mut self, own: &OwnIds) -> Step<()> {
        self.wait_for_go();
        self.program.single = id_maps::is_single_here().stage("read the id map")?;
        if !self.program.single {
            setgroups(&[]).stage("supplementary groups")?;
        }
        become_user(own.first())
    }

    /// Waits until the root filesystem is served. When the supervisor has failed, it has also said why.
    fn wait_for_go(&mut self) {
        if self.program.go.read_exact(&mut [0]).is_err() {
            process::exit_now(EXIT_LAUNCHER);
        }
    }
}

/// Makes `target` the root, and lets go of the host's. Gives the new root.
fn pivot(target: &Path) -> Step<OwnedFd> {
    let root = rootfs::open_directory(target).at("open", target)?;
    rustix::process::fchdir(&root).at("enter", target)?;
    leave_old_root()
}

/// The same with a mount that is attached nowhere yet.
fn pivot_to(mount: OwnedFd) -> Step<OwnedFd> {
    let old = rootfs::open_directory(Path::new("/")).at("open", "/")?;
    attach(mount.as_fd(), old.as_fd()).at("mount on", "/")?;
    rustix::process::fchdir(&mount).stage("enter the new root")?;
    leave_old_root()
}

fn leave_old_root() -> Step<OwnedFd> {
    // Old root on top of the new one, on the same place: no directory of the image is needed for it.
    rustix::process::pivot_root(".", ".").stage("pivot_root")?;
    rootfs::detach(Path::new(".")).stage("unmount the host's root")?;
    rustix::process::chdir("/").stage("enter the new root")?;
    rootfs::open_directory(Path::new("/")).at("open", "/")
}

fn configure_namespaces(plan: &Plan) -> Step<()> {
    sethostname(&plan.hostname).stage("host name")?;
    if plan.network == Network::None {
        process::loopback_up().stage("bring up lo")?;
    }
    process::new_session_keyring().stage("session keyring")
}

fn set_limits(plan: &Plan) -> Step<()> {
    use nix::sys::resource::{Resource as Nix, setrlimit};
    for limit in &plan.rlimits {
        let resource = match limit.resource {
            Resource::As => Nix::RLIMIT_AS,
            Resource::Core => Nix::RLIMIT_CORE,
            Resource::Cpu => Nix::RLIMIT_CPU,
            Resource::Data => Nix::RLIMIT_DATA,
            Resource::Fsize => Nix::RLIMIT_FSIZE,
            Resource::Memlock => Nix::RLIMIT_MEMLOCK,
            Resource::Nofile => Nix::RLIMIT_NOFILE,
            Resource::Nproc => Nix::RLIMIT_NPROC,
            Resource::Stack => Nix::RLIMIT_STACK,
        };
        setrlimit(resource, limit.soft, limit.hard).stage(&format!("limit {:?}", limit.resource))?;
    }
    let Some(adjustment) = plan.oom_score_adj else { return Ok(()) };
    // The file belongs to the host's root while we are not dumpable. Nobody else is in the container yet.
    prctl::set_dumpable(true).stage("oom_score_adj")?;
    let written = std::fs::write("/proc/self/oom_score_adj", adjustment.to_string());
    prctl::set_dumpable(false).stage("oom_score_adj")?;
    written.at("write", "/proc/self/oom_score_adj")
}
