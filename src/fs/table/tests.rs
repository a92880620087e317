//! What the table of nodes knows, and for how long.

use super::*;

fn node(ino: u64) -> Node {
    Node::new(Ino(ino), FileKind::Directory, LowerPart::None, None)
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

fn enter(table: &Table, ino: u64, parent: u64, text: &str) -> Arc<Node> {
    match table.enter(node(ino), Ino(parent), name(text), |_| true) {
        Entered::Node(node) => node,
        other => panic!("{other:?}"),
    }
}

fn gone(table: &Table, ino: u64) -> Vec<Ino> {
    table.forget(Ino(ino), 1).gone.iter().map(|node| node.ino).collect()
}

#[test]
fn parents_live_as_long_as_their_children() {
    let table = Table::with_root(node(1));
    enter(&table, 2, 1, "a");
    enter(&table, 3, 2, "b");
    assert_eq!(gone(&table, 2), []);
    assert_eq!(table.len(), 3);
    assert_eq!(gone(&table, 3), [Ino(3), Ino(2)]);
    assert_eq!(table.len(), 1);
}

#[test]
fn a_known_node_is_kept() {
    let table = Table::with_root(node(1));
    let first = enter(&table, 2, 1, "a");
    let second = enter(&table, 2, 1, "b");
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(table.places(Ino(2)).len(), 2);
    assert!(!table.remove_place(Ino(2), Ino(1), name("a")));
    assert!(table.remove_place(Ino(2), Ino(1), name("b")));
    assert_eq!(gone(&table, 2), []);
    assert_eq!(gone(&table, 2), [Ino(2)]);
}

#[test]
fn a_leaf_gets_a_node_when_one_is_asked_for() {
    let table = Table::with_root(node(1));
    enter(&table, 2, 1, "d");
    let leaf = Ino::of_lower(LayerOrdinal(3), EntryId(5)).unwrap();
    let lower = LowerRef { layer: LayerOrdinal(3), entry: EntryId(5) };
    let again = || table.enter_leaf(leaf, FileKind::Symlink, Ino(2), name("l"));
    assert!(again() && again() && table.enter_leaf_again(leaf, Ino(2), name("l")));
    assert_eq!((table.len(), table.origin(leaf)), (3, Some(Some(lower))));
    assert_eq!(table.in_use(LayerOrdinal(3)), [EntryId(5)]);
    assert_eq!(gone(&table, 2), [], "a child is in it");
    let node = table.get(leaf).unwrap();
    assert_eq!((node.kind, node.origin), (FileKind::Symlink, Some(lower)));
    assert!(Arc::ptr_eq(&node, &table.get(leaf).unwrap()));
    assert_eq!((table.len(), table.origin(leaf)), (3, Some(Some(lower))));
    assert_eq!(table.in_use(LayerOrdinal(3)), [EntryId(5)]);
    assert!(!again(), "now it has a node");
    let placed = Place { parent: Ino(2), name: name("l").to_owned() };
    assert_eq!(table.places(leaf), [placed]);
    assert_eq!(table.forget(leaf, 2).gone.len(), 0);
    assert_eq!(gone(&table, leaf.0), [leaf, Ino(2)]);
    assert_eq!(table.len(), 1);
}

#[test]
fn a_leaf_that_is_forgotten_lets_its_parent_go() {
    let table = Table::with_root(node(1));
    enter(&table, 2, 1, "d");
    let leaf = Ino::of_lower(LayerOrdinal(0), EntryId(5)).unwrap();
    assert!(table.enter_leaf(leaf, FileKind::Regular, Ino(2), name("f")));
    assert_eq!(gone(&table, 2), []);
    assert_eq!(gone(&table, leaf.0), [Ino(2)], "nobody else holds it");
    assert_eq!((table.len(), table.origin(leaf)), (1, None));
    assert!(!table.enter_leaf_again(leaf, Ino(2), name("f")));
}

#[test]
fn a_leaf_with_another_name_gets_a_node() {
    let table = Table::with_root(node(1));
    let leaf = Ino::of_lower(LayerOrdinal(0), EntryId(5)).unwrap();
    assert!(table.enter_leaf(leaf, FileKind::Regular, Ino::ROOT, name("a")));
    assert!(!table.enter_leaf_again(leaf, Ino::ROOT, name("b")));
    let entered = table.enter_known(leaf, Ino::ROOT, name("b"), |node| node.ino == leaf);
    assert!(matches!(entered, Entered::Node(_)), "{entered:?}");
    assert_eq!(table.places(leaf).len(), 2);
    assert_eq!(gone(&table, leaf.0), []);
    assert_eq!(gone(&table, leaf.0), [leaf]);
}

#[test]
fn a_number_that_is_another_objects() {
    let table = Table::with_root(node(1));
    enter(&table, 2, 1, "a");
    assert!(matches!(table.enter(node(2), Ino(1), name("b"), |_| false), Entered::Taken));
    assert!(matches!(table.enter_known(Ino(2), Ino(1), name("b"), |_| false), Entered::Taken));
    assert!(matches!(table.enter_known(Ino(3), Ino(1), name("c"), |_| false), Entered::Unknown));
    assert_eq!(table.places(Ino(2)).len(), 1);
    assert_eq!(gone(&table, 2), [Ino(2)], "it counts no lookup");
}

#[test]
fn room_is_given_back_now_and_then() {
    let table = Table::with_root(node(1));
    let count = 100_000;
    for ino in 2..count {
        enter(&table, ino, 1, "same");
    }
    let shrunk = (2..count).filter(|ino| table.forget(Ino(*ino), 1).shrunk).count();
    assert!((2..20).contains(&shrunk), "{shrunk} times");
    assert!(table.lock().slots.capacity() <= CAPACITY_KEPT, "{}", table.lock().slots.capacity());
}

#[test]
fn numbers_of_foreign_objects_are_stable() {
    let table = Table::with_root(node(1));
    let one = table.number(Foreign::Upper(1 << 50));
    assert_ne!(one, table.number(Foreign::Upper(1 << 51)));
    assert_eq!(one, table.number(Foreign::Upper(1 << 50)));
}
