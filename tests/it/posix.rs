//! pjdfstest, whole: nothing fails upon layerfs that does not fail upon the filesystem that has its upper.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;

/// The settings; the users are those that every Debian has.
const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
secondary_fs = "/dev/shm"
[settings]
naptime = 0.02
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
"#;

/// Both runs, in namespaces of their own. Some tests remount the filesystem read-only, which must be its own one, and
/// cannot be done while another test has files open. For FUSE mount(8) would start the server's program for that.
const SCRIPT: &str = r#"
layerfs=$1 suite=$2 place=$3 image=$4 inside=$5
mkdir -p "$place/bin" "$place/ext4"
printf '%s\n' '#!/bin/sh' 'case "$2" in remount,*) set -- -i "$@" ;; esac' 'exec /bin/mount "$@"' >"$place/bin/mount"
chmod 755 "$place/bin/mount"
if [ -e "$place/disk" ]; then
  mkfs.ext4 -q "$place/disk"
  mount -o loop "$place/disk" "$place/ext4"
fi
mkdir -p "$place/ext4/native"
chmod 755 "$place/ext4/native"
"$layerfs" mount --quiet --owner image --upper "$place/ext4/upper" "$image" "$place/mnt"
export PATH="$place/bin:$PATH"
run() {
  "$suite" -c "$place/config" -p "$1" >"$2" 2>&1 || grep -q Summary "$2"
  if [ -e "$place/disk" ]; then
    "$suite" -c "$place/config-remount" -p "$1" erofs >>"$2" 2>&1 || true
  fi
}
run "$place/ext4/native" "$place/native.out"
run "$place/mnt$inside" "$place/layerfs.out"
"$layerfs" umount "$place/mnt"
"#;

/// How each test of a run ended, the last time.
fn outcomes(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let ends = text.lines().filter(|line| line.contains("::") && !line.starts_with(char::is_whitespace));
    let pairs = ends.filter_map(|line| line.split_once(char::is_whitespace));
    let known = pairs.filter(|(_, how)| matches!(how.trim(), "ok" | "skipped" | "FAILED"));
    known.map(|(name, how)| (name.to_owned(), how.trim().to_owned())).collect()
}

fn that(outcomes: &BTreeMap<String, String>, how: &str) -> BTreeSet<String> {
    outcomes.iter().filter(|(_, what)| *what == how).map(|(name, _)| name.clone()).collect()
}

/// Why the suite cannot run, if so.
fn why_not() -> Option<String> {
    let suite = suite();
    (!suite.exists()).then(|| format!("must run: no {}: run scripts/install", suite.display()))
}

fn suite() -> PathBuf {
    let tools = std::env::var_os("LAYERFS_TEST_TOOLS");
    Path::new(&tools.unwrap_or_else(|| "/var/cache/layerfs-test-tools".into())).join("bin/pjdfstest")
}

/// Runs the suite in a directory of the image; `unshare` makes the namespaces.
fn same_as_ext4(unshare: &[&str], image: &Path, inside: &str) {
    let place = Place::new();
    // A filesystem of its own can be remounted; root can have one.
    if is_root() {
        fs::File::create(place.path("disk")).unwrap().set_len(300 << 20).unwrap();
    }
    fs::write(place.path("config"), CONFIG).unwrap();
    fs::write(place.path("config-remount"), CONFIG.replace("false", "true")).unwrap();
    let image = if image.as_os_str().is_empty() { place.path("empty") } else { image.to_owned() };
    if !image.exists() {
        fs::create_dir(&image).unwrap();
    }
    // The suite becomes other users, who must be able to go there.
    shell("chmod 755 \"$1\"", &[&place.path("")]).ok();
    let mut command = Command::new("unshare");
    command.args(unshare).args(["bash", "-ec", SCRIPT, "bash"]).arg(layerfs_path()).arg(suite());
    command.arg(place.path("")).arg(&image).arg(inside).env("LAYERFS_ROOT", place.store());
    finish(&mut command).ok();

    let (native, ours) = (outcomes(&place.path("native.out")), outcomes(&place.path("layerfs.out")));
    assert!(native.len() > 390, "only {} tests", native.len());
    assert_eq!(native.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
    let worse = &that(&ours, "FAILED") - &that(&native, "FAILED");
    assert!(worse.is_empty(), "{worse:#?}\n{}", fs::read_to_string(place.path("layerfs.out")).unwrap());
    // The C library does not know how many links a FUSE filesystem allows, so that one is not tried.
    let left_out = &that(&ours, "skipped") - &that(&native, "skipped");
    assert!(left_out.iter().all(|name| name == "link::link_count_max"), "{left_out:?}");
    let passed = that(&ours, "ok").len();
    assert!(
        passed > if is_root() { 390 } else { 330 },
        "{passed}: {:?}\n{}",
        that(&ours, "FAILED"),
        fs::read_to_string(place.path("layerfs.out")).unwrap()
    );
    place.nothing_left();
}

fn everywhere(unshare: &[&str]) {
    same_as_ext4(unshare, Path::new(""), "");
    // In a directory of a layer.
    same_as_ext4(unshare, &image("tiny").join("docker.tar"), "/usr/share");
}

#[test]
fn pjdfstest() {
    needs_mount!();
    if let Some(why) = why_not() {
        skip!("{why}");
    }
    if !is_root() {
        skip!("most of its tests are for root");
    }
    everywhere(&["--mount", "--propagation", "private"]);
}

#[test]
fn pjdfstest_in_a_user_namespace() {
    needs_mount!();
    if let Some(why) = why_not() {
        skip!("{why}");
    }
    if is_root() || !has_id_ranges() {
        skip!("for users with subordinate ids");
    }
    everywhere(&["--user", "--map-root-user", "--map-auto", "--mount"]);
}
