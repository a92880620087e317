//! What goes through memory that is mapped from files.

// Nobody changes the files beside us, and what we read of them does not matter.
#![allow(unsafe_code, reason = "a map is unsafe, and the program is not shipped")]

use std::fs::File;
use std::hint::black_box;
use std::time::Instant;

use memmap2::{Mmap, MmapMut};

use crate::tree::{CHUNK_BYTES, Tree};
use crate::writing::WRITTEN_BYTES;
use crate::{Took, Workload};

pub(crate) const ALL: &[Workload] = &[("map-read", touch), ("map-write", write)];

/// One byte of each page of the largest files; the operations are MiB.
fn touch(tree: &Tree) -> Took {
    let largest = tree.largest();
    let start = Instant::now();
    for (_, path) in &largest {
        let file = File::open(path).unwrap();
        // SAFETY: nobody cuts the file short, as the mount is only ours.
        let map = unsafe { Mmap::map(&file) }.unwrap();
        map.iter().step_by(CHUNK_BYTES).for_each(|byte| _ = black_box(*byte));
    }
    (largest.iter().map(|(bytes, _)| bytes >> 20).sum(), start.elapsed())
}

/// All of a file that is there, until it is written back; the operations are MiB.
fn write(tree: &Tree) -> Took {
    let file = tree.written(WRITTEN_BYTES);
    let start = Instant::now();
    // SAFETY: nobody cuts the file short, as only we know it.
    let mut map = unsafe { MmapMut::map_mut(&file) }.unwrap();
    map.fill(9);
    map.flush().unwrap();
    (WRITTEN_BYTES >> 20, start.elapsed())
}
