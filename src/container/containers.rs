//! All containers of a store.

mod removal;

use std::fs::DirBuilder;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

pub(super) use removal::Seen;
pub use removal::{OwnVolumes, Removal};

use super::id::is_name;
use super::names::Names;
use super::wishes::Wishes;
use super::{
    Changes, Config, Container, ContainerError, ContainerId, Effort, ImageRecord, LOCK, Listed, Listing,
    Moment, Owners, Purpose, State, Status, Volumes, documents, listing, tree,
};
use crate::sys::lock::{self, FileLock};

/// What it is called until somebody holds its lock.
const NEW_PREFIX: &str = ".new-";

/// The directories `containers/` and `names/`.
#[derive(Clone, Debug)]
pub struct Containers {
    dir: PathBuf,
    names: Names,
}

/// What a container is made from.
#[derive(Clone, Debug)]
pub struct NewContainer {
    /// A name, or none to get a random one.
    pub name: Option<String>,
    /// The image below it.
    pub image: ImageRecord,
    /// What it is for.
    pub purpose: Purpose,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whose ids are shown.
    pub owners: Owners,
    /// Where changes are.
    pub changes: Changes,
    /// Goes away when it ends.
    pub remove_at_end: bool,
    /// How it is run; a mount is not.
    pub run: Option<Wishes>,
}

/// A container that belongs to this process, and to those it forks, until this is dropped.
#[derive(Debug)]
pub struct Held {
    container: Container,
    lock: FileLock,
}

impl Deref for Held {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.container
    }
}

impl Held {
    /// Writes down how far it has come.
    ///
    /// # Errors
    /// When it cannot be written; then the old state stands.
    pub fn set_state(&self, state: &State) -> Result<(), ContainerError> {
        documents::write_state(&self.container.dir, &self.container.config, state)
    }

    /// Tells those who wait for its end how it ended, when nothing else of it will be left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn leave_exit_code(&self, code: u8) -> Result<(), ContainerError> {
        let left = self.lock.leave_word(&code.to_string());
        left.map_err(ContainerError::io("write", self.lock.path()))
    }
}

impl Containers {
    /// The containers below `root`, the root of a store.
    ///
    /// # Errors
    /// When the directories cannot be created.
    pub fn open(root: &Path) -> Result<Self, ContainerError> {
        let dir = root.join("containers");
        let names = Names::new(root.join("names"), dir.clone());
        for dir in [&dir, names.dir()] {
            create_dir(dir, 0o700)?;
        }
        Ok(Self { dir, names })
    }

    /// The volumes of the same store.
    ///
    /// # Errors
    /// When their directory cannot be created.
    pub fn volumes(&self) -> Result<Volumes, ContainerError> {
        Volumes::open(self.dir.parent().unwrap_or(&self.dir))
    }

    /// Makes one. Nobody sees it before it is complete; it belongs to the caller.
    ///
    /// # Errors
    /// [`ContainerError::NameTaken`], [`ContainerError::Name`], or what the system says; then nothing is left.
    pub fn create(&self, new: NewContainer) -> Result<Held, ContainerError> {
        if let Some(name) = new.name.as_deref().filter(|name| !is_name(name)) {
            return Err(ContainerError::Name(name.to_owned()));
        }
        let id = ContainerId::random().map_err(ContainerError::io("read", Path::new("/dev/urandom")))?;
        let lock = self.make_dir(id)?;
        let dir = self.dir.join(id.to_string());
        match self.fill(&dir, id, new) {
            Ok(config) => Ok(Held { container: Container { config, dir }, lock }),
            Err(error) => {
                discard(&dir);
                Err(error)
            }
        }
    }

    /// The directory without its config: no container yet, and nobody's leftover, because its lock is held.
    fn make_dir(&self, id: ContainerId) -> Result<FileLock, ContainerError> {
        let new = self.dir.join(format!("{NEW_PREFIX}{id}"));
        DirBuilder::new().mode(0o700).create(&new).map_err(ContainerError::io("create", &new))?;
        let make = || {
            let lock_path = new.join("lock");
            let lock = FileLock::exclusive(&lock_path).map_err(ContainerError::io("lock", &lock_path))?;
            for part in ["upper", "work"] {
                create_dir(&new.join(part), 0o755)?;
            }
            let dir = self.dir.join(id.to_string());
            std::fs::rename(&new, &dir).map_err(ContainerError::io("create", &dir))?;
            Ok(lock)
        };
        make().inspect_err(|_| discard(&new))
    }

    fn fill(&self, dir: &Path, id: ContainerId, new: NewContainer) -> Result<Config, ContainerError> {
        let name = self.names.claim(new.name.as_deref(), id)?;
        let NewContainer { image, purpose, command, owners, changes, remove_at_end, run, .. } = new;
        let created = Moment::now();
        let config =
            Config { id, name, created, image, purpose, command, owners, changes, remove_at_end, run };
        if let Err(error) = documents::write_config(dir, &config) {
            self.names.release(&config.name, id)?;
            return Err(error);
        }
        Ok(config)
    }

    /// All of them, the youngest first. What is just being made or removed is not among them.
    ///
    /// # Errors
    /// When the directory or a config cannot be read.
    pub fn list(&self) -> Result<Vec<Container>, ContainerError> {
        let mut found = Vec::new();
        for id in self.ids()? {
            match self.load(id) {
                Ok(container) => found.extend(container),
                // One damaged container must not hide all the others.
                Err(error @ ContainerError::Document { .. }) => {
                    tracing::warn!("container {}: {error}", id.short())
                }
                Err(error) => return Err(error),
            }
        }
        found.sort_by_key(|container| std::cmp::Reverse((container.config.created, container.config.id)));
        Ok(found)
    }

    /// The images that containers are made of. A container that is damaged may need any.
    ///
    /// # Errors
    /// When the directory or a config cannot be read.
    pub fn images_in_use(&self) -> Result<Vec<(ContainerId, ImageRecord)>, ContainerError> {
        let mut found = Vec::new();
        for id in self.ids()? {
            found.extend(self.load(id)?.map(|container| (id, container.config.image)));
        }
        Ok(found)
    }

    /// What lists say of them, the youngest first. What is just being made or removed is not among them.
    ///
    /// # Errors
    /// When the directory or a document cannot be read.
    pub fn listed(&self, listing: Listing) -> Result<Vec<Listed>, ContainerError> {
        self.listed_with_effort(listing).map(|(found, _)| found)
    }

    /// The same, and what it took.
    ///
    /// # Errors
    /// As [`Self::listed`].
    pub fn listed_with_effort(&self, listing: Listing) -> Result<(Vec<Listed>, Effort), ContainerError> {
        let mut ids = self.entries()?;
        ids.retain(|name| ContainerId::parse(name).is_some());
        let (mut found, effort) = listing::read(&self.dir, &ids, listing)?;
        found.sort_by_cached_key(|one| std::cmp::Reverse((one.about.created, one.about.id)));
        Ok((found, effort))
    }

    /// Has a process of its own keep what lists have to read, for the next of them. Nobody waits for it, and it may
    /// fail.
    ///
    /// The calling process must have one thread, and hold nothing that others wait for.
    pub fn keep_listed(&self) {
        listing::keep_aside(&self.dir);
    }

    /// All of them, in no order; one that cannot be read is an error.
    ///
    /// # Errors
    /// When the directory or a config cannot be read.
    pub(super) fn list_strictly(&self) -> Result<Vec<Container>, ContainerError> {
        self.ids()?.into_iter().filter_map(|id| self.load(id).transpose()).collect()
    }

    /// All of them with what is true of them now; not those that are removed meanwhile.
    ///
    /// # Errors
    /// As [`Self::list`], and when a state cannot be read.
    pub fn list_with_status(&self) -> Result<Vec<(Container, Status)>, ContainerError> {
        let with_status = |container: Container| match container.status() {
            Ok(status) => Some(Ok((container, status))),
            Err(ContainerError::NotFound(_)) => None,
            Err(error) => Some(Err(error)),
        };
        self.list()?.into_iter().filter_map(with_status).collect()
    }

    /// The one with this id, and what is true of it, if there is one that nobody holds and that can be read.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn unheld(&self, id: ContainerId) -> Result<Option<(Container, Status)>, ContainerError> {
        let lock = self.dir.join(id.to_string()).join(LOCK);
        if lock::is_held(&lock).map_err(ContainerError::io("test the lock", &lock))? {
            return Ok(None);
        }
        let found = self.load(id).and_then(|found| {
            found.map(|container| container.status().map(|status| (container, status))).transpose()
        });
        match found {
            Ok(found) => Ok(found.filter(|(_, status)| !status.held)),
            Err(ContainerError::NotFound(_)) => Ok(None),
            Err(error @ ContainerError::Document { .. }) => {
                tracing::warn!("container {}: {error}", id.short());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The one with this name, this id, or an id that begins like this.
    ///
    /// # Errors
    /// [`ContainerError::NotFound`], [`ContainerError::Ambiguous`].
    pub fn find(&self, text: &str) -> Result<Container, ContainerError> {
        let missing = || ContainerError::NotFound(text.to_owned());
        if is_name(text)
            && let Some(id) = self.names.owner_of(text)?
            && let Some(container) = self.load(id)?
            && container.config.name == text
        {
            return Ok(container);
        }
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.is_empty() || !text.bytes().all(hex) {
            return Err(missing());
        }
        let mut matching = Vec::new();
        let mut names = self.entries()?;
        names.retain(|name| name.starts_with(text));
        for id in names.iter().filter_map(|name| ContainerId::parse(name)) {
            matching.extend(self.load(id)?);
        }
        match (matching.pop(), matching.is_empty()) {
            (Some(one), true) => Ok(one),
            (None, _) => Err(missing()),
            (Some(last), false) => {
                let mut ids: Vec<ContainerId> = matching.iter().chain([&last]).map(Container::id).collect();
                ids.sort_unstable();
                Err(ContainerError::Ambiguous { prefix: text.to_owned(), ids })
            }
        }
    }

    /// Gives a container, whatever it does, another name.
    ///
    /// # Errors
    /// [`ContainerError::NotFound`], [`ContainerError::Name`], [`ContainerError::SameName`], [`ContainerError::NameTaken`]; then
    /// it has the name that it had.
    pub fn rename(&self, text: &str, name: &str) -> Result<(), ContainerError> {
        let container = self.find(text)?;
        self.names.rename(&container.dir, container.id(), name)
    }

    /// Changes what is written down of a container, whatever it does.
    ///
    /// # Errors
    /// [`ContainerError::NotFound`], or what the system says; then it is as it was.
    pub(super) fn change(
        &self,
        id: ContainerId,
        change: impl FnOnce(&mut Config),
    ) -> Result<(), ContainerError> {
        self.names.change_config(&self.dir.join(id.to_string()), id, change)
    }

    /// Takes a container that nobody runs or serves, to start or mount it again.
    ///
    /// # Errors
    /// [`ContainerError::InUse`]
    pub fn hold(&self, container: Container) -> Result<Held, ContainerError> {
        let path = container.lock_path();
        match FileLock::exclusive_soon(&path) {
            Ok(Some(lock)) => {
                documents::wake(&container.dir)?;
                Ok(Held { container, lock })
            }
            Ok(None) => Err(in_use(&container)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ContainerError::NotFound(container.config.name))
            }
            Err(error) => Err(ContainerError::io("lock", &path)(error)),
        }
    }

    /// Removes it with all its files.
    ///
    /// # Errors
    /// [`ContainerError::InUse`] while it runs or is mounted; what the system says when files cannot be removed: the
    /// container is gone nevertheless, and [`Self::leftovers`] finds them.
    pub fn remove(&self, container: Container) -> Result<(), ContainerError> {
        self.hold(container)?.detach(self, OwnVolumes::Stay)?.delete()
    }

    /// The container of this id, if there is one.
    pub(super) fn load(&self, id: ContainerId) -> Result<Option<Container>, ContainerError> {
        let dir = self.dir.join(id.to_string());
        Ok(documents::config(&dir)?.map(|config| Container { config, dir }))
    }

    fn ids(&self) -> Result<Vec<ContainerId>, ContainerError> {
        Ok(self.entries()?.iter().filter_map(|name| ContainerId::parse(name)).collect())
    }

    fn entries(&self) -> Result<Vec<String>, ContainerError> {
        let list = || -> io::Result<Vec<String>> {
            // Names of ours are ASCII; others are nobody's container.
            let name = |entry: io::Result<std::fs::DirEntry>| {
                entry.map(|entry| entry.file_name().into_string().ok())
            };
            std::fs::read_dir(&self.dir)?.filter_map(|entry| name(entry).transpose()).collect()
        };
        list().map_err(ContainerError::io("list", &self.dir))
    }

    /// Held by who changes names or configs of containers that others may hold.
    pub(super) fn lock_names(&self) -> Result<FileLock, ContainerError> {
        self.names.lock()
    }

    /// Held by who looks for ids that no other container has, until its config says that it has them.
    pub(super) fn lock_ids(&self) -> Result<FileLock, ContainerError> {
        let path = self.names.dir().join(".ids-lock");
        FileLock::exclusive(&path).map_err(ContainerError::io("lock", &path))
    }
}

/// Why something cannot be done to a container now.
pub(super) fn in_use(container: &Container) -> Result<ContainerError, ContainerError> {
    let (what, hint) = match container.status()?.state {
        State::Mounted { mountpoint, .. } => {
            ("mounted", format!("run `layerfs umount {}` first", mountpoint.display()))
        }
        State::Restarting { .. } => {
            ("restarting", format!("run `layerfs stop {}` first", container.config.name))
        }
        State::Running { .. } => ("running", format!("run `layerfs stop {}` first", container.config.name)),
        State::Created | State::Exited { .. } => {
            ("in use by another process", "try again when it is done".to_owned())
        }
    };
    Ok(ContainerError::InUse { id: container.id(), name: container.config.name.clone(), what, hint })
}

/// Removes what a creation that failed has made. Its own error is the one to tell.
fn discard(dir: &Path) {
    if let Err(error) = tree::remove(dir) {
        tracing::warn!(%error, "an unfinished container stays behind");
    }
}

fn create_dir(path: &Path, mode: u32) -> Result<(), ContainerError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(ContainerError::io("create", path))
}

#[cfg(test)]
#[path = "containers_tests.rs"]
mod tests;
