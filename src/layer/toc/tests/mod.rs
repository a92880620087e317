//! Layers by their table of contents beside the same blobs read as tars: whatever is asked, both say the same.

use std::collections::BTreeMap;

use super::{Toc, TocAnnotation, TocError, TocLayer};
use crate::layer::tar_tests::{Maker, noise};
use crate::layer::{Found, Layer};
use crate::model::{Digest, EntryId, FileKind, Name};
use crate::sys::file_range::FileRange;

mod hostile;
mod others;
mod own;
mod writer;

/// A blob, and what a manifest says of it.
struct Blob {
    bytes: Vec<u8>,
    annotation: TocAnnotation,
}

impl Blob {
    fn layer(&self) -> Result<TocLayer, TocError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        std::fs::write(&path, &self.bytes).unwrap();
        let range = FileRange::open(&path).unwrap();
        let toc = Toc::of(&range, &self.annotation)?;
        Ok(TocLayer::new(&toc, Digest::from_bytes([7; 32]), range).unwrap())
    }

    fn refused(&self) -> String {
        self.layer().err().map(|error| error.to_string()).unwrap_or_default()
    }
}

/// A tar with everything in it that a layer can have; `is_exact` for what not every TOC can say.
fn everything(is_exact: bool) -> Vec<u8> {
    let mut device = tar::Header::new_ustar();
    device.set_path("dev/null").unwrap();
    device.set_entry_type(tar::EntryType::Char);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    for set in [tar::Header::set_uid, tar::Header::set_gid, tar::Header::set_mtime] {
        set(&mut device, 5);
    }
    device.set_mode(0o666);
    device.set_size(0);
    let holes = [vec![0; 200_000], noise(3000, 3), vec![0; 5000], b"end".to_vec()].concat();
    let mut tar = Maker::default()
        .dir("./")
        .dir("d/")
        .file("d/a", "hello")
        .pax(&[
            ("SCHILY.xattr.user.a", b"v\0\xff"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .file("d/attributes", "x")
        .header(&device, b"")
        .add(b'4', "dev/loop", "", b"")
        .add(b'6', "pipe", "", b"")
        .add(b'2', "d/link", "../d/a", b"")
        .add(b'2', "usr", "d", b"")
        .file("usr/behind-a-link", "b")
        .add(b'1', "early", "./late", b"")
        .file("late", "L")
        .add(b'1', "second", "early", b"")
        .add(b'1', "below", "/lower/file", b"")
        .file("twice", "old")
        .add(b'1', "old", "twice", b"")
        .file("twice", "new and longer")
        .file("d/.wh.gone", "")
        .file("e/.wh..wh..opq", "")
        .file("e/new", "n")
        .file(".wh..wh.plnk/1", "plnk")
        .add(b'1', "fromplnk", ".wh..wh.plnk/1", b"")
        .file("empty", "")
        .add(b'0', "big", "", &noise(300_000, 5))
        .add(b'0', "holes", "", &holes)
        .file("caf\u{e9} \\ \"\u{1}", "odd");
    if is_exact {
        tar = tar
            .pax(&[("mtime", b"-1.5")])
            .file("before", "1970")
            .pax(&[("mtime", b"1234567890.123456789"), ("uid", b"3000000"), ("gid", b"4294967294")])
            .file("owner", "o");
    }
    for number in 0..40 {
        tar = tar.file(&format!("many/{number}"), &"small ".repeat(number));
    }
    tar.end()
}

/// Asserts that both layers are the same in everything that can be asked.
fn assert_same(what: &str, expected: &dyn Layer, layer: &dyn Layer) {
    assert_eq!(expected.root(), layer.root());
    let mut open = vec![(String::new(), layer.root())];
    let mut files = 0;
    while let Some((path, id)) = open.pop() {
        let what = format!("{what}: {path:?}");
        let entry = layer.entry(id).unwrap();
        assert_eq!(expected.entry(id).unwrap(), entry, "{what}");
        assert_eq!(expected.xattrs(id).unwrap(), layer.xattrs(id).unwrap(), "{what}");
        assert_eq!(expected.paths(id).unwrap(), layer.paths(id).unwrap(), "{what}");
        let items = layer.read_dir(id).unwrap();
        // With the numbers: the tree is the same one.
        assert_eq!(expected.read_dir(id).unwrap(), items, "{what}");
        for item in items {
            assert_eq!(layer.lookup(id, item.name.as_name()).unwrap(), item.found, "{what}");
            if let Found::Entry(child) = item.found {
                open.push((format!("{path}/{}", item.name.as_bytes().escape_ascii()), child));
            }
        }
        assert_eq!(layer.lookup(id, Name::new(b"none of that").unwrap()).unwrap(), Found::Absent);
        match entry.metadata.kind {
            FileKind::Symlink => {
                assert_eq!(expected.read_link(id).unwrap(), layer.read_link(id).unwrap(), "{what}");
            }
            FileKind::Regular => {
                files += 1;
                assert_same_content(&what, expected, layer, id);
            }
            _ => assert!(layer.read_at(id, 0, &mut [0; 9]).is_err(), "{what}"),
        }
    }
    assert!(files > 0, "{what}: no files");
}

fn assert_same_content(what: &str, expected: &dyn Layer, layer: &dyn Layer, id: EntryId) {
    let size = usize::try_from(layer.entry(id).unwrap().metadata.size).unwrap();
    for (step, len) in [(size + 10, size + 10), (4096, 4096), (9973, 20_011)] {
        for offset in (0..size + step).step_by(step) {
            let (mut one, mut other) = (vec![1; len], vec![2; len]);
            let count = layer.read_at(id, offset as u64, &mut one).unwrap();
            assert_eq!(count, expected.read_at(id, offset as u64, &mut other).unwrap(), "{what} at {offset}");
            assert!(one[..count] == other[..count], "{what} at {offset}");
        }
    }
}

fn content(layer: &dyn Layer, path: &str) -> Vec<u8> {
    let mut id = layer.root();
    for name in path.split('/') {
        let found = layer.lookup(id, Name::new(name.as_bytes()).unwrap()).unwrap();
        let Found::Entry(child) = found else { panic!("{path}: {found:?}") };
        id = child;
    }
    let mut bytes = vec![0; usize::try_from(layer.entry(id).unwrap().metadata.size).unwrap()];
    assert_eq!(layer.read_at(id, 0, &mut bytes).unwrap(), bytes.len());
    bytes
}

#[test]
fn annotations() {
    let digest = Digest::from_bytes([3; 32]);
    let of = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        TocAnnotation::of(&pairs.collect::<BTreeMap<_, _>>())
    };
    let text = digest.to_string();
    let estargz = ("containerd.io/snapshot/stargz/toc.digest", &*text);
    assert_eq!(of(&[]).unwrap(), None);
    assert_eq!(of(&[estargz]).unwrap(), Some(TocAnnotation::EStargz { toc_digest: digest }));
    for prefix in ["io.github.containers.zstd-chunked", "io.containers.zstd-chunked"] {
        let (checksum, position) =
            (format!("{prefix}.manifest-checksum"), format!("{prefix}.manifest-position"));
        let chunked = TocAnnotation::ZstdChunked { checksum: digest, position: "1:2:3:1".to_owned() };
        assert_eq!(of(&[estargz, (&checksum, &text), (&position, "1:2:3:1")]).unwrap(), Some(chunked));
        assert_eq!(of(&[(&checksum, &text)]).unwrap(), None);
        assert!(of(&[(&checksum, "sha512:00"), (&position, "")]).unwrap_err().to_string().contains(prefix));
    }
    assert!(of(&[(estargz.0, "sha256:0")]).is_err());
}
