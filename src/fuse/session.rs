//! The connection to the kernel: mounted here or elsewhere, served by a few threads.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{Config, MountOption, Session, SessionACL};

use super::adapter::Adapter;
use crate::fs::Fs;

/// How the mount comes about.
#[derive(Debug)]
pub enum Attach {
    /// Somebody has mounted it; this is the descriptor of `/dev/fuse`.
    Mounted(OwnedFd),
    /// Through the setuid helper `fusermount3`, for an ordinary user.
    Fusermount {
        /// Where.
        target: PathBuf,
        /// What mount(8) shows as the source.
        source: String,
        /// For other users too; `/etc/fuse.conf` must say `user_allow_other`.
        allow_other: bool,
        /// Further flags.
        flags: Vec<Flag>,
    },
}

/// A flag of the mount, as mount(8) calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// `ro`
    ReadOnly,
    /// `noexec`
    NoExec,
    /// `suid`
    Suid,
    /// `dev`
    Dev,
    /// `noatime`
    NoAtime,
    /// `nodiratime`
    NoDirAtime,
}

/// How long what was written to a file that shares content with a layer may stay unflushed: as ext4's `commit` option
/// (ext4(5)).
const SETTLE_AFTER: Duration = Duration::from_secs(5);

/// A mount that answers.
#[derive(Debug)]
pub struct Server {
    session: Session<Adapter>,
    fs: Arc<Fs>,
}

/// Threads that read requests. Many more than can run: they wait for disks (fsync, copy-up, a layer's first read), and
/// while all of them do nobody else is served. An idle one costs a few pages and nothing else.
const THREADS: usize = 16;

impl Server {
    /// Mounts if that is still to be done, and shakes hands with the kernel: the mount is usable afterwards, once
    /// [`Self::run`] is called.
    ///
    /// # Errors
    /// What mount(2), `fusermount3` or the handshake say.
    pub fn attach(fs: Arc<Fs>, attach: Attach) -> io::Result<Self> {
        let notifier = Arc::new(OnceLock::new());
        let adapter = Adapter::new(Arc::clone(&fs), Arc::clone(&notifier));
        let mut config = Config::default();
        config.n_threads = Some(THREADS);
        let session = match attach {
            Attach::Mounted(fd) => Session::from_fd(adapter, fd, SessionACL::All, config)?,
            Attach::Fusermount { target, source, allow_other, flags } => {
                config.acl = if allow_other { SessionACL::All } else { SessionACL::Owner };
                config.mount_options = mount_options(&source, &flags);
                mount_helper(adapter, &target, &config)?
            }
        };
        notifier.get_or_init(|| session.notifier());
        Ok(Self { session, fs })
    }

    /// Answers requests until the mount is gone.
    ///
    /// # Errors
    /// When the connection breaks in any other way.
    pub fn run(self) -> io::Result<()> {
        let Self { session, fs } = self;
        let settling = Arc::clone(&fs);
        let (end, ended) = mpsc::channel::<()>();
        let settler = std::thread::Builder::new().name("settle".to_owned()).spawn(move || {
            while ended.recv_timeout(SETTLE_AFTER) == Err(RecvTimeoutError::Timeout) {
                // Each failure was logged, and the program's fsync will be told.
                settling.settle(SETTLE_AFTER).ok();
                settling.release_memory();
            }
        })?;
        let result = session.run();
        drop(end);
        let settled = settler.join().map_err(|_| io::Error::other("a thread of the server died"));
        let flushed = fs.settle(Duration::ZERO).map_err(io::Error::other);
        result.and(settled).and(flushed)
    }
}

fn mount_helper(adapter: Adapter, target: &Path, config: &Config) -> io::Result<Session<Adapter>> {
    Session::new(adapter, target, config).map_err(|error| match error.kind() {
        io::ErrorKind::Other => io::Error::other(format!("fusermount3: {}", error.to_string().trim())),
        _ => error,
    })
}

fn mount_options(source: &str, flags: &[Flag]) -> Vec<MountOption> {
    // A comma would begin another option.
    let source = if source.contains([',', '\\']) { "layerfs" } else { source };
    let fixed = [
        MountOption::FSName(source.to_owned()),
        MountOption::Subtype("layerfs".to_owned()),
        MountOption::DefaultPermissions,
    ];
    let flags = flags.iter().filter_map(|flag| match flag {
        Flag::ReadOnly => Some(MountOption::RO),
        Flag::NoExec => Some(MountOption::NoExec),
        Flag::Suid => Some(MountOption::Suid),
        Flag::Dev => Some(MountOption::Dev),
        Flag::NoAtime => Some(MountOption::NoAtime),
        // The helper refuses it. The server does as it says; the kernel would only show it.
        Flag::NoDirAtime => None,
    });
    fixed.into_iter().chain(flags).collect()
}
