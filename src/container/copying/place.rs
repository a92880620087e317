//! What a path of `cp` means: which object is copied, and where what is copied comes to lie.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, statat};
use rustix::io::Errno;

use crate::sys::scoped;

/// Symlinks at the end of a destination that are followed (path_resolution(7)).
const LINKS_MAX: u32 = 40;
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// Whose paths they are.
#[derive(Clone, Copy, Debug)]
pub(super) enum World<'a> {
    /// The caller's, from the working directory.
    Host,
    /// A container's, from its root; no symlink leads out of it, whoever changes it meanwhile.
    Container(BorrowedFd<'a>),
}

/// A path that was taken apart at its last name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// The directory that the last name is in.
    pub(super) parent: &'a Path,
    /// The last name; none where the path ends with `.` or `..`, which is what a directory contains.
    pub(super) name: Option<&'a OsStr>,
    /// It ends with a slash, so it has to be a directory.
    pub(super) is_directory: bool,
}

/// Where what is copied comes to lie.
#[derive(Debug)]
pub(super) struct Destination {
    /// A directory that is there.
    pub(super) dir: OwnedFd,
    /// Its path.
    pub(super) path: PathBuf,
    /// What is made in it.
    pub(super) landing: Landing,
}

/// What is made in a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// What is copied, by its own name.
    Own,
    /// What is copied, by this name.
    As {
        /// The name.
        name: OsString,
        /// There is something of that name, and it is no directory.
        is_there: bool,
        /// Only a directory may be made.
        is_directory: bool,
    },
}

impl World<'_> {
    /// Opens a path, following symlinks.
    pub(super) fn open(self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        match self {
            Self::Host => rustix::fs::open(path, flags, Mode::empty()),
            Self::Container(root) => {
                scoped::open(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
            }
        }
    }

    /// Opens a directory as a place only.
    pub(super) fn open_directory(self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open(path, DIRECTORY)
    }
}

impl<'a> Parts<'a> {
    /// Of a path that is not empty.
    pub(super) fn of(path: &'a Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        let length = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let start = bytes[..length].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let as_path = |bytes| Path::new(OsStr::from_bytes(bytes));
        let is_directory = length < bytes.len();
        match &bytes[start..length] {
            b"" | b"." | b".." => Self { parent: path, name: None, is_directory: true },
            name => {
                let parent = if start == 0 { as_path(b".") } else { as_path(&bytes[..start]) };
                Self { parent, name: Some(OsStr::from_bytes(name)), is_directory }
            }
        }
    }
}

impl Destination {
    /// As docker understands it: into a directory that is there, over a file, or under a name that is new in a directory that
    /// is there. A symlink at the end is followed.
    pub(super) fn find(world: World<'_>, path: &Path) -> io::Result<Self> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            match world.open_directory(&path) {
                Ok(dir) => return Ok(Self { dir, path, landing: Landing::Own }),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(at(&path, error.into())),
            }
            let parts = Parts::of(&path);
            let Some(name) = parts.name else { return Err(no_directory(&path)) };
            let dir = match world.open_directory(parts.parent) {
                Err(Errno::NOENT | Errno::NOTDIR) => return Err(no_directory(parts.parent)),
                dir => dir.map_err(|error| at(parts.parent, error.into()))?,
            };
            let is_there = match statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => false,
                Err(error) => return Err(at(&path, error.into())),
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&dir, name, Vec::new())?;
                    let target = parts.parent.join(OsStr::from_bytes(target.as_bytes()));
                    path = if parts.is_directory { target.join("") } else { target };
                    continue;
                }
                Ok(_) => true,
            };
            if is_there && parts.is_directory {
                return Err(at(&path, Errno::NOTDIR.into()));
            }
            let name = name.to_owned();
            let landing = Landing::As { name, is_there, is_directory: parts.is_directory };
            return Ok(Self { dir, path: parts.parent.to_owned(), landing });
        }
        Err(at(&path, Errno::LOOP.into()))
    }
}

pub(super) fn no_directory(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{}: no such directory", path.components().as_path().display()),
    )
}

/// Names what an error was about.
pub(super) fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let of = |text: &'static str| {
            let parts = Parts::of(Path::new(text));
            let name = parts.name.map(|name| name.to_str().unwrap());
            (parts.parent.to_str().unwrap(), name, parts.is_directory)
        };
        assert_eq!(of("a"), (".", Some("a"), false));
        assert_eq!(of("/a"), ("/", Some("a"), false));
        assert_eq!(of("/a/b//"), ("/a/", Some("b"), true));
        assert_eq!(of("a/."), ("a/.", None, true));
        assert_eq!(of("a/./"), ("a/./", None, true));
        assert_eq!(of(".."), ("..", None, true));
        assert_eq!(of("/"), ("/", None, true));
        assert_eq!(of("a/...x"), ("a/", Some("...x"), false));
    }

    #[test]
    fn destinations() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/there/inner")).unwrap();
        fs::write(dir.path().join("root/file"), "").unwrap();
        symlink("/there", dir.path().join("root/absolute")).unwrap();
        symlink("../../there/new", dir.path().join("root/dangling")).unwrap();
        symlink("loop", dir.path().join("root/loop")).unwrap();
        let root = fs::File::open(dir.path().join("root")).unwrap();
        let find = |path: &str| {
            Destination::find(World::Container(root.as_fd()), Path::new(path)).map(|found| found.landing)
        };
        let new =
            |name: &str, is_there, is_directory| Landing::As { name: name.into(), is_there, is_directory };
        assert_eq!(find("/there").unwrap(), Landing::Own);
        assert_eq!(find("absolute/").unwrap(), Landing::Own);
        assert_eq!(find("/../../there/inner/.").unwrap(), Landing::Own);
        assert_eq!(find("/there/x").unwrap(), new("x", false, false));
        assert_eq!(find("/there/x/").unwrap(), new("x", false, true));
        assert_eq!(find("/file").unwrap(), new("file", true, false));
        assert_eq!(find("/dangling").unwrap(), new("new", false, false));
        for (path, message) in [
            ("/file/", "Not a directory"),
            ("/file/x", "/file: no such directory"),
            ("/nowhere/x", "/nowhere: no such directory"),
            ("/nowhere/.", "no such directory"),
            ("/loop", "levels of symbolic links"),
        ] {
            let error = find(path).unwrap_err().to_string();
            assert!(error.contains(message), "{path}: {error}");
        }
    }
}
