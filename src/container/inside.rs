//! Work on the files of a container, whether it runs, is mounted, or neither: done by a process of its own, whose root is the
//! container's wherever there is one to enter.

use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};

use super::rootfs::ImageRootfs;
use super::{Changes, Container, ContainerError, Held, Purpose, State};
use crate::fuse::Writes;
use crate::launcher::{self, IdMaps, Plan, UserNamespace, Work};
use crate::mount::Layers;
use crate::sys::mount_table;
use crate::sys::process::{self, Child, Fork, Watched};
use crate::upper::UpperOptions;

/// How the files of a container are reached.
#[derive(Debug)]
pub enum Inside {
    /// By joining the namespaces of a process of it, which has this number.
    Running(u32, Watched),
    /// Where it is mounted.
    Mounted(PathBuf),
    /// By mounting it meanwhile.
    Idle(Box<Idle>),
}

/// A container that nobody serves.
#[derive(Debug)]
pub struct Idle {
    /// Its directory; nobody can start it meanwhile.
    pub held: Held,
    /// Its image.
    pub layers: Layers,
}

/// A process that works inside.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    answer: PipeReader,
}

/// What a mount of ours is called (proc_pid_mountinfo(5)).
const FILESYSTEM: &str = "fuse.layerfs";
/// The first byte of what it says: it is done, and what follows is what was asked for.
const DONE: u8 = b'd';
/// What follows says why not.
const FAILED: u8 = b'f';
/// Why not; and it is only because the other side has gone.
const BROKEN_OFF: u8 = b'b';

impl Inside {
    /// A container that somebody serves; `None` when nobody does.
    ///
    /// # Errors
    /// [`ContainerError`]
    pub fn of_served(container: &Container) -> Result<Option<Self>, ContainerError> {
        let status = container.settled_status()?;
        if !status.held {
            return Ok(None);
        }
        Ok(match status.state {
            State::Running { process, .. } => {
                let failed = ContainerError::io("look at the process of", container.dir());
                process.entrance().map_err(failed)?.map(|(pid, watched)| Self::Running(pid, watched))
            }
            State::Mounted { mountpoint, .. } => Some(Self::Mounted(mountpoint)),
            State::Created | State::Restarting { .. } | State::Exited { .. } => None,
        })
    }

    /// Starts to work. What is `ours` stays with the caller and is closed there, so that each side notices the other's end.
    ///
    /// The calling process must have one thread.
    ///
    /// # Errors
    /// When there can be no such process.
    pub fn start<O>(
        self,
        ours: O,
        work: impl FnOnce(BorrowedFd<'_>) -> io::Result<Vec<u8>>,
    ) -> io::Result<(Worker, O)> {
        Worker::start(ours, |told| self.work(|root| told.tell(&work(root))))
    }

    fn work(self, work: impl FnOnce(BorrowedFd<'_>)) -> io::Result<()> {
        // Modes are those that are copied.
        rustix::process::umask(Mode::empty());
        match self {
            Self::Running(pid, watched) => {
                let root = launcher::join((pid, &watched)).map_err(io::Error::other)?;
                work(root.as_fd());
                Ok(())
            }
            Self::Mounted(mountpoint) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = rustix::fs::open(&mountpoint, flags, Mode::empty())?;
                if mount_table::filesystem_at(&mountpoint)?.as_deref() != Some(FILESYSTEM) {
                    let message = format!("{}: it is not mounted here any more", mountpoint.display());
                    return Err(io::Error::other(message));
                }
                work(root.as_fd());
                Ok(())
            }
            Self::Idle(idle) => idle.mounted(work),
        }
    }
}

impl Idle {
    fn mounted(self, work: impl FnOnce(BorrowedFd<'_>)) -> io::Result<()> {
        let Self { held, layers } = self;
        let changes = held.changes_dir().ok_or_else(|| {
            let hint = "it takes no changes: mount it, and copy from there";
            io::Error::other(format!("container {}: {hint}", held.config().name))
        })?;
        let mount_point = held.dir().join("mnt");
        std::fs::create_dir_all(&mount_point)?;
        let mut plan = Plan::new(&held.id().to_string(), mount_point, Vec::new());
        if let Some(wishes) = &held.config().run {
            if wishes.user_namespace != UserNamespace::default() && !wishes.volumes.is_empty() {
                let hint =
                    "it has ids of its own, which it alone can give to files of its volumes: start it first";
                return Err(io::Error::other(format!("container {}: {hint}", held.config().name)));
            }
            plan.volumes = wishes.volumes.iter().map(|used| used.mount.clone()).collect();
            plan.read_only = wishes.read_only;
        }
        // What `layerfs mount` keeps belongs to who mounts, all of it.
        if held.config().purpose == Purpose::Mount && plan.id_maps != IdMaps::Identity {
            plan.id_maps = IdMaps::Single { reason: "it is a mount's".to_owned() };
        }
        let volatile = held.config().remove_at_end && held.config().changes == Changes::Own;
        let upper = UpperOptions { volatile, ..UpperOptions::default() };
        let name = held.config().image.name.clone();
        // Stored are the container's ids, and here everything is seen with these.
        let rootfs = ImageRootfs::new((layers, Writes::Through), (changes.to_owned(), upper), None, name)?;
        launcher::mounted(&plan, Box::new(rootfs), Work::new(work)).map_err(io::Error::other)
    }
}

impl Worker {
    /// Starts one that does `work`, or has it done by a process of its own, and is told how it went.
    ///
    /// The calling process must have one thread.
    ///
    /// # Errors
    /// When there can be no such process.
    pub(super) fn start<O>(ours: O, work: impl FnOnce(&Told) -> io::Result<()>) -> io::Result<(Self, O)> {
        let (answer, answer_there) = io::pipe()?;
        match process::fork()? {
            Fork::Parent(child) => Ok((Self { child, answer }, ours)),
            Fork::Child => {
                drop((answer, ours));
                let told = Told(answer_there);
                if let Err(error) = work(&told) {
                    told.tell(&Err(error));
                }
                process::exit_now(0)
            }
        }
    }

    /// Waits until it is done, and gives what it was asked for.
    ///
    /// # Errors
    /// What went wrong there; of the kind `BrokenPipe` when that was only this side's end.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        let mut said = Vec::new();
        self.answer.read_to_end(&mut said)?;
        waitpid(Pid::from_raw(self.child.pid), None)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match said.split_first() {
            Some((&DONE, rest)) => Ok(rest.to_vec()),
            Some((&FAILED, rest)) => Err(io::Error::other(text(rest))),
            Some((&BROKEN_OFF, rest)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, text(rest))),
            _ => Err(io::Error::other("the process in the container was killed")),
        }
    }
}

/// Hears how the work went, once.
#[derive(Debug)]
pub(super) struct Told(io::PipeWriter);

impl Told {
    pub(super) fn tell(&self, result: &io::Result<Vec<u8>>) {
        let message = match result {
            Ok(answer) => [&[DONE], &**answer].concat(),
            Err(error) => {
                let kind = if is_of_the_other_side(error) { BROKEN_OFF } else { FAILED };
                [&[kind], error.to_string().as_bytes()].concat()
            }
        };
        let mut pipe = &self.0;
        if let Err(error) = pipe.write_all(&message) {
            tracing::debug!(%error, "nobody is left to hear what was done inside");
        }
    }
}

/// Whether an error of a stream between two processes says only that the other one has gone.
pub(super) fn is_of_the_other_side(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof)
}
