//! What the program can see and do.

use std::fs;
use std::os::unix::fs::symlink;

use super::support::{CALLERS, Caller, Rootfs};

#[test]
fn privileges_are_podmans() {
    needs_root!();
    for caller in CALLERS {
        let status = Rootfs::new(caller).shell(&[], "cat /proc/self/status");
        let value = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        for key in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(value(key), "00000000800405fb", "{caller:?} {key}");
        }
        for key in ["CapInh", "CapAmb"] {
            assert_eq!(value(key), "0000000000000000", "{caller:?} {key}");
        }
        assert_eq!(value("Seccomp:"), "2");
        assert_eq!(value("NoNewPrivs"), if caller == Caller::SingleId { "1" } else { "0" });
    }
}

#[test]
fn the_kernel_is_out_of_reach() {
    needs_root!();
    for caller in CALLERS {
        let rootfs = Rootfs::new(caller);
        for script in [
            "unshare -Ur :",
            "mount -t proc proc /tmp",
            "mount -o remount,rw /proc/sys",
            "umount /proc/sys",
            "echo 1 > /proc/sys/kernel/panic",
            "touch /sys/x",
            "test -s /proc/keys",
        ] {
            rootfs.shell(&[], &format!("if {script}; then exit 1; fi"));
        }
    }
}

#[test]
fn only_the_three_standard_descriptors_are_open() {
    needs_root!();
    for caller in CALLERS {
        // The shell's own glob opens one more, which is gone when the names are looked at.
        let open = Rootfs::new(caller)
            .shell(&[], "for fd in /proc/self/fd/*; do test -e $fd && echo ${fd##*/}; done; :");
        assert_eq!(open, "0\n1\n2\n", "{caller:?}");
    }
}

#[test]
fn a_symlink_of_the_image_leads_nowhere() {
    needs_root!();
    let rootfs = Rootfs::new(Caller::Ranges);
    let victim = tempfile::tempdir().unwrap();
    symlink(victim.path(), rootfs.path().join("dev")).unwrap();
    let output = rootfs.output(&[], &["sh"]);
    assert_eq!(output.status.code(), Some(125));
    fs::remove_file(rootfs.path().join("dev")).unwrap();
    fs::remove_dir(rootfs.path().join("run")).unwrap();
    symlink("../../../../../../..", rootfs.path().join("run")).unwrap();
    rootfs.shell(&["-v", "/etc:/run/data:ro"], "test -e /data/passwd");
    let output = rootfs.output(&["-w", "/proc/self/fd/3"], &["pwd"]);
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 0);
}

#[test]
fn a_read_only_root_has_places_to_write() {
    needs_root!();
    for caller in CALLERS {
        let script = "touch /tmp/x /run/x /dev/shm/x; if touch /x; then exit 1; fi";
        Rootfs::new(caller).shell(&["--read-only"], script);
    }
}
