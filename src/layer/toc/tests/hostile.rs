//! Damaged blobs, and tables of contents that lie: an error or right bytes, and no panic.

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::writer::{Form, digest, estargz};
use super::{Blob, everything};
use crate::layer::tar_tests::{self, Maker, noise};
use crate::layer::{Found, Layer, LayerError, TocLayer};
use crate::model::{Digest, EntryId, FileKind};

/// More objects than the test's layers have: a TOC can say that a directory has many names.
const OBJECTS_MAX: usize = 200;
/// Of files that a TOC makes long.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Asks for everything; the files that could be read, each with its content.
fn walk(layer: &TocLayer) -> Result<Vec<(EntryId, Vec<u8>)>, LayerError> {
    let (mut open, mut files, mut seen) = (vec![layer.root()], Vec::new(), 0);
    while let Some(dir) = open.pop() {
        for item in layer.read_dir(dir)? {
            assert_eq!(layer.lookup(dir, item.name.as_name())?, item.found);
            let Found::Entry(id) = item.found else { continue };
            seen += 1;
            if seen > OBJECTS_MAX {
                return Ok(files);
            }
            let entry = layer.entry(id)?;
            layer.xattrs(id)?;
            layer.paths(id)?;
            match entry.metadata.kind {
                FileKind::Directory => open.push(id),
                FileKind::Symlink => drop(layer.read_link(id)?),
                FileKind::Regular => {
                    let size = entry.metadata.size;
                    let mut bytes = vec![0; usize::try_from(size.min(READ_BYTES_MAX)).unwrap()];
                    match layer.read_at(id, 0, &mut bytes) {
                        Ok(count) => {
                            assert_eq!(count, bytes.len());
                            files.push((id, bytes));
                        }
                        Err(LayerError::Corrupt { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    layer.read_at(id, size, &mut [0; 9])?;
                }
                _ => {}
            }
        }
    }
    Ok(files)
}

#[test]
fn a_flipped_or_missing_byte_is_never_served() {
    let tar = Maker::default().file("a", "hello").add(b'0', "b", "", &noise(3000, 2)).file("c", "end").end();
    let form = Form { chunk_bytes: 1000, member_bytes_min: 0, is_legacy: false };
    let packed = Form { member_bytes_min: 1500, ..form };
    for whole in [estargz(&tar, form, &|_| {}), estargz(&tar, packed, &|_| {})] {
        let expected = walk(&whole.layer().unwrap()).unwrap();
        let (mut refused, mut wrong) = (0, 0);
        for at in 0..whole.bytes.len() {
            let mut bytes = whole.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            let blob = Blob { bytes, annotation: whole.annotation.clone() };
            let Ok(layer) = blob.layer() else {
                refused += 1;
                continue;
            };
            let files = walk(&layer).unwrap();
            wrong += usize::from(files.len() < expected.len());
            assert!(files.iter().all(|file| expected.contains(file)), "byte {at}");
        }
        assert!(refused > 100 && wrong > 500, "{refused} {wrong}");
        for len in (0..whole.bytes.len()).step_by(37) {
            let blob = Blob { bytes: whole.bytes[..len].to_vec(), annotation: whole.annotation.clone() };
            assert!(blob.layer().is_err(), "{len} bytes");
        }
    }
}

#[test]
fn a_blob_cut_short_under_the_mount_is_an_io_error() {
    let dir = tempfile::tempdir().unwrap();
    let tar = Maker::default().add(b'0', "f", "", &noise(300_000, 2)).end();
    let form = Form { chunk_bytes: 1 << 20, member_bytes_min: 0, is_legacy: false };
    let blob = estargz(&tar, form, &|_| {});
    let path = dir.path().join("blob");
    std::fs::write(&path, &blob.bytes).unwrap();
    let range = crate::sys::file_range::FileRange::open(&path).unwrap();
    let toc = super::Toc::of(&range, &blob.annotation).unwrap();
    let layer = TocLayer::new(&toc, Digest::from_bytes([7; 32]), range).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let id = layer.read_dir(layer.root()).unwrap().remove(0).found;
    let Found::Entry(id) = id else { panic!("{id:?}") };
    let error = layer.read_at(id, 0, &mut [0; 300_000]).unwrap_err();
    assert!(matches!(error, LayerError::Io { .. }), "{error}");
}

/// What comes in the place of something in a TOC.
fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just(""),
        Just("reg"),
        Just("dir"),
        Just("chunk"),
        Just("hardlink"),
        Just("symlink"),
        Just("zeros"),
        Just("a"),
        Just("../a/b/../.."),
        Just("d/.wh.a"),
        Just("2001-02-03T04:05:06+01:00"),
        Just("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ];
    prop_oneof![
        text.prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..5000_i64).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(null)),
        Just(json!([])),
        Just(json!({"user.a": "YQ=="})),
    ]
}

const KEYS: [&str; 17] = [
    "type",
    "name",
    "linkName",
    "mode",
    "uid",
    "gid",
    "size",
    "modtime",
    "devMajor",
    "xattrs",
    "digest",
    "offset",
    "endOffset",
    "chunkSize",
    "chunkOffset",
    "chunkDigest",
    "innerOffset",
];

/// What is done to an entry.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, usize, Value),
    Copy(usize, usize, usize),
    Remove(usize),
    Swap(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<usize>(), any::<usize>(), value()).prop_map(|(at, key, value)| Change::Set(at, key, value)),
        2 => any::<(usize, usize, usize)>().prop_map(|(from, to, key)| Change::Copy(from, to, key)),
        1 => any::<usize>().prop_map(Change::Remove),
        1 => any::<(usize, usize)>().prop_map(|(one, other)| Change::Swap(one, other)),
    ]
}

fn apply(toc: &mut Value, changes: &[Change]) {
    let Some(entries) = toc["entries"].as_array_mut() else { return };
    for change in changes {
        let count = entries.len();
        if count == 0 {
            return;
        }
        match change {
            Change::Set(at, key, value) => entries[at % count][KEYS[key % KEYS.len()]] = value.clone(),
            Change::Copy(from, to, key) => {
                let key = KEYS[key % KEYS.len()];
                entries[to % count][key] = entries[from % count][key].clone();
            }
            Change::Remove(at) => drop(entries.remove(at % count)),
            Change::Swap(one, other) => entries.swap(one % count, other % count),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a TOC says: what is read has the digests that it names.
    #[test]
    fn a_toc_that_lies(changes in prop::collection::vec(change(), 1..6), member_bytes_min in 0..3000_usize) {
        let tar = Maker::default()
            .dir("d/").file("d/a", "hello").file("b", "other").add(b'1', "l", "d/a", b"").add(b'2', "s", "b", b"")
            .add(b'0', "n", "", &noise(2500, 2)).file("c", "end").end();
        let form = Form { chunk_bytes: 1000, member_bytes_min, is_legacy: false };
        let blob = estargz(&tar, form, &|toc| apply(toc, &changes));
        // Chunks of the tar, and the TOC; no others have a digest there.
        let mut right: HashSet<Vec<u8>> = [&b"hello"[..], b"other", b"end", b""].map(<[u8]>::to_vec).into();
        right.extend(noise(2500, 2).chunks(1000).map(<[u8]>::to_vec));
        if let Ok(layer) = blob.layer() {
            let files = walk(&layer).unwrap();
            for (_, bytes) in files {
                let is_toc = super::TocAnnotation::EStargz { toc_digest: digest(&bytes) } == blob.annotation;
                let is_right = is_toc || right.contains(&bytes) || is_of_chunks(&bytes, &right);
                prop_assert!(is_right, "{} bytes", bytes.len());
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(junk in prop::collection::vec(any::<u8>(), 0..300), at in 0..2000_usize) {
        let form = Form { chunk_bytes: 1000, member_bytes_min: 0, is_legacy: false };
        let mut blob = estargz(&Maker::default().file("a", "hello").end(), form, &|_| {});
        let at = at % blob.bytes.len();
        blob.bytes.iter_mut().skip(at).zip(&junk).for_each(|(to, from)| *to = *from);
        if let Ok(layer) = blob.layer() {
            walk(&layer).unwrap();
        }
    }
}

/// Whether bytes are chunks of these one behind the other.
fn is_of_chunks(bytes: &[u8], chunks: &HashSet<Vec<u8>>) -> bool {
    bytes.is_empty()
        || chunks
            .iter()
            .filter(|chunk| !chunk.is_empty())
            .any(|chunk| bytes.strip_prefix(&chunk[..]).is_some_and(|rest| is_of_chunks(rest, chunks)))
}

#[test]
fn everything_survives_its_own_damage() {
    let form = Form { chunk_bytes: 20_000, member_bytes_min: 30_000, is_legacy: false };
    let whole = estargz(&everything(false), form, &|_| {});
    let expected = tar_tests::layer(&whole.bytes).unwrap();
    for at in (0..whole.bytes.len()).step_by(whole.bytes.len() / 50) {
        let mut bytes = whole.bytes.clone();
        bytes[at] ^= 0x10;
        let Ok(layer) = (Blob { bytes, annotation: whole.annotation.clone() }).layer() else { continue };
        for (id, bytes) in walk(&layer).unwrap() {
            let mut right = vec![0; bytes.len()];
            expected.read_at(id, 0, &mut right).unwrap();
            assert!(right == bytes, "byte {at}");
        }
    }
}
