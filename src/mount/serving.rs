//! A mount and the process that serves it: attached and, without a container, started.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::mount::MsFlags;

use super::own::OwnMount;
use super::{Layers, MountError, MountServer, OpenCaches, UpperDirs, serve};
use crate::fs::{Fs, OwnerView};
use crate::fuse::{Flag, Readers, Writes};
use crate::sys::{daemon, fuse_mount};

/// Where and how something is mounted.
#[derive(Clone, Debug)]
pub struct Place {
    /// The mount point, as [`super::mount_point`] gave it.
    pub target: PathBuf,
    /// What mount(8) shows as the source.
    pub source: String,
    /// For other users too; root's mounts always are.
    pub allow_other: bool,
    /// Further flags.
    pub flags: Vec<Flag>,
}

/// A mount of its own, without a container.
#[derive(Clone, Debug)]
pub struct Standalone {
    /// Where.
    pub place: Place,
    /// Where changes go; `None` refuses them.
    pub upper: Option<UpperDirs>,
    /// As whom objects are shown.
    pub owners: OwnerView,
    /// Where a server in the background writes its log.
    pub log: PathBuf,
}

impl Place {
    /// Mounts and shakes hands; [`MountServer::run`] answers.
    ///
    /// # Errors
    /// What open(2) of `/dev/fuse`, mount(2), `fusermount3` or the handshake say; then nothing is mounted.
    pub fn serve(&self, fs: Fs, caches: OpenCaches) -> io::Result<(MountServer, OwnMount)> {
        // The kernel leaves it to the server to keep times of access (mount(8)).
        let has = |flag| self.flags.contains(&flag);
        let fs = match (has(Flag::NoAtime) || has(Flag::ReadOnly), has(Flag::NoDirAtime)) {
            (true, _) => fs.without_access_times(),
            (false, true) => fs.without_access_times_of_dirs(),
            (false, false) => fs,
        };
        let device = self.attach()?;
        let own = OwnMount::at(&self.target).inspect_err(|_| self.leave())?;
        let server =
            serve(fs, caches, (self.writes(), Readers::OfMount), device).inspect_err(|_| own.leave())?;
        Ok((server, own))
    }

    fn writes(&self) -> Writes {
        let asked = self.flags.iter().rev().find_map(|flag| match flag {
            Flag::Writeback => Some(Writes::Back),
            Flag::Passthrough => Some(Writes::PassedThrough),
            _ => None,
        });
        // Nothing is written there, and what the kernel reads itself would get times of access.
        asked.filter(|_| !self.flags.contains(&Flag::ReadOnly)).unwrap_or_default()
    }

    /// Takes away what has just been mounted, which cannot be told from others.
    fn leave(&self) {
        if let Err(error) = fuse_mount::unmount_lazily(&self.target) {
            tracing::warn!("unmount {}: {error}", self.target.display());
        }
    }

    /// Mounts, and returns the descriptor of `/dev/fuse`.
    fn attach(&self) -> io::Result<OwnedFd> {
        // The helper would not say with what to do.
        fuse_mount::check_device()?;
        if !rustix::process::geteuid().is_root() {
            return fuse_mount::mount_by_helper(&self.target, &self.helper_options());
        }
        let mut flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        for flag in &self.flags {
            match flag {
                Flag::ReadOnly => flags |= MsFlags::MS_RDONLY,
                Flag::NoExec => flags |= MsFlags::MS_NOEXEC,
                Flag::Suid => flags &= !MsFlags::MS_NOSUID,
                Flag::Dev => flags &= !MsFlags::MS_NODEV,
                Flag::NoAtime => flags |= MsFlags::MS_NOATIME,
                Flag::NoDirAtime => flags |= MsFlags::MS_NODIRATIME,
                // Told in the handshake.
                Flag::Writeback | Flag::Passthrough => {}
            }
        }
        fuse_mount::mount(&self.target, &self.source, flags)
    }

    /// fusermount3(1)
    fn helper_options(&self) -> String {
        // A comma would begin another option.
        let source = if self.source.contains([',', '\\']) { "layerfs" } else { &self.source };
        let mut options = format!("fsname={source},subtype=layerfs,default_permissions");
        if self.allow_other {
            options.push_str(",allow_other");
        }
        for flag in &self.flags {
            options.push_str(match flag {
                Flag::ReadOnly => ",ro",
                Flag::NoExec => ",noexec",
                Flag::Suid => ",suid",
                Flag::Dev => ",dev",
                Flag::NoAtime => ",noatime",
                // The helper refuses it. The server does as it says; the kernel would only show it.
                Flag::NoDirAtime => "",
                // Told in the handshake.
                Flag::Writeback | Flag::Passthrough => "",
            });
        }
        options
    }
}

impl Standalone {
    /// Mounts in a server process of its own, and returns when the mount is usable.
    ///
    /// # Errors
    /// [`MountError`]; then nothing is mounted.
    pub fn in_background(&self, layers: Layers) -> Result<(), MountError> {
        match daemon::fork().map_err(system("fork"))? {
            daemon::Forked::Parent(server) => server.wait().map(drop).map_err(MountError::Server),
            daemon::Forked::Child(notifier) => std::process::exit(self.serve_forked(layers, notifier)),
        }
    }

    /// Mounts and serves until the unmount.
    ///
    /// # Errors
    /// [`MountError`]
    pub fn in_foreground(&self, layers: Layers) -> Result<(), MountError> {
        self.start(layers)?.0.run().map_err(system("serve"))
    }

    /// The server's process, from the fork to its exit code.
    fn serve_forked(&self, layers: Layers, notifier: daemon::Notifier) -> i32 {
        let detached = self.start(layers).and_then(|(server, own)| match daemon::detach(&self.log) {
            Ok(()) => Ok(server),
            Err(error) => {
                own.abandon(server);
                Err(system("detach")(error))
            }
        });
        let server = match detached {
            Ok(server) => server,
            Err(error) => return i32::from(notifier.failed(&error.to_string()).is_err()) + 1,
        };
        if let Err(error) = notifier.ready() {
            tracing::warn!("who asked for this mount is gone: {error}");
        }
        match server.run() {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!("serve: {error}");
                1
            }
        }
    }

    /// Everything up to a mount that answers.
    fn start(&self, layers: Layers) -> Result<(MountServer, OwnMount), MountError> {
        daemon::prepare().map_err(system("setrlimit"))?;
        daemon::block_end_signals().map_err(system("block signals"))?;
        let mount = format!("mount on {}", self.place.target.display());
        let caches = layers.caches();
        let fs = layers.into_fs(self.upper.as_ref(), self.owners.clone())?;
        let (server, own) = self.place.serve(fs, caches).map_err(system(&mount))?;
        match own.clone().unmount_by_signal() {
            Ok(()) => Ok((server, own)),
            Err(error) => {
                own.abandon(server);
                Err(system("start a thread")(error))
            }
        }
    }
}

fn system(operation: &str) -> impl FnOnce(io::Error) -> MountError + '_ {
    move |source| MountError::System { operation: operation.to_owned(), source }
}
