//! What `layerfs doctor` says of this host, and of one with one thing broken at a time; it and `run` must agree.

use std::path::Path;

use crate::support::*;

/// `doctor` and `run` in an environment that `around` makes: a script that ends with `"$@"`.
struct Seen {
    doctor: Done,
    run: Done,
}

impl Seen {
    fn through(around: &str) -> Self {
        let place = Place::new();
        let (program, store, tar) = (layerfs_path(), place.store(), image("tiny").join("docker-gzip.tar"));
        let doctor = format!("set -- \"$1\" doctor; export LAYERFS_ROOT={}; {around}", store.display());
        let run = format!(
            "set -- \"$1\" run --rm {} true; export LAYERFS_ROOT={}; {around}",
            tar.display(),
            store.display()
        );
        let seen =
            Self { doctor: shell(&doctor, &[Path::new(&program)]), run: shell(&run, &[Path::new(&program)]) };
        place.nothing_left();
        seen
    }

    /// How one thing is: the first word of its line, and all of it.
    #[track_caller]
    fn line(&self, name: &str) -> (&str, &str) {
        let found = self.doctor.out.lines().find(|line| line[9..].starts_with(&format!("{name} ")));
        let found = found.unwrap_or_else(|| panic!("no line {name:?}: {:#?}", self.doctor));
        (found.split(' ').next().unwrap(), found)
    }

    /// Both say that it works, or both that it does not.
    #[track_caller]
    fn agree(&self, works: bool) {
        let codes = (self.doctor.code, self.run.code);
        let wanted = if works { (0, 0) } else { (1, 125) };
        assert_eq!(codes, wanted, "doctor: {:#?}\nrun: {:#?}", self.doctor, self.run);
    }
}

#[test]
fn this_host() {
    needs_mount!();
    let seen = Seen::through("\"$@\"");
    seen.agree(true);
    for name in ["kernel", "user namespaces", "/dev/fuse", "proc", "store", "attributes"] {
        assert_eq!(seen.line(name).0, "ok", "{:#?}", seen.doctor);
    }
    let wanted = if is_root() || has_id_ranges() { "ok" } else { "warning" };
    assert_eq!(seen.line("run").0, wanted, "{:#?}", seen.doctor);
    assert_eq!(seen.line("ids").0, wanted, "{:#?}", seen.doctor);
    let json = Place::new().layerfs(&["doctor", "--json"]);
    let json: serde_json::Value = serde_json::from_str(json.ok()).unwrap();
    assert_eq!((&json["works"], &json["checks"][0]["name"]), (&true.into(), &"kernel".into()));
}

#[test]
fn without_a_device() {
    needs_mount!();
    if !is_root() {
        skip!("only root can hide a device");
    }
    let seen =
        Seen::through("exec unshare -m sh -c 'mount --bind /dev/null /dev/fuse; exec \"$@\"' sh \"$@\"");
    seen.agree(false);
    assert_eq!((seen.line("/dev/fuse").0, seen.line("run").0), ("missing", "missing"), "{:#?}", seen.doctor);
    let empty = "exec unshare -m sh -c 'mount -t tmpfs none /dev; exec \"$@\"' sh \"$@\"";
    let seen = Seen::through(empty);
    seen.agree(false);
    let (outcome, line) = seen.line("/dev/fuse");
    assert!(outcome == "missing" && line.contains("modprobe fuse"), "{line}");
}

#[test]
fn without_what_ranges_of_ids_need() {
    needs_mount!();
    if is_root() || !has_id_ranges() {
        skip!("only for users with ranges of ids");
    }
    let seen = Seen::through("exec setpriv --no-new-privs \"$@\"");
    seen.agree(true);
    assert_eq!(
        (seen.line("no_new_privs").0, seen.line("run").0),
        ("warning", "warning"),
        "{:#?}",
        seen.doctor
    );
    assert!(seen.run.err.contains("only one user id"), "{:#?}", seen.run);
    let seen = Seen::through("PATH=/nowhere; exec \"$@\"");
    seen.agree(true);
    let (outcome, line) = seen.line("newuidmap");
    assert!(outcome == "warning" && line.contains("not installed"), "{line}");
}

#[test]
fn without_user_namespaces() {
    needs_mount!();
    let seen = Seen::through(
        "exec unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set -all \"$@\"' sh \"$@\"",
    );
    seen.agree(false);
    let (outcome, line) = seen.line("user namespaces");
    assert!(outcome == "missing" && line.contains("sysctl -w user.max_user_namespaces="), "{line}");
}

/// A helper that never comes back neither keeps it, nor stays.
#[test]
fn with_a_helper_that_hangs() {
    needs_mount!();
    if is_root() || !has_id_ranges() {
        skip!("only for users with ranges of ids");
    }
    let place = Place::new();
    let script = r#"
        mkdir "$2"
        printf '#!/bin/sh\nexec sleep 1000\n' >"$2/newuidmap"
        chmod +x "$2/newuidmap"
        cp "$2/newuidmap" "$2/newgidmap"
        LAYERFS_ROOT=$3 PATH=$2:$PATH exec "$1" doctor"#;
    let done = shell(script, &[Path::new(&layerfs_path()), &place.path("bin"), &place.store()]);
    assert!(done.code == 1 && done.out.contains("it took more than"), "{done:#?}");
    place.nothing_left();
}

#[test]
fn without_a_store() {
    needs_mount!();
    let seen = Seen::through("export LAYERFS_ROOT=/proc/layerfs; \"$@\"");
    seen.agree(false);
    assert_eq!(seen.line("store").0, "missing", "{:#?}", seen.doctor);
}
