//! What lists say of containers. A store may have thousands, so of each only that is read which a list shows, below the
//! directory's descriptor, and for a lock only those are asked that would be alive if somebody held it. What long
//! lists have read is kept for the next ones.

mod encoding;
mod keeping;
mod kept;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

pub(super) use keeping::keep_aside;

use super::{ContainerError, ContainerId, Moment, Purpose, State, Status, UsedVolume, documents};
use crate::launcher::Network;
use crate::model::Digest;
use crate::sys::lock::Watch;
use encoding::Record;
use kept::{Kept, Seen};

/// What most documents fit into.
const DOCUMENT_BYTES: usize = 8192;

/// Of fewer containers nothing is kept: there is little to gain.
const LONG: usize = 32;
/// So many documents have to be read before it is worth while to keep what they say...
const UNKEPT_MIN: usize = 64;
/// ... in long lists, one of so many containers.
const UNKEPT_PART: usize = 16;

/// Which containers a list is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Those that were alive when that was last written down.
    Live,
    /// All, to be shown: whether somebody holds one that is at rest is not asked for.
    Shown,
    /// All, to do something to them: with whether somebody holds them, whatever they say.
    Chosen,
}

/// What a list took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Nothing that could have been spared.
    Little,
    /// Many documents were read that nobody had changed for a while: [`super::Containers::keep_listed`] spares the
    /// next list that.
    Much,
}

/// A container of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What it is made of.
    pub about: Summary,
    /// What is true of it.
    pub status: Status,
    /// Its directory.
    pub dir: PathBuf,
}

/// Of what a container is made of ([`super::Config`]) that which lists show and filters ask for.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Summary {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Moment,
    /// The image below it.
    pub image: ImageSummary,
    /// What it is for.
    pub purpose: Purpose,
    /// Program and arguments; empty for a mount.
    pub command: Vec<String>,
    /// Goes away when it ends.
    pub remove_at_end: bool,
    /// How it is run; a mount is not.
    #[serde(default)]
    pub run: Option<RunSummary>,
}

/// Of an image.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ImageSummary {
    /// What people call it.
    pub name: String,
    /// Its config.
    pub config_digest: Digest,
    process: ProcessSummary,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct ProcessSummary {
    #[serde(default, rename = "Labels")]
    labels: BTreeMap<String, String>,
}

/// Of how a container is run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RunSummary {
    labels: BTreeMap<String, String>,
    volumes: Vec<UsedVolume>,
    network: Network,
    health: Option<IgnoredAny>,
}

impl Summary {
    /// The image's labels, and the user's over them.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<&str, &str> {
        let own = self.run.iter().flat_map(|run| &run.labels);
        super::state::labels_over(&self.image.process.labels, own)
    }

    /// What of the host, and which volumes, it has mounted.
    pub fn volumes(&self) -> impl Iterator<Item = &UsedVolume> {
        self.run.iter().flat_map(|run| &run.volumes)
    }

    /// Its network, as it was asked for; a mount has none.
    #[must_use]
    pub fn network(&self) -> Option<&Network> {
        self.run.as_ref().map(|run| &run.network)
    }

    /// Whether its health is checked.
    #[must_use]
    pub fn has_health(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.health.is_some())
    }
}

/// Reads the containers with these ids, in the directory `path`, in no order, and says what that took. What is just
/// being made or removed is not among them, and of what is damaged only the log tells: one container must not hide
/// all the others.
///
/// # Errors
/// When a document cannot be read.
pub(super) fn read(
    path: &Path,
    ids: &[String],
    listing: Listing,
) -> Result<(Vec<Listed>, Effort), ContainerError> {
    let dir = directory(path).map_err(ContainerError::io("list", path))?;
    // Of those that are alive there are few, or nothing is kept of their states.
    let is_long = listing != Listing::Live && ids.len() >= LONG;
    let file = is_long.then(|| kept::File::read(&dir)).flatten();
    let mut reader = Reader {
        dir: &dir,
        path,
        text: vec![0; DOCUMENT_BYTES],
        kept: file.as_ref().and_then(kept::File::kept),
        record: None,
        now: SystemTime::now(),
        unkept: 0,
    };
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        match reader.listed(id, listing) {
            Ok(listed) => found.extend(listed),
            Err(error @ ContainerError::Document { .. }) => {
                tracing::warn!("container {}: {error}", id.get(..12).unwrap_or(id));
            }
            Err(error) => return Err(error),
        }
    }
    let is_wanted = match &file {
        None => is_long,
        Some(file) => reader.is_worth_keeping(ids.len()) && !file.is_new(reader.now),
    };
    Ok((found, if is_wanted && can_keep(&dir) { Effort::Much } else { Effort::Little }))
}

/// Whether what is kept could be written, and would be believed.
fn can_keep(dir: &OwnedFd) -> bool {
    let access = rustix::fs::accessat(dir, ".", Access::WRITE_OK, AtFlags::empty());
    access.is_ok() && crate::sys::boot::id() != 0
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Reads documents of containers, one after the other.
struct Reader<'a> {
    dir: &'a OwnedFd,
    path: &'a Path,
    text: Vec<u8>,
    kept: Option<Kept<'a>>,
    /// What is kept of the one that it is at.
    record: Option<&'a Record>,
    now: SystemTime,
    /// How many documents had to be read that could have been kept.
    unkept: usize,
}

impl Reader<'_> {
    fn listed(&mut self, id: &str, listing: Listing) -> Result<Option<Listed>, ContainerError> {
        self.record = self.kept.and_then(|kept| kept.record(&ContainerId::parse(id)?));
        if listing == Listing::Live && self.is_at_rest(id)? {
            return Ok(None);
        }
        let status = self.status(id, listing)?;
        if listing == Listing::Live && !status.state.is_live() {
            return Ok(None);
        }
        // Last: one that is gone by now has none.
        let Some(about) = self.config(id)? else { return Ok(None) };
        Ok(Some(Listed { about, status, dir: self.path.join(id) }))
    }

    /// What is true of it. Never waits.
    fn status(&mut self, id: &str, listing: Listing) -> Result<Status, ContainerError> {
        let mut state = self.state(id)?;
        loop {
            if !state.is_live() && listing != Listing::Chosen {
                return Ok(Status { state, held: false });
            }
            let held = self.is_held(id)?;
            if held || !state.is_live() {
                return Ok(Status { state, held });
            }
            // Who ends writes so and then lets go. What still says the same after nobody held it was killed; else it
            // has come further meanwhile.
            let now = self.state(id)?;
            if now == state {
                return Ok(Status { state, held });
            }
            state = now;
        }
    }

    /// Before anything was written, or when it was not flushed before a power cut, it is [`State::Created`].
    fn state(&mut self, id: &str) -> Result<State, ContainerError> {
        let seen = self.seen(id, documents::STATE).filter(|seen| seen.at_rest);
        if let Some(state) = seen.and_then(|seen| self.record?.state(&seen.identity)) {
            return Ok(state);
        }
        self.count(seen);
        Ok(self.document(id, documents::STATE)?.unwrap_or(State::Created))
    }

    fn config(&mut self, id: &str) -> Result<Option<Summary>, ContainerError> {
        let seen = self.seen(id, documents::CONFIG);
        let about = seen.and_then(|seen| self.record?.summary(&seen.identity, self.kept?.texts()));
        if about.is_some() {
            return Ok(about);
        }
        self.count(seen);
        match self.document(id, documents::CONFIG)? {
            Some(config) => Ok(Some(config)),
            // Empty, or not there: who can tell damage looks.
            None => documents::config(&self.path.join(id)).map(|_| None),
        }
    }

    /// What stat(2) says of a document, where something is kept.
    fn seen(&self, id: &str, name: &str) -> Option<Seen> {
        self.kept.and_then(|_| Seen::at(self.dir, &format!("{id}/{name}")))
    }

    /// Notes that a document has to be read.
    fn count(&mut self, seen: Option<Seen>) {
        let is_settled = seen.is_some_and(|seen| seen.identity.is_settled(kept::SETTLED, self.now));
        self.unkept += usize::from(is_settled);
    }

    fn is_worth_keeping(&self, containers: usize) -> bool {
        self.unkept >= UNKEPT_MIN.max(containers / UNKEPT_PART)
    }

    /// What a document says; `None` when it is empty or not there.
    fn document<T: DeserializeOwned>(&mut self, id: &str, name: &str) -> Result<Option<T>, ContainerError> {
        let read = self.read(&format!("{id}/{name}"));
        let bytes =
            read.map_err(|error| ContainerError::io("read", &self.path.join(id).join(name))(error))?;
        if bytes == 0 {
            return Ok(None);
        }
        let parsed = serde_json::from_slice(&self.text[..bytes]);
        parsed.map(Some).map_err(|error| ContainerError::document(&self.path.join(id).join(name))(error))
    }

    /// Reads a file into the beginning of `text`: how many bytes it has, none when it is not there.
    fn read(&mut self, path: &str) -> io::Result<usize> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(self.dir, path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(0),
            file => file?,
        };
        let mut bytes = 0;
        loop {
            let read = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut self.text[bytes..]))?;
            bytes += read;
            // Published files do not change: what is short of the room that it had is the end.
            if bytes < self.text.len() {
                return Ok(bytes);
            }
            self.text.resize(bytes * 2, 0);
        }
    }

    fn is_held(&self, id: &str) -> Result<bool, ContainerError> {
        let watch = Watch::at(self.dir, &format!("{id}/{}", super::LOCK));
        let held = watch.and_then(|watch| watch.map_or(Ok(false), |watch| watch.is_held()));
        held.map_err(|error| {
            ContainerError::io("test the lock", &self.path.join(id).join(super::LOCK))(error)
        })
    }

    fn is_at_rest(&self, id: &str) -> Result<bool, ContainerError> {
        documents::is_at_rest(self.dir, id)
            .map_err(|error| ContainerError::io("read", &self.path.join(id))(error))
    }
}

#[cfg(test)]
impl Listed {
    /// What a list has of a container, with another status.
    pub(super) fn of(container: &super::Container, status: Status) -> Self {
        let (dir, id) = (container.dir().to_owned(), container.id().to_string());
        let (found, _) = read(dir.parent().unwrap(), &[id], Listing::Shown).unwrap();
        Self { status, ..found[0].clone() }
    }
}

#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod tests;
