//! The first process of a pid namespace that is not the program itself: it passes signals on, and collects who is left over.

use std::io;

use super::process;

/// What `ps` shows of it, in place of how layerfs was called.
const TITLE: &[u8] = b"layerfs-init";
/// Exit code of a process that a signal ended: this and its number, as a shell has it.
const SIGNAL_BASE: i32 = 128;

/// Stays as the first process until the child `program` has ended, and ends as that did. All signals must be blocked.
///
/// Every descriptor is closed: who owns one in this copy of the memory does not run again, because this never returns and
/// no destructor runs.
pub fn stay_as_first(program: i32) -> ! {
    if let Err(error) = hide_arguments() {
        tracing::debug!(%error, "how layerfs was called can be seen");
    }
    // SAFETY: this process goes on with nothing but the calls below, which use no descriptor.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the call fills in the whole set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: it was filled in by the call above.
    let all = unsafe { all.assume_init() };
    loop {
        // SAFETY: the set is initialised, and a null siginfo asks for none.
        let signal = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
        match signal {
            libc::SIGCHLD => {
                if let Some(code) = collect(program) {
                    process::exit_now(code);
                }
            }
            // Those that a terminal sends who is not in its foreground, as we are not.
            libc::SIGTTIN | libc::SIGTTOU | -1 => {}
            signal => {
                // SAFETY: kill takes any numbers; `program` is our child, so its number is nobody else's until it is collected.
                unsafe { libc::kill(program, signal) };
            }
        }
    }
}

/// Collects all who have ended; the exit code once the program is among them.
fn collect(program: i32) -> Option<u8> {
    let mut found = None;
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call, which writes one number there.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return found;
        }
        if pid == program {
            let code = if libc::WIFSIGNALED(status) {
                SIGNAL_BASE + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            };
            found = u8::try_from(code).ok().or(Some(u8::MAX));
        }
    }
}

/// Writes the title over the arguments of this process: they are the host's, with its paths, and perhaps its secrets.
fn hide_arguments() -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (start, end) = arguments(&stat).ok_or(io::ErrorKind::InvalidData)?;
    for (at, byte) in (start..end).zip(TITLE.iter().chain(std::iter::repeat(&0))) {
        let place = std::ptr::with_exposed_provenance_mut::<u8>(at);
        // SAFETY: the kernel says that its arguments lie there, on the stack of this process's first thread, which is writable
        // for as long as it lives. Nobody reads them as anything but bytes, and no other thread exists.
        unsafe { place.write_volatile(*byte) };
    }
    process::set_name(c"layerfs-init")
}

/// Where the arguments begin and end: fields 48 and 49 of proc_pid_stat(5). The second field, in parentheses, may hold anything.
fn arguments(stat: &str) -> Option<(usize, usize)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(45);
    let (start, end) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (0 < start && start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_arguments_are() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (start, end) = arguments(&stat).unwrap();
        assert_eq!(end - start, std::fs::read("/proc/self/cmdline").unwrap().len());
        // Who may not know is told 0.
        let fields = vec!["0"; 50].join(" ");
        assert_eq!(arguments(&format!("1 (a) b) {fields}")), None);
        assert_eq!(arguments(""), None);
    }
}
