//! The tree that a workload works on.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::{Took, processes};

pub(crate) const CHUNK_BYTES: usize = 4 << 10;
pub(crate) const LARGE_CHUNK_BYTES: usize = 1 << 20;
/// How many of a tree's files are large ones.
const LARGE_FILES: usize = 12;
/// Files that are made, or directories.
pub(crate) const MADE: u64 = 4000;

pub(crate) struct Tree {
    pub(crate) dir: PathBuf,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) all: Vec<PathBuf>,
}

impl Tree {
    pub(crate) fn new(dir: &Path, list: Option<&str>) -> Self {
        let mut tree = Self { dir: dir.to_owned(), files: Vec::new(), all: Vec::new() };
        let text = list.map(|list| fs::read_to_string(list).unwrap()).unwrap_or_default();
        for (kind, path) in processes::own_part(text.lines()).map(|line| line.split_at(2)) {
            tree.all.push(dir.join(path));
            if kind == "f " {
                tree.files.push(dir.join(path));
            }
        }
        tree
    }

    /// The largest files.
    pub(crate) fn largest(&self) -> Vec<(u64, &PathBuf)> {
        let mut files: Vec<_> =
            self.files.iter().map(|path| (path.metadata().unwrap().len(), path)).collect();
        files.sort_unstable_by(|one, other| other.cmp(one));
        files.truncate(LARGE_FILES);
        files
    }

    /// `count` paths in a new directory.
    pub(crate) fn new_paths(&self, count: u64) -> Vec<PathBuf> {
        let dir = self.dir.join("bench");
        fs::create_dir_all(&dir).unwrap();
        (0..count).map(|number| dir.join(format!("new-{number:05}"))).collect()
    }

    pub(crate) fn new_files(&self) -> Vec<PathBuf> {
        let paths = self.new_paths(MADE);
        paths.iter().for_each(|path| fs::write(path, [7; CHUNK_BYTES]).unwrap());
        paths
    }

    pub(crate) fn written(&self, bytes: u64) -> File {
        let path = self.new_paths(1).remove(0);
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(true).open(path).unwrap();
        let chunk = vec![5; LARGE_CHUNK_BYTES];
        (0..bytes / LARGE_CHUNK_BYTES as u64).for_each(|_| file.write_all(&chunk).unwrap());
        file
    }
}

pub(crate) fn each<T>(all: impl IntoIterator<Item = T>, mut act: impl FnMut(T)) -> Took {
    let (start, mut count) = (Instant::now(), 0);
    for one in all {
        act(one);
        count += 1;
    }
    (count, start.elapsed())
}
