//! Memory that nobody needs any more.

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
