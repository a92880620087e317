//! Following paths, and telling where each comes from.

use proptest::prelude::*;

use super::unpack;
use super::*;
use crate::union::{Extent, FollowError, How, LastSymlink, Target, What};

fn follow(union: &Union, path: &str) -> (String, Target) {
    let place = union.follow(path.as_bytes(), LastSymlink::Follow).unwrap();
    (String::from_utf8(place.path).unwrap(), place.target)
}

#[test]
fn symlinks_lead_on_and_never_out() {
    let union = union(vec![
        FakeLayer::new()
            .file("usr/lib/x", b"1")
            .symlink("lib", "usr/lib")
            .symlink("out", "../../../usr/lib/x")
            .symlink("abs", "/lib/x")
            .symlink("usr/up", "..")
            .symlink("nowhere", "usr/gone/x")
            .symlink("l1", "l2")
            .symlink("l2", "l1"),
        FakeLayer::new().file("usr/lib/y", b"2"),
    ]);
    for path in ["lib/x", "/lib/./x", "out", "abs", "usr/up/lib/x", "usr/up/usr/../out", "../../lib//x"] {
        let (real, target) = follow(&union, path);
        assert_eq!(real, "usr/lib/x", "{path}");
        assert!(matches!(target, Target::Found(Lower::Leaf(..))), "{path}: {target:?}");
    }
    for (path, real) in
        [("", ""), ("/", ""), ("..", ""), ("lib", "usr/lib"), ("usr/up", ""), ("lib/", "usr/lib")]
    {
        let found = follow(&union, path);
        assert!(
            matches!((&found.0[..], &found.1), (found, Target::Found(Lower::Dir(_))) if found == real),
            "{found:?}"
        );
    }
    for (path, real) in [("nowhere", "usr/gone/x"), ("lib/gone/../z", "usr/lib/z"), ("gone", "gone")] {
        assert_eq!(follow(&union, path), (real.to_owned(), Target::Absent));
    }
    for path in ["lib/x/", "lib/x/y", "lib/x/..", "abs/z"] {
        assert_eq!(follow(&union, path).1, Target::NotDirectory("usr/lib/x".len()), "{path}");
    }
    let long = format!("lib/{}", "x".repeat(300));
    assert_eq!(follow(&union, &long).1, Target::Absent);
    assert!(matches!(union.follow(b"l1", LastSymlink::Follow), Err(FollowError::Loop)));
    let kept = |path: &[u8]| union.follow(path, LastSymlink::Keep).unwrap();
    assert_eq!(kept(b"usr/../lib").path, b"lib");
    assert_eq!(kept(b"lib/").path, b"usr/lib");
    assert_eq!(kept(b"lib/.").path, b"usr/lib");
    assert!(matches!(kept(b"l1").target, Target::Found(Lower::Leaf(_, FileKind::Symlink))));
}

#[test]
fn every_way_to_hide_is_named() {
    let union = union(vec![
        FakeLayer::new()
            .file("a/f", b"0")
            .file("b/f", b"0")
            .file("c/f", b"0")
            .file("d", b"0")
            .file("e/f", b"0"),
        FakeLayer::new().whiteout("a").dir("b", 0o755).opaque("b").file("c", b"1").dir("d", 0o755),
        FakeLayer::new().file("e/f", b"2"),
    ]);
    let hidden = |path: &str| {
        let said = union.trace(path.as_bytes()).unwrap();
        let base =
            said.iter().find(|said| said.layer == LayerOrdinal(0) && matches!(said.what, What::Object(..)));
        base.unwrap().hidden_by.map(|hider| (hider.layer.0, hider.how, hider.of))
    };
    assert_eq!(hidden("a/f"), Some((1, How::Whiteout, Extent(1))));
    assert_eq!(hidden("b/f"), Some((1, How::Opaque, Extent(1))));
    assert_eq!(hidden("c/f"), Some((1, How::NotDirectory, Extent(1))));
    assert_eq!(hidden("d"), Some((1, How::Replaced, Extent(1))));
    assert_eq!(hidden("e/f"), Some((2, How::Replaced, Extent(3))));
    assert_eq!(hidden("e"), None);
    assert_eq!(hidden(""), None);
    assert!(union.trace(b"nowhere/f").unwrap().is_empty());
}

fn paths() -> Vec<String> {
    let mut paths = vec![String::new()];
    for _ in 0..3 {
        let longer = paths.iter().flat_map(|path| unpack::NAMES.map(|name| format!("{path}/{name}")));
        paths =
            paths.iter().cloned().chain(longer).map(|path| path.trim_start_matches('/').to_owned()).collect();
        paths.sort();
        paths.dedup();
    }
    paths
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// What the explanation calls visible is what the union shows.
    #[test]
    fn the_trace_agrees_with_the_union(layers in proptest::collection::vec(unpack::layer(true), 1..5)) {
        let union = union(layers.iter().map(unpack::Dir::to_layer).collect());
        for path in paths() {
            let said = union.trace(path.as_bytes()).unwrap();
            let mut visible = said.iter().filter(|said| said.hidden_by.is_none());
            let objects: Vec<LowerRef> = visible.clone().filter_map(|said| match said.what {
                What::Object(lower, _) => Some(lower),
                _ => None,
            }).collect();
            match union.resolve(path.as_bytes()).unwrap() {
                Some(Lower::Dir(dir)) => prop_assert_eq!(&objects, &dir.parts, "{}", path),
                Some(Lower::Leaf(lower, _)) => prop_assert_eq!(&objects, &[lower], "{}", path),
                Some(Lower::Link(..)) => {
                    prop_assert!(visible.any(|said| matches!(said.what, What::LinkBelow(_))), "{}", path);
                    prop_assert!(objects.is_empty());
                }
                None => prop_assert!(objects.is_empty(), "{}: {:?}", path, said),
            }
        }
    }
}
