//! An app started from an image, in namespaces of its own.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::*;

/// Skips the test when the big image was not made.
macro_rules! needs_debian {
    () => {
        needs_mount!();
        if !images().contains(&"debian") {
            skip!("must run: no debian image: run scripts/images");
        }
    };
}

/// The forms that `run` is tried on.
fn tiny() -> std::path::PathBuf {
    image("tiny").join("docker-gzip.tar")
}

/// `layerfs run --rm OPTIONS IMAGE COMMAND...`
fn run_in(place: &Place, options: &[&str], image: &Path, command: &[&str]) -> Done {
    let mut layerfs = place.command();
    layerfs.args(["run", "--rm"]).args(options).arg(image).args(command);
    finish(&mut layerfs)
}

fn run(options: &[&str], command: &[&str]) -> Done {
    let place = Place::new();
    let done = run_in(&place, options, &tiny(), command);
    place.nothing_left();
    assert!(place.containers().is_empty(), "--rm left {:?}", place.containers());
    done
}

/// `sh -c script` in the tiny image.
fn sh(options: &[&str], script: &str) -> Done {
    run(options, &["sh", "-c", script])
}

/// A running container whose command has said that it is ready.
fn start(place: &Place, options: &[&str], script: &str) -> Child {
    let mut layerfs = place.command();
    layerfs.arg("run").args(options).arg(tiny()).args(["sh", "-c", script]);
    let mut child = layerfs.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

#[test]
fn prints_and_ends() {
    needs_mount!();
    assert_eq!(run(&[], &["echo", "hello", "there"]).ok(), "hello there");
    assert_eq!(sh(&[], "echo one; echo two >&2").err.lines().last(), Some("two"));
}

#[test]
fn every_form_runs() {
    needs_mount!();
    for form in ["docker.tar", "docker-gzip.tar", "oci", "oci:latest", "oci.tar"] {
        let place = Place::new();
        let done = run_in(&place, &[], &image("tiny").join(form), &["cat", "/hard/plain"]);
        assert_eq!(done.ok(), "plain again", "{form}");
        place.nothing_left();
    }
}

#[test]
fn the_images_config_is_honoured() {
    needs_mount!();
    // Its command is /bin/sh, which finds nothing to read.
    assert_eq!(run(&[], &[]).ok(), "");
    assert_eq!(sh(&[], "echo $TINY $PATH; pwd").ok(), "yes /bin:/usr/bin\n/tmp");
}

#[test]
fn exit_codes() {
    needs_mount!();
    for code in [0, 1, 42, 255] {
        assert_eq!(sh(&[], &format!("exit {code}")).code, code);
    }
    assert_eq!(sh(&[], "kill -KILL $$").code, 0, "process 1 is safe from its own signals");
    assert_eq!(sh(&[], "sh -c 'kill -KILL $$'; exit $?").code, 137);
    let done = run(&[], &["/etc/passwd"]);
    assert_eq!(done.code, 126, "not executable: {done:#?}");
    let done = run(&[], &["no-such-command"]);
    assert_eq!(done.code, 127, "not found: {done:#?}");
    assert!(done.err.contains("no-such-command"), "{done:#?}");
    let done = run(&["--workdir-that-is-none"], &["true"]);
    assert_eq!(done.code, 125, "{done:#?}");
}

#[test]
fn options_of_the_process() {
    needs_mount!();
    assert_eq!(sh(&["-e", "ONE=1", "-e", "TINY=no"], "echo $ONE $TINY").ok(), "1 no");
    assert_eq!(run(&["-w", "/etc"], &["pwd"]).ok(), "/etc");
    assert_eq!(run(&["--entrypoint", "/bin/echo"], &["as", "arguments"]).ok(), "as arguments");
    assert_eq!(run(&["--hostname", "elsewhere"], &["hostname"]).ok(), "elsewhere");
    let place = Place::new();
    let file = place.path("env");
    fs::write(&file, "# comment\nFROM_FILE=a value with = and blanks\n").unwrap();
    let done =
        run_in(&place, &["--env-file", file.to_str().unwrap()], &tiny(), &["sh", "-c", "echo $FROM_FILE"]);
    assert_eq!(done.ok(), "a value with = and blanks");
}

#[test]
fn users() {
    needs_mount!();
    assert_eq!(run(&[], &["id", "-u"]).ok(), "0");
    if !is_root() && !has_id_ranges() {
        let done = run(&["-u", "app"], &["id", "-u"]);
        assert!(done.code == 125 || done.ok() == "1000", "either refused or done: {done:#?}");
        return;
    }
    assert_eq!(sh(&["-u", "app"], "id -u; id -g; echo $HOME").ok(), "1000\n1000\n/home/app");
    assert_eq!(sh(&["-u", "1000:50"], "id -u; id -g").ok(), "1000\n50");
    assert_eq!(sh(&["-u", "app"], "touch /home/app/mine && stat -c %u:%g /home/app/mine").ok(), "1000:1000");
    assert_ne!(sh(&["-u", "app"], "echo x >/etc/passwd").code, 0);
    assert_eq!(run(&["-u", "no-such-user"], &["true"]).code, 125);
}

#[test]
fn owners_are_the_images_own() {
    needs_mount!();
    if !is_root() && !has_id_ranges() {
        skip!("no subordinate ids");
    }
    assert_eq!(
        run(&[], &["stat", "-c", "%u:%g %a", "/etc/shadow", "/home/app"]).ok(),
        "0:42 640\n1000:1000 750"
    );
    assert_eq!(sh(&[], "cd /tmp; touch f; chown 1000:50 f; stat -c %u:%g f").ok(), "1000:50");
}

#[test]
fn namespaces_are_its_own() {
    needs_mount!();
    assert_eq!(sh(&[], "echo $$").ok(), "1");
    let done = sh(&[], "ps | wc -l");
    assert!(done.ok().trim().parse::<u32>().unwrap() < 8, "{done:#?}");
    // Root needs no user namespace, so the image's ids are the host's, as with podman.
    let names = ["mnt", "pid", "ipc", "uts", "net", "user"];
    for name in &names[..if is_root() { 5 } else { 6 }] {
        let outside = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        let inside = run(&["--network", "none"], &["readlink", &format!("/proc/self/ns/{name}")]);
        assert_ne!(Path::new(inside.ok()), outside, "{name}");
    }
    let outside = fs::read_link("/proc/self/ns/net").unwrap();
    let inside = run(&["--network", "host"], &["readlink", "/proc/self/ns/net"]);
    assert_eq!(Path::new(inside.ok()), outside);
    assert_eq!(sh(&["--network", "none"], "ls /sys/class/net").ok(), "lo");
}

#[test]
fn security_defaults() {
    needs_mount!();
    let status = sh(&[], "cat /proc/1/status");
    let field = |name: &str| {
        let line = status.ok().lines().find(|line| line.starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(field("Seccomp"), "2", "a filter is in force");
    // podman's default capabilities: chown, dac_override, fowner, fsetid, kill, net_bind_service, setfcap, setgid, setpcap, setuid, sys_chroot.
    assert_eq!(field("CapBnd"), "00000000800405fb");
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"] {
        let done =
            sh(&[], &format!("[ ! -e {path} ] || {{ cat {path} 2>/dev/null || ls -A {path}; }} | wc -c"));
        assert!(matches!(done.ok().trim(), "" | "0"), "{path} is masked: {done:#?}");
    }
    for path in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/irq/x", "/proc/bus/x"] {
        assert_ne!(sh(&[], &format!("echo x >{path}")).code, 0, "{path} is read-only");
    }
    assert_ne!(sh(&[], "mount -t tmpfs none /mnt || mount -t tmpfs none /tmp").code, 0);
}

#[test]
fn no_descriptor_leaks() {
    needs_mount!();
    // 0, 1, 2, and the directory that ls itself reads.
    assert_eq!(run(&[], &["ls", "/proc/self/fd"]).ok(), "0\n1\n2\n3");
    // Nor one of the caller's.
    let place = Place::new();
    let script = r#"exec 7</etc/passwd; exec "$1" run --rm "$2" ls /proc/self/fd"#;
    let mut command = Command::new("bash");
    command.args(["-ec", script, "bash"]).arg(layerfs_path()).arg(tiny()).env("LAYERFS_ROOT", place.store());
    assert_eq!(finish(&mut command).ok(), "0\n1\n2\n3");
}

#[test]
fn volumes() {
    needs_mount!();
    let place = Place::new();
    let (shared, closed) = (place.path("shared"), place.path("closed"));
    for dir in [&shared, &closed] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("outside"), "from outside").unwrap();
    }
    let (writable, read_only) =
        (format!("{}:/data", shared.display()), format!("{}:/deep/new/place:ro", closed.display()));
    let script = "cat /data/outside && echo inside >/data/inside && ! touch /deep/new/place/x 2>/dev/null && cat /deep/new/place/outside";
    let done = run_in(&place, &["-v", &writable, "-v", &read_only], &tiny(), &["sh", "-c", script]);
    assert_eq!(done.ok(), "from outsidefrom outside");
    assert_eq!(fs::read_to_string(shared.join("inside")).unwrap(), "inside\n");
    assert!(!closed.join("x").exists());
    let done = run_in(&place, &["-v", "/no/such/source:/data"], &tiny(), &["true"]);
    assert_eq!(done.code, 125, "{done:#?}");
    assert!(done.err.contains("/no/such/source"), "{done:#?}");
}

#[test]
fn read_only_root() {
    needs_mount!();
    let done = sh(&["--read-only"], "touch /etc/new; touch /bin/new; echo $?; cat /hard/plain");
    assert!(done.ok().ends_with("1\nplain again"), "{done:#?}");
    assert!(done.err.contains("Read-only"), "{done:#?}");
}

#[test]
fn changes_stay_without_rm() {
    needs_mount!();
    let place = Place::new();
    let before = sha256(&tiny());
    let mut command = place.command();
    command.args(["run", "--name", "kept"]).arg(tiny()).args([
        "sh",
        "-c",
        "echo changed >/etc/hostname; rm -r /hard",
    ]);
    finish(&mut command).ok();
    place.nothing_left();
    let listed = place.layerfs(&["ps", "-a"]);
    assert!(listed.ok().contains("kept"), "{listed:#?}");
    assert!(place.layerfs(&["inspect", "kept"]).ok().contains("kept"));
    assert_eq!(sha256(&tiny()), before);
    place.layerfs(&["rm", "kept"]).ok();
    assert!(place.containers().is_empty());
}

#[test]
fn only_what_is_removed_at_the_end_is_volatile() {
    needs_mount!();
    let place = Place::new();
    for (options, is_volatile) in [(&["--rm"][..], true), (&[], false)] {
        let script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done";
        let mut child = start(&place, options, script);
        let found = shell(r#"find "$1" -path '*/work/volatile'"#, &[&place.store()]);
        assert_eq!(!found.ok().is_empty(), is_volatile, "{found:?}");
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert_eq!(exit_code(child.wait().unwrap()), 0);
    }
}

#[test]
fn signals_are_forwarded() {
    needs_mount!();
    let place = Place::new();
    let script = "trap 'exit 33' TERM; trap 'exit 34' INT; echo ready; while :; do sleep 0.1; done";
    for (signal, code) in [("TERM", 33), ("INT", 34)] {
        let mut child = start(&place, &["--rm"], script);
        Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        assert_eq!(exit_code(child.wait().unwrap()), code);
        place.nothing_left();
    }
}

#[test]
fn stop_and_kill() {
    needs_mount!();
    let place = Place::new();
    let polite = "trap 'exit 33' TERM; trap 'exit 34' HUP; echo ready; while :; do sleep 0.1; done";
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    for (name, script, command, code) in [
        ("one", polite, &["stop", "one"][..], 33),
        ("two", polite, &["stop", "-t", "-1", "--signal", "HUP", "two"], 34),
        ("three", deaf, &["stop", "--time", "0", "three"], 137),
        ("four", polite, &["kill", "-s", "SIGHUP", "four"], 34),
        ("five", deaf, &["kill", "five"], 137),
    ] {
        let mut child = start(&place, &["--name", name], script);
        assert_eq!(place.layerfs(command).ok(), name);
        assert_eq!(exit_code(child.wait().unwrap()), code, "{command:?}");
        let listed = place.layerfs(&["ps", "-a"]);
        let line = listed.ok().lines().find(|line| line.contains(name)).unwrap_or_default();
        assert!(line.contains(&format!("Exited ({code})")), "{listed:#?}");
    }
    // What does not run is stopped already, but gets no signal; and one failure keeps nobody from the rest.
    assert_eq!(place.layerfs(&["stop", "one", "two"]).ok(), "one\ntwo");
    let done = place.layerfs(&["stop", "one", "nobody", "two"]);
    assert_eq!((done.code, done.out.trim()), (125, "one\ntwo"), "{done:#?}");
    assert!(done.err.contains("no such container: nobody"), "{done:#?}");
    let done = place.layerfs(&["kill", "one"]);
    assert!(done.code == 125 && done.err.contains("(one) is not running"), "{done:#?}");
    let done = place.layerfs(&["kill", "-s", "NONE", "one"]);
    assert!(done.code == 125 && done.err.contains("--signal NONE: no such signal"), "{done:#?}");
    let mounted = place.mount(&[], tiny());
    let id = place.layerfs(&["ps", "-q"]);
    let done = place.layerfs(&["stop", id.ok()]);
    assert!(done.code == 125 && done.err.contains("layerfs umount"), "{done:#?}");
    mounted.unmount();
}

#[test]
fn input_is_passed_on() {
    needs_mount!();
    let place = Place::new();
    let script = r#"printf 'one\ntwo\n' | "$1" run --rm -i "$2" wc -l"#;
    let mut command = Command::new("bash");
    command.args(["-ec", script, "bash"]).arg(layerfs_path()).arg(tiny()).env("LAYERFS_ROOT", place.store());
    assert_eq!(finish(&mut command).ok().trim(), "2");
}

#[test]
fn terminal() {
    needs_mount!();
    needs_debian!();
    let place = Place::new();
    let mut command = Command::new("python3");
    command.arg(support_file("terminal.py")).arg(layerfs_path()).args(["run", "--rm", "-it"]);
    command
        .arg(image("debian").join("docker.tar"))
        .args(["bash", "--norc", "--noediting"])
        .env("LAYERFS_ROOT", place.store());
    let done = finish(&mut command);
    assert_eq!(done.code, 7, "{done:#?}");
    place.nothing_left();
}

#[test]
fn killed_supervisor_leaves_nothing() {
    needs_mount!();
    let place = Place::new();
    let mut child = start(&place, &[], "echo ready; sleep 1000 & sleep 1000");
    // Whoever serves the mount is a descendant of the command, not the command inside.
    let script = r#"pgrep -P "$1" | xargs -r kill -KILL"#;
    let pid = child.id().to_string();
    shell(script, &[Path::new(&pid)]);
    let code = exit_code(child.wait().unwrap());
    assert_ne!(code, 0, "a killed supervisor is no success");
    place.nothing_left();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(place.path("").to_str().unwrap().trim_end_matches('/')), "{mounts}");
    let id = place.containers().pop().expect("the container is still known");
    place.layerfs(&[OsStr::new("ps"), OsStr::new("-a")]).ok();
    place.layerfs(&["rm", &id]).ok();
}

#[test]
fn killed_command_takes_all_with_it() {
    needs_mount!();
    let place = Place::new();
    let mut child = start(&place, &["--rm"], "echo ready; sleep 1000 & sleep 1000");
    child.kill().unwrap();
    child.wait().unwrap();
    place.nothing_left();
}

#[test]
fn without_ranges_it_says_so_once() {
    needs_mount!();
    if is_root() || has_id_ranges() {
        skip!("the caller has id ranges");
    }
    let place = Place::new();
    let done = run_in(&place, &[], &tiny(), &["id", "-u"]);
    assert_eq!(done.ok(), "0");
    assert!(done.err.contains("subuid"), "{done:#?}");
    let done = run_in(&place, &[], &tiny(), &["true"]);
    assert!(done.err.lines().count() <= 1, "said once: {done:#?}");
}

/// `sh -c script` in the debian image.
fn debian(options: &[&str], script: &str) -> Done {
    let place = Place::new();
    let done = run_in(&place, options, &image("debian").join("docker.tar"), &["bash", "-ec", script]);
    place.nothing_left();
    done
}

#[test]
fn debian_runs_python() {
    needs_debian!();
    let script = r#"python3 -c 'import numpy, pandas, flask, sqlalchemy; print(pandas.DataFrame(numpy.eye(3)).sum().sum())'"#;
    assert_eq!(debian(&[], script).ok(), "3.0");
}

#[test]
fn debian_installs_a_package() {
    needs_debian!();
    if !is_root() && !has_id_ranges() {
        skip!("apt needs more than one id");
    }
    let script = r#"
        mkdir -p /tmp/p/DEBIAN /tmp/p/usr/share/greeting && cd /tmp && chmod -R 755 p
        printf 'Package: greeting\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: test\n' >p/DEBIAN/control
        printf '#!/bin/sh\nset -e\nchown 1000:1000 /usr/share/greeting/file\n' >p/DEBIAN/postinst && chmod 755 p/DEBIAN/postinst
        echo installed >p/usr/share/greeting/file
        dpkg-deb -b p greeting.deb >/dev/null && apt-get install -qq -y ./greeting.deb >/dev/null 2>&1
        cat /usr/share/greeting/file && stat -c %u:%g /usr/share/greeting/file
        apt-get purge -qq -y greeting >/dev/null 2>&1 && test ! -e /usr/share/greeting && dpkg --audit
    "#;
    assert_eq!(debian(&["--network", "none"], script).ok(), "installed\n1000:1000");
}

#[test]
fn debian_becomes_another_user() {
    needs_debian!();
    if !is_root() && !has_id_ranges() {
        skip!("su needs more than one id");
    }
    assert_eq!(debian(&[], "su app -c 'id -un; cd; pwd; touch mine; ls'").ok(), "app\n/home/app\nmine");
}

/// `rm -f` asks with the image's StopSignal, and the program may say goodbye.
#[test]
fn stop_signal_of_the_image() {
    needs_mount!();
    let place = Place::new();
    let context = place.path("context");
    fs::create_dir(&context).unwrap();
    let dockerfile = format!("FROM {}\nSTOPSIGNAL SIGUSR1\n", tiny().display());
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let build = [OsStr::new("build"), OsStr::new("-t"), OsStr::new("stops:1"), context.as_os_str()];
    place.layerfs(&build).ok();
    let script = r#"
        "$1" run --name s stops:1 sh -c 'trap "echo asked; exit 3" USR1; echo ready; while :; do sleep 0.05; done' >"$2/said" &
        until grep -qs ready "$2/said"; do sleep 0.05; done
        "$1" rm -f s
        wait $! && exit 1
        grep -q asked "$2/said"
    "#;
    let mut command = Command::new("bash");
    command.args(["-ec", script, "bash"]).arg(layerfs_path()).arg(place.path(""));
    command.env("LAYERFS_ROOT", place.store());
    finish(&mut command).ok();
    place.nothing_left();
}

#[test]
fn a_container_may_write_back() {
    needs_mount!();
    let place = Place::new();
    let script = "dd if=/dev/zero of=/kept bs=1 count=5000 2>/dev/null; echo written; cat";
    let mut layerfs = place.command();
    layerfs.args(["run", "-i", "--writeback"]).arg(tiny()).args(["sh", "-c", script]);
    let mut child = layerfs.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "written\n");
    let id = &place.containers()[0];
    let stats: serde_json::Value =
        serde_json::from_str(place.layerfs(&["stats", "--json", id]).ok()).unwrap();
    let writes = stats["requests"]["write"]["count"].as_u64().unwrap();
    assert!((1..100).contains(&writes), "{writes} writes reached the server");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let kept = place.store().join("containers").join(id).join("upper/kept");
    assert_eq!(fs::read(&kept).unwrap(), [0; 5000]);
    place.nothing_left();
}
