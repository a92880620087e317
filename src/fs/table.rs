//! The table of nodes: which numbers the kernel holds, and under which names they were last seen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::leaves::Leaves;
use super::node::{LowerPart, Node};
use super::sharing::Sharing;
use crate::model::{EntryId, FileKind, FileName, Ino, LayerOrdinal, Name};
use crate::union::LowerRef;

/// A name that leads to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) parent: Ino,
    pub(super) name: FileName,
}

impl Place {
    /// Whether it is this one.
    pub(super) fn is(&self, parent: Ino, name: Name<'_>) -> bool {
        self.parent == parent && self.name.as_name() == name
    }
}

/// What identifies an object whose own number does not fit into an [`Ino`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Foreign {
    Lower(LowerRef),
    /// A path of the layers that is a hard link into a layer below.
    Link(Vec<u8>),
    Upper(u64),
    /// An object of the upper, by its number there, that says it is the copy of this one, as another object is already.
    Twin(Ino, u64),
}

/// What became of an object that was to be entered.
#[derive(Debug)]
pub(super) enum Entered {
    /// It is in, or was already.
    Node(Arc<Node>),
    /// Nothing has its number yet.
    Unknown,
    /// Another object has its number.
    Taken,
}

/// Nodes for which there is always room: so few are not worth giving back.
const CAPACITY_KEPT: usize = 4096;

/// All nodes. One lock, never held across I/O.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    slots: HashMap<Ino, Slot>,
    /// What has no slot, because nothing is to be remembered of it but its name.
    leaves: Leaves,
    numbers: HashMap<Foreign, Ino>,
    /// Numbers of copied-up objects that cannot carry them as a mark, by the inode number of the copy.
    originals: HashMap<u64, Ino>,
}

/// What became of a forgotten number.
#[derive(Debug)]
pub(super) struct Forgotten {
    /// The nodes that are gone now.
    pub(super) gone: Vec<Arc<Node>>,
    /// The table has become a good deal smaller: there is memory to give back.
    pub(super) shrunk: bool,
}

#[derive(Debug)]
struct Slot {
    node: Arc<Node>,
    /// How often the kernel was given the number and has not given it back (FUSE `nlookup`).
    lookups: u64,
    /// How many places of other nodes are in this one.
    children: u64,
    /// Known names; a directory has one at most.
    places: Vec<Place>,
    /// Its key in `originals`. Nothing else can have that number while the node lives: the copy has a name or is pinned.
    copy: Option<u64>,
}

impl Table {
    /// Puts the root in, for ever.
    pub(super) fn with_root(root: Node) -> Self {
        let table = Self::default();
        let slot = Slot { lookups: 1, ..Slot::new(root) };
        table.lock().slots.insert(Ino::ROOT, slot);
        table
    }

    /// The node of a number.
    pub(super) fn get(&self, ino: Ino) -> Option<Arc<Node>> {
        let mut inner = self.lock();
        // Nearly always there, so not looked for among the leaves first.
        match inner.slots.get(&ino) {
            Some(slot) => Some(Arc::clone(&slot.node)),
            None => inner.slot(ino).map(|slot| Arc::clone(&slot.node)),
        }
    }

    /// What of the layers the object with a number was first found as ([`Node::origin`]), if the number is known.
    pub(super) fn origin(&self, ino: Ino) -> Option<Option<LowerRef>> {
        let inner = self.lock();
        let of_leaf = || inner.leaves.contains(ino).then(|| LowerRef::of_number(ino));
        inner.slots.get(&ino).map(|slot| slot.node.origin).or_else(of_leaf)
    }

    /// Counts one more lookup of an object of a layer whose number says which ([`LowerRef::of_number`]), if it has no
    /// node and is known under this name. That it is not a directory and of one name is the caller's to know.
    pub(super) fn enter_leaf_again(&self, ino: Ino, parent: Ino, name: Name<'_>) -> bool {
        self.lock().leaves.again(ino, parent, name)
    }

    /// The same, of an object that may not be known yet. It gets a node when one is asked for.
    pub(super) fn enter_leaf(&self, ino: Ino, kind: FileKind, parent: Ino, name: Name<'_>) -> bool {
        let mut inner = self.lock();
        if inner.slots.contains_key(&ino) || inner.leaves.contains(ino) {
            return inner.leaves.again(ino, parent, name);
        }
        inner.leaves.insert(ino, kind, parent, name);
        if let Some(parent) = inner.slots.get_mut(&parent) {
            parent.children += 1;
        }
        true
    }

    /// The node of `fresh.ino`: the known one if there is one and it `is_same`, else `fresh`. Counts one lookup, and
    /// remembers the place.
    pub(super) fn enter(
        &self,
        fresh: Node,
        parent: Ino,
        name: Name<'_>,
        is_same: impl FnOnce(&Node) -> bool,
    ) -> Entered {
        let mut inner = self.lock();
        let ino = fresh.ino;
        if inner.slot(ino).is_none() {
            inner.slots.insert(ino, Slot::new(fresh));
        }
        inner.enter_known(ino, parent, name, is_same)
    }

    /// The node of this number, if it is known and `is_same`. Counts one lookup, and remembers the place.
    pub(super) fn enter_known(
        &self,
        ino: Ino,
        parent: Ino,
        name: Name<'_>,
        is_same: impl FnOnce(&Node) -> bool,
    ) -> Entered {
        self.lock().enter_known(ino, parent, name, is_same)
    }

    /// The number for an object whose own does not fit; the same one for as long as the mount lives.
    pub(super) fn number(&self, object: Foreign) -> Ino {
        self.number_or(object, None)
    }

    /// The same for an object whose own number is another object's: `instead`, if it fits.
    pub(super) fn number_or(&self, object: Foreign, instead: Option<Ino>) -> Ino {
        let mut inner = self.lock();
        let next = Ino::of_table(inner.numbers.len() as u64);
        *inner.numbers.entry(object).or_insert(instead.unwrap_or(next))
    }

    /// The number that [`Self::number`] gave an object, if it did.
    pub(super) fn known_number(&self, object: &Foreign) -> Option<Ino> {
        self.lock().numbers.get(object).copied()
    }

    /// Remembers, for as long as the node lives, which object of the upper is its copy.
    pub(super) fn copied(&self, ino: Ino, st_ino: u64) {
        let mut inner = self.lock();
        if let Some(slot) = inner.slots.get_mut(&ino) {
            slot.copy = Some(st_ino);
            inner.originals.insert(st_ino, ino);
        }
    }

    /// Undoes [`Self::copied`].
    pub(super) fn not_copied(&self, ino: Ino) {
        let mut inner = self.lock();
        if let Some(st_ino) = inner.slots.get_mut(&ino).and_then(|slot| slot.copy.take()) {
            inner.originals.remove(&st_ino);
        }
    }

    /// The number of the node that an object of the upper is the copy of, if [`Self::copied`] was told.
    pub(super) fn original(&self, st_ino: u64) -> Option<Ino> {
        self.lock().originals.get(&st_ino).copied()
    }

    /// A known name of a node; `None` for the root and for what has none.
    pub(super) fn place(&self, ino: Ino) -> Option<Place> {
        self.lock().slot(ino)?.places.first().cloned()
    }

    /// All known names of a node.
    pub(super) fn places(&self, ino: Ino) -> Vec<Place> {
        self.lock().slot(ino).map(|slot| slot.places.clone()).unwrap_or_default()
    }

    /// The path of a name, as it is now.
    pub(super) fn path(&self, parent: Ino, name: Name<'_>) -> Vec<u8> {
        let inner = self.lock();
        let mut path = name.as_bytes().to_vec();
        let mut here = parent;
        while let Some(place) = inner.slots.get(&here).and_then(|slot| slot.places.first()) {
            path = [place.name.as_bytes(), b"/", &path].concat();
            here = place.parent;
        }
        path
    }

    /// The parent of a directory, itself for the root.
    pub(super) fn parent(&self, ino: Ino) -> Ino {
        self.place(ino).map_or(ino, |place| place.parent)
    }

    /// Counts one more lookup of a known node, under one more name.
    pub(super) fn again(&self, node: &Node, parent: Ino, name: Name<'_>) {
        let mut inner = self.lock();
        if let Some(slot) = inner.slot(node.ino) {
            slot.lookups += 1;
        }
        inner.add_place(node.ino, parent, name);
    }

    /// Counts one more lookup of a known node, for ourselves. Returns whether it is known.
    pub(super) fn hold(&self, ino: Ino) -> bool {
        let mut inner = self.lock();
        inner.slot(ino).map(|slot| slot.lookups += 1).is_some()
    }

    /// Replaces a known name of a node by another.
    pub(super) fn move_place(&self, ino: Ino, from: (Ino, Name<'_>), to: (Ino, Name<'_>)) {
        let mut inner = self.lock();
        // The new place first, so that a parent in between is not given up.
        inner.add_place(ino, to.0, to.1);
        inner.drop_places(ino, |place| place.is(from.0, from.1));
    }

    /// Forgets a name. Returns whether the node is known and has no other known name.
    pub(super) fn remove_place(&self, ino: Ino, parent: Ino, name: Name<'_>) -> bool {
        let mut inner = self.lock();
        inner.drop_places(ino, |place| place.is(parent, name));
        inner.slot(ino).is_some_and(|slot| slot.places.is_empty())
    }

    /// Takes back `count` lookups.
    pub(super) fn forget(&self, ino: Ino, count: u64) -> Forgotten {
        let mut inner = self.lock();
        let mut gone = Vec::new();
        if let Some(slot) = inner.slots.get_mut(&ino) {
            slot.lookups = slot.lookups.saturating_sub(count);
            inner.release(ino, &mut gone);
        } else if let Some(parent) = inner.leaves.forget(ino, count) {
            inner.release_child(parent, &mut gone);
        }
        Forgotten { gone, shrunk: inner.shrink() }
    }

    /// The objects of a layer that nodes refer to.
    pub(super) fn in_use(&self, layer: LayerOrdinal) -> Vec<EntryId> {
        let inner = self.lock();
        let mut entries = Vec::new();
        let mut add = |lower: &LowerRef| {
            if lower.layer == layer {
                entries.push(lower.entry);
            }
        };
        inner.leaves.numbers().filter_map(LowerRef::of_number).for_each(|lower| add(&lower));
        for slot in inner.slots.values() {
            match &slot.node.state().lower {
                LowerPart::None => {}
                LowerPart::Leaf(lower, _) => add(lower),
                LowerPart::Dir(dir) => dir.parts.iter().chain(&dir.looks).for_each(&mut add),
            }
            slot.node.sharing().as_ref().and_then(Sharing::found).iter().for_each(&mut add);
        }
        entries
    }

    /// How many nodes there are, for tests and statistics.
    pub(super) fn len(&self) -> usize {
        let inner = self.lock();
        inner.slots.len() + inner.leaves.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn new(node: Node) -> Self {
        Self { node: Arc::new(node), lookups: 0, children: 0, places: Vec::new(), copy: None }
    }
}

impl Inner {
    /// The slot of a known number. A leaf gets one now, and a node.
    fn slot(&mut self, ino: Ino) -> Option<&mut Slot> {
        if let Some(leaf) = self.leaves.take(ino) {
            let lower = LowerRef::of_number(ino).map_or(LowerPart::None, |lower| LowerPart::Leaf(lower, 1));
            let mut slot = Slot::new(Node::new(ino, leaf.kind, lower, None));
            slot.lookups = leaf.lookups.into();
            // Its parent counts it already.
            slot.places = vec![leaf.place];
            self.slots.insert(ino, slot);
        }
        self.slots.get_mut(&ino)
    }

    fn enter_known(
        &mut self,
        ino: Ino,
        parent: Ino,
        name: Name<'_>,
        is_same: impl FnOnce(&Node) -> bool,
    ) -> Entered {
        let Some(slot) = self.slot(ino) else { return Entered::Unknown };
        if !is_same(&slot.node) {
            return Entered::Taken;
        }
        slot.lookups += 1;
        let node = Arc::clone(&slot.node);
        self.add_place(ino, parent, name);
        Entered::Node(node)
    }

    fn add_place(&mut self, ino: Ino, parent: Ino, name: Name<'_>) {
        let Some(slot) = self.slot(ino) else { return };
        if slot.places.iter().any(|place| place.is(parent, name)) {
            return;
        }
        if slot.places.is_empty() {
            // Nearly always the only one.
            slot.places.reserve_exact(1);
        }
        slot.places.push(Place { parent, name: name.to_owned() });
        if let Some(parent) = self.slots.get_mut(&parent) {
            parent.children += 1;
        }
    }

    fn drop_places(&mut self, ino: Ino, which: impl Fn(&Place) -> bool) {
        let Some(slot) = self.slot(ino) else { return };
        let (dropped, kept) = std::mem::take(&mut slot.places).into_iter().partition(which);
        slot.places = kept;
        let dropped: Vec<Place> = dropped;
        let mut gone = Vec::new();
        for place in dropped {
            self.release_child(place.parent, &mut gone);
        }
    }

    /// Makes room smaller that is mostly empty; each time by half at least, so that it costs nothing on the whole.
    fn shrink(&mut self) -> bool {
        let leaves = self.leaves.shrink();
        let nodes = shrink(&mut self.slots);
        if nodes {
            self.originals.shrink_to_fit();
        }
        leaves || nodes
    }

    fn release_child(&mut self, parent: Ino, gone: &mut Vec<Arc<Node>>) {
        if let Some(slot) = self.slots.get_mut(&parent) {
            slot.children = slot.children.saturating_sub(1);
        }
        self.release(parent, gone);
    }

    /// Drops a node that nobody refers to, and then perhaps its parents, up to the root.
    fn release(&mut self, ino: Ino, gone: &mut Vec<Arc<Node>>) {
        let mut candidates = vec![ino];
        while let Some(ino) = candidates.pop() {
            let unused = |slot: &Slot| slot.lookups == 0 && slot.children == 0;
            if ino == Ino::ROOT || !self.slots.get(&ino).is_some_and(unused) {
                continue;
            }
            if let Some(slot) = self.slots.remove(&ino) {
                gone.push(slot.node);
                if let Some(copy) = slot.copy {
                    self.originals.remove(&copy);
                }
                for place in slot.places {
                    if let Some(parent) = self.slots.get_mut(&place.parent) {
                        parent.children = parent.children.saturating_sub(1);
                        candidates.push(place.parent);
                    }
                }
            }
        }
    }
}

/// Makes a map smaller that is mostly empty. Returns whether it was.
pub(super) fn shrink<T>(map: &mut HashMap<Ino, T>) -> bool {
    let capacity = map.capacity();
    if capacity <= CAPACITY_KEPT || map.len() > capacity / 4 {
        return false;
    }
    map.shrink_to((map.len() * 2).max(CAPACITY_KEPT / 2));
    map.capacity() < capacity
}

#[cfg(test)]
mod tests;
