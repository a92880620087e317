//! Hostile tars: an error or a layer that can be walked, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut tar = data.to_vec();
    layerfs_fuzz::fix_checksums(&mut tar);
    if layerfs_fuzz::build(dir.path(), &tar).is_ok() {
        layerfs_fuzz::walk(dir.path()).expect("what was built can be read");
    }
});
