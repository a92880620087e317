//! Integers with a meaning, one type each, so that two of them cannot be swapped.

/// The inode number that a program sees and the kernel uses as FUSE nodeid.
///
/// Always below 2^53, because JavaScript and others read it into a double. Three ranges, disjoint by construction:
/// `1` is the root; below 2^40 an object born in the upper has the inode number of its file there; from 2^40 on,
/// `(layer ordinal + 1) << 40 | entry` names an object of a layer. See ARCHITECTURE.md, "Identity".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

/// Bits of [`Ino`] that hold the entry within a layer.
const ENTRY_BITS: u32 = 40;
/// The first ordinal that [`Ino`] keeps for numbers that fit nowhere else (given out by a table).
const TABLE_ORDINAL: u64 = (1 << (53 - ENTRY_BITS)) - 1;

impl Ino {
    /// The root of the mount, `FUSE_ROOT_ID`.
    pub const ROOT: Self = Self(1);

    /// The number of an object that lives in a layer; `None` when it does not fit.
    #[must_use]
    pub const fn of_lower(layer: LayerOrdinal, entry: EntryId) -> Option<Self> {
        let high = layer.0 as u64 + 1;
        if entry.0 >> ENTRY_BITS != 0 || high >= TABLE_ORDINAL {
            return None;
        }
        Some(Self(high << ENTRY_BITS | entry.0))
    }

    /// The layer and entry of a number made by [`Self::of_lower`]; `None` for any other.
    #[must_use]
    pub fn to_lower(self) -> Option<(LayerOrdinal, EntryId)> {
        let ordinal = (self.0 >> ENTRY_BITS).checked_sub(1).filter(|ordinal| ordinal + 1 < TABLE_ORDINAL)?;
        Some((LayerOrdinal(u16::try_from(ordinal).ok()?), EntryId(self.0 & ((1 << ENTRY_BITS) - 1))))
    }

    /// The number of an object that was born in the upper; `None` when it does not fit (or is the root's).
    #[must_use]
    pub const fn of_upper(st_ino: u64) -> Option<Self> {
        if st_ino <= 1 || st_ino >> ENTRY_BITS != 0 { None } else { Some(Self(st_ino)) }
    }

    /// The `n`th number of the range for objects whose own number does not fit.
    #[must_use]
    pub const fn of_table(n: u64) -> Self {
        Self(TABLE_ORDINAL << ENTRY_BITS | (n & ((1 << ENTRY_BITS) - 1)))
    }
}

/// A layer's place in its image, counted from the base layer, which is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerOrdinal(pub u16);

/// One object within one layer: an inode record of an index, or the inode number in a plain directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u64);

/// A position in the uncompressed bytes of a layer (what the diffID is the digest of).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TarOffset(pub u64);

/// A position in a layer's bytes as delivered (what the blob digest is the digest of).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobOffset(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_meet() {
        let largest_upper = Ino::of_upper((1 << ENTRY_BITS) - 1).unwrap();
        let smallest_lower = Ino::of_lower(LayerOrdinal(0), EntryId(0)).unwrap();
        let largest_lower = Ino::of_lower(LayerOrdinal(8189), EntryId((1 << ENTRY_BITS) - 1)).unwrap();
        assert!(largest_upper < smallest_lower);
        assert!(largest_lower < Ino::of_table(0));
        assert!(Ino::of_table(u64::MAX).0 < 1 << 53);
        assert_eq!(Ino::of_lower(LayerOrdinal(8190), EntryId(0)), None);
        assert_eq!(Ino::of_lower(LayerOrdinal(0), EntryId(1 << ENTRY_BITS)), None);
        assert_eq!(Ino::of_upper(1), None);
        assert_eq!(largest_lower.to_lower(), Some((LayerOrdinal(8189), EntryId((1 << ENTRY_BITS) - 1))));
        assert_eq!(largest_upper.to_lower(), None);
        assert_eq!(Ino::of_table(0).to_lower(), None);
    }
}
