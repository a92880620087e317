//! Exit codes and messages.

use super::support::{CALLERS, Caller, Rootfs};

#[test]
fn exit_codes_are_dockers() {
    needs_root!();
    for caller in CALLERS {
        let rootfs = Rootfs::new(caller);
        let cases: [(i32, &[&str], &[&str]); 9] = [
            (0, &[], &["sh", "-c", ":"]),
            (7, &[], &["sh", "-c", "exit 7"]),
            (127, &[], &["absent"]),
            (127, &[], &["/absent"]),
            (126, &[], &["/etc/passwd"]),
            (126, &[], &["/etc"]),
            (125, &["-u", "nobody"], &["sh"]),
            (125, &["-w", "/absent"], &["sh"]),
            (125, &["-v", "/absent:/x"], &["sh"]),
        ];
        for (expected, options, program) in cases {
            let output = rootfs.output(options, program);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(expected), "{caller:?} {options:?} {program:?}: {said}");
        }
    }
}

#[test]
fn users_are_the_containers() {
    needs_root!();
    let rootfs = Rootfs::new(Caller::Ranges);
    assert_eq!(rootfs.shell(&["-u", "web"], "id -u; id -G; echo $HOME"), "33\n34 50\n/srv\n");
    assert_eq!(rootfs.shell(&["-u", "web:log"], "id -u; id -G"), "33\n50\n");
    let single = Rootfs::new(Caller::SingleId);
    let output = single.output(&["-u", "web"], &["id"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/etc/subuid"));
}

#[test]
fn input_comes_only_when_it_is_asked_for() {
    needs_root!();
    let rootfs = Rootfs::new(Caller::Ranges);
    for (options, expected) in [(&["-i"][..], "input"), (&[], "")] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "input").unwrap();
        let output = rootfs.command(options, &["cat"]).stdin(file.reopen().unwrap()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{options:?}");
    }
}

#[test]
fn a_user_can_open_its_own_output_again() {
    needs_root!();
    // The pipes are made by the user of this test run, so that one must be the caller.
    let rootfs = Rootfs::new(CALLERS[0]);
    let script = "echo out > /dev/stdout; echo err > /dev/stderr";
    let output = rootfs.output(&["-u", "web"], &["sh", "-c", script]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n", "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("err\n"));
}
