//! A byte that is not what the image's author wrote is an error, never data.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::support::*;

/// How an input/output error looks to a reader.
const EIO: i32 = 5;

/// Flips one bit, and leaves no trace in the times.
fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

/// The largest blob of an OCI layout: the layer that holds `usr/share/data`, bytes that do not compress.
fn largest_blob(layout: &Path) -> PathBuf {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// Where the middle of `usr/share/data` lies in a docker-archive with plain layers.
fn middle_of_data(archive: &Path, data: &[u8]) -> u64 {
    let bytes = fs::read(archive).unwrap();
    let pattern = &data[data.len() / 2..][..64];
    let at = bytes.windows(pattern.len()).position(|window| window == pattern).unwrap();
    u64::try_from(at).unwrap()
}

/// Mounts, lets the index be made, unmounts, flips, mounts again and reads everything.
fn reading_after_flip(form: &str, find: impl Fn(&Path) -> (PathBuf, u64)) {
    let place = Place::new();
    let source = place.path("image");
    copy(&image("tiny").join(form), &source);
    let (victim, offset) = find(&source);
    let data = {
        let mounted = place.mount(&["--rm"], &source);
        let data = fs::read(mounted.path("usr/share/data")).unwrap();
        mounted.unmount();
        data
    };
    // Granules that were decoded before may serve from the spill; they were verified. What matters is the blob.
    fs::remove_dir_all(place.store().join("spill")).ok();
    flip(&victim, offset);

    let mounted = place.mount(&[], &source);
    let error = fs::read(mounted.path("usr/share/data")).expect_err("read bytes that nobody wrote");
    assert_eq!(error.raw_os_error(), Some(EIO));
    assert!(
        whatever_is_read_is_right(&mounted.path("usr/share/data"), &data) > 0,
        "not one granule can be read"
    );
    fs::read(mounted.path("etc/passwd")).expect("a file elsewhere in the layer is still there");
    let log = fs::read_to_string(place.store().join("containers").join(&mounted.id).join("log")).unwrap();
    let told = log.lines().any(|line| line.contains("sha256:") && line.contains("offset"));
    assert!(told, "no line with digest and offset:\n{log}");
    mounted.unmount();
}

/// Reads in small pieces; each is an error or right. Returns how many were right.
fn whatever_is_read_is_right(path: &Path, expected: &[u8]) -> usize {
    const PIECE: usize = 16 << 10;
    let file = File::open(path).unwrap();
    let mut right = 0;
    for (number, piece) in expected.chunks(PIECE).enumerate() {
        let mut found = vec![0; piece.len()];
        let offset = u64::try_from(number * PIECE).unwrap();
        match file.read_exact_at(&mut found, offset) {
            Ok(()) => {
                assert!(found == piece, "wrong bytes at {offset}");
                right += 1;
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(EIO), "at {offset}"),
        }
    }
    right
}

#[test]
fn flipped_byte_in_a_gzip_layer() {
    needs_mount!();
    reading_after_flip("oci", |layout| {
        let blob = largest_blob(layout);
        // Three quarters in: behind busybox, in the middle of the data.
        let offset = fs::metadata(&blob).unwrap().len() / 4 * 3;
        (blob, offset)
    });
}

#[test]
fn flipped_byte_in_a_plain_layer() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&["--rm"], image("tiny").join("oci"));
    let data = fs::read(mounted.path("usr/share/data")).unwrap();
    mounted.unmount();
    reading_after_flip("docker.tar", |archive| (archive.to_owned(), middle_of_data(archive, &data)));
}
