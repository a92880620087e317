//! User namespaces by option: who is who, inside and on the host.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::*;

fn own_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn has_ranges() -> bool {
    !is_root() && has_id_ranges()
}

/// `layerfs run OPTIONS IMAGE sh -c SCRIPT` in the tiny image.
fn run_in(place: &Place, options: &[&str], script: &str) -> Done {
    let mut layerfs = place.command();
    layerfs.arg("run").args(options).arg(image("tiny").join("docker-gzip.tar")).args(["sh", "-c", script]);
    finish(&mut layerfs)
}

#[track_caller]
fn sh(options: &[&str], script: &str) -> Done {
    let place = Place::new();
    let done = run_in(&place, &[&["--rm", "-w", "/"], options].concat(), script);
    place.nothing_left();
    assert!(place.containers().is_empty(), "--rm left {:?}", place.containers());
    done
}

/// A directory of the caller's that is shown as /data.
fn data(place: &Place) -> String {
    let dir = place.path("data");
    fs::create_dir(&dir).unwrap();
    format!("{}:/data", dir.display())
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

#[test]
fn keep_id_is_the_caller() {
    needs_mount!();
    let place = Place::new();
    let (uid, gid) = own_ids();
    let volume = data(&place);
    let options = ["--name", "one", "--userns", "keep-id", "-w", "/", "-v", &volume];
    let done = run_in(&place, &options, "id -u; id -g; echo x >/data/new; stat -c %u:%g /data /data/new");
    assert_eq!(done.ok(), format!("{uid}\n{gid}\n{uid}:{gid}\n{uid}:{gid}"));
    assert_eq!(owner(&place.path("data/new")), (uid, gid));
    // Known to the container's own files once, however often it starts.
    for _ in 0..2 {
        place.layerfs(&["start", "-a", "one"]).ok();
    }
    let passwd = || {
        fs::read_to_string(
            place.store().join("containers").join(&place.containers()[0]).join("upper/etc/passwd"),
        )
    };
    if uid == 0 {
        assert!(passwd().is_err(), "root is in the image");
    } else {
        let passwd = passwd().unwrap();
        let lines: Vec<&str> =
            passwd.lines().filter(|line| line.contains(&format!(":{uid}:{gid}:"))).collect();
        assert!(lines.len() == 1 && lines[0].ends_with(":/:/bin/sh"), "{passwd}");
    }
    place.layerfs(&["rm", "one"]).ok();
    assert!(place.containers().is_empty());
    assert_eq!(sh(&["--userns", "keep-id"], "whoami; echo $HOME").out.lines().count(), 2);
}

#[test]
fn files_of_the_image_keep_their_owners() {
    needs_mount!();
    let script = "stat -c %u:%g / /etc /hard/merged /hard/one /hard/high-ids";
    let (uid, gid) = own_ids();
    if !is_root() && !has_id_ranges() {
        assert_eq!(sh(&["--userns", "keep-id"], script).ok(), vec![format!("{uid}:{gid}"); 5].join("\n"));
        return;
    }
    let high = if is_root() { "2147483648:2147483649" } else { "65534:65534" };
    let same = format!("0:0\n0:0\n3:4\n7:8\n{high}");
    assert_eq!(sh(&["--userns", "keep-id"], script).ok(), same);
    if is_root() {
        let some = ["--uidmap", "0:700000:5000"];
        // Whoever is not there is the last one.
        assert_eq!(sh(&some, script).ok(), "0:0\n0:0\n3:4\n7:8\n4999:4999");
    } else {
        assert_eq!(sh(&["--userns", "nomap"], script).ok(), same);
        assert_eq!(sh(&["--userns", "auto:size=100"], script).ok(), "0:0\n0:0\n3:4\n7:8\n99:99");
    }
}

#[test]
fn other_users_of_the_range() {
    needs_mount!();
    if !is_root() && !has_id_ranges() {
        let done = sh(&["--userns", "keep-id", "-u", "0"], "true");
        assert!(done.code == 125 && done.err.contains("does not exist in this container"), "{done:#?}");
        return;
    }
    let modes: &[&[&str]] = if is_root() {
        &[&["--userns", "keep-id"], &["--uidmap", "0:700000:5000"]]
    } else {
        &[
            &["--userns", "keep-id"],
            &["--userns", "nomap"],
            &["--userns", "auto"],
            &["--userns", "keep-id:uid=200000"],
        ]
    };
    for mode in modes {
        let script = "su app -c 'id -u'; touch /f; chown 7:8 /f; chmod 600 /f; stat -c %u:%g /f; su app -c 'cat /f' 2>&1; \
                      su app -c 'mkdir ~/x && touch ~/x/y && rm -r ~/x' && echo removed";
        let done = sh(&[mode, &["-u", "0"][..]].concat(), script);
        assert_eq!(done.ok(), "1000\n7:8\ncat: can't open '/f': Permission denied\nremoved", "{mode:?}");
        assert_eq!(sh(&[mode, &["-u", "33:34"][..]].concat(), "id -u; id -g").ok(), "33\n34", "{mode:?}");
    }
}

#[test]
fn setuid_within_the_range() {
    needs_mount!();
    if !is_root() && !has_id_ranges() {
        skip!("there is nobody else");
    }
    let archive = image("debian").join("docker-gzip.tar");
    if !archive.exists() {
        skip!("must run: no image {}: run scripts/images", archive.display());
    }
    let place = Place::new();
    // The image's working directory is one that only root may enter.
    let mut layerfs = place.command();
    finish(layerfs.args(["run", "--rm", "--userns", "keep-id"]).arg(&archive).arg("true")).ok();
    let mut layerfs = place.command();
    layerfs.args(["run", "--rm", "--userns", "keep-id", "-u", "0"]).arg(archive);
    let script = "cp /usr/bin/id /id; chmod 4755 /id; cp /usr/bin/id /is; chown 1001 /is; chmod 4755 /is
                  su -s /bin/sh www-data -c '/id -u; /is -u'";
    assert_eq!(finish(layerfs.args(["sh", "-c", script])).ok(), "0\n1001");
}

#[test]
fn without_the_caller() {
    needs_mount!();
    if !has_ranges() {
        let done = sh(&["--userns", "nomap"], "true");
        let why = if is_root() { "ordinary users" } else { "no range for" };
        assert!(done.code == 125 && done.err.contains(why), "{done:#?}");
        return;
    }
    let place = Place::new();
    let volume = data(&place);
    let options = ["--rm", "--userns", "nomap", "-v", &volume];
    let done = run_in(
        &place,
        &options,
        "stat -c %u /data; touch /data/x 2>/dev/null || echo refused; grep -c . /proc/self/uid_map",
    );
    assert_eq!(done.ok(), "65534\nrefused\n1");
    // What the container's root makes belongs to the first of the ranges.
    fs::set_permissions(place.path("data"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    run_in(&place, &options, "touch /data/root; touch /data/app; chown app /data/app").ok();
    let first = first_subuid();
    assert_eq!(owner(&place.path("data/root")).0, first);
    assert_eq!(owner(&place.path("data/app")).0, first + 1000);
    let script = "rm /data/root /data/app";
    run_in(&place, &options, script).ok();
}

fn first_subuid() -> u32 {
    let name = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let text = fs::read_to_string("/etc/subuid").unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{}:", name.trim()))).unwrap();
    line.split(':').nth(1).unwrap().parse().unwrap()
}

/// `script` with `$1` layerfs and `$2` an image; for root with ranges that `auto` may divide.
fn with_ranges_for_auto(place: &Place, script: &str) -> Done {
    let lines = place.path("subids");
    fs::write(&lines, "containers:700000:3000\n").unwrap();
    let mut command = Command::new(if is_root() { "unshare" } else { "env" });
    if is_root() {
        command.arg("-m");
    }
    let bind = "for file in subuid subgid; do mount --bind \"$3\" /etc/$file; done\n";
    let script = format!("{}{script}", if is_root() { bind } else { "" });
    command.env("LAYERFS_ROOT", place.store()).args(["bash", "-ec", &script, "bash"]).arg(layerfs_path());
    finish(command.arg(image("tiny").join("docker-gzip.tar")).arg(lines))
}

#[test]
fn two_of_auto_share_no_id() {
    needs_mount!();
    if !is_root() && !has_id_ranges() {
        let done = sh(&["--userns", "auto"], "true");
        assert!(done.code == 125 && done.err.contains("no range for"), "{done:#?}");
        return;
    }
    let place = Place::new();
    let done = with_ranges_for_auto(
        &place,
        "run() { \"$1\" run --userns auto \"${@:3}\" \"$2\" cat /proc/self/uid_map; }
         run \"$1\" \"$2\" --name one; run \"$1\" \"$2\" --name two; \"$1\" start -a one; \"$1\" rm one >/dev/null
         run \"$1\" \"$2\" --rm; \"$1\" run --rm --userns auto:size=70000 \"$2\" true 2>&1 || echo $?; \"$1\" rm two >/dev/null",
    );
    let maps: Vec<Vec<u32>> = done
        .out
        .lines()
        .take(4)
        .map(|line| line.split_whitespace().map(|number| number.parse().unwrap()).collect())
        .collect();
    assert!(maps.iter().all(|map| (map[0], map[2]) == (0, 1024)), "{done:#?}");
    assert_eq!(maps[0][1] + 1024, maps[1][1], "{done:#?}");
    // It keeps its ids, and gives them back.
    assert!(maps[2] == maps[0] && maps[3] == maps[0], "{done:#?}");
    assert!(done.out.contains("70000 user ids are needed") && done.out.trim().ends_with("125"), "{done:#?}");
    assert!(place.containers().is_empty());
}

/// It may have been given any of them.
#[test]
fn a_damaged_container_keeps_its_ids() {
    needs_mount!();
    if !own_has_more() {
        skip!("there are no ids to divide");
    }
    let place = Place::new();
    let done = with_ranges_for_auto(
        &place,
        "\"$1\" run --name one --userns auto \"$2\" true
         for file in \"$LAYERFS_ROOT\"/containers/*/config.json; do echo '{' >$file; done
         \"$1\" run --rm --userns auto \"$2\" true || echo $?",
    );
    assert!(done.ok().ends_with("125") && done.err.contains("config.json"), "{done:#?}");
}

#[test]
fn maps_that_were_typed() {
    needs_mount!();
    let map = "cat /proc/self/uid_map | tr -s ' '; cat /proc/self/gid_map | tr -s ' '";
    let wrong = |options: &[&str], why: &str| {
        let done = sh(options, "true");
        assert!(done.code == 125 && done.err.contains(why), "{options:?} {done:#?}");
    };
    if is_root() {
        let place = Place::new();
        let volume = data(&place);
        fs::set_permissions(place.path("data"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let options = ["--rm", "--uidmap", "0:700000:2000", "--gidmap", "0:800000:2000", "-v", &volume];
        let done = run_in(
            &place,
            &options,
            &format!("{map}; touch /data/root; mkdir -m 700 /etc/x; chown 5:6 /etc/x"),
        );
        assert_eq!(done.ok(), " 0 700000 2000\n 0 800000 2000");
        assert_eq!(owner(&place.path("data/root")), (700_000, 800_000));
    } else if has_id_ranges() {
        // One part for the kernel, where it is two outside.
        assert_eq!(sh(&["--uidmap", "0:0:10"], map).ok(), " 0 0 1\n 1 1 9\n 0 0 1\n 1 1 9");
        assert_eq!(sh(&["--uidmap", "0:5", "--uidmap", "1:0"], map).ok(), " 0 5 1\n 1 0 1\n 0 5 1\n 1 0 1");
        wrong(&["--uidmap", "0:1000000:10"], "/etc/subuid");
    } else {
        assert_eq!(sh(&["--uidmap", "0:0:1"], map).ok(), " 0 0 1\n 0 0 1");
        wrong(&["--uidmap", "0:0:2"], "not all of the ids 0 to 1");
    }
    wrong(&["--uidmap", "0:0:0"], "no range of ids");
    wrong(&["--uidmap", "0:0:1", "--uidmap", "0:1:1"], if own_has_more() { "twice" } else { "not all" });
    wrong(&["--uidmap", "+0:0:1"], "flags");
    wrong(&["--userns", "keep-id:size=7"], "uid=N and gid=N are known");
    wrong(&["--userns", "container:x"], "cannot be joined");
    assert_eq!(sh(&["--userns", "keep-id", "--uidmap", "0:0:1"], "true").code, 125);
    wrong(&["--subuidname", "surely-nobody"], "no range for surely-nobody");
}

fn own_has_more() -> bool {
    is_root() || has_id_ranges()
}

#[test]
fn ranges_that_cannot_be_had_are_an_error() {
    needs_mount!();
    if !has_ranges() {
        skip!("there are no ranges to lose");
    }
    let place = Place::new();
    let mut command = Command::new("setpriv");
    command.env("LAYERFS_ROOT", place.store()).arg("--no-new-privs").arg(layerfs_path());
    command
        .args(["run", "--rm", "--userns", "keep-id"])
        .arg(image("tiny").join("docker-gzip.tar"))
        .arg("true");
    let done = finish(&mut command);
    assert!(
        done.code == 125 && done.err.contains("idmap failed") && done.err.contains("no_new_privs"),
        "{done:#?}"
    );
}

#[test]
fn exec_is_the_same_user_and_rm_leaves_nothing() {
    needs_mount!();
    for mode in modes() {
        let place = Place::new();
        let done = run_in(
            &place,
            &[&["-d", "--name", "one"], *mode].concat(),
            "id -u >/tmp/id; umask 77; mkdir /tmp/d; touch /tmp/d/f; sleep 60",
        );
        done.ok();
        assert!(eventually(|| place.layerfs(&["exec", "one", "test", "-e", "/tmp/d/f"]).code == 0));
        let exec = |options: &[&str], script: &str| {
            place.layerfs(&[&["exec"], options, &["one", "sh", "-c", script]].concat())
        };
        assert_eq!(exec(&[], "id -u | cmp - /tmp/id && echo same").ok(), "same", "{mode:?}");
        let namespaces: BTreeSet<String> = exec(&[], "for p in 1 self; do readlink /proc/$p/ns/user; done")
            .ok()
            .lines()
            .map(str::to_owned)
            .collect();
        assert_eq!(namespaces.len(), 1, "{mode:?}");
        assert_eq!(exec(&[], "cat /proc/1/uid_map").ok(), exec(&[], "cat /proc/self/uid_map").ok());
        if own_has_more() {
            let script = "mkdir -m 700 /etc/d; touch /etc/d/f; chown -R 33:34 /etc/d; ln -s x /etc/l; chown -h 7 /etc/l";
            exec(&["-u", "0"], script).ok();
        }
        place.layerfs(&["rm", "-f", "one"]).ok();
        assert!(place.containers().is_empty(), "{mode:?}");
        place.nothing_left();
    }
}

/// What is in an upper does not depend on the ids of the container that wrote it.
#[test]
fn the_upper_is_as_without_ids_of_its_own() {
    needs_mount!();
    if !is_root() && !has_id_ranges() {
        skip!("there is nobody else");
    }
    let own = if is_root() { ["--uidmap", "0:700000:5000"] } else { ["--userns", "nomap"] };
    let owners = [&[][..], &own[..]].map(|mode| {
        let place = Place::new();
        run_in(
            &place,
            &[&["--name", "one"], mode].concat(),
            "touch /root /user; chown 33:34 /user; chmod 644 /etc/passwd",
        )
        .ok();
        let upper = place.store().join("containers").join(&place.containers()[0]).join("upper");
        let found = ["root", "user", "etc/passwd"].map(|name| owner(&upper.join(name)));
        place.layerfs(&["rm", "one"]).ok();
        found
    });
    assert_eq!(owners[0], owners[1]);
}

/// Modes in which the container's ids are not the supervisor's.
fn modes() -> &'static [&'static [&'static str]] {
    if is_root() {
        &[&["--userns", "keep-id"], &["--uidmap", "0:700000:5000"]]
    } else if has_id_ranges() {
        &[&["--userns", "keep-id"], &["--userns", "nomap"], &["--userns", "auto"]]
    } else {
        &[&["--userns", "keep-id"]]
    }
}

/// As root, where there is one.
fn root() -> &'static [&'static str] {
    if own_has_more() { &["-u", "0"] } else { &[] }
}

#[test]
fn volumes_are_filled_and_are_the_containers() {
    needs_mount!();
    for mode in modes() {
        let place = Place::new();
        let options = ["--rm", "-v", "filled:/hard", "-v", "new:/new", "--tmpfs", "/etc", "-w", "/"];
        let by_default = [&options, *mode].concat();
        run_in(&place, &by_default, "touch /new/y && rm /new/y").ok();
        let options = [&by_default[..], root()].concat();
        let script = "test -e /hard/one && test -e /etc/passwd && touch /new/x /hard/x /etc/x && id -u && stat -c %u /new/x";
        let done = run_in(&place, &options, script);
        let lines: Vec<&str> = done.ok().lines().collect();
        assert!(lines.len() == 2 && lines[0] == lines[1], "{mode:?} {done:#?}");
        assert_eq!(run_in(&place, &options, "rm /new/x /hard/x && ls /new").ok(), "", "{mode:?}");
        place.layerfs(&["volume", "rm", "filled", "new"]).ok();
        place.nothing_left();
    }
}

#[test]
fn files_are_copied_with_the_containers_ids() {
    needs_mount!();
    for mode in modes() {
        let place = Place::new();
        let run = [&["-d", "--name", "one", "-w", "/"], *mode, root()].concat();
        run_in(&place, &run, "touch /of-user; sleep 60").ok();
        assert!(eventually(|| place.layerfs(&["exec", "one", "test", "-e", "/of-user"]).code == 0));
        fs::write(place.path("file"), "text").unwrap();
        let (file, back) = (place.path("file"), place.path("back"));
        let (file, back) = (file.to_str().unwrap(), back.to_str().unwrap());
        place.layerfs(&["cp", file, "one:/running"]).ok();
        let owner = || place.layerfs(&["exec", "one", "stat", "-c", "%u:%g", "/running"]).ok().to_owned();
        let first = owner();
        if own_has_more() {
            assert_eq!(first, "0:0", "{mode:?}");
        }
        let differences = || {
            let done = place.layerfs(&["diff", "one"]);
            let found = |line: &&str| line.contains("hard");
            assert!(done.ok().contains("A /running") && done.out.lines().find(found).is_none(), "{done:#?}");
        };
        differences();
        let top = place.layerfs(&["top", "one", "pid,args"]);
        assert!(top.ok().contains("sleep 60"), "{top:#?}");
        place.layerfs(&["kill", "one"]).ok();
        assert!(eventually(|| place.layerfs(&["cp", file, "one:/stopped"]).code == 0));
        place.layerfs(&["cp", "one:/stopped", back]).ok();
        assert_eq!(fs::read_to_string(back).unwrap(), "text");
        differences();
        place.layerfs(&["start", "one"]).ok();
        assert_eq!(owner(), first, "{mode:?}");
        let stopped = place.layerfs(&["exec", "one", "stat", "-c", "%u:%g", "/stopped"]);
        assert_eq!(stopped.ok(), first, "{mode:?}");
        place.layerfs(&["rm", "-f", "one"]).ok();
        place.nothing_left();
    }
}

/// The map of a single id is not always one that denies setgroups(2).
#[test]
fn groups_of_the_caller_stay_outside() {
    needs_mount!();
    if !is_root() && !has_id_ranges() {
        skip!("the kernel denies setgroups(2)");
    }
    let place = Place::new();
    let map = if is_root() { "0:100000:1" } else { "0:1:1" };
    let run = [&["-d", "--name", "one", "-w", "/", "--uidmap", map], root()].concat();
    run_in(&place, &run, "sleep 60").ok();
    let groups = "grep -h ^Groups: /proc/1/status /proc/self/status";
    let said = place.layerfs(&["exec", "one", "sh", "-c", groups]);
    let lines: Vec<&str> = said.ok().lines().map(str::trim).collect();
    assert_eq!(lines, ["Groups:", "Groups:"]);
    place.layerfs(&["rm", "-f", "one"]).ok();
}

#[test]
fn what_only_root_of_the_host_may_set_is_set() {
    needs_mount!();
    let may = || finish(Command::new("prlimit").args(["--rtprio=50", "true"])).code == 0;
    if !is_root() || !may() {
        skip!("needs a root who may raise limits");
    }
    let place = Place::new();
    let rights = ["--ulimit", "rtprio=50", "--oom-score-adj", "-500"];
    let run =
        [&["-d", "--name", "one", "--uidmap", "0:700000:5000", "-w", "/"], &rights[..], root()].concat();
    run_in(&place, &run, "sleep 60").ok();
    let script = "for process in 1 self; do grep -h realtime.priority /proc/$process/limits; cat /proc/$process/oom_score_adj; done";
    let said = place.layerfs(&["exec", "one", "sh", "-c", script]);
    let words: Vec<String> =
        said.ok().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(words, ["Max realtime priority 50 50", "-500", "Max realtime priority 50 50", "-500"]);
    place.layerfs(&["rm", "-f", "one"]).ok();
}
