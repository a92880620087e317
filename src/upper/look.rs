//! Looking: what is under a name, what is in a directory.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{self, pin, reopen_quietly};
use super::marks::Attributes;
use super::owner::Recorded;
use super::{Marks, Upper, UpperAttr, UpperError, Whiteouts, scratch};
use crate::model::whiteout::{self, Meaning};
use crate::model::{DeviceId, FileKind, FileName, Name};
use crate::sys::files;

/// What the upper says of a name.
#[derive(Debug)]
pub enum Looked {
    /// Nothing: the layers decide.
    Absent,
    /// The name is hidden.
    Whiteout,
    /// It has the object.
    Object(Object),
}

/// What is under a name of the upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// Nothing: the layers decide.
    Nothing,
    /// The name is hidden.
    Whiteout,
    /// An object.
    Object,
}

/// The same with what stat(2) says of it, before anything is asked of its attributes.
enum Bare {
    Nothing,
    Whiteout,
    Object(OwnedFd, UpperAttr),
}

/// One object of the upper.
#[derive(Debug)]
pub struct Object {
    /// What stat(2) says of it, recorded owners applied.
    pub attr: UpperAttr,
    /// Where it came from.
    pub marks: Marks,
    /// An `O_PATH` descriptor of it.
    pub pinned: OwnedFd,
}

/// One name of a directory of the upper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpperName {
    /// The name (of what is hidden, for a whiteout).
    pub name: FileName,
    /// Whether it only hides what the layers have.
    pub whiteout: bool,
}

impl Upper {
    /// The same, whose files keep their times of access when they are read.
    #[must_use]
    pub fn without_access_times_of_files(self) -> Self {
        Self { reading_files: OFlags::NOATIME, ..self }
    }

    /// The same, whose directories keep their times of access when they are read.
    #[must_use]
    pub fn without_access_times_of_dirs(self) -> Self {
        Self { reading_dirs: OFlags::NOATIME, ..self }
    }

    /// The root directory, as an object.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn root(&self) -> Result<Object, UpperError> {
        let pinned = handle::pin_dir(&self.root, b".").at("open the upper")?;
        self.object(pinned, b"/")
    }

    /// What is under `name` in a directory.
    ///
    /// # Errors
    /// [`UpperError`]: the answer is unknown.
    pub fn look(&self, dir: impl AsFd, name: Name<'_>) -> Result<Looked, UpperError> {
        Ok(match self.bare(dir, name)? {
            Bare::Nothing => Looked::Absent,
            Bare::Whiteout => Looked::Whiteout,
            Bare::Object(pinned, real) => Looked::Object(self.object_of(pinned, real, name.as_bytes())?),
        })
    }

    /// The object behind a descriptor, as it is now.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn object(&self, pinned: OwnedFd, name: &[u8]) -> Result<Object, UpperError> {
        let real = handle::stat(&pinned)?;
        self.object_of(pinned, real, name)
    }

    fn object_of(&self, pinned: OwnedFd, real: UpperAttr, name: &[u8]) -> Result<Object, UpperError> {
        let attributes = Attributes::of(pinned.as_fd());
        let attr = Recorded::of(&attributes, &real, name)?.applied(real);
        let marks = self.marks(&attributes, &real, name)?;
        let marks = self.with_marks_of_others(marks, &pinned, real.metadata.kind)?;
        Ok(Object { attr, marks, pinned })
    }

    /// A descriptor of what is under `name`, if that is the object with this inode number.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn pinned_as(
        &self,
        dir: impl AsFd,
        name: Name<'_>,
        st_ino: u64,
    ) -> Result<Option<OwnedFd>, UpperError> {
        match pin(dir, name.as_bytes()) {
            Ok(pinned) => Ok((handle::stat(&pinned)?.st_ino == st_ino).then_some(pinned)),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(error).at("open"),
        }
    }

    /// Whether something is under `name`, without asking what it came from.
    ///
    /// # Errors
    /// [`UpperError`]: the answer is unknown.
    pub fn there(&self, dir: impl AsFd, name: Name<'_>) -> Result<There, UpperError> {
        Ok(match self.bare(dir, name)? {
            Bare::Nothing => There::Nothing,
            Bare::Whiteout => There::Whiteout,
            Bare::Object(..) => There::Object,
        })
    }

    fn bare(&self, dir: impl AsFd, name: Name<'_>) -> Result<Bare, UpperError> {
        let dir = dir.as_fd();
        if self.is_marker(name) {
            return Ok(Bare::Nothing);
        }
        match pin(dir, name.as_bytes()) {
            Ok(pinned) => {
                let real = handle::stat(&pinned)?;
                // What is recorded may be a device 0:0 too, and is none of ours.
                Ok(if is_whiteout(&real) { Bare::Whiteout } else { Bare::Object(pinned, real) })
            }
            Err(Errno::NOENT) if self.has_named_whiteout(dir, name)? => Ok(Bare::Whiteout),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(Bare::Nothing),
            Err(error) => Err(error).at("open"),
        }
    }

    /// Why a directory cannot be shown whose redirect leads to no directory of the layers.
    #[must_use]
    pub fn lost_redirect(&self, dir: &Object) -> UpperError {
        let redirect = dir.marks.redirect.as_deref().unwrap_or_default().escape_ascii().to_string();
        UpperError::Form {
            path: handle::path_of(&dir.pinned, b"(directory)"),
            problem: format!("a redirect to {redirect}, where these layers have no directory"),
            remedy: "mount it over the layers that it was made with, or remove the attribute overlay.redirect",
        }
    }

    /// What became of an object by the call that published it, which changed its ctime and perhaps its links. It is
    /// too late for an error: when the system does not say, what was known before must do.
    pub(super) fn published(&self, mut object: Object) -> Object {
        match handle::stat(&object.pinned) {
            Ok(now) => {
                (object.attr.ctime, object.attr.nlink, object.attr.blocks) =
                    (now.ctime, now.nlink, now.blocks);
            }
            Err(error) => tracing::warn!("{error}: times may be old"),
        }
        object
    }

    /// What stat(2) says of a descriptor's object, recorded owners applied.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn attr(&self, pinned: impl AsFd, name: &[u8]) -> Result<UpperAttr, UpperError> {
        self.attr_and_record(pinned, name).map(|(attr, _)| attr)
    }

    /// All names of a directory, whiteouts included, in no order.
    ///
    /// # Errors
    /// [`UpperError`]: a listing that misses names is never given.
    pub fn list(&self, dir: impl AsFd) -> Result<Vec<UpperName>, UpperError> {
        let dir = dir.as_fd();
        let mut listed = Vec::new();
        let directory = OFlags::RDONLY | OFlags::DIRECTORY;
        for bytes in
            scratch::names_by(reopen_quietly(dir, directory, self.reading_dirs).at("open a directory")?)?
        {
            let Ok(plain) = Name::new(&bytes) else { continue };
            let named = if self.has_markers() { whiteout::meaning(&bytes).ok() } else { None };
            match named {
                Some(Meaning::Whiteout(hidden)) => {
                    listed.push(UpperName { name: hidden.to_owned(), whiteout: true });
                }
                Some(Meaning::Opaque | Meaning::AufsMeta) => {}
                Some(Meaning::Object(_)) | None => {
                    let whiteout = self.whiteouts == Whiteouts::Device && is_device_whiteout(dir, plain)?;
                    listed.push(UpperName { name: plain.to_owned(), whiteout });
                }
            }
        }
        Ok(listed)
    }

    /// Opens a regular file for reading, and for writing when asked.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn open_file(&self, pinned: impl AsFd, write: bool) -> Result<Arc<File>, UpperError> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        reopen_quietly(pinned, access, self.reading_files).at("open").map(Arc::new)
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn read_link(&self, pinned: impl AsFd) -> Result<Vec<u8>, UpperError> {
        files::readlinkat(pinned, c"", Vec::new()).map(std::ffi::CString::into_bytes).at("readlink")
    }

    /// What statvfs(3) says of the filesystem that the upper is on.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn space(&self) -> Result<rustix::fs::StatVfs, UpperError> {
        files::fstatvfs(&self.root).at("statvfs")
    }

    fn has_named_whiteout(&self, dir: impl AsFd, name: Name<'_>) -> Result<bool, UpperError> {
        if !self.has_markers() {
            return Ok(false);
        }
        let Ok(marker) = whiteout::hiding(name) else { return Ok(false) };
        match pin(dir, marker.as_bytes()) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).at("open"),
        }
    }
}

pub(super) fn is_whiteout(attr: &UpperAttr) -> bool {
    attr.metadata.kind == FileKind::CharDevice && attr.metadata.rdev == DeviceId::default()
}

pub(super) fn is_device_whiteout(dir: impl AsFd, name: Name<'_>) -> Result<bool, UpperError> {
    match pin(dir, name.as_bytes()) {
        Ok(pinned) => handle::stat(pinned).map(|attr| is_whiteout(&attr)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error).at("open"),
    }
}
