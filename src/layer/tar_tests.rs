//! Tars made by the `tar` crate, GNU tar and by hand, through the index to what a layer says.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use flate2::{Compression, write::GzEncoder};

use super::{ChunkCache, Found, Layer, LayerError, TarLayer};
use crate::index::{self, Expected, IndexError, LayerIndex};
use crate::model::{Digest, EntryId, FileKind, Name};
use crate::sys::file_range::FileRange;

fn gzip(data: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Builds the index of `blob` in `dir` and opens both.
fn open(dir: &Path, blob: &[u8]) -> Result<TarLayer, IndexError> {
    std::fs::write(dir.join("blob"), blob).unwrap();
    let range = FileRange::open(&dir.join("blob")).unwrap();
    index::build(&range, &Expected::default(), dir, "index", &|_| {})?;
    let index = Arc::new(LayerIndex::open(&dir.join("index"))?);
    Ok(TarLayer::new(index, range, Arc::new(ChunkCache::new(64 << 20))))
}

fn layer(blob: &[u8]) -> Result<TarLayer, IndexError> {
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

fn id(layer: &TarLayer, path: &str) -> EntryId {
    match at(layer, path) {
        Found::Entry(id) => id,
        other => panic!("{path}: {other:?}"),
    }
}

fn content(layer: &TarLayer, path: &str) -> Vec<u8> {
    let id = id(layer, path);
    let size = usize::try_from(layer.entry(id).unwrap().metadata.size).unwrap();
    let mut bytes = vec![1; size + 10];
    assert_eq!(layer.read_at(id, 0, &mut bytes).unwrap(), size);
    bytes.truncate(size);
    bytes
}

/// A tar of hand-made headers.
#[derive(Default)]
struct Maker(Vec<u8>);

impl Maker {
    fn add(self, kind: u8, path: &str, link: &str, data: &[u8]) -> Self {
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

    fn header(mut self, header: &tar::Header, data: &[u8]) -> Self {
        let mut header = header.clone();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
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

    fn dir(self, path: &str) -> Self {
        self.add(b'5', path, "", b"")
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.add(b'0', path, "", data.as_bytes())
    }

    fn end(mut self) -> Vec<u8> {
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
fn noise(len: usize, seed: u64) -> Vec<u8> {
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

fn check_reads(blob: &[u8], data: &[u8]) {
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
fn listing(layer: &TarLayer) -> BTreeMap<String, String> {
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
    for cut in [1, 100, 511, 513, 700] {
        assert!(matches!(layer(&whole[..cut]), Err(IndexError::Tar { .. })), "{cut}");
    }
    let after = [&Maker::default().file("a", "x").end()[..], b"ignored, but part of the digest"].concat();
    let layer = layer(&after).unwrap();
    assert_eq!(layer.index().tar_bytes(), after.len() as u64);
    assert_eq!(listing(&layer).len(), 1);
}

#[test]
fn other_compressions_are_named() {
    let zstd = zstd::bulk::compress(b"data", 1).unwrap();
    for (blob, word) in [(&zstd[..], "zstd"), (b"\xfd7zXZ\0..", "xz"), (b"BZh91AY", "bzip2")] {
        let error = layer(blob).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("skopeo"), "{error}");
    }
    assert!(matches!(layer(&[b'?'; 2000]), Err(IndexError::Tar { .. })));
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
