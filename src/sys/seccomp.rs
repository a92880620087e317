//! Installing a seccomp filter.
//!
//! `seccompiler` has a function for this, but it always sets no_new_privs, which would break every setuid program in a container.

use std::io;

use seccompiler::BpfProgram;

/// Installs `program` for this thread and all that it starts. Needs no_new_privs or CAP_SYS_ADMIN.
///
/// # Errors
/// What prctl(2) says; `InvalidInput` when the program is empty or longer than the kernel takes.
pub fn install(program: &BpfProgram) -> io::Result<()> {
    let mut instructions: Vec<libc::sock_filter> = program
        .iter()
        .map(|one| libc::sock_filter { code: one.code, jt: one.jt, jf: one.jf, k: one.k })
        .collect();
    if instructions.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "empty seccomp filter"));
    }
    let len = libc::c_ushort::try_from(instructions.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "seccomp filter too long"))?;
    let program = libc::sock_fprog { len, filter: instructions.as_mut_ptr() };
    // SAFETY: `program` points to `len` instructions that live until the call returns, and the kernel copies them.
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
        assert_eq!(install(&Vec::new()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
