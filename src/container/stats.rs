//! The counters of a container's mount, wherever it is mounted.

use std::path::PathBuf;

use super::{Container, ContainerError, State};
use crate::model::stats::Stats;
use crate::mount::AskError;

/// Why a container has no counters to tell.
#[derive(Debug, thiserror::Error)]
pub enum NoStats {
    /// Nothing counts for it now.
    #[error("container {id} is neither mounted nor running")]
    Idle {
        /// Which, shortened.
        id: String,
    },
    /// Its directory.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its mount.
    #[error(transparent)]
    Ask(#[from] AskError),
}

impl Container {
    /// The counters of its mount.
    ///
    /// # Errors
    /// [`NoStats`]
    pub fn stats(&self) -> Result<Stats, NoStats> {
        let status = self.status()?;
        let path = match status.state {
            State::Mounted { mountpoint, .. } if status.held => mountpoint,
            // What it runs on is mounted only in its own namespace.
            State::Running { process, .. } if status.held => {
                PathBuf::from(format!("/proc/{}/root", process.pid))
            }
            _ => return Err(NoStats::Idle { id: self.id().short() }),
        };
        Ok(Stats::of_mount(&path)?)
    }
}
