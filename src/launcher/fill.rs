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
    AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use super::in_root::{self, Symlinks};
use super::own_ids::OwnIds;
use crate::model::limits::{DEPTH_MAX, XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use crate::sys::scoped;

/// On the volume's directory while it is being filled.
const MARK: &str = "user.layerfs.filling";
/// What a file is called until it is complete.
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
    if !lock_to_be_filled(&into)? {
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
    let has_ids = || rustix::fs::fstat(&into).map(|stat| ids.contain((stat.st_uid, stat.st_gid)));
    if has_ids()? || !lock_to_be_filled(&into)? || has_ids()? {
        return Ok(());
    }
    let (uid, gid) = ids.first_outside();
    Ok(rustix::fs::fchown(&into, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

/// Two containers may start with it at the same time. Who has nothing to do does not wait: programs of other containers can
/// lock the directory, too.
fn lock_to_be_filled(volume: &OwnedFd) -> io::Result<bool> {
    if !is_to_be_filled(volume)? {
        return Ok(false);
    }
    rustix::fs::flock(volume, FlockOperation::LockExclusive)?;
    is_to_be_filled(volume)
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
            return self.link(first, into, name);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
        let mut target = new_file(into)?;
        io::copy(&mut source, &mut target)?;
        finish(&OwnedFd::from(source), &OwnedFd::from(target), stat)?;
        rustix::fs::renameat(into, UNFINISHED, into, name)?;
        if stat.st_nlink > 1 {
            self.links.insert(number, path);
        }
        Ok(())
    }

    /// Containers that have the volume already may move what is in it meanwhile, and this process sees more than theirs.
    fn link(&self, first: &Path, into: &OwnedFd, name: &CStr) -> io::Result<()> {
        let (Some(parent), Some(last)) = (first.parent(), first.file_name()) else {
            return Err(Errno::ISDIR.into());
        };
        let parent = match parent.as_os_str().is_empty() {
            true => self.top.try_clone()?,
            false => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
                scoped::open(self.top, parent, flags, resolve)?
            }
        };
        gone_before(rustix::fs::linkat(&parent, last, into, name, AtFlags::empty()))
    }
}

/// A new file under the name that it has until it is complete. What has that name is left of an earlier attempt, or a device
/// or a fifo of a container's.
fn new_file(into: &OwnedFd) -> io::Result<File> {
    match rustix::fs::unlinkat(into, UNFINISHED, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(into, UNFINISHED, flags, Mode::RUSR | Mode::WUSR)?))
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    /// A volume with a directory, as far as it was filled.
    fn volume() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/file"), "first").unwrap();
        let top = OwnedFd::from(File::open(dir.path()).unwrap());
        (dir, top)
    }

    #[test]
    fn a_link_goes_to_what_is_in_the_volume() {
        let (dir, top) = volume();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "of the host").unwrap();
        let copy = Copy { top: &top, links: HashMap::new() };
        copy.link(Path::new("a/file"), &top, c"again").unwrap();
        copy.link(Path::new("again"), &top, c"third").unwrap();
        assert_eq!(fs::metadata(dir.path().join("third")).unwrap().nlink(), 3);
        // Between the first name and the next a container has put something else there.
        fs::rename(dir.path().join("a"), dir.path().join("old")).unwrap();
        let up = Path::new("..").join(outside.path().file_name().unwrap());
        for target in [outside.path(), &up] {
            symlink(target, dir.path().join("a")).unwrap();
            assert!(copy.link(Path::new("a/file"), &top, c"stolen").is_err(), "{}", target.display());
            fs::remove_file(dir.path().join("a")).unwrap();
        }
        assert!(!dir.path().join("stolen").exists());
        assert_eq!(fs::metadata(outside.path().join("file")).unwrap().nlink(), 1);
    }

    #[test]
    fn what_a_container_has_put_in_the_way_is_not_written_to() {
        let (dir, top) = volume();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let unfinished = dir.path().join(UNFINISHED.to_str().unwrap());
        symlink(outside.path(), &unfinished).unwrap();
        new_file(&top).unwrap();
        assert!(fs::symlink_metadata(&unfinished).unwrap().is_file());
        fs::remove_file(&unfinished).unwrap();
        // Nobody reads it, so that opening it would wait for ever.
        rustix::fs::mknodat(&top, UNFINISHED, FileType::Fifo, Mode::RWXU, 0).unwrap();
        new_file(&top).unwrap();
        assert!(fs::symlink_metadata(&unfinished).unwrap().is_file());
        fs::remove_file(&unfinished).unwrap();
        fs::hard_link(dir.path().join("a/file"), &unfinished).unwrap();
        new_file(&top).unwrap();
        assert_eq!(fs::read(dir.path().join("a/file")).unwrap(), b"first");
    }

    #[test]
    fn who_has_nothing_to_fill_does_not_wait_for_a_lock() {
        let (dir, top) = volume();
        let other = File::open(dir.path()).unwrap();
        rustix::fs::flock(&other, FlockOperation::LockExclusive).unwrap();
        assert!(!lock_to_be_filled(&top).unwrap());
    }
}
