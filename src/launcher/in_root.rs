//! Paths of the container, opened so that no symlink in it leads out of it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::model::limits::DEPTH_MAX;
use crate::sys::scoped;

/// What to do about symlinks on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symlinks {
    /// Followed, as if the root filesystem were the whole world.
    Inside,
    /// An error: nobody has a reason to have one there.
    Refused,
}

/// Opens `path` as a place only (O_PATH).
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, symlinks: Symlinks) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(scoped::open(root, path, flags, resolve(symlinks))?)
}

fn resolve(symlinks: Symlinks) -> ResolveFlags {
    let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if symlinks == Symlinks::Refused { flags | ResolveFlags::NO_SYMLINKS } else { flags }
}

/// Whether an error of [`open`] means that there is nothing.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Opens a directory, making it and those above when missing.
pub(super) fn open_or_make_directory(
    root: BorrowedFd<'_>,
    path: &Path,
    symlinks: Symlinks,
) -> io::Result<OwnedFd> {
    let mut missing: Vec<PathBuf> = Vec::new();
    let mut ancestors = path.ancestors();
    let mut place = loop {
        let Some(ancestor) = ancestors.next() else { break root.try_clone_to_owned()? };
        if missing.len() > DEPTH_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        match open(root, ancestor, symlinks) {
            Ok(found) => break found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match ancestor.file_name() {
                Some(name) => missing.push(name.into()),
                None => return Err(error),
            },
            Err(error) => return Err(error),
        }
    };
    for name in missing.iter().rev() {
        match rustix::fs::mkdirat(&place, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        place = rustix::fs::openat(&place, name, flags, Mode::empty())?;
    }
    if is_directory(place.as_fd())? { Ok(place) } else { Err(Errno::NOTDIR.into()) }
}

/// Opens a file, making an empty one when it is missing but its directory is there.
pub(super) fn open_or_make_file(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    match open(root, path, Symlinks::Inside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::ISDIR.into());
    };
    let parent = open(root, parent, Symlinks::Inside)?;
    match make_file(parent.as_fd(), name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    // A symlink to nothing, as /etc/resolv.conf is in images made with systemd-resolved: make what it points to, inside.
    let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
    let target = path.with_file_name(OsStr::from_bytes(target.as_bytes()));
    let (Some(above), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(Errno::ISDIR.into());
    };
    make_file(open_or_make_directory(root, above, Symlinks::Inside)?.as_fd(), name)
}

/// Makes an empty file; where there is anything, even a symlink to nothing, mknod(2) makes none. Nothing is open
/// afterwards that would have to be closed.
fn make_file(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    rustix::fs::mknodat(parent, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Whether what is open is a directory.
pub(super) fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(kind(fd)?.stx_mode.into()) == FileType::Directory)
}

/// Whether both are open in the same filesystem.
pub(super) fn is_beside(fd: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    Ok(device(&kind(fd)?) == device(&kind(other)?))
}

/// What never changes. The kernel knows it without a question to whoever serves the filesystem.
fn kind(fd: BorrowedFd<'_>) -> io::Result<Statx> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO;
    Ok(rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, wanted)?)
}

/// Whether two descriptors are of the same file or directory.
pub(super) fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let number = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
    Ok(number(&kind(one)?) == number(&kind(other)?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_do_not_lead_out() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        let root = fs::File::open(inside.path()).unwrap();
        symlink(outside.path(), inside.path().join("out")).unwrap();
        symlink("../../../../../../etc", inside.path().join("up")).unwrap();
        for path in ["/out/new", "/up/new", "/../../new"] {
            let made = open_or_make_directory(root.as_fd(), Path::new(path), Symlinks::Inside);
            assert!(made.is_err() || inside.path().join("new").exists(), "{path}");
            assert!(open_or_make_file(root.as_fd(), &Path::new(path).join("x/y")).is_err());
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(!Path::new("/etc/new").exists());
    }

    #[test]
    fn a_symlink_to_nothing_gets_its_target_inside() {
        let inside = tempfile::tempdir().unwrap();
        let root = fs::File::open(inside.path()).unwrap();
        fs::create_dir(inside.path().join("etc")).unwrap();
        symlink("../../../run/resolve/stub", inside.path().join("etc/resolv.conf")).unwrap();
        open_or_make_file(root.as_fd(), Path::new("/etc/resolv.conf")).unwrap();
        assert!(inside.path().join("run/resolve/stub").is_file());
    }

    #[test]
    fn a_symlink_inside_is_followed_or_refused() {
        let inside = tempfile::tempdir().unwrap();
        let root = fs::File::open(inside.path()).unwrap();
        fs::create_dir(inside.path().join("run")).unwrap();
        symlink("/run", inside.path().join("link")).unwrap();
        let path = Path::new("/link/a/b");
        assert!(open_or_make_directory(root.as_fd(), path, Symlinks::Refused).is_err());
        open_or_make_directory(root.as_fd(), path, Symlinks::Inside).unwrap();
        assert!(inside.path().join("run/a/b").is_dir());
        open_or_make_file(root.as_fd(), Path::new("/link/a/file")).unwrap();
        assert!(inside.path().join("run/a/file").is_file());
        assert!(open_or_make_directory(root.as_fd(), Path::new("/run/a/file"), Symlinks::Inside).is_err());
    }
}
