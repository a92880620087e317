//! System call numbers by name, of each architecture whose system calls can be filtered; those of others are there so that a
//! filter can be made, and tested, anywhere.

mod generic;
mod x86_64;

use super::seccomp::Architecture;

/// The number of the system call `name`. A name that the architecture does not have gives `None`: there is nothing to allow or
/// to refuse.
#[must_use]
pub fn number_of(architecture: Architecture, name: &str) -> Option<u32> {
    let table = match architecture {
        Architecture::X86_64 => x86_64::NUMBERS,
        Architecture::Aarch64 | Architecture::Riscv64 => generic::NUMBERS,
    };
    let at = table.binary_search_by_key(&name, |row| row.0).ok()?;
    Some(table.get(at)?.1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use seccompiler::{BpfMap, TargetArch, compile_from_json};

    use super::*;

    #[test]
    fn tables_are_sorted_for_the_search() {
        for table in [x86_64::NUMBERS, generic::NUMBERS] {
            assert!(table.is_sorted_by(|one, next| one.0 < next.0));
        }
        assert_eq!(number_of(Architecture::X86_64, "writes"), None);
        assert_eq!(number_of(Architecture::Aarch64, "open"), None);
    }

    /// The C library's crate has them, too, for the machine that this is built for.
    #[test]
    fn own_numbers_are_the_c_librarys() {
        let own = [
            ("read", libc::SYS_read),
            ("clone", libc::SYS_clone),
            ("clone3", libc::SYS_clone3),
            ("socket", libc::SYS_socket),
            ("personality", libc::SYS_personality),
            ("renameat", libc::SYS_renameat),
            ("newfstatat", libc::SYS_newfstatat),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("mseal", libc::SYS_mseal),
        ];
        for (name, number) in own {
            assert_eq!(number_of(Architecture::OWN, name).map(i64::from), Some(number), "{name}");
        }
    }

    /// The number that a table which others made has, read out of a filter for that call alone.
    fn number_by_seccompiler(architecture: TargetArch, name: &str) -> Option<u32> {
        let text = format!(
            r#"{{"it": {{"mismatch_action": "allow", "match_action": "trap", "filter": [{{"syscall": "{name}"}}]}}}}"#
        );
        let programs: BpfMap = compile_from_json(text.as_bytes(), architecture).ok()?;
        // After the architecture: load the number, and compare it.
        programs["it"].iter().skip(3).find(|one| one.code == 0x15).map(|one| one.k)
    }

    #[test]
    fn every_number_is_that_of_a_table_that_others_made() {
        let mut compared = BTreeMap::new();
        for (architecture, theirs, table) in [
            (Architecture::X86_64, TargetArch::x86_64, x86_64::NUMBERS),
            (Architecture::Aarch64, TargetArch::aarch64, generic::NUMBERS),
            (Architecture::Riscv64, TargetArch::riscv64, generic::NUMBERS),
        ] {
            for (name, number) in table {
                let Some(expected) = number_by_seccompiler(theirs, name) else { continue };
                assert_eq!(*number, expected, "{architecture:?}: {name}");
                *compared.entry(number_of(architecture, "openat")).or_insert(0) += 1;
            }
        }
        // What is missing there is newer than their table, or none of that architecture's.
        assert!(compared[&Some(257)] > 360 && compared[&Some(56)] > 620, "{compared:?}");
    }
}
