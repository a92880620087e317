//! Setuid goes with what a stranger writes, and nothing is executed with a mode that somebody still remembers.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use crate::support::*;

/// In a mount for all users with these options.
fn goes_with(options: &str) {
    in_mount(options, setuid_goes);
}

fn in_mount(options: &str, act: impl FnOnce(&Place)) {
    let place = Place::new();
    for name in ["image", "upper", "work"] {
        fs::create_dir(place.path(name)).unwrap();
    }
    let (dir, mnt) = (place.path(""), place.mnt());
    let layers = format!("lowerdir={0}/image,upperdir={0}/upper,workdir={0}/work", dir.display());
    place.layerfs(&["-o", &format!("{layers},{options}"), mnt.to_str().unwrap()]).ok();
    act(&place);
    force_unmount(&mnt);
    place.nothing_left();
}

#[test]
fn nobody_keeps_setuid_by_writing() {
    needs_mount!();
    if !is_root() {
        skip!("only root can write as two users");
    }
    for options in ["suid", "suid,writeback", "suid,xattr_permissions=2"] {
        goes_with(options);
    }
    if may_pass_through() {
        goes_with("suid,passthrough");
        // Only written down: the filesystem below knows of nothing that would have to go.
        goes_with("suid,passthrough,xattr_permissions=2");
    }
}

/// The kernel tells of a last close when it has returned already. What is opened again before that is heard is still nobody's.
#[test]
fn root_keeps_setuid_of_what_was_just_closed() {
    needs_mount!();
    if !is_root() || !may_pass_through() {
        skip!("only root has files passed through");
    }
    in_mount("suid,passthrough", |place| {
        let round = |number: usize| {
            let path = place.mnt().join(number.to_string());
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o4777)).unwrap();
            File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
            assert_eq!(mode(&path), 0o4777, "{number}");
        };
        // So that the server has more to do than threads to do it.
        std::thread::scope(|scope| {
            for worker in 0..32 {
                scope.spawn(move || (0..50).for_each(|number| round(worker * 50 + number)));
            }
        });
    });
}

/// `script` by somebody who is not root, with the path of a file.
fn as_nobody(script: &str, path: &Path) -> Done {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", script, "sh"])
        .arg(path);
    finish(&mut command)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// With setuid set before a file is opened, and while it is open.
fn setuid_goes(place: &Place) {
    for path in [place.path(""), place.mnt()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let program = |name: &str, mode| {
        let path = place.mnt().join(name);
        fs::copy("/usr/bin/id", &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let before = program("before", 0o4777);
    File::options().append(true).open(&before).unwrap().write_all(b"x").unwrap();
    assert_eq!(mode(&before), 0o4777, "root may");
    as_nobody(r#"printf x >>"$1""#, &before).ok();
    assert_eq!(mode(&before), 0o777);
    let during = program("during", 0o777);
    let script = r#"
        exec 3>>"$1"
        touch "$1.open"
        until [ -e "$1.set" ]; do sleep 0.01; done
        printf x >&3
        exec 3>&-
        "$1" -u
    "#;
    let ran = std::thread::scope(|scope| {
        let writer = scope.spawn(|| as_nobody(script, &during));
        assert!(eventually(|| place.mnt().join("during.open").exists()));
        fs::set_permissions(&during, fs::Permissions::from_mode(0o4777)).unwrap();
        assert_eq!(mode(&during), 0o4777);
        fs::write(place.mnt().join("during.set"), "").unwrap();
        writer.join().unwrap()
    });
    assert_eq!(ran.ok().trim(), "65534");
    assert_eq!(mode(&during), 0o777);
}
