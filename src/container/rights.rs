//! What a container may do beyond, or short of, what every container may.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::launcher::{Capabilities, Plan, Seccomp};

/// What the user asked for; all else is as every container has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// Everything that the container's user namespace allows: all capabilities, no filter, nothing hidden, the host's devices.
    pub privileged: bool,
    /// Capabilities to add.
    pub add: Capabilities,
    /// Capabilities to take away.
    pub drop: Capabilities,
    /// Setuid programs are powerless.
    pub no_new_privileges: bool,
    /// The filter of system calls.
    pub seccomp: Seccomp,
    /// Paths to hide, besides the usual ones.
    pub mask: Vec<PathBuf>,
    /// Of the paths that are usually hidden or read-only, those to leave alone.
    pub unmask: Unmask,
}

/// Which paths are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unmask {
    /// All of them.
    All,
    /// These; `*` stands for any part of a name.
    Paths(Vec<PathBuf>),
}

impl Default for Unmask {
    fn default() -> Self {
        Self::Paths(Vec::new())
    }
}

/// The same capability is to be added and dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--cap-add and --cap-drop both name {0}")]
pub struct Contradiction(String);

impl Rights {
    /// What root of the container may do, by podman's rules: without `ALL` the default set is changed; one `ALL` decides
    /// where to begin.
    ///
    /// # Errors
    /// [`Contradiction`]
    pub fn capabilities(&self) -> Result<Capabilities, Contradiction> {
        let all = Capabilities::ALL;
        let both = self.add.intersection(self.drop);
        match (self.add == all, self.drop == all) {
            (true, true) => Err(Contradiction("ALL".to_owned())),
            (false, true) => Ok(self.add),
            (true, false) => Ok(all.without(self.drop)),
            (false, false) => match both.names().next() {
                Some(name) => Err(Contradiction(name.to_owned())),
                None if self.privileged => Ok(all.without(self.drop)),
                None => Ok(Capabilities::DEFAULT.with(self.add).without(self.drop)),
            },
        }
    }

    /// Puts them into a plan.
    ///
    /// # Errors
    /// [`Contradiction`]
    pub(super) fn apply(&self, plan: &mut Plan) -> Result<(), Contradiction> {
        plan.capabilities = self.capabilities()?;
        plan.capabilities_of_users = self.add.intersection(plan.capabilities);
        plan.no_new_privileges = self.no_new_privileges;
        plan.seccomp = self.seccomp.clone();
        match &self.unmask {
            _ if self.privileged => unmask_all(plan),
            Unmask::All => unmask_all(plan),
            Unmask::Paths(patterns) => {
                let stays = |path: &PathBuf| !patterns.iter().any(|pattern| matches(pattern, path));
                plan.masked_paths.retain(stays);
                plan.read_only_paths.retain(stays);
            }
        }
        if self.privileged {
            plan.writable_sys = true;
            if self.seccomp == Seccomp::Default {
                plan.seccomp = Seccomp::Unconfined;
            }
        }
        plan.masked_paths.extend(self.mask.iter().cloned());
        Ok(())
    }
}

fn unmask_all(plan: &mut Plan) {
    plan.masked_paths.clear();
    plan.read_only_paths.clear();
}

/// Whether a path is meant: name by name, `*` for any part of one. What is above a path means it, too.
fn matches(pattern: &Path, path: &Path) -> bool {
    let mut names = path.components();
    pattern.components().all(|wanted| {
        names.next().is_some_and(|name| {
            matches_name(wanted.as_os_str().as_encoded_bytes(), name.as_os_str().as_encoded_bytes())
        })
    })
}

fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skipped| matches_name(rest, &name[skipped..])),
        Some((letter, rest)) => name.first() == Some(letter) && matches_name(rest, &name[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> Capabilities {
        names.iter().fold(Capabilities::NONE, |set, name| set.with(Capabilities::by_name(name).unwrap()))
    }

    fn result(add: &[&str], drop: &[&str]) -> Result<Capabilities, String> {
        let rights = Rights { add: set(add), drop: set(drop), ..Rights::default() };
        rights.capabilities().map_err(|error| error.to_string())
    }

    #[test]
    fn added_and_dropped() {
        let default = Capabilities::DEFAULT;
        assert_eq!(result(&[], &[]), Ok(default));
        assert_eq!(
            result(&["NET_ADMIN"], &["cap_chown"]),
            Ok(default.with(set(&["NET_ADMIN"])).without(set(&["CHOWN"])))
        );
        assert_eq!(result(&["SYS_TIME"], &["ALL"]), Ok(set(&["SYS_TIME"])));
        assert_eq!(result(&["ALL"], &["SYS_TIME"]), Ok(Capabilities::ALL.without(set(&["SYS_TIME"]))));
        assert!(result(&["ALL"], &["ALL"]).unwrap_err().contains("ALL"));
        assert!(result(&["KILL"], &["KILL"]).unwrap_err().contains("CAP_KILL"));
    }

    #[test]
    fn a_privileged_one_may_all_that_was_not_dropped() {
        let rights = Rights { privileged: true, drop: set(&["MKNOD"]), ..Rights::default() };
        assert_eq!(rights.capabilities(), Ok(Capabilities::ALL.without(set(&["MKNOD"]))));
        let mut plan = Plan::new("0123456789abcdef", "/m".into(), Vec::new());
        rights.apply(&mut plan).unwrap();
        assert!(plan.masked_paths.is_empty() && plan.read_only_paths.is_empty() && plan.writable_sys);
        assert_eq!(plan.seccomp, Seccomp::Unconfined);
    }

    #[test]
    fn some_paths_are_left_alone() {
        let rights = Rights {
            mask: vec!["/proc/version".into()],
            unmask: Unmask::Paths(vec!["/proc/a*".into(), "/proc/sys".into(), "/sys/dev".into()]),
            ..Rights::default()
        };
        let mut plan = Plan::new("0123456789abcdef", "/m".into(), Vec::new());
        rights.apply(&mut plan).unwrap();
        let hidden = |path: &str| plan.masked_paths.contains(&PathBuf::from(path));
        assert!(!hidden("/proc/acpi") && !hidden("/proc/asound") && !hidden("/sys/dev/block"));
        assert!(hidden("/proc/kcore") && hidden("/proc/version"));
        assert!(!plan.read_only_paths.contains(&PathBuf::from("/proc/sys")));
        assert!(plan.read_only_paths.contains(&PathBuf::from("/proc/sysrq-trigger")));
    }
}
