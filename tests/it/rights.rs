//! What containers may do, by option.

use std::fs;

use crate::support::*;

/// `layerfs run --rm OPTIONS tiny sh -c SCRIPT`
fn run(place: &Place, options: &[&str], script: &str) -> Done {
    let mut layerfs = place.command();
    layerfs.args(["run", "--rm", "-q"]).args(options);
    layerfs.arg(image("tiny").join("docker-gzip.tar")).args(["sh", "-c", script]);
    finish(&mut layerfs)
}

const SETS: &str = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2 | tr '\\n' ' '";
const NONE: &str = "0000000000000000";
const DEFAULT: &str = "00000000800405fb";

/// What root of a container can have at most: in a user namespace of its own all, else what we have.
fn everything() -> String {
    if !is_root() {
        return "000001ffffffffff".to_owned();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    permitted.unwrap().trim().to_owned()
}

#[test]
fn capabilities_of_root() {
    needs_mount!();
    let place = Place::new();
    let sets = |options: &[&str]| run(&place, options, SETS).ok().trim().to_owned();
    let of_root = |set: &str| format!("{NONE} {set} {set} {set} {NONE}");
    assert_eq!(sets(&[]), of_root(DEFAULT));
    assert_eq!(sets(&["--cap-drop", "all"]), of_root(NONE));
    assert_eq!(sets(&["--cap-drop", "ALL", "--cap-add", "net_raw,CAP_CHOWN"]), of_root("0000000000002001"));
    assert_eq!(sets(&["--cap-add", "SYS_TIME", "--cap-drop", "chown"]), of_root("00000000820405fa"));
    let all = sets(&["--cap-add", "ALL"]);
    assert_eq!(all, sets(&["--privileged"]));
    assert_eq!(all, of_root(&everything()));
    for (options, told) in [
        (&["--cap-add", "FLY"][..], "--cap-add FLY"),
        (&["--cap-add", "KILL", "--cap-drop", "KILL"], "CAP_KILL"),
        (&["--security-opt", "apparmor=strict"], "apparmor=strict"),
        (&["--security-opt", "seccomp=/not/there"], "/not/there"),
    ] {
        let done = run(&place, options, "true");
        assert!(done.code == 125 && done.err.contains(told), "{options:?}: {done:#?}");
    }
    assert!(place.containers().is_empty(), "what was refused leaves nothing");
}

#[test]
fn capabilities_of_another_user() {
    needs_mount!();
    if !is_root() && !has_id_ranges() {
        skip!("a container with a single id has no other user");
    }
    let place = Place::new();
    let sets =
        |options: &[&str]| run(&place, &[&["-u", "33"], options].concat(), SETS).ok().trim().to_owned();
    assert_eq!(sets(&[]), format!("{NONE} {NONE} {NONE} {DEFAULT} {NONE}"));
    let raw = "0000000000002000";
    assert_eq!(sets(&["--cap-add", "NET_RAW"]), format!("{raw} {raw} {raw} 00000000800425fb {raw}"));
    assert_eq!(run(&place, &["-u", "33", "--cap-add", "CHOWN"], "touch /tmp/x && chown 0 /tmp/x").code, 0);
    assert_ne!(run(&place, &["-u", "33"], "touch /tmp/x && chown 0 /tmp/x").code, 0);
}

#[test]
fn paths_privileges_and_filters() {
    needs_mount!();
    let place = Place::new();
    let readable = "head -c 1 /proc/interrupts | wc -c; grep -c ' /proc/sys ' /proc/mounts";
    assert_eq!(run(&place, &[], readable).out, "0\n1\n");
    let open = run(&place, &["--security-opt", "unmask=/proc/interrupts:/proc/s*"], readable);
    assert_eq!(open.out, "1\n0\n");
    assert_eq!(run(&place, &["--security-opt", "unmask=ALL"], readable).out, "1\n0\n");
    assert_eq!(run(&place, &["--security-opt", "mask=/etc/passwd"], "cat /etc/passwd").ok(), "");
    let status = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2 | tr '\\n' ' '";
    let told = |options: &[&str]| run(&place, options, status).ok().trim().to_owned();
    let single = !is_root() && !has_id_ranges();
    assert_eq!(told(&[]), if single { "1 2" } else { "0 2" });
    assert_eq!(told(&["--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined"]), "1 0");
    let profile = place.path("profile.json");
    fs::write(&profile, r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#).unwrap();
    let option = format!("seccomp={}", profile.display());
    let done = run(&place, &["--security-opt", &option], "mkdir /tmp/x; grep Seccomp: /proc/self/status");
    assert!(done.err.contains("No space left") && done.out.contains("\t2"), "{done:#?}");
    fs::write(&profile, r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscall": []}"#).unwrap();
    let done = run(&place, &["--security-opt", &option], "true");
    assert!(done.code == 125 && done.err.contains("syscall"), "{done:#?}");
    // podman's own profile does for its programs what ours does.
    if fs::exists("/usr/share/containers/seccomp.json").unwrap() {
        let options = ["--security-opt", "seccomp=/usr/share/containers/seccomp.json"];
        assert_eq!(run(&place, &options, "mkdir /tmp/x && ls / >/dev/null && echo fine").ok(), "fine");
    }
}

#[test]
fn a_privileged_one_sees_devices_and_mounts() {
    needs_mount!();
    let place = Place::new();
    let script = "test -c /dev/fuse && mount -t tmpfs x /mnt 2>/dev/null || mount -t tmpfs x /tmp; grep -c ' tmpfs ' /proc/mounts";
    assert_eq!(run(&place, &["--privileged"], script).code, 0);
    assert_ne!(run(&place, &[], "mount -t tmpfs x /tmp").code, 0);
    // And so does what is put beside it.
    let mut start = place.command();
    start.args(["run", "-d", "--name", "one", "--privileged"]);
    start.arg(image("tiny").join("docker-gzip.tar")).args([
        "sh",
        "-c",
        "trap exit TERM; while :; do sleep 0.1; done",
    ]);
    finish(&mut start).ok();
    let beside =
        place.layerfs(&["exec", "one", "sh", "-c", "test -c /dev/fuse && grep CapEff /proc/self/status"]);
    place.layerfs(&["rm", "-f", "one"]).ok();
    assert!(beside.ok().ends_with(&everything()), "{beside:#?}");
}

#[test]
fn limits_of_processes() {
    needs_mount!();
    let place = Place::new();
    let done = run(
        &place,
        &["--ulimit", "nofile=64:128", "--ulimit", "core=0"],
        "ulimit -Sn; ulimit -Hn; ulimit -c",
    );
    assert_eq!(done.ok(), "64\n128\n0");
    assert_eq!(run(&place, &["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj").ok(), "500");
    for (option, value, told) in [
        ("--ulimit", "fly=1", "fly"),
        ("--ulimit", "nofile=2:1", "nofile=2:1"),
        ("--oom-score-adj", "2000", "2000"),
    ] {
        let done = run(&place, &[option, value], "true");
        assert!(done.code == 125 && done.err.contains(told), "{option} {value}: {done:#?}");
    }
}
