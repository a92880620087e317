//! Fills an empty volume with what the image has at the place where it is mounted, as docker and podman do.
//!
//! It happens inside the container's root, before anything of the image has run. A volume that is being filled carries a mark,
//! so that a start that was killed meanwhile leaves no volume that looks complete: the next one goes on.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::in_root::{self, Symlinks};
use super::own_ids::OwnIds;
use crate::model::limits::{DEPTH_MAX, XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX};

/// On the volume's directory while it is being filled.
const MARK: &str = "user.layerfs.filling";
/// What a file is called until it is complete. One that is left is written over.
const UNFINISHED: &CStr = c".layerfs-filling";

/// Copies the directory at `path` of the container into `volume`, unless there is something in it already. Nothing happens
/// where there is no such directory. The volume's directory itself becomes as that of the image, if that is wanted.
pub(super) fn fill(
    root: BorrowedFd<'_>,
    path: &Path,
    (volume, as_in_image): (BorrowedFd<'_>, bool),
) -> io::Result<()> {
    let from = match in_root::open(root, path, Symlinks::Inside) {
        Ok(place) if in_root::is_directory(place.as_fd())? => open_directory(place.as_fd(), c".")?,
        Ok(_) => return Ok(()),
        Err(error) if in_root::is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let into = open_directory(volume, c".")?;
    // Two containers may start with it at the same time.
    rustix::fs::flock(&into, FlockOperation::LockExclusive)?;
    if !is_to_be_filled(&into)? {
        return Ok(());
    }
    match rustix::fs::fsetxattr(&into, MARK, b"", XattrFlags::empty()) {
        // A filesystem without such attributes, or a volume of another user's.
        Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
        marked => marked?,
    }
    let mut copy = Copy { top: &into, links: HashMap::new() };
    copy.directory(&from, &into, Path::new(""), 0)?;
    if as_in_image {
        finish(&from, &into, &rustix::fs::fstat(&from)?)?;
    }
    match rustix::fs::fremovexattr(&into, MARK) {
        Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => Ok(()),
        removed => Ok(removed?),
    }
}

/// Gives a volume that is to be filled to a container that has not the ids of its owner, as podman does.
pub(super) fn hand_over(volume: BorrowedFd<'_>, ids: &OwnIds) -> io::Result<()> {
    let into = open_directory(volume, c".")?;
    rustix::fs::flock(&into, FlockOperation::LockExclusive)?;
    let stat = rustix::fs::fstat(&into)?;
    if ids.contain((stat.st_uid, stat.st_gid)) || !is_to_be_filled(&into)? {
        return Ok(());
    }
    let (uid, gid) = ids.first_outside();
    Ok(rustix::fs::fchown(&into, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

fn is_to_be_filled(volume: &OwnedFd) -> io::Result<bool> {
    if rustix::fs::fgetxattr(volume, MARK, &mut [0_u8; 0]).is_ok() {
        return Ok(true);
    }
    // What mkfs makes for itself.
    Ok(names(volume)?.iter().all(|name| name.as_c_str() == c"lost+found"))
}

struct Copy<'a> {
    top: &'a OwnedFd,
    /// Files with several names, and the one that they have in the volume already.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copy<'_> {
    fn directory(&mut self, from: &OwnedFd, into: &OwnedFd, path: &Path, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        for name in names(from)? {
            let stat = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    gone_before(rustix::fs::mkdirat(into, &name, Mode::RWXU))?;
                    let (from, into) =
                        (open_directory(from.as_fd(), &name)?, open_directory(into.as_fd(), &name)?);
                    self.directory(&from, &into, &path, depth + 1)?;
                    finish(&from, &into, &stat)?;
                }
                FileType::RegularFile => self.file((from, into), &name, &stat, path)?,
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(from, &name, Vec::new())?;
                    gone_before(rustix::fs::symlinkat(&target, into, &name))?;
                    own(into, &name, &stat)?;
                    set_times(into, &name, &stat)?;
                }
                kind => special(into, &name, kind, &stat)?,
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        (from, into): (&OwnedFd, &OwnedFd),
        name: &CStr,
        stat: &Stat,
        path: PathBuf,
    ) -> io::Result<()> {
        let number = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&number) {
            return gone_before(rustix::fs::linkat(self.top, first, into, name, AtFlags::empty()));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(into, UNFINISHED, flags, Mode::RUSR | Mode::WUSR)?;
        let mut target = File::from(target);
        io::copy(&mut source, &mut target)?;
        finish(&OwnedFd::from(source), &OwnedFd::from(target), stat)?;
        rustix::fs::renameat(into, UNFINISHED, into, name)?;
        if stat.st_nlink > 1 {
            self.links.insert(number, path);
        }
        Ok(())
    }
}

/// What an earlier attempt has made is there.
fn gone_before(made: Result<(), Errno>) -> io::Result<()> {
    match made {
        Err(Errno::EXIST) => Ok(()),
        made => Ok(made?),
    }
}

/// A fifo or socket. No container can use a device of its image, so it gets none in a volume either.
fn special(into: &OwnedFd, name: &CStr, kind: FileType, stat: &Stat) -> io::Result<()> {
    if !matches!(kind, FileType::Fifo | FileType::Socket) {
        tracing::warn!(name = %name.to_string_lossy(), "a device of the image is not copied into the volume");
        return Ok(());
    }
    gone_before(rustix::fs::mknodat(into, name, kind, Mode::from_raw_mode(stat.st_mode), 0))?;
    own(into, name, stat)?;
    set_times(into, name, stat)
}

/// Owner, permissions, attributes and times; in the order in which none undoes another.
fn finish(from: &OwnedFd, into: &OwnedFd, stat: &Stat) -> io::Result<()> {
    rustix::fs::fchown(into, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(into, Mode::from_raw_mode(stat.st_mode))?;
    copy_attributes(from, into)?;
    Ok(rustix::fs::futimens(into, &times(stat))?)
}

fn own(into: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(rustix::fs::chownat(into, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn set_times(into: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    Ok(rustix::fs::utimensat(into, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps {
        last_access: time(stat.st_atime, i64::try_from(stat.st_atime_nsec).unwrap_or(0)),
        last_modification: time(stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
    }
}

fn copy_attributes(from: &OwnedFd, into: &OwnedFd) -> io::Result<()> {
    let mut list = vec![0; XATTR_LIST_BYTES_MAX];
    let length = match rustix::fs::flistxattr(from, &mut list) {
        Err(Errno::NOTSUP) => return Ok(()),
        length => length?,
    };
    for name in list[..length].split_inclusive(|byte| *byte == 0).map(CStr::from_bytes_with_nul) {
        let name = name.map_err(io::Error::other)?;
        let mut value = vec![0; XATTR_VALUE_BYTES_MAX];
        let length = rustix::fs::fgetxattr(from, name, &mut value)?;
        match rustix::fs::fsetxattr(into, name, &value[..length], XattrFlags::empty()) {
            Err(error @ (Errno::NOTSUP | Errno::PERM)) => {
                tracing::warn!(name = %name.to_string_lossy(), %error, "the volume cannot have this attribute");
            }
            set => set?,
        }
    }
    Ok(())
}

fn open_directory(at: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") && entry.file_name() != UNFINISHED {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}
