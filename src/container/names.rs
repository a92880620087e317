//! The names of containers: links, made exclusively, so that no name is given twice.
//!
//! A link counts only as long as the container that it leads to says the same name of itself, in its config. So a rename is
//! done in the moment in which that is replaced, and what a process that was killed leaves behind is free to be taken.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::id::{is_name, random_name};
use super::{Config, ContainerError, ContainerId, documents};
use crate::sys::lock::{self, FileLock};

/// Random names that are tried; from the third on they carry one of 65536 numbers.
const NAME_ATTEMPTS_MAX: u32 = 64;

/// The directory `names/`, and `containers/`, into which it leads.
#[derive(Clone, Debug)]
pub(super) struct Names {
    dir: PathBuf,
    containers: PathBuf,
}

impl Names {
    pub(super) fn new(dir: PathBuf, containers: PathBuf) -> Self {
        Self { dir, containers }
    }

    /// Where the links are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives a container that is being made the name that is wanted, or a random one.
    pub(super) fn claim(&self, wanted: Option<&str>, id: ContainerId) -> Result<String, ContainerError> {
        for attempt in 0..NAME_ATTEMPTS_MAX {
            let name = match wanted {
                Some(name) => name.to_owned(),
                None => {
                    random_name(attempt).map_err(ContainerError::io("read", Path::new("/dev/urandom")))?
                }
            };
            let _alone = self.lock()?;
            match self.link(&name, id)? {
                None => return Ok(name),
                Some(owner) if wanted.is_some() => return Err(ContainerError::NameTaken { name, owner }),
                Some(_) => {}
            }
        }
        Err(ContainerError::NoFreeName(NAME_ATTEMPTS_MAX))
    }

    /// Takes a name back from a container that did not come about.
    pub(super) fn release(&self, name: &str, id: ContainerId) -> Result<(), ContainerError> {
        let _alone = self.lock()?;
        self.unlink(name, id)
    }

    /// Has `gone` take the container in `dir` away before anybody can rename it, and takes its name back. In this order: who is
    /// killed in between leaves a link that does not count, and never a container that nobody finds by its name.
    pub(super) fn release_with(
        &self,
        dir: &Path,
        (name, id): (&str, ContainerId),
        gone: impl FnOnce() -> Result<(), ContainerError>,
    ) -> Result<(), ContainerError> {
        let _alone = self.lock()?;
        // It may have been renamed since its holder has read it.
        let name = match documents::config(dir) {
            Ok(Some(config)) => config.name,
            Ok(None) | Err(ContainerError::Document { .. }) => name.to_owned(),
            Err(error) => return Err(error),
        };
        gone()?;
        self.unlink(&name, id)
    }

    /// Removes the links that do not count. The only one of a container that is `at_rest` does: who gives it another name has
    /// both for a while.
    pub(super) fn sweep(&self, at_rest: &HashSet<ContainerId>) -> Result<(), ContainerError> {
        let list = || -> io::Result<Vec<_>> {
            std::fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().into_string().ok())).collect()
        };
        let names = list().map_err(ContainerError::io("list", &self.dir))?.into_iter().flatten();
        let mut of_owners: HashMap<Option<ContainerId>, Vec<String>> = HashMap::new();
        for name in names.filter(|name| is_name(name)) {
            of_owners.entry(self.owner_of(&name)?).or_default().push(name);
        }
        let is_known = |owner: &Option<ContainerId>, names: &[String]| {
            names.len() == 1 && owner.is_some_and(|owner| at_rest.contains(&owner))
        };
        let doubtful = of_owners.into_iter().filter(|(owner, names)| !is_known(owner, names));
        for name in doubtful.flat_map(|(_, names)| names) {
            let _alone = self.lock()?;
            if let Some(owner) = self.owner_of(&name)?
                && !self.counts(&name, owner)?
            {
                remove_if_there(&self.dir.join(&name))?;
            }
        }
        Ok(())
    }

    /// Gives the container in `dir` another name.
    pub(super) fn rename(&self, dir: &Path, id: ContainerId, name: &str) -> Result<(), ContainerError> {
        if !is_name(name) {
            return Err(ContainerError::Name(name.to_owned()));
        }
        let _alone = self.lock()?;
        let gone = || ContainerError::NotFound(id.to_string());
        let mut config = documents::config(dir)?.ok_or_else(gone)?;
        if config.name == name {
            return Err(ContainerError::SameName(config.name));
        }
        if let Some(owner) = self.link(name, id)? {
            return Err(ContainerError::NameTaken { name: name.to_owned(), owner });
        }
        // What the config says must be found after a power cut as well.
        let flushed = File::open(&self.dir).and_then(|dir| dir.sync_all());
        flushed.map_err(ContainerError::io("flush", &self.dir))?;
        let old = std::mem::replace(&mut config.name, name.to_owned());
        if let Err(error) = documents::write_config(dir, &config) {
            // Unless it came so far that it is there.
            if documents::config(dir)?.is_none_or(|config| config.name != name) {
                self.unlink(name, id)?;
            }
            return Err(error);
        }
        self.unlink(&old, id)
    }

    /// Whom the link of that name leads to, whether it counts or not.
    pub(super) fn owner_of(&self, name: &str) -> Result<Option<ContainerId>, ContainerError> {
        let path = self.dir.join(name);
        match std::fs::read_link(&path) {
            Ok(target) => Ok(target.file_name().and_then(|id| id.to_str()).and_then(ContainerId::parse)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ContainerError::io("read", &path)(error)),
        }
    }

    /// Changes something else than the name in the config of the container in `dir`, which nobody renames meanwhile.
    pub(super) fn change_config(
        &self,
        dir: &Path,
        id: ContainerId,
        change: impl FnOnce(&mut Config),
    ) -> Result<(), ContainerError> {
        let _alone = self.lock()?;
        let gone = || ContainerError::NotFound(id.to_string());
        let mut config = documents::config(dir)?.ok_or_else(gone)?;
        change(&mut config);
        documents::write_config(dir, &config)
    }

    /// Held by who gives a name or takes it back, for that moment: what one has looked at must not be another's link when
    /// it is removed.
    pub(super) fn lock(&self) -> Result<FileLock, ContainerError> {
        let path = self.dir.join(".lock");
        FileLock::exclusive(&path).map_err(ContainerError::io("lock", &path))
    }

    /// Gives the name to `id`, or says who has it.
    fn link(&self, name: &str, id: ContainerId) -> Result<Option<ContainerId>, ContainerError> {
        let path = self.dir.join(name);
        let target = format!("../containers/{id}");
        match symlink(&target, &path) {
            Ok(()) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(ContainerError::io("create", &path)(error)),
        }
        if let Some(owner) = self.owner_of(name)? {
            if self.counts(name, owner)? {
                return Ok(Some(owner));
            }
            remove_if_there(&path)?;
        }
        match symlink(&target, &path) {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(self.owner_of(name)?.or(Some(id)))
            }
            Err(error) => Err(ContainerError::io("create", &path)(error)),
        }
    }

    /// Whether a container has the name of a link to it. Somebody may have removed it by hand, or it has another name.
    fn counts(&self, name: &str, owner: ContainerId) -> Result<bool, ContainerError> {
        let dir = self.containers.join(owner.to_string());
        match documents::config(&dir) {
            Ok(Some(config)) => Ok(config.name == name),
            Ok(None) => {
                // It is being made.
                let lock = dir.join("lock");
                lock::is_held(&lock).map_err(ContainerError::io("test the lock", &lock))
            }
            // What is damaged may say anything.
            Err(ContainerError::Document { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn unlink(&self, name: &str, id: ContainerId) -> Result<(), ContainerError> {
        if self.owner_of(name)? == Some(id) { remove_if_there(&self.dir.join(name)) } else { Ok(()) }
    }
}

fn remove_if_there(path: &Path) -> Result<(), ContainerError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ContainerError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
