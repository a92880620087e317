//! An image on its way to a registry: what is there already stays where it is, the rest is sent, and the manifest comes last.
//!
//! Documents and layers go byte by byte as they lie, so that an image that came from a registry has its digest in the next
//! one, too. Only archives of `docker save`, which have no manifest, get one (`written.rs`).

use std::collections::HashSet;
use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ImageError;
use super::parallel::in_parallel;
use super::seen::Seen;
use crate::model::Digest;
use crate::mount::MountError;
use crate::registry::{
    Bytes, Endpoint, Mounted, Patience, Registry, RegistryError, Session, Source, Version,
};
use crate::store::{Store, StoreError};
use crate::sys::file_range::FileRange;

mod parcel;
#[cfg(test)]
mod tests;
mod written;

pub use parcel::{Parcel, Piece, is_stored};

pub(in crate::image) use parcel::{Paper, Place};

/// Repositories from which one blob is tried to be mounted: each costs a question.
const MOUNTS_MAX: usize = 3;

/// Why an image was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// It cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The registry does not take it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store has it no more.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer whose index is wanted cannot be indexed.
    #[error(transparent)]
    Index(#[from] MountError),
    /// Nothing that a registry would take.
    #[error("{image}: {reason}")]
    Unfit {
        /// Which one.
        image: String,
        /// Why not, and what to do.
        reason: String,
    },
}

/// Told what becomes of the parts of an image.
pub trait Pushing: Debug + Send + Sync {
    /// That many bytes of it were sent.
    fn sent(&self, piece: &Piece, done: u64);
    /// The repository has it.
    fn settled(&self, piece: &Piece, how: &Settled);
}

/// How a repository came by a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It had it.
    Existed,
    /// From another repository of the registry.
    Mounted(String),
    /// It was sent.
    Pushed,
}

/// What is in a repository after a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Of the manifest, or the index.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A repository that images are pushed to.
#[derive(Debug)]
pub struct Pusher<'a> {
    store: &'a Store,
    registry: Registry,
    /// `HOST` and its repository.
    place: (String, String),
    seen: Seen,
    /// What is known to be there.
    there: HashSet<Digest>,
    told: &'a dyn Pushing,
}

impl<'a> Pusher<'a> {
    /// Greets the registry.
    ///
    /// # Errors
    /// [`PushError::Registry`]
    pub fn open(
        store: &'a Store,
        endpoint: &Endpoint,
        patience: Patience,
        told: &'a dyn Pushing,
    ) -> Result<Self, PushError> {
        let registry = Registry::open_to_push(endpoint, patience)?;
        let place = (endpoint.host.clone(), endpoint.repository.clone());
        Ok(Self { store, registry, place, seen: Seen::of(store), there: HashSet::new(), told })
    }

    /// Gives the repository all parts that it does not have, then the image its tag.
    ///
    /// # Errors
    /// [`PushError`]: the tag stands where it stood. What was sent is there the next time.
    pub fn push(&mut self, parcel: &Parcel, tag: &str) -> Result<Pushed, PushError> {
        self.deliver(&parcel.pieces)?;
        // What a manifest refers to must be there before it.
        for child in &parcel.children {
            self.registry.put_manifest(&Version::Digest(child.digest), &child.media_type, &child.bytes)?;
        }
        let top = &parcel.top;
        let digest =
            self.registry.put_manifest(&Version::Tag(tag.to_owned()), &top.media_type, &top.bytes)?;
        let (host, repository) = &self.place;
        self.seen.note(host, repository, parcel.pieces.iter().map(|piece| piece.digest));
        Ok(Pushed { digest, size: top.bytes.len() as u64 })
    }

    /// Gives the repository the parts that it does not have.
    pub(in crate::image) fn deliver(&mut self, pieces: &[Piece]) -> Result<(), PushError> {
        let mut missing = self.missing(pieces)?;
        self.mount(&mut missing)?;
        self.send(&missing)?;
        self.there.extend(pieces.iter().map(|piece| piece.digest));
        Ok(())
    }

    /// The repository.
    pub(in crate::image) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The parts that the repository does not have.
    fn missing<'p>(&self, pieces: &'p [Piece]) -> Result<Vec<Missing<'p>>, PushError> {
        let unknown: Vec<&Piece> =
            pieces.iter().filter(|piece| !self.there.contains(&piece.digest)).collect();
        let stop = AtomicBool::new(false);
        let is_there = in_parallel(&unknown, &stop, |piece| {
            let is_there = self.registry.has_blob(piece.what, piece.digest)?;
            if is_there {
                self.told.settled(piece, &Settled::Existed);
            }
            Ok::<_, PushError>(is_there)
        })?;
        let absent = unknown.into_iter().zip(is_there).filter(|(_, is_there)| !is_there);
        Ok(absent.map(|(piece, _)| Missing { piece, begun: None }).collect())
    }

    /// Has the registry take over what it has in other repositories. One by one: each may need another token, and the parts
    /// would take them away from each other.
    fn mount(&self, missing: &mut Vec<Missing<'_>>) -> Result<(), PushError> {
        let (host, repository) = &self.place;
        let mut still = Vec::new();
        for mut one in missing.drain(..) {
            let mut mounted = None;
            for from in self.seen.elsewhere(host, repository, one.piece.digest).into_iter().take(MOUNTS_MAX) {
                match self.registry.mount(one.piece.what, one.piece.digest, &from)? {
                    Mounted::Yes => {
                        mounted = Some(from);
                        break;
                    }
                    Mounted::Upload(session) => one.begun = Some(session),
                    Mounted::No => {}
                }
            }
            match mounted {
                Some(from) => self.told.settled(one.piece, &Settled::Mounted(from)),
                None => still.push(one),
            }
        }
        *missing = still;
        Ok(())
    }

    fn send(&self, missing: &[Missing<'_>]) -> Result<(), PushError> {
        let stop = AtomicBool::new(false);
        in_parallel(missing, &stop, |one| {
            let piece = one.piece;
            let mut told = |done| {
                if stop.load(Ordering::Relaxed) {
                    return Err(io::Error::other("another part failed"));
                }
                self.told.sent(piece, done);
                Ok(())
            };
            // Kept from being collected as long as it is read.
            let (pin, opened);
            let bytes = match &piece.place {
                Place::Memory(bytes) => Bytes::Memory(bytes),
                Place::File(range) => Bytes::File(range),
                Place::Closed(path) => {
                    opened = FileRange::open(path).map_err(ImageError::io("open", path))?;
                    Bytes::File(&opened)
                }
                Place::Store => {
                    pin = self.store.blobs().pin(piece.digest)?;
                    Bytes::File(pin.range())
                }
            };
            let mut source = Source::new(piece.what, piece.digest, bytes, &mut told);
            self.registry.upload(&mut source, one.begun.clone())?;
            self.told.settled(piece, &Settled::Pushed);
            Ok::<_, PushError>(())
        })?;
        Ok(())
    }
}

/// A part that has to be sent.
#[derive(Debug)]
struct Missing<'p> {
    piece: &'p Piece,
    /// The upload that a mount turned into.
    begun: Option<Session>,
}
