//! Decoded content on disk: shared by mounts, harmless when it is gone, damaged, or cannot be written.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;

/// The last bytes of a spill file, behind its map (`src/layer/spill/file.rs`).
const FOOTER_BYTES: usize = 64;
const GRANULE_BYTES: u64 = 128 << 10;

/// The spill files of a place's store.
fn spilled(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.store().join("spill")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| !path.ends_with("lock")).collect()
}

/// How many granules of all layers the maps say something of: that they are there, or only that they were decoded.
fn known(place: &Place, is_there: bool) -> usize {
    let count = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        // One that is just being made.
        if bytes.len() < FOOTER_BYTES {
            return 0;
        }
        let tar_bytes = u64::from_le_bytes(bytes[bytes.len() - 16..][..8].try_into().unwrap());
        let granules = usize::try_from(tar_bytes.div_ceil(GRANULE_BYTES)).unwrap();
        let map = &bytes[bytes.len() - FOOTER_BYTES - granules..][..granules];
        map.iter().filter(|state| **state >= if is_there { 2 } else { 1 }).count()
    };
    spilled(place).iter().map(count).sum()
}

/// Reads the large file of the image and says which granules of it are known then, at least.
fn read_data(mounted: &Mounted<'_>) -> (Vec<u8>, usize) {
    let data = fs::read(mounted.path("usr/share/data")).unwrap();
    let granules = usize::try_from(data.len() as u64 / GRANULE_BYTES).unwrap();
    assert!(granules > 2, "too small to show anything");
    (data, granules)
}

/// Two mounts, so that what both decoded is kept.
fn fill(place: &Place, source: &Path) -> Vec<u8> {
    let mounted = place.mount(&["--rm"], source);
    let (data, granules) = read_data(&mounted);
    assert!(eventually(|| known(place, false) >= granules));
    assert_eq!(known(place, true), 0, "kept at the first time");
    mounted.unmount();
    let mounted = place.mount(&["--rm"], source);
    assert!(read_data(&mounted).0 == data);
    assert!(eventually(|| known(place, true) >= granules), "{} of {granules}", known(place, true));
    mounted.unmount();
    data
}

/// Makes the largest blob of a layout useless, and leaves no trace in its length.
fn ruin(layout: &Path) {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let blob = blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let len = usize::try_from(fs::metadata(&blob).unwrap().len()).unwrap();
    File::options().write(true).open(blob).unwrap().write_all_at(&vec![0x55; len], 0).unwrap();
}

#[test]
fn what_two_mounts_decoded_is_decoded_no_more() {
    needs_mount!();
    let place = Place::new();
    let source = place.path("image");
    copy(&image("tiny").join("oci"), &source);
    let data = fill(&place, &source);
    // Only the spill still has the content.
    ruin(&source);
    let mounted = place.mount(&["--rm"], &source);
    assert!(read_data(&mounted).0 == data);
    mounted.unmount();
    for path in spilled(&place) {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(metadata.blocks() * 512 < metadata.len() + (64 << 10));
    }
    // A byte of it that is wrong is never given to anybody, also when nothing better is to be had.
    let largest =
        spilled(&place).into_iter().max_by_key(|path| fs::metadata(path).unwrap().blocks()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.windows(64).position(|window| window == &data[data.len() / 2..][..64]).unwrap();
    bytes[middle] ^= 1;
    fs::write(&largest, &bytes).unwrap();
    let mounted = place.mount(&["--rm"], &source);
    assert!(fs::read(mounted.path("usr/share/data")).is_err(), "a wrong byte was read");
    mounted.unmount();
}

#[test]
fn mounts_share_it_and_may_lose_it() {
    needs_mount!();
    let place = Place::new();
    let source = place.path("image");
    copy(&image("tiny").join("oci"), &source);
    let data = fill(&place, &source);
    let other = place.path("other");
    fs::create_dir(&other).unwrap();
    let mounted = place.mount(&["--rm"], &source);
    let mut command = place.command();
    finish(command.args(["mount", "--rm"]).args([&source, &other])).ok();
    let read = |dir: &Path| fs::read(dir.join("usr/share/data")).unwrap();
    let mnt = place.mnt();
    std::thread::scope(|scope| {
        let both = [&mnt, &other].map(|dir| scope.spawn(|| read(dir)));
        assert!(both.map(|reader| reader.join().unwrap() == data) == [true; 2]);
    });
    let evict = |dir: &Path| {
        // The kernel forgets the file's content, so that the next read asks the server again.
        let file = File::open(dir.join("usr/share/data")).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    };
    let damages: [fn(&Path); 3] = [
        |path| File::options().write(true).open(path).unwrap().set_len(GRANULE_BYTES).unwrap(),
        |path| fs::remove_file(path).unwrap(),
        |path| fs::remove_dir_all(path.parent().unwrap()).unwrap(),
    ];
    for damage in damages {
        spilled(&place).iter().take(1).for_each(|path| damage(path));
        for dir in [&mnt, &other] {
            evict(dir);
            assert!(read(dir) == data);
        }
    }
    finish(place.command().arg("umount").arg(&other)).ok();
    mounted.unmount();
}

/// In a mount namespace of its own; `$4` puts another filesystem where spill files are.
const ELSEWHERE: &str = r#"
layerfs=$1 image=$2 place=$3
cd "$place" && chmod 755 . && mkdir -p store/spill && chmod 700 store
eval "$4"
for round in 1 2 3; do
  id=$("$layerfs" mount "$image/oci" mnt)
  cmp mnt/usr/share/data "$image/rootfs/usr/share/data"
  diff -r mnt/usr "$image/rootfs/usr"
  sleep 1
  "$layerfs" umount mnt
  test "$(grep -c 'no longer kept' "store/containers/$id/log")" -le 1
  cat "store/containers/$id/log" >>log
done
eval "$5"
"#;

fn elsewhere(before: &str, after: &str) {
    needs_mount!();
    if !is_root() {
        skip!("only root can mount a small filesystem");
    }
    let place = Place::new();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-ec", ELSEWHERE, "bash"]);
    command.arg(layerfs_path()).arg(image("tiny")).arg(place.path("")).args([before, after]);
    finish(command.env("LAYERFS_ROOT", place.store()).env("LAYERFS_SPILL_BYTES", "1G")).ok();
    place.nothing_left();
}

#[test]
fn no_room_for_it() {
    elsewhere(
        "mount -t tmpfs -o size=600K,mode=700 tmpfs store/spill",
        "grep 'no longer kept' log; test \"$(du -k store/spill | cut -f1)\" -le 600",
    );
}

#[test]
fn no_writing_there() {
    elsewhere(
        "mount --bind store/spill store/spill; mount -o remount,bind,ro store/spill",
        "! ls -A store/spill | grep .",
    );
}

#[test]
fn no_holes_there() {
    elsewhere(
        "truncate -s 40M fat && { mkfs.vfat fat || exit 0; } && mount -o loop fat store/spill || exit 0",
        "test \"$(du -k store/spill | cut -f1)\" -le 100",
    );
}

#[test]
fn the_environment_says_how_much() {
    needs_mount!();
    let place = Place::new();
    let mount = |value: &str| {
        let mut command = place.command();
        command.args(["mount", "--rm"]).arg(image("tiny").join("oci")).arg(place.mnt());
        finish(command.env("LAYERFS_SPILL_BYTES", value).env("LAYERFS_TRACE", "0"))
    };
    let refused = mount("much");
    assert!(refused.code != 0 && refused.err.contains("LAYERFS_SPILL_BYTES"), "{refused:?}");
    mount("0").ok();
    fs::read(place.mnt().join("usr/share/data")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    finish(place.command().arg("umount").arg(place.mnt())).ok();
    place.nothing_left();
    assert_eq!(fs::read_dir(place.store().join("spill")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(place.store().join("trace")).unwrap().count(), 0);
}

#[test]
fn a_start_leaves_its_trace() {
    needs_mount!();
    let place = Place::new();
    let source = image("tiny").join("oci");
    let traces = || {
        let entries = fs::read_dir(place.store().join("trace")).unwrap().map(|entry| entry.unwrap().path());
        let mut texts: Vec<String> = entries.map(|path| fs::read_to_string(path).unwrap()).collect();
        texts.sort_by_key(String::len);
        texts
    };
    let mounted = place.mount(&["--rm"], &source);
    read_data(&mounted);
    assert!(traces().is_empty(), "written before it is over");
    mounted.unmount();
    let [trace] = &traces()[..] else { panic!("{:?}", traces()) };
    assert!(trace.starts_with("layerfs start trace 1\n") && trace.lines().count() > 3, "{trace}");
    // The next one reads it ahead, in any case rightly, and has nothing to add.
    let mounted = place.mount(&["--rm"], &source);
    assert!(read_data(&mounted).0 == fs::read(image("tiny").join("rootfs/usr/share/data")).unwrap());
    mounted.unmount();
    assert_eq!(traces(), std::slice::from_ref(trace));
    // A program's start is another's.
    let done = place.layerfs(&["run", "--rm", "--quiet", source.to_str().unwrap(), "/bin/true"]);
    if done.code == 0 {
        assert_eq!(traces().len(), 2);
    }
}
