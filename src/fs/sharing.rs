//! Files of the upper that share content with the layer's file that they were copied from. Only what is written is moved.
//!
//! Reading takes each piece from where the extent map says it is. A change takes the file's copy-up lock if it touches
//! what is still the layer's: the rest of the granules that it touches is copied, then the change is made, then the map
//! says that they are own. So whoever looks, now or after a crash, sees each granule as it was or as it is.

use std::fs::File;
use std::ops::Range;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::error::OnFile as _;
use super::node::Node;
use super::{Fs, FsError};
use crate::sys::files;
use crate::union::{Lower, LowerRef};
use crate::upper::{Change, Identity, Object, Partial, SetTime, UpperAttr, check_of};

/// What a node's content shares with a file of a layer.
#[derive(Clone, Debug)]
pub(super) struct Sharing {
    /// Boxed, as hardly any node has one.
    pub(super) partial: Box<Partial>,
    /// The layer's file, once it was found and is the right one.
    lower: Option<LowerRef>,
    /// The mark in the upper still says that more bytes are the layer's. It must be written before the file grows.
    unsaved: bool,
}

/// What of the granules that a change touches must be copied before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// What lies around the changed range: that itself is replaced.
    Around,
    /// The same, unless some of the range is the file's own already: a change of that is seen at once, so the map must
    /// have been written by then, and all that it says is own be there.
    AroundUnlessOwn,
    /// All.
    All,
}

/// Bytes copied at a time: eight granules of a layer, so that each is decoded once.
const COPY_BYTES: u64 = 1 << 20;
/// Blocks in which zeros are looked for, so that holes stay holes.
const BLOCK_BYTES: usize = 4096;

impl Sharing {
    /// What the marks of an object say.
    pub(super) fn of(object: &Object) -> Option<Self> {
        let mut partial = object.marks.partial.clone()?;
        // A truncate comes before the mark that tells of it: after a crash in between the mark is still to be written.
        let marked = partial.map.lower_bytes();
        partial.map.truncate(object.attr.metadata.size);
        let unsaved = partial.map.lower_bytes() < marked;
        Some(Self { partial, lower: None, unsaved })
    }

    /// The layer's file, if it was found already.
    pub(super) fn found(&self) -> Option<LowerRef> {
        self.lower
    }

    /// Whether the mark says less than is so, or than would be after a flush.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsaved || !self.partial.map.fresh().is_empty()
    }
}

impl Fs {
    /// Reads a file that shares content.
    pub(super) fn read_shared(
        &self,
        file: &File,
        sharing: &Sharing,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, FsError> {
        let mut done = 0;
        for piece in sharing.partial.map.pieces(offset..offset.saturating_add(buffer.len() as u64)) {
            let at = piece.range.start;
            let length = usize::try_from(piece.range.end - at).unwrap_or(usize::MAX);
            let part = &mut buffer[done..done + length];
            if piece.own {
                let count = files::read_full_at(file, part, at).on_file("read")?;
                done += count;
                if count < length {
                    break;
                }
            } else {
                self.read_lower(self.lower_of(sharing)?, part, at)?;
                done += length;
            }
        }
        Ok(done)
    }

    fn read_lower(&self, lower: LowerRef, buffer: &mut [u8], offset: u64) -> Result<(), FsError> {
        let count = self.union.read_at(lower, offset, buffer)?;
        if count == buffer.len() { Ok(()) } else { Err(FsError::LayerChanged) }
    }

    /// The layer's file, which must be the one that was copied from.
    fn lower_of(&self, sharing: &Sharing) -> Result<LowerRef, FsError> {
        if let Some(lower) = sharing.lower {
            return Ok(lower);
        }
        let partial = &sharing.partial;
        let lower = match partial.path.as_slice() {
            [] => LowerRef::of_number(partial.ino),
            path => match self.union.resolve(path)? {
                Some(Lower::Leaf(lower, _) | Lower::Link(lower, _)) => Some(lower),
                Some(Lower::Dir(_)) | None => None,
            },
        };
        let lower = lower.filter(|lower| self.union.layer_count() > usize::from(lower.layer.0));
        let lower = lower.ok_or(FsError::LayerChanged)?;
        let is_same = check_of(&self.union.metadata(lower)?, &self.identity(lower)?) == partial.check;
        if is_same { Ok(lower) } else { Err(FsError::LayerChanged) }
    }

    /// What tells a layer's file from one that only looks the same.
    pub(super) fn identity(&self, lower: LowerRef) -> Result<Identity, FsError> {
        Ok(Identity { diff_id: self.union.diff_id(lower)?, changed_at: self.union.changed_at(lower)? })
    }

    /// The layer's file of a node, found once.
    fn lower_of_node(&self, node: &Node) -> Result<Option<(LowerRef, Sharing)>, FsError> {
        let Some(sharing) = node.sharing().clone() else { return Ok(None) };
        let _using = self.using_layers();
        let lower = self.lower_of(&sharing)?;
        if let Some(known) = node.sharing().as_mut() {
            known.lower = Some(lower);
        }
        Ok(Some((lower, sharing)))
    }

    /// What a node shares, ready to be read; `None` when nothing.
    pub(super) fn sharing(&self, node: &Node) -> Result<Option<Sharing>, FsError> {
        let sharing = self.lower_of_node(node)?;
        Ok(sharing.map(|(lower, sharing)| Sharing { lower: Some(lower), ..sharing }))
    }

    /// Makes a change of `range`, after what the change leaves of the granules there has been copied; afterwards they are
    /// the file's own. The change is made whole or not at all.
    pub(super) fn change_shared(
        &self,
        node: &Node,
        file: &File,
        range: Range<u64>,
        keep: Keep,
        change: &dyn Fn() -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        let touches = |node: &Node| {
            let sharing = node.sharing();
            sharing.as_ref().is_some_and(|sharing| {
                sharing.unsaved || sharing.partial.map.missing(range.clone()).is_some()
            })
        };
        if !touches(node) {
            return change();
        }
        let _only_one = node.copy_up();
        let Some((lower, mut sharing)) = self.lower_of_node(node)? else { return change() };
        if sharing.unsaved {
            self.save(node, &mut sharing)?;
        }
        let mut rest = sharing.partial.map.clone();
        let own_bytes = range.start..range.end.min(rest.lower_bytes());
        let keeps_all = match keep {
            Keep::All => true,
            Keep::Around => false,
            Keep::AroundUnlessOwn => rest.pieces(own_bytes).iter().any(|piece| piece.own),
        };
        while let Some(missing) = rest.missing(range.clone()) {
            let parts = if keeps_all {
                [missing.clone(), 0..0]
            } else {
                [missing.start..missing.end.min(range.start), missing.start.max(range.end)..missing.end]
            };
            for part in parts {
                self.copy_from(lower, file, part)?;
            }
            rest.claim(missing);
        }
        sharing.partial.map = rest;
        if keeps_all {
            self.save_grown(node, file, sharing)?;
            return change();
        }
        let size = self.size_in_upper(node)?;
        change()?;
        self.save_grown(node, file, sharing).inspect_err(|_| self.shrink_again(node, file, size))
    }

    fn size_in_upper(&self, node: &Node) -> Result<u64, FsError> {
        let pinned = self.pin(node)?.ok_or(FsError::Lost(node.ino))?;
        Ok(self.upper()?.attr(&pinned, b"(node)")?.metadata.size)
    }

    /// Undoes the growth by a change of which nothing else is seen. The kernel lets nobody else change the file meanwhile.
    fn shrink_again(&self, node: &Node, file: &File, size: u64) {
        let shrink = || match self.size_in_upper(node)? > size {
            true => files::ftruncate(file, size).on_file("ftruncate"),
            false => Ok(()),
        };
        if let Err(error) = shrink() {
            tracing::warn!("inode {}: it has grown by a change that failed: {error}", node.ino.0);
        }
    }

    /// Copies a range of the layer's file. Nothing says yet that the range is own, so nobody sees it.
    fn copy_from(&self, lower: LowerRef, file: &File, range: Range<u64>) -> Result<(), FsError> {
        let mut at = range.start;
        let mut buffer = Vec::new();
        while at < range.end {
            let length = (range.end - at).min(COPY_BYTES);
            buffer.resize(usize::try_from(length).unwrap_or(0), 0);
            self.read_lower(lower, &mut buffer, at)?;
            // Something may be there from a change that failed, or was forgotten with the machine's last boot.
            let is_hole = match files::seek(file, SeekFrom::Data(at)) {
                Ok(data) => data >= at + length,
                Err(Errno::NXIO) => true,
                Err(_) => false,
            };
            let blocks = if is_hole { BLOCK_BYTES } else { buffer.len() };
            for (place, block) in buffer.chunks(blocks).enumerate() {
                if !is_hole || block.iter().any(|byte| *byte != 0) {
                    files::write_all_at(file, block, at + (place * blocks) as u64).on_file("copy up")?;
                }
            }
            self.counts.copied_bytes.add(length);
            at += length;
        }
        Ok(())
    }

    /// Writes the map down as it is in `sharing`, and makes it the node's.
    fn save(&self, node: &Node, sharing: &mut Sharing) -> Result<(), FsError> {
        let pinned = self.pin(node)?.ok_or(FsError::Lost(node.ino))?;
        self.upper()?.set_partial(&pinned, &sharing.partial)?;
        sharing.unsaved = false;
        *node.sharing() = Some(sharing.clone());
        Ok(())
    }

    /// The same for a map that says more than before. If the filesystem has no room for it, all the rest is copied.
    fn save_grown(&self, node: &Node, file: &File, mut sharing: Sharing) -> Result<(), FsError> {
        match self.save(node, &mut sharing) {
            // Until that is done the map on disk and in memory is the old one, which hides what was changed.
            Err(FsError::Upper(error)) if error.is_no_room() => self.make_whole(node, file, sharing),
            result => {
                result?;
                self.unsettled.add(node, &self.table);
                Ok(())
            }
        }
    }

    /// Cuts off or extends a file that shares content, and changes what else is asked for.
    pub(super) fn resize_shared(
        &self,
        node: &Node,
        size: u64,
        change: &Change,
    ) -> Result<UpperAttr, FsError> {
        let _only_one = node.copy_up();
        let upper = self.upper()?;
        let pinned = self.pin(node)?.ok_or(FsError::Lost(node.ino))?;
        let mut sharing = node.sharing().clone();
        if let Some(sharing) = sharing.as_mut().filter(|sharing| sharing.unsaved) {
            self.save(node, sharing)?;
        }
        let _changing = node.changing();
        let result = upper.change(&pinned, b"(node)", change);
        // Also when what follows the truncate has failed.
        let size = if result.is_ok() { size } else { upper.attr(&pinned, b"(node)")?.metadata.size };
        if let Some(mut sharing) = sharing
            && size < sharing.partial.map.lower_bytes()
        {
            sharing.partial.map.truncate(size);
            if let Err(error) = self.save(node, &mut sharing) {
                // It has been cut off, and the size says so too until it grows.
                tracing::warn!("inode {}: {error}", node.ino.0);
                *node.sharing() = Some(Sharing { unsaved: true, ..sharing });
            }
            self.unsettled.add(node, &self.table);
        }
        Ok(result?)
    }

    /// Copies all that a file still shares.
    pub(super) fn complete_file(&self, node: &Node) -> Result<(), FsError> {
        if node.sharing().is_none() {
            return Ok(());
        }
        let Some(file) = self.open_upper(node, true)? else { return Ok(()) };
        let _only_one = node.copy_up();
        match self.lower_of_node(node)? {
            Some((_, sharing)) => self.make_whole(node, &file, sharing),
            None => Ok(()),
        }
    }

    /// The same, under the copy-up lock, of a file that shares what `sharing` says.
    fn make_whole(&self, node: &Node, file: &File, sharing: Sharing) -> Result<(), FsError> {
        let lower = self.lower_of(&sharing)?;
        let upper = self.upper()?;
        let pinned = self.pin(node)?.ok_or(FsError::Lost(node.ino))?;
        let _changing = node.changing();
        let before = upper.attr(&pinned, b"(node)")?;
        let capabilities = upper.xattr(&pinned, super::xattr::CAPABILITY)?;
        let mut map = sharing.partial.map.clone();
        while let Some(missing) = map.missing(0..map.lower_bytes()) {
            self.copy_from(lower, file, missing.clone())?;
            map.claim(missing);
        }
        // Writing took them away, setuid too in a user namespace, and the time is not that of a change.
        if let Some(value) = capabilities {
            upper.set_xattr(&pinned, super::xattr::CAPABILITY, &value, rustix::fs::XattrFlags::empty())?;
        }
        let mode = before.metadata.mode;
        let is_changed = upper.attr(&pinned, b"(node)")?.metadata.mode != mode;
        let before = Change {
            mode: is_changed.then_some(mode),
            atime: Some(SetTime::To(before.atime)),
            mtime: Some(SetTime::To(before.metadata.mtime)),
            ..Change::default()
        };
        upper.change(&pinned, b"(node)", &before)?;
        self.sync_data(file)?;
        upper.set_whole(&pinned, &sharing.partial)?;
        *node.sharing() = None;
        Ok(())
    }

    /// Flushes a file that shares content, then its map: what was written before is settled afterwards.
    pub(super) fn settle_node(&self, node: &Node, file: &File) -> Result<(), FsError> {
        let Some(sharing) = node.sharing().clone().filter(Sharing::is_unsettled) else { return Ok(()) };
        let flushed = sharing.partial.map.fresh().clone();
        self.sync_data(file)?;
        let _only_one = node.copy_up();
        let Some(mut sharing) = node.sharing().clone() else { return Ok(()) };
        let map = &mut sharing.partial.map;
        map.settle(&flushed);
        if map.is_whole() && map.fresh().is_empty() {
            let pinned = self.pin(node)?.ok_or(FsError::Lost(node.ino))?;
            // The record of the owner moves: what is read of it meanwhile is not kept.
            let _changing = node.changing();
            self.upper()?.set_whole(&pinned, &sharing.partial)?;
            *node.sharing() = None;
        } else {
            self.save(node, &mut sharing)?;
        }
        Ok(())
    }

    /// Makes what was written safe, unless nobody minds.
    fn sync_data(&self, file: &File) -> Result<(), FsError> {
        match self.must_flush() {
            Err(FsError::NotNeeded) => Ok(()),
            result => result.and_then(|()| files::fdatasync(file).on_file("fdatasync")),
        }
    }

    /// The next data or hole of a file that shares content: what is the layer's is data.
    pub(super) fn seek_shared(
        &self,
        file: &File,
        sharing: &Sharing,
        from: u64,
        hole: bool,
    ) -> Result<u64, Errno> {
        for piece in sharing.partial.map.pieces(from..u64::MAX) {
            let (start, end) = (piece.range.start, piece.range.end);
            let found = match (piece.own, hole) {
                (false, true) => continue,
                (false, false) => return Ok(start),
                (true, true) => files::seek(file, SeekFrom::Hole(start)),
                (true, false) => files::seek(file, SeekFrom::Data(start)),
            };
            match found {
                Ok(found) if found < end => return Ok(found),
                Ok(_) => {}
                // The file ends where the layer's data does.
                Err(Errno::NXIO) if hole && start > from => return Ok(start),
                // No data of its own follows, perhaps some of the layer.
                Err(Errno::NXIO) if end != u64::MAX => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::NXIO)
    }
}

/// What of a file fallocate(2) changes.
pub(super) fn touched(mode: FallocateFlags, offset: u64, len: u64) -> (Range<u64>, Keep) {
    let replaces = FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
    let keep = if mode.intersects(replaces) { Keep::Around } else { Keep::All };
    (offset..offset.saturating_add(len), keep)
}
