//! Attributes: what stat(2) shows.

use super::node::{Home, LowerPart, Node, State};
use super::{Fs, FsError};
use crate::model::{FileKind, Ino, Metadata, Timestamp};
use crate::upper::UpperAttr;

/// Everything that stat(2) says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Type, mode, owner, size, mtime.
    pub metadata: Metadata,
    /// Time of last access; of an object of a layer, when this mount first read it, else its mtime.
    pub atime: Timestamp,
    /// Time of last change; of an object of a layer, its mtime.
    pub ctime: Timestamp,
    /// Names that lead to it. Of a directory with a part in the layers 1, as on filesystems that do not count
    /// subdirectories (kernel overlayfs does the same); of any other what the filesystem below counts.
    pub nlink: u32,
    /// Allocated 512-byte blocks.
    pub blocks: u64,
}

/// What a directory says its size is: one block, as ext4; listings are not stored anywhere.
const DIR_BYTES: u64 = 4096;

impl Fs {
    /// The attributes of a node.
    ///
    /// # Errors
    /// [`FsError`]
    pub fn getattr(&self, ino: Ino) -> Result<Attr, FsError> {
        let node = self.node(ino)?;
        self.attr_of(&node)
    }

    pub(super) fn attr_of(&self, node: &Node) -> Result<Attr, FsError> {
        let _using = self.using_layers();
        // Before the upper is asked: a copy-up in between forgets where the original was.
        let state = node.state().clone();
        match self.pin(node)? {
            Some(pinned) => {
                // Not the times of a moment when a copy gets its place there.
                let names = (node.kind == FileKind::Directory).then(|| node.names_shared());
                let attr = self.upper_attr(node, &pinned)?;
                drop(names);
                Ok(self.attr_from(node, &attr))
            }
            None => self.lower_attr(node, &state),
        }
    }

    /// The attributes of a node whose object in the upper has just been looked at.
    pub(super) fn attr_from(&self, node: &Node, upper: &UpperAttr) -> Attr {
        let state = node.state().clone();
        let metadata = self.shown(upper.metadata);
        // What a layer keeps for it counts too: else it would look like a file full of holes.
        let shared = node.sharing().as_ref().map_or(0, |sharing| sharing.partial.map.lower_bytes());
        let shared_blocks = shared.min(metadata.size).div_ceil(512);
        Attr {
            ino: node.ino,
            metadata,
            atime: state.read_at.map_or(upper.atime, |read_at| read_at.max(upper.atime)),
            ctime: upper.ctime,
            nlink: nlink(&state, node.kind, upper.nlink),
            blocks: upper.blocks.max(shared_blocks),
        }
    }

    fn lower_attr(&self, node: &Node, state: &State) -> Result<Attr, FsError> {
        let metadata = match &state.lower {
            LowerPart::Leaf(lower, _) => self.union.metadata(*lower)?,
            LowerPart::Dir(dir) => self.union.dir_metadata(dir)?,
            LowerPart::None => return Err(FsError::Lost(node.ino)),
        };
        let attr = self.attr_of_layer(node.ino, metadata, nlink(state, node.kind, 0));
        Ok(Attr { atime: state.read_at.unwrap_or(attr.atime), ..attr })
    }

    /// The attributes of an object of a layer that nobody has read.
    pub(super) fn attr_of_layer(&self, ino: Ino, metadata: Metadata, nlink: u32) -> Attr {
        let metadata = self.shown(metadata);
        let (mtime, blocks) = (metadata.mtime, metadata.size.div_ceil(512));
        Attr { ino, metadata, atime: mtime, ctime: mtime, nlink, blocks }
    }

    /// The metadata as this mount shows it.
    fn shown(&self, metadata: Metadata) -> Metadata {
        let size = if metadata.kind == FileKind::Directory { DIR_BYTES } else { metadata.size };
        Metadata { size, ..self.owners.shown(metadata) }
    }
}

/// `links` counts those in the upper's filesystem, the link index included.
fn nlink(state: &State, kind: FileKind, links: u32) -> u32 {
    if kind == FileKind::Directory {
        // All that is in a directory without layers is in the upper, so the count below is true.
        return match &state.lower {
            _ if state.removed => 0,
            LowerPart::Dir(lower) if !lower.parts.is_empty() => 1,
            _ => links.max(1),
        };
    }
    let lower_names = if let LowerPart::Leaf(_, names) = &state.lower { *names } else { 0 };
    match &state.upper {
        None => lower_names,
        Some(part) => match part.home {
            Home::Named => links,
            Home::Index => links.saturating_sub(1) + lower_names,
            Home::Kept(_) => links.saturating_sub(1),
        },
    }
}
