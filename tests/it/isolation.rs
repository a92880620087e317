//! What an image and its programs try in vain. Where other modules have the test, it is named:
//!
//! | attack | test |
//! |---|---|
//! | `/proc/PID/exe` of a program of ours (CVE-2019-5736) | `own_program_as_the_images`, `own_program_in_memory` |
//! | a look into what `exec` is about to become (CVE-2016-9962) | `exec_shows_nothing_of_the_host` |
//! | descriptors that leak (CVE-2024-21626) | `a_working_directory_that_leaks`, `run::no_descriptor_leaks`, `launcher::isolation` |
//! | symlinks where something is mounted (CVE-2021-30465, CVE-2023-27561) | `symlinks_where_mounts_go`, `launcher::isolation` |
//! | what masks are made of (CVE-2025-31133) | `masks_are_made_of_the_hosts_devices`, `races::a_shared_volume_that_changes` |
//! | `/dev/console`, `/dev/pts` of the image (CVE-2025-52565) | `a_console_of_the_image`, `races::consoles_of_an_image` |
//! | writes to `/proc` that go elsewhere (CVE-2019-19921, CVE-2025-52881) | `nothing_is_mounted_within_proc`, `races::a_shared_volume_that_changes` |
//! | a volume that is mounted over the root | `confined::nothing_is_mounted_on_the_root` |
//! | an empty volume that is filled (symlinks, fifos, locks) | `confined::what_waits_in_an_empty_volume`, `launcher::fill::tests` |
//! | `cp` (CVE-2018-15664, CVE-2019-14271) | `races::copies_while_paths_change`, `cp::hostile_paths` |
//! | namespaces, mounts, remounts, and the kernel | `system_calls_that_are_refused`, `nothing_can_be_mounted_anew` |
//! | user namespaces in the container | `confined::nested_user_namespaces` |
//! | typing into the caller's terminal (CVE-2017-5226) | `nobody_types_into_the_callers_terminal`, `confined::nothing_is_left_in_the_callers_terminal` |
//! | capabilities (CVE-2022-24769), seccomp, devices, masks, limits | `defaults::defaults_are_the_specifications`, `run::security_defaults` |
//! | cgroups (CVE-2022-0492) | `nothing_can_be_mounted_anew`, `confined::control_groups_cannot_be_written` |
//! | sockets of ours (CVE-2020-15257) | `no_socket_of_ours_has_a_name` |
//! | abstract sockets of the host | `confined::abstract_sockets_of_the_host` |
//! | signals to the supervisor | `processes_of_ours_are_not_there` |
//! | device nodes of the image | `devices_of_the_image_are_dead` |
//! | device nodes of the host | `confined::nodes_of_the_host_stay_as_they_are` |
//! | setuid programs of the host in a volume | `setuid_in_a_volume_is_powerless` |
//! | the caller's keys | `confined::keys_of_the_caller_are_out_of_reach` |
//! | system calls by the numbers of another architecture | `launcher::seccomp::tests`, `confined::programs_of_32_bits` |
//! | ids that the container does not have | `userns`, `confined::other_ids_cannot_be_taken` |

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;

/// Skips the test when the image with python was not made.
macro_rules! needs_debian {
    () => {
        needs_mount!();
        if !images().contains(&"debian") {
            skip!("must run: no debian image: run scripts/images");
        }
    };
}

mod confined;
mod defaults;
mod races;

fn debian() -> PathBuf {
    image("debian").join("docker.tar")
}

/// The volume with a file of `tests/support`.
fn volume(name: &str) -> String {
    format!("{}:/{name}:ro", support_file(name).display())
}

/// `run --rm OPTIONS IMAGE COMMAND...`
fn run(place: &Place, options: &[&str], image: &Path, command: &[&str]) -> Done {
    let mut layerfs = place.command();
    layerfs.args(["run", "--rm", "-q"]).args(options).arg(image).args(command);
    finish(&mut layerfs)
}

/// A program of `tests/support/intruder.py` in a container of its own.
fn intrude(options: &[&str], arguments: &[&str]) -> Done {
    let (place, volume) = (Place::new(), volume("intruder.py"));
    let command = [&["python3", "/intruder.py"], arguments].concat();
    let done = run(&place, &[&["-v", &volume], options].concat(), &debian(), &command);
    place.nothing_left();
    done
}

/// A plain directory as image, of busybox, and one beside it that no container may change.
struct Hostile {
    place: Place,
}

impl Hostile {
    fn new() -> Self {
        let place = Place::new();
        let script = r#"
            mkdir -p "$1/image/bin" "$1/victim" && cp /bin/busybox "$1/image/bin/busybox" && echo untouched >"$1/victim/file"
            for name in sh cat stat mount umount touch mkdir ls id readlink; do ln -s busybox "$1/image/bin/$name"; done
        "#;
        shell(script, &[&place.path("")]).ok();
        Self { place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path("image").join(name)
    }

    fn victim(&self) -> PathBuf {
        self.place.path("victim")
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Done {
        run(&self.place, options, &self.place.path("image"), command)
    }

    #[track_caller]
    fn victim_is_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(self.victim()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
        assert_eq!(fs::read_to_string(self.victim().join("file")).unwrap(), "untouched\n");
    }
}

/// A container in the background, on a copy of layerfs that belongs to the caller.
struct OwnCopy {
    place: Place,
}

impl OwnCopy {
    fn new() -> Self {
        let place = Place::new();
        copy(Path::new(&layerfs_path()), &place.path("layerfs"));
        fs::create_dir(place.path("shared")).unwrap();
        shell(r#"mkfifo "$1/shared/fifo""#, &[&place.path("")]).ok();
        Self { place }
    }

    fn layerfs(&self, arguments: &[&str]) -> Done {
        let mut command = Command::new(self.place.path("layerfs"));
        finish(command.env("LAYERFS_ROOT", self.place.store()).args(arguments))
    }

    fn start(&self, command: &[&str]) {
        let (volume, image) = (format!("{}:/shared", self.place.path("shared").display()), debian());
        let run = ["run", "-d", "--name", "one", "-q", "-v", &volume, image.to_str().unwrap()];
        self.layerfs(&[&run[..], command].concat()).ok();
    }
}

impl Drop for OwnCopy {
    fn drop(&mut self) {
        self.layerfs(&["rm", "-f", "one"]);
    }
}

/// As its first program, and as the interpreter of a script of the image: the program of ours runs, and the container's root,
/// who may be its owner, can open it.
#[test]
fn own_program_as_the_images() {
    needs_debian!();
    let own = OwnCopy::new();
    let program = own.place.path("layerfs");
    let before = sha256(&program);
    let script = own.place.path("shared/script");
    fs::write(&script, "#!/proc/self/exe build\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for command in [
        &["/proc/self/exe", "run", "--env-file", "/shared/fifo", "x"][..],
        &["/shared/script", "-f", "/shared/fifo"],
    ] {
        own.start(command);
        let size = fs::metadata(&program).unwrap().len().to_string();
        let is_ours = || own.layerfs(&["exec", "one", "stat", "-Lc", "%s", "/proc/1/exe"]).ok() == size;
        assert!(eventually(is_ours), "{command:?}: the program of ours does not run in the container");
        for attempt in [": >/proc/1/exe", "chmod 777 /proc/1/exe", "ln -L /proc/1/exe /shared/x"] {
            let done = own.layerfs(&["exec", "one", "sh", "-c", attempt]);
            let is_refused = ["Read-only file system", "Invalid cross-device link"]
                .iter()
                .any(|why| done.err.contains(why));
            assert!(done.code != 0 && is_refused, "{attempt}: {done:#?}");
        }
        own.layerfs(&["rm", "-f", "one"]).ok();
    }
    assert_eq!(sha256(&program), before);
    own.place.nothing_left();
}

/// Where no mount of the program can be made, it is copied. Such a program has nothing to be mounted.
#[test]
fn own_program_in_memory() {
    needs_mount!();
    let place = Place::new();
    let script = "import os, sys\nfd = os.memfd_create('x')\nos.write(fd, open(sys.argv[1], 'rb').read())\nos.execv(f'/proc/self/fd/{fd}', sys.argv[1:])";
    let mut python = Command::new("python3");
    python
        .args(["-c", script])
        .arg(layerfs_path())
        .args(["run", "--rm"])
        .arg(image("tiny").join("docker-gzip.tar"));
    python.args(["echo", "runs"]).env("LAYERFS_ROOT", place.store());
    assert_eq!(finish(&mut python).ok(), "runs");
}

#[test]
fn processes_keep_their_name() {
    needs_debian!();
    let own = OwnCopy::new();
    own.start(&["sleep", "1000"]);
    let pids = own.place.processes();
    let names = pids.iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, ["layerfs\n", "layerfs\n"], "starter and supervisor");
}

/// From its birth to the program that it becomes.
#[test]
fn exec_shows_nothing_of_the_host() {
    needs_debian!();
    let place = Place::new();
    let volume = volume("intruder.py");
    let mut run = place.command();
    run.args(["run", "-d", "-q", "--name", "one", "-v", &volume]).arg(debian());
    finish(run.args(["python3", "/intruder.py", "watch"])).ok();
    for number in 0..120 {
        let user = if number % 2 == 1 && (is_root() || has_id_ranges()) { "33" } else { "0" };
        place.layerfs(&["exec", "-w", "/", "-u", user, "one", "/usr/bin/true"]).ok();
    }
    place.layerfs(&["exec", "-w", "/", "one", "/usr/bin/touch", "/tmp/stop"]).ok();
    place.layerfs(&["wait", "one"]).ok();
    let said: serde_json::Value = serde_json::from_str(place.layerfs(&["logs", "one"]).ok()).unwrap();
    assert!(said["denied"].as_u64().unwrap() > 0, "nothing was seen coming: {said}");
    for pair in said["seen"].as_array().unwrap() {
        let (what, path) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        let is_the_containers = match what {
            "exe" => ["/usr/bin/true", "/usr/bin/touch"].contains(&path),
            "fd" => ["/usr/lib/", "/lib/", "/etc/", "/tmp/stop"].iter().any(|start| path.starts_with(start)),
            _ => path == "/",
        };
        assert!(is_the_containers, "{what} {path}");
    }
    place.layerfs(&["rm", "one"]).ok();
}

#[test]
fn a_working_directory_that_leaks() {
    needs_mount!();
    let hostile = Hostile::new();
    for number in 0..12 {
        for directory in [format!("/proc/self/fd/{number}"), format!("/proc/1/fd/{number}/..")] {
            let done = hostile.run(&["-w", &directory], &["ls"]);
            assert!(done.code == 125 && done.err.contains(&directory), "{done:#?}");
        }
    }
    // Of the image, by way of a symlink.
    for (name, target) in
        [("one", "/proc/self/cwd"), ("two", "/proc/1/root/../.."), ("three", "../../../../..")]
    {
        symlink(target, hostile.path(name)).unwrap();
        let done = hostile.run(&["-w", &format!("/{name}")], &["readlink", "/proc/self/cwd"]);
        assert!(done.code == 125 || done.ok() == "/", "{done:#?}");
    }
}

#[test]
fn symlinks_where_mounts_go() {
    needs_mount!();
    for name in ["dev", "proc", "sys"] {
        for target in [None, Some("../../../../../../tmp"), Some("bin")] {
            let hostile = Hostile::new();
            let victim = hostile.victim();
            symlink(target.map_or(victim.as_path(), Path::new), hostile.path(name)).unwrap();
            let done = hostile.run(&[], &["sh", "-c", ":"]);
            assert!(done.code == 125 && done.err.contains("a symlink in this image"), "{name}: {done:#?}");
            hostile.victim_is_untouched();
        }
    }
    let hostile = Hostile::new();
    let victim = hostile.victim();
    for name in ["etc", "run", "data"] {
        symlink(&victim, hostile.path(name)).unwrap();
    }
    let volume = format!("{}:/data/deep", hostile.place.path("image").join("bin").display());
    // Such paths lead to places of the same name inside, which are made there.
    let done = hostile.run(&["-v", &volume], &["sh", "-c", "cat /etc/hostname >/dev/null; ls /data/deep/sh"]);
    assert!(done.code == 125 || done.ok() == "/data/deep/sh", "{done:#?}");
    hostile.victim_is_untouched();
}

#[test]
fn nothing_is_mounted_within_proc() {
    needs_mount!();
    let hostile = Hostile::new();
    symlink("/proc/sys", hostile.path("link")).unwrap();
    symlink("proc", hostile.path("other")).unwrap();
    fs::create_dir_all(hostile.path("proc/self/attr")).unwrap();
    fs::write(hostile.path("proc/self/attr/exec"), "").unwrap();
    let bin = hostile.path("bin");
    for destination in
        ["/proc", "/proc/sys", "/link", "/link/kernel", "/other", "/other/sys/kernel", "/bin/../proc/sys"]
    {
        let done = hostile.run(&["-v", &format!("{}:{destination}", bin.display())], &["sh", "-c", ":"]);
        assert!(done.code == 125 && done.err.contains("/proc"), "{destination}: {done:#?}");
    }
    // What the image has there is hidden.
    assert_eq!(hostile.run(&[], &["stat", "-fc", "%T", "/proc/self/attr"]).ok(), "proc");
}

#[test]
fn masks_are_made_of_the_hosts_devices() {
    needs_mount!();
    let hostile = Hostile::new();
    fs::create_dir(hostile.path("dev")).unwrap();
    symlink("/etc/shadow", hostile.path("dev/null")).unwrap();
    fs::write(hostile.path("dev/zero"), "not zero").unwrap();
    let done = hostile
        .run(&[], &["stat", "-Lc", "%t:%T", "/dev/null", "/dev/zero", "/proc/keys", "/proc/timer_list"]);
    assert_eq!(done.ok(), "1:3\n1:5\n1:3\n1:3");
}

/// A terminal for a command, and what is written to it.
fn at_a_terminal(place: &Place, arguments: &[&str], image: &Path, command: &[&str]) -> Done {
    let script =
        "import os, pty, sys\nstatus = pty.spawn(sys.argv[1:])\nsys.exit(os.waitstatus_to_exitcode(status))";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(layerfs_path()).args(["run", "--rm", "-q"]).args(arguments).arg(image);
    finish(python.args(command).env("LAYERFS_ROOT", place.store()))
}

#[test]
fn a_console_of_the_image() {
    needs_mount!();
    let hostile = Hostile::new();
    fs::create_dir_all(hostile.path("dev/pts")).unwrap();
    for name in ["dev/console", "dev/ptmx", "dev/pts/0", "dev/pts/ptmx"] {
        symlink(hostile.victim().join("file"), hostile.path(name)).unwrap();
    }
    let script = "for file in /dev/console /dev/pts/0 /dev/tty; do test -c $file || exit 1; done; test -t 0; echo seen >/dev/console";
    let done = at_a_terminal(&hostile.place, &["-t"], &hostile.place.path("image"), &["sh", "-ec", script]);
    assert_eq!(done.ok().trim(), "seen");
    hostile.victim_is_untouched();
}

#[test]
fn nobody_types_into_the_callers_terminal() {
    needs_debian!();
    let place = Place::new();
    let volume = volume("intruder.py");
    let done =
        at_a_terminal(&place, &["-i", "-v", &volume], &debian(), &["python3", "/intruder.py", "typing"]);
    let said: Vec<&str> = done.ok().lines().map(str::trim).collect();
    assert_eq!(said, ["TIOCSCTTY EPERM", "TIOCSTI EPERM", "TIOCLINUX ENOTTY", "/dev/tty ENXIO"]);
}

#[test]
fn system_calls_that_are_refused() {
    needs_debian!();
    for runtime in by_all_runtimes() {
        let runtime: Vec<&str> = runtime.iter().map(String::as_str).collect();
        assert_eq!(intrude(&runtime, &["calls"]).ok(), "", "{runtime:?}");
        // A runtime gives the streams, here files, to that user.
        if is_root() || (has_id_ranges() && runtime.is_empty()) {
            let options = [&["-w", "/", "-u", "33"], &runtime[..]].concat();
            assert_eq!(intrude(&options, &["calls"]).ok(), "", "{runtime:?}");
        }
    }
}

#[test]
fn nothing_can_be_mounted_anew() {
    needs_mount!();
    let place = Place::new();
    let script = r#"
        worked() { "$@" 2>/dev/null && echo "$*"; }
        for path in / /proc /proc/sys /proc/irq /sys /sys/firmware /dev /etc/hosts; do
          worked mount -o remount,rw,bind $path $path
          worked mount -o remount,rw $path
          worked mount --bind /tmp $path
        done
        for path in /proc/kcore /proc/keys /proc/timer_list /proc/sys /proc/irq /sys /sys/firmware /dev/null; do
          worked umount $path; worked umount -l $path
        done
        for kind in proc sysfs tmpfs cgroup cgroup2 mqueue devpts overlay; do worked mount -t $kind none /tmp; done
        for path in / /sys/fs/cgroup /sys/kernel /proc/sys/kernel /proc/irq; do worked touch $path/x; worked mkdir $path/y; done
        worked unshare -m true; worked unshare -U true; worked unshare -Urm true; worked unshare -p true; worked unshare -n true
        worked chroot / mount -t proc none /tmp
        :
    "#;
    let done = run(&place, &["--read-only"], &image("tiny").join("docker-gzip.tar"), &["sh", "-c", script]);
    assert_eq!(done.ok(), "");
}

/// As a program of a container with the host's network would see them.
#[test]
fn no_socket_of_ours_has_a_name() {
    needs_debian!();
    let own = OwnCopy::new();
    own.start(&["sleep", "1000"]);
    let named = fs::read_to_string("/proc/net/unix").unwrap();
    let mut sockets = 0;
    for pid in own.place.processes() {
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten() {
            let Ok(link) = fs::read_link(fd.unwrap().path()) else { continue };
            let Some(inode) = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'))
            else {
                continue;
            };
            sockets += 1;
            let line = named.lines().find(|line| line.split_whitespace().nth(6) == Some(inode));
            // One with a path can be reached by who reaches the path; an abstract one by all of its network.
            let name = line.and_then(|line| line.split_whitespace().nth(7));
            assert!(name.is_none_or(|name| !name.starts_with('@')), "{line:?}");
        }
    }
    assert!(sockets > 0, "no socket was looked at");
}

#[test]
fn processes_of_ours_are_not_there() {
    needs_debian!();
    let own = OwnCopy::new();
    own.start(&["sleep", "1000"]);
    // Numbers that the container has not come to.
    let ours: Vec<u32> = own.place.processes().into_iter().filter(|pid| *pid > 100).collect();
    assert!(!ours.is_empty());
    let ours: Vec<String> = ours.iter().map(u32::to_string).collect();
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    let done = intrude(&["--network", "host"], &[&["kill"], &ours[..]].concat());
    assert_eq!(done.ok(), "");
    own.layerfs(&["exec", "one", "true"]).ok();
}

#[test]
fn devices_of_the_image_are_dead() {
    needs_mount!();
    let hostile = Hostile::new();
    let archive = hostile.place.path("archive.tar");
    let mut make = Command::new("python3");
    make.arg(support_file("archive.py")).arg("--devices").arg(hostile.place.path("image")).arg(&archive);
    finish(&mut make).ok();
    let script = "for node in sda mem zero; do test -f /nodes/$node || echo $node; cat /nodes/$node; done";
    for options in by_all_runtimes() {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let done = run(&hostile.place, &options, &archive, &["sh", "-c", script]);
        assert_eq!(done.out, "sda\nmem\nzero\n", "{done:#?}");
        assert_eq!(done.err.matches("Permission denied").count(), 3, "{done:#?}");
    }
}

/// Who may write to the directory on the host must not become root of the container that way.
#[test]
fn setuid_in_a_volume_is_powerless() {
    needs_debian!();
    if !is_root() && !has_id_ranges() {
        skip!("no second user to become");
    }
    let place = Place::new();
    let data = place.path("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let script = "
        for dir in /data /srv; do cp /usr/bin/id $dir; chmod 4755 $dir/id; done
        for dir in /data /srv; do setpriv --reuid 33 --clear-groups $dir/id -u; done
    ";
    let volume = format!("{}:/data", data.display());
    let done = run(&place, &["-v", &volume], &debian(), &["sh", "-ec", script]);
    assert_eq!(done.ok(), "33\n0", "in the image it works");
}
