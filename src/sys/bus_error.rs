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

/// Memory in which faults are forgiven: a place of the table, used by one watch after the other.
///
/// The handler may run while another thread gives the place to another watch, and must not take the beginning of one for
/// that of the other. So a change is made between two steps of `version`, and who reads looks at it before and after: all
/// of this is `SeqCst`, thus in one order, so with the same even number twice no change lies between, nor around. A place
/// that changes is passed over, and is never the one that is sought: memory is watched for as long as it is mapped
/// ([`Mapping`](super::mmap::Mapping)), and whoever faults in it keeps it mapped.
struct Range {
    is_taken: AtomicBool,
    /// Odd while the others change.
    version: AtomicUsize,
    start: AtomicUsize,
    /// Behind the last byte; 0 while nothing is watched.
    end: AtomicUsize,
    has_fault: AtomicBool,
}

impl Range {
    const fn new() -> Self {
        Self {
            is_taken: AtomicBool::new(false),
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            has_fault: AtomicBool::new(false),
        }
    }

    /// Only for who has taken the place.
    fn set(&self, start: usize, end: usize) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.has_fault.store(false, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
        self.end.store(end, Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// What is watched; nothing while that changes.
    fn get(&self) -> std::ops::Range<usize> {
        let version = self.version.load(Ordering::SeqCst);
        let range = self.start.load(Ordering::SeqCst)..self.end.load(Ordering::SeqCst);
        let is_one = version.is_multiple_of(2) && self.version.load(Ordering::SeqCst) == version;
        if is_one { range } else { 0..0 }
    }
}

static RANGES: [Range; RANGES_MAX] = [const { Range::new() }; RANGES_MAX];

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
        let start = memory.as_ptr().addr();
        RANGES[number].set(start, start.saturating_add(memory.len()));
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
        range.set(0, 0);
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
    if let Some(range) = RANGES.iter().find(|range| range.get().contains(&address)) {
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
    fn no_range_is_made_of_two() {
        static PLACE: Range = Range::new();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = || {
                let mut seen = [false; 2];
                while !done.load(Ordering::Relaxed) || seen != [true; 2] {
                    match PLACE.get() {
                        range if range.is_empty() => assert_eq!(range, 0..0),
                        range => {
                            assert_eq!(range.end - range.start, 10);
                            seen[range.start / 1000] = true;
                        }
                    }
                }
            };
            let readers = [scope.spawn(reader), scope.spawn(reader)];
            let mut number = 0;
            while number < 300_000 || !readers.iter().all(|reader| reader.is_finished()) {
                PLACE.set(number % 2 * 1000, number % 2 * 1000 + 10);
                if number % 7 == 0 {
                    PLACE.set(0, 0);
                }
                number += 1;
                done.store(number > 300_000, Ordering::Relaxed);
            }
        });
    }

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
