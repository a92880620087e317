//! The controllers of control groups, handed on from a group to those in it.

use std::fs;
use std::io;
use std::path::Path;

/// Those that limit or count something here.
pub(super) const OURS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Hands controllers on to the groups in this one, as far as it has them. Each for itself: one that is refused must not keep
/// the others back.
pub(super) fn hand_on(group: &Path, controllers: &[&str]) -> io::Result<()> {
    let has = fs::read_to_string(group.join("cgroup.controllers"))?;
    let gives = fs::read_to_string(group.join("cgroup.subtree_control"))?;
    let mut refused = Ok(());
    for name in controllers {
        if words(&has).any(|word| word == *name) && !words(&gives).any(|word| word == *name) {
            let written = fs::write(group.join("cgroup.subtree_control"), format!("+{name}"));
            refused = refused.and(written);
        }
    }
    refused
}

/// Hands nothing on any more; refused while a group in this one does so itself.
pub(super) fn keep(group: &Path) -> io::Result<()> {
    let gives = fs::read_to_string(group.join("cgroup.subtree_control"))?;
    for name in words(&gives) {
        fs::write(group.join("cgroup.subtree_control"), format!("-{name}"))?;
    }
    Ok(())
}

/// Whether version 1 has this controller, so that version 2 cannot.
pub(super) fn is_of_version_1(controller: &str) -> bool {
    // In version 1 it has another name.
    let name = if controller == "io" { "blkio" } else { controller };
    let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    table
        .lines()
        .any(|line| line.split(':').nth(1).is_some_and(|names| names.split(',').any(|one| one == name)))
}

/// Whether a group has a controller.
pub(super) fn has(group: &Path, controller: &str) -> io::Result<bool> {
    let text = fs::read_to_string(group.join("cgroup.controllers"))?;
    Ok(words(&text).any(|word| word == controller))
}

/// The words of such a file.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_and_is_not_handed_on_yet() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file("cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(file("cgroup.subtree_control"), "cpu\n").unwrap();
        assert!(has(dir.path(), "pids").unwrap() && !has(dir.path(), "io").unwrap());
        hand_on(dir.path(), &["cpu", "io"]).unwrap();
        assert_eq!(fs::read_to_string(file("cgroup.subtree_control")).unwrap(), "cpu\n");
        hand_on(dir.path(), &["cpu", "io", "pids"]).unwrap();
        assert_eq!(fs::read_to_string(file("cgroup.subtree_control")).unwrap(), "+pids");
    }
}
