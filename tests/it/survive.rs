//! The server is killed under programs that know what they were promised. After remounting all of it is there.
//!
//! `LAYERFS_TEST_KILLS` is how often in all (20 unless set, shared out between the tests); 200 take some minutes.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::support::*;

/// How many of all kills are a test's, in twentieths.
fn kills(twentieths: u32) -> u32 {
    let all = std::env::var("LAYERFS_TEST_KILLS").map_or(20, |count| count.parse().unwrap());
    (all * twentieths).div_ceil(20)
}

/// Numbers that differ from run to run; a failing run prints what it was given.
fn seed() -> u64 {
    let seed = std::env::var("LAYERFS_TEST_SEED").map_or_else(
        |_| u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos()),
        |seed| seed.parse().unwrap(),
    );
    println!("LAYERFS_TEST_SEED={seed}");
    seed
}

/// A mount whose server is killed again and again.
struct Victim<'a> {
    place: &'a Place,
    image: PathBuf,
    /// `None` between the end of one server and the start of the next.
    mounted: Option<Mounted<'a>>,
    seed: u64,
}

impl<'a> Victim<'a> {
    fn new(place: &'a Place, image: &Path) -> Victim<'a> {
        let mounted = Some(place.mount(&[], image));
        Victim { place, image: image.to_owned(), mounted, seed: seed() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.place.mnt().join(path)
    }

    /// A number below `end` (splitmix64).
    fn random(&mut self, end: u64) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Waits for the programs' first words in `logs`, lets them run for a while, kills the server under them, waits for them, and mounts again.
    fn kill_under(&mut self, programs: &mut [Command], logs: &[PathBuf], millis: (u64, u64)) {
        let server = self.place.server();
        let mut running: Vec<Child> = programs.iter_mut().map(|program| program.spawn().unwrap()).collect();
        let at_work = || logs.iter().all(|log| fs::metadata(log).is_ok_and(|log| log.len() > 0));
        assert!(eventually(at_work), "{:?} does nothing", programs[0]);
        sleep(Duration::from_millis(millis.0 + self.random(millis.1 - millis.0)));
        let killed = Command::new("kill").args(["-KILL", &server.to_string()]).status().unwrap();
        assert!(killed.success(), "the server was gone already");
        for program in &mut running {
            let mut status = None;
            let ended = eventually(|| {
                status = program.try_wait().unwrap();
                status.is_some()
            });
            assert!(ended, "a program hangs on a mount without a server");
            let code = exit_code(status.unwrap());
            // A program that touches memory of a file that is gone dies of SIGBUS.
            assert!(matches!(code, 0 | 135), "{:?}: {code}", programs[0]);
        }
        let dead = self.mounted.take().unwrap();
        let id = dead.id.clone();
        drop(dead);
        self.place.nothing_left();
        self.mounted = Some(self.place.mount(&["--container", &id], &self.image));
    }

    /// Throws the changes away: everything comes from the layers again.
    fn begin_again(&mut self) {
        self.mounted.take().unwrap().unmount();
        self.mounted = Some(self.place.mount(&[], &self.image));
    }
}

fn python<S: AsRef<OsStr>>(file: &str, arguments: &[S]) -> Command {
    let mut command = Command::new("python3");
    command.arg(support_file(file)).args(arguments).stdin(Stdio::null());
    command
}

/// The tree `from` as an image.
fn archive(place: &Place, from: &str) -> PathBuf {
    let image = place.path("image.tar");
    finish(&mut python("archive.py", &[place.path(from), image.clone()])).ok();
    image
}

/// Kept for this many kills, an upper has copied-up and new objects and what is built on them.
const KILLS_OF_ONE_UPPER: u32 = 5;

#[test]
fn sqlite() {
    needs_mount!();
    let place = Place::new();
    let lower = place.path("tree/db");
    fs::create_dir_all(&lower).unwrap();
    for name in ["wal", "delete"] {
        finish(&mut python(
            "sqlite_writer.py",
            &["make".as_ref(), lower.join(name).as_os_str(), "20".as_ref()],
        ))
        .ok();
    }
    let mut victim = Victim::new(&place, &archive(&place, "tree"));
    for kill in 0..kills(7) {
        // One that began in a layer, and one that is new.
        let databases = ["db/wal", "db/delete", "db/new-wal", "db/new-delete"];
        let parts = |database: &str| {
            let log = place.path(&format!("log-{}", database.replace('/', "-")));
            (place.mnt().join(database), log)
        };
        let writer = |database: &&str| {
            let (path, log) = parts(database);
            let mode = if database.ends_with("wal") { "wal" } else { "delete" };
            python("sqlite_writer.py", &["write".as_ref(), path.as_os_str(), log.as_os_str(), mode.as_ref()])
        };
        let mut writers: Vec<Command> = databases.iter().map(writer).collect();
        let logs = databases.map(|database| parts(database).1);
        victim.kill_under(&mut writers, &logs, (0, 600));
        for database in databases {
            let (path, log) = parts(database);
            let words = ["check".as_ref(), path.as_os_str(), log.as_os_str()];
            let done = finish(&mut python("sqlite_writer.py", &words));
            println!("kill {kill}: {database}: {} transactions", done.ok());
        }
        if (kill + 1) % KILLS_OF_ONE_UPPER == 0 {
            victim.begin_again();
        }
    }
}

#[test]
fn random_writer() {
    needs_mount!();
    let place = Place::new();
    let writers = ["one", "two", "three"];
    for name in writers {
        let tree = place.path("tree").join(name);
        finish(&mut python("random_writer.py", &["make".as_ref(), tree.as_os_str(), name.as_ref()])).ok();
    }
    let mut victim = Victim::new(&place, &archive(&place, "tree"));
    let file = |kind: &str, name: &str| place.path(&format!("{kind}-{name}")).into_os_string();
    for kill in 0..kills(9) {
        if kill % KILLS_OF_ONE_UPPER == 0 {
            for name in writers {
                let path = victim.at(name).into_os_string();
                finish(&mut python("random_writer.py", &["remember".into(), path, file("state", name)])).ok();
            }
        }
        let mut commands = Vec::new();
        for name in writers {
            let seed = victim.random(1 << 32).to_string();
            let path = victim.at(name).into_os_string();
            let words = ["write".into(), path, file("state", name), file("log", name), seed.into()];
            commands.push(python("random_writer.py", &words));
        }
        let logs = writers.map(|name| place.path(&format!("log-{name}")));
        victim.kill_under(&mut commands, &logs, (0, 600));
        for name in writers {
            let path = victim.at(name).into_os_string();
            let words = ["check".into(), path, file("state", name), file("log", name)];
            let done = finish(&mut python("random_writer.py", &words));
            println!("kill {kill}: {name}: {} operations", done.ok());
        }
        if (kill + 1) % KILLS_OF_ONE_UPPER == 0 {
            victim.begin_again();
        }
    }
}

/// Makes two versions of three packages in `$1`: files of many sizes, a conffile, maintainer scripts.
const PACKAGES: &str = r#"
    cd "$1"
    for package in one two three; do
        for version in 1 2; do
            root=$package-$version
            mkdir -p "$root/DEBIAN" "$root/usr/share/test-$package" "$root/etc"
            for file in $(seq 40); do
                head -c $((file * file * 40)) /dev/urandom >"$root/usr/share/test-$package/$file"
            done
            ln "$root/usr/share/test-$package/40" "$root/usr/share/test-$package/hard"
            ln -s 40 "$root/usr/share/test-$package/soft"
            echo "$version" >"$root/etc/test-$package"
            echo "/etc/test-$package" >"$root/DEBIAN/conffiles"
            printf '%s\n' "Package: test-$package" "Version: $version" "Architecture: all" \
                "Maintainer: nobody <nobody@localhost>" "Description: a test" >"$root/DEBIAN/control"
            printf '#!/bin/sh\nset -e\necho "$1 %s" >>/var/lib/test-%s\n' "$version" "$package" \
                | tee "$root/DEBIAN/postinst" >"$root/DEBIAN/prerm"
            chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/prerm"
            dpkg-deb --build -Znone --root-owner-group "$root" "$root.deb" >/dev/null
        done
    done
"#;

/// Installs and removes them in `$1` until the filesystem is gone; `$2` is where to begin.
const INSTALLER: &str = r#"
    number=$2
    while stat -f "$1" >/dev/null 2>&1; do
        set -- "$1" one two three
        shift $((number % 3 + 1)); package=$1; set -- "$mnt"
        case $((number / 3 % 4)) in
            0) chroot "$1" dpkg -i --force-confnew /debs/$package-1.deb ;;
            1) chroot "$1" dpkg -i --force-confnew /debs/$package-2.deb ;;
            2) chroot "$1" dpkg -r test-$package ;;
            3) chroot "$1" dpkg -P test-$package ;;
        esac >/dev/null 2>&1
        number=$((number + 1))
    done
    exit 0
"#;

/// Brings the packages in `$1` into order as an administrator would, and looks whether all is as dpkg says.
const REPAIR: &str = r#"
    export LC_ALL=C DEBIAN_FRONTEND=noninteractive
    cd "$1"
    # It fails for a package whose unpacking or removal was cut off: that is installed again, as dpkg says it must be.
    chroot . dpkg --configure -a --force-confnew || :
    chroot . dpkg-query -W -f '${Package} ${db:Status-Eflag} ${db:Status-Status}\n' 'test-*' | while read -r name flag status; do
        case $flag,$status in
            ok,installed | ok,config-files | ok,not-installed) ;;
            *) echo "again: $name $flag $status"; chroot . dpkg -i --force-confnew "/debs/${name#test-}-2.deb" >/dev/null ;;
        esac
    done
    audit=$(chroot . dpkg --audit)
    [ -z "$audit" ] || { echo "audit: $audit"; exit 1; }
    chroot . dpkg-query -W -f '${Package} ${db:Status-Status}\n' 'test-*' | while read -r name status; do
        [ "$status" != installed ] || chroot . dpkg --verify "$name"
    done >verify
    [ ! -s verify ] || { echo "verify:"; cat verify; exit 1; }
    rm verify
    chroot . dpkg-query -W -f '${Package} ${Version} ${Status}\n' | grep -v ^test- | cmp - "$2"
"#;

#[test]
fn dpkg() {
    needs_mount!();
    if !is_root() {
        skip!("only root can chroot into a mount");
    }
    if !images().contains(&"debian") {
        skip!("must run: no debian image: run scripts/images");
    }
    let place = Place::new();
    let debs = place.path("debs");
    fs::create_dir(&debs).unwrap();
    shell(PACKAGES, &[&debs]).ok();
    let mut victim = Victim::new(&place, &image("debian").join("docker.tar"));
    let before = place.path("before");
    let setup = r#"
        mkdir "$1/debs" && cp "$2"/*.deb "$1/debs"
        chroot "$1" dpkg-query -W -f '${Package} ${Version} ${Status}\n' | grep -v ^test- >"$3"
    "#;
    shell(setup, &[&place.mnt(), &debs, &before]).ok();
    for kill in 0..kills(4) {
        let mut installer = Command::new("bash");
        installer.args(["-c", INSTALLER, "bash"]).arg(place.mnt()).arg(victim.random(12).to_string());
        installer.env("mnt", place.mnt()).stdin(Stdio::null());
        victim.kill_under(&mut [installer], &[], (100, 1500));
        let done = shell(REPAIR, &[&place.mnt(), &before]);
        println!("kill {kill}: {}", done.out.trim());
        assert_eq!(done.code, 0, "{done:#?}");
    }
}
