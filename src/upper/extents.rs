//! The extent map: which parts of a copied-up file are its own, and which are still those of the layer's file.
//!
//! The file is divided into granules, as small as the page size for files up to 16 MiB, larger above so that the map
//! fits into an extended attribute. A granule that is *own* is read from the upper. Of one that is not, the bytes below
//! `lower_bytes` are the layer's, and what follows them (the file has been extended) is read from the upper.
//!
//! Own granules are of two kinds, because a process can die without the machine, and data reaches the disk later than
//! the map: *settled* ones are known to be on disk, *fresh* ones were written since. Fresh ones count only in the boot
//! of the machine in which they were written; after a power cut they are the layer's again, so that such a range is old
//! or new, never zeros.

use std::ops::Range;

/// Most granules of a map: 512 bytes for each kind, so that both fit into the 4 KiB that ext4 has for all attributes of a
/// file, beside ACLs and capabilities.
const GRANULES_MAX: u64 = 4096;

/// Which parts of a file are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentMap {
    /// Bits of the size of a granule.
    shift: u32,
    lower_bytes: u64,
    settled: Bits,
    fresh: Bits,
}

/// One bit per granule; those that are not there are 0.
#[derive(Clone, Debug, Default)]
pub struct Bits(Vec<u8>);

/// A stretch of a file, and where to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its bytes.
    pub range: Range<u64>,
    /// In the upper; else in the layer.
    pub own: bool,
}

impl ExtentMap {
    /// The map of a file that owns nothing: all of its first `lower_bytes` bytes are the layer's. Granules have
    /// `granule_bytes_min` bytes (a power of two) or more.
    #[must_use]
    pub fn new(lower_bytes: u64, granule_bytes_min: u64) -> Self {
        let mut shift = granule_bytes_min.trailing_zeros();
        while lower_bytes.div_ceil(1 << shift) > GRANULES_MAX {
            shift += 1;
        }
        Self { shift, lower_bytes, settled: Bits::default(), fresh: Bits::default() }
    }

    /// The map that was taken apart by [`Self::parts`]; `None` when the parts make no sense.
    pub(super) fn from_parts(shift: u8, lower_bytes: u64, settled: &[u8], fresh: &[u8]) -> Option<Self> {
        let shift = u32::from(shift);
        let bits_max = usize::try_from(GRANULES_MAX / 8).ok()?;
        let granules = lower_bytes.div_ceil(1_u64.checked_shl(shift)?);
        if granules > GRANULES_MAX || settled.len() > bits_max || fresh.len() > bits_max {
            return None;
        }
        let bits = |bytes: &[u8]| Bits(bytes.to_vec());
        Some(Self { shift, lower_bytes, settled: bits(settled), fresh: bits(fresh) })
    }

    /// What a map consists of: bits of the granule size, bytes of the layer's, settled and fresh granules.
    pub(super) fn parts(&self) -> (u8, u64, &[u8], &[u8]) {
        let shift = u8::try_from(self.shift).unwrap_or(u8::MAX);
        (shift, self.lower_bytes, self.settled.trimmed(), self.fresh.trimmed())
    }

    /// How many bytes from the start can be the layer's.
    #[must_use]
    pub fn lower_bytes(&self) -> u64 {
        self.lower_bytes
    }

    /// Whether nothing of the layer's file is needed any more.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing(0..self.lower_bytes).is_none()
    }

    /// Granules that may not be on disk yet.
    #[must_use]
    pub fn fresh(&self) -> &Bits {
        &self.fresh
    }

    /// The pieces of a range, in order.
    #[must_use]
    pub fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let own = at >= self.lower_bytes || self.is_own(at >> self.shift);
            let end = if at >= self.lower_bytes { range.end } else { self.granule_end(at).min(range.end) };
            match pieces.last_mut() {
                Some(last) if last.own == own => last.range.end = end,
                _ => pieces.push(Piece { range: at..end, own }),
            }
            at = end;
        }
        pieces
    }

    /// The first stretch of layer's bytes in the granules that `range` touches, whole granules; `None` when all of
    /// them are own.
    #[must_use]
    pub fn missing(&self, range: Range<u64>) -> Option<Range<u64>> {
        let end = range.end.min(self.lower_bytes);
        if range.start >= end {
            return None;
        }
        let pieces = self.pieces((range.start >> self.shift) << self.shift..self.granule_end(end - 1));
        pieces.into_iter().find(|piece| !piece.own).map(|piece| piece.range)
    }

    /// Makes the granules that `range` touches own.
    pub fn claim(&mut self, range: Range<u64>) {
        let end = range.end.min(self.lower_bytes);
        let mut at = range.start;
        while at < end {
            let granule = at >> self.shift;
            if !self.settled.get(granule) {
                self.fresh.set(granule);
            }
            at = self.granule_end(at);
        }
    }

    /// The file has been cut off at `size`.
    pub fn truncate(&mut self, size: u64) {
        self.lower_bytes = self.lower_bytes.min(size);
    }

    /// Nothing is the layer's any more, which needs no granule to say so.
    pub(super) fn clear(&mut self) {
        self.lower_bytes = 0;
        self.settled = Bits::default();
        self.fresh = Bits::default();
    }

    /// What [`Self::fresh`] said before the file was flushed is on disk.
    pub fn settle(&mut self, flushed: &Bits) {
        for (at, byte) in flushed.0.iter().enumerate() {
            self.settled.or(at, *byte);
        }
        self.fresh.without(flushed);
    }

    /// Fresh granules are the layer's again. Returns whether there were any.
    pub(super) fn forget_fresh(&mut self) -> bool {
        !std::mem::take(&mut self.fresh).is_empty()
    }

    fn is_own(&self, granule: u64) -> bool {
        self.settled.get(granule) || self.fresh.get(granule)
    }

    /// Where the granule of one of the layer's bytes ends; not beyond what the layer has.
    fn granule_end(&self, at: u64) -> u64 {
        let next = (at >> self.shift) + 1;
        next.checked_mul(1 << self.shift).map_or(self.lower_bytes, |end| end.min(self.lower_bytes))
    }
}

impl PartialEq for Bits {
    fn eq(&self, other: &Self) -> bool {
        self.trimmed() == other.trimmed()
    }
}

impl Eq for Bits {}

impl Bits {
    /// Whether no granule is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trimmed().is_empty()
    }

    fn get(&self, granule: u64) -> bool {
        let byte = usize::try_from(granule / 8).ok().and_then(|at| self.0.get(at));
        byte.is_some_and(|byte| byte & (1 << (granule % 8)) != 0)
    }

    fn set(&mut self, granule: u64) {
        if let Ok(at) = usize::try_from(granule / 8) {
            self.or(at, 1 << (granule % 8));
        }
    }

    fn or(&mut self, at: usize, bits: u8) {
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= bits;
    }

    fn without(&mut self, other: &Self) {
        for (byte, taken) in self.0.iter_mut().zip(&other.0) {
            *byte &= !taken;
        }
    }

    fn trimmed(&self) -> &[u8] {
        let len = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        &self.0[..len]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn granules_grow_with_the_file() {
        for (bytes, granule) in
            [(1, 4096), (16 << 20, 4096), ((16 << 20) + 1, 8192), (1 << 30, 256 << 10), (1 << 62, 1 << 50)]
        {
            let mut map = ExtentMap::new(bytes, 4096);
            assert_eq!(map.missing(0..1), Some(0..granule.min(bytes)), "{bytes}");
            map.claim(0..bytes);
            assert!(map.is_whole() && map.parts().3.len() <= 512);
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Claim(Range<u64>),
        Truncate(u64),
        Settle,
        ForgetFresh,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..300_u64, 0..100_u64).prop_map(|(start, len)| Op::Claim(start..start + len)),
            1 => (0..300_u64).prop_map(Op::Truncate),
            1 => Just(Op::Settle),
            1 => Just(Op::ForgetFresh),
        ]
    }

    proptest! {
        /// Beside one bool per byte.
        #[test]
        fn like_a_list_of_bytes(lower_bytes in 0..250_u64, ops in proptest::collection::vec(op(), 0..20)) {
            const GRANULE: u64 = 16;
            let mut map = ExtentMap::new(lower_bytes, GRANULE);
            let mut lower = lower_bytes;
            let (mut settled, mut fresh) = (BTreeSet::new(), BTreeSet::new());
            for op in ops {
                match op {
                    Op::Claim(range) => {
                        map.claim(range.clone());
                        let end = range.end.min(lower);
                        if range.start < end {
                            fresh.extend(range.start / GRANULE * GRANULE..(end - 1) / GRANULE * GRANULE + GRANULE);
                        }
                    }
                    Op::Truncate(size) => {
                        map.truncate(size);
                        lower = lower.min(size);
                    }
                    Op::Settle => {
                        let flushed = map.fresh().clone();
                        map.settle(&flushed);
                        settled.append(&mut fresh);
                    }
                    Op::ForgetFresh => {
                        map.forget_fresh();
                        fresh.clear();
                    }
                }
                let own = |at: u64| at >= lower || settled.contains(&at) || fresh.contains(&at);
                let mut told = Vec::new();
                for piece in map.pieces(3..390) {
                    prop_assert!(!piece.range.is_empty());
                    told.extend(piece.range.map(|at| (at, piece.own)));
                }
                let expected: Vec<_> = (3..390).map(|at| (at, own(at))).collect();
                prop_assert_eq!(told, expected);
                prop_assert_eq!(map.is_whole(), (0..lower).all(own));
                let missing = map.missing(20..50);
                let first = (16..64.min(lower)).find(|at| !own(*at)).filter(|_| 20 < lower);
                prop_assert_eq!(missing.as_ref().map(|range| range.start), first);
                let parts = map.parts();
                let again = ExtentMap::from_parts(parts.0, parts.1, parts.2, parts.3);
                prop_assert_eq!(again, Some(map.clone()));
            }
        }
    }
}
