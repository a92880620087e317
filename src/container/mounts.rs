//! Mounting a container: a server process that lives until the unmount, and its end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{
    Container, ContainerError, ContainerId, Containers, Held, Moment, OwnVolumes, Owners, ProcessId, State,
};
use crate::fs::OwnerView;
use crate::fuse::Flag;
use crate::mount::{Layers, MountError, MountServer, OwnMount, Place, UpperDirs};
use crate::sys::lock::Watch;
use crate::sys::process::Watched;
use crate::sys::{daemon, fuse_mount, mount_table};

/// How and where a container is mounted.
#[derive(Clone, Debug)]
pub struct MountPlan {
    /// The mount point, as [`crate::mount::mount_point`] gave it.
    pub target: PathBuf,
    /// Where changes go; `None` refuses them.
    pub upper: Option<UpperDirs>,
    /// What mount(8) shows as the source.
    pub source: String,
    /// For other users too.
    pub allow_other: bool,
    /// Further flags.
    pub flags: Vec<Flag>,
    /// The container was made for this mount, and goes when that does not come about.
    pub fresh: bool,
    /// The container goes with this mount.
    pub remove_at_end: bool,
}

/// Why a container could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The server could not do it.
    #[error("{0}")]
    Server(String),
    /// The image or the upper.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The container's directory.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Something else is mounted there.
    #[error("mount point {}: busy: a {kind} filesystem is mounted there: unmount it first", target.display())]
    Busy {
        /// Where.
        target: PathBuf,
        /// What is there.
        kind: String,
    },
    /// Nothing of ours is mounted there.
    #[error("{}: no layerfs mount", .0.display())]
    NotMounted(PathBuf),
    /// The server is still there.
    #[error("{}: unmounted, but its server has not ended after {} s: see its log", target.display(), waited.as_secs())]
    StillServing {
        /// What was unmounted.
        target: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A system call.
    #[error("{operation}: {source}")]
    System {
        /// What was being done.
        operation: String,
        /// What the system said.
        source: io::Error,
    },
}

/// How long a server may take to flush and end after its unmount.
const END_WAIT: Duration = Duration::from_secs(60);

fn system(operation: &str) -> impl FnOnce(io::Error) -> ServeError + '_ {
    move |source| ServeError::System { operation: operation.to_owned(), source }
}

/// Refuses a mount point that something is mounted on already.
///
/// # Errors
/// [`ServeError::Busy`]
pub fn must_be_free(target: &Path) -> Result<(), ServeError> {
    match mount_table::filesystem_at(target).map_err(system("read /proc/self/mountinfo"))? {
        None => Ok(()),
        Some(kind) => Err(ServeError::Busy { target: target.to_owned(), kind }),
    }
}

/// Mounts a container in a server process of its own, and returns when it is usable.
///
/// # Errors
/// [`ServeError`]; then nothing is mounted.
pub fn mount_in_background(
    containers: &Containers,
    held: Held,
    layers: Layers,
    plan: &MountPlan,
) -> Result<ContainerId, ServeError> {
    let container = Container::clone(&held);
    match daemon::fork().map_err(system("fork"))? {
        daemon::Forked::Parent(server) => {
            drop(held);
            // This process is about to end: to unmap all indexes one by one first takes as long as to open them.
            std::mem::forget(layers);
            match server.wait() {
                Ok(_) => Ok(container.id()),
                Err(message) => {
                    if plan.fresh {
                        containers.remove(container)?;
                    }
                    Err(ServeError::Server(message))
                }
            }
        }
        daemon::Forked::Child(notifier) => {
            let code = serve_forked(containers, held, layers, plan, notifier);
            std::process::exit(code)
        }
    }
}

/// Mounts a container and serves it until the unmount.
///
/// # Errors
/// [`ServeError`]
pub fn mount_in_foreground(
    containers: &Containers,
    held: Held,
    layers: Layers,
    plan: &MountPlan,
    ready: &mut dyn FnMut(),
) -> Result<(), ServeError> {
    let server = match start(&held, layers, plan) {
        Ok((server, _)) => server,
        Err(error) => {
            if plan.fresh {
                held.detach(containers, OwnVolumes::Stay)?.delete()?;
            }
            return Err(error);
        }
    };
    ready();
    let started = Moment::now();
    let served = server.run();
    end(containers, held, plan, started)?;
    served.map_err(system("serve"))
}

/// The server's process, from the fork to its exit code.
fn serve_forked(
    containers: &Containers,
    held: Held,
    layers: Layers,
    plan: &MountPlan,
    notifier: daemon::Notifier,
) -> i32 {
    let started = Moment::now();
    let detached = start(&held, layers, plan).and_then(|(server, own)| {
        match daemon::detach(&held.log_path()).map_err(system("detach")) {
            Ok(()) => Ok(server),
            Err(error) => Err(given_up(&own, server, error)),
        }
    });
    let server = match detached {
        Ok(server) => server,
        Err(error) => return i32::from(notifier.failed(&error.to_string()).is_err()) + 1,
    };
    if let Err(error) = notifier.ready() {
        tracing::warn!("who asked for this mount is gone: {error}");
    }
    let served = server.run();
    if let Err(error) = &served {
        tracing::error!("serve: {error}");
    }
    match end(containers, held, plan, started) {
        Ok(()) => i32::from(served.is_err()),
        Err(error) => {
            tracing::error!("{error}");
            1
        }
    }
}

/// Everything up to a mount that answers.
fn start(held: &Held, layers: Layers, plan: &MountPlan) -> Result<(MountServer, OwnMount), ServeError> {
    daemon::prepare().map_err(system("setrlimit"))?;
    daemon::block_end_signals().map_err(system("block signals"))?;
    let view = view(held.config().owners);
    let caches = layers.caches();
    let fs = layers.into_fs(plan.upper.as_ref(), view)?;
    let mount = format!("mount on {}", plan.target.display());
    let (server, own) = place(plan).serve(fs, caches).map_err(system(&mount))?;
    match announce(held, &plan.target, &own) {
        Ok(()) => Ok((server, own)),
        Err(error) => Err(given_up(&own, server, error)),
    }
}

/// Takes away a mount that nobody will serve. Gives why.
fn given_up(own: &OwnMount, server: MountServer, error: ServeError) -> ServeError {
    own.abandon(server);
    error
}

/// Writes down that it is mounted, and waits in a thread for the signals that end it.
fn announce(held: &Held, target: &Path, own: &OwnMount) -> Result<(), ServeError> {
    let state = State::Mounted {
        server: ProcessId::current().map_err(system("read /proc"))?,
        mountpoint: target.to_owned(),
        started: Moment::now(),
    };
    held.set_state(&state)?;
    own.clone().unmount_by_signal().map_err(system("start a thread"))
}

fn place(plan: &MountPlan) -> Place {
    Place {
        target: plan.target.clone(),
        source: plan.source.clone(),
        allow_other: plan.allow_other,
        flags: plan.flags.clone(),
    }
}

/// As whom this process shows a container's files.
fn view(owners: Owners) -> OwnerView {
    match owners {
        Owners::Image => OwnerView::Image,
        Owners::Caller => OwnerView::Caller {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        },
    }
}

/// After the unmount: writes down that it ended, or removes it.
fn end(containers: &Containers, held: Held, plan: &MountPlan, started: Moment) -> Result<(), ServeError> {
    if plan.remove_at_end {
        return Ok(held.detach(containers, OwnVolumes::Stay)?.delete()?);
    }
    Ok(held.set_state(&State::Exited {
        exit_code: 0,
        started,
        finished: Moment::now(),
        oom_killed: false,
    })?)
}

/// Unmounts and waits until the server has written everything, or removed what it was to remove, and is gone.
///
/// # Errors
/// [`ServeError`]
pub fn unmount(containers: &Containers, dir: &Path, lazy: bool) -> Result<(), ServeError> {
    let target = mounted_target(dir)?;
    let served = mounted_at(containers, &target)?;
    if lazy {
        return fuse_mount::unmount_lazily(&target).map_err(system("umount"));
    }
    let Some((container, server)) = served else {
        return fuse_mount::unmount_idle(&target).map_err(system("umount"));
    };
    let lock = Watch::of(&container.lock_path()).map_err(system("open the lock of the container"))?;
    // The lock says that all is written; the image and its indexes are in use until the process is gone.
    let server = server.watch().unwrap_or_else(|error| {
        tracing::debug!("the server's process {}: {error}", server.pid);
        None
    });
    fuse_mount::unmount_idle(&target).map_err(system("umount"))?;
    let since = Instant::now();
    while lock.as_ref().map_or(Ok(false), Watch::is_held).map_err(system("flock"))?
        || !server.as_ref().map_or(Ok(true), Watched::has_ended).map_err(system("poll"))?
    {
        if since.elapsed() > END_WAIT {
            return Err(ServeError::StillServing { target, waited: END_WAIT });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Where the mount really is that `dir` means: itself, or what it is a symlink to.
fn mounted_target(dir: &Path) -> Result<PathBuf, ServeError> {
    let is_ours = |path: &Path| -> Result<bool, ServeError> {
        let kind = mount_table::filesystem_at(path).map_err(system("read /proc/self/mountinfo"))?;
        Ok(kind.as_deref() == Some("fuse.layerfs"))
    };
    let target = without_touching(dir).map_err(system("find the mount point"))?;
    if is_ours(&target)? {
        return Ok(target);
    }
    match target.read_link().and_then(|link| without_touching(&target.with_file_name(link))) {
        Ok(linked) if is_ours(&linked)? => Ok(linked),
        _ => Err(ServeError::NotMounted(target)),
    }
}

/// The container that is mounted there, and the process that serves it.
fn mounted_at(containers: &Containers, target: &Path) -> Result<Option<(Container, ProcessId)>, ServeError> {
    let all = containers.list_with_status()?;
    Ok(all.into_iter().find_map(|(container, status)| match status.state {
        State::Mounted { mountpoint, server, .. } if mountpoint == target => Some((container, server)),
        _ => None,
    }))
}

/// The real path of a mount point whose server may be dead: only its parent is looked at.
fn without_touching(dir: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(dir)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(absolute),
    }
}
