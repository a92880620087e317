//! An image is the same however its layers are compressed.

use std::ffi::OsStr;
use std::path::Path;

use crate::support::*;

/// What people and builders compress layers with, one piece and many.
const COMPRESSORS: [&str; 8] = [
    "pigz -i -b 128",
    "bgzip -c",
    "zstd -19 --long=27",
    "pzstd -q -p 2",
    "xz -1 -T2 --block-size=1MiB",
    "bzip2 -1",
    "pbzip2 -1 -p2 -c",
    // Pieces put together, as tools do that append.
    "split -b 700K --filter='zstd -1 -c'",
];

/// Mounts the image and compares it with a tree or the listing of one.
fn mounts_as(expected: &Path, what: &str, form: &OsStr) {
    let place = Place::new();
    let (options, ignored): (&[&str], &[&str]) = if is_root() {
        (&["--read-only", "--owner", "image"], &[])
    } else {
        (&["--read-only"], &["--ignore", "uid,gid"])
    };
    let mounted = place.mount(options, form);
    assert_same_tree(what, ignored, expected, &place.mnt());
    mounted.unmount();
}

#[test]
fn of_every_compressor() {
    needs_mount!();
    let place = Place::new();
    let archive = place.path("packed.tar");
    for compressor in COMPRESSORS {
        let script = r#"python3 "$1" "$COMPRESSOR" "$2" "$3""#;
        let arguments = [&support_file("packed_archive.py"), &image("tiny").join("docker.tar"), &archive];
        let mut command = std::process::Command::new("bash");
        command.args(["-ec", script, "bash"]).args(arguments).env("COMPRESSOR", compressor);
        finish(&mut command).ok();
        mounts_as(&image("tiny").join("expected.tree"), compressor, archive.as_os_str());
    }
}

#[test]
fn as_skopeo_writes_them() {
    needs_mount!();
    let place = Place::new();
    // Only the first layer: old skopeos make tars that nobody can read of sparse files.
    let plain = place.path("plain");
    let script = r#"
        umoci init --layout "$1" && umoci new --image "$1:latest"
        umoci raw add-layer --image "$1:latest" "$2"
    "#;
    shell(script, &[&plain, &image("tiny").join("layers/0-base.tar")]).ok();
    let options: &[&str] = if is_root() { &["--read-only", "--owner", "image"] } else { &["--read-only"] };
    let mounted = place.mount(options, &plain);
    for format in ["zstd", "zstd:chunked"] {
        let layout = place.path(&format.replace(':', "-"));
        let script = r#"
            skopeo copy -q --insecure-policy --dest-compress --dest-compress-format "$3" "oci:$1:latest" "oci:$2:latest"
            grep -rqE 'tar[+]zstd"' "$2/blobs"
            python3 "$4" "$2"
        "#;
        let arguments = [&plain, &layout, Path::new(format), &support_file("true_diff_ids.py")];
        shell(script, &arguments).ok();
        mounts_as(&place.mnt(), format, layout.as_os_str());
    }
    mounted.unmount();
}

#[test]
fn a_damaged_layer_is_told_with_file_and_place() {
    needs_mount!();
    let place = Place::new();
    let archive = place.path("packed.tar");
    for (compressor, word) in
        [("zstd -1", "bad zstd data"), ("xz -0", "bad xz data"), ("bzip2 -1", "bad bzip2 data")]
    {
        let command = format!("{compressor} | (head -c 300000; cat >/dev/null)");
        shell(
            r#"python3 "$1" "$4" "$2" "$3""#,
            &[
                &support_file("packed_archive.py"),
                &image("tiny").join("docker.tar"),
                &archive,
                Path::new(&command),
            ],
        )
        .ok();
        let done = place.layerfs(&[OsStr::new("mount"), archive.as_os_str(), place.mnt().as_os_str()]);
        assert_ne!(done.code, 0, "{done:#?}");
        for part in ["packed.tar", word, "at offset", "cut off"] {
            assert!(done.err.contains(part), "{part}: {done:#?}");
        }
        assert!(!is_mounted(&place.mnt()));
    }
}
