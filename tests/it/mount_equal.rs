//! The mounted tree is what another, eager tool makes of the same image.

use std::path::Path;
use std::process::Command;

use crate::support::*;

/// Every form of an image that can be mounted, by its name in the image's directory.
const FORMS: [&str; 6] = ["docker.tar", "docker-gzip.tar", "oci:latest", "oci", "oci.tar", "rootfs"];

/// The listings that apply to whoever runs this: an ordinary user owns everything and cannot read what is closed to its owner.
pub(crate) fn judged() -> (&'static [&'static str], &'static [&'static str]) {
    if is_root() { (&["--owner", "image"], &[]) } else { (&[], &["--ignore", "uid,gid"]) }
}

fn forms() -> impl Iterator<Item = &'static str> {
    // What root unpacked is closed to others in parts, whoever mounts it.
    FORMS.into_iter().filter(|form| is_root() || *form != "rootfs")
}

fn every_form(name: &str, more: &[&str]) {
    let expected = image(name).join("expected.tree");
    let (owner, ignored) = judged();
    for form in forms() {
        let place = Place::new();
        let options = [owner, more].concat();
        let mounted = place.mount(&options, image(name).join(form));
        assert_same_tree(&format!("{name} as {form}, {options:?}"), ignored, &expected, &place.mnt());
        // Once more, now from caches.
        assert_same_tree(&format!("{name} as {form} again"), ignored, &expected, &place.mnt());
        mounted.unmount();
    }
}

#[test]
fn tiny_read_only() {
    needs_mount!();
    every_form("tiny", &["--read-only"]);
}

#[test]
fn tiny_writable() {
    needs_mount!();
    every_form("tiny", &["--rm"]);
}

#[test]
fn debian() {
    needs_mount!();
    if !images().contains(&"debian") {
        skip!("must run: no debian image: run scripts/images");
    }
    every_form("debian", &["--read-only"]);
}

#[test]
fn in_a_user_namespace() {
    needs_mount!();
    if !has_id_ranges() {
        skip!("no subordinate ids");
    }
    let script = r#"
        layerfs=$1 image=$2 mnt=$3 tree=$4 out=$5
        "$layerfs" mount --read-only --rm --owner image "$image" "$mnt" >&2
        python3 "$tree" list "$mnt" >"$out"
        "$layerfs" umount "$mnt"
    "#;
    for name in images() {
        for form in forms().filter(|form| *form != "rootfs") {
            let place = Place::new();
            let out = place.path("found.tree");
            let mut command = Command::new("unshare");
            command.args([
                "--user",
                "--map-root-user",
                "--map-auto",
                "--mount",
                "bash",
                "-ec",
                script,
                "bash",
            ]);
            command.arg(layerfs_path()).arg(image(name).join(form)).arg(place.mnt());
            command.arg(support_file("tree.py")).arg(&out).env("LAYERFS_ROOT", place.store());
            finish(&mut command).ok();
            // Ids that the namespace does not map are shown as the overflow id.
            let what = format!("{name} as {form} in a user namespace");
            assert_same_tree(&what, &["--ids-below", "65536"], &image(name).join("expected.tree"), &out);
            place.nothing_left();
        }
    }
}

#[test]
fn a_directory_of_the_callers_own() {
    needs_mount!();
    let place = Place::new();
    let tree = place.path("tree");
    let script = r#"
        mkdir -p "$1/sub/empty" && cd "$1"
        printf content >file && ln file sub/link && ln -s ../file sub/soft && mkfifo -m 600 fifo
        setfattr -n user.name -v value file && truncate -s 5M sparse && touch -d @-1.5 old && chmod 4711 sub/link
    "#;
    shell(script, &[&tree]).ok();
    let before = place.path("before.tree");
    list(&tree, &before);
    let mounted = place.mount(&["--rm"], &tree);
    assert_same_tree("own directory", &[], &before, &place.mnt());
    std::fs::write(mounted.path("file"), "changed").unwrap();
    std::fs::remove_file(mounted.path("sparse")).unwrap();
    mounted.unmount();
    assert_same_tree("the directory after changes of the mount", &[], &before, &tree);
}

#[test]
fn tar_agrees_about_the_last_layer() {
    needs_mount!();
    if !is_root() {
        skip!("only root can unpack ids and devices");
    }
    // The layers one upon the other as GNU tar unpacks them: no whiteouts, so only the last one is compared as it is.
    let place = Place::new();
    let out = place.path("unpacked");
    let layer = image("tiny").join("layers");
    let script = r#"
        mkdir "$2" && last=$(ls "$1" | tail -n 1)
        tar -C "$2" --numeric-owner --xattrs --xattrs-include='*' --delay-directory-restore -xpf "$1/$last" --exclude='.wh.*'
    "#;
    shell(script, &[&layer, &out]).ok();
    let mounted = place.mount(&["--read-only", "--rm", "--owner", "image"], image("tiny").join("oci"));
    for name in ["hard/many", "hard/merged/sub"] {
        assert_same_tree(name, &["--ignore", "links"], &out.join(name), &mounted.path(name));
    }
}

fn list(tree: &Path, out: &Path) {
    let script = r#"python3 "$1" list "$2" >"$3""#;
    shell(script, &[&support_file("tree.py"), tree, out]).ok();
}
