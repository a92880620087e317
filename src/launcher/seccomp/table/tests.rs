use super::*;
use crate::launcher::seccomp_docker;
use crate::launcher::syscall_filter::tests::run;

const ALLOW: u32 = 0x7FFF_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

fn table() -> Table {
    serde_json::from_str(TABLE).unwrap()
}

fn default_rules(architecture: Architecture) -> (Rules, BTreeMap<u16, Rules>) {
    rules(&table(), architecture, Capabilities::DEFAULT).unwrap()
}

fn admin() -> Capabilities {
    Capabilities::by_name("CAP_SYS_ADMIN").unwrap()
}

fn names(table: &Table) -> Vec<&str> {
    let rows = table.allow_with_capability.iter().map(|row| &row.names);
    let rows = rows.chain(table.refuse.iter().map(|row| &row.names));
    let conditional = table.allow_when.iter().map(|row| &row.name);
    let conditional = conditional.chain(table.refuse_when.iter().map(|row| &row.name));
    let names = table.allow.iter().chain(rows.flatten()).chain(conditional);
    names.map(String::as_str).collect()
}

/// What arm64 never had: programs for it use what came later.
#[rustfmt::skip]
const OF_X86: &[&str] = &[
    "access", "alarm", "arch_prctl", "chmod", "chown", "creat", "dup2", "epoll_create", "epoll_ctl_old", "epoll_wait",
    "epoll_wait_old", "eventfd", "fork", "futimesat", "get_thread_area", "getdents", "getpgrp", "inotify_init", "ioperm", "iopl",
    "lchown", "link", "lstat", "mkdir", "mknod", "modify_ldt", "open", "pause", "pipe", "poll", "readlink", "rename", "rmdir",
    "select", "set_thread_area", "signalfd", "stat", "symlink", "sysfs", "time", "unlink", "uselib", "ustat", "utime", "utimes",
    "vfork",
];

#[test]
fn every_name_of_the_table_is_known() {
    let table = table();
    for name in names(&table) {
        assert!(number_of(Architecture::X86_64, name).is_some(), "{name}");
        let is_here = number_of(Architecture::Aarch64, name).is_some();
        assert_ne!(is_here, OF_X86.contains(&name), "{name}");
    }
}

#[test]
fn what_makes_namespaces_and_mounts_needs_the_capability() {
    for architecture in Architecture::ALL {
        let number = |name| number_of(architecture, name).unwrap();
        let (allowed, refused) = default_rules(architecture);
        for name in ["unshare", "mount", "umount2", "setns", "open_tree", "move_mount", "pivot_root", "bpf"] {
            assert!(!allowed.contains_key(&number(name)), "{name}");
            assert!(refused[&EPERM].contains_key(&number(name)), "{name}");
        }
        assert!(allowed.contains_key(&number("chroot")));
        let (allowed, refused) = rules(&table(), architecture, admin()).unwrap();
        assert!(allowed.contains_key(&number("unshare")));
        assert!(refused[&EPERM].contains_key(&number("chroot")));
    }
}

#[test]
fn nothing_is_allowed_and_refused_without_condition() {
    for architecture in Architecture::ALL {
        let (allowed, refused) = default_rules(architecture);
        for (number, conditions) in refused.values().flatten() {
            let also = allowed.get(number);
            assert!(
                also.is_none_or(|other| !other.is_empty() && !conditions.is_empty()),
                "{architecture:?} {number}"
            );
        }
    }
}

const NEWUSER: u64 = 0x1000_0000;
const NEWTIME_OF_CLONE3_ONLY: u64 = 0x80;
const THREAD: u64 = 0x003D_0F00;
const GIVES_ENOSYS: u32 = ERRNO | 38;
const GIVES_EPERM: u32 = ERRNO | 1;
const GIVES_EINVAL: u32 = ERRNO | 22;
/// Name, number on x86-64, number on arm64, the first three arguments, the answer.
type Case = (&'static str, Option<u32>, Option<u32>, [u64; 3], u32);

/// By the numbers of each one's own manual: what is expected was written down, not computed from the table.
#[rustfmt::skip]
const CASES: &[Case] = &[
    ("read", Some(0), Some(63), [0; 3], ALLOW),
    ("openat", Some(257), Some(56), [0; 3], ALLOW),
    ("open", Some(2), None, [0; 3], ALLOW),
    ("execve", Some(59), Some(221), [0; 3], ALLOW),
    ("exit_group", Some(231), Some(94), [0; 3], ALLOW),
    ("rename", Some(82), None, [0; 3], ALLOW),
    ("renameat, which is rename(3) on arm64", Some(264), Some(38), [0; 3], ALLOW),
    ("getrlimit", Some(97), Some(163), [0; 3], ALLOW),
    ("setrlimit", Some(160), Some(164), [0; 3], ALLOW),
    ("sync_file_range", Some(277), Some(84), [0; 3], ALLOW),
    ("fchmodat2", Some(452), Some(452), [0; 3], ALLOW),
    ("statx", Some(332), Some(291), [0; 3], ALLOW),
    ("rseq", Some(334), Some(293), [0; 3], ALLOW),
    ("arch_prctl", Some(158), None, [0; 3], ALLOW),
    ("mount", Some(165), Some(40), [0; 3], GIVES_EPERM),
    ("umount2", Some(166), Some(39), [0; 3], GIVES_EPERM),
    ("pivot_root", Some(155), Some(41), [0; 3], GIVES_EPERM),
    ("unshare", Some(272), Some(97), [NEWUSER, 0, 0], GIVES_EPERM),
    ("setns", Some(308), Some(268), [0; 3], GIVES_EPERM),
    ("open_tree", Some(428), Some(428), [0; 3], GIVES_EPERM),
    ("move_mount", Some(429), Some(429), [0; 3], GIVES_EPERM),
    ("fsopen", Some(430), Some(430), [0; 3], GIVES_EPERM),
    ("mount_setattr", Some(442), Some(442), [0; 3], GIVES_EPERM),
    ("open_tree_attr, newer than the table", Some(467), Some(467), [0; 3], GIVES_ENOSYS),
    ("bpf", Some(321), Some(280), [0; 3], GIVES_EPERM),
    ("perf_event_open", Some(298), Some(241), [0; 3], GIVES_EPERM),
    ("kexec_load", Some(246), Some(104), [0; 3], GIVES_EPERM),
    ("init_module", Some(175), Some(105), [0; 3], GIVES_EPERM),
    ("userfaultfd", Some(323), Some(282), [0; 3], GIVES_EPERM),
    ("open_by_handle_at", Some(304), Some(265), [0; 3], GIVES_EPERM),
    ("settimeofday", Some(164), Some(170), [0; 3], GIVES_EPERM),
    ("iopl", Some(172), None, [3, 0, 0], GIVES_EPERM),
    ("add_key", Some(248), Some(217), [0; 3], GIVES_ENOSYS),
    ("request_key", Some(249), Some(218), [0; 3], GIVES_ENOSYS),
    ("io_uring_setup", Some(425), Some(425), [0; 3], GIVES_ENOSYS),
    ("clone3", Some(435), Some(435), [0; 3], GIVES_ENOSYS),
    ("clone of a process", Some(56), Some(220), [17, 0, 0], ALLOW),
    ("clone of a thread", Some(56), Some(220), [THREAD, 0, 0], ALLOW),
    ("clone with a bit of its exit signal", Some(56), Some(220), [NEWTIME_OF_CLONE3_ONLY | 17, 0, 0], ALLOW),
    ("clone, user", Some(56), Some(220), [NEWUSER | 17, 0, 0], GIVES_EPERM),
    ("clone, mount", Some(56), Some(220), [0x0002_0000 | 17, 0, 0], GIVES_EPERM),
    ("clone, cgroup", Some(56), Some(220), [0x0200_0000, 0, 0], GIVES_EPERM),
    ("clone, uts", Some(56), Some(220), [0x0400_0000, 0, 0], GIVES_EPERM),
    ("clone, ipc", Some(56), Some(220), [0x0800_0000, 0, 0], GIVES_EPERM),
    ("clone, pid", Some(56), Some(220), [0x2000_0000, 0, 0], GIVES_EPERM),
    ("clone, net", Some(56), Some(220), [0x4000_0000, 0, 0], GIVES_EPERM),
    ("clone, user, with high bits", Some(56), Some(220), [1 << 32 | NEWUSER, 0, 0], GIVES_EPERM),
    ("personality, none", Some(135), Some(92), [0, 0, 0], ALLOW),
    ("personality, asked", Some(135), Some(92), [0xFFFF_FFFF, 0, 0], ALLOW),
    ("personality, 32 bits", Some(135), Some(92), [8, 0, 0], ALLOW),
    ("personality, no randomization", Some(135), Some(92), [0x0004_0000, 0, 0], GIVES_ENOSYS),
    ("personality, readable is executable", Some(135), Some(92), [0x0040_0000, 0, 0], GIVES_ENOSYS),
    ("socket, inet", Some(41), Some(198), [2, 1, 0], ALLOW),
    ("socket, vsock", Some(41), Some(198), [40, 1, 0], GIVES_EPERM),
    ("socket, vsock, with high bits", Some(41), Some(198), [1 << 32 | 40, 1, 0], GIVES_EPERM),
    ("socket, netlink route", Some(41), Some(198), [16, 3, 0], ALLOW),
    ("socket, netlink audit", Some(41), Some(198), [16, 3, 9], GIVES_EINVAL),
    ("ptrace", Some(101), Some(117), [0; 3], ALLOW),
    ("none at all", Some(600), Some(600), [0; 3], GIVES_ENOSYS),
    ("of x32", Some(0x4000_0000 + 59), Some(0x4000_0000 + 221), [0; 3], GIVES_ENOSYS),
    ("of x32, exec", Some(0x4000_0208), Some(0x4000_0208), [0; 3], GIVES_ENOSYS),
    ("beyond", Some(u32::MAX), Some(u32::MAX), [0; 3], GIVES_ENOSYS),
];

#[test]
fn answers_of_both_architectures() {
    let of = |architecture| filter(architecture, Capabilities::DEFAULT, Users::Own).unwrap();
    let (x86, arm) = (of(Architecture::X86_64), of(Architecture::Aarch64));
    for (name, on_x86, on_arm, [first, second, third], expected) in CASES {
        let arguments = [*first, *second, *third, 0, 0, 0];
        for (filter, number, own) in [(&x86, on_x86, 0xC000_003E), (&arm, on_arm, 0xC000_00B7)] {
            let Some(number) = *number else { continue };
            assert_eq!(run(filter, own, number, arguments), *expected, "{name} {own:x}");
            // 32 bits of x86 and of arm, both in their other byte order, each other, riscv64, none.
            for other in
                [0x4000_0003, 0x4000_0028, 0x8000_003E, 0x8000_00B7, 0xC000_003E, 0xC000_00B7, 0xC000_00F3, 0]
            {
                if other != own {
                    assert_eq!(run(filter, other, number, arguments), KILL_PROCESS, "{name} {other:x}");
                }
            }
        }
    }
}

#[test]
fn clone3_hides_its_flags_from_a_filter_so_it_does_not_exist() {
    for architecture in Architecture::ALL {
        let (allowed, refused) = default_rules(architecture);
        let number = number_of(architecture, "clone3").unwrap();
        assert!(!allowed.contains_key(&number));
        assert!(refused.values().all(|rules| !rules.contains_key(&number)));
    }
}

#[test]
fn the_callers_keys_are_out_of_reach() {
    for architecture in Architecture::ALL {
        let answer = |users, name| {
            let filter = filter(architecture, Capabilities::DEFAULT, users).unwrap();
            run(&filter, architecture.audit_number(), number_of(architecture, name).unwrap(), [0; 6])
        };
        assert_eq!((answer(Users::Own, "keyctl"), answer(Users::Callers, "keyctl")), (ALLOW, ERRNO | 38));
        assert_eq!((answer(Users::Own, "kill"), answer(Users::Callers, "kill")), (ALLOW, ALLOW));
    }
}

/// As the installed podman has it, which is a table that others wrote.
#[test]
fn podmans_table_says_the_same() {
    // As strict as docker.
    #[rustfmt::skip]
    const STRICTER: &[&str] = &[
        "clone", "clone3", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree",
        "pivot_root", "quotactl_fd", "setns", "socket", "syslog", "umount2", "unshare",
    ];
    // What podman allows from a later version on, and what it refuses where ours says that there is no such thing.
    const OTHERS: &[&str] = &["fchmodat2", "futex_waitv", "mseal", "io_pgetevents", "query_module"];
    let Ok(text) = std::fs::read_to_string("/usr/share/containers/seccomp.json") else { return };
    for architecture in Architecture::ALL {
        let ours = filter(architecture, Capabilities::DEFAULT, Users::Own).unwrap();
        let theirs = seccomp_docker::filter(&text, architecture, Capabilities::DEFAULT).unwrap();
        let known = STRICTER.iter().chain(OTHERS).filter_map(|name| number_of(architecture, name));
        let known: Vec<u32> = known.collect();
        let mut differ = Vec::new();
        for number in (0..600).filter(|number| !known.contains(number)) {
            for first in [0, 8, 0x0002_0000, 0x0004_0000, 0xFFFF_FFFF, 17] {
                let answer =
                    |filter| run(filter, architecture.audit_number(), number, [first, 0, 0, 0, 0, 0]);
                if answer(&ours) != answer(&theirs) {
                    differ.push((number, answer(&ours), answer(&theirs)));
                    break;
                }
            }
        }
        assert_eq!(differ, [], "{architecture:?}");
    }
}

/// The same table in the hands of a compiler that others wrote: one filter for what is allowed, then one for each errno.
fn by_seccompiler(
    architecture: Architecture,
    allowed: &Rules,
    refused: &BTreeMap<u16, Rules>,
) -> Vec<Vec<Instruction>> {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };
    let target = match architecture {
        Architecture::X86_64 => TargetArch::x86_64,
        Architecture::Aarch64 => TargetArch::aarch64,
        Architecture::Riscv64 => TargetArch::riscv64,
    };
    let condition = |one: &Condition| {
        let operator = match (one.mask, one.operator) {
            (0xFFFF_FFFF, Operator::Equal) => SeccompCmpOp::Eq,
            (0xFFFF_FFFF, _) => SeccompCmpOp::Ne,
            (mask, _) => SeccompCmpOp::MaskedEq(mask),
        };
        SeccompCondition::new(one.index, SeccompCmpArgLen::Dword, operator, one.value).unwrap()
    };
    let rule = |all_of: &Vec<Condition>| SeccompRule::new(all_of.iter().map(condition).collect()).unwrap();
    let program = |rules: &Rules, otherwise, matched| {
        let rules =
            rules.iter().map(|(number, any_of)| (i64::from(*number), any_of.iter().map(rule).collect()));
        let filter = SeccompFilter::new(rules.collect(), otherwise, matched, target).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        program.iter().map(|one| Instruction { code: one.code, jt: one.jt, jf: one.jf, k: one.k }).collect()
    };
    let mut programs = vec![program(allowed, SeccompAction::Errno(ENOSYS.into()), SeccompAction::Allow)];
    for (errno, rules) in refused {
        programs.push(program(rules, SeccompAction::Allow, SeccompAction::Errno((*errno).into())));
    }
    programs
}

/// Several filters: the most severe answer counts, of equally severe ones that of the filter installed last (seccomp(2)).
fn strictest(programs: &[Vec<Instruction>], own: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut answers = programs.iter().rev().map(|one| run(one, own, number, arguments));
    let first = answers.next().unwrap();
    answers.fold(first, |kept, next| if next & 0xFFFF_0000 < kept & 0xFFFF_0000 { next } else { kept })
}

#[test]
fn it_says_what_seccompiler_says() {
    let values: Vec<u64> = (0..32).map(|bit| 1 << bit).chain([0, 8, 9, 16, 40, 0x20008, u64::MAX]).collect();
    let pairs = Architecture::ALL.map(|one| [(one, Capabilities::DEFAULT), (one, admin())]);
    for (architecture, capabilities) in pairs.into_iter().flatten() {
        let own = architecture.audit_number();
        let (allowed, refused) = rules(&table(), architecture, capabilities).unwrap();
        let theirs = by_seccompiler(architecture, &allowed, &refused);
        assert_eq!(theirs.len(), 3);
        let ours = filter(architecture, capabilities, Users::Own).unwrap();
        assert!(ours.len() < 400, "{} instructions", ours.len());
        let check = |number: u32, first: u64, third: u64| {
            let arguments = [first, first, third, first, third, first];
            let expected = strictest(&theirs, own, number, arguments);
            assert_eq!(run(&ours, own, number, arguments), expected, "{number} {arguments:x?}");
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
