//! `-o writeback`: the kernel keeps what is written until close(2) or fsync(2), and nobody is told anything wrong
//! meanwhile. The random scripts run upon such mounts, too.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::SeekFrom as Whence;

use crate::support::*;

/// An image with a file of two names.
fn image(place: &Place) -> PathBuf {
    let image = place.path("image");
    fs::create_dir(&image).unwrap();
    fs::write(image.join("one"), "of a layer").unwrap();
    fs::hard_link(image.join("one"), image.join("two")).unwrap();
    image
}

/// A mount with its upper in `changes`.
fn mounted(place: &Place) -> Mounted<'_> {
    let changes = place.path("changes");
    place.mount(&["-o", "writeback", "--upper", changes.to_str().unwrap()], place.path("image"))
}

#[test]
fn what_is_written_comes_with_close_or_fsync() {
    needs_mount!();
    let place = Place::new();
    image(&place);
    let mount = mounted(&place);
    let below = |name: &str| fs::read(place.path("changes/upper").join(name)).unwrap();
    for (name, ends) in [("closed", drop as fn(File)), ("flushed", |file| file.sync_all().unwrap())] {
        let mut file = File::create(mount.path(name)).unwrap();
        file.write_all(b"some data").unwrap();
        assert_eq!(below(name), b"", "{name}: it was not kept: this test shows nothing");
        assert_eq!(fs::read(mount.path(name)).unwrap(), b"some data");
        assert_eq!(file.metadata().unwrap().len(), 9);
        ends(file);
        assert_eq!(below(name), b"some data", "{name}");
    }
    mount.unmount();
}

#[test]
fn what_was_flushed_survives_a_kill() {
    needs_mount!();
    let place = Place::new();
    image(&place);
    let mount = mounted(&place);
    let file = File::options().append(true).open(mount.path("one")).unwrap();
    (&file).write_all(b", and more").unwrap();
    file.sync_data().unwrap();
    nix::sys::signal::kill(nix_pid(place.server()), nix::sys::signal::Signal::SIGKILL).unwrap();
    drop(file);
    force_unmount(&place.mnt());
    drop(mount);
    let mount = mounted(&place);
    assert_eq!(fs::read(mount.path("two")).unwrap(), b"of a layer, and more");
    mount.unmount();
}

fn nix_pid(pid: u32) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(pid.try_into().unwrap())
}

#[test]
fn data_that_is_kept_is_no_hole() {
    needs_mount!();
    let place = Place::new();
    image(&place);
    let mount = mounted(&place);
    let file = File::create(mount.path("file")).unwrap();
    file.write_all_at(b"data", 1 << 20).unwrap();
    assert_ne!(file.metadata().unwrap().blocks(), 0);
    assert_eq!(rustix::fs::seek(&file, Whence::Data(0)).unwrap(), 0);
    assert_eq!((&file).seek(SeekFrom::End(0)).unwrap(), (1 << 20) + 4);
    assert_eq!(rustix::fs::seek(&file, Whence::Hole(0)).unwrap(), (1 << 20) + 4);
    // What they do with a file that has no blocks, or with what lseek(2) calls a hole.
    let copies = r#"
        cp --sparse=auto "$1" "$2/copy"
        tar -C "${1%/*}" -cSf "$2/tar" file
        mkdir "$2/untarred" && tar -C "$2/untarred" -xf "$2/tar"
        cmp "$1" "$2/copy" && cmp "$1" "$2/untarred/file"
    "#;
    shell(copies, &[&mount.path("file"), &place.path("")]).ok();
    drop(file);
    mount.unmount();
}

#[test]
fn times_are_those_of_the_writes() {
    needs_mount!();
    let place = Place::new();
    image(&place);
    let mount = mounted(&place);
    let set = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    let times = |name: &str| {
        let found = fs::metadata(place.mnt().join(name)).unwrap();
        (found.mtime(), found.mtime_nsec())
    };
    for name in ["one", "new"] {
        let file = File::options().create(true).append(true).open(mount.path(name)).unwrap();
        (&file).write_all(b"x").unwrap();
        let written = times(name);
        std::thread::sleep(Duration::from_millis(20));
        drop(file);
        assert_eq!(times(name), written, "{name}: closing is no write");
    }
    let (one, new) = (times("one"), times("new"));
    File::options().append(true).open(mount.path("new")).unwrap().set_modified(set).unwrap();
    assert_eq!(times("new"), (1_000_000_000, 5));
    mount.unmount();
    let mount = mounted(&place);
    assert_eq!(times("one"), one, "the second mount shows what the first one did");
    assert_ne!(new, times("new"));
    assert_eq!(times("new"), (1_000_000_000, 5));
    mount.unmount();
}

#[test]
fn a_name_that_goes_does_not_copy_the_other() {
    needs_mount!();
    let place = Place::new();
    image(&place);
    let mount = mounted(&place);
    fs::remove_file(mount.path("one")).unwrap();
    // The kernel keeps the new ctime, and hands it over with the rest.
    mount.unmount();
    assert!(!place.path("changes/upper/two").exists());
    let copies = fs::read_dir(place.path("changes/work/links")).unwrap();
    let names: Vec<_> = copies.map(|copy| copy.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| name.contains('-')), "copied up: {names:?}");
}

/// Where nothing is written through, write(2) itself cannot tell; what fits in part is an error like any other.
#[test]
fn no_room_is_told_before_the_file_is_closed() {
    needs_mount!();
    for (room, written) in [("4M", "16M"), ("400K", "600K")] {
        let place = Place::new();
        image(&place);
        let script = r#"
            cd "$2" && mkdir disk && mount -t tmpfs -o size=$3 tmpfs disk
            "$1" mount --quiet -o writeback --upper disk image mnt
            exec 3>mnt/file
            head -c $4 /dev/zero >&3 || told=write
            python3 -c 'import os; os.fsync(3)' 2>/dev/null || told=fsync
            exec 3>&-
            rm mnt/file
            # There is room again a moment later, when the kernel has forgotten the file.
            for _ in $(seq 600); do
              echo room >mnt/again && sync mnt/again 2>/dev/null && break
              sleep 0.1
            done
            "$1" umount mnt
            [ "$(cat disk/upper/again)" = room ]
            echo "told by $told"
        "#;
        let mut command = Command::new("unshare");
        if !is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "--propagation", "private", "bash", "-ec", script, "bash"]);
        command.arg(layerfs_path()).arg(place.path("")).args([room, written]);
        let done = finish(command.env("LAYERFS_ROOT", place.store()));
        assert_eq!(done.ok().trim(), "told by fsync", "{room}: {done:?}");
    }
}

/// Others see such an upper, so a file that is written to is copied as a whole; but not to be emptied.
#[test]
fn what_is_truncated_is_not_copied() {
    needs_mount!();
    let place = Place::new();
    fs::create_dir(place.path("image")).unwrap();
    fs::create_dir(place.path("upper")).unwrap();
    fs::create_dir(place.path("work")).unwrap();
    fs::write(place.path("image/file"), vec![1; 1 << 20]).unwrap();
    let dir = place.path("");
    let options = format!("lowerdir={0}/image,upperdir={0}/upper,workdir={0}/work,writeback", dir.display());
    let mnt = place.mnt();
    place.layerfs(&["-o", &options, mnt.to_str().unwrap()]).ok();
    File::create(mnt.join("file")).unwrap();
    let said = place.layerfs(&["stats", mnt.to_str().unwrap()]);
    let copied = said.ok().lines().find(|line| line.starts_with("copied up")).unwrap();
    assert!(copied.ends_with(" 0 B"), "{copied}");
    force_unmount(&mnt);
    assert_eq!(fs::read(place.path("upper/file")).unwrap(), b"");
}
