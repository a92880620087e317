//! What a mount does most, over and over and without a mount, for `scripts/instructions` to count.
//!
//! `hot_paths` tells which paths there are; `hot_paths make DIR` writes layers and their indexes; `hot_paths PATH DIR
//! ROUNDS` takes one path so often and prints how many operations that were. Nothing in it is random and no thread runs
//! beside it, so the same program always takes the same steps.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for developers: it fails by panicking"
)]

use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::{Compression, write::GzEncoder};
use layerfs::fs::{Fs, OwnerView};
use layerfs::index::{self, Expected, LayerIndex};
use layerfs::layer::{ChunkCache, Layer, TarLayer};
use layerfs::model::{Ino, Name};
use layerfs::sys::file_range::FileRange;
use layerfs::union::Union;

/// As many as many an image has, and enough for what is done for each of them to be seen.
const LAYERS: usize = 8;
/// In the directory that all layers have; each layer has its share.
const NAMES: usize = 256;
/// Of the base layer, hidden by the topmost.
const HIDDEN: usize = 32;
/// Several granules.
const FILE_BYTES: usize = 1 << 20;
/// What the kernel asks for at least.
const READ_BYTES: usize = 4096;
/// Enough for all granules of all layers.
const CACHE_BYTES: u64 = 64 << 20;

/// Takes a path for one round, and says how many operations that were.
type Round = fn(&Scene) -> usize;

/// The paths by their names.
const PATHS: [(&str, Round); 5] = [
    ("lookup", Scene::look_up),
    ("lookup-absent", Scene::look_up_absent),
    ("getattr", Scene::get_attributes),
    ("readdirplus", Scene::list),
    ("read", Scene::read),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => PATHS.iter().for_each(|(name, _)| println!("{name}")),
        ["make", dir] => (0..LAYERS).for_each(|number| make(Path::new(dir), number)),
        [path, dir, rounds] => {
            let (_, round) = PATHS.iter().find(|(name, _)| *name == path).unwrap();
            let scene = Scene::new(Path::new(dir));
            let rounds: usize = rounds.parse().unwrap();
            println!("{}", (0..rounds).map(|_| round(&scene)).sum::<usize>());
        }
        _ => println!("hot_paths [make DIR | PATH DIR ROUNDS]"),
    }
}

/// A filesystem, and what the kernel knows of it.
struct Scene {
    fs: Fs,
    /// The directory that all layers have.
    dir: Ino,
    /// What is in it.
    names: Vec<String>,
    /// What is not.
    absent: Vec<String>,
    /// Nodes that the kernel holds.
    known: Vec<Ino>,
    /// A file of [`FILE_BYTES`].
    file: Ino,
}

impl Scene {
    fn new(dir: &Path) -> Self {
        let cache = Arc::new(ChunkCache::new(CACHE_BYTES));
        let open = |number| Arc::new(open(dir, number, &cache)) as Arc<dyn Layer>;
        let union = Union::new((0..LAYERS).map(open).collect());
        let fs = Fs::new(union, None, OwnerView::Image).unwrap();
        let find = |parent, text: &str| fs.lookup(parent, name(text)).unwrap().unwrap().ino;
        let (dir, others) = (find(Ino::ROOT, "dir"), find(Ino::ROOT, "others"));
        let (file, names) = (find(Ino::ROOT, "file"), (0..NAMES).map(shown));
        let known = (0..NAMES).map(|number| find(others, &shown(number))).collect();
        let absent = (0..HIDDEN).map(hidden).chain((HIDDEN..NAMES).map(|number| format!("absent-{number}")));
        Self { dir, file, known, names: names.collect(), absent: absent.collect(), fs }
    }

    /// Each name becomes a node, and is forgotten.
    fn look_up(&self) -> usize {
        for text in &self.names {
            let attr = self.fs.lookup(self.dir, name(text)).unwrap().unwrap();
            self.fs.forget(black_box(attr).ino, 1);
        }
        self.names.len()
    }

    /// Names that no layer has, and some that are hidden.
    fn look_up_absent(&self) -> usize {
        for text in &self.absent {
            assert!(self.fs.lookup(self.dir, name(text)).unwrap().is_none());
        }
        self.absent.len()
    }

    fn get_attributes(&self) -> usize {
        for ino in &self.known {
            black_box(self.fs.getattr(*ino).unwrap());
        }
        self.known.len()
    }

    /// A directory as one that was never listed before, with all attributes; then all of it is forgotten.
    fn list(&self) -> usize {
        let mut seen = Vec::with_capacity(NAMES);
        let dir = self.fs.lookup(Ino::ROOT, name("listed")).unwrap().unwrap().ino;
        let told = self.fs.readdir(dir, 0, true, &mut |entry, attr| {
            seen.extend(attr.filter(|_| entry.file_name().is_some()).map(|attr| attr.ino));
            true
        });
        told.unwrap();
        assert_eq!(seen.len(), NAMES);
        seen.into_iter().for_each(|ino| self.fs.forget(ino, 1));
        self.fs.forget(dir, 1);
        1
    }

    /// All of a file front to back; in the second round it is cached.
    fn read(&self) -> usize {
        let mut buffer = [0; READ_BYTES];
        for offset in (0..FILE_BYTES).step_by(READ_BYTES) {
            let count = self.fs.read(self.file, offset as u64, black_box(&mut buffer)).unwrap();
            assert_eq!(count, READ_BYTES);
        }
        FILE_BYTES / READ_BYTES
    }
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

fn shown(number: usize) -> String {
    format!("name-{number:06}")
}

fn hidden(number: usize) -> String {
    format!("hidden-{number:06}")
}

/// Where a layer is, and where its index is.
fn paths(dir: &Path, number: usize) -> (PathBuf, String) {
    (dir.join(format!("{number}.tar.gz")), format!("{number}.lfx"))
}

fn open(dir: &Path, number: usize, cache: &Arc<ChunkCache>) -> TarLayer {
    let (blob, index) = paths(dir, number);
    let index = Arc::new(LayerIndex::open(&dir.join(index)).unwrap());
    TarLayer::new(index, FileRange::open(&blob).unwrap(), Arc::clone(cache))
}

/// Writes a layer and its index.
fn make(dir: &Path, number: usize) {
    let (blob, index) = paths(dir, number);
    let mut tar = tar::Builder::new(GzEncoder::new(File::create(&blob).unwrap(), Compression::fast()));
    for parent in ["dir", "listed", "others"] {
        for name in (number..NAMES).step_by(LAYERS) {
            append(&mut tar, &format!("{parent}/{}", shown(name)), b"content");
        }
        for name in 0..HIDDEN {
            match number {
                0 => append(&mut tar, &format!("{parent}/{}", hidden(name)), b"content"),
                _ if number == LAYERS - 1 => append(&mut tar, &format!("{parent}/.wh.{}", hidden(name)), b""),
                _ => {}
            }
        }
    }
    if number == 0 {
        let content: Vec<u8> = (0..FILE_BYTES).map(|at| at.to_le_bytes()[at % 3]).collect();
        append(&mut tar, "file", &content);
    }
    tar.into_inner().unwrap().finish().unwrap();
    let blob = FileRange::open(&blob).unwrap();
    index::build(&blob, &Expected::default(), dir, &index, &|_| {}).unwrap();
}

fn append(tar: &mut tar::Builder<GzEncoder<File>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, content).unwrap();
}
