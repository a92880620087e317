//! The expectations of the OCI runtime specification, checked from inside.

use super::*;

/// `tests/support/checker.py` in a container with these options.
fn check(options: &[&str], terminal: bool) -> Done {
    let outside = finish(Command::new("python3").arg(support_file("checker.py")).arg("outside"));
    let mut said: serde_json::Value = serde_json::from_str(outside.ok()).unwrap();
    said["single"] = (!is_root() && !has_id_ranges()).into();
    said["terminal"] = terminal.into();
    let (place, volume, said) = (Place::new(), volume("checker.py"), said.to_string());
    let options = [&["-v", &volume], options].concat();
    let command = ["sh", "-c", "python3 /checker.py inside \"$1\"; exit $?", "sh", &said];
    if terminal {
        at_a_terminal(&place, &options, &debian(), &command)
    } else {
        run(&place, &options, &debian(), &command)
    }
}

/// What crun and runc do otherwise than we: files that were generated lie on a filesystem of the host, devices are nodes that
/// they have made themselves, or may be written to as the host's nodes are, and what is bound upon itself loses flags.
fn is_a_runtimes_way(line: &str) -> bool {
    let (path, problem) = line.trim_end().split_once(": ").unwrap_or_default();
    let is_generated =
        ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv"].contains(&path);
    (is_generated && problem.ends_with("and not 'tmpfs'"))
        || (path.starts_with("/dev/")
            && (problem == "nothing is mounted" || problem.ends_with("'ro'] and not []")))
        || (path.starts_with("/proc/") && problem == "missing: ['nodev', 'noexec', 'nosuid'] and not []")
}

#[test]
fn defaults_are_the_specifications() {
    needs_debian!();
    let with = |more: &[&'static str]| [&["--net", "none", "-w", "/"], more].concat();
    for runtime in by_all_runtimes() {
        let by = |more: &[&'static str]| [with(more), runtime.iter().map(String::as_str).collect()].concat();
        for (options, terminal) in [(&[][..], false), (&["-t"], true)] {
            let done = check(&by(options), terminal);
            let wrong: Vec<&str> =
                done.out.lines().filter(|line| runtime.is_empty() || !is_a_runtimes_way(line)).collect();
            assert_eq!(wrong, [""; 0], "{runtime:?}: {done:#?}");
        }
    }
    // And the checker would have said otherwise.
    for (options, what) in [
        (vec!["--net", "host", "-w", "/"], "a net namespace of its own"),
        (vec!["--net", "none", "-w", "/tmp"], "working directory"),
        (with(&["-v", "/etc/hostname:/dev/zero"]), "/dev/zero: kind: False"),
        (with(&["-v", "/tmp:/dev/shm"]), "/dev/shm: "),
        (with(&["-e", "container=x"]), "container: 'x'"),
    ] {
        let done = check(&options, false);
        assert!(done.code == 1 && done.out.contains(what), "{options:?}: {done:#?}");
    }
}
