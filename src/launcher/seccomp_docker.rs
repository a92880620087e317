//! Profiles of system calls in docker's form (moby's `profiles/seccomp`, which podman uses too), as `--security-opt seccomp=FILE`
//! takes them.
//!
//! Nothing in a profile is passed over that could make it stricter: what cannot be honoured is an error. Where several rules
//! apply to a call, the most severe answer counts, as with several filters (seccomp(2)).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::capabilities::Capabilities;
use super::seccomp::oci::ARCHITECTURE;
use super::seccomp::{ARGUMENTS, ProfileError};
use super::syscall_filter::{self, Condition, Operator, Ruling, Width};
use crate::model::image_config::null_as_default;
use crate::sys::seccomp::{Answer, Architecture, Instruction};
use crate::sys::syscall_numbers::number_of;

/// What a rule gives that names no errno.
const EPERM: u16 = 1;
/// The kernel gives no more to a program (`MAX_ERRNO`).
const ERRNO_MAX: u16 = 4095;

/// Fields that say nothing about what is allowed are here by name, so that one with a typing error is noticed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(rename = "defaultErrno")]
    _default_errno: Option<String>,
    #[serde(rename = "architectures")]
    _architectures: Option<Vec<String>>,
    #[serde(rename = "archMap")]
    _arch_map: Option<serde_json::Value>,
    #[serde(rename = "flags")]
    _flags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "null_as_default")]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    /// An older form of `names`.
    name: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(rename = "errno")]
    _errno: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    args: Vec<Argument>,
    #[serde(default, deserialize_with = "null_as_default")]
    includes: Circumstances,
    #[serde(default, deserialize_with = "null_as_default")]
    excludes: Circumstances,
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    value_two: u64,
    op: String,
}

/// When a rule counts.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Circumstances {
    #[serde(default, deserialize_with = "null_as_default")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Whether a profile can be honoured at all.
///
/// # Errors
/// [`ProfileError`]
pub fn check_profile(text: &str) -> Result<(), ProfileError> {
    for capabilities in [Capabilities::NONE, Capabilities::ALL] {
        filter(text, Architecture::OWN, capabilities)?;
    }
    Ok(())
}

/// The filter that a profile means for a process with these capabilities.
pub(super) fn filter(
    text: &str,
    architecture: Architecture,
    capabilities: Capabilities,
) -> Result<Vec<Instruction>, ProfileError> {
    let profile: Profile = serde_json::from_str(text)?;
    let default = answer(&profile.default_action, profile.default_errno_ret)?;
    let mut rules: BTreeMap<u32, Vec<(Answer, Vec<Condition>)>> = BTreeMap::new();
    for rule in &profile.syscalls {
        let answer = answer(&rule.action, rule.errno_ret)?;
        let conditions = rule.args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
        for name in rule.name.iter().chain(&rule.names) {
            let Some(number) = number(architecture, name, answer, default)? else { continue };
            if answer != default && rule.counts(architecture, capabilities)? {
                rules.entry(number).or_default().push((answer, conditions.clone()));
            }
        }
    }
    let rulings = rules.into_iter().map(|(number, rules)| (number, ruling(rules, default)));
    Ok(syscall_filter::compile(architecture, &rulings.collect(), default)?)
}

/// What a profile means for a process with these capabilities, in the configuration of an OCI runtime.
pub(super) fn oci(text: &str, capabilities: Capabilities) -> Result<Value, ProfileError> {
    filter(text, Architecture::OWN, capabilities)?;
    let profile: Profile = serde_json::from_str(text)?;
    let mut rules = Vec::new();
    for rule in profile.syscalls {
        if !rule.counts(Architecture::OWN, capabilities)? {
            continue;
        }
        let names: Vec<String> = rule.name.into_iter().chain(rule.names).collect();
        let arg = |arg: &Argument| json!({"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op});
        let args: Vec<Value> = rule.args.iter().map(arg).collect();
        let mut made = json!({"names": names, "action": rule.action, "args": args});
        if let (Some(errno), "SCMP_ACT_ERRNO") = (rule.errno_ret, rule.action.as_str()) {
            made["errnoRet"] = errno.into();
        }
        rules.push(made);
    }
    let mut made = json!({
        "defaultAction": profile.default_action,
        "architectures": [ARCHITECTURE],
        "syscalls": rules,
    });
    if let (Some(errno), "SCMP_ACT_ERRNO") = (profile.default_errno_ret, profile.default_action.as_str()) {
        made["defaultErrnoRet"] = errno.into();
    }
    Ok(made)
}

/// The number of a call; `None` of one that there is on other machines only.
fn number(
    architecture: Architecture,
    name: &str,
    answer: Answer,
    default: Answer,
) -> Result<Option<u32>, ProfileError> {
    let number = number_of(architecture, name);
    let is_stricter = severity(answer) > severity(default);
    if number.is_none() && is_stricter && !is_of_others(name) {
        let problem = format!("{name:?} is no system call that is known here, so it cannot be refused");
        return Err(ProfileError::Unsupported(problem));
    }
    Ok(number)
}

fn is_of_others(name: &str) -> bool {
    ELSEWHERE.contains(&name)
        || Architecture::ALL.iter().any(|architecture| number_of(*architecture, name).is_some())
}

fn ruling(mut rules: Vec<(Answer, Vec<Condition>)>, default: Answer) -> Ruling {
    rules.sort_by_key(|(answer, _)| std::cmp::Reverse(severity(*answer)));
    let mut cases = Vec::new();
    for (answer, conditions) in rules {
        if conditions.is_empty() {
            return Ruling { cases, otherwise: answer };
        }
        cases.push((conditions, answer));
    }
    Ruling { cases, otherwise: default }
}

/// The order of seccomp(2); of two errnos the higher one.
fn severity(answer: Answer) -> (u8, u16) {
    match answer {
        Answer::Allow => (0, 0),
        Answer::Log => (1, 0),
        Answer::Errno(errno) => (2, errno),
        Answer::Trap => (3, 0),
        Answer::KillThread => (4, 0),
        Answer::KillProcess => (5, 0),
    }
}

fn answer(action: &str, errno: Option<u16>) -> Result<Answer, ProfileError> {
    let errno = errno.unwrap_or(EPERM);
    match action {
        "SCMP_ACT_ALLOW" => Ok(Answer::Allow),
        "SCMP_ACT_LOG" => Ok(Answer::Log),
        "SCMP_ACT_ERRNO" if errno <= ERRNO_MAX => Ok(Answer::Errno(errno)),
        "SCMP_ACT_ERRNO" => Err(ProfileError::Unsupported(format!("there is no errno {errno}"))),
        "SCMP_ACT_TRAP" => Ok(Answer::Trap),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(Answer::KillThread),
        "SCMP_ACT_KILL_PROCESS" => Ok(Answer::KillProcess),
        "SCMP_ACT_TRACE" | "SCMP_ACT_NOTIFY" => {
            Err(ProfileError::Unsupported(format!("{action} needs another process to answer: not supported")))
        }
        _ => Err(ProfileError::Unsupported(format!("unknown action {action:?}"))),
    }
}

fn condition(argument: &Argument) -> Result<Condition, ProfileError> {
    let unsupported = |problem: String| Err(ProfileError::Unsupported(problem));
    if argument.index >= ARGUMENTS {
        return unsupported(format!("a system call has no argument {}", argument.index));
    }
    let (mask, operator, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (u64::MAX, Operator::Equal, argument.value),
        "SCMP_CMP_NE" => (u64::MAX, Operator::NotEqual, argument.value),
        "SCMP_CMP_LT" => (u64::MAX, Operator::Less, argument.value),
        "SCMP_CMP_LE" => (u64::MAX, Operator::LessOrEqual, argument.value),
        "SCMP_CMP_GT" => (u64::MAX, Operator::Greater, argument.value),
        "SCMP_CMP_GE" => (u64::MAX, Operator::GreaterOrEqual, argument.value),
        "SCMP_CMP_MASKED_EQ" => (argument.value, Operator::Equal, argument.value_two),
        other => return unsupported(format!("unknown comparison {other:?}")),
    };
    Ok(Condition { index: argument.index, width: Width::Whole, mask, operator, value })
}

impl Rule {
    fn counts(&self, architecture: Architecture, capabilities: Capabilities) -> Result<bool, ProfileError> {
        let has = |name: &String| {
            let capability = Capabilities::by_name(name);
            let capability = capability.ok_or_else(|| ProfileError::Capability(name.clone()))?;
            Ok::<_, ProfileError>(capabilities.contains(capability))
        };
        for name in &self.includes.caps {
            if !has(name)? {
                return Ok(false);
            }
        }
        for name in &self.excludes.caps {
            if has(name)? {
                return Ok(false);
            }
        }
        let here = |arches: &[String]| arches.iter().any(|arch| arch == name_in_go(architecture));
        if !self.includes.arches.is_empty() && !here(&self.includes.arches) || here(&self.excludes.arches) {
            return Ok(false);
        }
        let reached = |version: &String| kernel_is_at_least(version);
        let included = self.includes.min_kernel.as_ref().map(reached).transpose()?.unwrap_or(true);
        let excluded = self.excludes.min_kernel.as_ref().map(reached).transpose()?.unwrap_or(false);
        Ok(included && !excluded)
    }
}

fn name_in_go(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "amd64",
        Architecture::Aarch64 => "arm64",
        Architecture::Riscv64 => "riscv64",
    }
}

fn kernel_is_at_least(version: &str) -> Result<bool, ProfileError> {
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split(|character: char| !character.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let wrong = || ProfileError::Unsupported(format!("{version:?} is no version of a kernel"));
    let wanted = numbers(version).ok_or_else(wrong)?;
    let running = rustix::system::uname();
    Ok(numbers(&running.release().to_string_lossy()).is_none_or(|running| running >= wanted))
}

/// Calls that only machines have that no filter is for, or their 32 bits: a program here cannot make them.
#[rustfmt::skip]
const ELSEWHERE: &[&str] = &[
    "_llseek", "_newselect", "_sysctl", "afs_syscall", "arm_fadvise64_64", "arm_sync_file_range",
    "bdflush", "break", "breakpoint", "cacheflush", "chown32", "clock_adjtime64", "clock_getres_time64",
    "clock_gettime64", "clock_nanosleep_time64", "clock_settime64", "create_module", "fadvise64_64",
    "fchown32", "fcntl64", "fstat64", "fstatat64", "fstatfs64", "ftime", "ftruncate64", "futex_time64",
    "get_kernel_syms", "get_tls", "getegid32", "geteuid32", "getgid32", "getgroups32", "getpmsg",
    "getresgid32", "getresuid32", "getuid32", "gtty", "idle", "io_pgetevents_time64", "ipc", "lchown32",
    "lock", "lstat64", "mmap2", "mpx", "mq_timedreceive_time64", "mq_timedsend_time64", "nice",
    "oldfstat", "oldlstat", "oldolduname", "oldstat", "olduname", "pciconfig_iobase", "pciconfig_read",
    "pciconfig_write", "ppoll_time64", "prof", "profil", "pselect6_time64", "putpmsg", "query_module",
    "readdir", "recv", "recvmmsg_time64", "riscv_flush_icache", "rt_sigtimedwait_time64", "rtas",
    "s390_guarded_storage", "s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr",
    "s390_sthyi", "sched_rr_get_interval_time64", "security", "semtimedop_time64", "send", "sendfile64",
    "set_tls", "setfsgid32", "setfsuid32", "setgid32", "setgroups32", "setregid32", "setresgid32",
    "setresuid32", "setreuid32", "setuid32", "sgetmask", "sigaction", "signal", "sigpending",
    "sigprocmask", "sigreturn", "sigsuspend", "socketcall", "spu_create", "spu_run", "ssetmask", "stat64",
    "statfs64", "stime", "stty", "subpage_prot", "swapcontext", "switch_endian", "sync_file_range2",
    "sys_debug_setcontext", "timer_gettime64", "timer_settime64", "timerfd_gettime64",
    "timerfd_settime64", "truncate64", "tuxcall", "ugetrlimit", "ulimit", "umount", "usr26", "usr32",
    "utimensat_time64", "vm86", "vm86old", "vserver", "waitpid",
];

#[cfg(test)]
mod tests {
    use super::super::syscall_filter::tests::run;
    use super::*;

    const ALLOW: u32 = 0x7FFF_0000;
    const ERRNO: u32 = 0x0005_0000;

    const OWN: Architecture = Architecture::OWN;

    fn answer_of(filter: &[Instruction], name: &str, arguments: [u64; 6]) -> u32 {
        run(filter, OWN.audit_number(), number_of(OWN, name).unwrap(), arguments)
    }

    #[test]
    fn rules_conditions_and_circumstances() {
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "archMap": [],
            "syscalls": [
                {"names": ["read", "mmap2", "newer_than_we"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "x"},
                {"name": "personality", "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 4294967295, "valueTwo": 0, "op": "SCMP_CMP_GT"}]},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
                {"names": ["kill"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS",
                 "args": [{"index": 1, "value": 255, "valueTwo": 9, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["sync"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["none"]}}
            ]}"#;
        check_profile(text).unwrap();
        let none = filter(text, OWN, Capabilities::NONE).unwrap();
        let say = |name, first, second| answer_of(&none, name, [first, second, 0, 0, 0, 0]);
        assert_eq!((say("read", 0, 0), say("write", 0, 0)), (ALLOW, ERRNO | 38));
        assert_eq!((say("personality", 1 << 32, 0), say("personality", 7, 0)), (ALLOW, ERRNO | 38));
        assert_eq!((say("mount", 0, 0), say("ptrace", 0, 0)), (ERRNO | 1, ALLOW));
        assert_eq!((say("bpf", 0, 0), say("sync", 0, 0)), (ERRNO | 38, ERRNO | 38));
        assert_eq!((say("kill", 1, 15), say("kill", 1, 0x109)), (ALLOW, 0x8000_0000));
        let all = filter(text, OWN, Capabilities::ALL).unwrap();
        assert_eq!(answer_of(&all, "mount", [0; 6]), ALLOW);
    }

    #[test]
    fn what_refuses_some_cannot_be_got_around() {
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
            [{"names": ["mkdir", "mkdirat", "stime"], "action": "SCMP_ACT_ERRNO"}]}"#;
        let filter = filter(text, OWN, Capabilities::NONE).unwrap();
        assert_eq!(answer_of(&filter, "mkdirat", [0; 6]), ERRNO | 1);
        assert_eq!(answer_of(&filter, "read", [0; 6]), ALLOW);
        // By the numbers of x32, and of 32 bits.
        assert_eq!(run(&filter, OWN.audit_number(), 0x4000_0053, [0; 6]), ERRNO | 38);
        assert_eq!(run(&filter, 0x4000_0003, 39, [0; 6]), 0x8000_0000);
    }

    #[test]
    fn what_cannot_be_honoured_is_an_error() {
        let rule = |rule: &str| format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#);
        for (text, told) in [
            ("{".to_owned(), "EOF"),
            (r#"{"defaultAction": "SCMP_ACT_PRAY"}"#.to_owned(), "SCMP_ACT_PRAY"),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscals": []}"#.to_owned(), "syscals"),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#.to_owned(), "listenerPath"),
            (rule(r#"{"names": ["bogus"], "action": "SCMP_ACT_ERRNO"}"#), "bogus"),
            (rule(r#"{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}"#), "SCMP_ACT_NOTIFY"),
            (rule(r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000}"#), "5000"),
            (rule(r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO", "agrs": []}"#), "agrs"),
            (
                rule(
                    r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}"#,
                ),
                "argument 6",
            ),
            (
                rule(
                    r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 0, "op": "=="}]}"#,
                ),
                "==",
            ),
            (
                rule(r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_FLY"]}}"#),
                "CAP_FLY",
            ),
        ] {
            let error = check_profile(&text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn podmans_own_profile() {
        let Ok(text) = std::fs::read_to_string("/usr/share/containers/seccomp.json") else { return };
        let filter = filter(&text, OWN, Capabilities::DEFAULT).unwrap();
        for (name, answer) in
            [("read", ALLOW), ("openat", ALLOW), ("bpf", ERRNO | 1), ("clock_settime", ERRNO | 1)]
        {
            assert_eq!(answer_of(&filter, name, [0; 6]), answer, "{name}");
        }
    }
    #[test]
    fn each_architecture_has_its_own_rules_and_numbers() {
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["sync"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["arm64"]}},
            {"names": ["syncfs"], "action": "SCMP_ACT_ERRNO", "excludes": {"arches": ["arm64", "riscv64"]}}]}"#;
        for architecture in Architecture::ALL {
            let filter = filter(text, architecture, Capabilities::NONE).unwrap();
            let refused: Vec<&str> = ["mkdir", "mkdirat", "sync", "syncfs", "read"]
                .into_iter()
                .filter(|name| {
                    let number = number_of(architecture, name);
                    number.is_some_and(|number| {
                        run(&filter, architecture.audit_number(), number, [0; 6]) == ERRNO | 1
                    })
                })
                .collect();
            let expected: &[&str] = match architecture {
                Architecture::X86_64 => &["mkdir", "mkdirat", "syncfs"],
                Architecture::Aarch64 => &["mkdirat", "sync"],
                Architecture::Riscv64 => &["mkdirat"],
            };
            assert_eq!(refused, expected, "{architecture:?}");
        }
    }
}
