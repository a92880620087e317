//! A large file of a layer is changed in parts: little is moved, and the content is that of an ordinary file.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::process::Command;

use crate::support::*;

/// Of the file that is changed in every way; reading it again and again takes its time.
const BYTES: u64 = 128 << 20;

/// A root filesystem with one file, with data here and there.
fn rootfs(place: &Place, bytes: u64) -> std::path::PathBuf {
    let rootfs = place.path("rootfs");
    fs::create_dir(&rootfs).unwrap();
    let file = File::create(rootfs.join("large")).unwrap();
    file.set_len(bytes).unwrap();
    for at in (0..bytes).step_by(3_000_017) {
        file.write_all_at(&(at + 1).to_le_bytes().repeat(500), at).unwrap();
    }
    rootfs
}

/// As the only layer of a docker-archive, uncompressed.
fn archive(place: &Place, rootfs: &std::path::Path) -> std::path::PathBuf {
    let script = r#"
        cd "$1" && mkdir image && tar -C "$2" --sparse --owner 0 --group 0 -cf image/layer.tar large
        sum=$(sha256sum image/layer.tar | cut -d' ' -f1)
        printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$sum" > image/config.json
        printf '[{"Config":"config.json","RepoTags":["large:1"],"Layers":["layer.tar"]}]' > image/manifest.json
        tar -C image -cf image.tar manifest.json config.json layer.tar && rm -r image
    "#;
    shell(script, &[&place.path(""), rootfs]).ok();
    place.path("image.tar")
}

fn change_in_parts(place: &Place, image: &std::path::Path, plain: &std::path::Path) {
    let upper = place.path("changes");
    let mounted = place.mount(&["--upper", upper.to_str().unwrap()], image);
    let mut script = Command::new("python3");
    script.arg(support_file("extents.py")).args([&mounted.path("large"), plain, &upper]);
    assert_eq!(finish(&mut script).ok(), "same");
    mounted.unmount();
    let mounted = place.mount(&["--upper", upper.to_str().unwrap()], image);
    shell("cmp \"$1\" \"$2\"", &[&mounted.path("large"), plain]).ok();
    mounted.unmount();
    let mut complete = place.command();
    complete.args(["complete", "--upper"]).arg(&upper).arg(image);
    finish(&mut complete).ok();
    shell("cmp \"$1\" \"$2\"", &[&upper.join("upper/large"), plain]).ok();
}

#[test]
fn parts_of_a_file_of_a_tar() {
    needs_mount!();
    let place = Place::new();
    let rootfs = rootfs(&place, BYTES);
    change_in_parts(&place, &archive(&place, &rootfs), &rootfs.join("large"));
}

#[test]
fn parts_of_a_file_of_a_directory() {
    needs_mount!();
    let place = Place::new();
    let rootfs = rootfs(&place, BYTES);
    copy(&rootfs.join("large"), &place.path("plain"));
    change_in_parts(&place, &rootfs, &place.path("plain"));
    assert_eq!(fs::metadata(rootfs.join("large")).unwrap().len(), BYTES, "the layer is as it was");
}

#[test]
fn little_is_moved() {
    needs_mount!();
    let place = Place::new();
    let image = rootfs(&place, 1 << 30);
    let upper = place.path("changes");
    let mounted = place.mount(&["--upper", upper.to_str().unwrap()], &image);
    let in_upper = upper.join("upper/large");
    shell("chmod 600 \"$1\"; touch -d 2001-01-01 \"$1\"; ln \"$1\" \"$1.link\"", &[&mounted.path("large")])
        .ok();
    assert!(fs::metadata(&in_upper).unwrap().blocks() * 512 <= 8192);
    let large = File::options().write(true).open(mounted.path("large")).unwrap();
    large.write_all_at(&[b'x'; 4096], 500 << 20).unwrap();
    drop(large);
    assert!(fs::metadata(&in_upper).unwrap().blocks() * 512 <= 1 << 20, "4 KiB of 1 GiB");
    shell("mv \"$1\" \"$1.moved\"; cmp -n 500M \"$1.moved\" \"$2/large\"; cmp -i 501M \"$1.moved\" \"$2/large\"", &[&mounted.path("large"), &image]).ok();
    shell(": > \"$1.link\"; test ! -s \"$1.moved\"", &[&mounted.path("large")]).ok();
    assert!(fs::metadata(upper.join("upper/large.link")).unwrap().blocks() * 512 <= 8192);
    mounted.unmount();
}
