//! Files copied between containers and the host.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::*;

/// A container in each state, ended with its test.
struct Boxes {
    place: Place,
}

const IDLE: &str = "trap 'exit 33' TERM; while :; do sleep 0.1; done";

impl Boxes {
    /// `idle` was never started, `live` runs.
    fn new(options: &[&str]) -> Self {
        let boxes = Self { place: Place::new() };
        let image = image("tiny").join("docker-gzip.tar");
        let make = |words: &[&str]| {
            let mut layerfs = boxes.place.command();
            finish(layerfs.args(words).args(options).arg(&image).args(["sh", "-c", IDLE])).ok();
        };
        make(&["create", "--name", "idle"]);
        make(&["run", "-d", "--name", "live"]);
        boxes
    }

    fn cp(&self, options: &[&str], from: &str, to: &str) -> Done {
        self.place.layerfs(&[&["cp"], options, &[from, to]].concat())
    }

    fn sh(&self, script: &str) -> Done {
        self.place.layerfs(&["exec", "live", "sh", "-c", script])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A tree with everything that is copied.
    fn tree(&self) -> PathBuf {
        let tree = self.path("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("file"), "text").unwrap();
        fs::write(tree.join("sub/script"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(tree.join("sub/script"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::hard_link(tree.join("file"), tree.join("sub/again")).unwrap();
        symlink("file", tree.join("link")).unwrap();
        let fifo = tree.join("fifo");
        assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
        let old =
            Command::new("touch").args(["-d", "1960-01-02T03:04:05.25Z"]).arg(tree.join("file")).status();
        assert!(old.unwrap().success());
        fs::write(tree.join("sparse"), "").unwrap();
        fs::File::options().write(true).open(tree.join("sparse")).unwrap().set_len(3 << 20).unwrap();
        tree
    }
}

impl Drop for Boxes {
    fn drop(&mut self) {
        self.place.layerfs(&["rm", "-f", "live"]);
        self.place.layerfs(&["rm", "-f", "idle"]);
    }
}

/// Everything below a directory, as text.
fn shown(dir: &Path) -> String {
    let script = "cd \"$1\" && find . -mindepth 1 -printf '%p %y %m %s %T@ %l %n\\n' | sort";
    let found = Command::new("sh").args(["-c", script, "sh"]).arg(dir).output().unwrap();
    let text = String::from_utf8(found.stdout).unwrap();
    // What a filesystem says of the size of a directory is its own.
    let line = |line: &str| {
        let mut words: Vec<&str> = line.split(' ').collect();
        if words[1] == "d" {
            words.remove(3);
        }
        words.join(" ")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn there_and_back() {
    needs_mount!();
    let boxes = Boxes::new(&[]);
    let tree = boxes.tree();
    let text = tree.to_str().unwrap();
    for name in ["idle", "live"] {
        boxes.cp(&[], text, &format!("{name}:/srv-new")).ok();
        boxes.cp(&[], text, &format!("{name}:/tmp/")).ok();
        boxes.cp(&[], &format!("{text}/."), &format!("{name}:/tmp")).ok();
        for (at, from) in ["/srv-new", "tmp/tree/.", "/srv-new/"].iter().enumerate() {
            let back = boxes.text(&format!("back-{name}-{at}"));
            boxes.cp(&[], &format!("{name}:{from}"), &back).ok();
            assert_eq!(shown(Path::new(&back)), shown(&tree), "{name}:{from}");
        }
        let back = boxes.text(&format!("back-{name}-file"));
        boxes.cp(&["-L"], &format!("{name}:/tmp/link"), &back).ok();
        assert_eq!(fs::read(&back).unwrap(), b"text");
        assert!(fs::metadata(&back).unwrap().mtime() < 0);
        boxes.cp(&[], &format!("{name}:/tmp/link"), &boxes.text(&format!("{name}-link"))).ok();
        assert_eq!(fs::read_link(boxes.path(&format!("{name}-link"))).unwrap(), Path::new("file"));
    }
    // A running container sees it at once, as its root's own.
    assert_eq!(boxes.sh("cat /srv-new/file; stat -c %u:%g:%a /srv-new/sub/script").ok(), "text0:0:750");
    assert!(boxes.place.layerfs(&["ps", "-a"]).ok().contains("Created"));
}

#[test]
fn streams() {
    needs_mount!();
    let boxes = Boxes::new(&[]);
    let tree = boxes.tree();
    for name in ["idle", "live"] {
        let tar = format!("tar c --format=posix -C {} . | \"$0\" cp - {name}:/tmp", tree.display());
        let layerfs = boxes.place.command().get_program().to_owned();
        let mut shell = clone_environment(&boxes.place.command(), "sh");
        finish(shell.args(["-c", &tar]).arg(&layerfs)).ok();
        let untar = format!("mkdir {0} && \"$0\" cp {name}:/tmp/. - | tar x -C {0}", boxes.text("out"));
        let mut shell = clone_environment(&boxes.place.command(), "sh");
        finish(shell.args(["-c", &untar]).arg(&layerfs)).ok();
        assert_eq!(shown(&boxes.path("out")), shown(&tree), "{name}");
        fs::remove_dir_all(boxes.path("out")).unwrap();
        let mut nowhere = boxes.place.command();
        nowhere.args(["cp", "-", &format!("{name}:/nowhere")]).stdin(Stdio::null());
        let said = nowhere.output().unwrap();
        assert!(String::from_utf8_lossy(&said.stderr).contains("has to be there"), "{said:?}");
    }
}

/// Another program with the environment of this one.
fn clone_environment(of: &Command, program: &str) -> Command {
    let mut command = Command::new(program);
    for (key, value) in of.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.stdin(Stdio::null());
    command
}

#[test]
fn what_is_refused() {
    needs_mount!();
    let boxes = Boxes::new(&[]);
    let tree = boxes.tree();
    let text = tree.to_str().unwrap();
    let file = format!("{text}/file");
    let refused = |from: &str, to: &str, message: &str| {
        let done = boxes.cp(&[], from, to);
        assert_eq!(done.code, 125, "{from} {to}");
        assert!(done.err.contains(message), "{from} {to}: {}", done.err);
    };
    for name in ["idle", "live"] {
        let at = |path: &str| format!("{name}:{path}");
        refused(&file, &at("/nowhere/x"), "no such directory");
        refused(&file, &at("/new/"), "no such directory");
        refused(text, &at("/etc/passwd"), "cannot be copied to a file");
        refused(&at("/nowhere"), text, "/nowhere: No such file");
        refused(&at("/etc/passwd/"), text, "Not a directory");
        refused(&at("/etc"), &boxes.text("nowhere/x"), "no such directory");
        refused(&at("/etc"), &file, "cannot be copied to a file");
    }
    refused("live:/a", "idle:/b", "between containers");
    refused(text, &file, "CONTAINER:PATH");
    refused("live:/proc/self/status", text, "No such file");
    refused("live:/proc/1/status", text, "kernel's own");
}

#[test]
fn symlinks_of_the_container_stay_inside() {
    needs_mount!();
    let boxes = Boxes::new(&[]);
    let outside = boxes.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let outside = outside.to_str().unwrap();
    boxes
        .sh(&format!(
            "ln -s {outside} /tmp/absolute; ln -s ../../../../../../..{outside} /tmp/up; ln -s / /tmp/root"
        ))
        .ok();
    let file = boxes.text("file");
    fs::write(&file, "file").unwrap();
    for link in ["absolute", "up", "root/../..$OUT"] {
        let link = link.replace("$OUT", outside);
        assert_ne!(
            boxes.cp(&[], &format!("live:/tmp/{link}/secret"), &boxes.text("stolen")).code,
            0,
            "{link}"
        );
        assert_ne!(boxes.cp(&[], &file, &format!("live:/tmp/{link}/new")).code, 0, "{link}");
        assert_ne!(boxes.cp(&["-L"], &format!("live:/tmp/{link}"), &boxes.text("stolen")).code, 0, "{link}");
    }
    // A path of the same name in the container is what is meant.
    boxes.sh(&format!("mkdir -p {outside}; echo inside >{outside}/secret")).ok();
    boxes.cp(&["-L"], "live:/tmp/up/secret", &boxes.text("taken")).ok();
    assert_eq!(fs::read(boxes.path("taken")).unwrap(), b"inside\n");
    boxes.cp(&[], &file, "live:/tmp/absolute/new").ok();
    assert_eq!(boxes.sh(&format!("cat {outside}/new")).ok(), "file");
    let names: Vec<_> = fs::read_dir(outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["secret"]);
    // What comes out with a symlink is not written through.
    boxes
        .sh(&format!(
            "mkdir /tmp/d1 /tmp/d2; ln -s {outside} /tmp/d1/x; mkdir /tmp/d2/x; echo y >/tmp/d2/x/y"
        ))
        .ok();
    boxes.cp(&[], "live:/tmp/d1", &boxes.text("dest")).ok();
    let done = boxes.cp(&[], "live:/tmp/d2/.", &boxes.text("dest"));
    assert!(done.code == 125 && done.err.contains('x'), "{}", done.err);
    assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
}

#[test]
fn a_symlink_that_is_swapped_meanwhile_stays_inside() {
    needs_mount!();
    let boxes = Boxes::new(&[]);
    let outside = boxes.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "secret").unwrap();
    let text = outside.to_str().unwrap();
    boxes.sh(&format!("mkdir -p /tmp/dir {text}; echo inside | tee /tmp/dir/file >{text}/file")).ok();
    let swap = format!(
        "cd /tmp; ln -s {text} l; (while :; do mv dir d; mv l dir; mv dir l; mv d dir; done) >/dev/null 2>&1 &"
    );
    boxes.sh(&swap).ok();
    let file = boxes.text("sent");
    fs::write(&file, "sent").unwrap();
    for round in 0..30 {
        let taken = boxes.text(&format!("taken-{round}"));
        if boxes.cp(&[], "live:/tmp/dir/file", &taken).code == 0 {
            assert_ne!(fs::read(&taken).unwrap(), b"secret");
        }
        boxes.cp(&[], &file, "live:/tmp/dir/sent");
    }
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"secret");
    assert!(!outside.join("sent").exists());
}

#[test]
fn volumes_are_as_the_container_has_them() {
    needs_mount!();
    let volume = tempfile::tempdir().unwrap();
    fs::write(volume.path().join("there"), "volume").unwrap();
    let boxes = Boxes::new(&["-v", &format!("{}:/data", volume.path().display())]);
    let file = boxes.text("file");
    fs::write(&file, "file").unwrap();
    for name in ["idle", "live"] {
        let taken = boxes.text(name);
        boxes.cp(&[], &format!("{name}:/data/there"), &taken).ok();
        assert_eq!(fs::read(&taken).unwrap(), b"volume");
        boxes.cp(&[], &file, &format!("{name}:/data/from-{name}")).ok();
        assert_eq!(fs::read(volume.path().join(format!("from-{name}"))).unwrap(), b"file");
    }
}
