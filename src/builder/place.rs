//! Paths in the image: where they lead, symlinks followed and never out of it.

use super::StepError;
use crate::fs::Fs;
use crate::model::{FileKind, Ino, Name};

/// As many symlinks as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Bytes of a passwd or group file; an image must not make us read gigabytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    /// Names without symlinks.
    pub(super) names: Vec<Vec<u8>>,
    /// How many of them are there.
    pub(super) existing: usize,
    /// What is there, if all of them are.
    pub(super) kind: Option<FileKind>,
    ino: Ino,
}

/// Follows a path from the root.
pub(super) fn resolve(fs: &Fs, path: &[u8]) -> Result<Place, StepError> {
    let mut todo = reversed(path);
    let mut walked: Vec<(Vec<u8>, Ino, FileKind)> = Vec::new();
    let mut missing: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            if missing.pop().is_none() {
                walked.pop();
            }
            continue;
        }
        if !missing.is_empty() {
            missing.push(name);
            continue;
        }
        let (ino, kind) = walked.last().map_or((Ino::ROOT, FileKind::Directory), |last| (last.1, last.2));
        if kind != FileKind::Directory {
            return Err(format!("{}: not a directory in the image", shown(&joined(&walked))).into());
        }
        match fs.lookup(ino, checked(&name)?)? {
            None => missing.push(name),
            Some(attr) if attr.metadata.kind == FileKind::Symlink => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(format!("{}: too many symlinks in the image", shown(path)).into());
                }
                let target = fs.read_link(attr.ino)?;
                if target.starts_with(b"/") {
                    walked.clear();
                }
                todo.extend(reversed(&target));
            }
            Some(attr) => walked.push((name, attr.ino, attr.metadata.kind)),
        }
    }
    let (ino, kind) = walked.last().map_or((Ino::ROOT, FileKind::Directory), |last| (last.1, last.2));
    if kind != FileKind::Directory && !missing.is_empty() {
        return Err(format!("{}: not a directory in the image", shown(&joined(&walked))).into());
    }
    let existing = walked.len();
    let kind = missing.is_empty().then_some(kind);
    let names = walked.into_iter().map(|(name, ..)| name).chain(missing).collect();
    Ok(Place { names, existing, kind, ino })
}

/// What is at a path, no symlink followed; `None` when nothing is.
pub(super) fn kind_at(fs: &Fs, path: &[u8]) -> Result<Option<FileKind>, StepError> {
    let mut here = (Ino::ROOT, FileKind::Directory);
    for name in reversed(path).iter().rev() {
        if here.1 != FileKind::Directory {
            return Ok(None);
        }
        match fs.lookup(here.0, checked(name)?)? {
            Some(attr) => here = (attr.ino, attr.metadata.kind),
            None => return Ok(None),
        }
    }
    Ok(Some(here.1))
}

/// A small text file of the image; empty when there is none.
pub(super) fn read_text(fs: &Fs, path: &[u8]) -> Result<String, StepError> {
    let place = resolve(fs, path)?;
    match place.kind {
        Some(FileKind::Regular) => {}
        None => return Ok(String::new()),
        Some(_) => return Err(format!("{}: not a regular file", shown(path)).into()),
    }
    let size = fs.getattr(place.ino)?.metadata.size;
    if size > FILE_BYTES_MAX {
        return Err(format!("{}: larger than 1 MiB", shown(path)).into());
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    let length = fs.read(place.ino, 0, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

fn checked(name: &[u8]) -> Result<Name<'_>, StepError> {
    Name::new(name).map_err(|error| StepError::Asked(format!("{}: {error}", name.escape_ascii())))
}

/// The names of a path, the last one first.
fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    super::patterns::segments(path).into_iter().rev().collect()
}

fn joined(walked: &[(Vec<u8>, Ino, FileKind)]) -> Vec<u8> {
    walked.iter().flat_map(|(name, ..)| [&b"/"[..], name].concat()).collect()
}

fn shown(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}
