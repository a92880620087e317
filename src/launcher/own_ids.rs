//! The ids of a container that has a user namespace of its own, below the supervisor's.
//!
//! The supervisor has the same ids for every container of a caller ([`super::IdMaps`]), so what a container writes to its
//! root filesystem is kept in the same way whatever its own ids are: nothing has to be copied or given away for them.

use std::fs;
use std::io;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Lines that the kernel takes (user_namespaces(7)).
const MAPS_MAX: usize = 340;
/// Bytes that it takes: less than a page.
const TEXT_BYTES_MAX: usize = 4095;

/// Consecutive ids: what they are inside, and what they are outside, in the supervisor's user namespace. There an ordinary
/// caller is 0, and its ranges follow from 1 on; root's are the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// The first one inside.
    pub inside: u32,
    /// The first one outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// All ids of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnIds {
    /// Users.
    pub uids: Vec<IdMap>,
    /// Groups.
    pub gids: Vec<IdMap>,
}

/// What is wrong with a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// A container without any id.
    #[error("it has no ids")]
    Empty,
    /// More lines than the kernel takes.
    #[error("it has more than {MAPS_MAX} parts, or too long ones")]
    TooMany,
    /// No ids, or such as are none.
    #[error("{0}:{1}:{2} is no range of ids: they go from 0 to 4294967294, and there is at least one")]
    Range(u32, u32, u32),
    /// An id that would be two.
    #[error("{side} id {id} is in it twice")]
    Twice {
        /// Inside or outside.
        side: &'static str,
        /// Which.
        id: u32,
    },
    /// Ids of others.
    #[error("not all of the ids {} to {} are yours to give", .0.start, .0.end - 1)]
    NotYours(Range<u32>),
}

impl IdMap {
    fn inner(&self) -> Range<u32> {
        self.inside..self.inside.saturating_add(self.count)
    }

    fn outer(&self) -> Range<u32> {
        self.outside..self.outside.saturating_add(self.count)
    }
}

impl OwnIds {
    /// The ids that the container is set up with: root, if it has one, else its first user; and so for groups.
    #[must_use]
    pub(super) fn first(&self) -> (u32, u32) {
        (first(self.uids.iter().map(IdMap::inner)), first(self.gids.iter().map(IdMap::inner)))
    }

    /// What these are outside.
    #[must_use]
    pub(super) fn first_outside(&self) -> (u32, u32) {
        let outside = |maps: &[IdMap], id: u32| {
            let map = maps.iter().find(|map| map.inner().contains(&id));
            map.map_or(0, |map| map.outside + (id - map.inside))
        };
        let (uid, gid) = self.first();
        (outside(&self.uids, uid), outside(&self.gids, gid))
    }

    /// Whether a user and a group, both as outside, are there.
    #[must_use]
    pub(super) fn contain(&self, (uid, gid): (u32, u32)) -> bool {
        let contain = |maps: &[IdMap], id: u32| maps.iter().any(|map| map.outer().contains(&id));
        contain(&self.uids, uid) && contain(&self.gids, gid)
    }

    /// Whether they need more of the supervisor than its root.
    pub(super) fn are_many(&self) -> bool {
        self.uids.iter().chain(&self.gids).any(|map| map.outer() != (0..1))
    }

    /// Writes the maps of a child process in its new user namespace, as root of the one around it.
    pub(super) fn write(&self, pid: i32) -> io::Result<()> {
        for (file, maps) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            let path = format!("/proc/{pid}/{file}");
            // The kernel takes a map as a whole, and once.
            fs::write(&path, text(maps)).map_err(|error| {
                let said = text(maps).trim().replace('\n', ", ");
                io::Error::new(error.kind(), format!("{path}: {error}: {said}"))
            })?;
        }
        Ok(())
    }
}

/// 0, if it is there, else the first of all.
fn first(mut ranges: impl Iterator<Item = Range<u32>> + Clone) -> u32 {
    if ranges.clone().any(|range| range.contains(&0)) {
        return 0;
    }
    ranges.next().map_or(0, |range| range.start)
}

fn text(maps: &[IdMap]) -> String {
    maps.iter().map(|map| format!("{} {} {}\n", map.inside, map.outside, map.count)).collect()
}

/// The ids inside that a process of the host's starts with in the user namespace of `pid`: root, if it has one.
pub(super) fn first_of(pid: u32) -> io::Result<(u32, u32)> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    Ok((first(inside(&read("uid_map")?).into_iter()), first(inside(&read("gid_map")?).into_iter())))
}

/// The ids inside, of a map as user_namespaces(7) has it: first inside, first outside, how many.
#[must_use]
pub fn inside(map: &str) -> Vec<Range<u32>> {
    let numbers = |line: &str| {
        line.split_ascii_whitespace().map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()
    };
    let range = |numbers: Vec<u32>| match numbers[..] {
        [first, _, count] => Some(first..first.saturating_add(count)),
        _ => None,
    };
    map.lines().filter_map(numbers).filter_map(range).collect()
}

/// Whether the kernel will take a map whose outer ids must be among `available`.
///
/// # Errors
/// [`MapError`]
pub(super) fn check(maps: &[IdMap], available: &[Range<u32>]) -> Result<(), MapError> {
    if maps.is_empty() {
        return Err(MapError::Empty);
    }
    if maps.len() > MAPS_MAX || text(maps).len() > TEXT_BYTES_MAX {
        return Err(MapError::TooMany);
    }
    for map in maps {
        let fits = |first: u32| first.checked_add(map.count).is_some();
        if map.count == 0 || !fits(map.inside) || !fits(map.outside) {
            return Err(MapError::Range(map.inside, map.outside, map.count));
        }
        if !free(available, &[]).iter().any(|range| contains(range, &map.outer())) {
            return Err(MapError::NotYours(map.outer()));
        }
    }
    for (side, ranges) in [
        ("inside", maps.iter().map(IdMap::inner).collect::<Vec<_>>()),
        ("outside", maps.iter().map(IdMap::outer).collect()),
    ] {
        if let Some(id) = twice(ranges) {
            return Err(MapError::Twice { side, id });
        }
    }
    Ok(())
}

/// The same ids, so that each part lies in one of `pieces`: the kernel takes no part that is several in the user namespace
/// around.
pub(super) fn split(maps: &[IdMap], pieces: &[Range<u32>]) -> Vec<IdMap> {
    let within = |map: &IdMap, piece: &Range<u32>| {
        let outside = map.outside.max(piece.start);
        let count = map.outer().end.min(piece.end).saturating_sub(outside);
        IdMap { inside: map.inside + (outside - map.outside), outside, count }
    };
    let parts = |map: &IdMap| {
        let parts: Vec<IdMap> = pieces.iter().map(|piece| within(map, piece)).collect();
        parts.into_iter().filter(|part| part.count > 0)
    };
    maps.iter().flat_map(parts).collect()
}

fn contains(range: &Range<u32>, other: &Range<u32>) -> bool {
    range.start <= other.start && other.end <= range.end
}

fn twice(mut ranges: Vec<Range<u32>>) -> Option<u32> {
    ranges.sort_by_key(|range| range.start);
    ranges.windows(2).find(|pair| pair[0].end > pair[1].start).map(|pair| pair[1].start)
}

/// What is in `available` but in none of `taken`, as few ranges as possible, the lowest first.
pub(super) fn free(available: &[Range<u32>], taken: &[Range<u32>]) -> Vec<Range<u32>> {
    let mut sorted: Vec<Range<u32>> = available.iter().filter(|range| !range.is_empty()).cloned().collect();
    sorted.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u32>> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    for taken in taken.iter().filter(|range| !range.is_empty()) {
        let around = |range: Range<u32>| {
            let below = range.start..range.end.min(taken.start);
            let above = range.start.max(taken.end)..range.end;
            [below, above]
        };
        joined = joined.into_iter().flat_map(around).filter(|range| !range.is_empty()).collect();
    }
    joined
}

/// The first `size` ids of `ranges` as the ids from 0 on; `None` when there are fewer.
pub(super) fn take(ranges: &[Range<u32>], size: u32) -> Option<Vec<IdMap>> {
    let mut maps = Vec::new();
    let mut inside = 0;
    for range in ranges {
        let count = (range.end - range.start).min(size - inside);
        if count > 0 {
            maps.push(IdMap { inside, outside: range.start, count });
        }
        inside += count;
    }
    (inside == size).then_some(maps)
}

/// The supervisor's root as the id `kept`, and its other ids, of which there are `others`, from 0 on around that.
pub(super) fn keeping(kept: u32, others: u32) -> Vec<IdMap> {
    let below = kept.min(others);
    let maps = [
        IdMap { inside: 0, outside: 1, count: below },
        IdMap { inside: kept, outside: 0, count: 1 },
        // An id inside is one higher than its place among the others, as the kept one is in between.
        IdMap { inside: kept.saturating_add(1), outside: below + 1, count: others - below },
    ];
    maps.into_iter().filter(|map| map.count > 0).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn maps(list: &[(u32, u32, u32)]) -> Vec<IdMap> {
        list.iter().map(|&(inside, outside, count)| IdMap { inside, outside, count }).collect()
    }

    #[test]
    fn the_callers_id_is_kept() {
        assert_eq!(keeping(1001, 65_536), maps(&[(0, 1, 1001), (1001, 0, 1), (1002, 1002, 64_535)]));
        assert_eq!(keeping(0, 10), maps(&[(0, 0, 1), (1, 1, 10)]));
        assert_eq!(keeping(10, 10), maps(&[(0, 1, 10), (10, 0, 1)]));
        // Beyond the ranges: as an LDAP server gives them.
        assert_eq!(keeping(200_000, 65_536), maps(&[(0, 1, 65_536), (200_000, 0, 1)]));
        assert_eq!(keeping(1002, 0), maps(&[(1002, 0, 1)]));
    }

    #[test]
    fn what_the_kernel_would_refuse() {
        let all = [0..1, 1..65_537];
        let wrong = |list: &[(u32, u32, u32)]| check(&maps(list), &all).unwrap_err();
        assert_eq!(wrong(&[]), MapError::Empty);
        assert_eq!(wrong(&[(0, 0, 0)]), MapError::Range(0, 0, 0));
        assert_eq!(wrong(&[(u32::MAX, 0, 1)]), MapError::Range(u32::MAX, 0, 1));
        assert_eq!(wrong(&[(0, 1, 10), (9, 100, 1)]), MapError::Twice { side: "inside", id: 9 });
        assert_eq!(wrong(&[(0, 1, 10), (10, 10, 1)]), MapError::Twice { side: "outside", id: 10 });
        assert_eq!(wrong(&[(0, 65_536, 2)]), MapError::NotYours(65_536..65_538));
        let many: Vec<_> = (0..341).map(|id| (id, id, 1)).collect();
        assert_eq!(wrong(&many), MapError::TooMany);
        assert_eq!(check(&maps(&[(5, 0, 1), (0, 1, 5), (6, 6, 65_531)]), &all), Ok(()));
        // Two ranges that lie side by side are one.
        assert_eq!(check(&maps(&[(0, 5, 10)]), &[10..20, 0..10]), Ok(()));
    }

    #[test]
    fn who_sets_a_container_up() {
        let ids = |uids: &[(u32, u32, u32)]| OwnIds { uids: maps(uids), gids: maps(&[(0, 0, 1)]) };
        assert_eq!(ids(&[(5, 0, 1), (0, 1, 5)]).first(), (0, 0));
        assert_eq!(ids(&[(5, 0, 1)]).first(), (5, 0));
        assert_eq!(ids(&[(5, 0, 1), (0, 1, 5)]).first_outside(), (1, 0));
        assert_eq!(ids(&[(5, 7, 2)]).first_outside(), (7, 0));
        assert!(ids(&[(5, 7, 2)]).contain((8, 0)) && !ids(&[(5, 7, 2)]).contain((5, 0)));
        assert!(!ids(&[(5, 0, 1)]).are_many());
        assert!(ids(&[(5, 0, 2)]).are_many() && ids(&[(5, 1, 1)]).are_many());
        let map = "         0       1001          1\n         1     100000      65536\n";
        assert_eq!(inside(map), [0..1, 1..65537]);
        assert_eq!(inside("0 0 4294967295\n").first(), Some(&(0..u32::MAX)));
    }

    #[test]
    fn a_part_lies_in_one_range() {
        let pieces = [0..1, 1..601, 601..1601];
        let parts = split(&maps(&[(0, 0, 700), (5000, 800, 10)]), &pieces);
        assert_eq!(parts, maps(&[(0, 0, 1), (1, 1, 600), (601, 601, 99), (5000, 800, 10)]));
        assert_eq!(split(&maps(&[(u32::MAX - 1, 600, 1)]), &pieces), maps(&[(u32::MAX - 1, 600, 1)]));
    }

    fn outer(maps: &[IdMap]) -> u64 {
        maps.iter().map(|map| u64::from(map.count)).sum()
    }

    proptest! {
        #[test]
        fn a_kept_id_is_the_caller_and_nothing_is_lost(kept in 0..u32::MAX - 1, others in 0..200_000_u32) {
            let maps = keeping(kept, others);
            // The kernel would take it: disjoint, and all of it ours.
            prop_assert_eq!(check(&maps, &[0..1, 1..others + 1]), Ok(()));
            prop_assert_eq!(outer(&maps), u64::from(others) + 1);
            let inner = maps.iter().find(|map| map.inner().contains(&kept)).unwrap();
            prop_assert_eq!(inner.outside + (kept - inner.inside), 0);
            // However many ranges the others come from.
            let (half, all) = (others / 2 + 1, others + 1);
            let parts = split(&maps, &[0..1, 1..half, half..all]);
            prop_assert_eq!(outer(&parts), u64::from(all));
            prop_assert_eq!(check(&parts, &[0..1, 1..half, half..all]), Ok(()));
            prop_assert!(parts.iter().all(|part| !(part.outer().contains(&(half - 1)) && part.outer().contains(&half))));
        }

        #[test]
        fn two_of_a_kind_share_nothing(
            starts in proptest::collection::vec((0..5000_u32, 1..3000_u32), 1..5),
            sizes in proptest::collection::vec(1..2000_u32, 1..6),
        ) {
            let available: Vec<_> = starts.iter().map(|&(first, count)| first..first + count).collect();
            let mut taken: Vec<Range<u32>> = Vec::new();
            for size in sizes {
                let left: u32 = free(&available, &taken).iter().map(|range| range.end - range.start).sum();
                let Some(maps) = take(&free(&available, &taken), size) else {
                    prop_assert!(left < size);
                    continue;
                };
                prop_assert_eq!(check(&maps, &available), Ok(()));
                prop_assert_eq!(outer(&maps), u64::from(size));
                for map in &maps {
                    prop_assert!(taken.iter().all(|other| other.end <= map.outer().start || map.outer().end <= other.start));
                }
                taken.extend(maps.iter().map(IdMap::outer));
            }
        }
    }
}
