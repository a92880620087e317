//! The default system call filter: a table (`seccomp_profile.json`), and what it says of each system call.
//!
//! The table says what podman's default profile says (containers-common, Apache-2.0), and is as strict as docker's about what
//! makes namespaces and mounts. What it does not name gives ENOSYS, so that programs fall back as on an older kernel. A system
//! call of another architecture than our own ends the process.

pub(super) mod oci;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::capabilities::Capabilities;
use super::plan::{Plan, Seccomp};
use super::seccomp_docker;
use super::syscall_filter::{self, Condition, Operator, Ruling, TooLong, Width};
use crate::sys::seccomp::{Answer, Instruction};
use crate::sys::syscall_numbers::number_of;

const TABLE: &str = include_str!("seccomp_profile.json");
/// ENOSYS and EPERM as every architecture that we build for numbers them.
const ENOSYS: u16 = 38;
const EPERM: u16 = 1;
/// A system call has no more.
pub(super) const ARGUMENTS: u8 = 6;

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
    any_of: Vec<Vec<ConditionRow>>,
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
    errno: u16,
    names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusedWhen {
    errno: u16,
    name: String,
    any_of: Vec<Vec<ConditionRow>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionRow {
    index: u8,
    mask: Option<u32>,
    equals: Option<u32>,
    differs: Option<u32>,
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
    /// The kernel does not take so much.
    #[error("seccomp profile: {0}")]
    TooLong(#[from] TooLong),
    /// It asks for what there is not.
    #[error("seccomp profile: {0}")]
    Unsupported(String),
}

/// Of each system call the conditions of which one must hold; none: it is always meant.
type Rules = BTreeMap<u32, Vec<Vec<Condition>>>;

/// The filter that a plan has, if any.
pub(super) fn filter_of(plan: &Plan) -> Result<Option<Vec<Instruction>>, ProfileError> {
    match &plan.seccomp {
        Seccomp::Default => filter(plan.capabilities).map(Some),
        Seccomp::Unconfined => Ok(None),
        Seccomp::Profile(text) => seccomp_docker::filter(text, plan.capabilities).map(Some),
    }
}

/// What a plan's filter is in the configuration of an OCI runtime, if there is one.
pub(super) fn oci_of(plan: &Plan) -> Result<Option<serde_json::Value>, ProfileError> {
    match &plan.seccomp {
        Seccomp::Default => oci::of_table(plan.capabilities).map(Some),
        Seccomp::Unconfined => Ok(None),
        Seccomp::Profile(text) => seccomp_docker::oci(text, plan.capabilities).map(Some),
    }
}

/// The filter for a process with these capabilities.
pub(super) fn filter(capabilities: Capabilities) -> Result<Vec<Instruction>, ProfileError> {
    let table: Table = serde_json::from_str(TABLE)?;
    let (allowed, refused) = rules(&table, capabilities)?;
    Ok(syscall_filter::compile(&rulings(&allowed, &refused), Answer::Errno(ENOSYS))?)
}

/// What refuses comes before what allows, and of two errnos the higher one first.
fn rulings(allowed: &Rules, refused: &BTreeMap<u16, Rules>) -> BTreeMap<u32, Ruling> {
    let lists = refused.iter().rev().map(|(errno, rules)| (Answer::Errno(*errno), rules));
    let lists: Vec<(Answer, &Rules)> = lists.chain([(Answer::Allow, allowed)]).collect();
    let numbers = lists.iter().flat_map(|(_, rules)| rules.keys());
    numbers.map(|number| (*number, ruling(*number, &lists))).collect()
}

fn ruling(number: u32, lists: &[(Answer, &Rules)]) -> Ruling {
    let mut cases = Vec::new();
    for (answer, rules) in lists {
        match rules.get(&number).map(Vec::as_slice) {
            None => {}
            Some([]) => return Ruling { cases, otherwise: *answer },
            Some(any_of) => cases.extend(any_of.iter().map(|all_of| (all_of.clone(), *answer))),
        }
    }
    Ruling { cases, otherwise: Answer::Errno(ENOSYS) }
}

/// What is allowed, and what gets which errno.
fn rules(table: &Table, capabilities: Capabilities) -> Result<(Rules, BTreeMap<u16, Rules>), ProfileError> {
    let mut allowed = Rules::new();
    let mut refused = BTreeMap::<u16, Rules>::new();
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

fn add_all(rules: &mut Rules, names: &[String]) {
    for number in names.iter().filter_map(|name| number_of(name)) {
        rules.insert(number, Vec::new());
    }
}

fn add_when(rules: &mut Rules, name: &str, any_of: &[Vec<ConditionRow>]) -> Result<(), ProfileError> {
    let Some(number) = number_of(name) else { return Ok(()) };
    let alternatives = rules.entry(number).or_default();
    for all_of in any_of {
        let conditions: Result<_, _> = all_of.iter().map(|row| condition(name, row)).collect();
        alternatives.push(conditions?);
    }
    Ok(())
}

/// The kernel looks at the low 32 bits of all arguments that the table names: they are `int`s or `unsigned int`s, except the
/// flags of clone, whose namespace bits are low too.
fn condition(name: &str, row: &ConditionRow) -> Result<Condition, ProfileError> {
    let (mask, value, operator) = match (row.mask, row.equals, row.differs) {
        (None, Some(value), None) => (u32::MAX, value, Operator::Equal),
        (None, None, Some(value)) => (u32::MAX, value, Operator::NotEqual),
        (Some(mask), Some(value), None) => (mask, value, Operator::Equal),
        _ => return Err(ProfileError::Condition { name: name.to_owned(), index: row.index }),
    };
    if row.index >= ARGUMENTS {
        return Err(ProfileError::Condition { name: name.to_owned(), index: row.index });
    }
    Ok(Condition { index: row.index, width: Width::Low, mask: mask.into(), operator, value: value.into() })
}

#[cfg(test)]
mod tests {
    use super::super::syscall_filter::tests::run;
    use super::*;
    use crate::sys::seccomp::ARCHITECTURE;

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

    /// The same table in the hands of a compiler that others wrote: one filter for what is allowed, then one for each errno.
    fn by_seccompiler(allowed: &Rules, refused: &BTreeMap<u16, Rules>) -> Vec<Vec<Instruction>> {
        use seccompiler::{
            BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
            SeccompRule, TargetArch,
        };
        let condition = |one: &Condition| {
            let operator = match (one.mask, one.operator) {
                (0xFFFF_FFFF, Operator::Equal) => SeccompCmpOp::Eq,
                (0xFFFF_FFFF, _) => SeccompCmpOp::Ne,
                (mask, _) => SeccompCmpOp::MaskedEq(mask),
            };
            SeccompCondition::new(one.index, SeccompCmpArgLen::Dword, operator, one.value).unwrap()
        };
        let rule =
            |all_of: &Vec<Condition>| SeccompRule::new(all_of.iter().map(condition).collect()).unwrap();
        let program = |rules: &Rules, otherwise, matched| {
            let rules =
                rules.iter().map(|(number, any_of)| (i64::from(*number), any_of.iter().map(rule).collect()));
            let architecture = TargetArch::try_from(std::env::consts::ARCH).unwrap();
            let filter = SeccompFilter::new(rules.collect(), otherwise, matched, architecture).unwrap();
            let program: BpfProgram = filter.try_into().unwrap();
            program
                .iter()
                .map(|one| Instruction { code: one.code, jt: one.jt, jf: one.jf, k: one.k })
                .collect()
        };
        let mut programs = vec![program(allowed, SeccompAction::Errno(ENOSYS.into()), SeccompAction::Allow)];
        for (errno, rules) in refused {
            programs.push(program(rules, SeccompAction::Allow, SeccompAction::Errno((*errno).into())));
        }
        programs
    }

    /// Several filters: the most severe answer counts, of equally severe ones that of the filter installed last (seccomp(2)).
    fn strictest(programs: &[Vec<Instruction>], number: u32, arguments: [u64; 6]) -> u32 {
        let mut answers = programs.iter().rev().map(|one| run(one, ARCHITECTURE, number, arguments));
        let first = answers.next().unwrap();
        answers.fold(first, |kept, next| if next & 0xFFFF_0000 < kept & 0xFFFF_0000 { next } else { kept })
    }

    #[test]
    fn it_says_what_seccompiler_says() {
        let values: Vec<u64> =
            (0..32).map(|bit| 1 << bit).chain([0, 8, 9, 16, 40, 0x20008, u64::MAX]).collect();
        for capabilities in [Capabilities::DEFAULT, Capabilities::by_name("CAP_SYS_ADMIN").unwrap()] {
            let (allowed, refused) = rules(&table(), capabilities).unwrap();
            let theirs = by_seccompiler(&allowed, &refused);
            assert_eq!(theirs.len(), 3);
            let ours = filter(capabilities).unwrap();
            assert!(ours.len() < 400, "{} instructions", ours.len());
            let check = |number: u32, first: u64, third: u64| {
                let arguments = [first, first, third, first, third, first];
                let expected = strictest(&theirs, number, arguments);
                assert_eq!(run(&ours, ARCHITECTURE, number, arguments), expected, "{number} {arguments:x?}");
            };
            for number in (0..600).chain([0x4000_0000, 0x4000_0009, u32::MAX]) {
                check(number, 0, 0);
                check(number, u64::MAX, u64::MAX);
            }
            let lists = refused.values().chain([&allowed]).flatten();
            for (number, _) in lists.filter(|(_, any_of)| !any_of.is_empty()) {
                for first in &values {
                    values.iter().for_each(|third| check(*number, *first, *third));
                }
            }
        }
    }
}
