//! Archives that are compressed as a whole: decompressed into the store once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::support::*;

/// What people pipe `docker save` into, and the form of the archive.
const FORMS: [(&str, &str); 7] = [
    ("gzip -c", "docker.tar"),
    ("pigz -i -c", "docker-gzip.tar"),
    ("zstd -c", "oci.tar"),
    ("pzstd -q -p 2 -c", "docker.tar"),
    ("xz -0 -T2 --block-size=1MiB -c", "docker.tar"),
    ("bzip2 -1 -c", "oci.tar"),
    // Members put together, and padded to a whole block.
    ("split -b 700K --filter='gzip -1' && head -c 512 /dev/zero", "docker.tar"),
];

fn compressed(place: &Place, how: &str, form: &Path) -> PathBuf {
    let path = place.path("image.tar.compressed");
    shell(&format!("cat \"$1\" | ( {how} ) >\"$2\""), &[form, &path]).ok();
    path
}

/// What lies in the store of compressed archives.
fn imports(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.store().join("imported")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn options() -> (&'static [&'static str], &'static [&'static str]) {
    if is_root() { (&["--owner", "image"], &[]) } else { (&[], &["--ignore", "uid,gid"]) }
}

#[test]
fn of_every_compressor() {
    needs_mount!();
    let (options, ignored) = options();
    for (how, form) in FORMS {
        let place = Place::new();
        let path = compressed(&place, how, &image("tiny").join(form));
        let mounted = place.mount(options, &path);
        assert_same_tree(how, ignored, &image("tiny").join("expected.tree"), &place.mnt());
        // The file is not needed while it is mounted, nor is what was made of it.
        fs::write(mounted.path("new"), "changed").unwrap();
        let id = mounted.id.clone();
        mounted.unmount();
        assert_eq!(imports(&place).len(), 1, "{how}");
        let done = place.layerfs(&["mount", "--container", &id, place.mnt().to_str().unwrap()]);
        done.ok();
        assert_eq!(fs::read_to_string(place.mnt().join("new")).unwrap(), "changed");
        place.layerfs(&["umount", place.mnt().to_str().unwrap()]).ok();
        place.nothing_left();
    }
}

#[test]
fn by_every_command() {
    needs_mount!();
    let place = Place::new();
    let plain = image("tiny").join("docker.tar");
    let path = compressed(&place, "gzip -c", &plain);
    let (path, plain) = (path.to_str().unwrap(), plain.to_str().unwrap());
    for command in [
        &["index", "--quiet"][..],
        &["ls", "-lR"],
        &["tree"],
        &["verify", "--quiet"],
        &["inspect", "--image"],
        &["run", "--rm", "--quiet"],
    ] {
        let done = |image: &str| {
            let mut arguments = [command, &[image]].concat();
            if command[0] == "run" {
                arguments.push("/no/such/program");
            }
            let done = place.layerfs(&arguments);
            (done.code, done.out.replace(image, "IMAGE"), done.err.replace(image, "IMAGE"))
        };
        let (compressed, plain) = (done(path), done(plain));
        match command[0] {
            // The second time the layers are known; where they are in the file cannot be said.
            "index" => assert_eq!(compressed.1.replace("built", "known"), plain.1),
            "inspect" => {
                let without_offsets = |text: &str| {
                    text.lines().filter(|line| !line.contains("\"Offset\"")).collect::<Vec<_>>().join("\n")
                };
                assert_eq!(without_offsets(&compressed.1), without_offsets(&plain.1));
            }
            _ => assert_eq!(compressed, plain),
        }
        assert_eq!(imports(&place).len(), 1);
    }
    let mut skopeo = Command::new("skopeo");
    let config = finish(skopeo.args(["inspect", "--config", "--raw"]).arg(format!("docker-archive:{plain}")));
    let own = place.layerfs(&["inspect", "--image", path]);
    let own: serde_json::Value = serde_json::from_str(own.ok()).unwrap();
    let theirs: serde_json::Value = serde_json::from_str(config.ok()).unwrap();
    assert_eq!(own[0]["ImageConfig"], theirs);
}

/// Whether the signal came before the import was whole.
fn is_interrupted(place: &Place, path: &Path, signal: &str) -> bool {
    let mut command = place.command();
    let mut child =
        command.arg("index").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let is_half = || {
        imports(place).iter().any(|name| {
            let size = fs::metadata(place.store().join("imported").join(name)).map_or(0, |file| file.len());
            name.starts_with(".tmp-") && size > 0
        })
    };
    while !is_half() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(1));
    }
    shell(&format!("kill -{signal} {} || true", child.id()), &[]).ok();
    !child.wait().unwrap().success() && !imports(place).iter().any(|name| !name.starts_with('.'))
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[test]
fn what_was_interrupted_is_made_again() {
    needs_mount!();
    let place = Place::new();
    let path = compressed(&place, "bzip2 -9 -c", &image("tiny").join("docker.tar"));
    // Not SIGINT: what a shell has put into the background ignores it, and so do its children.
    for signal in ["TERM", "KILL"] {
        // Often, for on a busy machine it is done before it can be interrupted.
        let is_interrupted = (0..100).any(|_| {
            for what in ["imported", "index"] {
                fs::remove_dir_all(place.store().join(what)).or_else(absent).unwrap();
            }
            is_interrupted(&place, &path, signal)
        });
        assert!(is_interrupted, "it always was too fast to be interrupted");
    }
    let done = place.layerfs(&["verify", "--quiet", path.to_str().unwrap()]);
    done.ok();
    let left = imports(&place);
    assert!(left.len() == 1 && !left[0].starts_with('.'), "{left:?}");
}

#[test]
fn prune_takes_what_nobody_uses() {
    needs_mount!();
    let place = Place::new();
    let tiny = image("tiny").join("docker.tar");
    let path = compressed(&place, "gzip -1 -c", &tiny);
    let mounted = place.mount(&["--rm"], &path);
    let prune = |days: &str| place.layerfs(&["prune", "--unused", days]).ok().to_owned();
    assert!(prune("30").starts_with("removed 0 indexes, 0 caches, 0 temporary files"));
    // In use: by the mount.
    prune("0");
    assert_eq!(imports(&place).len(), 1);
    assert_eq!(fs::read(mounted.path("usr/share/data")).unwrap().len(), 3 << 20);
    mounted.unmount();
    prune("0");
    assert_eq!(imports(&place), Vec::<String>::new());
    assert_eq!(fs::read_dir(place.store().join("index")).unwrap().count(), 0);
    place.layerfs(&["verify", "--quiet", path.to_str().unwrap()]).ok();
}

#[test]
fn several_at_once() {
    needs_mount!();
    let place = Place::new();
    let path = compressed(&place, "xz -0 -c", &image("tiny").join("docker.tar"));
    let script = r#"for n in 1 2 3 4; do "$0" ls -lR "$1" >"$2.$n" & done; wait; for n in 2 3 4; do cmp "$2.1" "$2.$n"; done"#;
    let mut command = Command::new("bash");
    command.args(["-ec", script]).arg(layerfs_path()).args([&path, &place.path("out")]);
    finish(command.env("LAYERFS_ROOT", place.store())).ok();
    assert!(fs::metadata(place.path("out.1")).unwrap().len() > 100);
    assert_eq!(imports(&place).len(), 1);
}

/// In a mount namespace of its own; the store is on a small filesystem, then on one that is read-only.
const SMALL: &str = r#"
layerfs=$1 image=$2 place=$3
mkdir "$place/small" && mount -t tmpfs -o size=1M tmpfs "$place/small"
export LAYERFS_ROOT=$place/small/store
"$layerfs" ls "$image" && exit 1
ls -A "$LAYERFS_ROOT/imported" >&2
mount -o remount,ro "$place/small"
"$layerfs" ls "$image" && exit 1
mount -o remount,rw,size=200M "$place/small"
"$layerfs" ls "$image" >/dev/null
mount -o remount,ro "$place/small"
"$layerfs" ls "$image"
umount "$place/small"
"#;

#[test]
fn no_room_for_it() {
    needs_mount!();
    if !is_root() {
        skip!("only root can mount a small filesystem");
    }
    let place = Place::new();
    let path = compressed(&place, "gzip -c", &image("tiny").join("docker.tar"));
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-ec", SMALL, "bash"]);
    let done = finish(command.arg(layerfs_path()).arg(&path).arg(place.path("")));
    assert_eq!(done.code, 0, "{done:#?}");
    let lines: Vec<&str> = done.err.lines().filter(|line| !line.contains("WARN")).collect();
    let [full, read_only] = lines[..] else { panic!("{done:#?}") };
    for (line, word) in [(full, "No space left on device"), (read_only, "Read-only file system")] {
        let parts =
            [path.to_str().unwrap(), "compressed with gzip", word, "gzip -dc", "small/store/imported"];
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
}
