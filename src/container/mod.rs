//! Row 9: containers: an image plus a writable directory plus, perhaps, a process. Here is what is on disk; how it is
//! mounted and started is wired above.
//!
//! ```text
//! <root>/containers/<id>/   config.json (written last; a rename replaces it), state.json, lock, upper/, work/, log
//! <root>/names/<name>       link to ../containers/<id>; made exclusively, so a name is never given twice; counts if config.json agrees
//! ```
//!
//! There is no database and no lock that covers more than one container. Whoever runs or serves a container holds its
//! `lock` ([`Held`]) for as long as it lives, and only that one writes `state.json`; everybody else just looks, and never
//! waits. A state that says "running" under a lock that nobody holds is that of a supervisor that was killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub mod attaching;
pub mod background;
pub mod changes;
pub mod command_line;
pub mod completing;
mod containers;
pub mod copying;
mod devices;
mod documents;
pub mod ending;
mod error;
pub mod executing;
pub mod filter;
pub mod health;
mod id;
pub mod inside;
mod listing;
pub mod log;
pub mod moment;
pub mod mounts;
mod names;
pub mod own_ids;
pub mod pausing;
pub mod ports;
mod process;
pub mod processes;
pub mod pruning;
pub mod restarting;
mod rights;
mod rootfs;
pub mod running;
pub mod size;
pub mod spoken_time;
mod state;
mod stats;
pub mod stopping;
pub mod sweeping;
pub mod tree;
pub mod updating;
pub mod usage;
pub mod view;
pub mod volumes;
pub mod waiting;
mod wishes;

use containers::Seen;
pub use containers::{Containers, Held, NewContainer, OwnVolumes, Removal};
pub use devices::devices_at;
pub use error::ContainerError;
pub use id::ContainerId;
pub use listing::{Effort, Listed, Listing, Summary};
pub use moment::Moment;
pub use process::ProcessId;
pub use rights::{Contradiction, Rights, Unmask};
pub use state::{Changes, Config, ImageRecord, LayerRecord, Owners, Purpose, State, Status};
pub use stats::NoStats;
pub use volumes::{Source, UsedVolume, Volumes};
pub use wishes::Wishes;

use crate::mount::UpperDirs;
use crate::sys::lock;

/// What is locked by who runs, serves or removes a container.
const LOCK: &str = "lock";
/// How long one that is on its way up may take until what is written down is believed.
const START_WAIT: Duration = Duration::from_secs(10);
/// How long between two looks at it.
const START_LOOK: Duration = Duration::from_millis(2);

/// One container on disk.
#[derive(Clone, Debug)]
pub struct Container {
    config: Config,
    dir: PathBuf,
}

impl Container {
    /// What it is made of.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ContainerId {
        self.config.id
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The writable layer.
    #[must_use]
    pub fn upper_dir(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// What belongs to the writable layer but is not shown.
    #[must_use]
    pub fn work_dir(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Where its changes are kept; `None` when they are refused.
    #[must_use]
    pub fn upper_dirs(&self) -> Option<UpperDirs> {
        self.changes_dir().map(UpperDirs::below)
    }

    /// The directory that [`Self::upper_dirs`] are in.
    #[must_use]
    pub fn changes_dir(&self) -> Option<&Path> {
        match &self.config.changes {
            Changes::Own => Some(&self.dir),
            Changes::In(dir) => Some(dir),
            Changes::Refused => None,
        }
    }

    /// What it printed, and what its mount logged.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What its OCI runtime was told when it was started last; `None` without one, and before.
    #[must_use]
    pub fn oci_config_path(&self) -> Option<PathBuf> {
        Some(self.dir.join(crate::launcher::OCI_CONFIG)).filter(|path| path.exists())
    }

    /// What is true of it now. Never waits.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn status(&self) -> Result<Status, ContainerError> {
        // The lock first: who finishes writes the state, then lets go. The other way round a container that ends in
        // between would look as if it had been killed.
        let status = Status { held: self.is_held()?, state: documents::state(&self.dir)? };
        if !status.is_unclean() {
            return Ok(status);
        }
        // Unless one that began in between looks so: then it is held now, or has written that it ended.
        Ok(Status { held: self.is_held()?, state: documents::state(&self.dir)? })
    }

    /// What is true of it once it is not on its way up any more: its program may be at work a moment before that is written
    /// down. Waits for that, 10 seconds at most.
    ///
    /// # Errors
    /// When its state cannot be read.
    fn settled_status(&self) -> Result<Status, ContainerError> {
        let since = Instant::now();
        loop {
            let status = self.status()?;
            let may_start = status.held && matches!(status.state, State::Created | State::Exited { .. });
            if !may_start || since.elapsed() >= START_WAIT {
                return Ok(status);
            }
            std::thread::sleep(START_LOOK);
        }
    }

    /// How often it was run again by itself since it was started.
    #[must_use]
    pub fn restart_count(&self) -> u32 {
        restarting::count(self)
    }

    /// Whether nothing was ever written down about it: it has not run, and its making may have been interrupted.
    ///
    /// # Errors
    /// When its directory cannot be read.
    pub fn is_new(&self) -> Result<bool, ContainerError> {
        Ok(!documents::has_state(&self.dir)?)
    }

    /// Whether somebody wrote down that it is to be started another time.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub(crate) fn is_set_aside(&self) -> Result<bool, ContainerError> {
        Ok(documents::has_state(&self.dir)? && documents::state(&self.dir)? == State::Created)
    }

    fn is_held(&self) -> Result<bool, ContainerError> {
        let lock = self.lock_path();
        lock::is_held(&lock).map_err(ContainerError::io("test the lock", &lock))
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.join(LOCK)
    }
}
