//! How long things took: counted in buckets by any number of threads at once, without a lock.
//!
//! Up to 256 ns there is one bucket, up to 2^36 ns (69 s) there are four to each power of two, all of the same width, and
//! one for what takes longer. So a quantile, told as the middle of its bucket, is off by at most an eighth of itself, or
//! by 128 ns if that is more; beyond 69 s it is the longest of all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The end of the first bucket, as a power of two: what is faster than a system call need not be told apart.
const FIRST_BITS: u32 = 8;
/// The end of the last bucket that has one: requests that take longer wait for something that does not come.
const LAST_BITS: u32 = 36;
/// Buckets to a power of two, as a power of two.
const PARTS_BITS: u32 = 2;
/// With the first and the last.
const BUCKETS: usize = (((LAST_BITS - FIRST_BITS) << PARTS_BITS) + 2) as usize;

/// Durations, counted.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    total_ns: AtomicU64,
    longest_ns: AtomicU64,
}

/// What a [`Histogram`] held at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// The sum of all durations, in nanoseconds.
    pub total_ns: u64,
    /// The longest, in nanoseconds.
    pub longest_ns: u64,
    /// The number of the first bucket that is not empty.
    first: usize,
    /// How many durations are in it and those behind it, up to the last that is not empty.
    counts: Vec<u64>,
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(nanos)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.total_ns.fetch_add(nanos, Ordering::Relaxed);
        // Nearly always it is not the longest, and reading disturbs no other thread.
        if nanos > self.longest_ns.load(Ordering::Relaxed) {
            self.longest_ns.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    /// What it holds now. What is counted meanwhile may be in one part of the answer and not in the other.
    #[must_use]
    pub fn snapshot(&self) -> Distribution {
        let counts = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let first = counts.iter().position(|count| *count > 0).unwrap_or(BUCKETS);
        let end = counts.iter().rposition(|count| *count > 0).map_or(first, |last| last + 1);
        Distribution {
            total_ns: self.total_ns.load(Ordering::Relaxed),
            longest_ns: self.longest_ns.load(Ordering::Relaxed),
            first,
            counts: counts[first..end].to_vec(),
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            total_ns: AtomicU64::new(0),
            longest_ns: AtomicU64::new(0),
        }
    }
}

impl Distribution {
    /// How many durations there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The duration that `permille` of 1000 do not exceed, in nanoseconds; 0 when there is none.
    #[must_use]
    pub fn quantile_ns(&self, permille: u64) -> u64 {
        let count = self.count();
        // The same as count * permille / 1000, rounded up, which could be too large.
        let rank = (count / 1000 * permille).saturating_add((count % 1000 * permille).div_ceil(1000)).max(1);
        let mut below: u64 = 0;
        for (bucket, count) in (self.first..).zip(&self.counts) {
            below = below.saturating_add(*count);
            if below >= rank {
                let middle = end_of(bucket).map(|end| u64::midpoint(end_before(bucket), end));
                return middle.map_or(self.longest_ns, |middle| middle.min(self.longest_ns));
            }
        }
        self.longest_ns
    }

    /// For each power of two from 256 ns to 69 s: how many durations do not exceed it, exactly.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (FIRST_BITS..=LAST_BITS).map(|bits| {
            let end = 1 << bits;
            let within = (self.first..).zip(&self.counts);
            let within = within.take_while(|(bucket, _)| end_of(*bucket).is_some_and(|own| own <= end));
            (end, within.fold(0_u64, |sum, (_, count)| sum.saturating_add(*count)))
        })
    }

    /// Whether this can be what a histogram held.
    pub(super) fn is_sound(&self) -> bool {
        self.first <= BUCKETS && self.counts.len() <= BUCKETS - self.first
    }
}

/// Each bucket holds what is more than the end of the one before, and at most its own end.
fn bucket_of(nanos: u64) -> usize {
    let before = nanos.saturating_sub(1);
    let bits = before.checked_ilog2().unwrap_or(0);
    if bits < FIRST_BITS {
        return 0;
    }
    let part = (before >> (bits - PARTS_BITS)) & ((1 << PARTS_BITS) - 1);
    let number = (u64::from(bits - FIRST_BITS) << PARTS_BITS) + part + 1;
    usize::try_from(number).map_or(BUCKETS - 1, |number| number.min(BUCKETS - 1))
}

/// The longest duration that a bucket is for; the last has none.
fn end_of(bucket: usize) -> Option<u64> {
    let number = u32::try_from(bucket).ok().filter(|_| bucket < BUCKETS - 1)?;
    let Some(number) = number.checked_sub(1) else { return Some(1 << FIRST_BITS) };
    let (bits, part) = (FIRST_BITS + (number >> PARTS_BITS), number & ((1 << PARTS_BITS) - 1));
    Some((1 << bits) + (u64::from(part + 1) << (bits - PARTS_BITS)))
}

fn end_before(bucket: usize) -> u64 {
    bucket.checked_sub(1).and_then(end_of).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(values: &[u64]) -> Distribution {
        let histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(Duration::from_nanos(*value)));
        histogram.snapshot()
    }

    #[test]
    fn buckets_follow_each_other() {
        assert_eq!(
            (end_of(0), end_of(1), end_of(4), end_of(5)),
            (Some(256), Some(320), Some(512), Some(640))
        );
        assert_eq!((end_of(BUCKETS - 2), end_of(BUCKETS - 1)), (Some(1 << LAST_BITS), None));
        for bucket in 0..BUCKETS - 1 {
            let end = end_of(bucket).unwrap();
            assert_eq!((bucket_of(end_before(bucket) + 1), bucket_of(end)), (bucket, bucket));
            assert_eq!(bucket_of(end + 1), bucket + 1);
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn of_nothing() {
        let nothing = held(&[]);
        assert_eq!((nothing.count(), nothing.quantile_ns(500), nothing.longest_ns), (0, 0, 0));
        assert!(nothing.is_sound() && nothing.cumulative().all(|(_, count)| count == 0));
    }

    #[test]
    fn many_threads_lose_nothing() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let histogram = &histogram;
                scope.spawn(move || {
                    (0..1000).for_each(|value| histogram.record(Duration::from_nanos(thread * 1000 + value)));
                });
            }
        });
        let all = histogram.snapshot();
        assert_eq!((all.count(), all.total_ns, all.longest_ns), (4000, (0..4000).sum(), 3999));
    }

    #[test]
    fn a_distribution_of_more_buckets_is_none() {
        let sound = |first, counts: usize| {
            Distribution { first, counts: vec![1; counts], ..Distribution::default() }.is_sound()
        };
        assert!(sound(0, BUCKETS) && sound(BUCKETS, 0) && sound(BUCKETS - 1, 1));
        assert!(!sound(0, BUCKETS + 1) && !sound(BUCKETS, 1) && !sound(usize::MAX, 2));
        let huge = Distribution { first: 0, counts: vec![u64::MAX; 9], total_ns: 0, longest_ns: u64::MAX };
        assert_eq!((huge.count(), huge.quantile_ns(999)), (u64::MAX, 128));
    }

    fn durations() -> impl Strategy<Value = Vec<u64>> {
        // Of every magnitude, and on the edges of buckets.
        let any = (0_u32..40, any::<u64>()).prop_map(|(bits, low)| (1 << bits) + (low & ((1 << bits) - 1)));
        let edge = (0_u32..40, -1_i64..=1).prop_map(|(bits, off)| (1_u64 << bits).saturating_add_signed(off));
        prop::collection::vec(prop_oneof![any, edge, Just(0)], 1..300)
    }

    proptest! {
        #[test]
        fn quantiles_are_near_those_of_the_sorted(mut values in durations(), permille in 1_u64..=1000) {
            let held = held(&values);
            values.sort_unstable();
            let count = values.len() as u64;
            prop_assert_eq!(held.count(), count);
            prop_assert_eq!(held.total_ns, values.iter().sum::<u64>());
            prop_assert_eq!(held.longest_ns, *values.last().unwrap());
            let rank = (count * permille).div_ceil(1000);
            let exact = values[usize::try_from(rank - 1).unwrap()];
            if exact <= 1 << LAST_BITS {
                let off = held.quantile_ns(permille).abs_diff(exact);
                prop_assert!(off <= (exact / 8).max(128), "{exact}: off by {off}");
            } else {
                prop_assert_eq!(held.quantile_ns(permille), held.longest_ns);
            }
            for (end, count) in held.cumulative() {
                prop_assert_eq!(count, values.iter().filter(|value| **value <= end).count() as u64);
            }
        }
    }
}
