//! Listing a directory.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::listing::{Names, Position};
use super::node::Node;
use super::{Attr, Fs, FsError};
use crate::model::{FileKind, FileName, Ino, Name};
use crate::union::{Listed, LowerDir};

/// One name of a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// The name; `.` and `..` are not names and have none.
    pub name: DirName,
    /// Its number.
    pub ino: Ino,
    /// Its type.
    pub kind: FileKind,
    /// Where reading goes on after it.
    pub next: u64,
}

/// What an entry is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirName {
    /// `.`
    Itself,
    /// `..`
    Parent,
    /// Everything else.
    Name(FileName),
}

impl DirName {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Itself => b".",
            Self::Parent => b"..",
            Self::Name(name) => name.as_bytes(),
        }
    }
}

/// What a reader heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Names, or that there is no room for the next.
    Names,
    /// That there are no more. The kernel takes what it was told for the whole listing, and gives it to others too.
    End {
        /// The directory has changed since the reader, or another who has not come to the end, began: what the kernel
        /// has put together is the listing of no one moment, and must not be kept.
        mixed: bool,
    },
}

/// What layers and upper make of a directory together.
struct Merged {
    /// What shows.
    names: Names,
    /// Whiteouts that hide nothing, or that an object of the same name stands beside.
    stale: Vec<FileName>,
}

/// Offset of the first name after `.` and `..`.
const FIRST: u64 = 2;
/// Names taken at a time: what fits into one reply of 32 KiB, READDIRPLUS with short names.
const BATCH: usize = 256;

impl Fs {
    /// Gives the entries from `offset` on to `each`, with their attributes if `with_attr`, until it says that there is
    /// no room (`false`). An entry with attributes that found room counts one lookup.
    ///
    /// # Errors
    /// [`FsError`]: a listing that misses names is never given.
    pub fn readdir(
        &self,
        ino: Ino,
        offset: u64,
        with_attr: bool,
        each: &mut dyn FnMut(&DirEntry, Option<&Attr>) -> bool,
    ) -> Result<Heard, FsError> {
        let _using = self.using_layers();
        let node = self.node(ino)?;
        if node.kind != FileKind::Directory {
            return Err(FsError::NotADirectory);
        }
        let version = node.state().version;
        node.listing().readers.read_on(offset == 0, version, Instant::now());
        let mut asked = false;
        let told = self.tell_all(&node, offset, with_attr, &mut |entry, attr| {
            asked = true;
            each(entry, attr)
        });
        if asked {
            // The kernel must hear of those that were counted; an error is met again, first, by who reads on.
            return Ok(Heard::Names);
        }
        told?;
        let version = node.state().version;
        Ok(Heard::End { mixed: node.listing().readers.end(version) })
    }

    fn tell_all(
        &self,
        node: &Node,
        offset: u64,
        with_attr: bool,
        each: &mut dyn FnMut(&DirEntry, Option<&Attr>) -> bool,
    ) -> Result<(), FsError> {
        if !self.dots(node, offset, with_attr, each)? {
            return Ok(());
        }
        if offset <= FIRST {
            self.refresh_listing(node)?;
        }
        let mut position = offset.saturating_sub(FIRST);
        loop {
            let version = node.state().version;
            let batch = node.listing().from(position, BATCH, version);
            let Some(last) = batch.last() else { return Ok(()) };
            let after = last.position + 1;
            for one in batch {
                if !self.tell(node, one, with_attr, each)? {
                    return Ok(());
                }
            }
            position = after;
        }
    }

    fn dots(
        &self,
        node: &Node,
        offset: u64,
        with_attr: bool,
        each: &mut dyn FnMut(&DirEntry, Option<&Attr>) -> bool,
    ) -> Result<bool, FsError> {
        let dots = [(DirName::Itself, node.ino), (DirName::Parent, self.table.parent(node.ino))];
        for (next, (name, ino)) in (1..).zip(dots) {
            if offset >= next {
                continue;
            }
            let entry = DirEntry { name, ino, kind: FileKind::Directory, next };
            let attr = if with_attr { Some(self.attr_of(&*self.node(ino)?)?) } else { None };
            if !each(&entry, attr.as_ref()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tells one name; `false` when there was no room. A name that is gone by now is passed over.
    fn tell(
        &self,
        node: &Node,
        Position { position, name, known }: Position,
        with_attr: bool,
        each: &mut dyn FnMut(&DirEntry, Option<&Attr>) -> bool,
    ) -> Result<bool, FsError> {
        let known = known.and_then(Listed::found);
        let Some(found) = self.find_listed(&self.view(node)?, name.as_name(), known)? else {
            return Ok(true);
        };
        let (mut ino, mut kind) = (found.ino, found.kind);
        let attr = match with_attr {
            true => Some(self.enter(found, node.ino, name.as_name(), None)?),
            false => None,
        };
        if let Some(attr) = &attr {
            (ino, kind) = (attr.ino, attr.metadata.kind);
        }
        let entry = DirEntry { name: DirName::Name(name), ino, kind, next: position + 1 + FIRST };
        let room = each(&entry, attr.as_ref());
        if !room && with_attr {
            self.forget(ino, 1);
        }
        Ok(room)
    }

    fn refresh_listing(&self, node: &Node) -> Result<(), FsError> {
        let version = node.state().version;
        if node.listing().is_current(version) {
            return Ok(());
        }
        let view = self.view(node)?;
        let merged = self.merge(&view.lower, view.upper.as_ref().map(Arc::as_ref))?;
        if let (Some(upper), Some(dir), false) = (&self.upper, &view.upper, merged.stale.is_empty()) {
            let _alone = node.names_alone();
            for name in &merged.stale {
                // The kernel lets nobody change the directory while it is read, so none of them has got a meaning since.
                if let Err(error) = upper.unhide(dir, name.as_name()) {
                    tracing::warn!("{error}: a whiteout of nothing stays");
                }
            }
        }
        node.listing().update(version, merged.names);
        Ok(())
    }

    /// The visible names of a directory.
    pub(super) fn merged_names(
        &self,
        lower: &LowerDir,
        upper: Option<impl AsFd>,
    ) -> Result<BTreeSet<FileName>, FsError> {
        self.merge(lower, upper).map(|merged| merged.names.into_keys().collect())
    }

    fn merge(&self, lower: &LowerDir, upper: Option<impl AsFd>) -> Result<Merged, FsError> {
        // What a layer that may change beneath us had is looked up again.
        let lasts = |listed: &Listed| self.union.is_found_by_number(listed.lower).unwrap_or(false);
        let listed = self.union.list(lower)?.into_iter();
        let mut names: Names = listed.map(|(name, listed)| (name, Some(listed).filter(lasts))).collect();
        self.release.told(names.len());
        let mut stale = Vec::new();
        if let (Some(dir), Some(upper)) = (upper, &self.upper) {
            // An object beside a `.wh.` marker of its own name wins, so whiteouts come first.
            let (hidden, shown): (Vec<_>, Vec<_>) =
                upper.list(dir)?.into_iter().partition(|name| name.whiteout);
            let shown: BTreeSet<FileName> = shown.into_iter().map(|shown| shown.name).collect();
            for hidden in hidden {
                if names.remove(hidden.name.as_bytes()).is_none() || shown.contains(&hidden.name) {
                    stale.push(hidden.name);
                }
            }
            names.extend(shown.into_iter().map(|name| (name, None)));
        }
        Ok(Merged { names, stale })
    }
}

impl DirEntry {
    /// The name, unless it is `.` or `..`.
    #[must_use]
    pub fn file_name(&self) -> Option<Name<'_>> {
        match &self.name {
            DirName::Name(name) => Some(name.as_name()),
            DirName::Itself | DirName::Parent => None,
        }
    }
}
