//! Tars made by the `tar` crate, GNU tar and by hand, through the index to what a layer says.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::{ChunkCache, Found, Layer, LayerError, TarLayer};
use crate::index::{self, Expected, IndexError, LayerIndex};
use crate::model::{Digest, EntryId, FileKind, Name};
use crate::sys::file_range::FileRange;

pub(super) fn gzip(data: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Builds the index of `blob` in `dir` and opens both.
pub(super) fn open(dir: &Path, blob: &[u8]) -> Result<TarLayer, IndexError> {
    std::fs::write(dir.join("blob"), blob).unwrap();
    let range = FileRange::open(&dir.join("blob")).unwrap();
    index::build(&range, &Expected::default(), dir, "index", &|_| {})?;
    let index = Arc::new(LayerIndex::open(&dir.join("index"))?);
    Ok(TarLayer::new(index, range, Arc::new(ChunkCache::new(64 << 20))))
}

pub(super) fn layer(blob: &[u8]) -> Result<TarLayer, IndexError> {
    open(tempfile::tempdir().unwrap().path(), blob)
}

/// What is under a path (no symlinks are followed).
fn at(layer: &TarLayer, path: &str) -> Found {
    let mut found = Found::Entry(layer.root());
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let Found::Entry(dir) = found else { return Found::Absent };
        found = layer.lookup(dir, Name::new(name.as_bytes()).unwrap()).unwrap();
    }
    found
}

pub(super) fn id(layer: &TarLayer, path: &str) -> EntryId {
    match at(layer, path) {
        Found::Entry(id) => id,
        other => panic!("{path}: {other:?}"),
    }
}

pub(super) fn content(layer: &TarLayer, path: &str) -> Vec<u8> {
    let id = id(layer, path);
    let size = usize::try_from(layer.entry(id).unwrap().metadata.size).unwrap();
    let mut bytes = vec![1; size + 10];
    assert_eq!(layer.read_at(id, 0, &mut bytes).unwrap(), size);
    bytes.truncate(size);
    bytes
}

/// A tar of hand-made headers.
#[derive(Default)]
pub(super) struct Maker(Vec<u8>);

impl Maker {
    pub(super) fn add(self, kind: u8, path: &str, link: &str, data: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        let fields = header.as_mut_bytes();
        fields[..path.len()].copy_from_slice(path.as_bytes());
        fields[157..157 + link.len()].copy_from_slice(link.as_bytes());
        fields[156] = kind;
        header.set_mode(0o644);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(3);
        header.set_size(data.len() as u64);
        self.header(&header, data)
    }

    pub(super) fn header(mut self, header: &tar::Header, data: &[u8]) -> Self {
        let mut header = header.clone();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let len = (rest + 1..).find(|len| len.to_string().len() + rest == *len).unwrap();
            data.extend_from_slice(format!("{len} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.add(b'x', "pax", "", &data)
    }

    pub(super) fn dir(self, path: &str) -> Self {
        self.add(b'5', path, "", b"")
    }

    pub(super) fn file(self, path: &str, data: &str) -> Self {
        self.add(b'0', path, "", data.as_bytes())
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

#[test]
fn plain_and_gzip_tell_the_same() {
    let tar = Maker::default().dir("d/").file("d/a", "hello").add(b'2', "d/l", "a", b"").end();
    for blob in [tar.clone(), gzip(&tar, 6), gzip(&tar, 0)] {
        let layer = layer(&blob).unwrap();
        assert_eq!(content(&layer, "d/a"), b"hello");
        assert_eq!(layer.read_link(id(&layer, "d/l")).unwrap(), b"a");
        let entry = layer.entry(id(&layer, "d/a")).unwrap();
        assert_eq!((entry.metadata.uid, entry.metadata.gid, entry.metadata.mtime.secs), (1, 2, 3));
        assert_eq!(entry.names, 1);
        assert!(layer.entry(layer.root()).unwrap().implied);
        assert!(!layer.entry(id(&layer, "d")).unwrap().implied);
        assert_eq!(at(&layer, "d/b"), Found::Absent);
    }
}

/// Bytes that compress by half, with matches near and far.
pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes: Vec<u8> = Vec::with_capacity(len + 64);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let far = usize::try_from(state >> 40).unwrap() % 40_000 + 1;
        if state & 1 == 0 && bytes.len() > far {
            let start = bytes.len() - far;
            let stop = (start + 20).min(bytes.len());
            bytes.extend_from_within(start..stop);
        } else {
            bytes.extend_from_slice(&state.to_le_bytes());
        }
    }
    bytes.truncate(len);
    bytes
}

pub(super) fn check_reads(blob: &[u8], data: &[u8]) {
    let layer = layer(blob).unwrap();
    let id = id(&layer, "big");
    let mut state = 88_172_645_463_325_252_u64;
    let read = |offset: usize, len: usize| {
        let mut bytes = vec![0; len];
        let count = layer.read_at(id, offset as u64, &mut bytes).unwrap();
        assert!(bytes[..count] == data[offset.min(data.len())..(offset + len).min(data.len())]);
    };
    for _ in 0..300 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let offset = usize::try_from(state >> 20).unwrap() % data.len();
        read(offset, usize::try_from(state & 0x3fff).unwrap());
    }
    for offset in (0..data.len() + 200_000).step_by(100_000) {
        read(offset, 100_000);
    }
    read(0, data.len());
}

#[test]
fn every_read_of_every_compression() {
    let data = noise(5_000_000, 7);
    let tar = Maker::default().add(b'0', "big", "", &data).end();
    check_reads(&tar, &data);
    for level in [0, 1, 6, 9] {
        check_reads(&gzip(&tar, level), &data);
    }
    let members: Vec<u8> = tar.chunks(300_001).flat_map(|part| gzip(part, 6)).collect();
    check_reads(&members, &data);
    let padded = [&gzip(&tar, 1)[..], &[0; 5000]].concat();
    check_reads(&padded, &data);
}

#[test]
fn long_runs() {
    let data = vec![0; 20_000_000];
    let tar = Maker::default().add(b'0', "big", "", &data).end();
    check_reads(&gzip(&tar, 9), &data);
}

/// Every path below the root with a word on what is there.
pub(super) fn listing(layer: &TarLayer) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut open = vec![(String::new(), layer.root())];
    while let Some((path, dir)) = open.pop() {
        for item in layer.read_dir(dir).unwrap() {
            let below = format!("{path}{}", item.name.as_bytes().escape_ascii());
            assert_eq!(layer.lookup(dir, item.name.as_name()).unwrap(), item.found, "{below}");
            let word = match item.found {
                Found::Entry(id) => {
                    let entry = layer.entry(id).unwrap();
                    if entry.metadata.kind == FileKind::Directory {
                        open.push((format!("{below}/"), id));
                    }
                    let flags = [(entry.implied, " implied"), (entry.opaque, " opaque")];
                    let flags: String = flags.iter().filter(|flag| flag.0).map(|flag| flag.1).collect();
                    let text = match entry.metadata.kind {
                        FileKind::Regular => String::from_utf8(content(layer, &below)).unwrap(),
                        FileKind::Symlink => String::from_utf8(layer.read_link(id).unwrap()).unwrap(),
                        _ => String::new(),
                    };
                    format!("{:?} {}{flags} {text}", entry.metadata.kind, entry.names)
                }
                Found::LinkBelow(path) => format!("below {}", path.escape_ascii()),
                other => format!("{other:?}"),
            };
            all.insert(below, word.trim_end().to_owned());
        }
    }
    all
}

/// The listing as lines, of the layer that is made of this tar.
fn lines(tar: Maker) -> Vec<String> {
    let layer = layer(&tar.end()).unwrap();
    let mut lines: Vec<_> =
        listing(&layer).into_iter().map(|(path, word)| format!("{path}: {word}")).collect();
    let root = layer.entry(layer.root()).unwrap();
    if root.opaque {
        lines.push("/ opaque".to_owned());
    }
    lines
}

fn refused(tar: Maker) -> String {
    match layer(&tar.end()) {
        Err(error @ IndexError::Tar { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_normalised_and_never_leave_the_root() {
    let tar = Maker::default().file("./a//b/../c", "1").file("../../x", "2").file("/abs", "3").dir("./");
    assert_eq!(
        lines(tar),
        ["a: Directory 1 implied", "a/c: Regular 1 1", "abs: Regular 1 3", "x: Regular 1 2"]
    );
    assert!(refused(Maker::default().file(".", "x")).contains("root is not a directory"));
}

#[test]
fn whiteouts_in_any_order_and_of_any_type() {
    let tar = Maker::default()
        .file("d/.wh.gone", "")
        .add(b'1', "d/.wh.linked", "somewhere", b"")
        .file("both", "stays")
        .file(".wh.both", "")
        .file(".wh.dir", "")
        .file("dir/new", "n")
        .file("e/.wh..wh..opq", "")
        .file(".wh..wh.plnk/1.2", "shared")
        .add(b'1', "fromplnk", ".wh..wh.plnk/1.2", b"")
        .file(".wh..wh.aufs", "")
        .dir(".wh.hidden/")
        .file(".wh.hidden/inside", "no");
    assert_eq!(
        lines(tar),
        [
            "both: Regular 1 stays",
            "d: Directory 1 implied",
            "d/gone: Whiteout",
            "d/linked: Whiteout",
            "dir: Directory 1 implied opaque",
            "dir/new: Regular 1 n",
            "e: Directory 1 implied opaque",
            "fromplnk: Regular 1 shared",
            "hidden: Whiteout",
        ]
    );
    assert_eq!(lines(Maker::default().file(".wh..wh..opq", "")), ["/ opaque"]);
    for name in [".wh.", ".wh..", ".wh..."] {
        assert!(refused(Maker::default().file(name, "")).contains("not a file name"));
    }
}

#[test]
fn hard_links_back_forth_below_and_in_circles() {
    let tar = Maker::default()
        .add(b'1', "early", "./late", b"")
        .file("late", "L")
        .add(b'1', "second", "early", b"")
        .add(b'2', "sym", "late", b"")
        .add(b'1', "symlink2", "sym", b"")
        .add(b'1', "gone", "/lower/file", b"")
        .add(b'1', "round", "circle", b"")
        .add(b'1', "circle", "round", b"");
    let layer = layer(&tar.end()).unwrap();
    let all = listing(&layer);
    assert_eq!(all["early"], "Regular 3 L");
    assert_eq!(all["sym"], "Symlink 2 late");
    assert_eq!(all["gone"], "below lower/file");
    assert_eq!(all["round"], "below circle");
    assert_eq!(id(&layer, "late"), id(&layer, "second"));
    assert_eq!(id(&layer, "sym"), id(&layer, "symlink2"));
    let mut paths = layer.paths(id(&layer, "late")).unwrap();
    paths.sort();
    assert_eq!(paths, [&b"early"[..], b"late", b"second"].map(Box::from));
    let tar = Maker::default().dir("d").add(b'1', "x", "d", b"");
    assert!(refused(tar).contains("hard link to a directory"));
}

#[test]
fn a_replaced_object_lives_on_under_its_other_name() {
    let tar = Maker::default().file("a", "old").add(b'1', "b", "a", b"").file("a", "new");
    assert_eq!(lines(tar), ["a: Regular 1 new", "b: Regular 1 old"]);
}

#[test]
fn the_later_entry_wins_and_directories_merge() {
    let tar = Maker::default()
        .file("d/x", "1")
        .dir("d")
        .file("d/y", "2")
        .file("f", "1")
        .file("f/in", "now a directory")
        .dir("g")
        .file("g/lost", "1")
        .file("g", "now a file");
    assert_eq!(
        lines(tar),
        [
            "d: Directory 1",
            "d/x: Regular 1 1",
            "d/y: Regular 1 2",
            "f: Directory 1 implied",
            "f/in: Regular 1 now a directory",
            "g: Regular 1 now a file",
        ]
    );
}

#[test]
fn a_symlink_of_the_same_layer_is_followed_on_the_way() {
    let tar = Maker::default()
        .add(b'2', "lib", "usr/lib", b"")
        .file("lib/a", "1")
        .add(b'2', "usr/lib/up", "../../../../opt", b"")
        .file("lib/up/b", "2")
        .add(b'1', "hard", "lib/a", b"")
        .add(b'2', "loop", "loop", b"");
    assert_eq!(
        lines(tar),
        [
            "hard: Regular 2 1",
            "lib: Symlink 1 usr/lib",
            "loop: Symlink 1 loop",
            "opt: Directory 1 implied",
            "opt/b: Regular 1 2",
            "usr: Directory 1 implied",
            "usr/lib: Directory 1 implied",
            "usr/lib/a: Regular 2 1",
            "usr/lib/up: Symlink 1 ../../../../opt",
        ]
    );
    let tar = Maker::default().add(b'2', "loop", "loop", b"").file("loop/x", "");
    assert!(refused(tar).contains("too many symlinks"));
}

#[test]
fn extended_headers() {
    let long = format!("{}/name", "p".repeat(200));
    let tar = Maker::default()
        .pax(&[
            ("path", long.as_bytes()),
            ("mtime", b"-1.25"),
            ("uid", b"3000000000"),
            ("gid", b"7"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
            ("SCHILY.xattr.user.a", b""),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.whiteout", b"y"),
        ])
        .file("short", "x")
        .pax(&[("linkpath", b"to")])
        .add(b'2', "sym", "from", b"")
        .add(b'g', "global", "", b"12 path=bad\n")
        .add(b'L', "././@LongLink", "", b"gnu-name\0")
        .add(b'K', "././@LongLink", "", b"gnu-target\0")
        .add(b'2', "cut", "cut", b"");
    let layer = layer(&tar.end()).unwrap();
    let file = id(&layer, &long);
    let metadata = layer.entry(file).unwrap().metadata;
    assert_eq!((metadata.uid, metadata.gid), (3_000_000_000, 7));
    assert_eq!((metadata.mtime.secs, metadata.mtime.nanos), (-2, 750_000_000));
    let xattrs = layer.xattrs(file).unwrap();
    let names: Vec<_> = xattrs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(names, [(&b"security.capability"[..], &b"\x01\0\0\x02"[..]), (b"user.a", b"")]);
    assert_eq!(layer.read_link(id(&layer, "sym")).unwrap(), b"to");
    assert_eq!(layer.read_link(id(&layer, "gnu-name")).unwrap(), b"gnu-target");
}

#[test]
fn pax_size_says_where_the_next_header_is() {
    // The header claims 0 bytes: who believes it takes the content for a header.
    let mut inner = Maker::default().file("smuggled", "evil").0;
    inner.truncate(1024);
    let mut header = tar::Header::new_ustar();
    header.set_path("real").unwrap();
    header.set_mode(0o100_644);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let tar = Maker::default().pax(&[("size", b"1024")]).header(&header, &inner).file("next", "n");
    let layer = layer(&tar.end()).unwrap();
    assert_eq!(listing(&layer).keys().collect::<Vec<_>>(), ["next", "real"]);
    assert_eq!(content(&layer, "real").len(), 1024);
    assert_eq!(layer.entry(id(&layer, "real")).unwrap().metadata.mode, 0o644);
}

#[test]
fn devices_and_odd_types() {
    let mut header = tar::Header::new_ustar();
    header.set_path("null").unwrap();
    header.set_entry_type(tar::EntryType::Char);
    header.set_mode(0o666);
    header.set_device_major(1).unwrap();
    header.set_device_minor(3).unwrap();
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let tar =
        Maker::default().header(&header, b"").add(b'6', "fifo", "", b"").add(b'7', "contiguous", "", b"c");
    let layer = layer(&tar.add(0, "v7dir/", "", b"").add(0, "old", "", b"o").end()).unwrap();
    let rdev = layer.entry(id(&layer, "null")).unwrap().metadata.rdev;
    assert_eq!((rdev.major, rdev.minor), (1, 3));
    let all = listing(&layer);
    assert_eq!(all["fifo"], "Fifo 1");
    assert_eq!(all["contiguous"], "Regular 1 c");
    assert_eq!(all["v7dir"], "Directory 1");
    assert_eq!(all["old"], "Regular 1 o");
    assert!(refused(Maker::default().add(b'Q', "odd", "", b"")).contains("unknown type 'Q'"));
}

#[test]
fn limits() {
    let long = "n".repeat(256);
    let tar = || Maker::default().pax(&[("path", long.as_bytes())]).file("x", "");
    assert!(refused(tar()).contains("255 bytes"));
    let deep = "d/".repeat(1500);
    assert!(refused(Maker::default().pax(&[("path", deep.as_bytes())]).dir("x")).contains("deeper"));
    let long = "d/".repeat(3000);
    assert!(refused(Maker::default().pax(&[("path", long.as_bytes())]).dir("x")).contains("4095"));
    let target = vec![b't'; 5000];
    let tar = Maker::default().pax(&[("linkpath", &target)]).add(b'2', "l", "", b"");
    assert!(refused(tar).contains("symlink target"));
    assert!(refused(Maker::default().pax(&[("uid", b"4294967295")]).file("x", "")).contains("owner"));
}

#[test]
fn ends_of_archives() {
    for blob in [&b""[..], &[0; 512], &[0; 1024], &[0; 10240], &gzip(b"", 6)] {
        assert!(listing(&layer(blob).unwrap()).is_empty());
    }
    let whole = Maker::default().file("a", "x").0;
    assert_eq!(listing(&layer(&whole).unwrap()).len(), 1, "no blocks of zeros at the end");
    for cut in [1, 100, 511, 512] {
        assert!(matches!(layer(&whole[..cut]), Err(IndexError::Tar { .. })), "{cut}");
    }
    let after = [&Maker::default().file("a", "x").end()[..], b"ignored, but part of the digest"].concat();
    let layer = layer(&after).unwrap();
    assert_eq!(layer.index().tar_bytes(), after.len() as u64);
    assert_eq!(listing(&layer).len(), 1);
}

#[test]
fn digests_are_checked_before_anything_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let tar = Maker::default().file("a", "x").end();
    for blob in [gzip(&tar, 6), tar] {
        std::fs::write(dir.path().join("blob"), &blob).unwrap();
        let range = FileRange::open(&dir.path().join("blob")).unwrap();
        let other = Digest::from_bytes([7; 32]);
        for expected in
            [Expected { blob: Some(other), diff_id: None }, Expected { blob: None, diff_id: Some(other) }]
        {
            let result = index::build(&range, &expected, dir.path(), "index", &|_| {});
            assert!(matches!(result, Err(IndexError::Mismatch { .. })), "{result:?}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}

#[test]
fn a_flipped_or_missing_byte_of_the_blob_is_never_served() {
    let data = noise(600_000, 3);
    let tar = Maker::default().add(b'0', "big", "", &data).end();
    for blob in [gzip(&tar, 6), tar] {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), &blob).unwrap());
        let step = blob.len() / 60;
        for place in (0..blob.len()).step_by(step) {
            let mut bad = blob.clone();
            bad[place] ^= 0x10;
            std::fs::write(dir.path().join("bad"), &bad).unwrap();
            let range = FileRange::open(&dir.path().join("bad")).unwrap();
            let index = Arc::new(LayerIndex::open(&dir.path().join("index")).unwrap());
            let layer = TarLayer::new(index, range, Arc::new(ChunkCache::new(1 << 20)));
            let id = id(&layer, "big");
            let mut wrong = 0;
            for offset in (0..data.len()).step_by(50_000) {
                let mut bytes = vec![0; 50_000];
                match layer.read_at(id, offset as u64, &mut bytes) {
                    Ok(count) => assert!(bytes[..count] == data[offset..offset + count]),
                    Err(LayerError::Corrupt { .. }) => wrong += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            // The gzip header and trailer are of no use to a reader; everything else is.
            let inside = (10..blob.len() - 3000).contains(&place);
            assert!(wrong > 0 || !inside, "byte {place}");
            // A build from the same bytes notices, if not by the gzip checksum then by the digest.
            let expected = Expected { blob: None, diff_id: Some(layer.index().diff_id()) };
            let range = FileRange::open(&dir.path().join("bad")).unwrap();
            let built = index::build(&range, &expected, dir.path(), "other", &|_| {});
            assert!(built.is_err() || place < 10, "byte {place}");
        }
        for len in [0, 1, 17, blob.len() / 2, blob.len() - 1] {
            std::fs::write(dir.path().join("bad"), &blob[..len]).unwrap();
            let range = FileRange::open(&dir.path().join("bad")).unwrap();
            let index = Arc::new(LayerIndex::open(&dir.path().join("index")).unwrap());
            let layer = TarLayer::new(index, range, Arc::new(ChunkCache::new(1 << 20)));
            let mut bytes = vec![0; data.len()];
            if layer.read_at(id(&layer, "big"), 0, &mut bytes).is_ok() {
                assert!(bytes == data);
            }
        }
    }
}

#[test]
fn a_flipped_byte_of_the_index_is_never_believed() {
    let dir = tempfile::tempdir().unwrap();
    let data = noise(700_000, 5);
    let tar = Maker::default()
        .add(b'0', "big", "", &data)
        .pax(&[("SCHILY.xattr.user.a", b"v")])
        .dir("d")
        .file("d/a", "x")
        .add(b'1', "d/b", "d/a", b"")
        .add(b'1', "d/c", "lower", b"")
        .add(b'2', "d/s", "target", b"");
    drop(open(dir.path(), &gzip(&tar.end(), 6)).unwrap());
    let whole = std::fs::read(dir.path().join("index")).unwrap();
    let blob = FileRange::open(&dir.path().join("blob")).unwrap();
    let walk = |index: &[u8]| -> Result<Vec<Vec<u8>>, String> {
        std::fs::write(dir.path().join("bad"), index).unwrap();
        let index = LayerIndex::open(&dir.path().join("bad")).map_err(|error| error.to_string())?;
        let layer = TarLayer::new(Arc::new(index), blob.clone(), Arc::new(ChunkCache::new(1 << 20)));
        let text = |error: LayerError| error.to_string();
        let mut seen = Vec::new();
        let mut open = vec![layer.root()];
        while let Some(dir) = open.pop() {
            for item in layer.read_dir(dir).map_err(text)? {
                seen.push(item.name.as_bytes().to_vec());
                let Found::Entry(id) = item.found else { continue };
                let entry = layer.entry(id).map_err(text)?;
                seen.push(format!("{entry:?} {:?}", layer.xattrs(id).map_err(text)?).into());
                match entry.metadata.kind {
                    FileKind::Directory => open.push(id),
                    FileKind::Symlink => seen.push(layer.read_link(id).map_err(text)?),
                    _ => {
                        let mut bytes = vec![0; 700_000];
                        layer.read_at(id, 0, &mut bytes).map_err(text)?;
                        seen.push(bytes);
                        seen.extend(layer.paths(id).map_err(text)?.into_iter().map(Vec::from));
                    }
                }
            }
        }
        Ok(seen)
    };
    let right = walk(&whole).unwrap();
    let mut refused = 0;
    for place in (0..whole.len()).step_by(1 + whole.len() / 400).chain(0..320) {
        let mut bad = whole.clone();
        bad[place] ^= 1 << (place % 8);
        match walk(&bad) {
            Ok(seen) => assert!(seen == right, "byte {place}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused >= 700, "every byte counts: {refused}");
    for len in (0..whole.len()).step_by(1 + whole.len() / 50) {
        assert!(walk(&whole[..len]).is_err(), "cut to {len}");
    }
    assert!(walk(&[&whole[..], b"x"].concat()).is_err(), "longer than it says");
}

#[test]
fn the_format_does_not_change_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let tar = Maker::default()
        .dir("d")
        .pax(&[("SCHILY.xattr.user.a", b"v"), ("mtime", b"1.5")])
        .file("d/a", "hello")
        .add(b'1', "b", "d/a", b"")
        .add(b'1', "c", "lower", b"")
        .file("d/.wh.x", "");
    drop(open(dir.path(), &tar.end()).unwrap());
    let bytes = std::fs::read(dir.path().join("index")).unwrap();
    assert_eq!(&bytes[..16], b"layerlfx\x03\0\0\0\0\0\0\0");
    // Whoever changes this changes `format::VERSION` too, or old indexes are misread.
    assert_eq!((bytes.len(), blake3::hash(&bytes).to_hex().as_str()), (GOLDEN_BYTES, GOLDEN_BLAKE3));
    for (place, byte) in [(8, 1), (0, b'L')] {
        let mut other = bytes.clone();
        other[place] = byte;
        std::fs::write(dir.path().join("other"), other).unwrap();
        let result = LayerIndex::open(&dir.path().join("other"));
        assert!(matches!(result, Err(IndexError::Stale { .. })), "{result:?}");
    }
}

const GOLDEN_BYTES: usize = 663;
const GOLDEN_BLAKE3: &str = "0651ece24a77d354b3b2b58a499b45777f7e0709990e677f6658bbb1315c46ef";

fn run(dir: &Path, script: &str) -> bool {
    let status = Command::new("sh").arg("-ec").arg(script).current_dir(dir).status();
    status.unwrap().success()
}

#[test]
fn what_gnu_tar_writes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("in");
    std::fs::create_dir_all(root.join("d").join("long".repeat(50))).unwrap();
    std::fs::write(root.join("d").join("long".repeat(50)).join("n".repeat(200)), "deep").unwrap();
    std::os::unix::fs::symlink("t".repeat(300), root.join("link")).unwrap();
    let data = noise(1_500_000, 11);
    std::fs::write(root.join("big"), &data).unwrap();
    std::fs::hard_link(root.join("big"), root.join("hard")).unwrap();
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    for n in 0..40_u64 {
        let bytes = [u8::try_from(n + 1).unwrap(); 4096];
        std::os::unix::fs::FileExt::write_all_at(&sparse, &bytes, n * 65536 + 4096).unwrap();
    }
    sparse.set_len(40 * 65536 + 77).unwrap();
    let holes = std::fs::read(root.join("sparse")).unwrap();
    let tars = [
        "tar --format=gnu -Scf - in",
        "tar --format=pax --sparse-version=0.0 -Scf - in",
        "tar --format=pax --sparse-version=0.1 -Scf - in",
        "tar --format=pax --sparse-version=1.0 -Scf - in",
    ];
    for (number, tar) in tars.iter().enumerate() {
        let packer = ["cat", "gzip -1", "gzip -9", "pigz -b 128"][number];
        if !run(dir.path(), &format!("{tar} | {packer} > out")) {
            continue; // pigz is not everywhere
        }
        let out = tempfile::tempdir().unwrap();
        let layer = open(out.path(), &std::fs::read(dir.path().join("out")).unwrap()).unwrap();
        assert!(content(&layer, "in/big") == data, "{tar}");
        assert!(content(&layer, "in/sparse") == holes, "{tar}");
        assert_eq!(layer.entry(id(&layer, "in/hard")).unwrap().names, 2);
        assert_eq!(layer.read_link(id(&layer, "in/link")).unwrap(), "t".repeat(300).as_bytes());
        let deep = format!("in/d/{}/{}", "long".repeat(50), "n".repeat(200));
        assert_eq!(content(&layer, &deep), b"deep");
        let sparse = id(&layer, "in/sparse");
        for offset in (0..holes.len()).step_by(3001) {
            let mut bytes = vec![9; 10_000];
            let count = layer.read_at(sparse, offset as u64, &mut bytes).unwrap();
            assert!(bytes[..count] == holes[offset..(offset + 10_000).min(holes.len())]);
        }
    }
}

#[test]
fn gzip_headers_and_ends() {
    let tar = Maker::default().file("a", "content").end();
    let plain = gzip(&tar, 6);
    let mut header = vec![0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 0, 0, 0, 0, 0, 3, 2, 0, b'e', b'x'];
    header.extend_from_slice(b"name\0comment\0\x01\x02");
    let decorated = [&header[..], &plain[10..]].concat();
    assert_eq!(content(&layer(&decorated).unwrap(), "a"), b"content");
    let mut crc = plain.clone();
    let at = crc.len() - 8;
    crc[at] ^= 1;
    let mut length = plain.clone();
    let at = length.len() - 4;
    length[at] ^= 1;
    let garbage = [&plain[..], b"\0\0garbage"].concat();
    let cut = &plain[..plain.len() - 3];
    for (blob, word) in [
        (&crc[..], "CRC-32"),
        (&length[..], "wrong length"),
        (&garbage[..], "garbage"),
        (cut, "cut off"),
        (&plain[..40], "cut off"),
        (&plain[..12], "cut off"),
        (&[&plain[..], &[0x1f, 0x8b]].concat()[..], "cut off"),
    ] {
        let error = layer(blob).unwrap_err();
        assert!(matches!(error, IndexError::Encoded { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

/// One deflate block with fixed codes (RFC 1951 section 3.2.6), however much there is: no boundary to start from.
fn single_block(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let (mut hold, mut bits) = (0b011_u32, 3_u32);
    let mut put = |code: u32, len: u32| {
        hold |= (code.reverse_bits() >> (32 - len)) << bits;
        bits += len;
        while bits >= 8 {
            out.push(u8::try_from(hold & 0xff).unwrap());
            hold >>= 8;
            bits -= 8;
        }
    };
    for byte in data {
        match u32::from(*byte) {
            byte @ 0..144 => put(0x30 + byte, 8),
            byte => put(0x190 + byte - 144, 9),
        }
    }
    put(0, 7);
    put(0, 7);
    out.extend(crc32fast::hash(data).to_le_bytes());
    out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    out
}

#[test]
fn a_single_giant_block() {
    let data = noise(1_500_000, 17);
    let tar = Maker::default().add(b'0', "big", "", &data).end();
    check_reads(&single_block(&tar), &data);
}

#[test]
fn keys_tell_blobs_apart() {
    let dir = tempfile::tempdir().unwrap();
    let key = |content: &[u8], digest: Option<Digest>| {
        std::fs::write(dir.path().join("b"), content).unwrap();
        let range = FileRange::open(&dir.path().join("b")).unwrap();
        index::key(&range, digest.as_ref(), &Digest::from_bytes([1; 32])).unwrap()
    };
    let known = key(b"x", Some(Digest::from_bytes([0xab; 32])));
    assert_eq!(known, format!("{}.lfx", "ab".repeat(32)));
    assert_eq!(key(b"plain", None), format!("{}.lfx", "01".repeat(32)));
    let (one, other) = (gzip(b"same", 1), gzip(b"same", 0));
    assert_ne!(key(&one, None), key(&other, None));
    assert_eq!(key(&one, None), key(&one, None));
}

#[test]
fn many_readers_at_once() {
    let data = noise(4_000_000, 13);
    let tar = Maker::default().add(b'0', "big", "", &data).end();
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), &gzip(&tar, 6)).unwrap());
    let index = Arc::new(LayerIndex::open(&dir.path().join("index")).unwrap());
    let blob = FileRange::open(&dir.path().join("blob")).unwrap();
    // Room for 1 granule in each shard: what one thread decodes is gone when the next looks for it.
    let layer = TarLayer::new(index, blob, Arc::new(ChunkCache::new(8 * 140_000)));
    let id = id(&layer, "big");
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (layer, data) = (&layer, &data);
            scope.spawn(move || {
                for n in 0..60 {
                    let offset = (n * 65_537 * (seed + 1)) % data.len();
                    let mut bytes = vec![0; 70_000];
                    let count = layer.read_at(id, offset as u64, &mut bytes).unwrap();
                    assert!(bytes[..count] == data[offset..(offset + 70_000).min(data.len())]);
                }
            });
        }
    });
}

/// Makes the checksums right after a change.
pub(super) fn seal(index: &mut [u8]) {
    let body_bytes = usize::try_from(u64::from_le_bytes(index[128..136].try_into().unwrap())).unwrap();
    let table = 320..320 + 32 * body_bytes.div_ceil(65536);
    let digests: Vec<_> = index[table.end..].chunks(65536).map(blake3::hash).collect();
    for (slot, digest) in index[table.clone()].chunks_exact_mut(32).zip(&digests) {
        slot.copy_from_slice(digest.as_bytes());
    }
    index[16..48].fill(0);
    let digest = blake3::hash(&index[..table.end]);
    index[16..48].copy_from_slice(digest.as_bytes());
}

/// One entry of a made-up archive.
#[derive(Clone, Debug)]
enum Step {
    File(String, Vec<u8>),
    Dir(String),
    Symlink(String),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = prop::collection::vec("[abc]", 1..4).prop_map(|names| names.join("/"));
    let content = prop::collection::vec(any::<u8>(), 0..2000);
    let step = prop_oneof![
        4 => (path.clone(), content).prop_map(|(path, content)| Step::File(path, content)),
        2 => path.clone().prop_map(Step::Dir),
        1 => path.prop_map(Step::Symlink),
    ];
    prop::collection::vec(step, 0..30)
}

/// What is where after the steps, told in the plainest way: a map of paths.
fn model(steps: &[Step]) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for step in steps {
        let (path, word) = match step {
            Step::File(path, content) => (path, format!("file {content:?}")),
            Step::Dir(path) => (path, "dir".to_owned()),
            Step::Symlink(path) => (path, "link".to_owned()),
        };
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            if !all.get(parent).is_some_and(|word| word.starts_with("dir")) {
                all.insert(parent.to_owned(), "dir implied".to_owned());
            }
        }
        if word != "dir" {
            let below = format!("{path}/");
            all.retain(|other, _| !other.starts_with(&below));
        }
        all.insert(path.clone(), word);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_archive_is_what_the_model_says(steps in steps(), level in 0..10_u32) {
        // Symlinks as parents have a test of their own: here none is walked through.
        let links: Vec<_> = steps.iter().filter_map(|step| match step {
            Step::Symlink(path) => Some(format!("{path}/")),
            _ => None,
        }).collect();
        let steps: Vec<_> = steps.into_iter().filter(|step| {
            let (Step::File(path, _) | Step::Dir(path) | Step::Symlink(path)) = step;
            !links.iter().any(|link| path.starts_with(link.as_str()))
        }).collect();
        let mut tar = Maker::default();
        for step in &steps {
            tar = match step {
                Step::File(path, content) => tar.add(b'0', path, "", content),
                Step::Dir(path) => tar.dir(path),
                Step::Symlink(path) => tar.add(b'2', path, "nowhere", b""),
            };
        }
        let layer = layer(&gzip(&tar.end(), level)).unwrap();
        let mut found = BTreeMap::new();
        let mut open = vec![(String::new(), layer.root())];
        while let Some((path, dir)) = open.pop() {
            for item in layer.read_dir(dir).unwrap() {
                let below = format!("{path}{}", item.name.as_bytes().escape_ascii());
                let Found::Entry(id) = item.found else { panic!("{item:?}") };
                let entry = layer.entry(id).unwrap();
                let word = match entry.metadata.kind {
                    FileKind::Directory => {
                        open.push((format!("{below}/"), id));
                        if entry.implied { "dir implied".to_owned() } else { "dir".to_owned() }
                    }
                    FileKind::Symlink => "link".to_owned(),
                    _ => format!("file {:?}", content(&layer, &below)),
                };
                found.insert(below, word);
            }
        }
        prop_assert_eq!(found, model(&steps));
    }

    #[test]
    fn an_index_with_right_checksums_and_wrong_content(
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6)
    ) {
        let tar = Maker::default()
            .pax(&[("SCHILY.xattr.user.a", b"v")])
            .file("d/a", "hello")
            .add(b'1', "b", "d/a", b"")
            .add(b'1', "c", "lower", b"")
            .add(b'2', "s", "d", b"")
            .add(b'0', "big", "", &noise(1_000_000, 3));
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), &gzip(&tar.end(), 6)).unwrap());
        let path = dir.path().join("index");
        let mut bytes = std::fs::read(&path).unwrap();
        for (place, value) in changes {
            // The magic, the version and the length are refused at once.
            let place = 136 + place % (bytes.len() - 136);
            bytes[place] = value;
        }
        seal(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let index = LayerIndex::open(&path).unwrap();
        let blob = FileRange::open(&dir.path().join("blob")).unwrap();
        let layer = TarLayer::new(Arc::new(index), blob, Arc::new(ChunkCache::new(1 << 20)));
        // Errors and answers are both right: it must come to an end without a panic.
        for number in 0..8 {
            let id = EntryId(number);
            drop((layer.entry(id), layer.xattrs(id), layer.paths(id), layer.read_link(id)));
            drop((layer.read_dir(id), layer.lookup(id, Name::new(b"d").unwrap())));
            drop((layer.read_at(id, 0, &mut [0; 99]), layer.read_at(id, 700_000, &mut [0; 99])));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(junk in prop::collection::vec(any::<u8>(), 0..3000), place in 0..1500_usize) {
        // The checksum is made right, so that everything behind it is reached.
        let mut tar = Maker::default().pax(&[("path", b"some/where")]).file("d/a", "hello").end();
        for (to, from) in tar.iter_mut().skip(place).zip(&junk).take(40) {
            *to = *from;
        }
        for start in (0..tar.len()).step_by(512) {
            let block = &mut tar[start..start + 512];
            if block[257..262] == *b"ustar" {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if let Ok(layer) = layer(&tar) {
            layer.read_dir(layer.root()).unwrap();
        }
        drop(layer(&junk));
        drop(layer(&[&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], &junk[..]].concat()));
    }
}

#[test]
fn only_an_untyped_entry_with_a_slash_is_a_directory_and_has_no_content() {
    // As in Go: a reader that skips the content of `v7/` sees other entries than docker does.
    let mut header = tar::Header::new_old();
    header.set_path("v7/").unwrap();
    header.as_mut_bytes()[156] = 0;
    header.set_mode(0o755);
    header.set_size(512);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let tar = Maker::default().header(&header, b"").file("after", "a").add(b'0', "typed/", "", b"t");
    assert_eq!(lines(tar), ["after: Regular 1 a", "typed: Regular 1 t", "v7: Directory 1"]);
}

#[test]
fn sparse_files_that_lie() {
    // Offsets that only meet beyond 2^64, a size that stat(2) cannot say, a map without a size.
    let beyond = format!("0,{},{0},5", u64::MAX - 10);
    let max = u64::MAX.to_string();
    let tar = Maker::default()
        .pax(&[
            ("GNU.sparse.size", max.as_bytes()),
            ("GNU.sparse.map", beyond.as_bytes()),
            ("size", max.as_bytes()),
        ])
        .file("s", "x");
    let error = refused(tar);
    assert!(error.contains("sparse") || error.contains("too large"), "{error}");
    let tar = Maker::default()
        .pax(&[("GNU.sparse.size", (1_u64 << 63).to_string().as_bytes()), ("GNU.sparse.map", b"0,1")])
        .file("s", "x");
    assert!(refused(tar).contains("too large"));
    for key in ["GNU.sparse.major", "GNU.sparse.name", "GNU.sparse.map"] {
        let tar = Maker::default().pax(&[(key, b"1")]).file("s", "x");
        assert!(refused(tar).contains("has no size"), "{key}");
    }
}

#[test]
fn the_padding_of_the_last_file_may_be_missing() {
    let whole = Maker::default().file("a", "content").0;
    for len in [512 + 7, 512 + 8, 1023] {
        let layer = layer(&whole[..len]).unwrap();
        assert_eq!(content(&layer, "a"), b"content");
    }
}

#[test]
fn hard_links_to_hard_links_to_below_and_long_chains() {
    let mut tar = Maker::default()
        .add(b'1', "forth", "far", b"")
        .add(b'1', "far", "lower/file", b"")
        .add(b'1', "back", "far", b"");
    for number in 0..100 {
        tar = tar.add(b'1', &format!("chain{number:03}"), &format!("chain{:03}", number + 1), b"");
    }
    let all = listing(&layer(&tar.file("chain100", "end").end()).unwrap());
    for name in ["forth", "far", "back"] {
        assert_eq!(all[name], "below lower/file", "{name}");
    }
    assert_eq!(all["chain000"], "Regular 101 end");
}

#[test]
fn a_blob_cut_short_under_the_mount_is_an_io_error_not_corruption() {
    let data = noise(900_000, 3);
    let tar = Maker::default().add(b'0', "big", "", &data).end();
    for blob in [gzip(&tar, 6), tar] {
        let dir = tempfile::tempdir().unwrap();
        let layer = open(dir.path(), &blob).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("blob")).unwrap();
        file.set_len(100_000).unwrap();
        let read = layer.read_at(id(&layer, "big"), 800_000, &mut [0; 1000]);
        assert!(matches!(read, Err(LayerError::Io { .. })), "{read:?}");
    }
}

#[test]
fn what_is_no_layer_because_it_is_damaged_is_called_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let tar = Maker::default().file("a", "x").file("b", "y").end();
    for blob in [gzip(&tar, 6), tar] {
        let right = Digest::from_bytes(Sha256::digest(&blob).into());
        for damaged in [[&blob[..2], &[0xff; 600], &blob[2..]].concat(), blob[..blob.len() / 3].to_vec()] {
            std::fs::write(dir.path().join("blob"), damaged).unwrap();
            let range = FileRange::open(&dir.path().join("blob")).unwrap();
            let expected = Expected { blob: Some(right), diff_id: None };
            let error = index::build(&range, &expected, dir.path(), "index", &|_| {}).unwrap_err();
            assert!(matches!(error, IndexError::Mismatch { expected, .. } if expected == right), "{error}");
        }
    }
}
