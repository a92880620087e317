//! When copy-up happens, and where it goes. How is the upper's business.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::node::{Home, LowerPart, Node, UpperPart};
use super::sharing::Sharing;
use super::{Fs, FsError};
use crate::layer::Xattr;
use crate::model::{FileKind, Metadata};
use crate::union::LowerRef;
use crate::upper::{Content, Copied, Later, Object, Origin, check_of};

/// Longest path that is written into a mark, which must leave room for the map itself.
const PATH_BYTES_MAX: usize = 1024;

impl Fs {
    /// A descriptor of a node in the upper, copied up before if it must be. Of a regular file's content only the first
    /// `keep_bytes` bytes are kept, because a truncate follows.
    pub(super) fn raise(&self, node: &Node, keep_bytes: u64) -> Result<Arc<OwnedFd>, FsError> {
        self.upper()?;
        if let Some(pinned) = self.pin(node)?
            && self.lacks_names(node).is_none()
        {
            return Ok(pinned);
        }
        let _only_one = node.copy_up();
        if let Some(pinned) = self.pin(node)? {
            if let Some(lower) = self.lacks_names(node) {
                self.name_everywhere(node, lower)?;
            }
            return Ok(pinned);
        }
        let lower = node.state().lower.clone();
        match lower {
            LowerPart::Dir(_) => self.raise_dir(node),
            LowerPart::Leaf(lower, names) => self.raise_leaf(node, lower, names, keep_bytes),
            LowerPart::None => Err(FsError::Lost(node.ino)),
        }
    }

    fn raise_dir(&self, node: &Node) -> Result<Arc<OwnedFd>, FsError> {
        let lower = node.state().lower.dir();
        let metadata = self.union.dir_metadata(&lower)?;
        let xattrs = self.union.dir_xattrs(&lower)?;
        let mut nothing = |_: u64, _: &mut [u8]| Ok(0);
        let origin = origin(node, metadata, xattrs, &[], &mut nothing, 0);
        self.raise_named(node, origin)
    }

    /// `names`: how many of the layers' names still lead to it.
    fn raise_leaf(
        &self,
        node: &Node,
        lower: LowerRef,
        names: u32,
        keep_bytes: u64,
    ) -> Result<Arc<OwnedFd>, FsError> {
        let metadata = self.union.metadata(lower)?;
        let xattrs = self.union.xattrs(lower)?;
        let target = match node.kind {
            FileKind::Symlink => self.union.read_link(lower)?,
            _ => Vec::new(),
        };
        let copied_bytes = Cell::new(0);
        let mut content = |offset: u64, buffer: &mut [u8]| {
            let read = self.union.read_at(lower, offset, buffer);
            read.inspect(|count| copied_bytes.set(copied_bytes.get() + *count as u64))
                .map_err(|error| FsError::Layer(error).errno())
        };
        let mut origin = origin(node, metadata, xattrs, &target, &mut content, keep_bytes);
        origin.later = self.later(node, lower, &metadata)?;
        let raised = self.raise_origin(node, lower, names, origin);
        // What could not be written was not copied.
        raised.inspect(|_| self.counts.copied_bytes.add(copied_bytes.get()))
    }

    fn raise_origin(
        &self,
        node: &Node,
        lower: LowerRef,
        names: u32,
        mut origin: Origin<'_>,
    ) -> Result<Arc<OwnedFd>, FsError> {
        if names > 0 && self.is_linked(lower, node.ino)? {
            let copied = self.upper()?.copy_up(&mut origin)?;
            self.announce(node, &copied);
            let placed = self.upper()?.place_in_index(copied, node.ino);
            let object = placed.inspect_err(|_| self.renounce(node))?;
            let pinned = self.raised(node, object, Home::Index);
            if self.upper()?.is_shared() {
                self.name_everywhere(node, lower)?;
            }
            return Ok(pinned);
        }
        self.raise_named(node, origin)
    }

    /// Whether the content may stay in the layer for now: where it will be found again, by the number, or by this path.
    fn later(&self, node: &Node, lower: LowerRef, metadata: &Metadata) -> Result<Option<Later>, FsError> {
        if node.kind != FileKind::Regular || node.ino.to_lower().is_none() || !self.upper()?.copies_later() {
            return Ok(None);
        }
        let check = check_of(metadata, &self.identity(lower)?);
        if self.union.is_found_by_number(lower)? {
            return Ok(Some(Later { path: Vec::new(), check }));
        }
        let Some(place) = self.table.place(node.ino) else { return Ok(None) };
        let parent = self.node(place.parent)?.state().lower.dir();
        let path = [&parent.path, &b"/"[..], place.name.as_bytes()].concat();
        Ok((path.len() <= PATH_BYTES_MAX).then_some(Later { path, check }))
    }

    /// Copies up under the node's name, after its parents; without a name, for those who have it open.
    fn raise_named(&self, node: &Node, mut origin: Origin<'_>) -> Result<Arc<OwnedFd>, FsError> {
        let Some(place) = self.table.place(node.ino) else {
            let object = self.upper()?.copy_up_nameless(&mut origin)?;
            self.counts.copy_ups.add(1);
            *node.sharing() = Sharing::of(&object);
            let pinned = Arc::new(object.pinned);
            let part =
                UpperPart { pinned: Some(Arc::clone(&pinned)), ..UpperPart::named(object.attr.st_ino) };
            node.state().upper = Some(part);
            self.pins.holds(node.ino);
            return Ok(pinned);
        };
        let parent = self.node(place.parent)?;
        let dir = self.raise(&parent, 0)?;
        let copied = self.upper()?.copy_up(&mut origin)?;
        self.announce(node, &copied);
        let alone = parent.names_alone();
        let placed = self.upper()?.place(copied, &dir, place.name.as_name());
        drop(alone);
        let object = placed.inspect_err(|_| self.renounce(node))?;
        Ok(self.raised(node, object, Home::Named))
    }

    /// Says which node a copy is of, before anybody can see it.
    fn announce(&self, node: &Node, copied: &Copied<'_>) {
        node.state().coming = Some(copied.st_ino());
        if !copied.has_number() {
            self.table.copied(node.ino, copied.st_ino());
        }
    }

    /// Takes that back: the copy got no place.
    fn renounce(&self, node: &Node) {
        node.state().coming = None;
        self.table.not_copied(node.ino);
    }

    fn raised(&self, node: &Node, object: Object, home: Home) -> Arc<OwnedFd> {
        self.counts.copy_ups.add(1);
        let part = UpperPart { home, ..UpperPart::named(object.attr.st_ino) };
        *node.sharing() = Sharing::of(&object);
        let pinned = self.pins.keep(node.ino, object.pinned);
        let mut state = node.state();
        state.upper = Some(part);
        if home == Home::Named && node.kind != FileKind::Directory {
            state.lower = LowerPart::None;
        }
        pinned
    }
}

fn origin<'a>(
    node: &Node,
    metadata: Metadata,
    xattrs: Vec<Xattr>,
    target: &'a [u8],
    content: Content<'a>,
    keep_bytes: u64,
) -> Origin<'a> {
    Origin { metadata, xattrs, ino: node.ino, target, content, keep_bytes, later: None }
}
