//! Following paths, and telling where each comes from.

use std::os::fd::AsRawFd as _;
use std::path::Path;

use proptest::prelude::*;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::unpack;
use super::*;
use crate::layer::DirLayer;
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
        [("/", ""), (".", ""), ("..", ""), ("lib", "usr/lib"), ("usr/up", ""), ("lib/", "usr/lib")]
    {
        let found = follow(&union, path);
        assert!(
            matches!((&found.0[..], &found.1), (found, Target::Found(Lower::Dir(_))) if found == real),
            "{found:?}"
        );
    }
    for (path, real) in
        [("nowhere", "usr/gone/x"), ("lib/gone/../z", "usr/lib/z"), ("gone", "gone"), ("", "")]
    {
        assert_eq!(follow(&union, path), (real.to_owned(), Target::Absent));
    }
    for path in ["lib/x/", "lib/x/.", "lib/x//./", "lib/x/y", "lib/x/..", "abs/", "abs/z"] {
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

/// Every path of up to three of these names, against the kernel's own walk in the same tree.
#[test]
fn paths_lead_where_the_kernel_says() {
    const NAMES: [&str; 11] = ["d", "f", "to-d", "to-f", "abs", "up", "self", "slash", "gone", ".", ".."];
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    std::fs::create_dir_all(path("d/d")).unwrap();
    for file in ["f", "d/f", "d/d/f"] {
        std::fs::write(path(file), "").unwrap();
    }
    for (name, target) in [
        ("to-d", "d"),
        ("to-f", "d/f"),
        ("abs", "/d/../d/d"),
        ("up", "../../.."),
        ("self", "self"),
        ("slash", "f/"),
        ("d/to-d", "../to-d/d/"),
        ("d/to-f", "./f/."),
        ("d/abs", "/f"),
        ("d/up", ".."),
        ("d/gone", "/nowhere"),
    ] {
        std::os::unix::fs::symlink(target, path(name)).unwrap();
    }
    let chain =
        |number: usize| std::os::unix::fs::symlink(format!("c{}", number + 1), path(&format!("c{number}")));
    (0..41).for_each(|number| chain(number).unwrap());
    std::fs::write(path("c41"), "").unwrap();
    let union = Union::new(vec![Arc::new(DirLayer::open(root.path()).unwrap())]);
    let dir = std::fs::File::open(root.path()).unwrap();
    let mut paths: Vec<String> =
        vec!["".into(), "/".into(), "//".into(), "c0".into(), "c1".into(), "c1/".into()];
    let mut longer = vec![String::new()];
    for _ in 0..3 {
        let next = longer.iter().flat_map(|path| NAMES.map(|name| format!("{path}/{name}")));
        longer = next.collect();
        paths.extend(
            longer.iter().flat_map(|path| {
                [path[1..].to_owned(), path.clone(), format!("{path}/"), format!("{path}//")]
            }),
        );
    }
    for path in paths {
        for last in [LastSymlink::Follow, LastSymlink::Keep] {
            assert_eq!(
                ours(&union, &path, last),
                the_kernels(&dir, root.path(), &path, last),
                "{path:?} {last:?}"
            );
        }
    }
}

fn ours(union: &Union, path: &str, last: LastSymlink) -> Result<String, &'static str> {
    match union.follow(path.as_bytes(), last) {
        Err(FollowError::Loop) => Err("ELOOP"),
        Err(error) => panic!("{error}"),
        Ok(place) => match place.target {
            Target::Found(_) => Ok(format!("/{}", String::from_utf8(place.path).unwrap())),
            Target::Absent => Err("ENOENT"),
            Target::NotDirectory(_) => Err("ENOTDIR"),
        },
    }
}

fn the_kernels(
    dir: &std::fs::File,
    root: &Path,
    path: &str,
    last: LastSymlink,
) -> Result<String, &'static str> {
    let keep = if last == LastSymlink::Keep { OFlags::NOFOLLOW } else { OFlags::empty() };
    let flags = OFlags::PATH | OFlags::CLOEXEC | keep;
    let mut opened = Err(Errno::AGAIN);
    // Somebody renamed something, somewhere (openat2(2)).
    while opened.as_ref().err() == Some(&Errno::AGAIN) {
        opened = rustix::fs::openat2(dir, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    }
    match opened {
        Ok(file) => {
            let at = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
            Ok(format!("/{}", at.strip_prefix(root).unwrap().display()))
        }
        Err(Errno::NOENT) => Err("ENOENT"),
        Err(Errno::NOTDIR) => Err("ENOTDIR"),
        Err(Errno::LOOP) => Err("ELOOP"),
        Err(error) => panic!("{path}: {error}"),
    }
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
