//! The connection to the kernel, served by a few threads.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{BackingId, Config, INodeNo, Notifier, Session, SessionACL};
use rustix::fs::MemfdFlags;

use super::mounted::Adapter;
use super::opened::without_fsetid;
use super::policy::{Readers, Writes};
use crate::fs::Fs;
use crate::layer::ReadMeter;
use crate::model::Ino;

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
    /// `writeback`, as fuse-overlayfs(1) calls it: see [`Writes::Back`].
    Writeback,
    /// `passthrough`: see [`Writes::PassedThrough`]. Of this one and `writeback` the last one counts.
    Passthrough,
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

impl Server {
    /// Shakes hands with the kernel through the descriptor of `/dev/fuse` that something has been mounted with: the mount is
    /// usable afterwards, once [`Self::run`] is called. Who may use it is the kernel's affair. `reads` tells what is read of
    /// the layers.
    ///
    /// # Errors
    /// What the handshake says.
    pub fn attach(
        fs: Arc<Fs>,
        reads: ReadMeter,
        (writes, readers): (Writes, Readers),
        device: OwnedFd,
    ) -> io::Result<Self> {
        let notifier = Arc::new(OnceLock::new());
        let adapter = Adapter::new(Arc::clone(&fs), Arc::clone(&notifier), reads, (writes, readers));
        let mut config = Config::default();
        config.n_threads = Some(readers.count());
        let session = Session::from_fd(adapter, device, SessionACL::All, config)?;
        if writes == Writes::PassedThrough {
            may_register(&session)?;
        }
        let kernel = notifier.get_or_init(|| session.notifier()).clone();
        fs.tell_of_modes(Box::new(move |ino| forget_attributes(&kernel, ino)));
        Ok(Self { session, fs })
    }

    /// Answers requests until the mount is gone. `beside` is done as soon as a thread is to spare: those that answer come first.
    ///
    /// # Errors
    /// When the connection breaks in any other way.
    pub fn run(self, beside: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let Self { session, fs } = self;
        let settling = Arc::clone(&fs);
        let (end, ended) = mpsc::channel::<()>();
        let settler = std::thread::Builder::new().name("settle".to_owned()).spawn(move || {
            beside();
            // Each failure was logged, and the program's fsync will be told.
            settling.settle(SETTLE_AFTER).ok();
            while ended.recv_timeout(SETTLE_AFTER) == Err(RecvTimeoutError::Timeout) {
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

/// Has the kernel ask for the attributes of an object when it needs them next; what it has of the content it keeps.
fn forget_attributes(kernel: &Notifier, ino: Ino) {
    if let Err(error) = kernel.inval_inode(INodeNo(ino.0), -1, 0) {
        tracing::debug!("inode {}: attributes not dropped: {error}", ino.0);
    }
}

/// Whether the kernel takes files from us to read and write them itself, told before the first one is opened. What is
/// registered for that goes with the session.
fn may_register(session: &Session<Adapter>) -> io::Result<()> {
    let probe = rustix::fs::memfd_create("layerfs-probe", MemfdFlags::CLOEXEC)?;
    without_fsetid(|| BackingId::create_raw(session, &probe)).map(drop).map_err(|error| {
        let why = if error.kind() == io::ErrorKind::PermissionDenied {
            ": that takes CAP_SYS_ADMIN outside of all user namespaces; writeback is for everybody"
        } else {
            ""
        };
        io::Error::new(error.kind(), format!("passthrough: {error}{why}"))
    })
}
