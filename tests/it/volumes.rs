//! What is mounted in containers: volumes of the store, tmpfs, devices.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::*;

/// A store whose containers end with the test.
struct Store {
    place: Place,
}

impl Store {
    fn new() -> Self {
        Self { place: Place::new() }
    }

    fn tiny() -> PathBuf {
        image("tiny").join("docker-gzip.tar")
    }

    /// `layerfs run --rm OPTIONS IMAGE sh -c SCRIPT`
    fn run(&self, options: &[&str], script: &str) -> Done {
        let mut layerfs = self.place.command();
        layerfs.args(["run", "--rm", "-q"]).args(options).arg(Self::tiny()).args(["sh", "-c", script]);
        finish(&mut layerfs)
    }

    fn layerfs(&self, words: &[&str]) -> Done {
        self.place.layerfs(words)
    }

    fn volumes(&self) -> Vec<String> {
        self.layerfs(&["volume", "ls", "-q"]).ok().lines().map(str::to_owned).collect()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for id in self.place.containers() {
            self.layerfs(&["rm", "-f", &id]);
        }
        // Files of other ids, which only layerfs can remove.
        let names = self.volumes();
        self.layerfs(
            &[&["volume", "rm", "-f"][..], &names.iter().map(String::as_str).collect::<Vec<_>>()].concat(),
        );
    }
}

#[test]
fn a_volume_outlives_its_containers() {
    needs_mount!();
    let store = Store::new();
    store.run(&["-v", "data:/var/data"], "echo kept >/var/data/file").ok();
    assert_eq!(store.run(&["-v", "data:/other"], "cat /other/file").ok(), "kept");
    let done = store.run(&["--mount", "type=volume,src=data,dst=/d,ro"], "cat /d/file; echo x >/d/new");
    assert!(done.out == "kept\n" && done.code != 0 && done.err.contains("Read-only"), "{done:#?}");
    assert_eq!(store.volumes(), ["data"]);
    let inspected = store.layerfs(&["volume", "inspect", "data"]);
    let document: serde_json::Value = serde_json::from_str(inspected.ok()).unwrap();
    assert_eq!(document[0]["Mountpoint"], store.place.store().join("volumes/data/_data").to_str().unwrap());
    // While a container has it, it stays.
    let mut create = store.place.command();
    create.args(["create", "--name", "one", "-v", "data:/d"]).arg(Store::tiny()).arg("true");
    finish(&mut create).ok();
    let done = store.layerfs(&["volume", "rm", "data"]);
    assert!(done.code == 125 && done.err.contains("used by one"), "{done:#?}");
    store.layerfs(&["rm", "one"]).ok();
    store.layerfs(&["volume", "rm", "data"]).ok();
    assert!(store.volumes().is_empty());
    let done = store.layerfs(&["volume", "inspect", "data"]);
    assert!(done.code == 125 && done.err.contains("no such volume: data"), "{done:#?}");
}

#[test]
fn an_empty_volume_gets_what_the_image_has() {
    needs_mount!();
    let store = Store::new();
    let listing = "cd $0 && find . | sort && find . -type f | sort | xargs cat | md5sum && stat -c '%a %u:%g' . $(find . -type f | sort) && stat -c %Y passwd shadow";
    let of_image = store.run(&["-h", "box"], &listing.replace("$0", "/etc"));
    let filled = store.run(
        &["-h", "box", "-v", "etc:/etc"],
        &format!("{}; echo more >/etc/more", listing.replace("$0", "/etc")),
    );
    // /etc/hosts and its like are the container's own, and lie over both.
    assert_eq!(filled.ok(), of_image.ok());
    let again = store.run(&["-v", "etc:/x"], "cat /x/more; ls /x | wc -l");
    assert!(again.ok().starts_with("more\n"), "{again:#?}");
    // One with something in it stays as it is, and so does one that is not to be filled.
    store.run(&["-v", "own:/empty"], "touch /empty/mine").ok();
    assert_eq!(store.run(&["-v", "own:/etc"], "cat /etc/mine && ls /etc/passwd").code, 1);
    assert_eq!(
        store.run(&["-v", "bare:/etc:nocopy"], "ls -A /etc | grep -vE '^(hosts|hostname|resolv.conf)$'").code,
        1
    );
    // Read-only for the container, but not for who fills it.
    store.run(&["-v", "fixed:/etc:ro"], "test -e /etc/passwd && ! touch /etc/new").ok();
}

#[test]
fn a_volume_that_was_half_filled_is_filled() {
    needs_mount!();
    let store = Store::new();
    store.layerfs(&["volume", "create", "half"]).ok();
    let data = store.place.store().join("volumes/half/_data");
    fs::write(data.join(".layerfs-filling"), "part of a file").unwrap();
    shell("setfattr -n user.layerfs.filling \"$1\"", &[&data]).ok();
    store.run(&["-v", "half:/etc"], "test -e /etc/passwd && test ! -e /etc/.layerfs-filling").ok();
    assert_eq!(shell("getfattr -n user.layerfs.filling \"$1\"", &[&data]).code, 1);
}

#[test]
fn volumes_without_a_name_go_with_their_container() {
    needs_mount!();
    let store = Store::new();
    store.run(&["-v", "/scratch"], "echo x >/scratch/file").ok();
    assert!(store.volumes().is_empty());
    let mut create = store.place.command();
    create
        .args(["create", "--name", "one", "-v", "/scratch"])
        .arg(Store::tiny())
        .args(["touch", "/scratch/file"]);
    finish(&mut create).ok();
    store.layerfs(&["start", "-a", "one"]).ok();
    assert_eq!(store.volumes().len(), 1);
    store.layerfs(&["rm", "one"]).ok();
    assert_eq!(store.volumes().len(), 1, "without -v it stays, as docker has it");
    store.layerfs(&["volume", "create", "named"]).ok();
    store.layerfs(&["volume", "prune", "-f"]).ok();
    assert_eq!(store.volumes(), ["named"]);
    let done = store.layerfs(&["volume", "prune", "--all"]);
    assert!(done.code == 125 && done.err.contains("--force"), "{done:#?}");
}

#[test]
fn tmpfs_devices_and_flags() {
    needs_mount!();
    let store = Store::new();
    let options = |path: &str| format!("grep ' {path} ' /proc/mounts | cut -d' ' -f3,4");
    let done = store.run(
        &["--tmpfs", "/t:size=64k,mode=700,exec", "--tmpfs", "/u"],
        &format!("{}; {}", options("/t"), options("/u")),
    );
    let lines: Vec<&str> = done.ok().lines().collect();
    assert!(
        lines[0].starts_with("tmpfs rw,nosuid,nodev,") && lines[0].contains("size=64k,mode=700"),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("tmpfs rw,nosuid,nodev,noexec,"), "{lines:?}");
    assert_eq!(store.run(&["--tmpfs", "/etc:ro"], "test -e /etc/passwd && ! touch /etc/x").code, 0);
    let done = store.run(&["--shm-size", "1m"], "df -k /dev/shm | tail -n 1");
    assert!(done.ok().contains(" 1024 "), "{done:#?}");
    let host = store.place.path("host");
    fs::create_dir(&host).unwrap();
    let bind = |options: &str| format!("{}:/h{options}", host.display());
    let done = store.run(&["-v", &bind(":noexec,ro")], &options("/h"));
    assert!(done.ok().contains("ro,nosuid,nodev,noexec"), "{done:#?}");
    assert_eq!(
        store.run(&["--device", "/dev/null:/dev/nothing"], "echo x >/dev/nothing; test -c /dev/nothing").code,
        0
    );
    for (option, value, told) in [
        ("--device", "/etc/passwd", "/etc/passwd"),
        ("--device", "/dev/null:r", "reading and writing"),
        ("-v", "/surely/not/there:/x", "/surely/not/there"),
        ("-v", "a:/proc/x", "/proc"),
        ("--mount", "type=glob,src=x,dst=/y", "type=glob"),
        ("--tmpfs", "/x:odd", "odd"),
        ("--shm-size", "much", "--shm-size much"),
    ] {
        let done = store.run(&[option, value], "true");
        assert!(done.code == 125 && done.err.contains(told), "{option} {value}: {done:#?}");
    }
    let twice = store.run(&["-v", "a:/x", "--tmpfs", "/x"], "true");
    assert!(twice.code == 125 && twice.err.contains("two things"), "{twice:#?}");
}

/// The image may have a symlink where a volume is filled from: that is followed inside.
#[test]
fn nothing_of_the_host_gets_into_a_volume() {
    needs_mount!();
    let store = Store::new();
    let root = store.place.path("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy(image("tiny").join("rootfs/bin/busybox"), root.join("bin/busybox")).unwrap();
    let secret = store.place.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("file"), "secret").unwrap();
    std::os::unix::fs::symlink(&secret, root.join("out")).unwrap();
    let mut layerfs = store.place.command();
    layerfs.args(["run", "--rm", "-q", "-v", "v:/out"]).arg(Path::new("dir:").join(&root)).args([
        "/bin/busybox",
        "ls",
        "-A",
        "/out",
    ]);
    let done = finish(&mut layerfs);
    assert!(done.code != 127 && !done.out.contains("file"), "{done:#?}");
}
