//! Row 9: to look at an image without mounting it: what is in it, where that comes from, and whether it is whole.
//!
//! Everything is read through the union of the layers, as a mount would; nothing is written but indexes. What leaves is
//! text and bytes for a terminal or a script; who prints it is the row above.

mod bytes_text;
mod entry;
mod listing;
mod origin;
mod tree;
mod verify;

pub use bytes_text::{Quoting, safe_json};
pub(crate) use bytes_text::{shown, told};
pub use entry::Entry;
pub use listing::{Listing, list};
pub use origin::{Origin, which};
pub use tree::tree;
pub use verify::{Defect, DefectKind, Verified, verify};

use crate::layer::LayerError;
use crate::model::FileKind;
use crate::union::{FollowError, LastSymlink, Lower, Target, Union};

/// Why a path of an image cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Nothing is there.
    #[error("{path}: no such file or directory in the image")]
    Absent {
        /// As it was typed.
        path: String,
    },
    /// What is not a directory is used as one.
    #[error("{path}: {at} is not a directory")]
    NotDirectory {
        /// As it was typed.
        path: String,
        /// What is none.
        at: String,
    },
    /// A directory or a special file, where bytes are wanted.
    #[error("{path}: {what}")]
    NoContent {
        /// As it was typed.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// Symlinks that lead to each other.
    #[error("{path}: too many symlinks in the image")]
    Loop {
        /// As it was typed.
        path: String,
    },
    /// A layer cannot answer.
    #[error("{path}: {source}")]
    Layer {
        /// As it was typed.
        path: String,
        /// Which, and why.
        source: LayerError,
    },
    /// Who was told does not listen any more.
    #[error("{0}")]
    Output(std::io::Error),
}

/// Where output goes, piece by piece.
pub type Sink<'a> = dyn FnMut(&[u8]) -> std::io::Result<()> + 'a;

/// Bytes read from an image at once.
const PIECE_BYTES: usize = 1 << 20;

/// Finds a path of the image; gives it without symlinks too.
pub(crate) fn find(union: &Union, path: &[u8], last: LastSymlink) -> Result<(Vec<u8>, Lower), LookError> {
    let typed = || shown(path);
    let place = union.follow(path, last).map_err(|error| match error {
        FollowError::Loop => LookError::Loop { path: typed() },
        FollowError::Layer(source) => LookError::Layer { path: typed(), source },
    })?;
    match place.target {
        Target::Found(lower) => Ok((place.path, lower)),
        Target::Absent => Err(LookError::Absent { path: typed() }),
        Target::NotDirectory(end) => {
            let at = shown(&[b"/", place.path.get(..end).unwrap_or_default()].concat());
            Err(LookError::NotDirectory { path: typed(), at })
        }
    }
}

/// The bytes of a file, verified, as they are; symlinks are followed inside the image.
///
/// # Errors
/// [`LookError`]; what was given before is right.
pub fn cat(union: &Union, path: &[u8], sink: &mut Sink<'_>) -> Result<(), LookError> {
    let refused = |what| LookError::NoContent { path: shown(path), what };
    let (_, found) = find(union, path, LastSymlink::Follow)?;
    let lower = match found {
        Lower::Leaf(lower, FileKind::Regular) | Lower::Link(lower, FileKind::Regular) => lower,
        Lower::Dir(_) => return Err(refused("is a directory")),
        Lower::Leaf(..) | Lower::Link(..) => return Err(refused("is a special file without content")),
    };
    let mut buffer = vec![0; PIECE_BYTES];
    let mut offset = 0;
    loop {
        let read = union.read_at(lower, offset, &mut buffer);
        let count = read.map_err(|source| LookError::Layer { path: shown(path), source })?;
        if count == 0 {
            return Ok(());
        }
        sink(&buffer[..count]).map_err(LookError::Output)?;
        offset += count as u64;
    }
}
