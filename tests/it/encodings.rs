//! An image is the same however its layers are compressed.

use std::ffi::OsStr;
use std::path::Path;

use crate::support::*;

/// What people and builders compress layers with, one piece and many.
const COMPRESSORS: [&str; 13] = [
    "gzip -1",
    "pigz -b 128",
    "pigz -i -b 128",
    "bgzip -c",
    "zstd -3",
    "zstd -19 --long=27",
    "pzstd -q -p 2",
    "xz -1 -T1",
    "xz -1 -T2 --block-size=1MiB",
    "bzip2 -1",
    "pbzip2 -1 -p2 -c",
    // Pieces put together, as tools do that append.
    "split -b 700K --filter='zstd -1 -c'",
    "split -b 700K --filter='xz -0 -c'",
];

fn mounts_as_it_is(what: &str, name: &str, form: &OsStr) {
    let place = Place::new();
    let (options, ignored): (&[&str], &[&str]) = if is_root() {
        (&["--read-only", "--owner", "image"], &[])
    } else {
        (&["--read-only"], &["--ignore", "uid,gid"])
    };
    let expected = image(name).join("expected.tree");
    let mounted = place.mount(options, form);
    assert_same_tree(what, ignored, &expected, &place.mnt());
    mounted.unmount();
    // Once more, from the index that is there now.
    let mounted = place.mount(options, form);
    assert_same_tree(&format!("{what} again"), ignored, &expected, &place.mnt());
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
        mounts_as_it_is(compressor, "tiny", archive.as_os_str());
    }
}

#[test]
fn as_skopeo_writes_them() {
    needs_mount!();
    let place = Place::new();
    for format in ["zstd", "zstd:chunked"] {
        let layout = place.path(&format.replace(':', "-"));
        let script = r#"skopeo copy -q --insecure-policy --dest-compress --dest-compress-format "$3" "oci:$1:latest" "oci:$2:latest""#;
        shell(script, &[&image("tiny").join("oci"), &layout, Path::new(format)]).ok();
        let manifests = shell(r#"grep -rlE 'tar\+zstd"' "$1/blobs""#, &[&layout]);
        assert!(!manifests.ok().is_empty(), "skopeo did not compress with {format}");
        mounts_as_it_is(format, "tiny", layout.as_os_str());
    }
}

#[test]
fn a_damaged_layer_is_told_with_file_and_place() {
    needs_mount!();
    let place = Place::new();
    let archive = place.path("packed.tar");
    for (compressor, word) in
        [("zstd -1", "bad zstd data"), ("xz -0", "bad xz data"), ("bzip2 -1", "bad bzip2 data")]
    {
        let command = format!("{compressor} | head -c 300000");
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
