//! Asking the server of a mount for its counters, from any process.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::model::limits::XATTR_VALUE_BYTES_MAX;
use crate::model::stats::{ATTRIBUTE, Stats, StatsError};
use crate::sys::{files, mount_table};

/// Why a mount did not tell its counters.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It is no mount of ours.
    #[error("{}: no layerfs mount, but on a filesystem of type {filesystem}", path.display())]
    NotMounted {
        /// Who was asked.
        path: PathBuf,
        /// What it is on.
        filesystem: String,
    },
    /// The server does not know the question.
    #[error("{}: mounted by a version of layerfs that does not count: mount it again with this one", .0.display())]
    Older(PathBuf),
    /// The server answers only some.
    #[error("{}: only the user who mounted it may ask, and root: {source}", path.display())]
    Refused {
        /// Who was asked.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
    /// Nobody serves it any more.
    #[error("{}: its server is gone: unmount it (fusermount3 -u, as root umount)", .0.display())]
    Gone(PathBuf),
    /// The answer is strange.
    #[error("{}: what its server tells: {source}", path.display())]
    Answer {
        /// Who was asked.
        path: PathBuf,
        /// What is wrong with it.
        source: StatsError,
    },
    /// The system.
    #[error("{}: {source}", path.display())]
    System {
        /// Who was asked.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Stats {
    /// Those of the mount that `path` is in: its mount point, or anything in it.
    ///
    /// # Errors
    /// [`AskError`] names the path and says what to do.
    pub fn of_mount(path: &Path) -> Result<Self, AskError> {
        // At once as much as there can be: between a question for the size and one for the value it would grow.
        let mut answer = vec![0; XATTR_VALUE_BYTES_MAX];
        let length = files::getxattr(path, ATTRIBUTE, answer.as_mut_slice())
            .map_err(|error| no_answer(path, error))?;
        let answer = answer.get(..length).unwrap_or_default();
        Self::decode(answer).map_err(|source| AskError::Answer { path: path.to_owned(), source })
    }
}

fn no_answer(path: &Path, error: Errno) -> AskError {
    let (path, source) = (path.to_owned(), io::Error::from(error));
    match error {
        // The last: the mount's user namespace has no number for this user.
        Errno::ACCESS | Errno::PERM | Errno::OVERFLOW => AskError::Refused { path, source },
        Errno::NOTCONN => AskError::Gone(path),
        Errno::OPNOTSUPP | Errno::NODATA | Errno::INVAL | Errno::NOSYS => {
            match mount_table::filesystem_of(&path) {
                Ok(Some(filesystem)) if filesystem == "fuse.layerfs" => AskError::Older(path),
                Ok(Some(filesystem)) => AskError::NotMounted { path, filesystem },
                Ok(None) | Err(_) => AskError::System { path, source },
            }
        }
        _ => AskError::System { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_mount_of_ours_is_named() {
        let error = Stats::of_mount(Path::new("/proc")).unwrap_err();
        assert_eq!(error.to_string(), "/proc: no layerfs mount, but on a filesystem of type proc");
        let error = Stats::of_mount(Path::new("/proc/nowhere")).unwrap_err();
        assert!(matches!(error, AskError::System { .. }), "{error}");
        assert!(error.to_string().starts_with("/proc/nowhere: No such file"), "{error}");
    }

    #[test]
    fn what_servers_say() {
        let said = |errno| no_answer(Path::new("/x"), errno).to_string();
        assert!(said(Errno::ACCESS).contains("only the user who mounted it"));
        assert!(said(Errno::OVERFLOW).contains("only the user who mounted it"));
        assert!(said(Errno::NOTCONN).contains("its server is gone"));
        assert!(said(Errno::IO).contains("/x: Input/output error"));
    }
}
