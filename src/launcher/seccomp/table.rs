//! The default filter: a table (`profile.json`), and what it says of each system call.
//!
//! The table says what podman's default profile says (containers-common, Apache-2.0), and is as strict as docker's about what
//! makes namespaces and mounts. What it does not name gives ENOSYS, so that programs fall back as on an older kernel. A system
//! call of another architecture than our own ends the process.
//!
//! This is part of the build script as well, and imports nothing that is not.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::launcher::capabilities::Capabilities;
use crate::launcher::syscall_filter::{self, Condition, Operator, Ruling, TooLong, Width};
use crate::sys::seccomp::{Answer, Architecture, Instruction};
use crate::sys::syscall_numbers::number_of;

pub(super) const TABLE: &str = include_str!("profile.json");
/// ENOSYS and EPERM as every architecture that we build for numbers them.
pub(super) const ENOSYS: u16 = 38;
pub(super) const EPERM: u16 = 1;
/// A system call has no more.
pub(in crate::launcher) const ARGUMENTS: u8 = 6;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) allow: Vec<String>,
    pub(super) allow_when: Vec<Conditional>,
    pub(super) allow_with_capability: Vec<Privileged>,
    pub(super) refuse: Vec<Refused>,
    pub(super) refuse_when: Vec<RefusedWhen>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Conditional {
    pub(super) name: String,
    pub(super) any_of: Vec<Vec<ConditionRow>>,
}

/// Allowed to those who have the capability, EPERM to others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Privileged {
    pub(super) capability: String,
    pub(super) names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refused {
    pub(super) errno: u16,
    pub(super) names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RefusedWhen {
    pub(super) errno: u16,
    pub(super) name: String,
    pub(super) any_of: Vec<Vec<ConditionRow>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConditionRow {
    pub(super) index: u8,
    pub(super) mask: Option<u32>,
    pub(super) equals: Option<u32>,
    pub(super) differs: Option<u32>,
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

/// Whose users those of a container are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Users {
    /// Of a user namespace of its own.
    Own,
    /// Of the namespace that the caller is in, as root's containers have them.
    Callers,
}

/// The keyrings of users belong to their namespace: with that of the caller, a container's root would have the keys of the host's.
pub(super) const KEYS: &str = "keyctl";

/// The filter for a process with these capabilities.
pub(crate) fn filter(
    architecture: Architecture,
    capabilities: Capabilities,
    users: Users,
) -> Result<Vec<Instruction>, ProfileError> {
    let table: Table = serde_json::from_str(TABLE)?;
    let (mut allowed, refused) = rules(&table, architecture, capabilities)?;
    if users == Users::Callers {
        allowed.retain(|number, _| Some(*number) != number_of(architecture, KEYS));
    }
    Ok(syscall_filter::compile(architecture, &rulings(&allowed, &refused), Answer::Errno(ENOSYS))?)
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
fn rules(
    table: &Table,
    architecture: Architecture,
    capabilities: Capabilities,
) -> Result<(Rules, BTreeMap<u16, Rules>), ProfileError> {
    let mut allowed = Rules::new();
    let mut refused = BTreeMap::<u16, Rules>::new();
    let numbers = |names: &[String]| -> Rules {
        let numbers = names.iter().filter_map(|name| number_of(architecture, name));
        numbers.map(|number| (number, Vec::new())).collect()
    };
    allowed.extend(numbers(&table.allow));
    for row in &table.allow_when {
        add_when(&mut allowed, number_of(architecture, &row.name), &row.name, &row.any_of)?;
    }
    for row in &table.allow_with_capability {
        let needed = Capabilities::by_name(&row.capability)
            .ok_or_else(|| ProfileError::Capability(row.capability.clone()))?;
        let rules =
            if capabilities.contains(needed) { &mut allowed } else { refused.entry(EPERM).or_default() };
        rules.extend(numbers(&row.names));
    }
    for row in &table.refuse {
        refused.entry(row.errno).or_default().extend(numbers(&row.names));
    }
    for row in &table.refuse_when {
        let rules = refused.entry(row.errno).or_default();
        add_when(rules, number_of(architecture, &row.name), &row.name, &row.any_of)?;
    }
    Ok((allowed, refused))
}

fn add_when(
    rules: &mut Rules,
    number: Option<u32>,
    name: &str,
    any_of: &[Vec<ConditionRow>],
) -> Result<(), ProfileError> {
    let Some(number) = number else { return Ok(()) };
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
mod tests;
