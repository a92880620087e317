//! Files that share content with a layer: how much is moved, and what is seen after a power cut.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tempfile::TempDir;

use super::world::name;
use crate::fs::{Caller, Fs, OwnerView, Seek};
use crate::layer::fake::{FakeLayer, MTIME};
use crate::layer::{DirLayer, Layer};
use crate::model::Ino;
use crate::sys::fault::{Fault, arm, disarm};
use crate::union::Union;
use crate::upper::{Change, Upper};

const ROOT_USER: Caller = Caller { uid: 0, gid: 0, thread: 0 };
/// Of the large file, and of its granules.
const BYTES: usize = 32 << 20;
const GRANULE: u64 = 8192;
const OTHER_BOOT: u64 = 7;

/// No two blocks are the same, and none is zeros.
fn content() -> Vec<u8> {
    (0..BYTES / 8).flat_map(|word| (word as u64 | 1 << 63).to_le_bytes()).collect()
}

fn union(layer: impl Layer + 'static) -> Union {
    Union::new(vec![Arc::new(layer) as Arc<dyn Layer>])
}

fn large() -> Union {
    union(FakeLayer::new().file("large", &content()).file("small", b"0123456789"))
}

fn upper(dir: &TempDir) -> Upper {
    Upper::open(&dir.path().join("upper"), &dir.path().join("work")).unwrap()
}

fn open(dir: &TempDir, union: Union) -> Fs {
    Fs::new(union, Some(upper(dir)), OwnerView::Image).unwrap()
}

fn at(fs: &Fs, path: &str) -> Ino {
    fs.lookup(Ino::ROOT, name(path)).unwrap().unwrap().ino
}

fn read(fs: &Fs, ino: Ino) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(fs.getattr(ino).unwrap().metadata.size).unwrap()];
    assert_eq!(fs.read(ino, 0, &mut bytes).unwrap(), bytes.len());
    bytes
}

fn resize(fs: &Fs, ino: Ino, size: u64) {
    let change = Change { size: Some(size), ..Change::default() };
    assert_eq!(fs.setattr(ino, ROOT_USER, &change).unwrap().metadata.size, size);
}

/// Bytes that the upper's file takes on disk.
fn allocated(dir: &TempDir, path: &str) -> u64 {
    std::fs::metadata(dir.path().join("upper").join(path)).unwrap().blocks() * 512
}

#[test]
fn only_what_is_written_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, large());
    let large = at(&fs, "large");
    let mut expected = content();
    fs.setattr(large, ROOT_USER, &Change { mode: Some(0o600), ..Change::default() }).unwrap();
    assert!(allocated(&dir, "large") <= 4096, "attributes move nothing");
    for offset in [4_000_000, 9_999_999, 4_000_100] {
        fs.write(large, offset as u64, &[b'x'; 4096], None).unwrap();
        expected[offset..offset + 4096].fill(b'x');
    }
    assert!(allocated(&dir, "large") <= 6 * GRANULE, "{}", allocated(&dir, "large"));
    assert!(read(&fs, large) == expected);
    assert_eq!(fs.getattr(large).unwrap().blocks, BYTES as u64 / 512, "what the layer keeps counts");
    drop(fs);
    let fs = open(&dir, self::large());
    let large = at(&fs, "large");
    assert!(read(&fs, large) == expected, "after a remount");
    resize(&fs, large, 0);
    assert!(allocated(&dir, "large") <= 4096, "a truncate moves nothing");
    resize(&fs, large, 100);
    assert_eq!(read(&fs, large), [0; 100], "what was cut off does not come back");
}

#[test]
fn a_shorter_file_that_grows_again_has_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, large());
    let (large, mut expected) = (at(&fs, "large"), content());
    resize(&fs, large, 10_000);
    resize(&fs, large, 30_000);
    expected.truncate(10_000);
    expected.resize(30_000, 0);
    fs.write(large, 12_000, b"in a granule that is the layer's in front", None).unwrap();
    expected[12_000..12_041].copy_from_slice(b"in a granule that is the layer's in front");
    assert!(read(&fs, large) == expected);
    drop(fs);
    let fs = open(&dir, self::large());
    assert!(read(&fs, at(&fs, "large")) == expected);
}

#[test]
fn what_a_killed_server_cut_off_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, large());
    fs.setattr(at(&fs, "large"), ROOT_USER, &Change { mode: Some(0o600), ..Change::default() }).unwrap();
    drop(fs);
    // It died between the truncate and the mark that tells of it.
    std::fs::File::options()
        .write(true)
        .open(dir.path().join("upper/large"))
        .and_then(|file| file.set_len(0))
        .unwrap();
    let fs = open(&dir, self::large());
    let large = at(&fs, "large");
    assert_eq!(fs.write(large, 0, &[b'n'; 5000], None).unwrap(), 5000);
    drop(fs);
    let fs = open(&dir, self::large());
    assert!(read(&fs, at(&fs, "large")) == [b'n'; 5000]);
}

#[test]
fn after_a_power_cut_a_range_is_old_or_new() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, large());
    let (ino, mut expected) = (at(&fs, "large"), content());
    fs.write(ino, 100_000, &[b's'; 10_000], None).unwrap();
    fs.fsync(ino, true).unwrap();
    expected[100_000..110_000].fill(b's');
    let synced = expected.clone();
    // What was written since may not have come to the disk: here it did not.
    fs.write(ino, 500_000, &[b'l'; 10_000], None).unwrap();
    expected[500_000..510_000].fill(b'l');
    drop(fs);
    let fs = open(&dir, large());
    assert!(read(&fs, at(&fs, "large")) == expected, "the server was killed, the machine went on");
    drop(fs);
    let lost = std::fs::File::options().write(true).open(dir.path().join("upper/large")).unwrap();
    let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&lost, hole, 500_000, 5_000).unwrap();
    let fs = Fs::new(large(), Some(upper(&dir).in_boot(OTHER_BOOT)), OwnerView::Image).unwrap();
    let ino = at(&fs, "large");
    assert!(read(&fs, ino) == synced, "what was synced is new, all else old, nothing zeros");
    // What is left of it on disk must not come back either.
    fs.write(ino, 509_990, b"new", None).unwrap();
    let mut expected = synced;
    expected[509_990..509_993].copy_from_slice(b"new");
    assert!(read(&fs, ino) == expected);
    fs.complete().unwrap();
    assert!(read(&fs, ino) == expected);
    assert!(std::fs::read(dir.path().join("upper/large")).unwrap() == expected);
}

#[test]
fn what_nobody_flushes_is_flushed_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, large());
    let ino = at(&fs, "small");
    fs.write(ino, 0, b"abc", None).unwrap();
    fs.forget(ino, 1);
    fs.settle(Duration::from_secs(1000)).unwrap();
    assert_eq!(fs.stats().nodes, 2, "it is kept until then");
    fs.settle(Duration::ZERO).unwrap();
    assert_eq!(fs.stats().nodes, 1);
    drop(fs);
    let fs = Fs::new(large(), Some(upper(&dir).in_boot(OTHER_BOOT)), OwnerView::Image).unwrap();
    assert_eq!(read(&fs, at(&fs, "small")), b"abc3456789");
}

#[test]
fn holes_of_a_layer_stay_holes() {
    let dir = tempfile::tempdir().unwrap();
    let mut sparse = vec![0; BYTES];
    sparse[BYTES / 2] = b'x';
    let union = union(FakeLayer::new().file("sparse", &sparse));
    let fs = open(&dir, union);
    let ino = at(&fs, "sparse");
    fs.write(ino, 10, b"y", None).unwrap();
    sparse[10] = b'y';
    fs.complete().unwrap();
    assert!(read(&fs, ino) == sparse);
    assert!(allocated(&dir, "sparse") <= 2 * GRANULE + 4096, "{}", allocated(&dir, "sparse"));
}

#[test]
fn completing_changes_nothing_that_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, large());
    let ino = at(&fs, "large");
    fs.setattr(ino, ROOT_USER, &Change { mode: Some(0o4711), ..Change::default() }).unwrap();
    let before = fs.getattr(ino).unwrap();
    assert_eq!(before.metadata.mtime, MTIME);
    fs.complete().unwrap();
    let after = fs.getattr(ino).unwrap();
    assert_eq!((after.metadata, after.atime, after.ino), (before.metadata, before.atime, before.ino));
    assert!(std::fs::read(dir.path().join("upper/large")).unwrap() == content());
    assert!(!marks(&dir.path().join("upper/large")).contains("extents"));
}

fn marks(path: &Path) -> String {
    let mut list = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, list.as_mut_slice()).unwrap();
    String::from_utf8(list[..length].to_vec()).unwrap()
}

#[test]
fn ranges_of_fallocate() {
    use rustix::fs::FallocateFlags;
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, large());
    let (ino, mut expected) = (at(&fs, "large"), content());
    let call = |mode: FallocateFlags, offset: u64, len: u64| {
        fs.fallocate(ino, mode.bits(), offset, len).unwrap();
    };
    let keep = FallocateFlags::KEEP_SIZE;
    call(FallocateFlags::PUNCH_HOLE | keep, 10_000, 50_000);
    expected[10_000..60_000].fill(0);
    assert!(allocated(&dir, "large") <= 3 * GRANULE);
    call(FallocateFlags::ZERO_RANGE, 100_000, 9);
    expected[100_000..100_009].fill(0);
    call(FallocateFlags::empty(), 200_000, 100_000);
    assert!(allocated(&dir, "large") >= 100_000, "room was asked for");
    call(FallocateFlags::empty(), BYTES as u64, 1000);
    expected.resize(BYTES + 1000, 0);
    assert!(read(&fs, ino) == expected);
    // Data begins in front of the hole, and again behind it, in what is the layer's.
    assert_eq!(fs.seek(ino, Seek::Data(0)).unwrap(), 0);
    let hole = fs.seek(ino, Seek::Hole(0)).unwrap();
    assert!((10_000..16_384).contains(&hole), "{hole}");
    let data = fs.seek(ino, Seek::Data(hole)).unwrap();
    assert!((53_248..=60_000).contains(&data), "{data}");
    assert_eq!(fs.seek(ino, Seek::Data(1 << 40)).unwrap_err().errno(), Errno::NXIO);
    let collapse = fs.fallocate(ino, FallocateFlags::COLLAPSE_RANGE.bits(), 4096, 8192);
    assert_eq!(collapse.unwrap_err().errno(), Errno::OPNOTSUPP);
    drop(fs);
    let fs = open(&dir, large());
    assert!(read(&fs, at(&fs, "large")) == expected);
}

#[test]
fn another_image_below_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, large());
    fs.write(at(&fs, "large"), 0, b"x", None).unwrap();
    drop(fs);
    for other in
        [union(FakeLayer::new().file("large", b"another")), union(FakeLayer::new()), Union::new(Vec::new())]
    {
        let fs = open(&dir, other);
        let ino = at(&fs, "large");
        assert_eq!(fs.read(ino, 100_000, &mut [0; 10]).unwrap_err().errno(), Errno::IO);
        assert_eq!(fs.write(ino, 100_000, b"y", None).unwrap_err().errno(), Errno::IO);
    }
    let fs = open(&dir, Union::new(Vec::new()));
    fs.unlink(Ino::ROOT, name("large")).unwrap();
}

/// The same size and times do not make it the same file: images that are built to be reproducible have them all.
#[test]
fn a_rebuilt_image_below_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let built = |byte: u8| union(FakeLayer::new().file("large", &[byte; 100_000]).diff_id(byte));
    let fs = open(&dir, built(1));
    fs.write(at(&fs, "large"), 0, b"x", None).unwrap();
    drop(fs);
    let fs = open(&dir, built(2));
    let ino = at(&fs, "large");
    assert_eq!(fs.read(ino, 50_000, &mut [0; 10]).unwrap_err().errno(), Errno::IO);
    drop(fs);
    let fs = open(&dir, built(1));
    assert_eq!(read(&fs, at(&fs, "large"))[50_000..], [1; 50_000]);
}

#[test]
fn a_file_of_a_directory_that_was_replaced_is_told() {
    let (dir, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = below.path().join("f");
    let written = |byte: u8| {
        std::fs::write(&file, [byte; 100_000]).unwrap();
        std::fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH)
            .unwrap();
    };
    let layer = || union(DirLayer::open(below.path()).unwrap());
    written(1);
    let fs = open(&dir, layer());
    fs.write(at(&fs, "f"), 0, b"x", None).unwrap();
    drop(fs);
    let fs = open(&dir, layer());
    assert_eq!(read(&fs, at(&fs, "f"))[50_000..], [1; 50_000]);
    drop(fs);
    // In place, so that it keeps even its inode number.
    written(2);
    let fs = open(&dir, layer());
    assert_eq!(fs.read(at(&fs, "f"), 50_000, &mut [0; 10]).unwrap_err().errno(), Errno::IO);
}

#[test]
fn a_plain_directory_below_is_found_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let below = tempfile::tempdir().unwrap();
    std::fs::create_dir(below.path().join("d")).unwrap();
    std::fs::write(below.path().join("d/f"), vec![b'l'; 100_000]).unwrap();
    let layer = || union(DirLayer::open(below.path()).unwrap());
    let fs = open(&dir, layer());
    let d = at(&fs, "d");
    let f = fs.lookup(d, name("f")).unwrap().unwrap().ino;
    fs.write(f, 50_000, b"mine", None).unwrap();
    fs.rename(
        crate::fs::End { parent: d, name: name("f") },
        crate::fs::End { parent: Ino::ROOT, name: name("moved") },
        crate::fs::RenameMode::Replace,
    )
    .unwrap();
    assert!(allocated(&dir, "moved") <= 8192, "{}", allocated(&dir, "moved"));
    drop(fs);
    let fs = open(&dir, layer());
    let moved = at(&fs, "moved");
    let mut expected = vec![b'l'; 100_000];
    expected[50_000..50_004].copy_from_slice(b"mine");
    assert!(read(&fs, moved) == expected);
    assert_eq!(moved, f);
}

/// Whatever call fails during a write, the file has the old bytes there or the new ones.
#[test]
fn a_write_that_fails_or_dies_is_old_or_new() {
    // Ten granules: each call is tried anew.
    let old = content()[..40_960].to_vec();
    let file = || union(FakeLayer::new().file("file", &old));
    let mut new = old.clone();
    new[9_000..9_100].fill(b'n');
    for fault in [Fault::Error(Errno::NOSPC), Fault::Error(Errno::IO), Fault::Death] {
        let mut has_written = false;
        for call in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let fs = open(&dir, file());
            let ino = at(&fs, "file");
            arm(fault, call);
            let result = fs.write(ino, 9_000, &[b'n'; 100], None);
            let Some(hit) = disarm() else {
                assert!(call > 10 && has_written, "{call}");
                break;
            };
            if fault != Fault::Death {
                let expected = if result.is_ok() { &new } else { &old };
                assert!(read(&fs, ino) == *expected, "{hit} ({call})");
            }
            // The first bytes that are written are those that are copied.
            if hit == "pwrite" && !std::mem::replace(&mut has_written, true) {
                assert_eq!(fs.stats().copied_bytes, 0);
            }
            drop(fs);
            let fs = open(&dir, file());
            let after = read(&fs, at(&fs, "file"));
            let expected = if result.is_ok() { &new } else { &old };
            assert!(
                after == *expected || (fault == Fault::Death && after == old),
                "{hit} ({call}) after a remount"
            );
        }
    }
}
