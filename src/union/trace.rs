//! What every layer says of one path, and which of it is hidden by what: the union's rules, explained instead of applied.

use super::{LowerRef, Union};
use crate::layer::{Entry, Found, LayerError};
use crate::model::{EntryId, FileKind, LayerOrdinal, Name};

/// What one layer says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Which layer.
    pub layer: LayerOrdinal,
    /// What it says.
    pub what: What,
    /// What of a layer above keeps it from counting.
    pub hidden_by: Option<Hider>,
}

/// A statement of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It has an object there.
    Object(LowerRef, Entry),
    /// It has a hard link there to this path of some layer below.
    LinkBelow(Box<[u8]>),
    /// The path, or a directory on the way to it, is deleted here.
    Whiteout(Extent),
    /// A directory on the way hides what is below in it.
    Opaque(Extent),
    /// What is no directory is where one on the way would be.
    NotDirectory(Extent, FileKind),
}

/// How much of the path is meant, in bytes; nothing is the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent(pub usize);

/// What hides something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hider {
    /// In which layer.
    pub layer: LayerOrdinal,
    /// How.
    pub how: How,
    /// Where.
    pub of: Extent,
}

/// Ways to hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// An object at the same path that does not merge with it.
    Replaced,
    /// A whiteout.
    Whiteout,
    /// An opaque directory.
    Opaque,
    /// Something else in the place of a directory on the way.
    NotDirectory,
}

impl Union {
    /// What the layers say of a path (relative to the root, without symlinks), topmost first. Layers that say nothing are
    /// left out; of directories all that merge are visible.
    ///
    /// # Errors
    /// [`LayerError`] of the layer that could not answer.
    pub fn trace(&self, path: &[u8]) -> Result<Vec<Said>, LayerError> {
        let mut told = Vec::new();
        let mut hider: Option<Hider> = None;
        let mut dir_above: Option<LayerOrdinal> = None;
        let whole = Extent(path.len());
        for (layer, _) in self.top_down() {
            let mut hides = None;
            for what in self.said_by(layer, path)? {
                let mut hidden_by = hider;
                let (how, of) = match &what {
                    What::Object(_, entry) if entry.metadata.kind == FileKind::Directory => {
                        if hidden_by.is_none() {
                            dir_above = Some(layer);
                        }
                        (entry.opaque.then_some(How::Opaque), whole)
                    }
                    What::Object(..) | What::LinkBelow(_) => {
                        let replaced = |layer| Hider { layer, how: How::Replaced, of: whole };
                        hidden_by = hidden_by.or(dir_above.map(replaced));
                        (Some(How::Replaced), whole)
                    }
                    What::Whiteout(of) => (Some(How::Whiteout), *of),
                    What::Opaque(of) => (Some(How::Opaque), *of),
                    What::NotDirectory(of, _) => (Some(How::NotDirectory), *of),
                };
                // What a layer hides, it hides in those below, not in itself.
                hides = hides.or(how.map(|how| Hider { layer, how, of }));
                told.push(Said { layer, what, hidden_by });
            }
            hider = hider.or(hides);
        }
        Ok(told)
    }

    fn said_by(&self, layer: LayerOrdinal, path: &[u8]) -> Result<Vec<What>, LayerError> {
        let at = |entry: EntryId| LowerRef { layer, entry };
        let source = self.layer(at(EntryId(0)))?;
        let mut dir = source.root();
        let mut entry = source.entry(dir)?;
        let mut said = Vec::new();
        let mut end = 0;
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        for (number, name) in names.iter().enumerate() {
            if entry.opaque {
                said.push(What::Opaque(Extent(end)));
            }
            end += name.len() + usize::from(number > 0);
            let is_last = number + 1 == names.len();
            let Ok(name) = Name::new(name) else { return Ok(said) };
            match source.lookup(dir, name)? {
                Found::Absent => return Ok(said),
                Found::Whiteout => {
                    said.push(What::Whiteout(Extent(end)));
                    return Ok(said);
                }
                Found::LinkBelow(target) if is_last => {
                    said.push(What::LinkBelow(target));
                    return Ok(said);
                }
                Found::LinkBelow(_) => {
                    said.push(What::NotDirectory(Extent(end), FileKind::Regular));
                    return Ok(said);
                }
                Found::Entry(found) => {
                    (dir, entry) = (found, source.entry(found)?);
                    if !is_last && entry.metadata.kind != FileKind::Directory {
                        said.push(What::NotDirectory(Extent(end), entry.metadata.kind));
                        return Ok(said);
                    }
                }
            }
        }
        said.push(What::Object(at(dir), entry));
        // The object first: what hides others comes after what is there.
        said.rotate_right(1);
        Ok(said)
    }
}
