//! How what is kept of a container is written down: a record of fixed size, and texts.
//!
//! Texts of a record, in this order: its name, the image's name, the command, keys and values of the image's labels,
//! the same of the container's own, and what of the host and which volumes are mounted, as JSON, or nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::IgnoredAny;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::kept::Identity;
use super::{ImageSummary, ProcessSummary, RunSummary, Summary};
use crate::container::{ContainerId, Moment, Purpose, State, UsedVolume};
use crate::launcher::Network;
use crate::model::Digest;

/// By their numbers in [`Record::purpose`].
const PURPOSES: [Purpose; 2] = [Purpose::Run, Purpose::Mount];
/// By their numbers in [`Record::network`].
const NETWORKS: [Network; 5] =
    [Network::None, Network::Host, Network::Private, Network::Pasta, Network::Slirp4netns];

/// `Record::flags`: it goes away when it ends.
const REMOVE_AT_END: u8 = 1;
/// `Record::flags`: it is run.
const RUN: u8 = 2;
/// `Record::flags`: its health is checked.
const HEALTH: u8 = 4;
/// `Record::flags`: it has ended; else nothing has run yet.
const EXITED: u8 = 8;
/// `Record::flags`: for want of memory.
const OOM_KILLED: u8 = 16;

/// A time after 1970.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct MomentRecord {
    secs: U64,
    nanos: U32,
}

/// What is kept of a container.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Record {
    id: [u8; 32],
    config: Identity,
    /// [`Identity::NONE`] where no state is kept.
    state: Identity,
    config_digest: [u8; 32],
    created: MomentRecord,
    started: MomentRecord,
    finished: MomentRecord,
    /// Where in the texts its own begin.
    texts: U32,
    /// How many bytes those have.
    texts_bytes: U32,
    /// How many words the command has.
    command: U32,
    /// How many the image has.
    image_labels: U32,
    /// How many of its own it has.
    labels: U32,
    purpose: u8,
    network: u8,
    flags: u8,
    exit_code: u8,
}

impl Record {
    /// Of a container of this id, of which its config and, if it is at rest, its state say this. None where that
    /// would not be read as it was written.
    pub(super) fn of(
        id: &ContainerId,
        (config, about): (Identity, &Summary),
        state: Option<(Identity, &State)>,
        texts: &mut Vec<u8>,
    ) -> Option<Self> {
        let begin = texts.len();
        let record = Self::written(id, (config, about), state, texts);
        let is_as_written = |record: &Self| {
            let state = state.is_none_or(|(identity, state)| record.state(&identity).as_ref() == Some(state));
            state && record.summary(&config, texts).as_ref() == Some(about)
        };
        let record = record.filter(is_as_written);
        if record.is_none() {
            texts.truncate(begin);
        }
        record
    }

    fn written(
        id: &ContainerId,
        (config, about): (Identity, &Summary),
        state: Option<(Identity, &State)>,
        texts: &mut Vec<u8>,
    ) -> Option<Self> {
        // All of it is named: who adds something to lists has to add it here, and to count the version up.
        let Summary { id: _, name, created, image, purpose, command, remove_at_end, run } = about;
        let ImageSummary {
            name: image_name,
            config_digest,
            process: ProcessSummary { labels: image_labels },
        } = image;
        let nothing = RunSummary::default();
        let RunSummary { labels, volumes, network, health } = run.as_ref().unwrap_or(&nothing);
        let begin = texts.len();
        put(texts, name)?;
        put(texts, image_name)?;
        command.iter().try_for_each(|word| put(texts, word))?;
        let mut pairs = image_labels.iter().chain(labels);
        pairs.try_for_each(|(key, value)| put(texts, key).and_then(|()| put(texts, value)))?;
        put(texts, &if volumes.is_empty() { String::new() } else { serde_json::to_string(volumes).ok()? })?;
        let flag = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
        let record = Self {
            id: *id.as_bytes(),
            config,
            state: Identity::NONE,
            config_digest: *config_digest.as_bytes(),
            created: (*created).into(),
            started: MomentRecord::default(),
            finished: MomentRecord::default(),
            texts: count(begin)?,
            texts_bytes: count(texts.len() - begin)?,
            command: count(command.len())?,
            image_labels: count(image_labels.len())?,
            labels: count(labels.len())?,
            purpose: number(&PURPOSES, *purpose)?,
            network: number(&NETWORKS, *network)?,
            flags: flag(REMOVE_AT_END, *remove_at_end)
                | flag(RUN, run.is_some())
                | flag(HEALTH, health.is_some()),
            exit_code: 0,
        };
        Some(state.map_or(record, |(identity, state)| record.with(identity, state)))
    }

    fn with(self, identity: Identity, state: &State) -> Self {
        match state {
            State::Created => Self { state: identity, ..self },
            State::Exited { exit_code, started, finished, oom_killed } => Self {
                state: identity,
                exit_code: *exit_code,
                started: (*started).into(),
                finished: (*finished).into(),
                flags: self.flags | EXITED | if *oom_killed { OOM_KILLED } else { 0 },
                ..self
            },
            // Whether it is true depends on others.
            State::Running { .. } | State::Mounted { .. } | State::Restarting { .. } => self,
        }
    }

    /// Whose it is.
    pub(super) fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Config and state that it is of.
    #[cfg(test)]
    pub(super) fn documents(&self) -> (Identity, Identity) {
        (self.config, self.state)
    }

    /// What the state says, if it is this one.
    pub(super) fn state(&self, document: &Identity) -> Option<State> {
        if self.state != *document || self.state == Identity::NONE {
            return None;
        }
        if self.flags & EXITED == 0 {
            return Some(State::Created);
        }
        Some(State::Exited {
            exit_code: self.exit_code,
            started: self.started.moment()?,
            finished: self.finished.moment()?,
            oom_killed: self.flags & OOM_KILLED != 0,
        })
    }

    /// What the config says, if it is this one.
    pub(super) fn summary(&self, document: &Identity, texts: &[u8]) -> Option<Summary> {
        if self.config != *document {
            return None;
        }
        let (begin, bytes) =
            (usize::try_from(self.texts.get()).ok()?, usize::try_from(self.texts_bytes.get()).ok()?);
        let mut texts = Texts(texts.get(begin..begin.checked_add(bytes)?)?);
        let (name, image_name) = (texts.take()?.to_owned(), texts.take()?.to_owned());
        let command =
            (0..self.command.get()).map(|_| texts.take().map(str::to_owned)).collect::<Option<_>>()?;
        let image_labels = texts.labels(self.image_labels)?;
        let labels = texts.labels(self.labels)?;
        let volumes: Vec<UsedVolume> = match texts.take()? {
            "" => Vec::new(),
            text => serde_json::from_str(text).ok()?,
        };
        let network = *NETWORKS.get(usize::from(self.network))?;
        let health = (self.flags & HEALTH != 0).then_some(IgnoredAny);
        Some(Summary {
            id: ContainerId::from_bytes(self.id),
            name,
            created: self.created.moment()?,
            image: ImageSummary {
                name: image_name,
                config_digest: Digest::from_bytes(self.config_digest),
                process: ProcessSummary { labels: image_labels },
            },
            purpose: *PURPOSES.get(usize::from(self.purpose))?,
            command,
            remove_at_end: self.flags & REMOVE_AT_END != 0,
            run: (self.flags & RUN != 0).then_some(RunSummary { labels, volumes, network, health }),
        })
    }
}

impl From<Moment> for MomentRecord {
    fn from(moment: Moment) -> Self {
        let since = Moment::from_seconds(0).age(moment);
        Self { secs: since.as_secs().into(), nanos: since.subsec_nanos().into() }
    }
}

impl MomentRecord {
    fn moment(self) -> Option<Moment> {
        let since = Duration::from_secs(self.secs.get());
        since.checked_add(Duration::from_nanos(self.nanos.get().into())).map(Moment::after_1970)
    }
}

/// Texts that are still to be read.
struct Texts<'a>(&'a [u8]);

impl<'a> Texts<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        let bytes = usize::try_from(u32::from_le_bytes(*bytes)).ok()?;
        let (text, rest) = rest.split_at_checked(bytes)?;
        self.0 = rest;
        str::from_utf8(text).ok()
    }

    fn labels(&mut self, count: U32) -> Option<BTreeMap<String, String>> {
        (0..count.get()).map(|_| Some((self.take()?.to_owned(), self.take()?.to_owned()))).collect()
    }
}

fn put(texts: &mut Vec<u8>, text: &str) -> Option<()> {
    texts.extend(count(text.len())?.to_bytes());
    texts.extend(text.as_bytes());
    Some(())
}

fn count(of: usize) -> Option<U32> {
    u32::try_from(of).ok().map(U32::new)
}

fn number<T: PartialEq>(all: &[T], one: T) -> Option<u8> {
    all.iter().position(|other| *other == one).and_then(|at| u8::try_from(at).ok())
}

const _: () = assert!(size_of::<Record>() == 180);
