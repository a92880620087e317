//! Publishing files: what is visible under its name is complete and on disk.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// What the name of every temporary file starts with, so that a collector can tell one that a crash left behind.
pub const TEMP_PREFIX: &str = ".tmp-";

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Replaces the file at `path`: after a crash it holds the old contents or the new ones, never a mixture.
///
/// # Errors
/// What the system says; then the old file is still there.
pub fn write(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut temp = TempFile::create_in(parent(path)?)?;
    temp.file().write_all(contents)?;
    temp.publish(path, mode)
}

/// As [`write`], for what only matters until the system stops: after a power cut the file may also be empty, missing or
/// the one before. After a crash of the program alone it is what `write` promises.
///
/// # Errors
/// What the system says; then the old file is still there.
pub fn write_volatile(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut temp = TempFile::create_in(parent(path)?)?;
    temp.file().write_all(contents)?;
    temp.publish_volatile(path, mode)
}

/// Writes a text over one that is at least as long, and blanks over the rest: where there is no room for another file. Who reads it
/// meanwhile may see some of both.
///
/// # Errors
/// `FileTooLarge` when it is longer; else what the system says.
pub fn overwrite(path: &Path, text: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let file = OpenOptions::new().write(true).open(path)?;
    let room = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    if text.len() > room {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut padded = text.to_vec();
    padded.resize(room, b' ');
    file.write_all_at(&padded, 0)?;
    file.sync_all()
}

/// Makes a file durable and gives it its name, replacing what has it. `path` is where it is now, in the same directory.
///
/// # Errors
/// What the system says; then the file may still be at `path`.
pub fn publish(file: &File, path: &Path, target: &Path, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    std::fs::rename(path, target)?;
    sync_dir(parent(target)?)
}

/// A file that nobody sees yet: removed when dropped, unless published.
#[derive(Debug)]
pub struct TempFile {
    file: File,
    path: PathBuf,
    published: bool,
}

impl TempFile {
    /// An empty file in `dir`, mode 0600. The name is unique even among processes that cannot see each other's ids.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn create_in(dir: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{TEMP_PREFIX}{}-{count}", std::process::id()));
            match OpenOptions::new().write(true).read(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok(Self { file, path, published: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The file, to write to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes it durable and gives it its name, replacing what has it. `target` is in the directory it was created in.
    ///
    /// # Errors
    /// What the system says; then the temporary file is removed.
    pub fn publish(mut self, target: &Path, mode: u32) -> io::Result<()> {
        publish(&self.file, &self.path, target, mode)?;
        self.published = true;
        Ok(())
    }

    /// As [`Self::publish`], for what only matters until the system stops.
    ///
    /// # Errors
    /// What the system says; then the temporary file is removed.
    pub fn publish_volatile(self, target: &Path, mode: u32) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(mode))?;
        self.rename(target)
    }

    fn rename(mut self, target: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, target)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "temporary file stays behind");
        }
    }
}

/// Notes that a cache is in use, once a day: what was not used for long is what a collector takes. Best effort.
pub fn touch(path: &Path) {
    let set = || {
        let now = SystemTime::now();
        match now.duration_since(std::fs::metadata(path)?.modified()?) {
            Ok(age) if age < DAY => Ok(()),
            _ => File::open(path)?.set_modified(now),
        }
    };
    if let Err(error) = set() {
        tracing::debug!(path = %path.display(), %error, "its use is not noted");
    }
}

/// Makes the names in a directory durable.
///
/// # Errors
/// What open(2) and fsync(2) say.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(dir) => Ok(dir),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no parent directory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_sets_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, b"one", 0o600).unwrap();
        write_volatile(&path, b"between", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"between");
        write(&path, b"two", 0o644).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn overwrites_what_is_as_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "longer").unwrap();
        overwrite(&path, b"one").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one   ");
        assert_eq!(overwrite(&path, b"too long").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(std::fs::read(&path).unwrap(), b"one   ");
    }

    #[test]
    fn an_unpublished_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, b"one", 0o600).unwrap();
        let mut temp = TempFile::create_in(dir.path()).unwrap();
        temp.file().write_all(b"tw").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        drop(temp);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::remove_file(&path).unwrap();
        // A rename that fails removes it too: a directory is in the way.
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        assert!(write(&dir.path().join("dir"), b"x", 0o600).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
