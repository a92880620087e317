//! A tar of an image, used where it lies: only headers are read, contents become ranges of the file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tar_core::parse::{Limits, ParseError, ParseEvent, ParsedEntry, Parser};

use super::ImageError;
use super::files::Files;
use crate::model::limits::{IMAGE_LAYERS_MAX, PATH_BYTES_MAX, PAX_BYTES_MAX};
use crate::sys::file_range::FileRange;

/// Entries in an archive: a `docker save` of a hundred images with as many layers as an image may have.
pub(super) const ENTRIES_MAX: u64 = 100 * 4 * IMAGE_LAYERS_MAX as u64;
/// Names and link targets that are kept in memory: 300 bytes for each of so many entries.
const NAMES_BYTES_MAX: u64 = 64 << 20;
/// Links to links: the symlinked layers of `docker save` need one.
const LINKS_MAX: usize = 8;
/// First read of a header: a PAX header with its records and the header proper.
const HEADER_BYTES: usize = 2048;
/// Of which a tar consists.
const BLOCK_BYTES: usize = 512;
/// A header that needs more than this is refused by the parser before.
const HEADER_BYTES_MAX: usize = 4 << 20;

/// An archive and where its files are.
#[derive(Debug)]
pub(super) struct Archive {
    /// Its file, for messages.
    path: PathBuf,
    members: HashMap<String, Member>,
    /// Of names and targets.
    names_bytes: u64,
}

/// What a name in the archive is.
#[derive(Clone, Debug)]
pub(super) enum Member {
    Data(FileRange),
    /// A file of its own: the archive was a stream.
    File(PathBuf),
    /// The name it stands for, normalised.
    Link(String),
    /// Its bytes do not lie in the archive as they are.
    Sparse,
}

impl Archive {
    /// Reads all headers.
    pub(super) fn of(file: FileRange) -> Result<Self, ImageError> {
        if file.is_empty() {
            let reason = "the file is empty".to_owned();
            return Err(ImageError::NotAnImage { path: file.to_path_buf(), reason });
        }
        let mut archive = Self::of_none(file.path());
        archive.walk(&file)?;
        Ok(archive)
    }

    /// One without members, to be filled with what comes out of a stream.
    pub(super) fn of_none(path: &Path) -> Self {
        Self { path: path.to_owned(), members: HashMap::new(), names_bytes: 0 }
    }

    /// The names of all members, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// Whether there is a member of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    fn walk(&mut self, file: &FileRange) -> Result<(), ImageError> {
        let mut parser = Parser::new(limits());
        parser.set_allow_empty_path(true);
        let (mut offset, mut entries) = (0, 0);
        let mut buffer = vec![0; HEADER_BYTES];
        while offset < file.len() {
            let count = file.read_at(offset, &mut buffer).map_err(ImageError::io("read", file.path()))?;
            let event = parser.parse(&buffer[..count]).map_err(|error| match error {
                ParseError::PathTooLong { len, limit } => {
                    self.too_much("bytes of a name in the archive", len as u64, u64::from(limit))
                }
                error => self.bad(offset, &error.to_string()),
            })?;
            let step = match event {
                ParseEvent::NeedData { min_bytes }
                    if count == buffer.len() && min_bytes <= HEADER_BYTES_MAX =>
                {
                    buffer.resize(min_bytes.max(buffer.len() + HEADER_BYTES), 0);
                    continue;
                }
                // A single zero block, or none, at the end is common enough.
                ParseEvent::NeedData { .. } if buffer[..count].iter().all(|byte| *byte == 0) => break,
                ParseEvent::NeedData { .. } => return Err(self.bad(offset, "the archive is truncated")),
                ParseEvent::End { .. } => break,
                ParseEvent::GlobalExtensions { consumed, .. } => consumed as u64,
                ParseEvent::SparseEntry { consumed, entry, .. } => {
                    let name = normalise(&entry.path);
                    self.data_of(file, &name, offset + consumed as u64, entry.size)?;
                    self.keep(name, Member::Sparse)?;
                    consumed as u64 + entry.padded_size()
                }
                ParseEvent::Entry { consumed, entry } => {
                    let start = offset + consumed as u64;
                    self.add(file, &entry, start)?;
                    // Cannot overflow: the size was checked against the file's.
                    consumed as u64 + entry.padded_size()
                }
            };
            offset += step;
            buffer.truncate(HEADER_BYTES);
            entries += 1;
            if entries > ENTRIES_MAX {
                return Err(self.too_much("entries in the archive", entries, ENTRIES_MAX));
            }
        }
        Ok(())
    }

    fn add(&mut self, file: &FileRange, entry: &ParsedEntry<'_>, start: u64) -> Result<(), ImageError> {
        let name = normalise(&entry.path);
        let data = self.data_of(file, &name, start, entry.size)?;
        let target = entry.link_target.as_deref().unwrap_or_default();
        let member = if entry.is_file() {
            Member::Data(data)
        } else if entry.is_hard_link() {
            Member::hard_link(target)
        } else if entry.is_symlink() {
            Member::symlink(&name, target)
        } else {
            return Ok(());
        };
        self.keep(name, member)
    }

    /// Adds a member, in place of an earlier one of that name.
    pub(super) fn keep(&mut self, name: String, member: Member) -> Result<(), ImageError> {
        let target = if let Member::Link(target) = &member { target.len() } else { 0 };
        self.names_bytes += (name.len() + target) as u64;
        if self.names_bytes > NAMES_BYTES_MAX {
            return Err(self.too_much("bytes of names in the archive", self.names_bytes, NAMES_BYTES_MAX));
        }
        self.members.insert(name, member);
        Ok(())
    }

    /// The contents of a member, which lie in the file as a whole.
    fn data_of(&self, file: &FileRange, name: &str, start: u64, size: u64) -> Result<FileRange, ImageError> {
        file.slice(start, size).ok_or_else(|| {
            let left = file.len().saturating_sub(start);
            self.bad(
                start,
                &format!(
                    "the archive is truncated: {} has {size} bytes, {left} are left",
                    name.escape_debug()
                ),
            )
        })
    }

    pub(super) fn too_much(&self, what: &str, count: u64, limit: u64) -> ImageError {
        ImageError::Limit { path: self.path.clone(), what: what.to_owned(), count, limit }
    }

    pub(super) fn bad(&self, offset: u64, reason: &str) -> ImageError {
        if offset == 0 && self.members.is_empty() {
            let reason = "neither a directory nor a tar archive".to_owned();
            return ImageError::NotAnImage { path: self.path.clone(), reason };
        }
        ImageError::Archive { path: self.path.clone(), offset, reason: reason.to_owned() }
    }
}

impl Files for Archive {
    fn place(&self) -> &Path {
        &self.path
    }

    fn open(&self, name: &str) -> Result<Option<FileRange>, ImageError> {
        let mut name = normalise(name.as_bytes());
        for _ in 0..=LINKS_MAX {
            match self.members.get(&name) {
                None => return Ok(None),
                Some(Member::Data(range)) => return Ok(Some(range.clone())),
                Some(Member::File(path)) => {
                    return FileRange::open(path).map(Some).map_err(ImageError::io("open", path));
                }
                Some(Member::Link(target)) => name.clone_from(target),
                Some(Member::Sparse) => {
                    return Err(self.bad(
                        0,
                        &format!("{name:?} is stored as a sparse file; make the archive without --sparse"),
                    ));
                }
            }
        }
        Err(self.bad(0, &format!("{name:?}: too many links to links")))
    }
}

impl Member {
    pub(super) fn hard_link(target: &[u8]) -> Self {
        Self::Link(normalise(target))
    }

    /// What the symlink of that name stands for.
    pub(super) fn symlink(name: &str, target: &[u8]) -> Self {
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent).as_bytes();
        let joined = if target.starts_with(b"/") { target.to_vec() } else { [parent, b"/", target].concat() };
        Self::Link(normalise(&joined))
    }
}

/// The name without `.`, `..` and empty components; bytes that are no UTF-8 cannot be named by a manifest anyway.
pub(super) fn normalise(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether a file that begins so may be a tar.
pub(super) fn begins_tar(start: &[u8]) -> bool {
    // A name that is too long is told as such when all is read.
    let mut parser = Parser::new(Limits { max_path_len: None, ..limits() });
    parser.set_allow_empty_path(true);
    start.len() >= BLOCK_BYTES && parser.parse(start).is_ok()
}

fn limits() -> Limits {
    Limits {
        max_metadata_size: u32::try_from(PAX_BYTES_MAX).unwrap_or(u32::MAX),
        max_path_len: u32::try_from(PATH_BYTES_MAX).ok(),
        ..Limits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_limits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long.tar");
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        let mut archive = |len: usize| {
            let mut builder = tar::Builder::new(std::fs::File::create(&path).unwrap());
            builder.append_data(&mut header, "a".repeat(len), std::io::empty()).unwrap();
            builder.finish().unwrap();
            assert!(begins_tar(&std::fs::read(&path).unwrap()[..1024]));
            Archive::of(FileRange::open(&path).unwrap())
        };
        let error = archive(PATH_BYTES_MAX + 1).unwrap_err().to_string();
        assert!(error.contains("bytes of a name in the archive: 4097"), "{error}");
        let mut archive = archive(PATH_BYTES_MAX).unwrap();
        // Both have room for their own, and for that of the one before.
        let kept = |number: usize| archive.keep(format!("{number:04096}"), Member::Link("b".repeat(1 << 20)));
        let error = (0..64).map(kept).find_map(Result::err).unwrap().to_string();
        assert!(error.contains("bytes of names in the archive"), "{error}");
        assert_eq!(archive.members.len(), 64);
    }

    #[test]
    fn names_stay_inside() {
        for (path, name) in [("./a//b", "a/b"), ("/a/../../b/.", "b"), ("a/../", ""), ("../x", "x")] {
            assert_eq!(normalise(path.as_bytes()), name);
        }
    }
}
