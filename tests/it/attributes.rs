//! Attributes, by the rules of each caller: what becomes of them upon ext4 becomes of them upon layerfs, with objects of
//! a layer and with objects of the upper.

use std::process::Command;

use crate::support::*;

const SCRIPT: &str = r#"
layerfs=$1 attributes=$2 place=$3
cd "$place" && chmod 755 . && mkdir native layer empty
python3 "$attributes" prepare native
cp -a native/. layer
python3 "$attributes" run "$place/native" >native.out

"$layerfs" mount --quiet --owner image layer mnt
python3 "$attributes" run "$place/mnt" >layer.out
"$layerfs" umount mnt
"$layerfs" mount --quiet --owner image empty mnt
python3 "$attributes" prepare "$place/mnt"
python3 "$attributes" run "$place/mnt" >upper.out
"$layerfs" umount mnt
"#;

fn same_as_ext4(unshare: &[&str]) {
    let place = Place::new();
    let mut command = Command::new("unshare");
    command.args(unshare).args(["bash", "-ec", SCRIPT, "bash"]).arg(layerfs_path());
    command.arg(support_file("attributes.py")).arg(place.path("")).env("LAYERFS_ROOT", place.store());
    finish(&mut command).ok();
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    let native = read("native.out");
    assert!(native.lines().count() > 4000, "{native}");
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
    same_as_ext4(&["--mount", "--propagation", "private"]);
}

#[test]
fn like_ext4_in_a_user_namespace() {
    needs_mount!();
    if is_root() || !has_id_ranges() {
        skip!("for users with subordinate ids");
    }
    same_as_ext4(&["--user", "--map-root-user", "--map-auto", "--mount"]);
}
