//! Has the kernel read the program while the rest of its container is set up.
//!
//! What execve(2) and the program's first instructions touch lies all over its file, and each page that is not there costs a
//! message to the server and back. All of a small file together takes as many messages, but side by side with the mounts.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{Advice, FileType, Mode, OFlags, ResolveFlags};

use super::environment;
use super::in_root::{self, Symlinks};
use super::plan::Plan;

/// Of a larger file a start needs little, and nobody knows which part.
const BYTES_MAX: u64 = 4 << 20;
/// What the kernel takes of one request at most: `read_ahead_kb` (Documentation/ABI/testing/sysfs-class-bdi).
const PIECE_BYTES: usize = 128 << 10;

/// Begins to read the program in the root filesystem. What goes wrong here shows when it is executed.
pub(super) fn begin(root: BorrowedFd<'_>, plan: &Plan) {
    let Some(program) = plan.args.first() else { return };
    let environment = environment::complete(plan, "/");
    for path in environment::candidates(program, &environment) {
        // Of several the first that is there is executed; one in a volume is not there yet.
        match read(root, &plan.cwd.join(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return tracing::debug!(%error, "the program is not read ahead"),
            Ok(()) => return,
        }
    }
}

fn read(root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    // To open a device may do something.
    let stat = rustix::fs::fstat(in_root::open(root, path, Symlinks::Inside)?)?;
    let bytes = u64::try_from(stat.st_size).unwrap_or_default();
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || bytes > BYTES_MAX {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?;
    for offset in (0..bytes).step_by(PIECE_BYTES) {
        rustix::fs::fadvise(&file, offset, std::num::NonZeroU64::new(PIECE_BYTES as u64), Advice::WillNeed)?;
    }
    Ok(())
}
