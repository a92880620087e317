//! What another overlay needs that is stacked upon the mount.

use super::cases;
use crate::support::*;

cases! { "peers_stacked.py":
    a_rename_leaves_a_whiteout
}

/// Lower, upper and work directory of an overlay; the last two are in the mount `$1`, the others in the place `$2`.
const STACKED: &str = r#"
mkdir -p "$1/up" "$1/work" "$2/low/d/s" "$2/top"; cd "$2"; echo low >low/f; echo x >low/d/s/x
overlay() { mount -t overlay overlay -o "lowerdir=low,upperdir=$1/up,workdir=$1/work,redirect_dir=on" top; }
overlay "$1"
trap 'umount -l top' EXIT
mv top/f top/g; mv top/d top/e; rm -r top/e/s; mkdir top/e/s; echo new >top/e/s/n
test "$(cd top; find . | sort | tr '\n' ' ')" = '. ./e ./e/s ./e/s/n ./g '
umount top; overlay "$1"
test "$(cd top; find . | sort | tr '\n' ' ')" = '. ./e ./e/s ./e/s/n ./g '
test "$(cat top/g top/e/s/n)" = "$(printf 'low\nnew')"
"#;

#[test]
fn kernel_overlayfs_has_its_upper_in_the_mount() {
    needs_mount!();
    if !is_root() {
        skip!("only root can mount overlayfs with every feature");
    }
    let place = Place::new();
    let mounted = place.mount(&[], image("tiny").join("oci"));
    shell(STACKED, &[&place.mnt(), &place.path("")]).ok();
    mounted.unmount();
}
