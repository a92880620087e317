//! The objects of a layer while its tar is being read: applies entries in the order of the archive, by the rules of
//! image-spec layer.md, and says at the end what is under every name.
//!
//! Replaced objects stay in `nodes` without a name; only what can be reached from the root is written.

use std::collections::{HashMap, HashSet};

use super::budget::{Budget, Cost};
use super::walk::{SYMLINKS_MAX, Walk, normalise};
use crate::model::limits::{DEPTH_MAX, LAYER_ENTRIES_MAX, LINK_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX};
use crate::model::whiteout::{self, Meaning};
use crate::model::{DeviceId, Timestamp};

/// Position in [`Tree::nodes`].
pub(super) type NodeId = u32;
/// Position in [`Strings::places`].
pub(super) type StringId = u32;
/// The root directory.
pub(super) const ROOT: NodeId = 0;

/// Name and value of an extended attribute.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// What every kind of object has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    /// Sorted by name.
    pub(crate) xattrs: Vec<Xattr>,
}

impl Attributes {
    /// Those of a directory that the layer does not mention.
    pub(super) fn implied() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: Vec::new() }
    }
}

/// What an entry of the tar is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    File { size: u64, data: Data },
    Directory,
    Symlink(Vec<u8>),
    CharDevice(DeviceId),
    BlockDevice(DeviceId),
    Fifo,
    HardLink(Vec<u8>),
}

/// Where a file's content is in the tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Contiguous(u64),
    Sparse(Vec<Hunk>),
}

/// A stretch of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hunk {
    pub(crate) file_offset: u64,
    pub(crate) len: u64,
    pub(crate) tar_offset: u64,
}

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) attributes: Attributes,
    pub(super) kind: NodeKind,
}

/// What it is.
#[derive(Clone, Debug)]
pub(super) enum NodeKind {
    File { size: u64, data: Data },
    Directory { implied: bool, opaque: bool },
    Symlink(StringId),
    CharDevice(DeviceId),
    BlockDevice(DeviceId),
    Fifo,
}

/// What is under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Child {
    Node(NodeId),
    /// A hard link to a path (position in [`Tree::pending`]) that is not there, or not there yet.
    Pending(u32),
    /// Only in the answer of [`Tree::finish`].
    Whiteout,
}

/// Every name once.
#[derive(Debug, Default)]
pub(super) struct Strings {
    pub(super) heap: Vec<u8>,
    places: Vec<(u32, u32)>,
    known: HashMap<Box<[u8]>, StringId>,
}

impl Strings {
    fn intern(&mut self, text: &[u8], budget: &Budget) -> Result<StringId, String> {
        if let Some(id) = self.known.get(text) {
            return Ok(*id);
        }
        budget.spend(Cost::NameBytes, text.len())?;
        let id = self.push(text)?;
        self.known.insert(text.into(), id);
        Ok(id)
    }

    fn push(&mut self, text: &[u8]) -> Result<StringId, String> {
        let full = |_| "more than 4 GiB of names".to_owned();
        let offset = u32::try_from(self.heap.len()).map_err(full)?;
        let len = u32::try_from(text.len()).map_err(full)?;
        self.heap.extend_from_slice(text);
        self.places.push((offset, len));
        u32::try_from(self.places.len() - 1).map_err(full)
    }

    /// Offset and length in the heap.
    pub(super) fn place(&self, id: StringId) -> (u32, u32) {
        self.places.get(to_usize(id)).copied().unwrap_or_default()
    }

    pub(super) fn get(&self, id: StringId) -> &[u8] {
        let (offset, len) = self.place(id);
        self.heap.get(to_usize(offset)..to_usize(offset) + to_usize(len)).unwrap_or_default()
    }
}

/// The layer as read so far.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) strings: Strings,
    pub(super) pending: Vec<StringId>,
    names: HashMap<(NodeId, StringId), Child>,
    whiteouts: HashSet<(NodeId, StringId)>,
    entries: u64,
    pub(super) budget: Budget,
}

/// One name of the finished tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameOf {
    pub(super) dir: NodeId,
    pub(super) name: StringId,
    pub(super) child: Child,
}

impl Tree {
    pub(super) fn new() -> Self {
        let mut tree = Self {
            nodes: Vec::new(),
            strings: Strings::default(),
            pending: Vec::new(),
            names: HashMap::new(),
            whiteouts: HashSet::new(),
            entries: 0,
            budget: Budget::new(),
        };
        tree.nodes.push(implied_directory());
        tree
    }

    /// Applies one entry. The error is for people.
    pub(super) fn apply(&mut self, path: &[u8], attributes: Attributes, body: Body) -> Result<(), String> {
        self.entries += 1;
        if self.entries > LAYER_ENTRIES_MAX {
            return Err(format!("more than {LAYER_ENTRIES_MAX} entries"));
        }
        // Two allocations and a pointer to each, besides what is in them.
        let xattr_bytes = |xattr: &Xattr| xattr.0.len() + xattr.1.len() + 64;
        self.budget.spend(Cost::XattrBytes, attributes.xattrs.iter().map(xattr_bytes).sum())?;
        if path.len() >= PATH_BYTES_MAX {
            return Err(format!("path is longer than {} bytes", PATH_BYTES_MAX - 1));
        }
        let components = normalise(path);
        if components.len() > DEPTH_MAX {
            return Err(format!("path is deeper than {DEPTH_MAX} directories"));
        }
        let Some((last, parents)) = components.split_last() else {
            return self.apply_root(attributes, &body);
        };
        for parent in parents {
            match whiteout::meaning(parent).map_err(|error| error.to_string())? {
                Meaning::Object(_) | Meaning::AufsMeta => {}
                // What is inside of something that is hidden is not there either.
                Meaning::Whiteout(_) | Meaning::Opaque => return Ok(()),
            }
        }
        match whiteout::meaning(last).map_err(|error| error.to_string())? {
            Meaning::Opaque => {
                let dir = self.make_parents(parents)?;
                if let Some(Node { kind: NodeKind::Directory { opaque, .. }, .. }) =
                    self.nodes.get_mut(to_usize(dir))
                {
                    *opaque = true;
                }
            }
            Meaning::Whiteout(hidden) => {
                let dir = self.make_parents(parents)?;
                let name = self.strings.intern(hidden.as_bytes(), &self.budget)?;
                self.whiteouts.insert((dir, name));
            }
            Meaning::Object(_) | Meaning::AufsMeta => {
                let dir = self.make_parents(parents)?;
                let name = self.strings.intern(last, &self.budget)?;
                self.put(dir, name, attributes, body)?;
            }
        }
        Ok(())
    }

    fn apply_root(&mut self, attributes: Attributes, body: &Body) -> Result<(), String> {
        if *body != Body::Directory {
            return Err("the root is not a directory".to_owned());
        }
        self.describe_directory(ROOT, attributes);
        Ok(())
    }

    fn describe_directory(&mut self, id: NodeId, attributes: Attributes) {
        if let Some(node) = self.nodes.get_mut(to_usize(id)) {
            node.attributes = attributes;
            if let NodeKind::Directory { implied, .. } = &mut node.kind {
                *implied = false;
            }
        }
    }

    /// The later entry wins; a directory over a directory only changes its attributes.
    fn put(&mut self, dir: NodeId, name: StringId, attributes: Attributes, body: Body) -> Result<(), String> {
        let kind = match body {
            Body::Directory => {
                if let Some(&Child::Node(id)) = self.names.get(&(dir, name))
                    && self.is_directory(id)
                {
                    self.describe_directory(id, attributes);
                    return Ok(());
                }
                NodeKind::Directory { implied: false, opaque: false }
            }
            Body::HardLink(target) => {
                let child = self.link(&target)?;
                self.names.insert((dir, name), child);
                return Ok(());
            }
            Body::Symlink(target) => {
                if target.is_empty() || target.len() > LINK_BYTES_MAX {
                    return Err(format!("symlink target of {} bytes", target.len()));
                }
                NodeKind::Symlink(self.strings.intern(&target, &self.budget)?)
            }
            Body::File { size, data } => NodeKind::File { size, data },
            Body::CharDevice(device) => NodeKind::CharDevice(device),
            Body::BlockDevice(device) => NodeKind::BlockDevice(device),
            Body::Fifo => NodeKind::Fifo,
        };
        let id = self.add(Node { attributes, kind })?;
        self.names.insert((dir, name), Child::Node(id));
        Ok(())
    }

    fn add(&mut self, node: Node) -> Result<NodeId, String> {
        self.budget.spend(Cost::Objects, 1)?;
        if let NodeKind::File { data: Data::Sparse(hunks), .. } = &node.kind {
            self.budget.spend(Cost::Hunks, hunks.len())?;
        }
        let id = u32::try_from(self.nodes.len()).map_err(|_| "too many objects".to_owned())?;
        self.nodes.push(node);
        Ok(id)
    }

    fn is_directory(&self, id: NodeId) -> bool {
        matches!(self.nodes.get(to_usize(id)), Some(Node { kind: NodeKind::Directory { .. }, .. }))
    }

    fn link(&mut self, target: &[u8]) -> Result<Child, String> {
        if target.len() >= PATH_BYTES_MAX {
            return Err("hard link target is too long".to_owned());
        }
        let components = normalise(target);
        match self.find(&components)? {
            Some(Child::Node(id)) if self.is_directory(id) => Err("hard link to a directory".to_owned()),
            // A link to one that is not resolved yet is a link to the same.
            Some(found) => Ok(found),
            None => {
                let path = self.strings.intern(&components.join(&b'/'), &self.budget)?;
                self.pending.push(path);
                let number = u32::try_from(self.pending.len() - 1);
                Ok(Child::Pending(number.map_err(|_| "too many hard links".to_owned())?))
            }
        }
    }

    /// What is under a path; symlinks are followed except the last, nothing is created.
    fn find(&self, components: &[&[u8]]) -> Result<Option<Child>, String> {
        let mut walk = Walk::new(components);
        let mut found = Child::Node(ROOT);
        while let Some(component) = walk.next() {
            let dir = walk.dir();
            let name = self.strings.known.get(&component[..]);
            let Some(&child) = name.and_then(|name| self.names.get(&(dir, *name))) else { return Ok(None) };
            found = child;
            if walk.is_done() {
                break;
            }
            let Child::Node(id) = found else { return Ok(None) };
            match self.nodes.get(to_usize(id)).map(|node| &node.kind) {
                Some(NodeKind::Directory { .. }) => walk.enter(id),
                Some(NodeKind::Symlink(target)) => {
                    let target = self.strings.get(*target);
                    self.budget.spend(Cost::FollowedBytes, target.len())?;
                    if walk.follow(target).is_err() {
                        return Ok(None);
                    }
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// The directory that these components name; symlinks of this layer are followed, what is missing is implied.
    fn make_parents(&mut self, components: &[&[u8]]) -> Result<NodeId, String> {
        let mut walk = Walk::new(components);
        while let Some(component) = walk.next() {
            if component.len() > NAME_BYTES_MAX {
                return Err(format!("name is longer than {NAME_BYTES_MAX} bytes"));
            }
            let dir = walk.dir();
            let name = self.strings.intern(&component, &self.budget)?;
            let node = match self.names.get(&(dir, name)) {
                Some(&Child::Node(id)) => self.nodes.get(to_usize(id)).map(|node| (id, &node.kind)),
                _ => None,
            };
            match node {
                Some((id, NodeKind::Directory { .. })) => walk.enter(id),
                Some((_, NodeKind::Symlink(target))) => {
                    let target = self.strings.get(*target);
                    self.budget.spend(Cost::FollowedBytes, target.len())?;
                    walk.follow(target)?;
                }
                // A file in the place of a directory: the later entry wins.
                _ => {
                    let id = self.add(implied_directory())?;
                    self.names.insert((dir, name), Child::Node(id));
                    walk.enter(id);
                }
            }
            if walk.stack.len() > DEPTH_MAX {
                return Err(format!("path is deeper than {DEPTH_MAX} directories"));
            }
        }
        Ok(walk.dir())
    }

    /// Resolves hard links to later entries, then says what is under every name, sorted by directory and name.
    pub(super) fn finish(&mut self) -> Result<Vec<NameOf>, String> {
        self.resolve_pending()?;
        let mut names: Vec<NameOf> =
            self.names.iter().map(|(&(dir, name), &child)| NameOf { dir, name, child }).collect();
        for &(dir, name) in &self.whiteouts {
            match self.names.get(&(dir, name)) {
                // The directory that takes the place of what is hidden does not merge with it.
                Some(&Child::Node(id)) => {
                    if let Some(Node { kind: NodeKind::Directory { opaque, .. }, .. }) =
                        self.nodes.get_mut(to_usize(id))
                    {
                        *opaque = true;
                    }
                }
                Some(_) => {}
                None => names.push(NameOf { dir, name, child: Child::Whiteout }),
            }
        }
        let strings = &self.strings;
        // Bookkeeping of aufs is only here for the hard links into it.
        names.retain(|name| {
            name.child == Child::Whiteout
                || matches!(whiteout::meaning(strings.get(name.name)), Ok(Meaning::Object(_)))
        });
        names.sort_unstable_by(|a, b| {
            a.dir.cmp(&b.dir).then_with(|| strings.get(a.name).cmp(strings.get(b.name)))
        });
        Ok(names)
    }

    /// Until nothing changes; every pass resolves a link or is the last.
    fn resolve_pending(&mut self) -> Result<(), String> {
        let mut open: Vec<((NodeId, StringId), u32)> = self
            .names
            .iter()
            .filter_map(|(&key, child)| match child {
                Child::Pending(number) => Some((key, *number)),
                _ => None,
            })
            .collect();
        open.sort_unstable();
        // Another pass only for targets behind a symlink that itself is a hard link to a later entry.
        for _ in 0..SYMLINKS_MAX {
            let before = open.len();
            let mut ends = HashMap::new();
            let mut left = Vec::new();
            for (key, number) in open {
                let end = self.end_of(number, &mut ends)?;
                self.names.insert(key, end);
                if let Child::Pending(number) = end {
                    left.push((key, number));
                }
            }
            open = left;
            if open.len() == before {
                break;
            }
        }
        Ok(())
    }

    /// What a link leads to, over any number of links to links; in `ends` what is known already.
    fn end_of(&self, number: u32, ends: &mut HashMap<u32, Child>) -> Result<Child, String> {
        let mut way = Vec::new();
        let mut at = number;
        let end = loop {
            if let Some(end) = ends.get(&at) {
                break *end;
            }
            way.push(at);
            // Should the way come back here: nothing in this layer is at its end, so it is below.
            ends.insert(at, Child::Pending(at));
            let path = self.pending.get(to_usize(at)).copied().unwrap_or_default();
            let target = self.strings.get(path);
            match self.find(&normalise(target))? {
                Some(Child::Node(id)) if self.is_directory(id) => {
                    return Err(format!("hard link to the directory \"{}\"", target.escape_ascii()));
                }
                Some(Child::Pending(next)) => at = next,
                Some(end) => break end,
                None => break Child::Pending(at),
            }
        };
        ends.extend(way.into_iter().map(|number| (number, end)));
        Ok(end)
    }
}

fn implied_directory() -> Node {
    Node { attributes: Attributes::implied(), kind: NodeKind::Directory { implied: true, opaque: false } }
}

/// Lossless: layerfs runs where pointers have 32 bits at least.
pub(super) fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tree: &mut Tree, path: &str, xattrs: &[Xattr]) -> Result<(), String> {
        let attributes = Attributes { xattrs: xattrs.to_vec(), ..Attributes::implied() };
        let data = Data::Sparse(vec![Hunk { file_offset: 0, len: 1, tar_offset: 0 }; 2]);
        tree.apply(path.as_bytes(), attributes, Body::File { size: 1, data })
    }

    /// Short headers that ask for much: each ends the build before memory does.
    #[test]
    fn everything_that_is_kept_has_a_limit() {
        let fill = |cost, amount, paths: &dyn Fn(usize) -> String| {
            let mut tree = Tree::new();
            tree.budget.leave(cost, amount);
            tree.apply(b"s", Attributes::implied(), Body::Symlink(b"a/../b/../c".to_vec())).unwrap();
            let xattrs = [(b"user.a".to_vec(), vec![7; 30])];
            (0..1000).find_map(|number| file(&mut tree, &paths(number), &xattrs).err()).unwrap_or_default()
        };
        let deep = |number: usize| format!("{number}/{}x", "d/".repeat(50));
        assert!(fill(Cost::Objects, 10_000, &deep).contains("objects"));
        assert!(fill(Cost::NameBytes, 1000, &deep).contains("bytes of names"));
        assert!(fill(Cost::XattrBytes, 50_000, &deep).contains("extended attributes"));
        assert!(fill(Cost::Hunks, 1000, &deep).contains("extents"));
        assert!(fill(Cost::FollowedBytes, 5000, &|number| format!("s/{number}")).contains("symlinks"));
        assert_eq!(fill(Cost::Objects, 100_000, &deep), "");
    }
}
