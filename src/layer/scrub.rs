//! Reading a whole layer to see whether all of it is what the image promised.

use std::ops::Range;

use super::tar_layer::TarLayer;
use super::{Layer as _, LayerError};
use crate::index::{Child, Content, GRANULE_BYTES, IndexError, InodeNumber};
use crate::model::EntryId;

impl TarLayer {
    /// Decodes the whole blob, front to back, and gives for each granule its place in the uncompressed layer and its
    /// verified bytes, or why there are none. It goes on after an error. What is cached does not count.
    pub fn scrub(&self, sink: &mut dyn FnMut(Range<u64>, Result<&[u8], LayerError>)) {
        let bytes = self.index().tar_bytes();
        for granule in 0..bytes.div_ceil(GRANULE_BYTES) {
            let start = granule * GRANULE_BYTES;
            let range = start..(start + GRANULE_BYTES).min(bytes);
            match self.chunks().from_blob(granule) {
                Ok(chunk) => sink(range, Ok(chunk.bytes())),
                Err(error) => sink(range, Err(error)),
            }
        }
    }

    /// The paths of all files with content in one of these stretches of the uncompressed layer, relative to the root.
    ///
    /// # Errors
    /// [`LayerError`] when the index cannot say.
    pub fn files_in(&self, damaged: &[Range<u64>]) -> Result<Vec<Vec<u8>>, LayerError> {
        let mut found = Vec::new();
        let mut ahead: Vec<(InodeNumber, Vec<u8>)> = vec![(self.index().root(), Vec::new())];
        while let Some((number, path)) = ahead.pop() {
            let entry = EntryId(u64::from(number.0));
            let bad = |error: IndexError| super::chunk_reader::bad_index(self.index(), entry, &error);
            let inode = self.index().inode(number).map_err(bad)?;
            match &inode.content {
                Content::Contiguous(place) => {
                    let end = place.0.saturating_add(inode.metadata.size);
                    if damaged.iter().any(|range| range.start < end && place.0 < range.end) {
                        found.push(path);
                    }
                }
                Content::Sparse(extents) => {
                    let all = self.index().extents(extents, 0, u64::MAX).map_err(bad)?;
                    let meets = |start: u64, len: u64| {
                        damaged
                            .iter()
                            .any(|range| range.start < start.saturating_add(len) && start < range.end)
                    };
                    if all.iter().any(|extent| meets(extent.place.0, extent.len)) {
                        found.push(path);
                    }
                }
                Content::Names(_) => {
                    for (name, child) in self.index().children(&inode).map_err(bad)? {
                        let Child::Object(number) = child else { continue };
                        let mut path = path.clone();
                        if !path.is_empty() {
                            path.push(b'/');
                        }
                        path.extend_from_slice(name.as_bytes());
                        ahead.push((number, path));
                    }
                }
                Content::Target(_) | Content::Nothing => {}
            }
        }
        found.sort();
        Ok(found)
    }

    /// Looks at every object that the index names, with its attributes and targets.
    ///
    /// # Errors
    /// [`LayerError`] of the first that cannot be read.
    pub fn walk_index(&self) -> Result<u64, LayerError> {
        let count = self.index().inode_count();
        for number in 0..count {
            let id = EntryId(number);
            let entry = self.entry(id)?;
            self.xattrs(id)?;
            match entry.metadata.kind {
                crate::model::FileKind::Directory => drop(self.read_dir(id)?),
                crate::model::FileKind::Symlink => drop(self.read_link(id)?),
                _ => {}
            }
        }
        Ok(count)
    }
}
