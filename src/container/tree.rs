//! Removes a directory with everything in it, however deep, without ever leaving it.
//!
//! A directory that is not empty is moved to the top before it is emptied, so two descriptors and no recursion are
//! enough, and an interrupted removal is simply done again. Symlinks are removed, never followed; a filesystem that is
//! mounted inside is an error, never emptied. Files of other ids need the user namespace that maps them around this call.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::ContainerError;

/// What a directory is called while it waits at the top.
const MOVED_PREFIX: &str = ".layerfs-removing-";
const OWNER_ALL: Mode = Mode::RWXU;
/// How often a directory that others are removing, too, is looked through.
const ROUNDS_MAX: u32 = 100;

/// Removes the directory at `path`. What is not there is removed already: several may do this at the same time.
///
/// # Errors
/// [`ContainerError::Io`] with the path that could not be removed; calling it again goes on from there.
pub fn remove(path: &Path) -> Result<(), ContainerError> {
    let name = c_string(path.as_os_str());
    let top = match open_dir_of(CWD, &name, ResolveFlags::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed("open", path, errno)),
    };
    let mut removal = Removal { top, path, moved: 0, waiting: Vec::new() };
    for round in 1.. {
        removal.run()?;
        match gone(rustix::fs::unlinkat(CWD, &name, AtFlags::REMOVEDIR)) {
            // Somebody else who removes it has moved more to the top meanwhile.
            Err(Errno::NOTEMPTY | Errno::EXIST) if round < ROUNDS_MAX => {}
            result => return result.map_err(|errno| failed("remove", path, errno)),
        }
    }
    Ok(())
}

/// What is not there is removed already.
fn gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    if removed == Err(Errno::NOENT) { Ok(()) } else { removed }
}

struct Removal<'a> {
    top: OwnedFd,
    path: &'a Path,
    /// Numbers the directories that were moved to the top.
    moved: u64,
    /// Directories at the top that are not removed yet.
    waiting: Vec<CString>,
}

impl Removal<'_> {
    fn run(&mut self) -> Result<(), ContainerError> {
        for name in names(&self.top).map_err(|errno| failed("list", self.path, errno))? {
            if !remove_simple(&self.top, &name).map_err(|errno| self.failed("remove", &name, errno))? {
                self.waiting.push(name);
            }
        }
        while let Some(name) = self.waiting.pop() {
            let dir = match open_dir(&self.top, &name) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(self.failed("open", &name, errno)),
            };
            for inner in names(&dir).map_err(|errno| self.failed("list", &name, errno))? {
                let done =
                    remove_simple(&dir, &inner).map_err(|errno| self.failed("remove", &inner, errno))?;
                if !done {
                    self.move_to_top(&dir, &inner)?;
                }
            }
            match gone(rustix::fs::unlinkat(&self.top, &name, AtFlags::REMOVEDIR)) {
                // Somebody else has moved it, and emptied it or not.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                result => result.map_err(|errno| self.failed("remove", &name, errno))?,
            }
        }
        Ok(())
    }

    fn move_to_top(&mut self, dir: &OwnedFd, name: &CStr) -> Result<(), ContainerError> {
        // A directory that changes its parent must itself be writable.
        match open_dir(dir, name) {
            Err(Errno::NOENT) => return Ok(()),
            opened => drop(opened.map_err(|errno| self.failed("open", name, errno))?),
        }
        loop {
            let target = c_string(OsStr::new(&format!("{MOVED_PREFIX}{}", self.moved)));
            self.moved += 1;
            match rustix::fs::renameat(dir, name, &self.top, &target) {
                Ok(()) => {
                    self.waiting.push(target);
                    return Ok(());
                }
                Err(Errno::NOENT) => return Ok(()),
                // Left behind by a removal that was interrupted.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(errno) => return Err(self.failed("move", name, errno)),
            }
        }
    }

    fn failed(&self, action: &'static str, name: &CStr, errno: Errno) -> ContainerError {
        failed(action, &self.path.join(OsStr::from_bytes(name.to_bytes())), errno)
    }
}

/// Removes anything but a directory with something in it; says whether it did.
fn remove_simple(dir: &OwnedFd, name: &CStr) -> Result<bool, Errno> {
    match gone(rustix::fs::unlinkat(dir, name, AtFlags::empty())) {
        Err(Errno::ISDIR) => match gone(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            other => other.map(|()| true),
        },
        other => other.map(|()| true),
    }
}

/// Opens a subdirectory that may be listed and changed, whatever its mode was.
fn open_dir(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let stay = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    open_dir_of(dir, name, stay)
}

fn open_dir_of(dir: impl std::os::fd::AsFd, name: &CStr, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |more| rustix::fs::openat2(&dir, name, flags | more, Mode::empty(), resolve);
    let opened = match open(OFlags::RDONLY) {
        Err(Errno::ACCESS) => {
            // Without permission to open it, its mode can only be changed by what names it. A magic link leads to the
            // very object that the descriptor holds.
            let held = open(OFlags::PATH)?;
            rustix::fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), OWNER_ALL)?;
            open(OFlags::RDONLY)?
        }
        other => other?,
    };
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode);
    if !mode.contains(OWNER_ALL) {
        rustix::fs::fchmod(&opened, OWNER_ALL)?;
    }
    Ok(opened)
}

fn names(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    // Opens the directory again, through itself: one that was removed holds nothing.
    let list = match Dir::read_from(dir) {
        Err(Errno::NOENT) => return Ok(names),
        list => list?,
    };
    for entry in list {
        let entry = match entry {
            Err(Errno::NOENT) => break,
            entry => entry?,
        };
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Paths of ours have no NUL; one that had would name nothing.
fn c_string(path: &OsStr) -> CString {
    CString::new(path.as_bytes()).unwrap_or_default()
}

fn failed(action: &'static str, path: &Path, errno: Errno) -> ContainerError {
    let path: PathBuf = path.to_owned();
    ContainerError::Io { action, path, source: errno.into() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn deep_wide_and_unreadable() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::create_dir(tree.join(format!("{MOVED_PREFIX}0"))).unwrap();
        fs::write(tree.join(format!("{MOVED_PREFIX}0/left")), "").unwrap();
        // Deeper than PATH_MAX allows to name at once.
        let mut at = rustix::fs::open(&tree, OFlags::DIRECTORY, Mode::empty()).unwrap();
        for depth in 0..3000 {
            rustix::fs::mkdirat(&at, "ddd", OWNER_ALL).unwrap();
            if depth % 100 == 0 {
                rustix::fs::mkdirat(&at, "empty", Mode::empty()).unwrap();
            }
            at = rustix::fs::openat(&at, "ddd", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        for wide in 0..200 {
            fs::create_dir_all(tree.join(format!("wide/{wide}/x"))).unwrap();
        }
        fs::create_dir_all(tree.join("closed/work/work")).unwrap();
        fs::set_permissions(tree.join("closed/work/work"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o111)).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        remove(&tree).unwrap();
    }

    #[test]
    fn several_at_the_same_time() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let tree = dir.path().join(format!("tree-{round}"));
            for wide in 0..20 {
                fs::create_dir_all(tree.join(format!("wide/{wide}/x/y/z"))).unwrap();
                fs::write(tree.join(format!("wide/{wide}/x/file")), "").unwrap();
                fs::create_dir_all(tree.join(format!("{wide}/x"))).unwrap();
            }
            let removed: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| remove(&tree))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(removed.iter().all(Result::is_ok), "{removed:?}");
            assert!(!tree.exists());
        }
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir_all(outside.join("dir")).unwrap();
        fs::write(outside.join("file"), "stays").unwrap();
        fs::create_dir_all(tree.join("in")).unwrap();
        symlink(&outside, tree.join("in/link")).unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        symlink(outside.join("file"), tree.join("in/file")).unwrap();
        remove(&tree).unwrap();
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "stays");
        assert!(outside.join("dir").is_dir());
        // Nor is the top itself.
        symlink(&outside, &tree).unwrap();
        assert!(remove(&tree).is_err());
        assert!(outside.join("file").exists());
    }

    /// Only where the tests may mount (root, or in a user namespace); elsewhere nothing can be mounted in there either.
    #[test]
    fn a_mounted_filesystem_is_not_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("tree/a/b");
        fs::create_dir_all(&inner).unwrap();
        let mount =
            |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).status().unwrap().success();
        let at = inner.to_str().unwrap();
        if !mount(&["mount", "-t", "tmpfs", "tmpfs", at]) {
            // Without the right to mount there is nothing to cross.
            return;
        }
        fs::write(inner.join("precious"), "x").unwrap();
        let answer = remove(&dir.path().join("tree"));
        let survived = inner.join("precious").exists();
        assert!(mount(&["umount", at]));
        assert!(survived && answer.is_err(), "{answer:?}");
        remove(&dir.path().join("tree")).unwrap();
    }
}
