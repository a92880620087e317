//! Files of credentials on disk: read with a word about their mode, replaced as a whole under a lock.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::CredentialsError;
use super::auth_file::{AuthFile, Form};
use crate::registry::places;
use crate::sys::atomic;
use crate::sys::lock::FileLock;

/// Symbolic links that are followed from a file to what it stands for: as many as the kernel does (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The file's content; `None` when there is none.
pub(super) fn read(path: &Path, form: Form) -> Result<Option<AuthFile>, CredentialsError> {
    let io = |source| CredentialsError::Io { action: "read", path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(io(error)),
    };
    let metadata = file.metadata().map_err(io)?;
    if metadata.is_file() && metadata.mode() & 0o077 != 0 {
        let mode = format!("{:04o}", metadata.mode() & 0o7777);
        tracing::warn!(path = %path.display(), mode, "others can read or write these credentials: run chmod 600 on the file");
    }
    let bytes = places::read_open(&file).map_err(io)?;
    let parsed = AuthFile::parse(&bytes, form);
    parsed.map(Some).map_err(|reason| CredentialsError::Document { path: path.to_owned(), reason })
}

/// Changes the file, or makes it, with the mode 0600. `edit` says whether there is anything to write.
pub(super) fn change(
    path: &Path,
    edit: impl FnOnce(&mut AuthFile) -> Result<bool, String>,
) -> Result<bool, CredentialsError> {
    let io = |action| move |source| CredentialsError::Io { action, path: path.to_owned(), source };
    let wrong = |reason| CredentialsError::Document { path: path.to_owned(), reason };
    let target = target(path).map_err(io("follow"))?;
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("make the directory of"))?;
    let _lock = FileLock::exclusive(&lock_path(&target)).map_err(io("lock"))?;
    let read = read(&target, Form::Current)?;
    let mut file = match read {
        Some(file) => file,
        None => AuthFile::parse(b"", Form::Current).map_err(wrong)?,
    };
    let changed = edit(&mut file).map_err(wrong)?;
    if changed {
        atomic::write(&target, &file.text().map_err(wrong)?, 0o600).map_err(io("write"))?;
    }
    Ok(changed)
}

/// What is to be replaced: never a symbolic link, but what it leads to.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match std::fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("")).join(link),
            // No link, or nothing there.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {
                return Ok(path);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Beside the file, as the file itself is replaced.
fn lock_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.lock"))
}
