//! Volumes: directories of the store that outlive the containers that use them.
//!
//! ```text
//! <root>/volumes/<name>/   volume.json (never changed), _data/
//! <root>/volumes/.lock     held shared by who is about to use volumes, and alone by who removes one
//! ```

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::id::is_name;
use super::{ContainerError, ContainerId, Containers, Moment, Removal};
use crate::launcher::{IdMaps, Volume};
use crate::sys::atomic;
use crate::sys::lock::FileLock;

const DOCUMENT: &str = "volume.json";
const DATA: &str = "_data";
/// What a volume's directory is called before it is one, and after.
const HIDDEN_PREFIX: char = '.';
const NEW_PREFIX: &str = ".new-";
const REMOVING_PREFIX: &str = ".removing-";

/// Where what is mounted comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A path of the host.
    Path,
    /// A volume by this name.
    Named(String),
    /// A volume that the container alone uses, and that may go with it.
    Anonymous,
}

impl Source {
    /// A volume's, if that is a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        is_name(name).then(|| Self::Named(name.to_owned()))
    }
}

/// What a container has mounted: a volume of the store has its path from [`Volumes::resolve`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedVolume {
    /// What was asked for.
    pub source: Source,
    /// What is mounted where.
    pub mount: Volume,
}

impl UsedVolume {
    /// The name of the volume, if it is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.source {
            Source::Path => None,
            Source::Named(name) => Some(name),
            Source::Anonymous => self.mount.source.parent()?.file_name()?.to_str(),
        }
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Moment,
    /// Free-form.
    pub labels: BTreeMap<String, String>,
    /// It was made for one container, which gave it no name.
    pub anonymous: bool,
}

/// The directory `volumes/`.
#[derive(Clone, Debug)]
pub struct Volumes {
    dir: PathBuf,
}

impl Volumes {
    /// The volumes below `root`, the root of a store.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn open(root: &Path) -> Result<Self, ContainerError> {
        let dir = root.join("volumes");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(ContainerError::io("create", &dir))?;
        Ok(Self { dir })
    }

    /// Keeps volumes from being removed until it is dropped.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep(&self) -> Result<FileLock, ContainerError> {
        let path = self.dir.join(".lock");
        FileLock::shared(&path).map_err(ContainerError::io("lock", &path))
    }

    /// Says where the volumes are, or will be, that are to be used; those that nobody has named get a name.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn resolve(&self, used: &mut [UsedVolume]) -> Result<(), ContainerError> {
        for one in used {
            let name = match &one.source {
                Source::Path => continue,
                Source::Named(name) => name.clone(),
                Source::Anonymous => random()?.to_string(),
            };
            one.mount.source = self.data_of(&name);
        }
        Ok(())
    }

    /// Makes those of these volumes that are missing. The container that uses them is there by then: without it nobody would
    /// know of those that it alone has.
    ///
    /// # Errors
    /// What the system says.
    pub fn provide(&self, used: &[UsedVolume], _kept: &FileLock) -> Result<(), ContainerError> {
        for one in used {
            if let Some(name) = one.name() {
                self.create(name, BTreeMap::new(), one.source == Source::Anonymous)?;
            }
        }
        Ok(())
    }

    /// Makes a volume; one that is there stays as it is.
    ///
    /// # Errors
    /// [`ContainerError::Name`]; what the system says.
    pub fn create(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        anonymous: bool,
    ) -> Result<(), ContainerError> {
        if !is_name(name) {
            return Err(ContainerError::Name(name.to_owned()));
        }
        let dir = self.dir.join(name);
        if dir.join(DOCUMENT).exists() {
            return Ok(());
        }
        // Nobody sweeps away what is being made.
        let _kept = self.keep()?;
        let new = self.dir.join(format!("{NEW_PREFIX}{}", random()?));
        let record = VolumeRecord { name: name.to_owned(), created: Moment::now(), labels, anonymous };
        let text = serde_json::to_vec_pretty(&record).map_err(ContainerError::document(&new))?;
        let make = || -> io::Result<()> {
            DirBuilder::new().mode(0o700).create(&new)?;
            DirBuilder::new().mode(0o755).create(new.join(DATA))?;
            atomic::write(&new.join(DOCUMENT), &text, 0o600)?;
            std::fs::rename(&new, &dir)?;
            atomic::sync_dir(&self.dir)
        };
        let made = make();
        if made.is_err() {
            super::tree::remove(&new)?;
        }
        match made {
            // Somebody else has been faster.
            Err(_) if dir.join(DOCUMENT).exists() => Ok(()),
            made => made.map_err(ContainerError::io("create", &dir)),
        }
    }

    /// Where a volume's files are.
    #[must_use]
    pub fn data_of(&self, name: &str) -> PathBuf {
        self.dir.join(name).join(DATA)
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn list(&self) -> Result<Vec<VolumeRecord>, ContainerError> {
        let mut found = Vec::new();
        for name in self.names()?.iter().filter(|name| !name.starts_with(HIDDEN_PREFIX)) {
            found.extend(self.read(name)?);
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// The one with this name.
    ///
    /// # Errors
    /// [`ContainerError::NoVolume`]; when it cannot be read.
    pub fn find(&self, name: &str) -> Result<VolumeRecord, ContainerError> {
        let found = if is_name(name) { self.read(name)? } else { None };
        found.ok_or_else(|| ContainerError::NoVolume(name.to_owned()))
    }

    /// Removes a volume that no container uses.
    ///
    /// # Errors
    /// [`ContainerError::VolumeInUse`], [`ContainerError::NoVolume`]; what the system says.
    pub fn remove(&self, name: &str, containers: &Containers) -> Result<(), ContainerError> {
        let removal = {
            let path = self.dir.join(".lock");
            let _alone = FileLock::exclusive(&path).map_err(ContainerError::io("lock", &path))?;
            self.find(name)?;
            if let Some(users) = users(name, containers)? {
                return Err(ContainerError::VolumeInUse { name: name.to_owned(), users });
            }
            let (from, to) = (self.dir.join(name), self.dir.join(format!("{REMOVING_PREFIX}{name}")));
            std::fs::rename(&from, &to).map_err(ContainerError::io("remove", &from))?;
            Removal::unlocked(to)
        };
        super::ending::delete_files(&removal, &IdMaps::for_caller())
    }

    /// Removes those of these volumes that nobody has named and no container uses any more.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_anonymous(
        &self,
        used: &[UsedVolume],
        containers: &Containers,
    ) -> Result<(), ContainerError> {
        for used in used.iter().filter(|used| used.source == Source::Anonymous) {
            let Some(name) = used.name() else { continue };
            match self.remove(name, containers) {
                Err(ContainerError::NoVolume(_) | ContainerError::VolumeInUse { .. }) => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    /// Removes what was being made or removed by somebody who was interrupted. What cannot be removed is logged.
    ///
    /// # Errors
    /// When the volumes cannot be listed.
    pub fn sweep(&self) -> Result<(), ContainerError> {
        let names = self.names()?;
        let delete = |name: &String| {
            let removal = Removal::unlocked(self.dir.join(name));
            if let Err(error) = super::ending::delete_files(&removal, &IdMaps::for_caller()) {
                tracing::warn!("removing what is left of a volume: {error}");
            }
        };
        names.iter().filter(|name| name.starts_with(REMOVING_PREFIX)).for_each(delete);
        let mut new = names.iter().filter(|name| name.starts_with(NEW_PREFIX)).peekable();
        if new.peek().is_none() {
            return Ok(());
        }
        let path = self.dir.join(".lock");
        // Whoever makes one holds it.
        if let Some(_alone) = FileLock::try_exclusive(&path).map_err(ContainerError::io("lock", &path))? {
            new.for_each(delete);
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Option<VolumeRecord>, ContainerError> {
        let path = self.dir.join(name).join(DOCUMENT);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(ContainerError::document(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ContainerError::io("read", &path)(error)),
        }
    }

    fn names(&self) -> Result<Vec<String>, ContainerError> {
        let name =
            |entry: io::Result<std::fs::DirEntry>| entry.map(|entry| entry.file_name().into_string().ok());
        let entries = std::fs::read_dir(&self.dir)
            .and_then(|entries| entries.filter_map(|entry| name(entry).transpose()).collect());
        entries.map_err(ContainerError::io("list", &self.dir))
    }
}

fn random() -> Result<ContainerId, ContainerError> {
    ContainerId::random().map_err(ContainerError::io("read", Path::new("/dev/urandom")))
}

/// Which containers use a volume, whether they run or not.
///
/// # Errors
/// When the containers cannot be read.
pub fn users(name: &str, containers: &Containers) -> Result<Option<String>, ContainerError> {
    let uses = |used: &UsedVolume| used.name() == Some(name);
    // What cannot be read may use it.
    let all = containers.list_strictly()?;
    let users = all.iter().filter(|container| {
        container.config().run.as_ref().is_some_and(|wishes| wishes.volumes.iter().any(uses))
    });
    let names: Vec<&str> = users.map(|container| container.config().name.as_str()).collect();
    Ok((!names.is_empty()).then(|| names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life() {
        let root = tempfile::tempdir().unwrap();
        let (volumes, containers) =
            (Volumes::open(root.path()).unwrap(), Containers::open(root.path()).unwrap());
        let mount = |destination: &str| Volume::new(PathBuf::new(), destination.into());
        let mut used = [
            UsedVolume { source: Source::Named("data".into()), mount: mount("/a") },
            UsedVolume { source: Source::Anonymous, mount: mount("/b") },
        ];
        volumes.resolve(&mut used).unwrap();
        let kept = volumes.keep().unwrap();
        volumes.provide(&used, &kept).unwrap();
        drop(kept);
        assert_eq!(used[0].mount.source, volumes.data_of("data"));
        std::fs::write(volumes.data_of("data").join("file"), "x").unwrap();
        // Once more: the same, with what is in it.
        volumes.create("data", BTreeMap::new(), false).unwrap();
        assert!(volumes.data_of("data").join("file").exists());
        let anonymous = used[1].name().unwrap().to_owned();
        assert_eq!((anonymous.len(), volumes.list().unwrap().len()), (64, 2));
        volumes.remove_anonymous(&used, &containers).unwrap();
        assert!(matches!(volumes.find(&anonymous), Err(ContainerError::NoVolume(_))));
        volumes.remove("data", &containers).unwrap();
        assert!(volumes.list().unwrap().is_empty() && !volumes.data_of("data").exists());
        assert!(matches!(volumes.remove("../x", &containers), Err(ContainerError::NoVolume(_))));
        assert!(volumes.create("a/b", BTreeMap::new(), false).is_err());
    }
}
