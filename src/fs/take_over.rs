//! Taking over an upper that somebody else wrote, once: its hard links, which of the layers' names it leaves, and the
//! content that it lacks.

use std::collections::HashMap;
use std::sync::Arc;

use super::find::{DirView, Found, FoundLower};
use super::node::Home;
use super::{Fs, FsError};
use crate::model::{FileKind, FileName, Metadata, Name};
use crate::union::{Lower, LowerDir, LowerRef};
use crate::upper::{LinkOfOthers, Looked};

/// What the walk finds out.
#[derive(Debug, Default)]
struct Links {
    /// Those of kernel overlayfs, by the file handle of the layers' object.
    of_others: HashMap<Vec<u8>, LinkOfOthers>,
    /// The layers' objects with several names, some of which lead to them.
    seen: HashMap<LowerRef, Seen>,
}

#[derive(Debug)]
struct Seen {
    kind: FileKind,
    /// How many of the layers' names lead to it.
    names: u32,
    /// A link of others was it.
    taken: bool,
}

impl Fs {
    /// Walks the whole tree, if somebody else has changed the upper since the last mount.
    pub(super) fn take_over(&self, root: &Arc<LowerDir>) -> Result<(), FsError> {
        let Some(upper) = self.upper.as_ref().filter(|upper| upper.is_taking_over()) else { return Ok(()) };
        let mut links = Links::default();
        for link in upper.links_of_others()? {
            links.of_others.insert(link.handle.clone(), link);
        }
        let root = DirView { lower: Arc::clone(root), upper: Some(Arc::new(upper.root()?.pinned)) };
        let mut pending = self.take_over_dir(&Arc::new(root), &mut links)?;
        while let Some((parent, name)) = pending.pop() {
            if let Some(found) = self.find(&parent, name.as_name())? {
                pending.extend(self.take_over_dir(&Arc::new(view(found)), &mut links)?);
            }
        }
        // What was copied up has lost at least the name that it was copied up by.
        let mut suspects = Vec::new();
        for (lower, seen) in links.seen {
            let gone = self.names_in_layers(lower)?.saturating_sub(seen.names);
            upper.set_names_gone(self.lower_ino(lower), gone)?;
            if gone > 0 && !seen.taken {
                suspects.push(seen.kind);
            }
        }
        for link in links.of_others.values() {
            if suspects.contains(&link.kind) {
                return Err(upper.lost_link(link).into());
            }
            upper.drop_link(link)?;
        }
        Ok(upper.taken_over()?)
    }

    /// Returns the directories in it, each by its name, so that not all are open at once.
    fn take_over_dir(
        &self,
        dir: &Arc<DirView>,
        links: &mut Links,
    ) -> Result<Vec<(Arc<DirView>, FileName)>, FsError> {
        let mut inner = Vec::new();
        for name in self.merged_names(&dir.lower, dir.upper.as_deref())? {
            let Some(found) = self.find(dir, name.as_name())? else { continue };
            if found.kind == FileKind::Directory {
                inner.push((Arc::clone(dir), name));
            } else {
                self.take_content(dir, name.as_name(), &found)?;
                self.take_over_leaf(dir, name.as_name(), &found, links)?;
            }
        }
        Ok(inner)
    }

    /// Copies the content of a file of which the kernel copied the attributes alone.
    fn take_content(&self, dir: &DirView, name: Name<'_>, found: &Found) -> Result<(), FsError> {
        let Some((object, _)) = &found.upper else { return Ok(()) };
        let upper = self.upper()?;
        if found.kind != FileKind::Regular || !upper.lacks_content(object)? {
            return Ok(());
        }
        let lower = match self.lower_by_redirect(dir, name, object)? {
            Some(Lower::Leaf(lower, _) | Lower::Link(lower, _)) => Some(lower),
            Some(Lower::Dir(_)) | None => None,
        };
        let lower = lower.ok_or_else(|| upper.lost_content(object, name.as_bytes()))?;
        let Metadata { kind, size, .. } = self.union.metadata(lower)?;
        if (kind, size) != (FileKind::Regular, object.attr.metadata.size) {
            return Err(upper.lost_content(object, name.as_bytes()).into());
        }
        let mut content = |offset: u64, buffer: &mut [u8]| {
            self.union.read_at(lower, offset, buffer).map_err(|error| FsError::Layer(error).errno())
        };
        Ok(upper.bring_content(object, &mut content)?)
    }

    fn take_over_leaf(
        &self,
        dir: &DirView,
        name: Name<'_>,
        found: &Found,
        links: &mut Links,
    ) -> Result<(), FsError> {
        let FoundLower::Leaf(lower) = found.lower else { return Ok(()) };
        // What is found in the link index may have this name in the upper too.
        if let (Some((_, Home::Index)), Some(pinned)) = (&found.upper, &dir.upper)
            && !matches!(self.upper()?.look(pinned, name)?, Looked::Absent)
        {
            return Ok(());
        }
        if !self.is_linked(lower, found.ino)? {
            return Ok(());
        }
        let seen = links.seen.entry(lower).or_insert(Seen { kind: found.kind, names: 0, taken: false });
        seen.names += 1;
        if !links.of_others.is_empty()
            && let Some(handle) = self.union.file_handle(lower)?
            && let Some(link) = links.of_others.remove(&handle)
        {
            self.upper()?.take_link(&link, found.ino)?;
            seen.taken = true;
            // It is in the upper now.
            if let Some(found) = self.find(dir, name)? {
                self.take_content(dir, name, &found)?;
            }
        }
        Ok(())
    }
}

fn view(dir: Found) -> DirView {
    let lower = match dir.lower {
        FoundLower::Dir(lower) => lower,
        FoundLower::Leaf(_) | FoundLower::None => Arc::default(),
    };
    DirView { lower, upper: dir.upper.map(|(object, _)| Arc::new(object.pinned)) }
}
