//! Files that own just a part of their content: the mark that says so.
//!
//! `overlay.layerfs.extents` stands in place of `overlay.layerfs.ino` and contains its number. Where both are, the file
//! is whole: that is how it becomes whole in one step. All integers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | bits of the granule size |
//! | 2..4 | length of the path |
//! | 4..8 | [`check_of`] the layer's file: tells a layer that was changed or exchanged |
//! | 8..16 | inode number |
//! | 16..24 | bytes from the start that can be the layer's |
//! | then | path of the layer's file in the union, where the number alone does not lead there |
//! | 8 | boot in which the fresh granules were written; left out, like what follows, when nothing is own |
//! | 2 | length of the settled granules |
//! | then | settled granules, then fresh ones, one bit each, without trailing zeros |
//!
//! What owns nothing takes 24 bytes, so that the mark fits into an inode of 256 bytes.

use std::os::fd::AsFd;

use super::error::At as _;
use super::extents::ExtentMap;
use super::{Upper, UpperError};
use crate::model::{Digest, Ino, Metadata, Timestamp};

pub(super) const VERSION: u8 = 1;
const HEAD_BYTES: usize = 24;

/// What a file shares with the layer's file that it was copied from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Its inode number, which also says which file of which layer.
    pub ino: Ino,
    /// [`check_of`] the layer's file.
    pub check: u32,
    /// Where that is in the union, when the number alone does not lead there; else empty.
    pub path: Vec<u8>,
    /// What is its own.
    pub map: ExtentMap,
}

/// What tells the file of a layer from another one of the same size and mtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// What its layer is, if that has a digest.
    pub diff_id: Option<Digest>,
    /// When it was last changed, its attributes included, in a layer that is a directory. The inode number would not do:
    /// `cp -p` writes into the file that is there, and ext4 gives what `tar -x` puts in its place the same number again.
    /// So chmod, chown and new links count as changes too, and a copy of the directory is another layer.
    pub changed_at: Option<Timestamp>,
}

/// A fingerprint of the file of a layer, CRC-32: what changes when somebody exchanges it. Size and mtime alone do not:
/// images that are built to be reproducible have the same times whatever is in them.
#[must_use]
pub fn check_of(metadata: &Metadata, identity: &Identity) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&metadata.size.to_le_bytes());
    for time in [Some(metadata.mtime), identity.changed_at].into_iter().flatten() {
        hasher.update(&time.secs.to_le_bytes());
        hasher.update(&time.nanos.to_le_bytes());
    }
    if let Some(diff_id) = &identity.diff_id {
        hasher.update(diff_id.as_bytes());
    }
    hasher.finalize()
}

impl Partial {
    /// The mark's value; `boot` is the current boot of the machine.
    pub(super) fn encode(&self, boot: u64) -> Vec<u8> {
        let (shift, lower_bytes, settled, fresh) = self.map.parts();
        // Both are bounded: a path by PATH_MAX, granules by the map.
        let len = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes();
        let mut value = vec![VERSION, shift];
        value.extend(len(&self.path));
        value.extend(self.check.to_le_bytes());
        value.extend(self.ino.0.to_le_bytes());
        value.extend(lower_bytes.to_le_bytes());
        value.extend(&self.path);
        if !(settled.is_empty() && fresh.is_empty()) {
            value.extend(boot.to_le_bytes());
            value.extend(len(settled));
            value.extend(settled);
            value.extend(fresh);
        }
        value
    }

    /// Undoes [`Self::encode`]; `None` when that did not make it. Fresh granules of another boot do not count.
    pub(super) fn decode(value: &[u8], boot: u64) -> Option<Self> {
        let (head, rest) = value.split_at_checked(HEAD_BYTES)?;
        let [VERSION, shift] = head[..2] else { return None };
        let path_bytes = usize::from(u16::from_le_bytes(head[2..4].try_into().ok()?));
        let (path, rest) = rest.split_at_checked(path_bytes)?;
        let lower_bytes = u64::from_le_bytes(head[16..24].try_into().ok()?);
        let (settled, fresh, written) = granules(rest)?;
        let mut map = ExtentMap::from_parts(shift, lower_bytes, settled, fresh)?;
        if written != Some(boot) || boot == 0 {
            map.forget_fresh();
        }
        let ino = Ino(u64::from_le_bytes(head[8..16].try_into().ok()?));
        ino.to_lower()?;
        Some(Self { ino, check: u32::from_le_bytes(head[4..8].try_into().ok()?), path: path.to_vec(), map })
    }
}

/// Settled granules, fresh ones, and the boot in which those were written.
fn granules(value: &[u8]) -> Option<(&[u8], &[u8], Option<u64>)> {
    if value.is_empty() {
        return Some((&[], &[], None));
    }
    let (boot, rest) = value.split_first_chunk()?;
    let (settled_bytes, rest) = rest.split_first_chunk()?;
    let (settled, fresh) = rest.split_at_checked(u16::from_le_bytes(*settled_bytes).into())?;
    Some((settled, fresh, Some(u64::from_le_bytes(*boot))))
}

impl Upper {
    /// Whether a copy-up may leave the content in the layer. Not where others read the upper while it is mounted.
    #[must_use]
    pub fn copies_later(&self) -> bool {
        // Without knowing the boot of the machine nobody could tell what a power cut has taken.
        self.granule_bytes_min.is_some() && self.boot != 0
    }

    /// Writes down what a file shares.
    ///
    /// # Errors
    /// [`UpperError`]; then what was written down before still holds. `ENOSPC` also when the filesystem has no room for
    /// an attribute of this size.
    pub fn set_partial(&self, pinned: impl AsFd, partial: &Partial) -> Result<(), UpperError> {
        self.namespace.set_extents(pinned, &partial.encode(self.boot)).at("set the extents mark")
    }

    /// Makes sure that the recorded owner of a file is where others look for it.
    ///
    /// # Errors
    /// [`UpperError`], when there is no room for it for instance.
    pub fn own_record(&self, pinned: impl AsFd) -> Result<(), UpperError> {
        self.namespace.own_record(pinned)
    }

    /// Writes down that a file shares nothing any more. Its data is on disk.
    ///
    /// # Errors
    /// [`UpperError`]; then what was written down before still holds.
    pub fn set_whole(&self, pinned: impl AsFd, partial: &Partial) -> Result<(), UpperError> {
        let pinned = pinned.as_fd();
        let ino = partial.ino;
        // First the record, which everybody must find once the file is whole.
        let become_whole = || self.own_record(pinned).and_then(|()| self.namespace.set_ino(pinned, ino));
        match become_whole() {
            Err(error) if error.is_no_room() => {
                // Not for one mark beside the other. A map of nothing says the same, and leaves more room.
                let mut nothing = partial.clone();
                nothing.map.clear();
                self.set_partial(pinned, &nothing)?;
                if become_whole().is_err() {
                    return Ok(());
                }
            }
            result => result?,
        }
        // The other mark has won already.
        if let Err(error) = self.namespace.remove_extents(pinned) {
            tracing::warn!("upper: inode {}: a map of extents stays behind: {error}", ino.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial(path: &[u8]) -> Partial {
        let map = ExtentMap::new(100_000, 4096);
        Partial { ino: Ino(0x0100_0000_0007), check: 0xAABB_CCDD, path: path.to_vec(), map }
    }

    #[test]
    fn golden_bytes() {
        let mut partial = partial(b"a/b");
        let head = b"\x01\x0c\x03\x00\xdd\xcc\xbb\xaa\x07\x00\x00\x00\x00\x01\x00\x00\xa0\x86\x01\x00\x00\x00\x00\x00a/b";
        assert_eq!(partial.encode(9), head);
        partial.map.claim(0..1);
        let flushed = partial.map.fresh().clone();
        partial.map.settle(&flushed);
        partial.map.claim(99_999..100_000);
        let tail = b"\x09\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00\x00\x01";
        assert_eq!(partial.encode(9), [&head[..], tail].concat());
    }

    #[test]
    fn after_another_boot_only_what_is_settled_counts() {
        let mut partial = partial(b"");
        assert_eq!(partial.encode(1).len(), HEAD_BYTES);
        partial.map.claim(5000..5001);
        let flushed = partial.map.fresh().clone();
        partial.map.settle(&flushed);
        let settled = partial.clone();
        partial.map.claim(0..4096);
        let value = partial.encode(1);
        assert_eq!(Partial::decode(&value, 1), Some(partial));
        assert_eq!(Partial::decode(&value, 2), Some(settled));
    }

    #[test]
    fn damage_is_told() {
        let mut partial = partial(b"path");
        partial.map.claim(0..100_000);
        let flushed = partial.map.fresh().clone();
        partial.map.settle(&flushed);
        let value = partial.encode(1);
        for len in 0..value.len() {
            // Cut in the middle of the granules it is another map; the path and the lengths before do not lie.
            let cut = Partial::decode(&value[..len], 1);
            assert!(cut.is_none() || len == HEAD_BYTES + 4, "{len}");
        }
        let long = vec![0xFF; 70_000];
        assert_eq!(Partial::decode(&long, 1), None);
        assert_eq!(Partial::decode(&[&[2], &value[1..]].concat(), 1), None, "another version");
        assert_eq!(Partial::decode(&[&[1, 64], &value[2..]].concat(), 1), None, "a granule size");
    }
}
