//! Removing containers from everybody's sight, and what interrupted removals and creations have left.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Containers, Held, NEW_PREFIX};
use crate::container::{Config, Container, ContainerError, ContainerId, UsedVolume, documents, tree};
use crate::sys::atomic::TEMP_PREFIX;
use crate::sys::lock::FileLock;

/// What a container's directory is called while it is being removed: no id, so nobody finds it any more.
const REMOVING_PREFIX: &str = ".removing-";
/// The same of one whose own volumes go with it.
const REMOVING_WITH_VOLUMES_PREFIX: &str = ".removing-volumes-";
/// A creation that has not got so far after this time was interrupted: it takes milliseconds.
pub(super) const CREATION_MAX: Duration = Duration::from_secs(60);

/// Who reads thousands of documents first, with the lowest priority on a slow disk, may take longer.
const WRITING_MAX: Duration = Duration::from_secs(3600);

/// What becomes of the volumes that a container alone has and that nobody has named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnVolumes {
    /// They stay.
    Stay,
    /// They go with it.
    Go,
}

/// A container that nobody finds any more and whose files are still there.
#[derive(Debug)]
pub struct Removal {
    path: PathBuf,
    volumes: Vec<UsedVolume>,
    _lock: Option<FileLock>,
}

/// The entries of the directory of all containers.
#[derive(Debug, Default)]
pub(in crate::container) struct Seen {
    /// Containers of which nothing is to be taken up by others.
    pub(in crate::container) at_rest: HashSet<ContainerId>,
    /// All the rest.
    pub(in crate::container) restless: Vec<String>,
}

impl Removal {
    /// Of a directory that has no lock.
    pub(in crate::container) fn unlocked(path: PathBuf) -> Self {
        Self { path, volumes: Vec::new(), _lock: None }
    }

    /// Of one that somebody has begun and not finished; volumes that go with it do so before what says which they are.
    fn begun(path: PathBuf, lock: FileLock) -> Result<Self, ContainerError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let volumes = match documents::config(&path) {
            _ if !name.starts_with(REMOVING_WITH_VOLUMES_PREFIX) => Vec::new(),
            Ok(config) => config.map(volumes_of).unwrap_or_default(),
            // It was being deleted.
            Err(ContainerError::Document { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, volumes, _lock: Some(lock) })
    }

    /// The volumes that may go with it.
    #[must_use]
    pub fn volumes(&self) -> &[UsedVolume] {
        &self.volumes
    }

    /// The directory that is left.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the files. Those of other ids need the user namespace that maps them around this call.
    ///
    /// # Errors
    /// With the path that could not be removed; it can be called again.
    pub fn delete(&self) -> Result<(), ContainerError> {
        tree::remove(&self.path)
    }
}

impl Containers {
    /// What there still is of a container that somebody else is removing; several may do that at the same time.
    #[must_use]
    pub(in crate::container) fn removal_of(&self, container: &Container, own: OwnVolumes) -> Removal {
        let volumes = if own == OwnVolumes::Go { volumes_of(container.config.clone()) } else { Vec::new() };
        Removal { path: self.removing(container.id(), own), volumes, _lock: None }
    }

    fn removing(&self, id: ContainerId, own: OwnVolumes) -> PathBuf {
        let prefix = match own {
            OwnVolumes::Stay => REMOVING_PREFIX,
            OwnVolumes::Go => REMOVING_WITH_VOLUMES_PREFIX,
        };
        self.dir.join(format!("{prefix}{id}"))
    }

    /// What removals and creations that were interrupted left behind.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn leftovers(&self) -> Result<Vec<Removal>, ContainerError> {
        self.leftovers_among(&self.look_through()?.restless)
    }

    /// What one look at each of them says.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(in crate::container) fn look_through(&self) -> Result<Seen, ContainerError> {
        let failed = |error| ContainerError::io("list", &self.dir)(error);
        let dir = File::open(&self.dir).map_err(failed)?;
        let mut seen = Seen::default();
        for name in self.entries()? {
            match ContainerId::parse(&name) {
                Some(id) if documents::is_at_rest(&dir, &name).map_err(failed)? => {
                    _ = seen.at_rest.insert(id)
                }
                _ => seen.restless.push(name),
            }
        }
        Ok(seen)
    }

    /// Those of [`Self::leftovers`] that are among these entries.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(in crate::container) fn leftovers_among(
        &self,
        names: &[String],
    ) -> Result<Vec<Removal>, ContainerError> {
        let mut found = Vec::new();
        for name in names {
            let path = self.dir.join(name);
            let unfinished = ContainerId::parse(name).is_some() && !documents::has_config(&path)?;
            let stuck = name.starts_with(NEW_PREFIX) && is_old(&path)?;
            if !unfinished && !stuck && !name.starts_with(REMOVING_PREFIX) {
                continue;
            }
            // Somebody who creates or removes it at this moment holds the lock.
            let lock_path = path.join("lock");
            match FileLock::try_exclusive(&lock_path) {
                // Who made it had the lock until now, and may have come to its end.
                Ok(Some(_)) if unfinished && documents::has_config(&path)? => {}
                Ok(Some(lock)) => found.push(Removal::begun(path, lock)?),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(ContainerError::io("lock", &lock_path)(error)),
            }
        }
        Ok(found)
    }

    /// Removes what somebody was killed in the middle of writing beside the containers.
    ///
    /// # Errors
    /// What the system says.
    pub(in crate::container) fn forget_unpublished(&self, names: &[String]) -> Result<(), ContainerError> {
        for name in names.iter().filter(|name| name.starts_with(TEMP_PREFIX)) {
            let path = self.dir.join(name);
            if is_older(&path, WRITING_MAX)?
                && let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(ContainerError::io("remove", &path)(error));
            }
        }
        Ok(())
    }

    /// Removes the names that lead to no container: what was killed between the two has left them. Of those that are
    /// `at_rest` only such as have several.
    ///
    /// # Errors
    /// What the system says.
    pub(in crate::container) fn forget_names(
        &self,
        at_rest: &HashSet<ContainerId>,
    ) -> Result<(), ContainerError> {
        self.names.sweep(at_rest)
    }
}

impl Held {
    /// Takes it from everybody's sight; for who holds it already (`--rm`).
    ///
    /// # Errors
    /// What the system says.
    pub fn detach(self, containers: &Containers, own: OwnVolumes) -> Result<Removal, ContainerError> {
        let Self { container, lock } = self;
        let path = containers.removing(container.id(), own);
        containers.names.release_with(&container.dir, (&container.config.name, container.id()), || {
            std::fs::rename(&container.dir, &path).map_err(ContainerError::io("remove", &container.dir))
        })?;
        let volumes = match own {
            OwnVolumes::Stay => Vec::new(),
            OwnVolumes::Go => volumes_of(container.config),
        };
        Ok(Removal { path, volumes, _lock: Some(lock) })
    }
}

fn volumes_of(config: Config) -> Vec<UsedVolume> {
    config.run.map(|wishes| wishes.volumes).unwrap_or_default()
}

fn is_old(path: &Path) -> Result<bool, ContainerError> {
    is_older(path, CREATION_MAX)
}

fn is_older(path: &Path, age: Duration) -> Result<bool, ContainerError> {
    match std::fs::metadata(path).and_then(|metadata| metadata.modified()) {
        // A clock that went back makes it young, which keeps it.
        Ok(modified) => Ok(SystemTime::now().duration_since(modified).unwrap_or_default() > age),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(ContainerError::io("read", path)(error)),
    }
}
