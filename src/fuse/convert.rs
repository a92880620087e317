//! Between fuser's types and ours.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo, RenameFlags, Request, TimeOrNow};

use crate::fs::{Attr, Caller, FsError, RenameMode, Seek};
use crate::model::{DeviceId, FileKind, Ino, Name, Timestamp};
use crate::upper::{SetTime, What};

pub(super) fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

pub(super) fn name(name: &OsStr) -> Result<Name<'_>, FsError> {
    Ok(Name::new(name.as_bytes())?)
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), thread: request.pid() }
}

pub(super) fn errno(error: &FsError) -> Errno {
    Errno::from_i32(error.errno().raw_os_error())
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    let metadata = &attr.metadata;
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: metadata.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(metadata.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(metadata.kind),
        perm: metadata.mode,
        nlink: attr.nlink,
        uid: metadata.uid,
        gid: metadata.gid,
        rdev: metadata.rdev.encode(),
        blksize: 4096,
        flags: 0,
    }
}

/// What FUSE calls "nothing there, and remember that": an entry with number 0.
pub(super) fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// A time that `SystemTime` cannot hold becomes its start of time.
fn system_time(time: Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(time.secs.unsigned_abs());
    let whole =
        if time.secs >= 0 { UNIX_EPOCH.checked_add(seconds) } else { UNIX_EPOCH.checked_sub(seconds) };
    whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

/// What mknod(2) makes; `None` where it makes no such thing.
pub(super) fn special(mode: u32, rdev: u32) -> Option<What<'static>> {
    match FileKind::from_st_mode(mode)? {
        FileKind::Regular => Some(What::File),
        kind @ (FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket) => {
            Some(What::Special(kind, DeviceId::decode(rdev)))
        }
        FileKind::Directory | FileKind::Symlink => None,
    }
}

/// How a rename is meant; `None` where the flags make no sense together (renameat2(2)).
pub(super) fn rename_mode(flags: RenameFlags, request: &Request) -> Option<RenameMode> {
    match flags {
        RenameFlags::RENAME_NOREPLACE => Some(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        // Nothing is there if NOREPLACE comes with it: the kernel has looked, and holds both directories' locks.
        flags if flags.contains(RenameFlags::RENAME_WHITEOUT) => {
            Some(RenameMode::LeaveDevice(caller(request)))
        }
        flags if flags.is_empty() => Some(RenameMode::Replace),
        _ => None,
    }
}

/// `SEEK_DATA` and `SEEK_HOLE` (lseek(2)); the kernel answers the others itself.
pub(super) fn seek(offset: i64, whence: i32) -> Option<Seek> {
    match (u64::try_from(offset), whence) {
        (Ok(offset), 3) => Some(Seek::Data(offset)),
        (Ok(offset), 4) => Some(Seek::Hole(offset)),
        _ => None,
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(timestamp(time)),
    }
}

/// Undoes what fuser 0.18 makes of the kernel's seconds and nanoseconds: before 1970 it subtracts both.
fn timestamp(time: SystemTime) -> Timestamp {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp { secs: seconds(after), nanos: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Timestamp { secs: -seconds(before), nanos: before.subsec_nanos() }
        }
    }
}

/// The permission bits of a mode.
pub(super) fn mode_bits(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970() {
        // 0.25 s before: -1 s + 0.75 s.
        let time = Timestamp { secs: -1, nanos: 750_000_000 };
        assert_eq!(system_time(time), UNIX_EPOCH - Duration::from_millis(250));
        // What fuser hands over for the kernel's (-1, 750000000).
        assert_eq!(timestamp(UNIX_EPOCH - Duration::new(1, 750_000_000)), time);
        assert_eq!(timestamp(UNIX_EPOCH + Duration::new(5, 7)), Timestamp { secs: 5, nanos: 7 });
    }
}
