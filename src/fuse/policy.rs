//! What the kernel may keep, and for how long: everything, for ever. Whatever changes, changes through this mount.
//!
//! OPEN and OPENDIR are answered `ENOSYS` once and are never sent again (`FUSE_NO_OPEN_SUPPORT`); a warm open, read,
//! stat, readdir or close then sends no message at all. `ATOMIC_O_TRUNC` must never come with that: the truncate of an
//! open(2) would get lost. `SETXATTR_EXT` must not be asked for: fuser 0.18 does not parse it.

use std::time::Duration;

use fuser::InitFlags;

/// How long names, attributes and "not there" are true: ten years.
pub(super) const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Threads that read requests. Many more than can run: they wait for disks (fsync, copy-up, a layer's first read), and
/// while all of them do nobody else is served. An idle one costs a few pages and nothing else.
pub(super) const THREADS: usize = 16;

/// Largest write that the kernel sends at once: 256 pages, `fs.fuse.max_pages_limit` by default.
pub(super) const WRITE_BYTES_MAX: u32 = 1 << 20;

/// What is asked for where the kernel offers it.
pub(super) const WANTED: InitFlags = InitFlags::FUSE_NO_OPEN_SUPPORT
    .union(InitFlags::FUSE_NO_OPENDIR_SUPPORT)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_DONT_MASK)
    .union(InitFlags::FUSE_POSIX_ACL)
    .union(InitFlags::FUSE_HANDLE_KILLPRIV_V2)
    .union(InitFlags::FUSE_EXPLICIT_INVAL_DATA)
    .union(InitFlags::FUSE_ASYNC_DIO)
    .union(InitFlags::FUSE_NO_EXPORT_SUPPORT);

/// When what a program writes reaches the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writes {
    /// Before write(2) returns: nothing is lost when the server is killed, and `ENOSPC` comes where it belongs.
    #[default]
    Through,
    /// At close(2) or fsync(2), or earlier, in pieces of up to 1 MiB (`FUSE_WRITEBACK_CACHE`): until then size and times
    /// are the kernel's, and errors come from those calls.
    Back,
}

impl Writes {
    /// What the kernel must offer for that.
    pub(super) fn needed(self) -> InitFlags {
        match self {
            Self::Through => NEEDED,
            Self::Back => NEEDED.union(InitFlags::FUSE_WRITEBACK_CACHE),
        }
    }
}

/// What the server cannot do without: an older kernel is told so instead of being served wrongly.
const NEEDED: InitFlags = InitFlags::FUSE_NO_OPEN_SUPPORT.union(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
