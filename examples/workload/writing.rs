//! What changes files, new ones or those of the image.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;
use std::time::Instant;

use crate::tree::{CHUNK_BYTES, LARGE_CHUNK_BYTES, MADE, Tree, each};
use crate::{Took, Workload};

/// Of the file that is written to.
pub(crate) const WRITTEN_BYTES: u64 = 64 << 20;
const SMALL_WRITES: u64 = 20_000;
/// What is appended each time.
const LINE: [u8; 100] = [b'x'; 100];
const SMALL: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];
/// Files that are made in a directory that is large already.
const MADE_BESIDE: u64 = 1000;

pub(crate) const ALL: &[Workload] = &[
    ("first-write", |tree| {
        each(tree.largest(), |(_, path)| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&SMALL, 0).unwrap();
        })
    }),
    ("chmod-all", |tree| each(&tree.files, |path| set_mode(path, 0o640))),
    ("chown-all", chown_all),
    ("create", |tree| each(tree.new_paths(MADE), |path| fs::write(path, SMALL).unwrap())),
    ("create-beside", |tree| {
        let names = (0..MADE_BESIDE).map(|number| tree.dir.join(format!("new-{number:05}")));
        each(names.collect::<Vec<_>>(), |path| fs::write(path, SMALL).unwrap())
    }),
    ("unlink", |tree| each(tree.new_files(), |path| fs::remove_file(path).unwrap())),
    ("rename", |tree| {
        each(tree.new_files(), |path| fs::rename(&path, path.with_extension("moved")).unwrap())
    }),
    ("mkdir", |tree| each(tree.new_paths(MADE), |path| fs::create_dir(path).unwrap())),
    ("chmod", |tree| each(tree.new_files(), |path| set_mode(&path, 0o600))),
    ("write-4k", |tree| write_chunks(tree, CHUNK_BYTES)),
    ("write-1m", |tree| write_chunks(tree, LARGE_CHUNK_BYTES)),
    ("append", |tree| {
        let path = tree.new_paths(1).remove(0);
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        each(0..SMALL_WRITES, |_| file.write_all(&LINE).unwrap())
    }),
    ("write-random", |tree| {
        let file = tree.written(WRITTEN_BYTES);
        each(places(WRITTEN_BYTES), |place| file.write_all_at(&SMALL, place).unwrap())
    }),
];

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Gives everything to whom it belongs already, which an ordinary user may, and which copies up all the same.
fn chown_all(tree: &Tree) -> Took {
    let own = fs::metadata("/proc/self").unwrap();
    each(&tree.all, |path| lchown(path, Some(own.uid()), Some(own.gid())).unwrap())
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
