//! The same changes upon layerfs and upon kernel overlayfs give the same tree and the same errors.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::*;

/// Kernel overlayfs as it is most correct; unmounted with its test.
struct Overlay<'a> {
    place: &'a Place,
}

impl<'a> Overlay<'a> {
    fn new(place: &'a Place, name: &str) -> Overlay<'a> {
        let layers = place.path("layers");
        let unpack = Command::new("python3")
            .arg(support_file("overlay-layers.py"))
            .arg(image(name).join("layers"))
            .arg(&layers)
            .output()
            .unwrap();
        assert!(unpack.status.success(), "{unpack:?}");
        let script = r#"
            cd "$1" && mkdir ../overlay ../upper ../work
            # The root shows the attributes of the upper directory.
            top=$(ls | tail -n 1)
            chown --reference "$top" ../upper; chmod --reference "$top" ../upper; touch -r "$top" ../upper
            lower=$(ls | sort -r | tr '\n' :)
            mount -t overlay overlay -o "lowerdir=${lower%:},upperdir=../upper,workdir=../work,index=on,redirect_dir=on,metacopy=off" ../overlay
        "#;
        let overlay = Overlay { place };
        shell(script, &[&layers]).ok();
        overlay
    }

    fn dir(&self) -> std::path::PathBuf {
        self.place.path("overlay")
    }
}

impl Drop for Overlay<'_> {
    fn drop(&mut self) {
        if is_mounted(&self.dir()) {
            shell("umount -l \"$1\"", &[&self.dir()]);
        }
    }
}

/// Runs the series upon `dir`; what it returns says how each change ended.
fn change(dir: &Path) -> String {
    let mut command = Command::new("python3");
    command.arg(support_file("changes.py")).arg(dir);
    finish(&mut command).ok().to_owned()
}

fn differing_lines(expected: &str, found: &str) -> String {
    let pairs = expected.lines().zip(found.lines()).filter(|(a, b)| a != b);
    pairs.map(|(a, b)| format!("overlayfs: {a}\n  layerfs: {b}\n")).collect()
}

fn same_changes(name: &str, form: &str) {
    let place = Place::new();
    let overlay = Overlay::new(&place, name);
    let source = image(name).join(form);
    let before = sha256(&source);
    // Whether a link count counts names of lower layers that are hidden is overlayfs' own affair.
    let relaxed = ["--ignore", "nlink"];
    let expected = image(name).join("expected.tree");
    assert_same_tree("the judge itself, untouched", &relaxed, &expected, &overlay.dir());

    let mounted = place.mount(&["--owner", "image"], &source);
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    let (wanted, got) = (change(&overlay.dir()), change(&place.mnt()));
    assert!(wanted == got, "{}", differing_lines(&wanted, &got));
    let relaxed = [&relaxed[..], &["--recent", &start]].concat();
    assert_same_tree("changed", &relaxed, &overlay.dir(), &place.mnt());

    let id = mounted.id.clone();
    mounted.unmount();
    let mounted = place.mount(&["--owner", "image", "--container", &id], &source);
    assert_same_tree("changed and mounted again", &relaxed, &overlay.dir(), &place.mnt());
    mounted.unmount();
    assert_eq!(sha256(&source), before, "the image file changed");
}

#[test]
fn same_as_kernel_overlayfs() {
    needs_mount!();
    if !is_root() {
        skip!("only root can mount overlayfs with every feature");
    }
    for form in ["docker.tar", "oci.tar"] {
        same_changes("tiny", form);
    }
}

#[test]
fn same_as_kernel_overlayfs_on_debian() {
    needs_mount!();
    if !is_root() {
        skip!("only root can mount overlayfs with every feature");
    }
    if !images().contains(&"debian") {
        skip!("must run: no debian image: run scripts/images");
    }
    same_changes("debian", "docker-gzip.tar");
}
