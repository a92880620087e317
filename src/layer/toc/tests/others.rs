//! Blobs that skopeo writes, with the library of podman and buildah.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Blob, TocAnnotation, assert_same, content, everything};
use crate::layer::tar_tests::{self, Maker, noise};

/// The tar as skopeo makes zstd:chunked of it.
fn chunked_by_skopeo(tar: &[u8]) -> Blob {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("layer.tar"), tar).unwrap();
    let script = r#"
        umoci init --layout plain && umoci new --image plain:latest
        umoci raw add-layer --image plain:latest layer.tar >/dev/null
        skopeo copy -q --insecure-policy --dest-compress --dest-compress-format zstd:chunked oci:plain:latest oci:chunked:latest
    "#;
    let status = Command::new("sh").args(["-ec", script]).current_dir(dir).status().unwrap();
    assert!(status.success(), "are umoci and skopeo installed? scripts/install does that");
    let blob = |digest: &Value| {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        std::fs::read(dir.join("chunked/blobs/sha256").join(hex)).unwrap()
    };
    let document = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let index = document(&std::fs::read(dir.join("chunked/index.json")).unwrap());
    let layer = document(&blob(&index["manifests"][0]["digest"]))["layers"][0].clone();
    let annotations = serde_json::from_value(layer["annotations"].clone()).unwrap();
    let annotation = TocAnnotation::of(&annotations).unwrap();
    Blob { bytes: blob(&layer["digest"]), annotation: annotation.expect("a zstd:chunked has annotations") }
}

#[test]
fn what_skopeo_writes_is_the_tar() {
    let blob = chunked_by_skopeo(&everything(true));
    let (tar, layer) = (tar_tests::layer(&blob.bytes).unwrap(), blob.layer().unwrap());
    assert_same("everything", &tar, &layer);
    assert_eq!(content(&layer, "owner"), b"o");
    // Files of many chunks.
    let large = noise(5_000_000, 11);
    let tar = Maker::default().add(b'0', "big", "", &large).file("after", "a").end();
    let blob = chunked_by_skopeo(&tar);
    let layer = blob.layer().unwrap();
    assert_same("large", &tar_tests::layer(&blob.bytes).unwrap(), &layer);
    assert!(content(&layer, "big") == large);
}

#[test]
fn names_that_a_toc_cannot_say_are_refused() {
    for (key, value) in [("path", &b"bad\xff"[..]), ("linkpath", b"to\xfe")] {
        let tar = Maker::default().pax(&[(key, value)]).add(b'2', "link", "target", b"").end();
        let blob = chunked_by_skopeo(&tar);
        assert!(tar_tests::layer(&blob.bytes).is_ok());
        assert!(blob.refused().contains("which bytes"), "{}", blob.refused());
    }
}

#[test]
fn a_system_of_real_files() {
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("real.tar");
    // Real files with their owners, links and holes; what is there differs, and that does not matter.
    let mut command = Command::new("tar");
    command.args(["-C", "/", "--format=pax", "--ignore-failed-read", "--exclude=*.so*", "-cf"]);
    let made = command.arg(&tar).args(["usr/share/zoneinfo", "usr/share/perl5"]).output().unwrap();
    let tar = std::fs::read(Path::new(&tar)).unwrap();
    assert!(tar.len() > 10_240, "{made:?}");
    let blob = chunked_by_skopeo(&tar);
    assert_same("real", &tar_tests::layer(&blob.bytes).unwrap(), &blob.layer().unwrap());
}
