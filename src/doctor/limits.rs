//! What can be limited, and what limits us.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::process::{Resource, getrlimit};

use super::Check;

const GROUPS: &str = "cgroups";
/// What a server of a large image wants to have open at the same time.
const DESCRIPTORS_WANTED: u64 = 4096;

/// Whether limits of a container could be enforced.
pub(super) fn control_groups() -> Check {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let top = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(top.join("cgroup.controllers")).ok();
    let subtree = own.lines().find_map(|line| line.strip_prefix("0::")).map(|path| below(top, path));
    let is_writable = subtree.is_some_and(|dir| rustix::fs::access(dir, Access::WRITE_OK).is_ok());
    let bus = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("bus"));
    groups(controllers.as_deref(), is_writable, bus.is_some_and(|bus| bus.exists()))
}

fn below(top: &Path, path: &str) -> PathBuf {
    top.join(path.trim_start_matches('/'))
}

fn groups(controllers: Option<&str>, is_writable: bool, has_bus: bool) -> Check {
    let Some(controllers) = controllers else {
        return Check::warning(
            GROUPS,
            "version 1, or a mixture: limits of memory, processor and processes cannot be enforced",
            "boot with systemd.unified_cgroup_hierarchy=1",
        );
    };
    let controllers = controllers.trim();
    match (is_writable, has_bus) {
        (true, _) => Check::ok(GROUPS, format!("version 2, with a part of our own: {controllers}")),
        (false, true) => {
            Check::ok(GROUPS, format!("version 2, and systemd gives parts of it: {controllers}"))
        }
        (false, false) => Check::warning(
            GROUPS,
            "version 2, but no part of it is ours: limits of memory, processor and processes cannot be enforced",
            "systemd-run --user --scope -p Delegate=yes layerfs ...",
        ),
    }
}

/// How many files a server may have open.
pub(super) fn descriptors() -> Check {
    open_files(getrlimit(Resource::Nofile).maximum)
}

fn open_files(maximum: Option<u64>) -> Check {
    const NAME: &str = "open files";
    match maximum {
        Some(maximum) if maximum < DESCRIPTORS_WANTED => Check::warning(
            NAME,
            format!("at most {maximum}: large images may run out of them"),
            format!("ulimit -Hn {DESCRIPTORS_WANTED}    # as root, or in /etc/security/limits.conf"),
        ),
        Some(maximum) => Check::ok(NAME, format!("at most {maximum}")),
        None => Check::ok(NAME, "as many as there are"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn what_can_be_enforced() {
        assert_eq!(groups(None, true, true).outcome, Outcome::Warning);
        assert_eq!(groups(Some("cpu memory\n"), false, false).outcome, Outcome::Warning);
        assert!(groups(Some("cpu memory\n"), true, false).says.ends_with("cpu memory"));
        assert_eq!(groups(Some("cpu"), false, true).outcome, Outcome::Ok);
        assert_eq!(below(Path::new("/c"), "/a/b"), Path::new("/c/a/b"));
    }

    #[test]
    fn how_many_files() {
        assert_eq!(open_files(Some(1024)).outcome, Outcome::Warning);
        assert_eq!(open_files(Some(524_288)).outcome, Outcome::Ok);
        assert_eq!(open_files(None).outcome, Outcome::Ok);
    }
}
