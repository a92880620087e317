//! What only looks.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::tree::{CHUNK_BYTES, LARGE_CHUNK_BYTES, Tree, each};
use crate::{Took, Workload};

pub(crate) const ALL: &[Workload] = &[
    ("stat", |tree| each(&tree.all, |path| _ = fs::symlink_metadata(path).unwrap())),
    ("stat-one", |tree| {
        each([&tree.all[tree.all.len() / 2]], |path| _ = fs::symlink_metadata(path).unwrap())
    }),
    ("negative", negative),
    ("find", |tree| find(&tree.dir, false)),
    ("find-lstat", |tree| find(&tree.dir, true)),
    ("open-read", |tree| each(&tree.files, |path| read(path, &mut [0; CHUNK_BYTES], false))),
    ("read-all", |tree| {
        let mut buffer = vec![0; LARGE_CHUNK_BYTES];
        each(&tree.files, |path| read(path, &mut buffer, true))
    }),
    ("read-largest", |tree| {
        let (largest, mut buffer) = (tree.largest(), vec![0; LARGE_CHUNK_BYTES]);
        let (_, took) = each(&largest, |(_, path)| read(path, &mut buffer, true));
        (largest.iter().map(|(bytes, _)| bytes >> 20).sum(), took)
    }),
];

fn negative(tree: &Tree) -> Took {
    let absent: Vec<PathBuf> = tree.all.iter().map(|path| path.with_file_name("no such name")).collect();
    each(&absent, |path| drop(fs::symlink_metadata(path).unwrap_err()))
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
