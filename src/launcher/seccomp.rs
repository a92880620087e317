//! The default system call filter: a table (`seccomp_profile.json`) and its translation into BPF programs.
//!
//! The table says what podman's default profile says (containers-common, Apache-2.0), and is as strict as docker's about what
//! makes namespaces and mounts. What it does not name gives ENOSYS, so that programs fall back as on an older kernel. A system
//! call of another architecture than our own ends the process.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use serde::Deserialize;

use super::capabilities::Capabilities;
use crate::sys::syscall_numbers::number_of;

const TABLE: &str = include_str!("seccomp_profile.json");
/// ENOSYS and EPERM as every architecture that we build for numbers them.
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    allow: Vec<String>,
    allow_when: Vec<Conditional>,
    allow_with_capability: Vec<Privileged>,
    refuse: Vec<Refused>,
    refuse_when: Vec<RefusedWhen>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conditional {
    name: String,
    any_of: Vec<Vec<Condition>>,
}

/// Allowed to those who have the capability, EPERM to others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Privileged {
    capability: String,
    names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    errno: u32,
    names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusedWhen {
    errno: u32,
    name: String,
    any_of: Vec<Vec<Condition>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    index: u8,
    mask: Option<u64>,
    equals: Option<u64>,
    differs: Option<u64>,
}

/// Why there is no filter. Nothing is started then: a missing filter must not go unnoticed.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The table does not parse.
    #[error("seccomp profile: {0}")]
    Table(#[from] serde_json::Error),
    /// It names what does not exist.
    #[error("seccomp profile: no capability {0}")]
    Capability(String),
    /// A condition that says nothing or too much.
    #[error("seccomp profile: bad condition on argument {index} of {name}")]
    Condition {
        /// The system call.
        name: String,
        /// The argument.
        index: u8,
    },
    /// It cannot be made into BPF.
    #[error("seccomp profile: {0}")]
    Translate(#[from] seccompiler::BackendError),
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The programs for a process with these capabilities, in the order in which they are to be installed.
///
/// An allow-list comes first. Each following one gives one errno to what it matches; where two programs disagree on the errno, the
/// kernel takes the one that was installed last.
pub(super) fn programs(capabilities: Capabilities) -> Result<Vec<BpfProgram>, ProfileError> {
    let table: Table = serde_json::from_str(TABLE)?;
    let (allowed, refused) = rules(&table, capabilities)?;
    let mut programs = vec![program(allowed, SeccompAction::Errno(ENOSYS), SeccompAction::Allow)?];
    for (errno, rules) in refused {
        programs.push(program(rules, SeccompAction::Allow, SeccompAction::Errno(errno))?);
    }
    Ok(programs)
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, ProfileError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(rules, otherwise, matched, architecture)?.try_into()?)
}

/// What is allowed, and what gets which errno.
fn rules(table: &Table, capabilities: Capabilities) -> Result<(Rules, BTreeMap<u32, Rules>), ProfileError> {
    let mut allowed = Rules::new();
    let mut refused = BTreeMap::<u32, Rules>::new();
    add_all(&mut allowed, &table.allow);
    for row in &table.allow_when {
        add_when(&mut allowed, &row.name, &row.any_of)?;
    }
    for row in &table.allow_with_capability {
        let needed = Capabilities::by_name(&row.capability)
            .ok_or_else(|| ProfileError::Capability(row.capability.clone()))?;
        if capabilities.contains(needed) {
            add_all(&mut allowed, &row.names);
        } else {
            add_all(refused.entry(EPERM).or_default(), &row.names);
        }
    }
    for row in &table.refuse {
        add_all(refused.entry(row.errno).or_default(), &row.names);
    }
    for row in &table.refuse_when {
        add_when(refused.entry(row.errno).or_default(), &row.name, &row.any_of)?;
    }
    Ok((allowed, refused))
}

/// An empty list of rules matches whatever the arguments are.
fn add_all(rules: &mut Rules, names: &[String]) {
    for number in names.iter().filter_map(|name| number_of(name)) {
        rules.insert(number, Vec::new());
    }
}

fn add_when(rules: &mut Rules, name: &str, any_of: &[Vec<Condition>]) -> Result<(), ProfileError> {
    let Some(number) = number_of(name) else { return Ok(()) };
    let alternatives = rules.entry(number).or_default();
    for all_of in any_of {
        let conditions: Result<Vec<_>, _> = all_of.iter().map(|one| condition(name, one)).collect();
        alternatives.push(SeccompRule::new(conditions?)?);
    }
    Ok(())
}

/// The kernel looks at the low 32 bits of all arguments that the table names: they are `int`s or `unsigned int`s, except the
/// flags of clone, whose namespace bits are low too.
fn condition(name: &str, row: &Condition) -> Result<SeccompCondition, ProfileError> {
    let (operator, value) = match (row.mask, row.equals, row.differs) {
        (None, Some(value), None) => (SeccompCmpOp::Eq, value),
        (None, None, Some(value)) => (SeccompCmpOp::Ne, value),
        (Some(mask), Some(value), None) => (SeccompCmpOp::MaskedEq(mask), value),
        _ => return Err(ProfileError::Condition { name: name.to_owned(), index: row.index }),
    };
    Ok(SeccompCondition::new(row.index, SeccompCmpArgLen::Dword, operator, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        serde_json::from_str(TABLE).unwrap()
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn every_name_of_the_table_is_known() {
        let table = table();
        let names = table
            .allow
            .iter()
            .chain(table.allow_when.iter().map(|row| &row.name))
            .chain(table.allow_with_capability.iter().flat_map(|row| &row.names))
            .chain(table.refuse.iter().flat_map(|row| &row.names))
            .chain(table.refuse_when.iter().map(|row| &row.name));
        for name in names {
            assert!(number_of(name).is_some(), "{name}");
        }
        assert_eq!(number_of("read"), Some(0));
        assert_eq!(number_of("nonsense"), None);
    }

    #[test]
    fn what_makes_namespaces_and_mounts_needs_the_capability() {
        let table = table();
        let (allowed, refused) = rules(&table, Capabilities::DEFAULT).unwrap();
        for name in ["unshare", "mount", "umount2", "setns", "open_tree", "move_mount", "pivot_root", "bpf"] {
            let number = number_of(name).unwrap();
            assert!(!allowed.contains_key(&number), "{name}");
            assert!(refused[&EPERM].contains_key(&number), "{name}");
        }
        assert!(allowed.contains_key(&number_of("chroot").unwrap()));
        let admin = Capabilities::by_name("CAP_SYS_ADMIN").unwrap();
        let (allowed, refused) = rules(&table, admin).unwrap();
        assert!(allowed.contains_key(&number_of("unshare").unwrap()));
        assert!(refused[&EPERM].contains_key(&number_of("chroot").unwrap()));
    }

    #[test]
    fn nothing_is_allowed_and_refused_without_condition() {
        let (allowed, refused) = rules(&table(), Capabilities::DEFAULT).unwrap();
        for (number, conditions) in refused.values().flatten() {
            let also = allowed.get(number);
            assert!(also.is_none_or(|other| !other.is_empty() && !conditions.is_empty()), "{number}");
        }
    }

    #[test]
    fn clone3_hides_its_flags_from_a_filter_so_it_does_not_exist() {
        let (allowed, refused) = rules(&table(), Capabilities::DEFAULT).unwrap();
        let number = number_of("clone3").unwrap();
        assert!(!allowed.contains_key(&number));
        assert!(refused.values().all(|rules| !rules.contains_key(&number)));
    }

    #[test]
    fn it_becomes_bpf_within_the_kernels_limit() {
        let programs = programs(Capabilities::DEFAULT).unwrap();
        assert_eq!(programs.len(), 3);
        assert!(programs.iter().all(|program| program.len() < 4096));
    }
}
