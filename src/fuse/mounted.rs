//! What the requests of one mount are answered with.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fuser::{BackingId, Errno, FileAttr, FileType, INodeNo, Notifier, ReplyXattr, Request};

use super::convert::{caller, file_attr, ino, mode_bits, name};
use super::opened::{How, Opened};
use super::policy::{FOR_EVER, Readers, Writes};
use super::requests::{Asked, Kind, RequestCounts};
use crate::fs::{Attr, Caller, Fs, FsError, Heard, New};
use crate::layer::ReadMeter;
use crate::model::FileKind;
use crate::model::stats::{ServerStats, Stats};
use crate::sys::usage;
use crate::upper::What;

/// Answers the kernel's requests for one mount.
#[derive(Debug)]
pub(super) struct Adapter {
    pub(super) fs: Arc<Fs>,
    /// Set once there is a session.
    notifier: Arc<OnceLock<Notifier>>,
    pub(super) requests: RequestCounts,
    pub(super) writes: Writes,
    readers: Readers,
    /// Of [`Writes::PassedThrough`].
    pub(super) opened: Option<Opened>,
    reads: ReadMeter,
    began: Instant,
    /// The user who mounted it.
    owner: u32,
}

impl Adapter {
    pub(super) fn new(
        fs: Arc<Fs>,
        notifier: Arc<OnceLock<Notifier>>,
        reads: ReadMeter,
        (writes, readers): (Writes, Readers),
    ) -> Self {
        let owner = rustix::process::geteuid().as_raw();
        let opened = (writes == Writes::PassedThrough).then(|| Opened::of(readers.count()));
        let (requests, began) = (RequestCounts::default(), Instant::now());
        Self { fs, notifier, requests, writes, readers, opened, reads, began, owner }
    }

    pub(super) fn begin(&self, kind: Kind) -> Asked<'_> {
        self.requests.begin(kind)
    }

    /// Before a reader is told that there are no more names: the kernel forgets what was put together from several
    /// states of the directory, because it would go on giving it to readers who began after the last change.
    pub(super) fn at_end(&self, number: INodeNo, heard: Heard) {
        if let (Heard::End { mixed: true }, Some(notifier)) = (heard, self.notifier.get())
            && let Err(error) = notifier.inval_inode(number, 0, 0)
        {
            tracing::debug!("inode {}: listing not dropped: {error}", number.0);
        }
    }

    /// How long the kernel may believe an object's attributes.
    pub(super) fn valid_for(&self, attr: &Attr) -> Duration {
        match &self.opened {
            Some(opened) if attr.metadata.kind == FileKind::Regular => opened.valid_for(attr.ino),
            _ => FOR_EVER,
        }
    }

    /// What stat(2) shows of an object.
    pub(super) fn shown(&self, attr: &Attr) -> FileAttr {
        let shown = file_attr(attr);
        // Data that the kernel keeps has no blocks here yet, and who sees a file without any takes it for a hole (tar -S).
        let may_be_kept = self.writes == Writes::Back && shown.kind == FileType::RegularFile;
        FileAttr { blocks: shown.blocks.max(may_be_kept.into()), ..shown }
    }

    pub(super) fn create(
        &self,
        request: &Request,
        at: (INodeNo, &OsStr),
        what: What<'_>,
        modes: (u32, u32),
    ) -> Result<Attr, FsError> {
        let (mode, umask) = (mode_bits(modes.0), mode_bits(modes.1));
        self.fs.create(ino(at.0), name(at.1)?, &New { what, mode, umask, caller: caller(request) })
    }

    /// A new regular file that is open; `register` hands it to the kernel.
    pub(super) fn create_open(
        &self,
        request: &Request,
        at: (INodeNo, &OsStr),
        modes: (u32, u32),
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Result<(Attr, How), FsError> {
        let attr = self.create(request, at, What::File, modes)?;
        let how = self.opened.as_ref().map(|opened| opened.open(&self.fs, attr.ino, register));
        Ok((attr, how.unwrap_or(How::Asked { keeps: true })))
    }

    /// The counters of the mount, for whoever mounted it and for root: they tell what others do in it.
    pub(super) fn told_to(&self, caller: &Caller) -> Result<Vec<u8>, Errno> {
        if caller.uid != 0 && caller.uid != self.owner {
            return Err(Errno::EACCES);
        }
        let usage = usage::of_this_process();
        let server = ServerStats {
            uptime_ns: u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX),
            user_ns: usage.user_ns,
            system_ns: usage.system_ns,
            resident_bytes: usage.resident_bytes,
            threads: self.readers.count() as u64,
        };
        let (requests, traffic) = (self.requests.stats(), self.requests.traffic());
        let stats = Stats::new(server, requests, traffic, self.fs.stats(), self.reads.stats());
        stats.encode().map_err(|error| {
            tracing::error!("statistics: {error}");
            Errno::EIO
        })
    }
}

/// An attribute's answer: its length when asked with size 0, else its bytes if they fit (getxattr(2)).
pub(super) fn sized(reply: ReplyXattr, size: u32, bytes: &[u8]) {
    match u32::try_from(bytes.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(bytes),
        _ => reply.error(Errno::ERANGE),
    }
}
