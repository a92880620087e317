//! A file appears under its name complete and durable, or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes a temporary file in `directory`, syncs it, renames it to `name` (replacing what was there), syncs the
/// directory. When anything fails, the temporary file is removed and `name` is as it was.
///
/// # Errors
/// What `write` says, or the system.
pub fn publish<E: From<io::Error>>(
    directory: &Path,
    name: &str,
    write: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let mut temporary = Temporary::create(directory, name)?;
    write(&mut temporary.file)?;
    temporary.file.sync_all()?;
    fs::rename(&temporary.path, directory.join(name))?;
    temporary.published = true;
    File::open(directory)?.sync_all()?;
    Ok(())
}

/// Removes its file unless it was renamed.
struct Temporary {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Temporary {
    fn create(directory: &Path, name: &str) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let unique = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!(".{name}.{}.{unique}.tmp", std::process::id()));
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { path, file, published: false }),
                // Left by an earlier process with our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary file");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn all_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        publish::<io::Error>(dir.path(), "a", |file| file.write_all(b"one")).unwrap();
        let failed = publish::<io::Error>(dir.path(), "a", |file| {
            file.write_all(b"tw")?;
            Err(io::Error::other("full"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        publish::<io::Error>(dir.path(), "a", |file| file.write_all(b"three")).unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"three");
    }
}
