//! How the process gets memory, and gives it back.

/// Allocations of at least so many bytes come from the system alone, and go back to it.
#[cfg(target_env = "gnu")]
const OWN_PAGES_BYTES: libc::c_int = 4 << 20;

/// Tells the allocator what it cannot know; to be called before there is more than one thread.
///
/// All threads allocate in one place. Otherwise each thread gets an arena of its own, and what is free at the end of
/// those [`give_back`] does not give back: after a walk over a million files that can be all. Threads here allocate far
/// too seldom to get in each other's way.
///
/// Large buffers get pages of their own, which are zero and cost nothing until they are used. Otherwise, once the first
/// has been freed, the allocator puts the next ones where it was and fills them with zeros: for each thread that reads
/// requests that is 16 MiB, of which few ever need more than a page.
pub fn arrange() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES),
        // What the allocator would have arrived at by itself, had its threshold been left to it.
        (libc::M_TRIM_THRESHOLD, 2 * OWN_PAGES_BYTES),
    ] {
        // SAFETY: mallopt(3) with these options may be called at any time by any thread.
        unsafe {
            // It can only say that it does not know the option; then it was not needed.
            libc::mallopt(option, value);
        }
    }
}

/// Gives memory that was freed back to the system. The allocator keeps it otherwise, between what is still in use:
/// after a walk over a million files the process would stay as large as it was then. Takes milliseconds, and other
/// threads that allocate wait.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
