//! Getting hold of one object of the upper: always below a directory descriptor, never through a symlink.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use super::UpperError;
use super::error::At as _;
use crate::model::{DeviceId, FileKind, Metadata, Timestamp};
use crate::sys::files;

/// What the filesystem below says of an object, before marks are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperAttr {
    /// Type, mode, owner, size, mtime.
    pub metadata: Metadata,
    /// Time of last access.
    pub atime: Timestamp,
    /// Time of last change.
    pub ctime: Timestamp,
    /// Names that it has below, in the upper and in the link index.
    pub nlink: u32,
    /// Allocated 512-byte blocks.
    pub blocks: u64,
    /// The inode number below.
    pub st_ino: u64,
}

/// An `O_PATH` descriptor of `name` in `dir`, whatever it is.
pub(super) fn pin(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    files::openat2(dir, name, flags, Mode::empty(), beneath())
}

/// An `O_PATH` descriptor of a directory.
pub(super) fn pin_dir(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    files::openat2(dir, name, flags, Mode::empty(), beneath())
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

/// Opens what `pinned` holds for reading or writing. The magic link leads to exactly that object, whatever its name is now.
pub(super) fn reopen(pinned: impl AsFd, flags: OFlags) -> rustix::io::Result<File> {
    files::openat(CWD, magic_link(pinned), flags | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

/// The same, with further flags that only the file's owner may give; without them where that is somebody else.
pub(super) fn reopen_quietly(pinned: impl AsFd, flags: OFlags, quiet: OFlags) -> rustix::io::Result<File> {
    let pinned = pinned.as_fd();
    match reopen(pinned, flags | quiet) {
        Err(Errno::PERM) if !quiet.is_empty() => reopen(pinned, flags),
        result => result,
    }
}

/// Opens one of our own files in `work` for reading. Whatever else is under its name is refused: opening a fifo would wait
/// for a writer.
pub(super) fn reopen_own(pinned: &OwnedFd, name: &str) -> Result<File, UpperError> {
    if stat(pinned)?.metadata.kind != FileKind::Regular {
        let remedy = "remove it: layerfs keeps a file of its own there";
        let (path, problem) = (path_of(pinned, name.as_bytes()), "no regular file".to_owned());
        return Err(UpperError::Form { path, problem, remedy });
    }
    reopen(pinned, OFlags::RDONLY).at("open a file in work")
}

/// Where the object is now, for messages; its name, where /proc does not say.
pub(super) fn path_of(pinned: impl AsFd, name: &[u8]) -> PathBuf {
    std::fs::read_link(magic_link(pinned)).unwrap_or_else(|_| OsStr::from_bytes(name).into())
}

/// The path that system calls without a descriptor form need (xattrs and chmod of an `O_PATH` descriptor, proc(5)).
pub(super) fn magic_link(pinned: impl AsFd) -> String {
    format!("/proc/self/fd/{}", pinned.as_fd().as_raw_fd())
}

/// stat(2) of a descriptor.
pub(super) fn stat(pinned: impl AsFd) -> Result<UpperAttr, UpperError> {
    let wanted = StatxFlags::BASIC_STATS;
    let stat =
        files::statx(pinned, c"", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, wanted).at("statx")?;
    let kind = FileKind::from_st_mode(u32::from(stat.stx_mode)).ok_or(Errno::IO).at("statx: type")?;
    let time = |t: rustix::fs::StatxTimestamp| Timestamp { secs: t.tv_sec, nanos: t.tv_nsec };
    Ok(UpperAttr {
        metadata: Metadata {
            kind,
            mode: stat.stx_mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            rdev: DeviceId { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor },
            size: stat.stx_size,
            mtime: time(stat.stx_mtime),
        },
        atime: time(stat.stx_atime),
        ctime: time(stat.stx_ctime),
        nlink: stat.stx_nlink,
        blocks: stat.stx_blocks,
        st_ino: stat.stx_ino,
    })
}
