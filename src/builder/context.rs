//! The build context: a directory of the caller's, without what `.dockerignore` names.

use std::fs::Metadata as FileMetadata;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::StepError;
use super::patterns::{self, Ignored};
use crate::model::{FileKind, Timestamp};

/// The directory.
#[derive(Debug)]
pub(super) struct Context {
    root: PathBuf,
    ignored: Ignored,
}

/// One object of the context.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its path in the context, by its names as written.
    pub(super) name: Vec<u8>,
    pub(super) kind: FileKind,
    pub(super) mode: u16,
    pub(super) mtime: Timestamp,
    pub(super) size: u64,
    /// The target of a symlink.
    pub(super) target: Vec<u8>,
}

impl Context {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        let ignored = match std::fs::read(root.join(".dockerignore")) {
            Ok(text) => Ignored::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ignored::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { root, ignored })
    }

    /// What a source of `COPY` names: one object, or all that a pattern matches, in order.
    pub(super) fn find(&self, text: &str) -> Result<Vec<Source>, StepError> {
        let wanted = patterns::segments(text.as_bytes());
        if wanted.iter().any(|name| name == b"..") {
            return Err(format!("{text}: outside of the build context").into());
        }
        let nothing = || StepError::Asked(format!("{text}: nothing like that in the build context"));
        if !patterns::is_pattern(text.as_bytes()) {
            let name = wanted.join(&b'/');
            if !name.is_empty() && self.ignored.hides(&name) && !self.ignored.has_exceptions() {
                return Err(StepError::Asked(format!("{text}: excluded by .dockerignore")));
            }
            let path = self.root.join(std::ffi::OsStr::from_bytes(&name));
            // A symlink given by name is followed, as long as it stays inside.
            let real = path.canonicalize().map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => nothing(),
                _ => StepError::context(&path)(error),
            })?;
            if !real.starts_with(&self.root) {
                return Err(format!("{text}: leads out of the build context").into());
            }
            return Ok(vec![source(real, name)?]);
        }
        let mut found = Vec::new();
        self.collect(&self.root, &[], wanted.len(), &mut |source| {
            let names: Vec<&[u8]> = source.name.split(|byte| *byte == b'/').collect();
            if patterns::matches(&wanted, &names) {
                found.push(source);
            }
            Ok(())
        })?;
        if found.is_empty() { Err(nothing()) } else { Ok(found) }
    }

    /// Everything in a directory of the context, directories first; names are relative to that directory.
    pub(super) fn below(&self, dir: &Source) -> Result<Vec<Source>, StepError> {
        let mut found = Vec::new();
        let strip = if dir.name.is_empty() { 0 } else { dir.name.len() + 1 };
        self.collect(&dir.path, &dir.name, usize::MAX, &mut |mut source| {
            source.name.drain(..strip);
            found.push(source);
            Ok(())
        })?;
        Ok(found)
    }

    fn collect(
        &self,
        dir: &Path,
        name: &[u8],
        depth: usize,
        each: &mut dyn FnMut(Source) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        let list =
            || std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
        let mut children = list().map_err(StepError::context(dir))?;
        children.sort();
        for child in children {
            let path = dir.join(&child);
            let mut child_name = name.to_vec();
            if !child_name.is_empty() {
                child_name.push(b'/');
            }
            child_name.extend_from_slice(child.as_bytes());
            let hidden = self.ignored.hides(&child_name);
            if hidden && !self.ignored.has_exceptions() {
                continue;
            }
            let found = source(path.clone(), child_name.clone())?;
            let is_dir = found.kind == FileKind::Directory;
            if !hidden {
                each(found)?;
            }
            if is_dir && depth > 1 {
                self.collect(&path, &child_name, depth - 1, each)?;
            }
        }
        Ok(())
    }
}

fn source(path: PathBuf, name: Vec<u8>) -> Result<Source, StepError> {
    let metadata = path.symlink_metadata().map_err(StepError::context(&path))?;
    let kind = kind_of(&metadata).ok_or_else(|| {
        StepError::Asked(format!("{}: only files, directories and symlinks can be copied", path.display()))
    })?;
    let target = match kind {
        FileKind::Symlink => path.read_link().map_err(StepError::context(&path))?.into_os_string().into_vec(),
        _ => Vec::new(),
    };
    let mtime =
        Timestamp { secs: metadata.mtime(), nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or_default() };
    let mode = u16::try_from(metadata.mode() & 0o7777).unwrap_or_default();
    let size = if kind == FileKind::Regular { metadata.len() } else { 0 };
    Ok(Source { path, name, kind, mode, mtime, size, target })
}

fn kind_of(metadata: &FileMetadata) -> Option<FileKind> {
    let kind = FileKind::from_st_mode(metadata.mode())?;
    matches!(kind, FileKind::Regular | FileKind::Directory | FileKind::Symlink).then_some(kind)
}
