//! The union rules one by one, and all of them against unpacking.

use std::sync::Arc;

use proptest::prelude::*;

use super::{LinkCounts, Lower, LowerDir, LowerRef, Union};
use crate::layer::fake::FakeLayer;
use crate::layer::{Layer, LayerError};
use crate::model::{EntryId, FileKind, LayerOrdinal, Name};

mod paths;
pub(crate) mod unpack;

use unpack::{Tree, unpack};

fn union(layers: Vec<FakeLayer>) -> Union {
    Union::new(layers.into_iter().map(|layer| Arc::new(layer) as Arc<dyn Layer>).collect())
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

fn dir(union: &Union, path: &str) -> LowerDir {
    match union.resolve(path.as_bytes()).unwrap() {
        Some(Lower::Dir(dir)) => dir,
        other => panic!("{path}: {other:?}"),
    }
}

fn leaf(union: &Union, path: &str) -> LowerRef {
    match union.resolve(path.as_bytes()).unwrap() {
        Some(Lower::Leaf(lower, _) | Lower::Link(lower, _)) => lower,
        other => panic!("{path}: {other:?}"),
    }
}

fn is_absent(union: &Union, path: &str) -> bool {
    union.resolve(path.as_bytes()).unwrap().is_none()
}

fn content(union: &Union, path: &str) -> Vec<u8> {
    let mut buffer = vec![0; 100_000];
    let count = union.read_at(leaf(union, path), 0, &mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

fn names(union: &Union, path: &str) -> Vec<String> {
    let text = |name: &crate::model::FileName| String::from_utf8(name.as_bytes().to_vec()).unwrap();
    union.list(&dir(union, path)).unwrap().keys().map(text).collect()
}

#[test]
fn the_topmost_file_wins() {
    let union = union(vec![
        FakeLayer::new().file("a/f", b"old").file("a/g", b"kept"),
        FakeLayer::new().file("a/f", b"new"),
    ]);
    assert_eq!(content(&union, "a/f"), b"new");
    assert_eq!(content(&union, "a/g"), b"kept");
    assert_eq!(names(&union, "a"), ["f", "g"]);
}

#[test]
fn a_whiteout_hides_at_every_depth() {
    // fuse-overlayfs shows l0/a/b/secret here.
    for path in ["b", "a/b", "a/c/d/b"] {
        let secret = format!("{path}/secret");
        let top = format!("{path}/new");
        let union = union(vec![
            FakeLayer::new().file(&secret, b"x"),
            FakeLayer::new().whiteout(path),
            FakeLayer::new().file(&top, b"y"),
        ]);
        assert!(is_absent(&union, &secret), "{path}");
        assert_eq!(names(&union, path), ["new"]);
    }
}

#[test]
fn a_whiteout_hides_only_what_is_below() {
    let union = union(vec![
        FakeLayer::new().file("f", b"1"),
        FakeLayer::new().whiteout("f").whiteout("nothing"),
        FakeLayer::new().file("f", b"3"),
    ]);
    assert_eq!(content(&union, "f"), b"3");
    assert_eq!(names(&union, ""), ["f"]);
}

#[test]
fn an_opaque_directory_hides_at_every_depth() {
    for path in ["p", "a/p", "a/b/c/p"] {
        let (secret, kept) = (format!("{path}/q/secret"), format!("{path}/q/new"));
        let union = union(vec![
            FakeLayer::new().file(&secret, b"x"),
            FakeLayer::new().dir(path, 0o700).opaque(path),
            FakeLayer::new().file(&kept, b"y"),
        ]);
        assert!(is_absent(&union, &secret), "{path}");
        assert_eq!(names(&union, &format!("{path}/q")), ["new"]);
        assert_eq!(union.dir_metadata(&dir(&union, path)).unwrap().mode, 0o700);
    }
}

#[test]
fn an_opaque_root_hides_everything_below() {
    let union = union(vec![
        FakeLayer::new().file("old", b"x").file("a/old", b"x"),
        FakeLayer::new().opaque("").file("a/new", b"y"),
        FakeLayer::new().file("top", b"z"),
    ]);
    assert_eq!(names(&union, ""), ["a", "top"]);
    assert_eq!(names(&union, "a"), ["new"]);
    assert!(is_absent(&union, "old"));
}

#[test]
fn a_file_over_a_directory_and_back() {
    let union = union(vec![
        FakeLayer::new().file("x/deep", b"0"),
        FakeLayer::new().file("x", b"file"),
        FakeLayer::new().file("x/again", b"2"),
    ]);
    assert_eq!(names(&union, "x"), ["again"]);
    assert!(is_absent(&union, "x/deep"));
    let union = self::union(vec![FakeLayer::new().file("x/deep", b"0"), FakeLayer::new().file("x", b"file")]);
    assert_eq!(content(&union, "x"), b"file");
    assert!(is_absent(&union, "x/deep"));
}

#[test]
fn an_implied_directory_looks_like_the_one_below() {
    let union = union(vec![
        FakeLayer::new().dir("a", 0o1777).xattr("a", "user.x", b"below"),
        FakeLayer::new().file("a/f", b"").file("b/f", b""),
    ]);
    assert_eq!(union.dir_metadata(&dir(&union, "a")).unwrap().mode, 0o1777);
    assert_eq!(union.dir_xattrs(&dir(&union, "a")).unwrap().len(), 1);
    assert_eq!(union.dir_metadata(&dir(&union, "b")).unwrap().mode, 0o755);
}

#[test]
fn an_implied_opaque_directory_looks_like_the_one_below_too() {
    let union = union(vec![
        FakeLayer::new().dir("a", 0o1777).file("a/old", b"").dir("a/d", 0o700),
        FakeLayer::new().implied("a").opaque("a").file("a/f", b""),
    ]);
    assert_eq!(names(&union, "a"), ["f"]);
    assert_eq!(union.dir_metadata(&dir(&union, "a")).unwrap().mode, 0o1777);
}

#[test]
fn links_to_layers_below() {
    let union = union(vec![
        FakeLayer::new().file("old/f", b"base").dir("d", 0o755),
        FakeLayer::new().link_below("l1", "old/f"),
        FakeLayer::new().link_below("l2", "l1").whiteout("old"),
        FakeLayer::new().link_below("l3", "old/f").link_below("l4", "d").link_below("l5", "l2"),
    ]);
    for path in ["l1", "l2", "l5"] {
        assert_eq!(content(&union, path), b"base", "{path}");
        assert_eq!(leaf(&union, path).layer, LayerOrdinal(0));
    }
    // Its target is hidden in the layer below; directories have no hard links.
    assert!(is_absent(&union, "l3") && is_absent(&union, "l4"));
    assert_eq!(names(&union, ""), ["d", "l1", "l2", "l5"]);
}

#[test]
fn many_layers() {
    let layer =
        |n: usize| FakeLayer::new().file(&format!("dir/{n:03}"), b"x").file("f", n.to_string().as_bytes());
    let union = union((0..500).map(layer).collect());
    assert_eq!(content(&union, "f"), b"499");
    assert_eq!(names(&union, "dir").len(), 500);
    assert_eq!(dir(&union, "dir").parts.len(), 500);
}

#[test]
fn paths_that_lead_nowhere() {
    let union = union(vec![FakeLayer::new().file("f", b"").symlink("l", "f").dir("d", 0o755)]);
    for path in ["f/x", "l/x", "x/y", "d/..", ".", "f/"] {
        let found = union.resolve(path.as_bytes()).unwrap();
        assert!(found.is_none() || path == "f/", "{path}: {found:?}");
    }
    assert_eq!(union.read_link(leaf(&union, "l")).unwrap(), b"f");
}

#[test]
fn an_object_that_is_not_there_is_an_error() {
    let union = union(vec![FakeLayer::new()]);
    for (layer, entry) in [(0, 7), (1, 0)] {
        let lower = LowerRef { layer: LayerOrdinal(layer), entry: EntryId(entry) };
        assert!(matches!(union.metadata(lower), Err(LayerError::BadEntry { .. })));
    }
    assert!(matches!(union.dir_metadata(&LowerDir::default()), Err(LayerError::BadEntry { .. })));
}

/// Whatever call of whatever layer fails, the answer is an error or the right one: never "not there".
#[test]
fn errors_are_never_absence() {
    let layers: Vec<Arc<FakeLayer>> = [
        FakeLayer::new().file("a/b/f", b"base").file("a/b/g", b"base"),
        FakeLayer::new().whiteout("a/b/g").link_below("a/b/h", "a/b/f"),
        FakeLayer::new().implied("a/b").file("a/b/i", b""),
    ]
    .map(Arc::new)
    .into();
    let union = Union::new(layers.iter().map(|layer| Arc::clone(layer) as Arc<dyn Layer>).collect());
    let here = dir(&union, "a/b");
    let listed = union.list(&here).unwrap();
    let mut failures = 0;
    for layer in &layers {
        for n in 1..20 {
            layer.fail_in(n);
            let answers = [
                union.list(&here).map(|names| assert_eq!(names, listed)),
                union.resolve(b"a/b/f").map(|found| assert!(found.is_some())),
                union.resolve(b"a/b/h").map(|found| assert!(found.is_some())),
                union.resolve(b"a/b/g").map(|found| assert!(found.is_none())),
                union.dir_metadata(&here).map(drop),
            ];
            layer.fail_in(0);
            failures += answers.iter().filter(|answer| answer.is_err()).count();
        }
    }
    assert!(failures > 20, "{failures}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layers_are_what_unpacking_makes(layers in proptest::collection::vec(unpack::layer(true), 1..5)) {
        let tree = unpack(&layers, unpack::Links::All);
        let union = union(layers.iter().map(unpack::Dir::to_layer).collect());
        let mut seen = Vec::new();
        compare(&union, &tree, &union.root().unwrap(), 0, &mut seen);
        // Two names are one object exactly if they are in the model.
        for (lower, id) in &seen {
            for (other_lower, other_id) in &seen {
                prop_assert_eq!(lower == other_lower, id == other_id);
            }
        }
    }
}

fn compare(union: &Union, tree: &Tree, dir: &LowerDir, id: usize, seen: &mut Vec<(LowerRef, usize)>) {
    let node = &tree.nodes[id];
    assert_eq!(union.dir_metadata(dir).unwrap().mode, node.mode, "{}", dir.path.escape_ascii());
    assert_eq!(union.dir_xattrs(dir).unwrap().len(), node.xattrs.len());
    let listed = union.list(dir).unwrap();
    let shown: Vec<&[u8]> = listed.keys().map(crate::model::FileName::as_bytes).collect();
    assert_eq!(shown, node.names.keys().map(String::as_bytes).collect::<Vec<_>>());
    for text in unpack::NAMES {
        let found = union.lookup(dir, name(text)).unwrap();
        let by_list = listed.get(text.as_bytes()).and_then(|listed| listed.found());
        assert_eq!(by_list, found.clone().filter(|found| !matches!(found, Lower::Dir(_))), "{text}");
        let Some(child) = node.names.get(text) else {
            assert_eq!(found, None, "{text} in {}", dir.path.escape_ascii());
            continue;
        };
        let listed = listed[text.as_bytes()];
        assert_eq!(listed.kind, tree.nodes[*child].kind);
        match found.unwrap() {
            Lower::Dir(inner) => {
                assert_eq!((inner.parts[0], FileKind::Directory), (listed.lower, listed.kind));
                assert_eq!(dir_at(union, &inner.path), inner);
                compare(union, tree, &inner, *child, seen);
            }
            Lower::Leaf(lower, kind) | Lower::Link(lower, kind) => {
                assert_eq!((lower, kind), (listed.lower, listed.kind));
                seen.push((lower, *child));
                compare_leaf(union, lower, &tree.nodes[*child]);
            }
        }
    }
}

fn dir_at(union: &Union, path: &[u8]) -> LowerDir {
    dir(union, std::str::from_utf8(path).unwrap())
}

fn compare_leaf(union: &Union, lower: LowerRef, node: &unpack::Node) {
    let metadata = union.metadata(lower).unwrap();
    assert_eq!((metadata.kind, metadata.mode), (node.kind, node.mode));
    assert_eq!(union.xattrs(lower).unwrap().len(), node.xattrs.len());
    if node.kind == FileKind::Symlink {
        assert_eq!(union.read_link(lower).unwrap(), node.content);
        return;
    }
    let mut buffer = vec![0; node.content.len() + 1];
    let count = union.read_at(lower, 0, &mut buffer).unwrap();
    assert_eq!(buffer[..count], node.content);
}

#[test]
fn names_are_counted_once() {
    const NAMES: u32 = 3000;
    let mut layer = FakeLayer::new().file("d/0", b"").file("few/0", b"").link("few/1", "few/0");
    for number in 1..NAMES {
        layer = layer.link(&format!("d/{number}"), "d/0");
    }
    let union = union(vec![layer, FakeLayer::new().whiteout("d/7").file("d/8", b"other")]);
    let counts = LinkCounts::default();
    let listed = union.list(&dir(&union, "d")).unwrap();
    assert_eq!(listed.len(), 2999);
    for (name, listed) in listed {
        if union.names(listed.lower).unwrap() == 1 {
            assert_eq!(name.as_bytes(), b"8");
            continue;
        }
        assert_eq!(counts.visible(&union, listed.lower).unwrap(), NAMES - 2);
    }
    assert_eq!(counts.visible(&union, leaf(&union, "few/0")).unwrap(), 2);
    let looked_up = counts.counted.load(std::sync::atomic::Ordering::Relaxed);
    assert!(looked_up <= NAMES as usize + 10, "{looked_up} names were looked up");
}
