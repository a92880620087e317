//! Row 4: many layers seen as one. Lookup, merged listing, paths; no system calls, no state but counts of names that
//! whoever asks for them keeps ([`LinkCounts`]).
//!
//! Per directory the layers are asked from the top: an object wins, a whiteout or an opaque directory ends the walk,
//! directories merge (image-spec layer.md; kernel Documentation/filesystems/overlayfs.rst). Only "not there" means
//! absent: any other error fails the operation.

mod follow;
mod link;
mod link_counts;
mod list;
mod lookup;
mod trace;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

pub use follow::{FollowError, LastSymlink, Place, Target};
pub use link_counts::LinkCounts;
pub use trace::{Extent, Hider, How, Said, What};

use crate::layer::{Entry, Layer, LayerError, Xattr};
use crate::model::{Digest, EntryId, FileKind, Ino, LayerOrdinal, Metadata, Timestamp};

/// One object of one layer of the union.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LowerRef {
    /// Which layer, counted from the base.
    pub layer: LayerOrdinal,
    /// Which object in it.
    pub entry: EntryId,
}

impl LowerRef {
    /// The object with this number, if numbers of its kind say where it is.
    #[must_use]
    pub fn of_number(ino: Ino) -> Option<Self> {
        let (layer, entry) = ino.to_lower()?;
        Some(Self { layer, entry })
    }
}

/// A directory of the union: the directories that merge into it, topmost first; none for one born in the upper.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LowerDir {
    /// The parts.
    pub parts: Vec<LowerRef>,
    /// The directory whose attributes it has: the topmost that its layer really mentions. It may be none of the parts,
    /// when one that was never mentioned hides what is below.
    pub looks: Option<LowerRef>,
    /// Its path in the union, relative to the root, without a leading `/`.
    pub path: Vec<u8>,
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lower {
    /// Anything but a directory.
    Leaf(LowerRef, FileKind),
    /// The same, through a hard link that an upper layer has to it. The object does not know of this name.
    Link(LowerRef, FileKind),
    /// A directory.
    Dir(LowerDir),
}

/// A name of a merged directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The object that wins.
    pub lower: LowerRef,
    /// Its type.
    pub kind: FileKind,
    /// It is a hard link to an object of a layer below ([`Lower::Link`]).
    pub is_link: bool,
}

impl Listed {
    /// What [`Union::lookup`] says of the name, unless that is a directory, of which the listing does not know the parts.
    #[must_use]
    pub fn found(self) -> Option<Lower> {
        let Self { lower, kind, is_link } = self;
        match kind {
            FileKind::Directory => None,
            _ if is_link => Some(Lower::Link(lower, kind)),
            _ => Some(Lower::Leaf(lower, kind)),
        }
    }
}

/// The layers of an image, base first.
#[derive(Clone, Debug)]
pub struct Union {
    layers: Vec<Arc<dyn Layer>>,
}

/// A merged directory on its way, from the topmost layer down.
#[derive(Default)]
struct Merge {
    parts: Vec<LowerRef>,
    looks: Option<LowerRef>,
    /// An opaque directory was met: what follows gives attributes at most.
    closed: bool,
}

impl Merge {
    /// Takes the next directory; `false` when none below matters any more.
    fn add(&mut self, lower: LowerRef, entry: &Entry) -> bool {
        if !self.closed {
            self.parts.push(lower);
        }
        if !entry.implied {
            self.looks.get_or_insert(lower);
        }
        self.closed |= entry.opaque;
        !self.closed || self.looks.is_none()
    }

    fn into_dir(self, path: Vec<u8>) -> LowerDir {
        LowerDir { parts: self.parts, looks: self.looks, path }
    }
}

impl LowerRef {
    /// The inode number of this object, when it fits (see [`Ino`]).
    #[must_use]
    pub fn ino(self) -> Option<Ino> {
        Ino::of_lower(self.layer, self.entry)
    }
}

impl Union {
    /// A union of these layers, base first.
    #[must_use]
    pub fn new(layers: Vec<Arc<dyn Layer>>) -> Self {
        Self { layers }
    }

    /// How many layers there are.
    #[must_use]
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// How many decoders all layers keep for readers that may go on, and the bytes of memory that they take.
    #[must_use]
    pub fn suspended_decoders(&self) -> (u64, u64) {
        let all = self.layers.iter().map(|layer| layer.suspended_decoders());
        all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// The root directory: the roots of all layers down to the first opaque one.
    ///
    /// # Errors
    /// [`LayerError`] of the layer that could not answer.
    pub fn root(&self) -> Result<LowerDir, LayerError> {
        let mut merge = Merge::default();
        for (ordinal, layer) in self.top_down() {
            let lower = LowerRef { layer: ordinal, entry: layer.root() };
            if !merge.add(lower, &layer.entry(layer.root())?) {
                break;
            }
        }
        Ok(merge.into_dir(Vec::new()))
    }

    /// Gives back memory that holds only what can be read again; `in_use` says what a layer must still know
    /// ([`Layer::release_memory`]).
    pub fn release_memory(&self, in_use: &dyn Fn(LayerOrdinal) -> Vec<EntryId>) {
        for (ordinal, layer) in self.top_down() {
            layer.release_memory(&|| in_use(ordinal));
        }
    }

    /// What stat(2) says of a non-directory.
    ///
    /// # Errors
    /// [`LayerError`] of its layer.
    pub fn metadata(&self, lower: LowerRef) -> Result<Metadata, LayerError> {
        Ok(self.entry(lower)?.metadata)
    }

    /// What stat(2) says of a directory; of one that no layer mentions, what its topmost part has instead.
    ///
    /// # Errors
    /// [`LayerError`] of the layer that could not answer, or [`LayerError::BadEntry`] when there is no part.
    pub fn dir_metadata(&self, dir: &LowerDir) -> Result<Metadata, LayerError> {
        self.entry(self.looks(dir)?).map(|entry| entry.metadata)
    }

    /// The extended attributes of a directory.
    ///
    /// # Errors
    /// As [`Self::dir_metadata`].
    pub fn dir_xattrs(&self, dir: &LowerDir) -> Result<Vec<Xattr>, LayerError> {
        self.xattrs(self.looks(dir)?)
    }

    /// The extended attributes of a non-directory.
    ///
    /// # Errors
    /// [`LayerError`] of its layer.
    pub fn xattrs(&self, lower: LowerRef) -> Result<Vec<Xattr>, LayerError> {
        self.layer(lower)?.xattrs(lower.entry)
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// [`LayerError`] of its layer.
    pub fn read_link(&self, lower: LowerRef) -> Result<Vec<u8>, LayerError> {
        self.layer(lower)?.read_link(lower.entry)
    }

    /// Verified bytes of a regular file; fewer than `buffer` holds only at its end.
    ///
    /// # Errors
    /// [`LayerError`] of its layer.
    pub fn read_at(&self, lower: LowerRef, offset: u64, buffer: &mut [u8]) -> Result<usize, LayerError> {
        self.layer(lower)?.read_at(lower.entry, offset, buffer)
    }

    /// Whether the number alone leads to an object ([`Layer::is_found_by_number`]).
    ///
    /// # Errors
    /// [`LayerError::BadEntry`] when there is no such layer.
    pub fn is_found_by_number(&self, lower: LowerRef) -> Result<bool, LayerError> {
        Ok(self.layer(lower)?.is_found_by_number())
    }

    /// What all layers are, base first ([`Layer::diff_id`]).
    #[must_use]
    pub fn diff_ids(&self) -> Vec<Option<Digest>> {
        self.layers.iter().map(|layer| layer.diff_id()).collect()
    }

    /// What the layer of an object is ([`Layer::diff_id`]).
    ///
    /// # Errors
    /// [`LayerError::BadEntry`] when there is no such layer.
    pub fn diff_id(&self, lower: LowerRef) -> Result<Option<Digest>, LayerError> {
        Ok(self.layer(lower)?.diff_id())
    }

    /// When an object was last changed ([`Layer::changed_at`]).
    ///
    /// # Errors
    /// [`LayerError`] of its layer.
    pub fn changed_at(&self, lower: LowerRef) -> Result<Option<Timestamp>, LayerError> {
        self.layer(lower)?.changed_at(lower.entry)
    }

    /// How many names the object has in its own layer.
    ///
    /// # Errors
    /// [`LayerError`] of its layer.
    pub fn names(&self, lower: LowerRef) -> Result<u32, LayerError> {
        Ok(self.entry(lower)?.names)
    }

    /// All paths of an object with several names in its own layer; some may be hidden by layers above.
    ///
    /// # Errors
    /// [`LayerError`] of its layer.
    pub fn paths(&self, lower: LowerRef) -> Result<Vec<Box<[u8]>>, LayerError> {
        self.layer(lower)?.paths(lower.entry)
    }

    /// What name_to_handle_at(2) says of an object; `None` for one that is in no directory.
    ///
    /// # Errors
    /// [`LayerError`] of its layer.
    pub fn file_handle(&self, lower: LowerRef) -> Result<Option<Vec<u8>>, LayerError> {
        self.layer(lower)?.file_handle(lower.entry)
    }

    /// The directory whose attributes a merged directory has.
    fn looks(&self, dir: &LowerDir) -> Result<LowerRef, LayerError> {
        dir.looks.or(dir.parts.first().copied()).ok_or_else(|| LayerError::BadEntry {
            layer: "union".to_owned(),
            entry: EntryId(0),
            reason: "a directory without parts",
        })
    }

    fn entry(&self, lower: LowerRef) -> Result<Entry, LayerError> {
        self.layer(lower)?.entry(lower.entry)
    }

    fn layer(&self, lower: LowerRef) -> Result<&Arc<dyn Layer>, LayerError> {
        self.layers.get(usize::from(lower.layer.0)).ok_or_else(|| LayerError::BadEntry {
            layer: format!("{}", lower.layer.0),
            entry: lower.entry,
            reason: "no such layer",
        })
    }

    /// The layers with their ordinals, topmost first.
    fn top_down(&self) -> impl Iterator<Item = (LayerOrdinal, &Arc<dyn Layer>)> {
        // Ordinals fit: an image has at most IMAGE_LAYERS_MAX layers.
        let ordinal = |place| LayerOrdinal(u16::try_from(place).unwrap_or(u16::MAX));
        self.layers.iter().enumerate().rev().map(move |(place, layer)| (ordinal(place), layer))
    }
}
