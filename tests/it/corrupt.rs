//! A byte that is not what the image's author wrote is an error, never data.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Every object that a walk over the mount finds, or that it failed with EIO.
fn walk(mnt: &Path) -> Done {
    finish(Command::new("find").arg(mnt).args(["-ls"]))
}

#[test]
fn an_archive_that_changes_under_the_mount() {
    needs_mount!();
    let place = Place::new();
    let data = {
        let mounted = place.mount(&["--rm"], image("tiny").join("docker.tar"));
        let data = fs::read(mounted.path("usr/share/data")).unwrap();
        mounted.unmount();
        data
    };
    let source = place.path("image.tar");
    copy(&image("tiny").join("docker.tar"), &source);
    let middle = middle_of_data(&source, &data);
    let mounted = place.mount(&["--rm"], &source);
    let server = place.server();
    // Other bytes, in place, then none at all.
    let file = File::options().write(true).open(&source).unwrap();
    file.write_all_at(&[0; 300_000], middle).unwrap();
    let right = whatever_is_read_is_right(&mounted.path("usr/share/data"), &data);
    assert!((1..data.len() / (16 << 10)).contains(&right), "{right}");
    file.set_len(middle).unwrap();
    let right = whatever_is_read_is_right(&mounted.path("usr/share/data"), &data);
    assert!(right > 0);
    let error = fs::read(mounted.path("hard/large")).expect_err("read what is not there any more");
    assert_eq!(error.raw_os_error(), Some(EIO));
    file.set_len(0).unwrap();
    assert_ne!(walk(&place.mnt()).out, "", "names are in the index");
    assert_eq!(place.server(), server);
    mounted.unmount();
    // A new file in its place is another one.
    copy(&image("tiny").join("docker.tar"), &source);
    let mounted = place.mount(&["--rm"], &source);
    fs::rename(&source, place.path("old.tar")).unwrap();
    fs::write(&source, "nothing of it").unwrap();
    assert_eq!(fs::read(mounted.path("usr/share/data")).unwrap(), data);
    mounted.unmount();
}

#[test]
fn an_index_that_is_cut_off_under_the_mount() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&["--rm"], image("tiny").join("oci"));
    let whole = walk(&place.mnt()).ok().lines().count();
    mounted.unmount();
    for keep in [0, 2000] {
        let mounted = place.mount(&["--rm"], image("tiny").join("oci"));
        let server = place.server();
        for index in fs::read_dir(place.store().join("index")).unwrap() {
            File::options().write(true).open(index.unwrap().path()).unwrap().set_len(keep).unwrap();
        }
        // Nothing of this mount was looked at before, so nothing answers.
        let found = walk(&place.mnt());
        assert!(found.code == 1 && found.err.contains("Input/output error"), "{found:#?}");
        assert_eq!(place.server(), server, "the server lives");
        mounted.unmount();
        let mounted = place.mount(&["--rm"], image("tiny").join("oci"));
        assert_eq!(walk(&place.mnt()).ok().lines().count(), whole, "built again");
        mounted.unmount();
    }
}

/// By a server that serves upon the host's files, and by a supervisor that left them behind.
#[test]
fn a_damaged_index_is_removed() {
    needs_mount!();
    let place = Place::new();
    let source = place.path("image");
    copy(&image("tiny").join("oci"), &source);
    let many = place.path("root/many");
    fs::create_dir_all(&many).unwrap();
    (0..3000).for_each(|number| fs::write(many.join(format!("{number}")), "").unwrap());
    let script = "tar -C \"$1\" -cf \"$1.tar\" many && umoci raw add-layer --image \"$2:latest\" \"$1.tar\"";
    shell(script, &[&place.path("root"), &source]).ok();
    let damaged = || {
        place.layerfs(&[OsStr::new("index"), source.as_os_str()]).ok();
        let indexes = fs::read_dir(place.store().join("index")).unwrap().map(|entry| entry.unwrap().path());
        let index = indexes.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
        // In the second page, among the records of files: nobody looks at it before they are listed.
        flip(&index, 100_000);
        index
    };
    let index = damaged();
    let mounted = place.mount(&["--rm"], &source);
    assert!(index.exists());
    let found = walk(&mounted.path("many"));
    assert!(found.code == 1 && found.err.contains("Input/output error"), "{found:#?}");
    assert!(!index.exists(), "by mount");
    mounted.unmount();

    assert_eq!(damaged(), index);
    let mut command = place.command();
    command.args(["run", "--rm"]).arg(&source).args(["ls", "-l", "/many"]);
    let done = finish(&mut command);
    assert!(done.out.lines().count() < 3000, "{done:?}");
    assert!(!index.exists(), "by run");
    place.layerfs(&[OsStr::new("verify"), source.as_os_str()]).ok();
}
