//! What an image is by definition: its layers unpacked one after the other into a tree. The model that the union,
//! and everything on it, is compared with.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use crate::layer::fake::FakeLayer;
use crate::model::FileKind;

/// Names that trees are made of: few, so that layers meet.
pub(crate) const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What a layer has under a name.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Dir(Dir),
    /// A file; those of one layer with the same group are one file.
    File {
        fill: u8,
        group: Option<u8>,
    },
    Symlink(u8),
    Fifo,
    Whiteout,
    /// A hard link to a path of a layer below.
    Below(String),
}

/// A directory of a layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dir {
    pub(crate) mode: u16,
    pub(crate) implied: bool,
    pub(crate) opaque: bool,
    pub(crate) names: BTreeMap<&'static str, Item>,
}

/// An object of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: FileKind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of a file, target of a symlink.
    pub(crate) content: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of a directory.
    pub(crate) names: BTreeMap<String, usize>,
}

/// A tree; node 0 is its root. Nodes without a name stay, because somebody may have them open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    links: Links,
}

/// Which hard links of the layers make one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    All,
    /// Those within one layer; links into a layer below are copies.
    InLayers,
    /// None: all are copies.
    Copies,
}

/// The layers unpacked, base first.
pub(crate) fn unpack(layers: &[Dir], links: Links) -> Tree {
    let mut tree = Tree { nodes: vec![Node::new(FileKind::Directory, 0o755, b"")], links };
    for layer in layers {
        let below = tree.clone();
        tree.erase(0, layer);
        tree.add(0, layer, &below, &mut HashMap::new());
    }
    tree
}

impl Node {
    pub(crate) fn new(kind: FileKind, mode: u16, content: &[u8]) -> Self {
        let (content, xattrs, names) = (content.to_vec(), BTreeMap::new(), BTreeMap::new());
        Self { kind, mode, uid: 0, gid: 0, content, xattrs, names }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

impl Tree {
    pub(crate) fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// What a path leads to, no symlink followed.
    pub(crate) fn at(&self, path: &str) -> Option<usize> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names.try_fold(0, |here, name| self.nodes[here].names.get(name).copied())
    }

    /// Whiteouts and opaque directories act first, on what is below.
    fn erase(&mut self, at: usize, dir: &Dir) {
        if dir.opaque {
            self.nodes[at].names.clear();
        }
        for (name, item) in &dir.names {
            match (item, self.nodes[at].names.get(*name).copied()) {
                (Item::Whiteout, _) => {
                    self.nodes[at].names.remove(*name);
                }
                (Item::Dir(dir), Some(id)) if self.nodes[id].is_dir() => self.erase(id, dir),
                _ => {}
            }
        }
    }

    fn add(&mut self, at: usize, dir: &Dir, below: &Self, groups: &mut HashMap<u8, usize>) {
        if !dir.implied {
            self.nodes[at].mode = dir.mode;
            self.nodes[at].xattrs = dir.xattrs();
        }
        for (name, item) in &dir.names {
            let id = match item {
                Item::Whiteout => continue,
                Item::Dir(inner) => {
                    let merged = self.nodes[at].names.get(*name).filter(|id| self.nodes[**id].is_dir());
                    let id = merged.copied();
                    let id = id.unwrap_or_else(|| self.push(Node::new(FileKind::Directory, 0o755, b"")));
                    self.add(id, inner, below, groups);
                    id
                }
                Item::Below(path) => match below.at(path).filter(|id| !below.nodes[*id].is_dir()) {
                    Some(id) if self.links == Links::All => id,
                    Some(id) => self.push(below.nodes[id].clone()),
                    None => {
                        self.nodes[at].names.remove(*name);
                        continue;
                    }
                },
                Item::File { group: Some(group), .. } if groups.contains_key(group) => match self.links {
                    Links::Copies => self.push(self.nodes[groups[group]].clone()),
                    Links::All | Links::InLayers => groups[group],
                },
                Item::File { fill, group } => {
                    let id = self.push(Node::new(FileKind::Regular, 0o644, &content(*fill)));
                    self.nodes[id].xattrs = file_xattrs(*fill);
                    group.map(|group| groups.insert(group, id));
                    id
                }
                Item::Symlink(to) => self.push(Node::new(FileKind::Symlink, 0o777, &target(*to))),
                Item::Fifo => self.push(Node::new(FileKind::Fifo, 0o640, b"")),
            };
            self.nodes[at].names.insert((*name).to_owned(), id);
        }
    }
}

impl Dir {
    /// Odd directories have an attribute.
    fn xattrs(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let some = self.mode == 0o700;
        some.then(|| (b"user.dir".to_vec(), b"odd".to_vec())).into_iter().collect()
    }

    /// The same as a layer.
    pub(crate) fn to_layer(&self) -> FakeLayer {
        let mut groups = HashMap::new();
        self.put_in(FakeLayer::new(), "", &mut groups)
    }

    fn put_in(&self, mut layer: FakeLayer, path: &str, groups: &mut HashMap<u8, String>) -> FakeLayer {
        layer = if self.implied { layer.implied(path) } else { layer.dir(path, self.mode) };
        if self.opaque {
            layer = layer.opaque(path);
        }
        if !self.implied {
            for (key, value) in self.xattrs() {
                layer = layer.xattr(path, std::str::from_utf8(&key).unwrap(), &value);
            }
        }
        for (name, item) in &self.names {
            let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}/{name}") };
            layer = match item {
                Item::Dir(dir) => dir.put_in(layer, &path, groups),
                Item::Whiteout => layer.whiteout(&path),
                Item::Below(target) => layer.link_below(&path, target),
                Item::Symlink(to) => layer.leaf(&path, FileKind::Symlink, 0o777, &target(*to)),
                Item::Fifo => layer.leaf(&path, FileKind::Fifo, 0o640, b""),
                Item::File { group: Some(group), .. } if groups.contains_key(group) => {
                    layer.link(&path, &groups[group])
                }
                Item::File { fill, group } => {
                    group.map(|group| groups.insert(group, path.clone()));
                    let mut layer = layer.file(&path, &content(*fill));
                    for (key, value) in file_xattrs(*fill) {
                        layer = layer.xattr(&path, std::str::from_utf8(&key).unwrap(), &value);
                    }
                    layer
                }
            };
        }
        layer
    }
}

fn content(fill: u8) -> Vec<u8> {
    vec![fill; usize::from(fill) * 3000]
}

fn file_xattrs(fill: u8) -> BTreeMap<Vec<u8>, Vec<u8>> {
    (fill == 1).then(|| (b"user.a".to_vec(), b"lower".to_vec())).into_iter().collect()
}

fn target(to: u8) -> Vec<u8> {
    vec![b'0' + to % 10; 1 + usize::from(to)]
}

/// A path of up to three names.
pub(crate) fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(&NAMES[..]), 1..=3).prop_map(|names| names.join("/"))
}

/// A layer; `below`: with hard links to layers below.
pub(crate) fn layer(below: bool) -> impl Strategy<Value = Dir> {
    let leaf = prop_oneof![
        4 => (0..4_u8).prop_map(|fill| Item::File { fill, group: None }),
        3 => (0..3_u8, 1..3_u8).prop_map(|(group, fill)| Item::File { fill, group: Some(group) }),
        1 => (0..3_u8).prop_map(Item::Symlink),
        1 => Just(Item::Fifo),
        3 => Just(Item::Whiteout),
        2 => path().prop_map(move |path| if below { Item::Below(path) } else { Item::Whiteout }),
    ];
    let item = leaf.prop_recursive(3, 20, 4, |inner| dir(inner).prop_map(Item::Dir));
    let root = proptest::collection::btree_map(proptest::sample::select(&NAMES[..]), item, 0..=4);
    let opaque = proptest::bool::weighted(0.1);
    (root, opaque).prop_map(|(names, opaque)| Dir { mode: 0o755, implied: false, opaque, names })
}

fn dir(inner: BoxedStrategy<Item>) -> impl Strategy<Value = Dir> {
    let names = proptest::collection::btree_map(proptest::sample::select(&NAMES[..]), inner, 0..4);
    let mode = proptest::sample::select(&[0o755_u16, 0o700, 0o1777][..]);
    let weighted = proptest::bool::weighted;
    (names, mode, weighted(0.3), weighted(0.2)).prop_map(|(names, mode, implied, opaque)| Dir {
        mode,
        implied,
        opaque,
        names,
    })
}
