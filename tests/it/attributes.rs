//! Attributes by the rules of each caller, and what guards files: as it is upon ext4 it is upon layerfs, with objects of a
//! layer and with objects of the upper.

use std::process::Command;

use crate::support::*;

const SCRIPT: &str = r#"
layerfs=$1 program=$2 place=$3 owner=$4
cd "$place" && chmod 755 . && mkdir native layer empty
python3 "$program" prepare native
cp -a native/. layer
python3 "$program" run "$place/native" >native.out

"$layerfs" mount --quiet --owner "$owner" layer mnt
python3 "$program" run "$place/mnt" >layer.out
"$layerfs" umount mnt
"$layerfs" mount --quiet --owner "$owner" empty mnt
python3 "$program" prepare "$place/mnt"
python3 "$program" run "$place/mnt" >upper.out
"$layerfs" umount mnt
"#;

fn same_as_ext4(program: &str, unshare: &[&str], owner: &str, lines_min: usize) {
    let place = Place::new();
    let mut command = Command::new("unshare");
    command.args(unshare).args(["bash", "-ec", SCRIPT, "bash"]).arg(layerfs_path());
    command.arg(support_file(program)).arg(place.path("")).arg(owner).env("LAYERFS_ROOT", place.store());
    finish(&mut command).ok();
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    let native = read("native.out");
    assert!(native.lines().count() >= lines_min, "{native}");
    for name in ["layer.out", "upper.out"] {
        let found = read(name);
        assert_eq!(native.lines().count(), found.lines().count(), "{name}");
        let pairs = native.lines().zip(found.lines()).filter(|(a, b)| a != b);
        let differing: Vec<_> = pairs.map(|(a, b)| format!("   ext4: {a}\nlayerfs: {b}\n")).collect();
        assert!(differing.is_empty(), "{name}: {} differ\n{}", differing.len(), differing.concat());
    }
    place.nothing_left();
}

#[test]
fn like_ext4() {
    needs_mount!();
    if !is_root() {
        skip!("becomes other users");
    }
    same_as_ext4("attributes.py", &["--mount", "--propagation", "private"], "image", 4000);
}

#[test]
fn like_ext4_in_a_user_namespace() {
    needs_mount!();
    if is_root() || !has_id_ranges() {
        skip!("for users with subordinate ids");
    }
    let namespaces = ["--user", "--map-root-user", "--map-auto", "--mount"];
    same_as_ext4("attributes.py", &namespaces, "image", 4000);
}

#[test]
fn locks_leases_watches_and_busy_programs() {
    needs_mount!();
    same_as_ext4("guards.py", &[], "caller", 50);
}
