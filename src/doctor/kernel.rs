//! What the kernel has, and what it lets this user do.

use std::fs;

use nix::sched::{CloneFlags, unshare};

use super::{Check, child};
use crate::launcher::IdMaps;
use crate::sys::probe;

/// What a start calls that old kernels do not have.
const SYSTEM_CALLS: [&str; 11] = [
    "openat2",
    "open_tree",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "mount_setattr",
    "clone3",
    "pidfd_open",
    "pidfd_send_signal",
    "close_range",
];

const NAMESPACES: &str = "user namespaces";
const PROC: &str = "proc";

/// What uname(2) calls it.
pub(super) fn release() -> String {
    let found = fs::read_to_string("/proc/sys/kernel/osrelease");
    found.map_or_else(|_| "of an unknown version".to_owned(), |text| text.trim().to_owned())
}

/// Whether the system calls of a start are there.
pub(super) fn system_calls() -> Check {
    let release = release();
    let absent = || {
        let is_absent = |name: &&&str| probe::has_system_call(name) == Some(false);
        let absent: Vec<&str> = SYSTEM_CALLS.iter().filter(is_absent).copied().collect();
        // An answer is never empty.
        format!(" {}", absent.join(" "))
    };
    match child::ask(absent) {
        Ok(absent) => calls(&release, absent.trim()),
        Err(error) => calls(&release, &error.to_string()),
    }
}

fn calls(release: &str, absent: &str) -> Check {
    if absent.is_empty() {
        return Check::ok("kernel", format!("Linux {release} has all system calls that are needed"));
    }
    Check::missing(
        "kernel",
        format!("Linux {release} answers that it lacks: {absent}; containers cannot be started"),
        "boot Linux 5.12 or later; inside another container, start that one with --security-opt seccomp=unconfined",
    )
}

/// Whether this user can make user namespaces, as far as that is needed.
pub(super) fn user_namespaces() -> Check {
    if IdMaps::for_caller() == IdMaps::Identity {
        return Check::ok(NAMESPACES, "not needed: this is root");
    }
    let made = child::ask(|| match unshare(CloneFlags::CLONE_NEWUSER) {
        Ok(()) => "made".to_owned(),
        Err(errno) => errno.to_string(),
    });
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).ok();
    match made {
        Ok(answer) => namespaces(&answer, &setting),
        Err(error) => namespaces(&error.to_string(), &setting),
    }
}

/// `setting` reads a file below `/proc/sys`.
fn namespaces(answer: &str, setting: &dyn Fn(&str) -> Option<String>) -> Check {
    let is = |name: &str, value: &str| setting(name).is_some_and(|found| found.trim() == value);
    let restricted = is("kernel/apparmor_restrict_unprivileged_userns", "1");
    if answer == "made" && !restricted {
        return Check::ok(NAMESPACES, "this user can make them");
    }
    let apparmor = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
    if answer == "made" {
        let says = "AppArmor takes all rights away in them, unless a profile lets this program have them";
        return Check::missing(NAMESPACES, says, apparmor);
    }
    let fix = if is("kernel/unprivileged_userns_clone", "0") {
        "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is("user/max_user_namespaces", "0") {
        "sudo sysctl -w user.max_user_namespaces=15000"
    } else if restricted {
        apparmor
    } else {
        "inside another container, start that one with --security-opt seccomp=unconfined; or be root"
    };
    Check::missing(
        NAMESPACES,
        format!("cannot be made: {answer}; so containers cannot be started without root"),
        fix,
    )
}

/// Whether something hides parts of `/proc`, where a container may not have a new one then.
pub(super) fn proc_is_whole() -> Check {
    match fs::read_to_string("/proc/self/mountinfo") {
        Ok(table) => whole(&table, IdMaps::for_caller() == IdMaps::Identity),
        Err(error) => {
            Check::missing(PROC, format!("/proc/self/mountinfo: {error}"), "mount -t proc proc /proc")
        }
    }
}

fn whole(table: &str, is_root: bool) -> Check {
    let place = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    // What only watches other places hides nothing.
    let hides = |path: &String| path.starts_with("/proc/") && path != "/proc/sys/fs/binfmt_misc";
    let covers: Vec<String> = table.lines().filter_map(place).filter(hides).collect();
    match covers.first() {
        Some(path) if !is_root => Check::missing(
            PROC,
            format!("{path} is masked, so the kernel lets no container have a /proc of its own"),
            "start the outer container with --security-opt unmask=/proc/* (podman) or systempaths=unconfined (docker)",
        ),
        _ => Check::ok(PROC, "nothing hides parts of it"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn system_calls_that_are_not_there() {
        assert_eq!(calls("6.1", "").outcome, Outcome::Ok);
        let check = calls("4.19", "openat2 clone3");
        assert!(check.outcome == Outcome::Missing && check.says.contains("openat2 clone3"), "{check:?}");
    }

    #[test]
    fn why_there_are_no_user_namespaces() {
        let fix = |answer: &str, name: &str, value: &str| {
            let check = namespaces(answer, &|asked| (asked == name).then(|| format!("{value}\n")));
            check.fix.unwrap_or_default()
        };
        assert_eq!(fix("made", "", ""), "");
        assert!(fix("made", "kernel/apparmor_restrict_unprivileged_userns", "1").contains("apparmor"));
        assert!(fix("EPERM", "kernel/unprivileged_userns_clone", "0").contains("userns_clone=1"));
        assert!(fix("ENOSPC", "user/max_user_namespaces", "0").contains("max_user_namespaces=15000"));
        assert!(fix("EPERM", "kernel/unprivileged_userns_clone", "1").contains("seccomp=unconfined"));
    }

    #[test]
    fn masks_of_proc() {
        let masked = "1 2 0:3 / /proc rw - proc proc rw\n4 1 0:5 /null /proc/kcore rw - devtmpfs d rw\n";
        assert_eq!(whole(masked, false).outcome, Outcome::Missing);
        assert_eq!(whole(masked, true).outcome, Outcome::Ok);
        assert_eq!(whole("1 2 0:3 / /proc rw - proc proc rw\n", false).outcome, Outcome::Ok);
    }
}
