//! Objects of layers of which nothing is to be remembered but their name. After a walk over an image that is nearly all of
//! it, and a node takes five times as much memory.

use std::collections::HashMap;

use super::table::{Place, shrink};
use crate::model::{FileKind, Ino, Name};

/// An object of a layer, no directory and of one name, that was only ever looked at.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) place: Place,
    /// As in a slot. What is looked up more often gets a slot.
    pub(super) lookups: u32,
    pub(super) kind: FileKind,
}

/// All of them, by the numbers that say what they are.
#[derive(Debug, Default)]
pub(super) struct Leaves(HashMap<Ino, Leaf>);

impl Leaves {
    pub(super) fn contains(&self, ino: Ino) -> bool {
        self.0.contains_key(&ino)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = Ino> {
        self.0.keys().copied()
    }

    /// Puts in what is not there, with one lookup.
    pub(super) fn insert(&mut self, ino: Ino, kind: FileKind, parent: Ino, name: Name<'_>) {
        self.0.insert(ino, Leaf { place: Place { parent, name: name.to_owned() }, lookups: 1, kind });
    }

    /// Counts one more lookup of what is known under this name.
    pub(super) fn again(&mut self, ino: Ino, parent: Ino, name: Name<'_>) -> bool {
        let Some(leaf) = self.0.get_mut(&ino).filter(|leaf| leaf.place.is(parent, name)) else {
            return false;
        };
        let more = leaf.lookups.checked_add(1);
        leaf.lookups = more.unwrap_or(leaf.lookups);
        more.is_some()
    }

    /// Takes back `count` lookups. Returns the parent of what is gone by that.
    pub(super) fn forget(&mut self, ino: Ino, count: u64) -> Option<Ino> {
        let leaf = self.0.get_mut(&ino)?;
        leaf.lookups = leaf.lookups.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        if leaf.lookups > 0 {
            return None;
        }
        self.0.remove(&ino).map(|leaf| leaf.place.parent)
    }

    /// Takes one out that gets a slot.
    pub(super) fn take(&mut self, ino: Ino) -> Option<Leaf> {
        self.0.remove(&ino)
    }

    /// Makes room smaller that is mostly empty. Returns whether it was.
    pub(super) fn shrink(&mut self) -> bool {
        shrink(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name<'_> {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_leaf_lives_as_long_as_its_lookups() {
        let mut leaves = Leaves::default();
        leaves.insert(Ino(7), FileKind::Regular, Ino(2), name("a"));
        assert!(leaves.again(Ino(7), Ino(2), name("a")));
        assert_eq!(leaves.forget(Ino(7), 1), None);
        assert_eq!(leaves.forget(Ino(7), u64::MAX), Some(Ino(2)));
        assert!(!leaves.contains(Ino(7)));
        assert_eq!(leaves.forget(Ino(7), 1), None);
    }

    #[test]
    fn only_under_its_one_name_and_only_so_often() {
        let mut leaves = Leaves::default();
        leaves.insert(Ino(7), FileKind::Regular, Ino(2), name("a"));
        assert!(!leaves.again(Ino(7), Ino(2), name("b")));
        assert!(!leaves.again(Ino(7), Ino(3), name("a")));
        leaves.0.get_mut(&Ino(7)).unwrap().lookups = u32::MAX;
        assert!(!leaves.again(Ino(7), Ino(2), name("a")));
        let leaf = leaves.take(Ino(7)).unwrap();
        assert_eq!((leaf.lookups, leaf.kind), (u32::MAX, FileKind::Regular));
        assert_eq!(leaves.len(), 0);
    }
}
