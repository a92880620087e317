//! `-o passthrough`: the kernel reads and writes files of the upper itself. The random scripts run upon such mounts, too.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::support::*;

/// Skips the test when the kernel would not let us.
macro_rules! needs_passthrough {
    () => {
        needs_mount!();
        if !may_pass_through() {
            skip!("passthrough takes root of the first user namespace");
        }
    };
}

/// A mount of a plain directory that has `lower`, for all users, with its upper in `changes`.
fn mounted(place: &Place) -> Mounted<'_> {
    let image = place.path("image");
    if !image.exists() {
        fs::create_dir(&image).unwrap();
        fs::write(image.join("lower"), vec![1; 300_000]).unwrap();
    }
    let changes = place.path("changes");
    place.mount(&["-o", "passthrough,suid", "--upper", changes.to_str().unwrap()], image)
}

/// How many requests of a kind have reached the server.
fn requests(place: &Place, kind: &str) -> u64 {
    let mnt = place.mnt();
    let said = place.layerfs(&["stats", "--json", mnt.to_str().unwrap()]);
    let stats: serde_json::Value = serde_json::from_str(said.ok()).unwrap();
    stats["requests"][kind]["count"].as_u64().unwrap_or(0)
}

#[test]
fn the_server_sees_no_reads_and_writes_of_the_upper() {
    needs_passthrough!();
    let place = Place::new();
    let mount = mounted(&place);
    let mut file = File::create_new(mount.path("new")).unwrap();
    file.write_all(&[7; 100_000]).unwrap();
    file.write_all_at(b"x", 50_000).unwrap();
    let mut found = Vec::new();
    File::open(mount.path("new")).unwrap().read_to_end(&mut found).unwrap();
    assert_eq!((found.len(), found[49_999], found[50_000]), (100_000, 7, b'x'));
    assert_eq!((requests(&place, "write"), requests(&place, "read")), (0, 0));
    assert_eq!(fs::read(place.path("changes/upper/new")).unwrap(), found);
    assert_eq!(file.metadata().unwrap().len(), 100_000);
    drop(file);
    mount.unmount();
}

/// Of a layer's file some is the layer's as long as it is open; then it may be completed, and is the kernel's.
#[test]
fn what_shares_content_with_a_layer_comes_through_the_server() {
    needs_passthrough!();
    let place = Place::new();
    let mount = mounted(&place);
    let reader = File::open(mount.path("lower")).unwrap();
    let writer = File::options().write(true).open(mount.path("lower")).unwrap();
    writer.write_all_at(b"own", 100_000).unwrap();
    let mut found = [0; 5];
    reader.read_exact_at(&mut found, 99_999).unwrap();
    assert_eq!(&found, b"\x01own\x01");
    // All of it.
    writer.write_all_at(&vec![2; 300_000], 0).unwrap();
    drop(writer);
    let again = File::options().write(true).open(mount.path("lower")).unwrap();
    again.write_all_at(b"more", 0).unwrap();
    let mut found = [0; 5];
    reader.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(&found, b"more\x02", "who opened it before sees it");
    drop((reader, again));
    assert!(eventually(|| {
        let before = requests(&place, "write");
        let file = File::options().write(true).open(mount.path("lower")).unwrap();
        file.write_all_at(b"last", 0).unwrap();
        let mut found = [0; 5];
        File::open(mount.path("lower")).unwrap().read_exact_at(&mut found, 0).unwrap();
        assert_eq!(&found, b"last\x02");
        requests(&place, "write") == before
    }));
    mount.unmount();
}

#[test]
fn what_is_written_into_a_mapping_changes_the_time() {
    needs_passthrough!();
    let place = Place::new();
    let mount = mounted(&place);
    let path = mount.path("mapped");
    fs::write(&path, [0; 4096]).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
    // Python's own mmap asks for the attributes, which would then be asked for again. The mapping outlives the file.
    let script = "import ctypes, sys\nc = ctypes.CDLL(None)\nc.mmap.restype = ctypes.c_void_p\n\
                  fd = c.open(sys.argv[1].encode(), 2)\nat = c.mmap(None, 4096, 3, 1, fd, ctypes.c_long(0))\n\
                  c.close(fd)\nctypes.memset(at, 65, 1)";
    finish(Command::new("python3").args(["-c", script]).arg(&path)).ok();
    assert!(eventually(|| fs::metadata(&path).unwrap().modified().unwrap() != old));
    assert_eq!(fs::read(&path).unwrap()[0], 65);
    mount.unmount();
}

#[test]
fn who_may_not_is_told_so() {
    needs_mount!();
    let place = Place::new();
    let image: PathBuf = place.path("image");
    fs::create_dir(&image).unwrap();
    let mnt = place.mnt();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]).arg(layerfs_path());
    command.args(["mount", "-o", "passthrough"]).arg(&image).arg(&mnt);
    let done = finish(command.env("LAYERFS_ROOT", place.store()));
    assert_eq!(done.code, 125, "{done:?}");
    assert!(done.err.contains("passthrough") && done.err.contains("CAP_SYS_ADMIN"), "{done:?}");
    place.nothing_left();
}
