//! What a container's programs cannot reach, whatever they are allowed to try.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use super::*;

/// A program of `tests/support/intruder.py` on the host, which ends with its test.
struct Outside {
    child: Child,
    said: String,
}

impl Outside {
    fn new(arguments: &[&str]) -> Self {
        let mut python = Command::new("python3");
        python.arg(support_file("intruder.py")).args(arguments);
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        Self { child, said: said.trim().to_owned() }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

const UNCONFINED: [&str; 2] = ["--security-opt", "seccomp=unconfined"];

#[test]
fn keys_of_the_caller_are_out_of_reach() {
    needs_debian!();
    let outside = finish(Command::new("python3").arg(support_file("intruder.py")).arg("keyring"));
    let inside = intrude(&UNCONFINED, &["keyring"]);
    assert!(inside.ok().parse::<i64>().unwrap() > 0);
    assert_ne!(inside.ok(), outside.ok());
    assert_ne!(intrude(&UNCONFINED, &["keyring"]).ok(), inside.ok(), "each container has its own");
    // Of the user, whatever the session.
    let keys = Outside::new(&["keys"]);
    assert!(keys.said.parse::<i64>().unwrap() > 0, "no key: {}", keys.said);
    assert_eq!(
        finish(Command::new("python3").arg(support_file("intruder.py")).arg("steal")).ok(),
        "6 secret"
    );
    assert_eq!(intrude(&[], &["steal"]).ok().trim(), "");
}

#[test]
fn nodes_of_the_host_stay_as_they_are() {
    needs_debian!();
    let nodes =
        ["/dev/null", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/zero", "/dev/given"];
    let masks = ["/proc/keys", "/proc/timer_list", "/proc/kcore"];
    let masks = masks.into_iter().filter(|mask| Path::new(mask).exists());
    let tried = [&["nodes"][..], &nodes, &masks.collect::<Vec<_>>()].concat();
    assert_eq!(intrude(&["--device", "/dev/zero:/dev/given"], &tried).ok(), "");
    // They are devices nevertheless, and the others are the container's own.
    let script = "echo x >/dev/null && : >>/dev/null && head -c 2 /dev/given | wc -c && chmod 700 /dev/shm";
    let done = run(&Place::new(), &["--device", "/dev/zero:/dev/given"], &debian(), &["sh", "-c", script]);
    assert_eq!(done.ok(), "2");
}

/// Where a namespace can be made, its root has nothing more than the container's.
#[test]
fn nested_user_namespaces() {
    needs_debian!();
    let inside = r#"
        worked() { ( eval "$1" ) >/dev/null 2>&1 && echo "$1"; }
        test $(id -u) = 0 && test $(grep -c . /proc/self/uid_map) -ge 1 && echo nested
        mkdir -p /tmp/m
        for kind in proc sysfs; do
          worked "mount -t $kind none /tmp/m"; worked "mount -t $kind -o ro none /tmp/m"
        done
        for kind in cgroup2 'cgroup -o memory' 'cgroup -o freezer'; do
          test $1 = root || worked "mount -t $kind none /tmp/m && (echo 0 >/tmp/m/cgroup.procs || mkdir /tmp/m/x)"
        done
        for path in /proc/kcore /proc/keys /proc/timer_list /proc/acpi /proc/sys /proc/irq /sys /sys/firmware; do
          worked "umount $path"; worked "umount -l $path"; worked "mount -o remount,rw,bind $path"
        done
        worked 'mount --bind /proc /tmp/m'; worked 'mount --bind /sys /tmp/m'
        worked 'mount --rbind /proc /tmp/m && test -s /tmp/m/keys'
        worked 'echo $(cat /proc/sys/kernel/panic) >/proc/sys/kernel/panic'; worked 'echo h >/proc/sysrq-trigger'; worked 'test -s /proc/keys'
        worked 'ls /sys/firmware | grep .'; worked 'nsenter -t 1 -m true'; worked 'nsenter -t 1 -U true'
        worked 'mknod /tmp/node c 1 1'; worked 'test -w /dev/mem'
        :"#;
    let script = "unshare -Ur --mount --pid --net --ipc --cgroup --fork sh -c \"$1\" sh $2 || echo refused";
    // Groups of version 1 have owners on the host, of whom root is one; by default nobody can mount them.
    let who = if is_root() { "root" } else { "user" };
    let nest = |options: &[&str]| {
        let place = Place::new();
        let options = [&["--network", "none", "-w", "/"], options].concat();
        run(&place, &options, &debian(), &["sh", "-c", script, "sh", inside, who])
    };
    assert_eq!(nest(&[]).ok(), "refused");
    assert_eq!(nest(&UNCONFINED).ok(), "nested");
}

#[test]
fn control_groups_cannot_be_written() {
    needs_debian!();
    for network in ["none", "host"] {
        assert_eq!(intrude(&["--network", network], &["cgroup"]).ok(), "", "{network}");
    }
    let own = OwnCopy::new();
    own.start(&["sleep", "1000"]);
    let script = "find /sys/fs/cgroup -name 'cgroup.*' -o -name release_agent -o -name tasks | while read file; do
                  (echo 1 >$file) 2>/dev/null && echo $file; done; mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; :";
    assert_eq!(own.layerfs(&["exec", "one", "sh", "-c", script]).ok(), "");
    if !is_root() {
        return;
    }
    // As on hosts that have nothing but version 2.
    let place = Place::new();
    let version2 = r#"umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
                      "$1" run --rm -q -v "$2" "$3" sh -c 'test -e /sys/fs/cgroup/cgroup.procs && python3 /intruder.py cgroup'"#;
    let mut unshare = Command::new("unshare");
    unshare.args(["-m", "bash", "-ec", version2, "bash"]).arg(layerfs_path()).arg(volume("intruder.py"));
    assert_eq!(finish(unshare.arg(debian()).env("LAYERFS_ROOT", place.store())).ok(), "");
}

/// Characters that a program pushes into the terminal's input wait there for whoever reads next.
#[test]
fn nothing_is_left_in_the_callers_terminal() {
    needs_debian!();
    let place = Place::new();
    let script = r#""$1" run --rm -q "$2" -v "$3" "$4" python3 /intruder.py typing; stty -icanon min 0 time 5; echo "left:$(head -c 20)""#;
    for terminal in ["-i", "-it"] {
        let at = "import os, pty, sys\nstatus = pty.spawn(sys.argv[1:])\nsys.exit(os.waitstatus_to_exitcode(status))";
        let mut python = Command::new("python3");
        python.args(["-c", at, "bash", "-c", script, "bash"]).arg(layerfs_path()).arg(terminal);
        let done = finish(python.arg(volume("intruder.py")).arg(debian()).env("LAYERFS_ROOT", place.store()));
        let said: Vec<&str> = done.ok().lines().map(str::trim).collect();
        assert_eq!(said.last(), Some(&"left:"), "{terminal}: {done:#?}");
    }
}

#[test]
fn abstract_sockets_of_the_host() {
    needs_debian!();
    let name = format!("layerfs-test-{}", std::process::id());
    let listener = Outside::new(&["listen", &name]);
    assert_eq!(listener.said, "listening");
    assert_eq!(intrude(&["--network", "none"], &["connect", &name]).ok(), "ECONNREFUSED");
    assert_eq!(
        intrude(&["--network", "host"], &["connect", &name]).ok(),
        "connected",
        "that is what it means"
    );
}

#[test]
fn nothing_is_mounted_on_the_root() {
    needs_mount!();
    let hostile = Hostile::new();
    symlink("/", hostile.path("link")).unwrap();
    symlink("bin/..", hostile.path("other")).unwrap();
    for destination in ["/link", "/other", "/link/link", "/bin/.."] {
        for option in
            [format!("-v={}:{destination}", hostile.victim().display()), format!("--tmpfs={destination}")]
        {
            let done = hostile.run(&[&option], &["sh", "-c", ":"]);
            assert!(done.code == 125 && done.err.contains("root directory"), "{option}: {done:#?}");
        }
    }
    hostile.victim_is_untouched();
}

/// By another container that has it, too.
#[test]
fn what_waits_in_an_empty_volume() {
    needs_debian!();
    let place = Place::new();
    let tiny = image("tiny").join("docker-gzip.tar");
    let victim = place.path("victim");
    fs::write(&victim, "untouched").unwrap();
    for plant in [
        "mkfifo /v/.layerfs-filling".to_owned(),
        format!("ln -s {} /v/.layerfs-filling", victim.display()),
        "ln -s ../../../../../../../../../../../etc/passwd /v/.layerfs-filling".to_owned(),
    ] {
        run(&place, &["-v", "filled:/v"], &tiny, &["sh", "-c", &format!("rm -rf /v/* && {plant}")]).ok();
        let done =
            run(&place, &["-v", "filled:/etc"], &tiny, &["sh", "-c", "test -s /etc/passwd && ls -A /etc"]);
        assert!(!done.ok().contains("filling"), "{plant}: {done:#?}");
    }
    assert_eq!(fs::read_to_string(victim).unwrap(), "untouched");
    // What is full already is not waited for.
    let image = debian();
    let hold = ["run", "-d", "--name", "one", "-q", "-v", "filled:/v", image.to_str().unwrap(), "sh", "-c"];
    place.layerfs(&[&hold[..], &["flock /v sh -c 'touch /v/locked; sleep 1000'"]].concat()).ok();
    assert!(eventually(|| place.layerfs(&["exec", "one", "test", "-e", "/v/locked"]).code == 0));
    run(&place, &["-v", "filled:/etc"], &tiny, &["sh", "-c", "test -e /etc/locked"]).ok();
    place.layerfs(&["rm", "-f", "one"]).ok();
}

/// They would make system calls whose numbers mean something else.
#[test]
fn programs_of_32_bits() {
    needs_mount!();
    let hostile = Hostile::new();
    // Code for exit(7): mov ebx, 7; mov eax, 1; int 0x80
    let code = [0xBB, 7, 0, 0, 0, 0xB8, 1, 0, 0, 0, 0xCD, 0x80];
    let program = elf_of_32_bits(&code);
    fs::write(hostile.path("bin/small"), program).unwrap();
    fs::set_permissions(hostile.path("bin/small"), fs::Permissions::from_mode(0o755)).unwrap();
    if hostile.run(&UNCONFINED, &["/bin/small"]).code != 7 {
        skip!("this kernel has no programs of 32 bits");
    }
    let done = hostile.run(&[], &["/bin/small"]);
    assert_eq!(done.code, 128 + 31, "SIGSYS: {done:#?}");
}

/// A program for 32 bits of x86 that is nothing but this code.
fn elf_of_32_bits(code: &[u8]) -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let size = HEADERS + u32::try_from(code.len()).unwrap();
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    half(&mut file, 2);
    half(&mut file, 3);
    for value in [1, BASE + HEADERS, 52, 0, 0] {
        word(&mut file, value);
    }
    for value in [52, 32, 1, 0, 0, 0] {
        half(&mut file, value);
    }
    for value in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        word(&mut file, value);
    }
    file.extend(code);
    file
}

/// Root of a container with ids of its own has those alone, also in what `exec` and `cp` start.
#[test]
fn other_ids_cannot_be_taken() {
    needs_debian!();
    let modes: &[&[&str]] = if is_root() {
        &[&["--uidmap", "0:700000:5000"]]
    } else if has_id_ranges() {
        &[&["--userns", "nomap"], &["--userns", "auto:size=5000"]]
    } else {
        &[&["--userns", "keep-id"]]
    };
    // Files of the caller's are not theirs, whatever their ids inside.
    let script = r#"
        import os
        for path in ["/data", "/data/private"]:
            for what in (lambda: os.chown(path, 0, 0), lambda: os.chmod(path, 0o777), lambda: open(path).read(), lambda: os.listdir(path)):
                try: what(); print(path, "worked")
                except OSError: pass
        for id in (70000, 2**31):
            for what in (lambda: os.setresuid(id, id, id), lambda: os.setresgid(id, id, id), lambda: os.chown("/tmp", id, id)):
                try: what(); print(id, "worked")
                except OSError: pass
        try: os.write(os.open("/proc/self/uid_map", os.O_WRONLY), b"0 0 1"); print("map written")
        except OSError: pass
        try: os.kill(os.getppid(), 0) if os.getppid() else None
        except OSError: print("parent")
    "#;
    let script = script.replace("\n        ", "\n");
    for mode in modes {
        let own = OwnCopy::new();
        fs::write(own.place.path("shared/private"), "secret").unwrap();
        fs::set_permissions(own.place.path("shared/private"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(own.place.path("shared"), fs::Permissions::from_mode(0o700)).unwrap();
        let data = format!("{}:/data", own.place.path("shared").display());
        let image = debian();
        let run = ["run", "-d", "--name", "one", "-q", "-w", "/", "-v", &data];
        own.layerfs(&[&run[..], mode, &[image.to_str().unwrap(), "sleep", "1000"]].concat()).ok();
        let done = own.layerfs(&["exec", "one", "python3", "-c", &script]);
        if mode.contains(&"keep-id") {
            // Who is kept has their own files, and nobody else's.
            assert!(!done.ok().contains("70000"), "{done:#?}");
        } else {
            assert_eq!(done.ok(), "", "{mode:?}");
        }
    }
}
