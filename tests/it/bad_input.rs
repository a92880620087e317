//! Bad input ends with a clear error and the right exit code, and leaves nothing behind.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;

/// layerfs itself failed, whatever the reason; every other code belongs to the command that it runs.
const FAILED: i32 = 125;

/// Neither a mount, nor a process, nor a container, nor a temporary file.
#[track_caller]
fn left_nothing(place: &Place) {
    place.nothing_left();
    assert!(place.containers().is_empty(), "containers left: {:?}", place.containers());
    for dir in ["index", "spill"] {
        let entries = fs::read_dir(place.store().join(dir)).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let odd: Vec<_> = names.filter(|name| name.contains("tmp") || name.starts_with('.')).collect();
        assert!(odd.is_empty(), "temporary files in {dir}: {odd:?}");
    }
}

/// Both `mount` and `run` refuse `image`, and the error holds one of `words`.
#[track_caller]
fn refused(place: &Place, image: &Path, words: &[&str]) {
    let mnt = place.mnt();
    let done = place.layerfs(&[OsStr::new("mount"), image.as_os_str(), mnt.as_os_str()]);
    clear_error(&done, FAILED, words);
    left_nothing(place);
    let done = place.layerfs(&[OsStr::new("run"), OsStr::new("--rm"), image.as_os_str(), OsStr::new("true")]);
    clear_error(&done, FAILED, words);
    left_nothing(place);
}

#[track_caller]
fn clear_error(done: &Done, code: i32, words: &[&str]) {
    assert_eq!(done.code, code, "{done:#?}");
    let text = done.err.to_lowercase();
    assert!(words.iter().any(|word| text.contains(&word.to_lowercase())), "none of {words:?} in {done:#?}");
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{done:#?}");
    assert!(done.out.is_empty(), "an error prints nothing to stdout: {done:#?}");
}

/// A copy of the tiny image as OCI layout, to be damaged.
fn layout(place: &Place) -> PathBuf {
    let copied = place.path("layout");
    copy(&image("tiny").join("oci"), &copied);
    copied
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn manifest_digest(layout: &Path) -> String {
    json(&layout.join("index.json"))["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

fn layer_digest(layout: &Path, number: usize) -> String {
    let manifest = json(&blob(layout, &manifest_digest(layout)));
    manifest["layers"][number]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn no_such_file() {
    needs_mount!();
    let place = Place::new();
    refused(&place, &place.path("absent.tar"), &["no such file", "not found"]);
}

#[test]
fn not_an_image() {
    needs_mount!();
    let place = Place::new();
    let text = place.path("text");
    fs::write(&text, "this is no image\n".repeat(1000)).unwrap();
    refused(&place, &text, &["image"]);
    let tar = place.path("other.tar");
    shell("tar -C \"$1\" -cf \"$2\" text", &[&place.path(""), &tar]).ok();
    refused(&place, &tar, &["image", "manifest"]);
    let empty = place.path("empty");
    fs::write(&empty, "").unwrap();
    refused(&place, &empty, &["image", "empty"]);
}

#[test]
fn truncated_gzip() {
    needs_mount!();
    let place = Place::new();
    let layout = layout(&place);
    let digest = layer_digest(&layout, 0);
    let victim = fs::File::options().write(true).open(blob(&layout, &digest)).unwrap();
    victim.set_len(victim.metadata().unwrap().len() / 2).unwrap();
    refused(&place, &layout, &[&digest]);
}

#[test]
fn truncated_archive() {
    needs_mount!();
    let place = Place::new();
    for form in ["docker.tar", "docker-gzip.tar", "oci.tar"] {
        let copied = place.path(form);
        copy(&image("tiny").join(form), &copied);
        let file = fs::File::options().write(true).open(&copied).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        refused(&place, &copied, &["truncated", "end", "missing", "manifest", "short", "not an image"]);
    }
}

#[test]
fn wrong_digest() {
    needs_mount!();
    let place = Place::new();
    let layout = layout(&place);
    let (first, second) = (layer_digest(&layout, 0), layer_digest(&layout, 1));
    // A sound gzip file, but not the one that was promised.
    fs::copy(blob(&layout, &second), blob(&layout, &first)).unwrap();
    refused(&place, &layout, &[&first]);
}

#[test]
fn missing_layer() {
    needs_mount!();
    let place = Place::new();
    let layout = layout(&place);
    let digest = layer_digest(&layout, 1);
    fs::remove_file(blob(&layout, &digest)).unwrap();
    refused(&place, &layout, &[&digest]);
}

#[test]
fn unknown_media_type() {
    needs_mount!();
    let place = Place::new();
    let layout = layout(&place);
    let index = layout.join("index.json");
    let text = fs::read_to_string(&index).unwrap();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    assert!(text.contains(media_type));
    fs::write(&index, text.replace(media_type, "application/vnd.example.recipe")).unwrap();
    refused(&place, &layout, &["application/vnd.example.recipe"]);
}

#[test]
fn mount_point_missing_or_busy() {
    needs_mount!();
    let place = Place::new();
    let source = image("tiny").join("oci");
    let mount = |target: &Path| place.layerfs(&[OsStr::new("mount"), source.as_os_str(), target.as_os_str()]);
    clear_error(&mount(&place.path("absent")), FAILED, &["no such file", "does not exist", "not found"]);
    left_nothing(&place);
    let file = place.path("file");
    fs::write(&file, "").unwrap();
    clear_error(&mount(&file), FAILED, &["not a directory"]);
    left_nothing(&place);

    let mounted = place.mount(&["--rm"], &source);
    clear_error(&mount(&place.mnt()), FAILED, &["busy", "already", "mounted"]);
    assert_eq!(place.containers(), [mounted.id.as_str()], "the refused mount left a container");
    assert!(mounted.path("etc/passwd").exists());
    mounted.unmount();
    left_nothing(&place);
}

#[test]
fn no_dev_fuse() {
    needs_mount!();
    let place = Place::new();
    let script = r#"
        mkdir "$4" && mount -t tmpfs none "$4"
        for name in null zero full random urandom; do
            touch "$4/$name"; mount --bind "/dev/$name" "$4/$name"
        done
        mount --rbind "$4" /dev
        exec "$1" mount "$2" "$3"
    "#;
    let mut command = Command::new("unshare");
    command.args(if is_root() { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] });
    command.args(["sh", "-ec", script, "sh"]).arg(layerfs_path()).arg(image("tiny").join("oci"));
    command.arg(place.mnt()).arg(place.path("dev"));
    clear_error(&finish(command.env("LAYERFS_ROOT", place.store())), FAILED, &["/dev/fuse"]);
    left_nothing(&place);
}

#[test]
fn unknown_option() {
    needs_mount!();
    let place = Place::new();
    let mnt = place.mnt();
    let source = image("tiny").join("oci");
    let done =
        place.layerfs(&[OsStr::new("mount"), OsStr::new("--colour"), source.as_os_str(), mnt.as_os_str()]);
    clear_error(&done, FAILED, &["--colour"]);
    let options = ["mount", "-o", "no-such-option"].map(OsStr::new);
    let done = place.layerfs(&[&options[..], &[source.as_os_str(), mnt.as_os_str()]].concat());
    clear_error(&done, FAILED, &["no-such-option"]);
    let done = place.layerfs(&[OsStr::new("run"), OsStr::new("--colour"), source.as_os_str()]);
    clear_error(&done, FAILED, &["--colour"]);
    let done = place.layerfs(&["paint"]);
    clear_error(&done, FAILED, &["paint"]);
    left_nothing(&place);
}

#[test]
fn unknown_container() {
    needs_mount!();
    let place = Place::new();
    let mnt = place.mnt();
    let source = image("tiny").join("oci");
    let options = ["mount", "--container", "no-such-container"].map(OsStr::new);
    let done = place.layerfs(&[&options[..], &[source.as_os_str(), mnt.as_os_str()]].concat());
    clear_error(&done, FAILED, &["no-such-container"]);
    left_nothing(&place);
}

#[test]
fn inspect_says_what_is_broken() {
    needs_mount!();
    let place = Place::new();
    let layout = layout(&place);
    fs::write(layout.join("index.json"), "{").unwrap();
    let (gone, typo) = (place.path("gone"), format!("{}:v9", image("tiny").join("oci").display()));
    for (name, word) in [
        (layout.to_str().unwrap(), "index.json"),
        (gone.to_str().unwrap(), "no such file or directory"),
        (&typo, "no image \"v9\""),
    ] {
        let done = place.layerfs(&["inspect", name]);
        assert!(done.code == 125 && done.err.contains(word) && !done.err.contains("container"), "{done:#?}");
    }
    let done = place.layerfs(&["inspect", "gone"]);
    assert!(done.code == 125 && done.err.contains("no such container"), "{done:#?}");
}

#[test]
fn verify_tells_damage_from_what_it_could_not_look_at() {
    needs_mount!();
    let place = Place::new();
    let verify = |image: &str| place.layerfs(&["verify", "--quiet", image]);
    let layout = layout(&place);
    let name = layout.to_str().unwrap();
    verify(name).ok();
    for digest in ["@sha256:00", &format!("@sha256:{}", "0".repeat(64))] {
        let done = verify(&format!("oci:{name}:{digest}"));
        assert!(done.code == 125 && done.err.contains("no image \"@sha256:00"), "{done:#?}");
    }
    // An index that cannot be kept.
    let digest = layer_digest(&layout, 0);
    let index = place.store().join("index").join(format!("{}.lfx", digest.trim_start_matches("sha256:")));
    fs::remove_file(&index).unwrap();
    fs::create_dir(&index).unwrap();
    let done = verify(name);
    assert!(done.code == 125 && done.err.contains(".lfx") && done.out.contains("not all of it"), "{done:#?}");
    fs::remove_dir(&index).unwrap();
    if !is_root() {
        shell("chmod 0 \"$1\"", &[&blob(&layout, &digest)]).ok();
        let done = verify(name);
        assert!(done.code == 125 && done.err.contains("Permission denied"), "{done:#?}");
        shell("chmod 600 \"$1\"", &[&blob(&layout, &digest)]).ok();
    }
    fs::remove_file(blob(&layout, &digest)).unwrap();
    assert_eq!(verify(name).code, 1);
}
