//! Where the documents and blobs of an image lie: a directory or an archive.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::ImageError;
use crate::model::Digest;
use crate::model::limits::DOCUMENT_BYTES_MAX;
use crate::sys::file_range::FileRange;

/// Files by name, relative to the image's root.
pub(super) trait Files: Debug {
    /// The directory or archive, for messages.
    fn place(&self) -> &Path;

    /// The regular file of that name, if there is one.
    fn open(&self, name: &str) -> Result<Option<FileRange>, ImageError>;
}

/// A directory.
#[derive(Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Files for Directory {
    fn place(&self) -> &Path {
        &self.0
    }

    fn open(&self, name: &str) -> Result<Option<FileRange>, ImageError> {
        let path = self.0.join(name);
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            // Opening a fifo would wait for ever.
            Ok(_) => return Ok(None),
            Err(error) if absent(&error) => return Ok(None),
            Err(error) => return Err(ImageError::io("read", &path)(error)),
        }
        FileRange::open(&path).map(Some).map_err(ImageError::io("open", &path))
    }
}

/// Whether an error means that there is no such file.
pub(super) fn absent(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename)
}

/// Reads a whole document and hashes it.
pub(super) fn read_document(
    files: &dyn Files,
    range: &FileRange,
    what: &str,
) -> Result<(Vec<u8>, Digest), ImageError> {
    if range.len() > DOCUMENT_BYTES_MAX {
        let (path, what) = (files.place().to_owned(), format!("bytes in {what}"));
        return Err(ImageError::Limit { path, what, count: range.len(), limit: DOCUMENT_BYTES_MAX });
    }
    let mut bytes = vec![0; usize::try_from(range.len()).unwrap_or_default()];
    let count = range.read_at(0, &mut bytes).map_err(ImageError::io("read", range.path()))?;
    bytes.truncate(count);
    let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
    Ok((bytes, digest))
}
