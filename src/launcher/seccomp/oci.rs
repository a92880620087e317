//! The default filter as the configuration of an OCI runtime says it.
//!
//! A rule there has at most one comparison for each argument, and one without a mask looks at all 64 bits, of which the kernel
//! looks at 32. So each condition is a masked comparison, and "differs" is taken apart into those that together say it.

use serde_json::{Value, json};

use super::table::{ConditionRow, ENOSYS, EPERM, KEYS, ProfileError, TABLE, Table, Users};
use crate::launcher::capabilities::Capabilities;

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";

/// In libseccomp's words.
#[cfg(target_arch = "x86_64")]
pub(in crate::launcher) const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";
/// In libseccomp's words.
#[cfg(target_arch = "aarch64")]
pub(in crate::launcher) const ARCHITECTURE: &str = "SCMP_ARCH_AARCH64";
/// In libseccomp's words.
#[cfg(target_arch = "riscv64")]
pub(in crate::launcher) const ARCHITECTURE: &str = "SCMP_ARCH_RISCV64";

/// Bits of an argument that count, and what they have to be.
type Bits = (u32, u32);

/// The filter for a process with these capabilities.
pub(super) fn of_table(capabilities: Capabilities, users: Users) -> Result<Value, ProfileError> {
    let mut table: Table = serde_json::from_str(TABLE)?;
    table.allow.retain(|name| users == Users::Own || name != KEYS);
    let mut rules = vec![json!({"names": table.allow, "action": ALLOW})];
    for row in &table.allow_with_capability {
        let needed = Capabilities::by_name(&row.capability)
            .ok_or_else(|| ProfileError::Capability(row.capability.clone()))?;
        rules.push(if capabilities.contains(needed) {
            json!({"names": row.names, "action": ALLOW})
        } else {
            json!({"names": row.names, "action": ERRNO, "errnoRet": EPERM})
        });
    }
    for row in &table.refuse {
        rules.push(json!({"names": row.names, "action": ERRNO, "errnoRet": row.errno}));
    }
    for row in &table.allow_when {
        for args in alternatives(&row.name, &row.any_of)? {
            rules.push(json!({"names": [row.name], "action": ALLOW, "args": args}));
        }
    }
    for row in &table.refuse_when {
        for args in alternatives(&row.name, &row.any_of)? {
            rules.push(json!({"names": [row.name], "action": ERRNO, "errnoRet": row.errno, "args": args}));
        }
    }
    Ok(json!({
        "defaultAction": ERRNO,
        "defaultErrnoRet": ENOSYS,
        "architectures": [ARCHITECTURE],
        "syscalls": rules,
    }))
}

/// The arguments of rules of which one must apply.
fn alternatives(name: &str, any_of: &[Vec<ConditionRow>]) -> Result<Vec<Vec<Value>>, ProfileError> {
    let mut rules = Vec::new();
    for all_of in any_of {
        let mut together = vec![Vec::new()];
        let mut indices: Vec<u8> = all_of.iter().map(|row| row.index).collect();
        indices.sort_unstable();
        indices.dedup();
        for index in indices {
            let rows: Vec<&ConditionRow> = all_of.iter().filter(|row| row.index == index).collect();
            let bits = bits(&rows).ok_or_else(|| ProfileError::Condition { name: name.to_owned(), index })?;
            let with = |before: &Vec<Value>| {
                let before = before.clone();
                let one = |&(mask, value): &Bits| {
                    let arg = json!({
                        "index": index, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value,
                    });
                    before.iter().cloned().chain([arg]).collect::<Vec<Value>>()
                };
                bits.iter().map(one).collect::<Vec<_>>()
            };
            together = together.iter().flat_map(with).collect();
        }
        rules.extend(together);
    }
    Ok(rules)
}

/// What an argument has to be, of which one is enough.
fn bits(rows: &[&ConditionRow]) -> Option<Vec<Bits>> {
    if let [ConditionRow { mask, equals: Some(value), differs: None, .. }] = rows {
        return Some(vec![(mask.unwrap_or(u32::MAX), *value)]);
    }
    let differs = |row: &&ConditionRow| match (row.mask, row.equals, row.differs) {
        (None, None, Some(value)) => Some(value),
        _ => None,
    };
    let values: Vec<u32> = rows.iter().map(differs).collect::<Option<_>>()?;
    let mut found = Vec::new();
    all_but(&values, (0, 0), &mut found);
    Some(found)
}

/// The numbers that begin with these bits, but for some, as ranges that each have a beginning in common.
fn all_but(values: &[u32], (mask, value): Bits, found: &mut Vec<Bits>) {
    if !values.iter().any(|one| one & mask == value) {
        found.push((mask, value));
    } else if mask != u32::MAX {
        let next = 1 << 31 >> mask.count_ones();
        all_but(values, (mask | next, value), found);
        all_but(values, (mask | next, value | next), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(args: &[Vec<Value>], arguments: [u32; 3]) -> usize {
        let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
        let holds = |arg: &Value| {
            let argument = arguments[usize::try_from(arg["index"].as_u64().unwrap()).unwrap()];
            argument & number(&arg["value"]) == number(&arg["valueTwo"])
        };
        args.iter().filter(|all_of| all_of.iter().all(holds)).count()
    }

    #[test]
    fn it_says_what_our_own_filter_says() {
        let table: Table = serde_json::from_str(TABLE).unwrap();
        let direct = |any_of: &[Vec<ConditionRow>], arguments: [u32; 3]| {
            let holds = |row: &ConditionRow| {
                let bits = arguments[usize::from(row.index)] & row.mask.unwrap_or(u32::MAX);
                row.equals.is_none_or(|value| bits == value) && row.differs.is_none_or(|value| bits != value)
            };
            any_of.iter().any(|all_of| all_of.iter().all(holds))
        };
        let numbers =
            (0..32).flat_map(|bit| [1 << bit, (1 << bit) - 1, (1 << bit) + 9]).chain([40, u32::MAX]);
        let numbers: Vec<u32> = numbers.collect();
        let rows = table.allow_when.iter().map(|row| (&row.name, &row.any_of));
        for (name, any_of) in rows.chain(table.refuse_when.iter().map(|row| (&row.name, &row.any_of))) {
            let args = alternatives(name, any_of).unwrap();
            assert!(args.iter().flatten().all(|arg| arg["op"] == "SCMP_CMP_MASKED_EQ"));
            for first in &numbers {
                for third in &numbers {
                    let arguments = [*first, 0, *third];
                    assert_eq!(says(&args, arguments) > 0, direct(any_of, arguments), "{name} {arguments:?}");
                }
            }
        }
    }

    #[test]
    fn a_rule_compares_an_argument_once() {
        let both = |first, second| {
            let row =
                |index, differs| ConditionRow { index, mask: None, equals: None, differs: Some(differs) };
            alternatives("x", &[vec![row(0, first), row(0, second)]]).unwrap()
        };
        let args = both(40, 16);
        assert!(args.iter().all(|all_of| all_of.len() == 1) && args.len() < 64, "{}", args.len());
        for (number, times) in [(16, 0), (40, 0), (0, 1), (17, 1), (41, 1), (u32::MAX, 1)] {
            assert_eq!(says(&args, [number, 0, 0]), times, "{number}");
        }
        let rows = vec![
            ConditionRow { index: 0, mask: None, equals: Some(1), differs: None },
            ConditionRow { index: 0, mask: None, equals: None, differs: Some(2) },
        ];
        assert!(alternatives("x", &[rows]).is_err());
    }
}
