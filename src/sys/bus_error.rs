//! What a fault in a mapped file becomes: a mark on the mapping instead of the end of the process.
//!
//! A page of a mapped file that cannot be read is SIGBUS (mmap(2)): the file was truncated, its disk fails, or on NFS
//! another host removed it. Here such a page becomes zeros and the range it lies in is marked; whoever read from it looks
//! at the mark afterwards and throws away what was read. Every other SIGBUS does what it did before.

use std::io;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// Ranges at once: an index for each of the most layers that an image may have, twice.
const RANGES_MAX: usize = 1000;

/// Memory in which faults are forgiven.
struct Range {
    is_taken: AtomicBool,
    start: AtomicUsize,
    /// Behind the last byte; 0 while nothing is watched.
    end: AtomicUsize,
    has_fault: AtomicBool,
}

static RANGES: [Range; RANGES_MAX] = [const {
    Range {
        is_taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        has_fault: AtomicBool::new(false),
    }
}; RANGES_MAX];

/// What SIGBUS did before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();
/// Asked for outside of the handler.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

/// A mapped file that is watched for faults.
#[derive(Debug)]
pub struct Watch(usize);

impl Watch {
    /// Watches a mapped file, which must not go before the watch does.
    ///
    /// # Errors
    /// Too many are watched, or what sigaction(2) says.
    pub(super) fn new(memory: &memmap2::Mmap) -> io::Result<Self> {
        install()?;
        let free = RANGES.iter().position(|range| !range.is_taken.swap(true, Ordering::SeqCst));
        let number = free.ok_or_else(|| io::Error::other("too many mapped files"))?;
        let range = &RANGES[number];
        let start = memory.as_ptr().addr();
        range.has_fault.store(false, Ordering::SeqCst);
        range.start.store(start, Ordering::SeqCst);
        range.end.store(start.saturating_add(memory.len()), Ordering::SeqCst);
        Ok(Self(number))
    }

    /// Whether some of it could not be read since it is watched, and was taken for zeros.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        // What was read from the memory was read before this.
        fence(Ordering::Acquire);
        RANGES[self.0].has_fault.load(Ordering::SeqCst)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let range = &RANGES[self.0];
        range.end.store(0, Ordering::SeqCst);
        range.is_taken.store(false, Ordering::SeqCst);
    }
}

fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    INSTALLED.get_or_init(replace_handler).map_err(io::Error::from_raw_os_error)
}

fn replace_handler() -> Result<(), i32> {
    // SAFETY: only asks.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    PAGE_BYTES.store(usize::try_from(page_bytes).unwrap_or(4096), Ordering::SeqCst);
    let error = || io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
    // SAFETY: a sigaction of zeros is valid: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut before = action;
    action.sa_sigaction = on_bus_error as extern "C" fn(_, _, _) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: asks only; `before` is a place for the answer.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before) } != 0 {
        return Err(error());
    }
    // First, because the handler may be called as soon as it is there.
    BEFORE.get_or_init(|| before);
    // SAFETY: the handler is a function for SA_SIGINFO and does only what may be done in one.
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(error()),
    }
}

/// Takes no lock and no memory: looks through a table and makes system calls.
extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid siginfo_t to handlers with SA_SIGINFO.
    let info = unsafe { &*info };
    if info.si_code <= 0 {
        // Somebody sent it (sigaction(2)): no access failed.
        return;
    }
    // SAFETY: for a SIGBUS of the kernel the address is the member of the union that is set (sigaction(2)).
    let address = unsafe { info.si_addr() }.addr();
    let is_inside = |range: &&Range| {
        (range.start.load(Ordering::SeqCst)..range.end.load(Ordering::SeqCst)).contains(&address)
    };
    if let Some(range) = RANGES.iter().find(is_inside) {
        // Before the zeros can be seen.
        range.has_fault.store(true, Ordering::SeqCst);
        if zero_page(address) {
            return;
        }
    }
    if let Some(before) = BEFORE.get() {
        // The access is made again, and now what was there before has its say.
        // SAFETY: what sigaction(2) itself gave.
        unsafe { libc::sigaction(libc::SIGBUS, std::ptr::from_ref(before), std::ptr::null_mut()) };
    }
}

/// Puts zeros in the place of a page.
fn zero_page(address: usize) -> bool {
    let page_bytes = PAGE_BYTES.load(Ordering::SeqCst);
    let page = std::ptr::without_provenance_mut(address & !(page_bytes - 1));
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: errno of this thread, which the interrupted code may be about to look at.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    // SAFETY: the page lies in a watched range, which is a read-only mapping of somebody who lets us do this.
    let mapped = unsafe { libc::mmap(page, page_bytes, libc::PROT_READ, flags, -1, 0) };
    // SAFETY: as above.
    unsafe { *errno = saved };
    mapped != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_sent_changes_nothing() {
        install().unwrap();
        let handler = || {
            let mut now = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: asks only; `now` is a place for the answer.
            assert_eq!(unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), now.as_mut_ptr()) }, 0);
            // SAFETY: filled by the call above.
            unsafe { now.assume_init() }.sa_sigaction
        };
        let before = handler();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGBUS).unwrap();
        assert_eq!(handler(), before);
    }
}
