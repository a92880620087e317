//! Reading a whole layer to see whether all of it is what the image promised.
//!
//! Not as readers do it: what is cached does not count, and everything is decoded once, front to back, so a damaged layer
//! takes no longer than one that is whole. Behind damage decoding goes on as far as it can, and starts afresh at the next
//! checkpoint, with the history that the index has; so what is told is what cannot be read, and no more.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};

use super::tar_layer::TarLayer;
use super::{Layer as _, LayerError};
use crate::index::{
    Checkpoint, Child, Content, Decoder, Encoding, GRANULE_BYTES, IndexError, Inode, InodeNumber, LayerIndex,
};
use crate::model::{EntryId, FileKind, TarOffset};
use crate::sys::file_range::FileRange;

/// What is wrong with a granule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// There are bytes, but not those that the image promised.
    Differs,
    /// There are none: they cannot be read or decoded, for this reason.
    Undecodable(String),
}

/// Told of each granule: its place in the uncompressed layer, and its bytes or what is wrong with them.
pub type Scrubbed<'a> = dyn FnMut(Range<u64>, Result<&[u8], Damage>) + 'a;

/// How many paths are named; what is beyond is only counted.
#[derive(Clone, Copy, Debug)]
pub struct PathsMax {
    /// For one stretch.
    pub each: usize,
    /// For all of them together.
    pub together: usize,
}

/// A file with several names that was met.
#[derive(Debug)]
struct Met {
    names: usize,
    /// The stretches in which it has content.
    touched: Vec<usize>,
}

/// Files that a damaged stretch hits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// Some of their paths, relative to the root, sorted.
    pub paths: Vec<Vec<u8>>,
    /// How many paths there are.
    pub count: u64,
}

impl TarLayer {
    /// Reads the whole blob, front to back, and gives for each granule its place in the uncompressed layer and its
    /// bytes, compared with their digest, or what is wrong with them. It goes on after an error.
    pub fn scrub(&self, sink: &mut Scrubbed<'_>) {
        let mut scrub = Scrub {
            index: self.index(),
            blob: self.chunks().blob(),
            decoder: None,
            wrong: None,
            failed: None,
        };
        let bytes = self.index().tar_bytes();
        for granule in 0..bytes.div_ceil(GRANULE_BYTES) {
            let start = granule * GRANULE_BYTES;
            let range = start..(start + GRANULE_BYTES).min(bytes);
            match scrub.granule(&range, granule) {
                Ok(bytes) => sink(range, Ok(&bytes)),
                Err(damage) => sink(range, Err(damage)),
            }
        }
    }

    /// Which files have content in stretches of the uncompressed layer, which are in order and apart. One walk, however many
    /// there are.
    ///
    /// # Errors
    /// [`LayerError`] when the index cannot say.
    pub fn files_in(&self, damaged: &[Range<u64>], paths_max: PathsMax) -> Result<Vec<Hit>, LayerError> {
        let mut hits = vec![Hit::default(); damaged.len()];
        // All names of a file with several are counted at the first.
        let mut met: HashMap<InodeNumber, Met> = HashMap::new();
        let mut named = 0;
        // What is still to be looked at, by its name and the length of the path before that: whole paths of all would be
        // gigabytes of a hostile layer.
        let mut ahead: Vec<(InodeNumber, usize, Vec<u8>)> = vec![(self.index().root(), 0, Vec::new())];
        let mut path: Vec<u8> = Vec::new();
        while let Some((number, above, name)) = ahead.pop() {
            path.truncate(above);
            if above > 0 {
                path.push(b'/');
            }
            path.extend(name);
            let entry = EntryId(u64::from(number.0));
            let bad =
                |error: IndexError| super::chunk_reader::bad_index(self.index().diff_id(), entry, &error);
            let inode = self.index().inode(number).map_err(bad)?;
            if let Content::Names(_) = &inode.content {
                for (name, child) in self.index().children(&inode).map_err(bad)?.into_iter().rev() {
                    let Child::Object(number) = child else { continue };
                    ahead.push((number, path.len(), name.as_bytes().to_vec()));
                }
                continue;
            }
            let first;
            let touched = match met.get_mut(&number) {
                Some(known) if known.names >= paths_max.each => continue,
                Some(known) => {
                    known.names += 1;
                    &known.touched
                }
                None => {
                    let touched = touched(damaged, &self.stretches(&inode).map_err(bad)?);
                    touched.iter().for_each(|hit| hits[*hit].count += u64::from(inode.names));
                    if inode.names > 1 {
                        &met.entry(number).or_insert(Met { names: 1, touched }).touched
                    } else {
                        first = touched;
                        &first
                    }
                }
            };
            for hit in touched {
                let hit = &mut hits[*hit];
                if hit.paths.len() < paths_max.each && named < paths_max.together {
                    hit.paths.push(path.clone());
                    named += 1;
                }
            }
        }
        hits.iter_mut().for_each(|hit| hit.paths.sort());
        Ok(hits)
    }

    /// Where a file's content lies: place and length, in order.
    fn stretches(&self, inode: &Inode) -> Result<Vec<(u64, u64)>, IndexError> {
        match &inode.content {
            Content::Contiguous(place) => Ok(vec![(place.0, inode.metadata.size)]),
            Content::Sparse(extents) => {
                let all = self.index().extents(extents, 0, u64::MAX)?;
                Ok(all.iter().map(|extent| (extent.place.0, extent.len)).collect())
            }
            Content::Names(_) | Content::Target(_) | Content::Nothing => Ok(Vec::new()),
        }
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
                FileKind::Directory => drop(self.read_dir(id)?),
                FileKind::Symlink => drop(self.read_link(id)?),
                _ => {}
            }
        }
        Ok(count)
    }
}

/// Which of these ranges (in order and apart) a file's stretches (place and length, in order) meet, each once.
fn touched(ranges: &[Range<u64>], stretches: &[(u64, u64)]) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::new();
    for (start, len) in stretches.iter().filter(|(_, len)| *len > 0) {
        let end = start.saturating_add(*len);
        let first = ranges.partition_point(|range| range.end <= *start);
        let meeting = ranges.iter().enumerate().skip(first).take_while(|(_, range)| range.start < end);
        found.extend(meeting.map(|(number, _)| number));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// A layer that is read front to back.
struct Scrub<'a> {
    index: &'a LayerIndex,
    blob: &'a FileRange,
    /// At the end of the granule before, if that could be decoded.
    decoder: Option<Decoder>,
    /// The checkpoint behind which wrong bytes were met: the next one is started from its own history.
    wrong: Option<u64>,
    /// The checkpoint behind which decoding failed, and why: up to the next one nothing can be had.
    failed: Option<(u64, String)>,
}

impl Scrub<'_> {
    fn granule(&mut self, range: &Range<u64>, granule: u64) -> Result<Vec<u8>, Damage> {
        let bytes = match self.index.encoding() {
            Encoding::Tar => self.plain(range).map_err(Damage::Undecodable)?,
            _ => self.decoded(range).map_err(Damage::Undecodable)?,
        };
        let digest = self.index.granule_digest(granule);
        let digest = digest.map_err(|error| Damage::Undecodable(error.to_string()))?;
        if *blake3::hash(&bytes).as_bytes() == digest {
            return Ok(bytes);
        }
        if let Ok(Some(checkpoint)) = self.index.checkpoint(TarOffset(range.start)) {
            self.wrong = Some(checkpoint.number);
        }
        Err(Damage::Differs)
    }

    fn plain(&self, range: &Range<u64>) -> Result<Vec<u8>, String> {
        let mut bytes = room(range);
        let count = self.blob.read_at(range.start, &mut bytes).map_err(|error| error.to_string())?;
        if count == bytes.len() { Ok(bytes) } else { Err("the file ends too early".to_owned()) }
    }

    fn decoded(&mut self, range: &Range<u64>) -> Result<Vec<u8>, String> {
        let checkpoint = self.index.checkpoint(TarOffset(range.start)).map_err(|error| error.to_string())?;
        let checkpoint = checkpoint.ok_or_else(|| "the index has no checkpoint".to_owned())?;
        let number = checkpoint.number;
        if let Some((failed, reason)) = &self.failed
            && *failed == number
        {
            return Err(reason.clone());
        }
        if self.wrong.is_some_and(|wrong| wrong != number) {
            (self.decoder, self.wrong) = (None, None);
        }
        // A decoder that panics on hostile bytes has not decoded them.
        let decoded = panic::catch_unwind(AssertUnwindSafe(|| self.decode(&checkpoint, range)));
        let decoded = decoded.unwrap_or_else(|_| Err("the decoder panicked".to_owned()));
        decoded.inspect_err(|reason| self.failed = Some((number, reason.clone())))
    }

    fn decode(&mut self, checkpoint: &Checkpoint, range: &Range<u64>) -> Result<Vec<u8>, String> {
        let told = |error: crate::index::DecodeError| error.to_string();
        let mut decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => {
                let window = self.index.window(checkpoint).map_err(|error| error.to_string())?;
                Decoder::resume(self.index.encoding(), self.blob, checkpoint, &window).map_err(told)?
            }
        };
        let position = decoder.position().0;
        let mut read = |range: Range<u64>| {
            let mut bytes = room(&range);
            let count = decoder.read(&mut bytes).map_err(told)?;
            if count == bytes.len() { Ok(bytes) } else { Err("decoding ends too early".to_owned()) }
        };
        // The end of a granule that began before the checkpoint.
        read(position..range.start)?;
        let bytes = read(range.clone())?;
        self.decoder = Some(decoder);
        Ok(bytes)
    }
}

fn room(range: &Range<u64>) -> Vec<u8> {
    vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)]
}
