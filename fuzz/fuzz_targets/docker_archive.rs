//! Hostile archives of `docker save`: an error or an image whose layers can be walked, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut tar = data.to_vec();
    layerfs_fuzz::fix_checksums(&mut tar);
    let path = dir.path().join("image.tar");
    std::fs::write(&path, tar).expect("a temporary file");
    layerfs_fuzz::open_image(&path.display().to_string(), dir.path());
    layerfs_fuzz::open_image(&format!("docker-archive:{}:latest", path.display()), dir.path());
    layerfs_fuzz::open_image(&format!("oci-archive:{}", path.display()), dir.path());
});
