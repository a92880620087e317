//! The mount of one server, told from all others that may come to be at its path.

use std::io;
use std::path::{Path, PathBuf};

use super::MountServer;
use crate::sys::mount_table::MountId;
use crate::sys::{daemon, fuse_mount};

/// A mount that this process serves.
#[derive(Clone, Debug)]
pub struct OwnMount {
    id: MountId,
    /// Where it was mounted; it may have been moved since.
    target: PathBuf,
}

impl OwnMount {
    /// What has just been mounted on `target`.
    pub(super) fn at(target: &Path) -> io::Result<Self> {
        Ok(Self { id: MountId::at(target)?, target: target.to_owned() })
    }

    /// Waits, in a thread, for the signals that end a server, and then unmounts. [`daemon::block_end_signals`] comes
    /// before. What others have mounted on top stays, and so does this mount below it, until a signal comes when they
    /// are gone.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn unmount_by_signal(self) -> io::Result<()> {
        let wait = move || {
            while let Err(error) = daemon::wait_for_end().and_then(|()| fuse_mount::unmount_only(&self.id)) {
                tracing::error!("unmount {}: {error}", self.target.display());
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
    }

    /// Takes a mount away that nobody will serve.
    pub fn abandon(&self, server: MountServer) {
        self.leave();
        drop(server);
    }

    pub(super) fn leave(&self) {
        if let Err(error) = fuse_mount::unmount_only(&self.id) {
            tracing::warn!("unmount {}: {error}", self.target.display());
        }
    }
}
