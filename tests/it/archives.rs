//! Images in and out of the store: podman, skopeo and umoci say whether they are the same ones.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::support::*;

fn tiny(form: &str) -> PathBuf {
    image("tiny").join(form)
}

/// What skopeo says of an image: the config's bytes as they are, and the rest as it understands it.
fn skopeo(what: &str, spec: &str) -> Value {
    let config = finish(Command::new("skopeo").args(["inspect", what, "--raw"]).arg(spec));
    serde_json::from_str(config.ok()).unwrap()
}

fn diff_ids(spec: &str) -> Value {
    skopeo("--config", spec)["rootfs"]["diff_ids"].clone()
}

/// The names of the blobs, and of anything else that lies with them.
fn blobs(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.store().join("oci/blobs/sha256")).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn names(place: &Place) -> Vec<String> {
    let index = fs::read(place.store().join("oci/index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let named = index["manifests"].as_array().unwrap().iter();
    // What lost its name to another stays without one.
    let mut names: Vec<String> = named
        .filter_map(|one| one["annotations"]["org.opencontainers.image.ref.name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// Every blob is what its name says.
fn assert_sound(place: &Place) {
    for name in blobs(place).iter().filter(|name| !name.starts_with('.')) {
        assert_eq!(&sha256(&place.store().join("oci/blobs/sha256").join(name)), name);
    }
}

fn has_images() -> bool {
    tiny("stamp").exists()
}

macro_rules! needs_images {
    () => {
        if !has_images() {
            skip!("must run: no test images: run scripts/images");
        }
    };
}

#[test]
fn every_form_is_loaded() {
    needs_images!();
    let plain = format!("docker-archive:{}", tiny("docker.tar").display());
    let expected = diff_ids(&plain);
    for form in ["docker.tar", "docker-gzip.tar", "oci.tar", "oci"] {
        let place = Place::new();
        let done = place.layerfs(&["load", "-i", tiny(form).to_str().unwrap()]);
        let name = done.ok().strip_prefix("Loaded image: ").unwrap_or_else(|| panic!("{done:#?}"));
        let stored = format!("oci:{}:{name}", place.store().join("oci").display());
        assert_eq!(diff_ids(&stored), expected, "{form}");
        assert_sound(&place);
        // As skopeo names it in the layout that it was made from.
        let copied = place.path("copied");
        let copy = r#"skopeo copy -q --insecure-policy "$1" "oci:$2:copied" && umoci unpack --rootless --image "$2:copied" "$3" >&2"#;
        shell(copy, &[Path::new(&stored), &copied, &place.path("bundle")]).ok();
    }
}

#[test]
fn compressed_and_through_a_pipe() {
    needs_images!();
    let mut found = Vec::new();
    for how in ["cat", "gzip -c", "zstd -c", "xz -0 -c", "bzip2 -1 -c"] {
        let place = Place::new();
        let script = format!(r#"{how} <"$1" | LAYERFS_ROOT="$2" "$3" load -q"#);
        let layerfs = PathBuf::from(layerfs_path());
        let id = shell(&script, &[&tiny("docker.tar"), &place.store(), &layerfs]).ok().to_owned();
        assert_eq!(blobs(&place).iter().filter(|name| name.starts_with('.')).count(), 0, "{how}");
        found.push((id, blobs(&place), names(&place)));
    }
    assert!(found.windows(2).all(|two| two[0] == two[1]), "{found:#?}");
}

#[test]
fn saved_images_are_what_they_were() {
    needs_images!();
    let place = Place::new();
    let source = tiny("docker-gzip.tar");
    let id = place.layerfs(&["load", "-q", "-i", source.to_str().unwrap()]).ok().to_owned();
    let expected = diff_ids(&format!("docker-archive:{}", source.display()));
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        let out = place.path(format);
        let save =
            |out: &Path| place.layerfs(&["save", "--format", format, "-o", out.to_str().unwrap(), "tiny"]);
        assert_eq!(save(&out).ok(), "");
        let transport = format.strip_suffix("-dir").unwrap_or(format);
        let spec = format!("{transport}:{}", out.display());
        assert_eq!(diff_ids(&spec), expected, "{format}");
        let config = finish(Command::new("skopeo").args(["inspect", "--config", "--raw", &spec])).out;
        let digest = place.path("config");
        fs::write(&digest, config).unwrap();
        assert_eq!(format!("sha256:{}", sha256(&digest)), id, "{format}");
        // The same once more, and loaded it is the same image.
        let again = place.path("again");
        save(&again).ok();
        if format != "oci-dir" {
            assert_eq!(sha256(&out), sha256(&again), "{format}");
        }
        let other = Place::new();
        assert_eq!(other.layerfs(&["load", "-q", "-i", out.to_str().unwrap()]).ok(), id);
        assert_eq!(names(&other), names(&place));
        shell("rm -rf -- \"$1\"", &[&again]).ok();
    }
    let unpack = r#"umoci unpack --rootless --image "$1:tiny:latest" "$2" >&2"#;
    shell(unpack, &[&place.path("oci-dir"), &place.path("bundle")]).ok();
    // There is something in it, or it cannot be.
    let taken = place.layerfs(&[
        "save",
        "--format",
        "oci-dir",
        "-o",
        place.path("oci-dir").to_str().unwrap(),
        "tiny",
    ]);
    assert!(taken.code == 125 && taken.err.contains("something in it"), "{taken:#?}");
    let missing = place.layerfs(&["save", "-o", place.path("none").to_str().unwrap(), "no-such-image"]);
    assert!(missing.code == 125 && missing.err.contains("no-such-image"), "{missing:#?}");
    assert!(!place.path("none").exists());
}

/// podman takes what is saved here, and what podman saves is taken.
const PODMAN: &str = r#"
layerfs=$1 place=$2
cd "$place"
engine() { podman --root "$place/storage" --runroot "$place/run" --storage-driver vfs --cgroup-manager cgroupfs "$@"; }
mkdir tree && echo hello >tree/file && tar -C tree -cf tree.tar .
engine import -q -c CMD=/file tree.tar localhost/one:1 >&2
name=localhost/one:1
engine tag "$name" localhost/other:two
id=$(engine images -q --no-trunc | sort -u)
engine save -q "$name" | "$layerfs" load -q
engine save -q -m "$name" localhost/other:two | "$layerfs" load
"$layerfs" save -o back.tar other:two
engine rmi -f "$id" >&2
engine load -q -i back.tar
engine images -q --no-trunc
"$layerfs" save --format oci-archive -o back.oci other:two
engine rmi -f "$id" >&2
engine load -q -i back.oci
engine images -q --no-trunc
echo "id $id"
"#;

#[test]
fn podman_takes_and_gives() {
    needs_images!();
    if !is_root() {
        skip!("only root can use the storage of podman here");
    }
    let place = Place::new();
    let mut bash = Command::new("bash");
    bash.args(["-ec", PODMAN, "bash"]).arg(layerfs_path()).arg(place.path(""));
    let done = finish(bash.env("LAYERFS_ROOT", place.store()));
    let id = done.ok().lines().find_map(|line| line.strip_prefix("id ")).unwrap().to_owned();
    assert_eq!(done.out.lines().filter(|line| *line == id).count(), 3, "{done:#?}");
    assert!(done.out.contains("Loaded image: localhost/other:two\n"), "{done:#?}");
    assert!(names(&place).contains(&"localhost/other:two".to_owned()));
    assert_sound(&place);
}

#[test]
fn a_load_that_is_killed_leaves_no_image() {
    needs_images!();
    let place = Place::new();
    // Only temporary files, whenever it is.
    let archive = fs::read(tiny("docker.tar")).unwrap();
    for part in 1..8 {
        let mut child =
            place.command().arg("load").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, &archive[..archive.len() * part / 8]).unwrap();
        sleep(Duration::from_millis(20));
        child.kill().unwrap();
        child.wait().unwrap();
        drop(stdin);
        assert!(blobs(&place).iter().all(|name| name.starts_with(".tmp-")), "{:?}", blobs(&place));
    }
    let done = place.layerfs(&["load", "-i", tiny("docker.tar").to_str().unwrap()]);
    assert!(done.ok().starts_with("Loaded image"), "{done:#?}");
    assert_sound(&place);
    // A day later they are removed.
    let age = r#"find "$1" -name '.tmp-*' -exec touch -d '2 days ago' {} +"#;
    shell(age, &[&place.store()]).ok();
    place.layerfs(&["prune"]).ok();
    assert!(blobs(&place).iter().all(|name| !name.starts_with('.')), "{:?}", blobs(&place));
}

#[test]
fn several_at_once() {
    needs_images!();
    let place = Place::new();
    let load = |form: &str| {
        let mut command = place.command();
        command.args(["load", "-q"]).stdin(File::open(tiny(form)).unwrap());
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> =
        (0..6).map(|number| load(["docker.tar", "oci.tar", "docker-gzip.tar"][number % 3])).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_sound(&place);
    assert!(blobs(&place).iter().all(|name| !name.starts_with('.')), "{:?}", blobs(&place));
    let sorted = names(&place);
    assert!(sorted.windows(2).all(|two| two[0] != two[1]), "{sorted:?}");
}

#[test]
fn a_disk_that_is_full() {
    needs_images!();
    if !is_root() {
        skip!("only root can mount a small filesystem");
    }
    let place = Place::new();
    let script = r#"
    cd "$3" && mkdir small && mount -t tmpfs -o size=1m small small; export LAYERFS_ROOT=$PWD/small/store
    "$1" load -i "$2" && exit 9
    find small/store/oci/blobs -type f
    "$1" save -o small/saved "docker-archive:$2" && exit 9
    ls small
    "#;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "bash", "-uc", script, "bash"]);
    unshare.arg(layerfs_path()).arg(tiny("docker.tar")).arg(place.path(""));
    let done = finish(&mut unshare);
    assert_eq!(done.ok(), "store", "{done:#?}");
    assert_eq!(done.err.matches("No space left on device").count(), 2, "{done:#?}");
}

#[test]
fn damaged_archives() {
    needs_images!();
    let place = Place::new();
    let whole = fs::read(tiny("docker-gzip.tar")).unwrap();
    let path = place.path("damaged.tar");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        let by_file = place.layerfs(&["load", "-i", path.to_str().unwrap()]);
        let script = r#"LAYERFS_ROOT="$1" "$2" load <"$3""#;
        let by_pipe = shell(script, &[&place.store(), Path::new(&layerfs_path()), &path]);
        for done in [by_file, by_pipe] {
            assert!(done.code == 125 && done.err.starts_with("Error: "), "{what}: {done:#?}");
            assert!(blobs(&place).is_empty() && names(&place).is_empty(), "{what}: {:?}", blobs(&place));
        }
    };
    for part in 0..10 {
        refused(&whole[..(whole.len() - 2048) * part / 10], "cut off");
    }
    refused(b"no archive\n", "text");
    let done = place.layerfs(&["load", "-i", "/no/such/file"]);
    assert!(done.code == 125 && done.err.contains("/no/such/file: no such file"), "{done:#?}");
}

#[test]
fn a_root_filesystem_becomes_an_image() {
    needs_images!();
    let place = Place::new();
    let make = r#"mkdir "$1" && echo hello >"$1/file" && ln -s file "$1/soft" && tar -C "$1" -cf "$2" . && gzip -k "$2" && xz -k "$2""#;
    let tar = place.path("root.tar");
    shell(make, &[&place.path("root"), &tar]).ok();
    let mut ids = Vec::new();
    for suffix in ["", ".gz", ".xz"] {
        let file = format!("{}{suffix}", tar.display());
        let changes = ["-c", "CMD [\"/bin/sh\"]", "-c", "ENV=A=b", "-c", "WORKDIR /w", "-m", "made by hand"];
        let done = place.layerfs(&[&["import", "-q"][..], &changes, &[&file, "imported:1"]].concat());
        ids.push(done.ok().to_owned());
        let config = skopeo("--config", &format!("oci:{}:imported:1", place.store().join("oci").display()));
        assert_eq!(config["config"]["Cmd"], serde_json::json!(["/bin/sh"]));
        assert_eq!(config["config"]["WorkingDir"], "/w");
        assert_eq!(config["history"][0]["comment"], "made by hand");
        assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!([format!("sha256:{}", sha256(&tar))]));
        assert_eq!(place.layerfs(&["cat", "imported:1", "/soft"]).ok(), "hello");
    }
    let script = r#"LAYERFS_ROOT="$1" "$2" import - <"$3""#;
    let layerfs = PathBuf::from(layerfs_path());
    let id = shell(script, &[&place.store(), &layerfs, &tar]).ok().to_owned();
    assert!(id.starts_with("sha256:") && names(&place).contains(&id), "{:?}", names(&place));
    assert_sound(&place);
    let before = (blobs(&place), names(&place));
    for (arguments, word) in [
        (&["http://localhost/x.tar"][..], "curl"),
        (&["/no/such/file"], "/no/such/file"),
        (&["-c", "RUN x", tar.to_str().unwrap()], "RUN"),
        (&[tar.to_str().unwrap(), "Bad Name"], "Bad Name"),
        (&[place.path("root/file").to_str().unwrap()], "no tar archive"),
    ] {
        let done = place.layerfs(&[&["import"], arguments].concat());
        assert!(done.code == 125 && done.err.contains(word), "{done:#?}");
        assert_eq!((blobs(&place), names(&place)), before);
    }
    let cut = place.path("cut.tar");
    fs::write(&cut, &fs::read(&tar).unwrap()[..1027]).unwrap();
    assert_eq!(place.layerfs(&["import", cut.to_str().unwrap()]).code, 125);
    assert_eq!((blobs(&place), names(&place)), before);
}
