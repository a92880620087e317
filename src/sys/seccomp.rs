//! Filters of system calls (seccomp(2)): their instructions, which are classic BPF (linux/filter.h) over `struct seccomp_data`
//! (linux/seccomp.h), and installing them.

use std::io;

/// One instruction.
pub type Instruction = libc::sock_filter;

/// The most that the kernel takes (`BPF_MAXINSNS`, linux/bpf_common.h).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// A machine whose system calls can be filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `x86_64`
    X86_64,
    /// `aarch64`, that is arm64.
    Aarch64,
    /// `riscv64`
    Riscv64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::X86_64, Self::Aarch64, Self::Riscv64];

    /// The one that this is built for.
    #[cfg(target_arch = "x86_64")]
    pub const OWN: Self = Self::X86_64;
    /// The one that this is built for.
    #[cfg(target_arch = "aarch64")]
    pub const OWN: Self = Self::Aarch64;
    /// The one that this is built for.
    #[cfg(target_arch = "riscv64")]
    pub const OWN: Self = Self::Riscv64;

    /// `AUDIT_ARCH_*` (linux/audit.h): the ELF machine, 64 bits, little-endian.
    #[must_use]
    pub const fn audit_number(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
            Self::Aarch64 => 0xC000_00B7,
            Self::Riscv64 => 0xC000_00F3,
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
compile_error!(
    "containers need a filter of system calls, whose numbers are known of x86-64, arm64 and riscv64 alone"
);

const _: () = assert!(cfg!(target_endian = "little"), "the low half of an argument comes first");

/// What a filter looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The number of the system call.
    Number,
    /// `AUDIT_ARCH_*` of the caller.
    Architecture,
    /// The low 32 bits of an argument, counted from 0.
    Argument(u8),
    /// Its high 32 bits.
    ArgumentHigh(u8),
}

/// How a value is compared with what was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// The same.
    Equal,
    /// That much, or more.
    AtLeast,
    /// More than that.
    Above,
}

/// What a system call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is made.
    Allow,
    /// It fails with this error, and is not made.
    Errno(u16),
    /// It is made, and noted in the system's log.
    Log,
    /// SIGSYS, and it is not made.
    Trap,
    /// The thread is killed by SIGSYS.
    KillThread,
    /// The process is killed by SIGSYS.
    KillProcess,
}

/// Loads a field, to be compared or masked next.
#[must_use]
pub const fn load(field: Field) -> Instruction {
    let offset = match field {
        Field::Number => 0,
        Field::Architecture => 4,
        Field::Argument(index) => 16 + 8 * index as u32,
        Field::ArgumentHigh(index) => 20 + 8 * index as u32,
    };
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

/// Keeps these bits of what was loaded.
#[must_use]
pub const fn mask(bits: u32) -> Instruction {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits)
}

/// Compares what was loaded, and skips so many instructions.
#[must_use]
pub const fn jump_if(test: Test, value: u32, skip: u8, skip_else: u8) -> Instruction {
    let test = match test {
        Test::Equal => libc::BPF_JEQ,
        Test::AtLeast => libc::BPF_JGE,
        Test::Above => libc::BPF_JGT,
    };
    let jump = instruction(libc::BPF_JMP | test | libc::BPF_K, value);
    Instruction { jt: skip, jf: skip_else, ..jump }
}

/// Skips so many instructions.
#[must_use]
pub const fn jump(skip: u32) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JA, skip)
}

/// Ends the filter.
#[must_use]
pub const fn give(answer: Answer) -> Instruction {
    let value = match answer {
        Answer::Allow => libc::SECCOMP_RET_ALLOW,
        Answer::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
        Answer::Log => libc::SECCOMP_RET_LOG,
        Answer::Trap => libc::SECCOMP_RET_TRAP,
        Answer::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Answer::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
    };
    instruction(libc::BPF_RET | libc::BPF_K, value)
}

/// All codes are of 16 bits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the constants are wider than the field that they are for"
)]
const fn instruction(code: u32, k: u32) -> Instruction {
    Instruction { code: code as u16, jt: 0, jf: 0, k }
}

/// Installs a filter for this thread and all that it starts. Needs no_new_privs or CAP_SYS_ADMIN.
///
/// # Errors
/// What prctl(2) says; `InvalidInput` when the filter is empty or longer than the kernel takes.
pub fn install(filter: &[Instruction]) -> io::Result<()> {
    let refused = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    if filter.is_empty() {
        return Err(refused("empty seccomp filter"));
    }
    let len = libc::c_ushort::try_from(filter.len()).map_err(|_| refused("seccomp filter too long"))?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` points to `len` instructions that live until the call returns; the kernel copies them and writes
    // nothing.
    let result = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&program), 0, 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_filter_is_refused() {
        assert_eq!(install(&[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
