//! Asking the kernel what it has, by calling it.

use std::io;

use super::seccomp::Architecture;
use super::syscall_numbers::number_of;

/// Whether there is a system call of this name, here and now: a filter of an outer container may hide what the kernel has.
/// It is called with operands that none accepts, so nothing comes of it. `None` when this program was built without it.
#[must_use]
pub fn has_system_call(name: &str) -> Option<bool> {
    const NONE: libc::c_long = -1;
    let number = libc::c_long::from(number_of(Architecture::OWN, name)?);
    // SAFETY: every pointer, length, descriptor and flag that could be among the operands is invalid, which the kernel finds
    // before it does anything: it reads and writes no memory of ours.
    let result = unsafe { libc::syscall(number, NONE, NONE, NONE, NONE, NONE, NONE) };
    Some(result != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there() {
        assert_eq!(has_system_call("pidfd_open"), Some(true));
        assert_eq!(has_system_call("no_such_call"), None);
    }
}
