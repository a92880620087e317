//! What the kernel may keep, and for how long: everything, for ever. Whatever changes, changes through this mount.
//!
//! OPEN and OPENDIR are answered `ENOSYS` once and are never sent again (`FUSE_NO_OPEN_SUPPORT`); a warm open, read,
//! stat, readdir or close then sends no message at all. `ATOMIC_O_TRUNC` must never come with that: the truncate of an
//! open(2) would get lost. `SETXATTR_EXT` must not be asked for: fuser 0.18 does not parse it.

use std::io;
use std::num::NonZero;
use std::time::Duration;

use fuser::{InitFlags, KernelConfig};

/// How long names, attributes and "not there" are true: ten years.
pub(super) const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Filesystems that lie on top of each other where files are passed through: the upper is on none, and one may lie on
/// us (`FILESYSTEM_MAX_STACK_DEPTH`).
const STACK_DEPTH: u32 = 1;

/// Threads that read requests: more than can run, because they wait for disks (fsync, copy-up, a layer's first read), and
/// while all of them do nobody else is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Of a mount, which many may use for long.
    OfMount,
    /// Of a container, whose start somebody waits for: each one makes its start and its end a quarter of a millisecond longer.
    OfContainer,
    /// Of layers that come over a network, for which reads wait much longer than for disks.
    OfWhatArrives,
}

impl Readers {
    /// How many. On machines with many processors there is more to do at the same time.
    pub(super) fn count(self) -> usize {
        let least = match self {
            Self::OfMount => 16,
            Self::OfContainer => 8,
            Self::OfWhatArrives => THREADS_MAX,
        };
        std::thread::available_parallelism().map_or(least, NonZero::get).clamp(least, THREADS_MAX)
    }
}

const THREADS_MAX: usize = 32;

/// Largest write that the kernel sends at once: 256 pages, `fs.fuse.max_pages_limit` by default.
const WRITE_BYTES_MAX: u32 = 1 << 20;

/// What is asked for where the kernel offers it.
const WANTED: InitFlags = InitFlags::FUSE_NO_OPEN_SUPPORT
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
    /// Never, of files whose content is all in the upper: the kernel writes and reads them itself, in the page cache of the
    /// filesystem below (`FUSE_PASSTHROUGH`). Takes `CAP_SYS_ADMIN` in the first user namespace, and each open and close a
    /// message.
    PassedThrough,
}

impl Writes {
    /// Agrees with the kernel upon all that is asked for.
    ///
    /// # Errors
    /// When its FUSE is too old.
    pub(super) fn agree(self, config: &mut KernelConfig) -> io::Result<()> {
        let needed = match self {
            Self::Through => NEEDED,
            Self::Back => NEEDED.union(InitFlags::FUSE_WRITEBACK_CACHE),
            Self::PassedThrough => NEEDED.union(InitFlags::FUSE_PASSTHROUGH),
        };
        let offered = config.capabilities();
        if !offered.contains(needed) {
            let lacking = match self {
                Self::PassedThrough => "cannot pass files through (before Linux 6.9, or built without it)",
                Self::Through | Self::Back => "is too old (before Linux 5.1)",
            };
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("the kernel's FUSE {lacking}")));
        }
        config.add_capabilities(needed | WANTED & offered).map_err(|_| refused("what its FUSE offered"))?;
        if self == Self::PassedThrough {
            config.set_max_stack_depth(STACK_DEPTH).map_err(|_| refused("stacked filesystems"))?;
        }
        config.set_max_write(WRITE_BYTES_MAX).map(drop).map_err(|_| refused("writes of 1 MiB"))
    }
}

fn refused(what: &str) -> io::Error {
    io::Error::other(format!("the kernel refuses {what}"))
}

/// What the server cannot do without: an older kernel is told so instead of being served wrongly.
const NEEDED: InitFlags = InitFlags::FUSE_NO_OPEN_SUPPORT.union(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
