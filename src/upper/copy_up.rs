//! Copy-up: an object of a layer gets its place in the upper, whole and at once.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::create::What;
use super::error::At as _;
use super::handle::{self, reopen};
use super::hard_links::number;
use super::owner::{self, Recorded};
use super::partial::Partial;
use super::scratch::Scratch;
use super::{ExtentMap, Object, Upper, UpperAttr, UpperError};
use crate::layer::Xattr;
use crate::model::{FileKind, Ino, Metadata, Name, Timestamp};
use crate::sys::files;

/// Where a regular file's bytes come from: fills the buffer from an offset, fewer bytes only at the end.
pub type Content<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> Result<usize, Errno>;

/// The object of a layer that is copied up.
pub struct Origin<'a> {
    /// Its attributes, all of which are kept.
    pub metadata: Metadata,
    /// Its extended attributes, all of which are kept.
    pub xattrs: Vec<Xattr>,
    /// The inode number that it keeps.
    pub ino: Ino,
    /// A symlink's target.
    pub target: &'a [u8],
    /// A regular file's bytes.
    pub content: Content<'a>,
    /// How many of those bytes to keep: fewer than all when a truncate is about to follow.
    pub keep_bytes: u64,
    /// The bytes may stay in the layer for now, where they will be found again.
    pub later: Option<Later>,
}

/// How the bytes of a layer's file are found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Later {
    /// Leads to them where the number does not ([`Partial::path`]).
    pub path: Vec<u8>,
    /// [`check_of`](super::check_of) the file.
    pub check: u32,
}

impl std::fmt::Debug for Origin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin")
            .field("metadata", &self.metadata)
            .field("ino", &self.ino)
            .finish_non_exhaustive()
    }
}

/// Bytes copied at a time: eight granules, so that each is decoded once.
const COPY_BYTES: usize = 1 << 20;

/// A copy of an object of a layer that has no name yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Copied<'a> {
    scratch: Scratch<'a>,
    object: Object,
}

impl Copied<'_> {
    /// The inode number below.
    #[must_use]
    pub fn st_ino(&self) -> u64 {
        self.object.attr.st_ino
    }

    /// Whether it says itself what it is the copy of.
    #[must_use]
    pub fn has_number(&self) -> bool {
        self.object.marks.ino.is_some()
    }
}

impl Upper {
    /// Copies an object of a layer, to be given its place by [`Self::place`] or [`Self::place_in_index`].
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn copy_up(&self, origin: &mut Origin<'_>) -> Result<Copied<'_>, UpperError> {
        let scratch = self.scratch();
        let pinned = self.copy(&scratch, origin)?;
        let object = self.object(pinned, b"(copy)")?;
        Ok(Copied { scratch, object })
    }

    /// Gives a copy its place under `name`, which nothing of the upper has. The directory keeps its times, because
    /// nothing of what a program can see has changed: nobody else may change them or its names meanwhile.
    ///
    /// # Errors
    /// [`UpperError`]; then nothing has changed.
    pub fn place(&self, copied: Copied<'_>, dir: impl AsFd, name: Name<'_>) -> Result<Object, UpperError> {
        let dir = dir.as_fd();
        let times = handle::stat(dir)?;
        let Copied { scratch, object } = copied;
        let place = (name.as_bytes(), RenameFlags::NOREPLACE);
        files::renameat_with(&self.scratch, &scratch.name, dir, place.0, place.1).at("rename into place")?;
        scratch.published();
        keep_times(dir, &times);
        Ok(self.published(object))
    }

    /// Copies an object up that has no name any more, for those who still have it open.
    ///
    /// # Errors
    /// [`UpperError`]; then nothing has changed.
    pub fn copy_up_nameless(&self, origin: &mut Origin<'_>) -> Result<Object, UpperError> {
        let scratch = self.scratch();
        let pinned = self.copy(&scratch, origin)?;
        let object = self.object(pinned, b"(deleted)")?;
        // Nobody will look it up, and its inode number will be another object's.
        super::numbers::forget(&self.numbers, object.attr.st_ino)?;
        scratch.remove()?;
        Ok(self.published(object))
    }

    /// Gives a copy of an object with several names its place in the link index. Its names go on leading to it through
    /// that.
    ///
    /// # Errors
    /// [`UpperError`]; then nothing has changed.
    pub fn place_in_index(&self, copied: Copied<'_>, ino: Ino) -> Result<Object, UpperError> {
        let Copied { scratch, object } = copied;
        let flags = RenameFlags::NOREPLACE;
        files::renameat_with(&self.scratch, &scratch.name, &self.links, number(ino), flags)
            .at("rename into place")?;
        scratch.published();
        Ok(self.published(object))
    }

    /// Makes the root of a fresh upper look like the layers' root.
    ///
    /// # Errors
    /// [`UpperError`]
    pub fn adopt_root(&self, root: &Object, origin: &Origin<'_>) -> Result<(), UpperError> {
        if !super::scratch::names(&root.pinned)?.is_empty() {
            // Somebody's upper already: its root says what it looks like.
            return Ok(());
        }
        if !self.is_shared() {
            let real = handle::stat(&root.pinned)?;
            let had = owner::recorded(&root.pinned, &real, b"/")?;
            self.dress(&root.pinned, &real.metadata, origin, Some(had))?;
        }
        self.number(&root.pinned, origin)
    }

    /// Gives an object everything that its original has but the content. `had` as in [`owner::Owners::apply`].
    fn dress(
        &self,
        pinned: &OwnedFd,
        real: &Metadata,
        origin: &Origin<'_>,
        had: Option<Recorded>,
    ) -> Result<(), UpperError> {
        self.owners.apply(pinned, real, &origin.metadata, had)?;
        for (name, value) in &origin.xattrs {
            self.copy_xattr(pinned, name, value)?;
        }
        set_times(pinned, origin.metadata.mtime, origin.metadata.mtime)
    }

    /// Comes last: it says that all is there.
    fn number(&self, pinned: &OwnedFd, origin: &Origin<'_>) -> Result<(), UpperError> {
        // Other numbers are given out anew by every mount; kept, they would be another object's one day.
        if origin.ino == Ino::ROOT || origin.ino.to_lower().is_some() {
            self.keep_number(pinned, origin.ino)?;
        }
        Ok(())
    }

    /// A regular file's bytes, or a mark that says where they are, and all else that it has.
    fn fill(&self, pinned: &OwnedFd, real: &Metadata, origin: &mut Origin<'_>) -> Result<(), UpperError> {
        let file = reopen(pinned, OFlags::RDWR).at("open")?;
        if let Some(partial) = self.partial_of(origin) {
            files::ftruncate(&file, partial.map.lower_bytes()).at("ftruncate")?;
            // The mark comes first because it can carry the record of the owner. No fsync: filesystems with a journal keep
            // the order of what is changed of one file (its size, its marks, its name), so it is never seen without.
            match self.set_partial(pinned, &partial).and_then(|()| self.dress(pinned, real, origin, None)) {
                Err(error) if error.is_no_room() => self.namespace.discard_extents(pinned)?,
                result => return result,
            }
        }
        // Before the attributes: writing would take capabilities away.
        copy_content(&file, origin.content, origin.keep_bytes.min(origin.metadata.size))?;
        self.dress(pinned, real, origin, None)?;
        self.number(pinned, origin)?;
        if origin.keep_bytes == 0 {
            // Nothing that could be missing.
            return Ok(());
        }
        self.flush(&file)
    }

    fn partial_of(&self, origin: &Origin<'_>) -> Option<Partial> {
        let keep = origin.keep_bytes.min(origin.metadata.size);
        let Later { path, check } = origin.later.clone().filter(|_| keep > 0)?;
        let map = ExtentMap::new(keep, self.granule_bytes_min?);
        Some(Partial { ino: origin.ino, check, path, map })
    }

    /// A complete copy in `work/tmp`, on disk before it can be seen: it hides the original.
    fn copy(&self, scratch: &Scratch<'_>, origin: &mut Origin<'_>) -> Result<OwnedFd, UpperError> {
        let metadata = origin.metadata;
        let what = match metadata.kind {
            FileKind::Regular => What::File,
            FileKind::Directory => What::Dir,
            FileKind::Symlink => What::Symlink(origin.target),
            kind => What::Special(kind, metadata.rdev),
        };
        let pinned = self.make(self.scratch.as_fd(), &scratch.name, &what, 0o600 | metadata.mode)?;
        let UpperAttr { metadata: real, st_ino, .. } = handle::stat(&pinned)?;
        scratch.numbered.set((!self.can_carry_marks(real.kind)).then_some(st_ino));
        if metadata.kind == FileKind::Regular {
            self.fill(&pinned, &real, origin)?;
        } else {
            self.dress(&pinned, &real, origin, None)?;
            self.number(&pinned, origin)?;
        }
        Ok(pinned)
    }
}

/// Writes the first `keep` bytes of `content`.
pub(super) fn copy_content(file: &File, content: Content<'_>, keep: u64) -> Result<(), UpperError> {
    let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(keep).unwrap_or(COPY_BYTES))];
    let mut offset = 0;
    while offset < keep {
        let want = usize::try_from(keep - offset).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let count = content(offset, &mut buffer[..want]).at("read the layer")?;
        if count == 0 {
            return Err(Errno::IO).at("read the layer: it ends early");
        }
        // Holes stay holes.
        if buffer[..count].iter().any(|byte| *byte != 0) {
            files::write_all_at(file, &buffer[..count], offset).at("write")?;
        }
        offset += count as u64;
    }
    files::ftruncate(file, keep).at("ftruncate")
}

/// Sets both times of whatever the descriptor holds, a symlink included.
pub(super) fn set_times(pinned: impl AsFd, atime: Timestamp, mtime: Timestamp) -> Result<(), UpperError> {
    let times = Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
    utimens(pinned, &times)
}

/// Gives a directory the times back that it had before a copy got its place in it. The copy is there: no error.
pub(super) fn keep_times(dir: impl AsFd, before: &UpperAttr) {
    if let Err(error) = set_times(dir, before.atime, before.metadata.mtime) {
        tracing::warn!("{error}: a directory shows a change that no program made");
    }
}

/// utimensat(2) of a descriptor.
pub(super) fn utimens(pinned: impl AsFd, times: &Timestamps) -> Result<(), UpperError> {
    use rustix::fs::AtFlags;
    match files::utimensat(pinned.as_fd(), c"", times, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW) {
        // Before Linux 5.8 there is no AT_EMPTY_PATH; the magic link does not work for a symlink then.
        Err(Errno::INVAL) => {
            files::utimensat(rustix::fs::CWD, handle::magic_link(pinned), times, AtFlags::empty())
                .at("utimensat")
        }
        result => result.at("utimensat"),
    }
}

pub(super) fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos) }
}
