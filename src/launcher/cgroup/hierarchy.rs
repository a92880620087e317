//! Where control groups of version 2 are, which one is ours, and what we may do with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::controllers::words;
use crate::sys::mount_table;

/// The tree of control groups of version 2, as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Where it is mounted.
    pub(super) top: PathBuf,
    /// Which of the groups is shown there.
    shown: PathBuf,
    /// The group that this process is in.
    pub(super) own: PathBuf,
}

impl Hierarchy {
    /// `None` when there is none. All paths are looked for below `root`.
    pub(super) fn find(root: &Path) -> io::Result<Option<Self>> {
        let mounts = fs::read(root.join("proc/self/mountinfo"))?;
        let Some((top, shown)) = mount_table::cgroup2_in(&mounts) else { return Ok(None) };
        let Ok(below) = top.strip_prefix("/") else { return Ok(None) };
        let top = root.join(below);
        let Some(own) = group_in(&fs::read_to_string(root.join("proc/self/cgroup"))?) else {
            return Ok(None);
        };
        let found = Self { own: top.clone(), top, shown };
        Ok(found.directory_of(&own).map(|own| Self { own, ..found }))
    }

    /// The directory of a group as /proc says it; `None` when that is not shown.
    pub(super) fn directory_of(&self, group: &Path) -> Option<PathBuf> {
        let below = group.strip_prefix(&self.shown).ok()?;
        // A group outside of our namespace.
        let is_plain = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        is_plain.then(|| self.top.join(below))
    }

    /// The group that a process is in.
    pub(super) fn of_process(&self, pid: i32) -> io::Result<Option<PathBuf>> {
        let group = group_in(&fs::read_to_string(format!("/proc/{pid}/cgroup"))?);
        Ok(group.and_then(|group| self.directory_of(&group)))
    }

    /// Whether the top is the root of all groups, which may have processes beside groups with controllers. Only that one has no
    /// type.
    pub(super) fn shows_everything(&self) -> bool {
        !self.top.join("cgroup.type").exists()
    }
}

/// The group of version 2 in a table of proc_pid_cgroup(5).
fn group_in(table: &str) -> Option<PathBuf> {
    let path = table.lines().find_map(|line| line.strip_prefix("0::"))?;
    // So a group is shown that was removed.
    (!path.ends_with(" (deleted)")).then(|| PathBuf::from(path))
}

/// Whether systemd has handed this group over to whoever runs in it.
pub(super) fn is_delegated(group: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        matches!(rustix::fs::getxattr(group, *name, &mut value[..]), Ok(1) if value[0] == b'1')
    })
}

/// Whether we may make groups in this one, and move processes there from it.
pub(super) fn is_ours(group: &Path) -> bool {
    use rustix::fs::Access;
    rustix::fs::access(group, Access::WRITE_OK).is_ok()
        && rustix::fs::access(group.join("cgroup.procs"), Access::WRITE_OK).is_ok()
}

/// The processes of a group itself; 0 is one of another pid namespace.
pub(super) fn processes(group: &Path) -> io::Result<Vec<i32>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    Ok(words(&text).filter_map(|word| word.parse().ok()).collect())
}

/// Whether this process, what it has started, and the one that waits for it in the foreground are all that is in a group itself.
pub(super) fn has_only_us(group: &Path) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let program = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let waits = parent_of(own).filter(|pid| program(*pid).is_some_and(|exe| Some(exe) == program(own)));
    let ours = |pid: &i32| *pid == own || Some(*pid) == waits || parent_of(*pid) == Some(own);
    processes(group).is_ok_and(|there| there.iter().all(ours))
}

fn parent_of(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(mounts: &str, own: &str) -> (tempfile::TempDir, Option<Hierarchy>) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/self/mountinfo"), mounts).unwrap();
        fs::write(root.path().join("proc/self/cgroup"), own).unwrap();
        let found = Hierarchy::find(root.path()).unwrap();
        (root, found)
    }

    const PURE: &str = "24 22 0:20 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn where_we_are() {
        let (root, found) = host(PURE, "0::/user.slice/a.scope\n");
        let found = found.unwrap();
        let top = root.path().join("sys/fs/cgroup");
        assert_eq!((&found.top, &found.own), (&top, &top.join("user.slice/a.scope")));
        assert!(found.shows_everything());
        fs::create_dir_all(&top).unwrap();
        fs::write(top.join("cgroup.type"), "domain\n").unwrap();
        assert!(!found.shows_everything());
    }

    #[test]
    fn hybrid_and_version_1() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let (root, found) = host(hybrid, "4:memory:/x\n0::/\n");
        assert_eq!(found.unwrap().own, root.path().join("sys/fs/cgroup/unified"));
        let (_root, found) = host(hybrid.lines().next().unwrap(), "4:memory:/x\n");
        assert_eq!(found, None);
    }

    #[test]
    fn a_part_of_the_tree_is_mounted() {
        let part = PURE.replace(" / /sys", " /docker/1 /sys");
        let (root, found) = host(&part, "0::/docker/1/x\n");
        let found = found.unwrap();
        let top = root.path().join("sys/fs/cgroup");
        assert_eq!(found.own, top.join("x"));
        assert_eq!(found.directory_of(Path::new("/docker/2")), None);
        assert_eq!(found.directory_of(Path::new("/docker/1/../2")), None);
        // Ours is not shown.
        assert_eq!(host(&part, "0::/elsewhere\n").1, None);
        assert_eq!(host(PURE, "0::/../x\n").1, None);
        assert_eq!(host(PURE, "0::/x (deleted)\n").1, None);
    }
}
