//! Tars made by the `tar` crate, GNU tar and by hand, through the index to what a layer says.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use flate2::{Compression, write::GzEncoder};

use super::{ChunkCache, Found, Layer, LayerError, TarLayer};
use crate::index::{self, Expected, IndexError, LayerIndex};
use crate::model::{EntryId, FileKind, Name};
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
    fn add(mut self, kind: u8, path: &str, link: &str, data: &[u8]) -> Self {
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
    let mut read = |offset: usize, len: usize| {
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
