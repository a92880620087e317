//! The content of regular files and symlinks. There are no handles: the kernel opens files without asking.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::error::OnFile as _;
use super::node::{LowerPart, Node};
use super::sharing::{Keep, Sharing, touched};
use super::{Caller, Fs, FsError};
use crate::model::{FileKind, Ino};
use crate::sys::files;

/// What lseek(2) is asked to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next data, from here on.
    Data(u64),
    /// The next hole, from here on.
    Hole(u64),
}

/// Where a regular file's bytes are.
#[derive(Clone, Debug)]
pub enum Content {
    /// In a layer, at least in part.
    Layers,
    /// In the upper, with setuid, setgid or capabilities, or with owners and modes that are only recorded.
    Privileged,
    /// In the upper: there (`O_PATH`).
    Upper(Arc<OwnedFd>),
}

/// Most that is copied at once onto a file that shares content with a layer.
const SHARED_COPY_BYTES_MAX: usize = 16 << 20;

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
        let _using = self.using_layers();
        // Before the upper is asked: a copy-up in between forgets where the original was.
        let lower = node.state().lower.clone();
        if let Some(file) = self.open_upper(&node, false)? {
            return match self.sharing(&node)? {
                Some(sharing) => self.read_shared(&file, &sharing, offset, buffer),
                None => files::read_full_at(&file, buffer, offset).on_file("read"),
            };
        }
        let LowerPart::Leaf(lower, _) = lower else { return Err(FsError::Lost(ino)) };
        let count = self.union.read_at(lower, offset, buffer)?;
        if self.keeps_access_times {
            node.was_read();
        }
        Ok(count)
    }

    /// Where a regular file's bytes are. Those of the upper stay there.
    ///
    /// # Errors
    /// [`FsError`]
    pub fn content(&self, ino: Ino) -> Result<Content, FsError> {
        let node = self.node(ino)?;
        must_be_regular(&node)?;
        let Some(pinned) = self.pin(&node)? else { return Ok(Content::Layers) };
        if self.sharing(&node)?.is_some() {
            return Ok(Content::Layers);
        }
        // What is only recorded no filesystem below takes away from who writes.
        let privileged = self.upper()?.records_owners()
            || self.attr_of(&node)?.metadata.mode & 0o6000 != 0
            || self.has_capabilities(&node, &pinned)?;
        Ok(if privileged { Content::Privileged } else { Content::Upper(pinned) })
    }

    /// Writes `data` at `offset`, copying up before what is needed. Returns how many bytes were written: fewer when
    /// there is no room for all. `sheds`: the writer, if the file may not keep the privileges that it gives.
    ///
    /// # Errors
    /// [`FsError`]; then nothing was written.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8], sheds: Option<Caller>) -> Result<usize, FsError> {
        let node = self.node(ino)?;
        let file = self.writable(&node)?;
        if let Some(caller) = sheds {
            self.take_privileges(&node, &caller)?;
        }
        // What lies beyond the layer's bytes is written on its own: should there be no room, the file has not grown.
        let lower_bytes = node.sharing().as_ref().map_or(0, |sharing| sharing.partial.map.lower_bytes());
        let inside = usize::try_from(lower_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (inside, beyond) = data.split_at(inside.min(data.len()));
        let end = offset.saturating_add(inside.len() as u64);
        if !inside.is_empty() {
            let written = Cell::new(0);
            let result = self.change_shared(&node, &file, offset..end, Keep::AroundUnlessOwn, &|| {
                written.set(files::write_some_at(&file, inside, offset).on_file("write")?);
                let (rest, at) = (&inside[written.get()..], offset + written.get() as u64);
                files::write_all_at(&file, rest, at).on_file("write")
            });
            if result.is_err() && self.shows_own(&node, offset, written.get()) {
                return Ok(written.get());
            }
            result?;
        }
        let written = self.change_shared(&node, &file, end..end, Keep::Around, &|| Ok(()));
        match written.and_then(|()| files::write_some_at(&file, beyond, end).on_file("write")) {
            Err(_) if !inside.is_empty() => Ok(inside.len()),
            result => Ok(inside.len() + result?),
        }
    }

    /// Writes all of `data`, as [`Self::write`] does: of what comes from the kernel's page cache nobody would hear that only
    /// a part was written.
    ///
    /// # Errors
    /// [`FsError`]; then a part may have been written.
    pub fn write_all(
        &self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        sheds: Option<Caller>,
    ) -> Result<(), FsError> {
        let mut done = 0;
        while done < data.len() {
            match self.write(ino, offset + done as u64, &data[done..], sheds)? {
                0 => return Err(FsError::File { operation: "write", source: Errno::IO }),
                count => done += count,
            }
        }
        Ok(())
    }

    /// Whether so many bytes that were written are seen, although not all could be: where the file's own were already.
    fn shows_own(&self, node: &Node, offset: u64, count: usize) -> bool {
        let range = offset..offset + count as u64;
        let is_own = |sharing: &Sharing| sharing.partial.map.missing(range).is_none();
        count > 0 && node.sharing().as_ref().is_none_or(is_own)
    }

    /// fallocate(2).
    ///
    /// # Errors
    /// [`FsError`]
    pub fn fallocate(&self, ino: Ino, mode: u32, offset: u64, len: u64) -> Result<(), FsError> {
        // What FUSE passes on; that which moves bytes about it refuses itself.
        let known = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        let mode = FallocateFlags::from_bits(mode).filter(|mode| known.contains(*mode));
        let mode = mode.ok_or(FsError::NotSupported)?;
        let node = self.node(ino)?;
        let file = self.writable(&node)?;
        let (range, keep) = touched(mode, offset, len);
        self.change_shared(&node, &file, range, keep, &|| {
            files::fallocate(&*file, mode, offset, len).on_file("fallocate")
        })
    }

    /// copy_file_range(2) between two files of this mount; returns how many bytes were copied, which may be fewer.
    ///
    /// # Errors
    /// [`FsError::NotSupported`] when a layer has what is to be copied: the kernel then reads and writes it.
    pub fn copy_file_range(&self, from: (Ino, u64), to: (Ino, u64), len: usize) -> Result<usize, FsError> {
        let (source, target) = (self.node(from.0)?, self.node(to.0)?);
        let from_file = self.open_upper(&source, false)?.ok_or(FsError::NotSupported)?;
        let to_file = self.writable(&target)?;
        let len = if target.sharing().is_some() { len.min(SHARED_COPY_BYTES_MAX) } else { len };
        let range = |start: u64| start..start.saturating_add(len as u64);
        let shares = |sharing: &Sharing| sharing.partial.map.missing(range(from.1)).is_some();
        if source.sharing().as_ref().is_some_and(shares) {
            return Err(FsError::NotSupported);
        }
        let copied = Cell::new(0);
        // Fewer bytes may be copied than asked for, so all that is there is kept before.
        self.change_shared(&target, &to_file, range(to.1), Keep::All, &|| {
            let (mut from, mut to) = (from.1, to.1);
            let count = files::copy_file_range(&*from_file, Some(&mut from), &*to_file, &mut to, len);
            copied.set(count.on_file("copy_file_range")?);
            Ok(())
        })?;
        Ok(copied.get())
    }

    /// The next data or hole (lseek(2)). A file of a layer is one piece of data.
    ///
    /// # Errors
    /// [`FsError::NoOffset`] beyond the end.
    pub fn seek(&self, ino: Ino, seek: Seek) -> Result<u64, FsError> {
        let node = self.node(ino)?;
        if let Some(file) = self.open_upper(&node, false)? {
            let (from, hole) = match seek {
                Seek::Data(offset) => (offset, false),
                Seek::Hole(offset) => (offset, true),
            };
            let found = match self.sharing(&node)? {
                Some(sharing) => self.seek_shared(&file, &sharing, from, hole),
                None if hole => files::seek(&*file, SeekFrom::Hole(from)),
                None => files::seek(&*file, SeekFrom::Data(from)),
            };
            return match found {
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
        let node = self.node(ino)?;
        let Some(file) = self.open_upper(&node, false)? else { return Ok(()) };
        if let Some(source) = node.state().flush_failed.take() {
            return Err(FsError::File { operation: "flush, some time ago", source });
        }
        self.settle_node(&node, &file)?;
        // The map of what was copied up is an attribute, which fdatasync(2) need not flush, whoever has written it.
        let data_only = data_only && node.ino.to_lower().is_none() && !node.found_sharing;
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
        let _using = self.using_layers();
        let lower = node.state().lower.clone();
        if let Some(pinned) = self.pin(&node)? {
            return Ok(self.upper()?.read_link(&pinned)?);
        }
        match lower {
            LowerPart::Leaf(lower, _) => Ok(self.union.read_link(lower)?),
            LowerPart::None | LowerPart::Dir(_) => Err(FsError::Lost(ino)),
        }
    }

    /// What everything depends on is made safe here, first.
    pub(super) fn must_flush(&self) -> Result<(), FsError> {
        match &self.upper {
            Some(upper) if upper.is_volatile() => Err(FsError::NotNeeded),
            Some(upper) => Ok(upper.flush_format()?),
            None => Ok(()),
        }
    }

    fn writable(&self, node: &Node) -> Result<Arc<File>, FsError> {
        must_be_regular(node)?;
        self.raise(node, u64::MAX)?;
        self.open_upper(node, true)?.ok_or(FsError::Lost(node.ino))
    }
}

/// A device of an image is for the kernel to open, never for us.
pub(super) fn must_be_regular(node: &Node) -> Result<(), FsError> {
    if node.kind == FileKind::Regular { Ok(()) } else { Err(FsError::Invalid) }
}
