//! Images like those that people run, made by `scripts/real-images`: each is what umoci unpacks.

use std::fs;
use std::time::Instant;

use crate::support::*;

#[test]
#[ignore = "gigabytes; scripts/long images makes and runs them"]
fn real_images_are_what_umoci_unpacks() {
    needs_mount!();
    if !is_root() {
        skip!("only root sees every file and owner");
    }
    let entries = fs::read_dir(image("real")).into_iter().flatten();
    let mut images: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    images.retain(|image| image.join("stamp").exists());
    images.sort();
    assert!(!images.is_empty(), "run scripts/real-images");
    for image in images {
        let place = Place::new();
        let start = Instant::now();
        let mounted = place.mount(&["--rm", "--read-only", "--owner", "image"], image.join("oci"));
        let first = start.elapsed();
        let name = image.file_name().unwrap().to_string_lossy();
        assert_same_tree(&name, &[], &image.join("expected.tree"), &place.mnt());
        mounted.unmount();
        let start = Instant::now();
        let mounted = place.mount(&["--rm", "--read-only"], image.join("oci"));
        let objects = fs::read_to_string(image.join("objects")).unwrap();
        println!(
            "{name}: {} objects, first mount {first:.2?}, again {:.2?}",
            objects.trim(),
            start.elapsed()
        );
        mounted.unmount();
    }
}
