//! Making processes: fork(2), clone3(2), and the small calls around them that no safe crate offers.
//!
//! Both ways of making a process are refused while this one has more than one thread, because only the calling thread
//! lives on in the child: a lock that another thread holds (the allocator's, a logger's) would stay locked for ever.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one.
    Parent(Child),
}

/// A child process, held by a descriptor, so that a recycled number cannot be taken for it.
#[derive(Debug)]
pub struct Child {
    /// Its process id, as this process sees it.
    pub pid: i32,
    /// Its pidfd: readable once it has ended.
    pub pidfd: OwnedFd,
}

/// The namespaces that a child is born into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewNamespaces(u64);

impl NewNamespaces {
    /// Those of every container: mount, pid, ipc, uts, cgroup.
    #[must_use]
    pub const fn of_container() -> Self {
        Self(bits(
            libc::CLONE_NEWNS
                | libc::CLONE_NEWPID
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWCGROUP,
        ))
    }

    /// Those in which an OCI runtime makes a container: of mounts, and a pid namespace that ends with its first process.
    #[must_use]
    pub const fn of_runtime() -> Self {
        Self(bits(libc::CLONE_NEWNS | libc::CLONE_NEWPID))
    }

    /// Of mounts alone.
    #[must_use]
    pub const fn of_mounts() -> Self {
        Self(bits(libc::CLONE_NEWNS))
    }

    /// And users of its own; the others belong to these.
    #[must_use]
    pub const fn with_user(self) -> Self {
        Self(self.0 | bits(libc::CLONE_NEWUSER))
    }

    /// And a network of its own.
    #[must_use]
    pub const fn with_network(self) -> Self {
        Self(self.0 | bits(libc::CLONE_NEWNET))
    }
}

/// The flag constants of the `libc` crate are positive `c_int`s; clone3 takes 64 bits.
const fn bits(flags: libc::c_int) -> u64 {
    flags.unsigned_abs() as u64
}

/// How long a thread that was joined may still be listed: pthread_join returns shortly before the kernel forgets it.
const THREAD_EXIT_WAIT: Duration = Duration::from_millis(1);
/// How often to look again. Five seconds in all: on a busy machine a thread that is about to go may have to wait for that.
const THREAD_EXIT_TRIES: u32 = if cfg!(test) { 50 } else { 5000 };

/// Makes a copy of this process that may go on as a program of its own: run threads, live long.
///
/// # Errors
/// `ResourceBusy` when other threads exist; else what fork(2) and pidfd_open(2) say.
pub fn fork() -> io::Result<Fork> {
    fork_as(SingleThread::ensure()?)
}

/// That this process has one thread. It says nothing about a thread that is made later.
#[derive(Debug)]
pub struct SingleThread(());

impl SingleThread {
    /// Looks into `/proc`, which has to be one that shows this process.
    ///
    /// # Errors
    /// `ResourceBusy` when other threads exist.
    pub fn ensure() -> io::Result<Self> {
        ensure_single_thread().map(|()| Self(()))
    }
}

/// The same as [`fork`], where this process cannot see itself in `/proc` any more.
///
/// # Errors
/// What fork(2) and pidfd_open(2) say.
pub fn fork_as(_: SingleThread) -> io::Result<Fork> {
    // SAFETY: it was seen that no other thread exists that could hold a lock, and the C library repairs its own state in
    // the child.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => {
            let number =
                rustix::process::Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork gave 0 twice"))?;
            let pidfd = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty())?;
            Ok(Fork::Parent(Child { pid, pidfd }))
        }
    }
}

/// Makes a copy of this process in new namespaces and, if one is given, in another control group, for a child that sets itself
/// up and calls execve(2).
///
/// The C library does not learn of this child, so it should not start threads.
///
/// # Errors
/// `ResourceBusy` when other threads exist; else what clone3(2) says.
pub fn fork_into(namespaces: NewNamespaces, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    fork_into_as(SingleThread::ensure()?, namespaces, cgroup)
}

/// The same as [`fork_into`], where this process cannot see itself in `/proc` any more.
///
/// # Errors
/// What clone3(2) says.
pub fn fork_into_as(
    _: SingleThread,
    namespaces: NewNamespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Fork> {
    let mut pidfd: RawFd = -1;
    let into = cgroup.and_then(|cgroup| u64::try_from(cgroup.as_raw_fd()).ok());
    let arguments = CloneArgs {
        flags: namespaces.0 | bits(libc::CLONE_PIDFD) | into.map_or(0, |_| CLONE_INTO_CGROUP),
        cgroup: into.unwrap_or_default(),
        pidfd: std::ptr::from_mut(&mut pidfd).addr() as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        ..CloneArgs::default()
    };
    // SAFETY: the arguments are a valid clone_args of the size given, `pidfd` outlives the call, and there is no
    // CLONE_VM: the child runs on its own copy of this stack. It was seen that no other thread exists that could hold a lock.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&arguments), size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so it has stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).map_err(|_| io::Error::other("clone3 gave no process id"))?;
            Ok(Fork::Parent(Child { pid, pidfd }))
        }
    }
}

/// linux/sched.h: too large for the flags of the `libc` crate. Since Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` (linux/sched.h), version 2. An older kernel takes it as long as what it does not know is zero.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const _: () = assert!(size_of::<CloneArgs>() == 88);

fn ensure_single_thread() -> io::Result<()> {
    for _ in 0..THREAD_EXIT_TRIES {
        if fs::read_dir("/proc/self/task")?.count() == 1 {
            return Ok(());
        }
        std::thread::sleep(THREAD_EXIT_WAIT);
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "cannot fork: this process has other threads"))
}

/// Sends signal number `signal` to a process.
///
/// # Errors
/// What pidfd_send_signal(2) says; `ESRCH` when it has ended.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed; a null siginfo asks the kernel to fill one in.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends this process now, without running destructors or exit handlers: they belong to the process it was forked from.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit takes any number and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Gives the calling thread the least share of a busy processor. Not `SCHED_IDLE`, which may mean none at all: it would
/// still hold locks, of the allocator or of a file's pages, that others wait for.
pub fn stand_back() {
    /// The largest that there is (nice(2)); on Linux it is a thread's own.
    const NICENESS: i32 = 19;
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!("setpriority: {error}");
    }
}

/// Gives every signal its default action. An ignored signal stays ignored across execve(2), and Rust's runtime ignores
/// SIGPIPE.
pub fn reset_signal_actions() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is valid for every signal; for SIGKILL and SIGSTOP, and for those that libc keeps to itself,
        // the call fails without effect, which is what they need.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Gives SIGCHLD its default action. Who started us may have ignored it, and that is inherited: the kernel would then collect our
/// children itself, and nobody would learn how they ended.
pub fn stop_ignoring_children() {
    // SAFETY: SIG_DFL is valid for every signal.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Gives the calling thread a name, which `ps` shows; 15 bytes of it count.
///
/// # Errors
/// What prctl(2) says.
pub fn set_name(name: &std::ffi::CStr) -> io::Result<()> {
    Ok(nix::sys::prctl::set_name(name)?)
}

/// Marks every descriptor from 3 on as close-on-exec.
///
/// # Errors
/// What close_range(2) says.
pub fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC the call closes nothing, so no descriptor that Rust owns becomes invalid.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A process that we did not start, held by a pidfd, so that a recycled number cannot be taken for it.
#[derive(Debug)]
pub struct Watched(OwnedFd);

impl Watched {
    /// The process that has this number now; `None` when there is none.
    ///
    /// # Errors
    /// What pidfd_open(2) says.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => Ok(None),
            pidfd => Ok(Some(Self(pidfd?))),
        }
    }

    /// Its pidfd.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => {}
                polled => return Ok(polled.map(drop)?),
            }
        }
    }

    /// Whether all its threads have ended, and with them its locks and what it had open. Never waits.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
    }
}

/// The number of the process that a pidfd is of, as this process sees it.
///
/// # Errors
/// `NotFound` when it has ended, or is none that this process can see.
pub fn number_of(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    number.filter(|pid| *pid > 0).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Sends a signal to a process by its number; one that is gone is fine.
///
/// # Errors
/// What pidfd_open(2) and pidfd_send_signal(2) say.
pub fn signal(pid: u32, number: i32) -> io::Result<()> {
    let Some(process) = Watched::of(pid)? else { return Ok(()) };
    match send_signal(process.0.as_fd(), number) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

/// The number of a signal as images and people write it: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
#[must_use]
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(above) = name.strip_prefix("RTMIN") {
        let above = if above.is_empty() { 0 } else { above.strip_prefix('+')?.parse::<i32>().ok()? };
        let number = libc::SIGRTMIN().checked_add(above)?;
        return (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

/// Closes a descriptor that a child has inherited by number, from an owner that lives on in the parent only.
///
/// # Errors
/// What close(2) says.
pub fn close_inherited(fd: RawFd) -> io::Result<()> {
    // SAFETY: close takes any number. The callers are children that never run their parent's destructors, so the owner
    // of this number in this copy of the memory will not use it again.
    let result = unsafe { libc::close(fd) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

static INHERITED: std::sync::OnceLock<Vec<RawFd>> = std::sync::OnceLock::new();

/// Notes what the caller has left open for this process besides its standard streams. To be called before anything is
/// opened; does nothing when that cannot be told.
pub fn note_inherited_descriptors() {
    let open = || -> io::Result<Vec<RawFd>> {
        let numbers =
            fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        // The directory itself is closed by now.
        let is_open = |fd: &RawFd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok();
        Ok(numbers.filter(|fd| *fd > 2).collect::<Vec<RawFd>>().into_iter().filter(is_open).collect())
    };
    INHERITED.set(open().unwrap_or_default()).ok();
}

/// What [`note_inherited_descriptors`] found.
#[must_use]
pub fn inherited_descriptors() -> &'static [RawFd] {
    INHERITED.get().map_or(&[], Vec::as_slice)
}

/// Joins a new, empty session keyring, so that the keys of the user's session are out of reach.
///
/// # Errors
/// What keyctl(2) says; a kernel without keyrings is not an error.
pub fn new_session_keyring() -> io::Result<()> {
    // SAFETY: a null name asks for an anonymous keyring; nothing is read or written.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    if result >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOSYS) { Ok(()) } else { Err(error) }
}

/// Brings up `lo` of the network namespace that this process is in.
///
/// # Errors
/// What socket(2) and ioctl(2) say.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: socket takes any numbers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above made this descriptor, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(*b"lo") {
        *to = libc::c_char::from_le_bytes([from]);
    }
    let flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    let request =
        libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: the request is a whole ifreq whose name is terminated, and SIOCSIFFLAGS only reads it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, std::ptr::from_ref(&request)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for text in ["SIGTERM", "TERM", "sigterm", "15"] {
            assert_eq!(signal_number(text), Some(15), "{text}");
        }
        assert_eq!(signal_number("SIGRTMIN+3"), Some(libc::SIGRTMIN() + 3));
        for text in ["", "SIG", "SIGFOO", "0", "65", "-1", "RTMIN+99", "RTMIN-1"] {
            assert_eq!(signal_number(text), None, "{text}");
        }
    }

    #[test]
    fn fork_is_refused_with_threads() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || receiver.recv().is_err());
        let error = fork().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        let error = fork_into(NewNamespaces::default(), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        drop(sender);
        assert!(other.join().unwrap());
    }
}
