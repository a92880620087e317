//! The content of regular files and symlinks. There are no handles: the kernel opens files without asking.

use std::fs::File;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::error::OnFile as _;
use super::node::{LowerPart, Node};
use super::{Fs, FsError};
use crate::model::{FileKind, Ino};
use crate::sys::files;
use crate::upper::{Change, Upper, without_suid};

/// What lseek(2) is asked to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next data, from here on.
    Data(u64),
    /// The next hole, from here on.
    Hole(u64),
}

impl Fs {
    /// Reads from `offset`; fewer bytes than `buffer` holds only at the end of the file.
    ///
    /// # Errors
    /// [`FsError`]; never wrong bytes.
    pub fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize, FsError> {
        let node = self.node(ino)?;
        if node.kind == FileKind::Directory {
            return Err(FsError::IsADirectory);
        }
        if let Some(file) = self.open_upper(&node, false)? {
            return files::read_full_at(&file, buffer, offset).on_file("read");
        }
        let LowerPart::Leaf(lower, _) = node.state().lower else { return Err(FsError::Lost(ino)) };
        Ok(self.union.read_at(lower, offset, buffer)?)
    }

    /// Writes all of `data` at `offset`, copying up before. `kill_suid`: the writer may not keep setuid and setgid.
    ///
    /// # Errors
    /// [`FsError`]
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8], kill_suid: bool) -> Result<(), FsError> {
        let node = self.node(ino)?;
        let file = self.writable(&node)?;
        if kill_suid {
            self.kill_suid(&node)?;
        }
        files::write_all_at(&file, data, offset).on_file("write")
    }

    /// fallocate(2).
    ///
    /// # Errors
    /// [`FsError`]
    pub fn fallocate(&self, ino: Ino, mode: u32, offset: u64, len: u64) -> Result<(), FsError> {
        let mode = FallocateFlags::from_bits(mode).ok_or(FsError::NotSupported)?;
        let file = self.writable(&*self.node(ino)?)?;
        files::fallocate(&*file, mode, offset, len).on_file("fallocate")
    }

    /// copy_file_range(2) between two files of this mount; returns how many bytes were copied, which may be fewer.
    ///
    /// # Errors
    /// [`FsError::NotSupported`] when the source is not in the upper: the kernel then copies by reading and writing.
    pub fn copy_file_range(&self, from: (Ino, u64), to: (Ino, u64), len: usize) -> Result<usize, FsError> {
        let source = self.open_upper(&*self.node(from.0)?, false)?.ok_or(FsError::NotSupported)?;
        let target = self.writable(&*self.node(to.0)?)?;
        let (mut from, mut to) = (from.1, to.1);
        files::copy_file_range(&*source, Some(&mut from), &*target, Some(&mut to), len)
            .on_file("copy_file_range")
    }

    /// The next data or hole (lseek(2)). A file of a layer is one piece of data.
    ///
    /// # Errors
    /// [`FsError::NoOffset`] beyond the end.
    pub fn seek(&self, ino: Ino, seek: Seek) -> Result<u64, FsError> {
        let node = self.node(ino)?;
        if let Some(file) = self.open_upper(&node, false)? {
            let to = match seek {
                Seek::Data(offset) => SeekFrom::Data(offset),
                Seek::Hole(offset) => SeekFrom::Hole(offset),
            };
            // The shared position of the descriptor is moved, but never used: all I/O names its offset.
            return match files::seek(&*file, to) {
                Err(Errno::NXIO) => Err(FsError::NoOffset),
                result => result.on_file("lseek"),
            };
        }
        let size = self.attr_of(&node)?.metadata.size;
        match seek {
            Seek::Data(offset) if offset < size => Ok(offset),
            Seek::Hole(offset) if offset < size => Ok(size),
            Seek::Data(_) | Seek::Hole(_) => Err(FsError::NoOffset),
        }
    }

    /// fsync(2) and fdatasync(2). A file of a layer has nothing to flush.
    ///
    /// # Errors
    /// [`FsError::NotNeeded`] where the upper is volatile.
    pub fn fsync(&self, ino: Ino, data_only: bool) -> Result<(), FsError> {
        self.must_flush()?;
        let Some(file) = self.open_upper(&*self.node(ino)?, false)? else { return Ok(()) };
        if data_only {
            files::fdatasync(&*file).on_file("fdatasync")
        } else {
            files::fsync(&*file).on_file("fsync")
        }
    }

    /// fsync(2) of a directory.
    ///
    /// # Errors
    /// [`FsError::NotNeeded`] where the upper is volatile.
    pub fn fsync_dir(&self, ino: Ino) -> Result<(), FsError> {
        self.must_flush()?;
        match self.pin(&*self.node(ino)?)? {
            Some(pinned) => Ok(self.upper()?.sync_dir(&pinned)?),
            None => Ok(()),
        }
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// [`FsError::Invalid`] when it is none.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        let node = self.node(ino)?;
        if node.kind != FileKind::Symlink {
            return Err(FsError::Invalid);
        }
        if let Some(pinned) = self.pin(&node)? {
            return Ok(self.upper()?.read_link(&pinned)?);
        }
        match node.state().lower.clone() {
            LowerPart::Leaf(lower, _) => Ok(self.union.read_link(lower)?),
            LowerPart::None | LowerPart::Dir(_) => Err(FsError::Lost(ino)),
        }
    }

    fn must_flush(&self) -> Result<(), FsError> {
        let volatile = self.upper.as_ref().is_some_and(Upper::is_volatile);
        if volatile { Err(FsError::NotNeeded) } else { Ok(()) }
    }

    fn writable(&self, node: &Node) -> Result<Arc<File>, FsError> {
        must_be_regular(node)?;
        self.raise(node, u64::MAX)?;
        self.open_upper(node, true)?.ok_or(FsError::Lost(node.ino))
    }

    /// Clears setuid and setgid, and the file's capabilities (capabilities(7)), after a write by somebody without the
    /// right to keep them.
    pub(super) fn kill_suid(&self, node: &Node) -> Result<(), FsError> {
        let pinned = self.raise(node, u64::MAX)?;
        let upper = self.upper()?;
        let mode = upper.attr(&pinned, b"(node)")?.metadata.mode;
        if without_suid(mode) != mode {
            let change = Change { mode: Some(without_suid(mode)), ..Change::default() };
            upper.change(&pinned, b"(node)", &change)?;
        }
        self.drop_capabilities(node)
    }
}

/// A device of an image is for the kernel to open, never for us.
pub(super) fn must_be_regular(node: &Node) -> Result<(), FsError> {
    if node.kind == FileKind::Regular { Ok(()) } else { Err(FsError::Invalid) }
}
