//! One object of an image as it is listed.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::bytes_text::{self, Quoting};
use crate::layer::LayerError;
use crate::model::rfc3339::{self, Precision};
use crate::model::{FileKind, Metadata};
use crate::union::{LinkCounts, Lower, Union};

/// An object with what stat(2) says of it.
///
/// There is one for each name of a directory at a time, and a hostile image has long paths and targets: so the path is
/// put together, and the target read, when they are shown.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it is, relative to the root, without symlinks: shared by all that is there.
    dir: Arc<[u8]>,
    /// The last name of its path; nothing for the root.
    name: Box<[u8]>,
    /// What is at that path.
    pub lower: Lower,
    /// What stat(2) says, with the image's own ids.
    pub metadata: Metadata,
}

impl Entry {
    /// Looks at what is at a path.
    pub(super) fn of(union: &Union, path: &[u8], lower: Lower) -> Result<Self, LayerError> {
        let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        Self::below(union, &Arc::from(dir), name, lower)
    }

    /// Looks at what has a name in a directory.
    pub(super) fn below(
        union: &Union,
        dir: &Arc<[u8]>,
        name: &[u8],
        lower: Lower,
    ) -> Result<Self, LayerError> {
        let metadata = match &lower {
            Lower::Dir(dir) => union.dir_metadata(dir)?,
            Lower::Leaf(leaf, _) | Lower::Link(leaf, _) => union.metadata(*leaf)?,
        };
        Ok(Self { dir: Arc::clone(dir), name: name.into(), lower, metadata })
    }

    /// Its path, relative to the root, without symlinks.
    pub(super) fn path(&self) -> Vec<u8> {
        if self.dir.is_empty() { self.name.to_vec() } else { [&self.dir, &b"/"[..], &self.name].concat() }
    }

    /// Where it leads, if it is a symlink.
    fn target(&self, union: &Union) -> Result<Option<Vec<u8>>, LayerError> {
        match self.lower {
            Lower::Leaf(leaf, FileKind::Symlink) | Lower::Link(leaf, FileKind::Symlink) => {
                union.read_link(leaf).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Names that lead to it; 1 for directories, and for a name that an upper layer gave it.
    pub(super) fn links(&self, union: &Union, counts: &LinkCounts) -> Result<u32, LayerError> {
        match self.lower {
            Lower::Leaf(leaf, _) if union.names(leaf)? > 1 => counts.visible(union, leaf),
            _ => Ok(1),
        }
    }

    /// The last name of its path; nothing for the root.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What it is called and, of a symlink, where it leads.
    pub(super) fn label(&self, union: &Union, name: &[u8], quoting: Quoting) -> Result<Vec<u8>, LayerError> {
        let mut label = quoting.quoted(name);
        if let Some(target) = self.target(union)? {
            label.extend_from_slice(b" -> ");
            label.extend(quoting.quoted(&target));
        }
        Ok(label)
    }

    /// The columns before the name.
    pub(super) fn columns(&self, links: u32) -> [String; 6] {
        let metadata = &self.metadata;
        let size = match metadata.kind {
            FileKind::CharDevice | FileKind::BlockDevice => {
                format!("{}, {}", metadata.rdev.major, metadata.rdev.minor)
            }
            _ => metadata.size.to_string(),
        };
        let time = rfc3339::text(metadata.mtime, Precision::Seconds);
        let ids = [metadata.uid.to_string(), metadata.gid.to_string()];
        let [uid, gid] = ids;
        [mode_text(metadata), links.to_string(), uid, gid, size, time]
    }

    /// The object as JSON. Names that are no text are there a second time, exactly, under `*_base64`.
    pub(super) fn json(&self, union: &Union, counts: &LinkCounts) -> Result<Map<String, Value>, LayerError> {
        let metadata = &self.metadata;
        let mut object = Map::new();
        bytes_text::put(&mut object, "path", &[b"/", &self.path()[..]].concat());
        bytes_text::put(&mut object, "name", self.name());
        if let Some(target) = self.target(union)? {
            bytes_text::put(&mut object, "target", &target);
        }
        let links = self.links(union, counts)?;
        let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
        set("type", kind_word(metadata.kind).into());
        set("mode", format!("{:04o}", metadata.mode).into());
        set("uid", metadata.uid.into());
        set("gid", metadata.gid.into());
        set("links", links.into());
        set("mtime", rfc3339::text(metadata.mtime, Precision::Nanoseconds).into());
        match metadata.kind {
            FileKind::CharDevice | FileKind::BlockDevice => {
                set("device", json!({ "major": metadata.rdev.major, "minor": metadata.rdev.minor }));
            }
            _ => {
                set("size", metadata.size.into());
            }
        }
        if let Some(layer) = self.layer() {
            set("layer", layer.into());
        }
        Ok(object)
    }

    /// The layer that it comes from, counted from 1 at the base; of a directory the topmost.
    fn layer(&self) -> Option<u32> {
        let lower = match &self.lower {
            Lower::Leaf(lower, _) | Lower::Link(lower, _) => *lower,
            Lower::Dir(dir) => dir.looks.or(dir.parts.first().copied())?,
        };
        Some(u32::from(lower.layer.0) + 1)
    }
}

/// In the words of stat(1).
pub(super) fn kind_word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    }
}

/// Type and permissions in ten letters (ls(1), strmode(3)).
pub(super) fn mode_text(metadata: &Metadata) -> String {
    let kind = match metadata.kind {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
    };
    let mut text = String::from(kind);
    for (shift, special, letters) in
        [(6, 0o4000, ['s', 'S']), (3, 0o2000, ['s', 'S']), (0, 0o1000, ['t', 'T'])]
    {
        let bits = metadata.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (metadata.mode & special != 0, bits & 1 != 0) {
            (true, true) => letters[0],
            (true, false) => letters[1],
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}
