//! Hostile compressed data: an error or a layer that can be walked, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let blob = [&[0x1f, 0x8b, 8], data].concat();
    if layerfs_fuzz::build(dir.path(), &blob).is_ok() {
        layerfs_fuzz::walk(dir.path()).expect("what was built can be read");
    }
});
