//! No room left where the upper is: those who write are told, nothing is torn, and it works again when there is room.

use std::process::Command;

use crate::support::*;

/// In a mount namespace of its own; `$4` mounts the filesystem for the upper.
const SCRIPT: &str = r#"
layerfs=$1 full=$2 place=$3
cd "$place" && chmod 755 . && mkdir -p disk image/lower
for n in $(seq 0 29); do python3 -c "print(end=chr($n) * 300000)" >"image/lower/$n"; done
eval "$4"
"$layerfs" mount --quiet --upper disk image mnt
python3 "$full" mnt disk
"$layerfs" umount mnt
"$layerfs" mount --quiet --upper disk image mnt
cmp <(head -c 250000 mnt/lower/1 | tr n '\1'; tail -c 50000 mnt/lower/1) image/lower/1
"$layerfs" umount mnt
"#;

fn fills(mount: &str) {
    let place = Place::new();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-ec", SCRIPT, "bash"]);
    command.arg(layerfs_path()).arg(support_file("full.py")).arg(place.path("")).arg(mount);
    finish(command.env("LAYERFS_ROOT", place.store())).ok();
    place.nothing_left();
}

#[test]
fn full_ext4() {
    needs_mount!();
    if !is_root() {
        skip!("only root can mount a small filesystem");
    }
    fills("truncate -s 12M file && mkfs.ext4 -q -N 200 file && mount -o loop file disk");
}

#[test]
fn full_tmpfs() {
    needs_mount!();
    if !is_root() {
        skip!("only root can mount a small filesystem");
    }
    fills("mount -t tmpfs -o size=8M,nr_inodes=200 tmpfs disk");
}

/// A quota that also binds root: that of a subvolume of btrfs. The kernels that tests run on often lack those of users.
const QUOTA: &str = r#"
layerfs=$1 quota=$2 place=$3
cd "$place" && chmod 755 . && mkdir -p disk image/lower
python3 -c 'print(end="l" * 3000000)' >image/lower/old
truncate -s 120M file && mkfs.btrfs -q file && mount -o loop file disk
btrfs quota enable disk || exit 77
btrfs subvolume create disk/limited
btrfs qgroup limit 2M disk/limited
"$layerfs" mount --quiet --upper disk/limited image mnt
python3 "$quota" mnt disk/limited
cp mnt/lower/old seen
"$layerfs" umount mnt
"$layerfs" mount --quiet --upper disk/limited image mnt
cmp mnt/lower/old seen
test "$(wc -c <mnt/new)" = 3000000
"$layerfs" umount mnt
"#;

#[test]
fn a_quota_that_is_used_up() {
    needs_mount!();
    if !is_root() {
        skip!("only root can mount a filesystem with quotas");
    }
    if !std::fs::read_to_string("/proc/filesystems").unwrap().contains("\tbtrfs") {
        skip!("this kernel has no btrfs, whose quotas need no others");
    }
    let place = Place::new();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-ec", QUOTA, "bash"]);
    command.arg(layerfs_path()).arg(support_file("quota.py")).arg(place.path(""));
    let done = finish(command.env("LAYERFS_ROOT", place.store()));
    if done.code == 77 {
        skip!("btrfs has no quotas here: {}", done.err);
    }
    done.ok();
    place.nothing_left();
}

/// The caller's limit of file sizes binds the server: who writes beyond it is told, and the server lives.
#[test]
fn a_limit_of_file_sizes() {
    needs_mount!();
    let place = Place::new();
    let source = image("tiny").join("oci");
    place.layerfs(&[std::ffi::OsStr::new("index"), source.as_os_str()]).ok();
    let script = "ulimit -f 500; LAYERFS_ROOT=\"$1\" \"$2\" mount --rm \"$3\" \"$4\"";
    let layerfs = layerfs_path();
    shell(script, &[&place.store(), std::path::Path::new(&layerfs), &source, &place.mnt()]).ok();
    let server = place.server();
    let large = place.mnt().join("large");
    let error = std::fs::write(&large, vec![1; 2_000_000]).expect_err("wrote beyond the limit");
    // EFBIG
    assert_eq!(error.raw_os_error(), Some(27));
    assert_eq!(place.server(), server, "the server lives");
    std::fs::write(&large, vec![2; 300_000]).unwrap();
    assert!(std::fs::read(&large).unwrap() == vec![2; 300_000]);
    assert_eq!(std::fs::read(place.mnt().join("usr/share/data")).unwrap().len(), 3 << 20);
    place.layerfs(&[std::ffi::OsStr::new("umount"), place.mnt().as_os_str()]).ok();
    place.nothing_left();
}
