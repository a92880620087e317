//! Memory that nobody needs any more.

/// Lets all threads allocate in one place; to be called before there is more than one. Otherwise each thread gets an
/// arena of its own, and what is free at the end of those [`give_back`] does not give back: after a walk over a million
/// files that can be all. Threads here allocate far too seldom to get in each other's way.
pub fn keep_together() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) with M_ARENA_MAX may be called at any time by any thread.
    unsafe {
        // It can only say that it does not know the option; then it was not needed.
        libc::mallopt(libc::M_ARENA_MAX, 1);
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
