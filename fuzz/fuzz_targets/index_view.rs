//! An index with right checksums and wrong content: errors, never a panic and never an endless loop.
//!
//! The input is a list of changes (place u16, value u8) to the index of a small layer.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tar = include_bytes!("small.tar");
    layerfs_fuzz::build(dir.path(), tar).expect("a good tar");
    let path = dir.path().join("index");
    let mut index = std::fs::read(&path).expect("the index");
    for change in data.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % index.len();
        index[place] = change[2];
    }
    layerfs_fuzz::seal(&mut index);
    std::fs::write(&path, index).expect("a temporary file");
    // An error is right, and so is an answer.
    drop(layerfs_fuzz::walk(dir.path()));
});
