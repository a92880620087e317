//! What a server needs does not grow with what it serves, and what is slow holds up nobody else.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::*;

/// `LAYERFS_TEST_FILES`, for a long run, which also needs `LAYERFS_TEST_COMMAND_SECONDS`.
fn files(usual: usize) -> usize {
    std::env::var("LAYERFS_TEST_FILES").map_or(usual, |count| count.parse().unwrap())
}

/// An image with `count` files, `each` of them in a directory.
fn image_of_many(place: &Place, count: usize, each: usize) -> PathBuf {
    let image = place.path(&format!("image-{count}-{each}.tar"));
    let mut command = Command::new("python3");
    command.arg(support_file("archive.py")).args(["--files", &count.to_string(), &each.to_string()]);
    finish(command.arg(&image)).ok();
    image
}

/// Resident memory of a process in MiB.
fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn memory_comes_back() {
    needs_mount!();
    if !is_root() {
        skip!("only root can make the kernel forget");
    }
    let place = Place::new();
    let image = image_of_many(&place, files(100_000), 250);
    memory_comes_back_of(&place, image, 50);
}

#[test]
fn memory_comes_back_of_a_plain_directory() {
    needs_mount!();
    if !is_root() {
        skip!("only root can make the kernel forget");
    }
    let place = Place::new();
    let script = r#"
import os, sys
for n in range(int(sys.argv[2])):
    dir = "%s/many/%05d" % (sys.argv[1], n // 250)
    if n % 250 == 0: os.makedirs(dir)
    with open("%s/file-%07d" % (dir, n), "x") as file: file.write("x")
"#;
    let directory = place.path("directory");
    let mut python = Command::new("python3");
    finish(python.args(["-c", script]).arg(&directory).arg(files(100_000).to_string())).ok();
    // There is no index of which pages are in memory.
    memory_comes_back_of(&place, directory, 20);
}

fn memory_comes_back_of(place: &Place, image: PathBuf, mib_max: u64) {
    let mounted = place.mount(&[], image);
    let server = place.server();
    println!("{} MiB after indexing", resident_mib(server));
    assert!(resident_mib(server) < 30, "{} MiB after indexing", resident_mib(server));
    let found = shell("find \"$1\" -type f -size +0 | wc -l", &[&mounted.path("many")]);
    assert_eq!(found.ok(), files(100_000).to_string());
    println!("{} MiB after the walk", resident_mib(server));
    // Others may walk here meanwhile; a second time settles it.
    let returned = eventually(|| {
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        resident_mib(server) < mib_max
    });
    println!("{} MiB after forgetting", resident_mib(server));
    assert!(returned, "{} MiB", resident_mib(server));
    mounted.unmount();
}

/// A program of `open_files.py`.
struct Holder {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Holder {
    fn new(dir: &Path, count: usize) -> Holder {
        fs::create_dir(dir).unwrap();
        let mut command = Command::new("python3");
        command.arg(support_file("open_files.py")).arg(dir).arg(count.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Holder { child, lines }
    }

    fn has(&mut self, expected: &str) {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), expected);
    }

    fn goes_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

/// Far below the smallest limit in use, 1024.
const DESCRIPTORS_MAX: usize = 900;

#[test]
fn descriptors_stay_few() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&[], image("tiny").join("oci"));
    let server = place.server();
    let descriptors = || fs::read_dir(format!("/proc/{server}/fd")).map_or(0, Iterator::count);
    let each = files(10_000) / 4;
    let mut holders: Vec<Holder> =
        (0..4).map(|number| Holder::new(&mounted.path(&format!("tmp/{number}")), each)).collect();
    for state in ["open", "removed", "checked"] {
        for holder in &mut holders {
            holder.has(state);
        }
        println!("{state}: {} descriptors", descriptors());
        assert!(descriptors() < DESCRIPTORS_MAX, "{state}: {} descriptors", descriptors());
        for holder in &mut holders {
            holder.goes_on();
        }
    }
    for mut holder in holders {
        assert_eq!(exit_code(holder.child.wait().unwrap()), 0);
    }
    let scratch = place.store().join("containers").join(&mounted.id).join("work/tmp");
    let empty = || fs::read_dir(&scratch).unwrap().count() == 0;
    assert!(eventually(empty), "{} left in work/tmp", fs::read_dir(&scratch).unwrap().count());
    mounted.unmount();
}

/// An ext4 filesystem in a file, which can be made to hold up everybody who changes it.
struct Disk(PathBuf);

impl Disk {
    /// `None` where there are no loop devices.
    fn new(place: &Place) -> Option<Disk> {
        let script = r#"
            cd "$1" && mkdir disk && truncate -s 256M disk.img && mkfs.ext4 -q disk.img && mount -o loop disk.img disk
        "#;
        let done = shell(script, &[&place.path("")]);
        println!("{}{}", done.out, done.err);
        (done.code == 0).then(|| Disk(place.path("disk")))
    }

    fn freeze(&self) {
        shell("fsfreeze -f \"$1\"", &[&self.0]).ok();
    }

    fn thaw(&self) {
        shell("fsfreeze -u \"$1\"", &[&self.0]).ok();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        shell("fsfreeze -u \"$1\" || true; umount -l \"$1\"", &[&self.0]);
    }
}

#[test]
fn a_dozen_who_wait_hold_up_nobody() {
    needs_mount!();
    if !is_root() {
        skip!("only root can freeze a filesystem");
    }
    let place = Place::new();
    let image = image_of_many(&place, 1000, 500);
    let Some(disk) = Disk::new(&place) else { skip!("no loop devices") };
    let mounted = place.mount(&["--upper", disk.0.join("own").to_str().unwrap()], image);
    disk.freeze();
    let mut writers: Vec<Child> = (0..12)
        .map(|number| {
            let script = format!("echo more >>\"$1\"/many/00000/file-{number:07}");
            Command::new("bash").args(["-ec", &script, "bash"]).arg(place.mnt()).spawn().unwrap()
        })
        .collect();
    sleep(Duration::from_secs(1));
    assert!(writers.iter_mut().all(|writer| writer.try_wait().unwrap().is_none()), "nothing is held up");
    let start = Instant::now();
    let others = shell("timeout 30 cat \"$1\"/many/00001/file-* | wc -l", &[&place.mnt()]);
    println!("500 others: {:?}", start.elapsed());
    disk.thaw();
    assert_eq!(others.ok(), "500");
    for mut writer in writers {
        assert_eq!(exit_code(writer.wait().unwrap()), 0);
    }
    let changed = shell("cat \"$1\"/many/00000/file-* | grep -c more", &[&place.mnt()]);
    assert_eq!(changed.ok(), "12");
    mounted.unmount();
}

/// Processor time that a process has used, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    // sysconf(_SC_CLK_TCK), the same everywhere
    ticks / 100.0
}

#[test]
fn a_large_directory_costs_no_more() {
    needs_mount!();
    let place = Place::new();
    let mounted = place.mount(&[], image_of_many(&place, 100_000, 100_000));
    let small = place.path("small");
    fs::create_dir(&small).unwrap();
    let small_mount = {
        let image = image_of_many(&place, 500, 500);
        let done = finish(place.command().args(["mount", "--rm"]).arg(image).arg(&small));
        assert_eq!(done.code, 0, "{done:#?}");
        Unmount(small.clone())
    };
    let servers = place.processes();
    assert_eq!(servers.len(), 2);
    // Names of the layer and new ones: found, missing, created, moved, removed.
    let script = r#"
        import os, sys
        os.chdir(sys.argv[1] + "/many/00000")
        for n in range(400):
            os.stat("file-%07d" % n)
            assert not os.path.exists("missing-%d" % n)
            open("new-%d" % n, "x").close()
            os.rename("new-%d" % n, "newer-%d" % n)
            if n % 2: os.unlink("newer-%d" % n)
            os.chmod("file-%07d" % n, 0o600)
            if n % 3 == 0: os.unlink("file-%07d" % n)
            if n % 5 == 0: os.mkdir("dir-%d" % n)
    "#;
    let script = script.replace("\n        ", "\n");
    let cost = |dir: &Path| {
        let before: f64 = servers.iter().map(|pid| cpu_seconds(*pid)).sum();
        let mut python = Command::new("python3");
        finish(python.args(["-c", &script]).arg(dir)).ok();
        servers.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>() - before
    };
    let (of_small, of_large) = (cost(&small), cost(&place.mnt()));
    println!("500 names: {of_small:.2} s, 100000 names: {of_large:.2} s");
    assert!(of_large < of_small * 2.0 + 0.5, "500 names: {of_small} s, 100000 names: {of_large} s");
    drop(small_mount);
    mounted.unmount();
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        shell("fusermount3 -u \"$1\" || umount -l \"$1\"", &[&self.0]);
    }
}
