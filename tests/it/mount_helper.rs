//! mount(8) and fstab lines, through `mount.layerfs`.

use crate::support::*;

/// In a mount namespace of its own, so that the helper can lie where mount(8) looks for it.
const SCRIPT: &str = r#"
helper=$1 image=$2 place=$3
export LAYERFS_ROOT=$place/store
mkdir -p "$place/up" "$place/work"
mount -t overlay -o "lowerdir=/usr/sbin,upperdir=$place/up,workdir=$place/work" overlay /usr/sbin
install -m 755 "$helper" /usr/sbin/mount.layerfs
mnt=$place/mnt

test -z "$(mount -t layerfs "$image" "$mnt" -o ro)"
test -s "$mnt/etc/passwd"
findmnt -n -o FSTYPE,OPTIONS "$mnt" | grep -q 'fuse.layerfs.*ro'
umount "$mnt"
mount -t layerfs "$image" "$mnt" -o noatime,nodiratime,nosuid
findmnt -n -o OPTIONS "$mnt" | grep -q 'nosuid.*noatime,nodiratime'
umount "$mnt"
mount -t layerfs overlay "$mnt" -o lowerdir="$place/work:$place/up",relatime,noexec
findmnt -n -o OPTIONS "$mnt" | grep -q 'noexec.*relatime'
umount "$mnt"

echo "$image $mnt layerfs rw,nofail,x-systemd.automount,owner=image,upper=$place/changes 0 0" >"$place/fstab"
mount -T "$place/fstab" "$mnt"
echo changed >"$mnt/etc/motd"
umount "$mnt"
for i in $(seq 100); do pgrep -f "mount.layerfs.*$mnt" >/dev/null || break; sleep 0.1; done
grep -q changed "$place/changes/upper/etc/motd"

if mount -t layerfs "$image" "$mnt" -o no_such_option 2>"$place/said"; then exit 1; fi
grep -q no_such_option "$place/said"
status=0; mount -t layerfs "$place/nothing" "$mnt" 2>"$place/said" || status=$?
test "$status" = 32
grep -q "$place/nothing" "$place/said"
"#;

#[test]
fn mount_and_fstab() {
    needs_mount!();
    if !is_root() {
        skip!("only root may mount by mount(8) without a line in /etc/fstab");
    }
    let helper = std::path::PathBuf::from(layerfs_path()).with_file_name("mount-layerfs");
    if !helper.exists() {
        skip!("{} is not built: cargo build --workspace", helper.display());
    }
    let place = Place::new();
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "--propagation", "private", "bash", "-exc", SCRIPT, "bash"]);
    command.arg(helper).arg(image("tiny").join("docker.tar")).arg(place.path(""));
    let done = finish(&mut command);
    assert_eq!(done.code, 0, "{done:#?}");
    place.nothing_left();
}
