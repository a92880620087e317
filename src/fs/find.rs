//! Finding what a name leads to, in the upper and the layers together, without telling the kernel.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::node::{Home, LowerPart, Node, UpperPart};
use super::sharing::Sharing;
use super::table::Foreign;
use super::{Fs, FsError};
use crate::model::{FileKind, Ino, Name};
use crate::union::{Lower, LowerDir, LowerRef};
use crate::upper::{Looked, Object, There};

/// A directory to look in.
#[derive(Clone, Debug)]
pub(super) struct DirView {
    pub(super) lower: Arc<LowerDir>,
    pub(super) upper: Option<Arc<OwnedFd>>,
}

/// What a name leads to.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) ino: Ino,
    pub(super) kind: FileKind,
    /// The layers' object: what the upper's was copied from, or merges with.
    pub(super) lower: FoundLower,
    /// The upper's object, and where it lives.
    pub(super) upper: Option<(Object, Home)>,
}

/// The layers' side of what was found.
#[derive(Clone, Debug)]
pub(super) enum FoundLower {
    None,
    Leaf(LowerRef),
    Dir(Arc<LowerDir>),
}

impl Fs {
    /// The directory that a node is.
    pub(super) fn view(&self, dir: &Node) -> Result<DirView, FsError> {
        if dir.kind != FileKind::Directory {
            return Err(FsError::NotADirectory);
        }
        let lower = dir.state().lower.dir();
        Ok(DirView { lower, upper: self.pin(dir)? })
    }

    /// What `name` leads to; `None` when nothing does.
    pub(super) fn find(&self, dir: &DirView, name: Name<'_>) -> Result<Option<Found>, FsError> {
        self.find_there(dir, name).map(|(found, _)| found)
    }

    /// The same, where it may be known what the layers have under the name.
    pub(super) fn find_listed(
        &self,
        dir: &DirView,
        name: Name<'_>,
        known: Option<Lower>,
    ) -> Result<Option<Found>, FsError> {
        self.find_in_both(dir, name, known).map(|(found, _)| found)
    }

    /// What `name` leads to, and what the upper has under it.
    pub(super) fn find_there(
        &self,
        dir: &DirView,
        name: Name<'_>,
    ) -> Result<(Option<Found>, There), FsError> {
        self.find_in_both(dir, name, None)
    }

    fn find_in_both(
        &self,
        dir: &DirView,
        name: Name<'_>,
        known: Option<Lower>,
    ) -> Result<(Option<Found>, There), FsError> {
        if let Some(found) = self.find_upper(dir, name)? {
            return Ok(found);
        }
        let lower = match known {
            None => self.union.lookup(&dir.lower, name)?,
            known => known,
        };
        let Some(lower) = lower else { return Ok((None, There::Nothing)) };
        if let Some(original) = self.with_a_taken_number(&lower) {
            // Unless that is its own copy, which has come since the upper was asked.
            if let Some(found) = self.find_upper(dir, name)? {
                return Ok(found);
            }
            self.table.number(Foreign::Lower(original));
        }
        Ok((Some(self.found_lower(dir, name, lower)?), There::Nothing))
    }

    /// What the upper says of a name; `None` when that is for the layers to say.
    fn find_upper(&self, dir: &DirView, name: Name<'_>) -> Result<Option<(Option<Found>, There)>, FsError> {
        let (Some(upper), Some(pinned)) = (&self.upper, &dir.upper) else { return Ok(None) };
        Ok(match upper.look(pinned, name)? {
            Looked::Absent => None,
            Looked::Whiteout => Some((None, There::Whiteout)),
            Looked::Object(object) => Some((Some(self.found_upper(dir, name, object)?), There::Object)),
        })
    }

    fn found_lower(&self, dir: &DirView, name: Name<'_>, lower: Lower) -> Result<Found, FsError> {
        match lower {
            Lower::Dir(lower) => Ok(self.found_dir(lower)),
            Lower::Leaf(lower, kind) if self.has_lasting_number(lower) || self.union.names(lower)? == 1 => {
                self.found_leaf(lower, kind)
            }
            Lower::Link(lower, kind) | Lower::Leaf(lower, kind) => {
                Ok(self.found_link(&dir.lower, name, lower, kind))
            }
        }
    }

    fn found_upper(&self, dir: &DirView, name: Name<'_>, object: Object) -> Result<Found, FsError> {
        let kind = object.attr.metadata.kind;
        let lower = match kind {
            FileKind::Directory => self.lower_of_upper_dir(dir, name, &object)?,
            _ => FoundLower::None,
        };
        let st_ino = object.attr.st_ino;
        let own = Ino::of_upper(st_ino);
        let ino = match object.marks.ino.or_else(|| self.table.original(st_ino)) {
            None => own.unwrap_or_else(|| self.table.number(Foreign::Upper(st_ino))),
            Some(original) => {
                let indexed =
                    if kind == FileKind::Directory { None } else { self.upper()?.indexed(original)? };
                match indexed {
                    Some(indexed) if indexed.attr.st_ino == st_ino => {
                        return self.found_indexed(original, kind, indexed);
                    }
                    Some(_) => self.table.number_or(Foreign::Twin(original, st_ino), own),
                    None => self.number_of_copy(original, st_ino),
                }
            }
        };
        Ok(Found { ino, kind, lower, upper: Some((object, Home::Named)) })
    }

    /// The number of an object of the upper that says it is the copy of `original`, as a copy of that copy, made behind
    /// our back, says too: who was known first has that number, and the other its own.
    fn number_of_copy(&self, original: Ino, st_ino: u64) -> Ino {
        let node = self.table.get(original);
        if node.as_ref().is_some_and(|node| node.is_in_upper_as(st_ino)) {
            // Also where a twin that is gone had this inode number.
            return original;
        }
        let twin = Foreign::Twin(original, st_ino);
        match self.table.known_number(&twin) {
            Some(known) => known,
            None if node.is_some() => self.table.number_or(twin, Ino::of_upper(st_ino)),
            None => original,
        }
    }

    /// The layers' object, if something that it is not is known under its number: an object of the upper that says it is
    /// the copy of it.
    fn with_a_taken_number(&self, lower: &Lower) -> Option<LowerRef> {
        let original = match lower {
            Lower::Dir(dir) => *dir.parts.first()?,
            Lower::Leaf(lower, _) => *lower,
            Lower::Link(..) => return None,
        };
        let known = self.table.origin(original.ino()?)?;
        (known != Some(original)).then_some(original)
    }

    /// Whether a layer's object has its number in every mount.
    fn has_lasting_number(&self, lower: LowerRef) -> bool {
        self.lower_ino(lower).to_lower().is_some()
    }

    /// What merges into a directory of the upper.
    fn lower_of_upper_dir(
        &self,
        dir: &DirView,
        name: Name<'_>,
        object: &Object,
    ) -> Result<FoundLower, FsError> {
        if object.marks.opaque {
            return Ok(FoundLower::None);
        }
        Ok(match self.lower_by_redirect(dir, name, object)? {
            Some(Lower::Dir(lower)) => FoundLower::Dir(Arc::new(lower)),
            // Shown without what it was moved with, it would look as if that had been deleted.
            _ if object.marks.redirect.is_some() => return Err(self.upper()?.lost_redirect(object).into()),
            Some(Lower::Leaf(..) | Lower::Link(..)) | None => FoundLower::None,
        })
    }

    /// What the layers have under the name of an object of the upper, or where its redirect leads.
    pub(super) fn lower_by_redirect(
        &self,
        dir: &DirView,
        name: Name<'_>,
        object: &Object,
    ) -> Result<Option<Lower>, FsError> {
        Ok(match &object.marks.redirect {
            Some(path) if path.starts_with(b"/") => self.union.resolve(path)?,
            Some(sibling) => match Name::new(sibling) {
                Ok(sibling) => self.union.lookup(&dir.lower, sibling)?,
                Err(_) => None,
            },
            None => self.union.lookup(&dir.lower, name)?,
        })
    }

    fn found_dir(&self, lower: LowerDir) -> Found {
        let ino = lower.parts.first().map_or(Ino::ROOT, |part| self.lower_ino(*part));
        Found { ino, kind: FileKind::Directory, lower: FoundLower::Dir(Arc::new(lower)), upper: None }
    }

    fn found_leaf(&self, lower: LowerRef, kind: FileKind) -> Result<Found, FsError> {
        let ino = self.lower_ino(lower);
        if let Some(upper) = &self.upper
            && self.is_linked(lower, ino)?
            && let Some(indexed) = upper.indexed(ino)?
        {
            return Ok(Found { lower: FoundLower::Leaf(lower), ..self.found_indexed(ino, kind, indexed)? });
        }
        Ok(Found { ino, kind, lower: FoundLower::Leaf(lower), upper: None })
    }

    /// A hard link that is shown as a file of its own, because nothing would keep it and its target together over a
    /// copy-up and a remount, and one number for both would show the one's content under the other's name: a link into
    /// a layer below, whose target cannot know of it, and any link where numbers are not the same in every mount.
    fn found_link(&self, dir: &LowerDir, name: Name<'_>, lower: LowerRef, kind: FileKind) -> Found {
        let path = [&dir.path, &b"/"[..], name.as_bytes()].concat();
        let ino = self.table.number(Foreign::Link(path));
        Found { ino, kind, lower: FoundLower::Leaf(lower), upper: None }
    }

    /// Whether a layer's object has several names that the link index keeps together. The index knows objects by their
    /// numbers, so these must be the same in the next mount.
    pub(super) fn is_linked(&self, lower: LowerRef, ino: Ino) -> Result<bool, FsError> {
        Ok(ino.to_lower().is_some() && self.union.names(lower)? > 1)
    }

    fn found_indexed(&self, ino: Ino, kind: FileKind, indexed: Object) -> Result<Found, FsError> {
        let lower = LowerRef::of_number(ino).map_or(FoundLower::None, FoundLower::Leaf);
        Ok(Found { ino, kind, lower, upper: Some((indexed, Home::Index)) })
    }

    /// The number of a layer's object.
    pub(super) fn lower_ino(&self, lower: LowerRef) -> Ino {
        let given = self.table.known_number(&Foreign::Lower(lower)).or(lower.ino());
        given.unwrap_or_else(|| self.table.number(Foreign::Lower(lower)))
    }
}

impl Found {
    /// Whether a node that is known under its number is this object.
    pub(super) fn is_of(&self, node: &Node) -> bool {
        let lower = match &self.lower {
            FoundLower::None => None,
            FoundLower::Leaf(lower) => Some(*lower),
            FoundLower::Dir(dir) => dir.parts.first().copied(),
        };
        match &self.upper {
            Some((object, _)) => node.is_in_upper_as(object.attr.st_ino),
            None => node.origin == lower,
        }
    }

    /// Whether its number says all that there is: an object of a layer, and no directory.
    pub(super) fn is_leaf(&self) -> bool {
        match self.lower {
            FoundLower::Leaf(lower) => self.upper.is_none() && LowerRef::of_number(self.ino) == Some(lower),
            FoundLower::None | FoundLower::Dir(_) => false,
        }
    }

    /// A node for it; `names` counts the layers' names of a leaf.
    pub(super) fn to_node(&self, names: u32) -> Node {
        let lower = match &self.lower {
            FoundLower::None => LowerPart::None,
            FoundLower::Leaf(lower) => LowerPart::Leaf(*lower, names),
            FoundLower::Dir(lower) => LowerPart::Dir(Arc::clone(lower)),
        };
        let upper = self
            .upper
            .as_ref()
            .map(|(object, home)| UpperPart { home: *home, ..UpperPart::named(object.attr.st_ino) });
        let mut node = Node::new(self.ino, self.kind, lower, upper);
        if let Some(sharing) = self.upper.as_ref().and_then(|(object, _)| Sharing::of(object)) {
            *node.sharing() = Some(sharing);
            node.found_sharing = true;
        }
        node
    }
}
