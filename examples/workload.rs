//! One workload on a directory tree, timed: `workload [--warm] NAME DIR [PATHS]`. Prints operations and seconds.
//!
//! PATHS names the objects of the tree, one in a line, regular files with an `f` and a space before, all others with a
//! `-`: so what is measured does not list the tree first. `--warm` does it twice before. What writes does so in DIR/bench.

// A command of its own, so it may print, and fails by panicking.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a program for developers")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CHUNK_BYTES: usize = 4 << 10;
const LARGE_CHUNK_BYTES: usize = 1 << 20;
/// How many of a tree's files are large ones.
const LARGE_FILES: usize = 12;
/// Files that are made, or directories.
const MADE: u64 = 4000;
/// Of the file that is written to.
const WRITTEN_BYTES: u64 = 64 << 20;
const SMALL_WRITES: u64 = 20_000;
/// What is appended each time.
const LINE: [u8; 100] = [b'x'; 100];

struct Tree {
    dir: PathBuf,
    files: Vec<PathBuf>,
    all: Vec<PathBuf>,
}

impl Tree {
    fn new(dir: &Path, list: Option<&String>) -> Self {
        let mut tree = Self { dir: dir.to_owned(), files: Vec::new(), all: Vec::new() };
        let text = list.map(|list| fs::read_to_string(list).unwrap()).unwrap_or_default();
        for (kind, path) in text.lines().map(|line| line.split_at(2)) {
            tree.all.push(dir.join(path));
            if kind == "f " {
                tree.files.push(dir.join(path));
            }
        }
        tree
    }

    /// The largest files.
    fn largest(&self) -> Vec<(u64, &PathBuf)> {
        let mut files: Vec<_> =
            self.files.iter().map(|path| (path.metadata().unwrap().len(), path)).collect();
        files.sort_unstable_by(|one, other| other.cmp(one));
        files.truncate(LARGE_FILES);
        files
    }

    fn bench(&self) -> PathBuf {
        self.dir.join("bench")
    }

    /// `count` paths in a new directory.
    fn new_paths(&self, count: u64) -> Vec<PathBuf> {
        let dir = self.bench();
        fs::create_dir_all(&dir).unwrap();
        (0..count).map(|number| dir.join(format!("new-{number:05}"))).collect()
    }

    fn new_files(&self) -> Vec<PathBuf> {
        let paths = self.new_paths(MADE);
        paths.iter().for_each(|path| fs::write(path, [7; CHUNK_BYTES]).unwrap());
        paths
    }

    fn written(&self, bytes: u64) -> File {
        let path = self.new_paths(1).remove(0);
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(true).open(path).unwrap();
        let chunk = vec![5; LARGE_CHUNK_BYTES];
        (0..bytes / LARGE_CHUNK_BYTES as u64).for_each(|_| file.write_all(&chunk).unwrap());
        file
    }
}

/// How many operations took how long.
type Took = (u64, Duration);

fn each<T>(all: impl IntoIterator<Item = T>, mut act: impl FnMut(T)) -> Took {
    let (start, mut count) = (Instant::now(), 0);
    for one in all {
        act(one);
        count += 1;
    }
    (count, start.elapsed())
}

/// Everything below, by readdir(3) alone or with lstat(2) of each.
fn find(dir: &Path, lstat: bool) -> Took {
    let (start, mut count) = (Instant::now(), 0);
    let mut ahead = vec![dir.to_owned()];
    while let Some(dir) = ahead.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            count += 1;
            if lstat {
                entry.metadata().unwrap();
            }
            if entry.file_type().unwrap().is_dir() {
                ahead.push(entry.path());
            }
        }
    }
    (count, start.elapsed())
}

fn read(path: &Path, buffer: &mut [u8], to_end: bool) {
    let mut file = File::open(path).unwrap();
    while file.read(buffer).unwrap() > 0 && to_end {}
}

/// Writes of `chunk` one after the other; the operations are MiB.
fn write_chunks(tree: &Tree, chunk: usize) -> Took {
    let mut file = tree.written(0);
    let chunk = vec![3; chunk];
    let start = Instant::now();
    (0..WRITTEN_BYTES / chunk.len() as u64).for_each(|_| file.write_all(&chunk).unwrap());
    (WRITTEN_BYTES >> 20, start.elapsed())
}

/// Places all over a file, always the same.
fn places(bytes: u64) -> impl Iterator<Item = u64> {
    let chunks = bytes / CHUNK_BYTES as u64;
    (0..SMALL_WRITES).map(move |number| number.wrapping_mul(7919) % chunks * CHUNK_BYTES as u64)
}

fn run(name: &str, tree: &Tree) -> Took {
    let mut small = [0; CHUNK_BYTES];
    let mut large = vec![0; LARGE_CHUNK_BYTES];
    match name {
        "stat" => each(&tree.all, |path| _ = fs::symlink_metadata(path).unwrap()),
        "negative" => {
            let absent: Vec<PathBuf> =
                tree.all.iter().map(|path| path.with_file_name("no such name")).collect();
            each(&absent, |path| drop(fs::symlink_metadata(path).unwrap_err()))
        }
        "find" => find(&tree.dir, false),
        "find-lstat" => find(&tree.dir, true),
        "open-read" => each(&tree.files, |path| read(path, &mut small, false)),
        "read-all" => each(&tree.files, |path| read(path, &mut large, true)),
        "read-largest" => {
            let largest = tree.largest();
            let (_, took) = each(&largest, |(_, path)| read(path, &mut large, true));
            (largest.iter().map(|(bytes, _)| bytes >> 20).sum(), took)
        }
        "first-write" => each(tree.largest(), |(_, path)| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&small, 0).unwrap();
        }),
        "chmod-all" => each(&tree.files, |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        }),
        "create" => each(tree.new_paths(MADE), |path| fs::write(path, small).unwrap()),
        "unlink" => each(tree.new_files(), |path| fs::remove_file(path).unwrap()),
        "rename" => each(tree.new_files(), |path| fs::rename(&path, path.with_extension("moved")).unwrap()),
        "mkdir" => each(tree.new_paths(MADE), |path| fs::create_dir(path).unwrap()),
        "chmod" => each(tree.new_files(), |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }),
        "write-4k" => write_chunks(tree, CHUNK_BYTES),
        "write-1m" => write_chunks(tree, LARGE_CHUNK_BYTES),
        "append" => {
            let path = tree.new_paths(1).remove(0);
            let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            each(0..SMALL_WRITES, |_| file.write_all(&LINE).unwrap())
        }
        "write-random" => {
            let file = tree.written(WRITTEN_BYTES);
            each(places(WRITTEN_BYTES), |place| file.write_all_at(&small, place).unwrap())
        }
        _ => panic!("no workload is called {name}"),
    }
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let warm = arguments.first().is_some_and(|first| first == "--warm");
    if warm {
        arguments.remove(0);
    }
    let [name, dir, rest @ ..] = &arguments[..] else { panic!("workload [--warm] NAME DIR [PATHS]") };
    let tree = Tree::new(Path::new(dir), rest.first());
    if warm {
        // Twice: reading a directory invalidates its time of access, so the first fstat(2) afterwards asks the server again.
        (0..2).for_each(|_| _ = run(name, &tree));
    }
    let (count, took) = run(name, &tree);
    println!("{count} {:.9}", took.as_secs_f64());
}
