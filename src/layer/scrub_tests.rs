//! What a scrub tells of damaged blobs: where bytes are wrong and where there are none, and which files that hits.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::encoding_tests::through;
use super::scrub::{Damage, Hit, PathsMax};
use super::tar_tests::{Maker, gzip, noise, open};
use super::{ChunkCache, TarLayer};
use crate::index::{GRANULE_BYTES, LayerIndex};
use crate::model::TarOffset;
use crate::sys::file_range::FileRange;

/// Bytes that nothing compresses, so that compressors store them as they are.
fn dense(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state >> 56).unwrap()
    };
    (0..len).map(step).collect()
}

const FILES: usize = 12;
const FILE_BYTES: usize = 600_000;

/// Files of 600 kB, which lie 600,064 + 512 bytes apart.
fn tar(content: fn(usize, u64) -> Vec<u8>) -> Vec<u8> {
    let add = |maker: Maker, number: usize| {
        maker.add(b'0', &format!("f{number:02}"), "", &content(FILE_BYTES, number as u64 + 1))
    };
    (0..FILES).fold(Maker::default(), add).end()
}

/// The file that has content at a place of that tar.
fn file_at(place: u64) -> Vec<u8> {
    format!("f{:02}", place / (512 + 600_064)).into_bytes()
}

/// The layer with the blob that was damaged after its index was made.
fn damaged(dir: &Path, blob: &[u8], damage: impl FnOnce(&mut Vec<u8>)) -> TarLayer {
    drop(open(dir, blob).unwrap());
    let mut bad = blob.to_vec();
    damage(&mut bad);
    std::fs::write(dir.join("bad"), &bad).unwrap();
    let range = FileRange::open(&dir.join("bad")).unwrap();
    let index = Arc::new(LayerIndex::open(&dir.join("index")).unwrap());
    TarLayer::new(index, range, Arc::new(ChunkCache::new(0)))
}

/// What is wrong with each granule; the others must be those of the tar.
fn scrubbed(layer: &TarLayer, tar: &[u8]) -> Vec<Option<Damage>> {
    let mut told = Vec::new();
    layer.scrub(&mut |range, found| {
        assert_eq!(range.start, told.len() as u64 * GRANULE_BYTES);
        let right = &tar[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
        told.push(match found {
            Ok(bytes) => {
                assert!(bytes == right, "{range:?}");
                None
            }
            Err(damage) => Some(damage),
        });
    });
    assert_eq!(told.len(), tar.len().div_ceil(usize::try_from(GRANULE_BYTES).unwrap()));
    told
}

fn each(each: usize) -> PathsMax {
    PathsMax { each, together: 1000 }
}

fn granule(number: usize) -> Range<u64> {
    let start = number as u64 * GRANULE_BYTES;
    start..start + GRANULE_BYTES
}

#[test]
fn wrong_bytes_in_a_long_span_are_one_granule() {
    let tar = tar(dense);
    let dir = tempfile::tempdir().unwrap();
    for (name, blob) in
        [("zstd", zstd::bulk::compress(&tar, 1).unwrap()), ("stored", gzip(&tar, 0)), ("tar", tar.clone())]
    {
        let at = blob.len() * 3 / 5;
        let place = tar.windows(64).position(|window| window == &blob[at..at + 64]).unwrap();
        let layer = damaged(dir.path(), &blob, |bad| bad[at] ^= 0x10);
        let told = scrubbed(&layer, &tar);
        let hit = place / usize::try_from(GRANULE_BYTES).unwrap();
        for (number, damage) in told.iter().enumerate() {
            let expected = (number == hit).then_some(Damage::Differs);
            assert_eq!(*damage, expected, "{name}: granule {number}, {hit} was hit");
        }
        let mut files = vec![file_at(granule(hit).start), file_at(granule(hit).end - 1)];
        files.dedup();
        let found = layer.files_in(&[granule(hit)], each(5)).unwrap();
        assert_eq!(found, [Hit { count: files.len() as u64, paths: files }], "{name}");
    }
}

#[test]
fn behind_a_cut_there_is_nothing() {
    let tar = tar(noise);
    let dir = tempfile::tempdir().unwrap();
    for (name, blob) in
        [("zstd", zstd::bulk::compress(&tar, 1).unwrap()), ("gzip", gzip(&tar, 1)), ("tar", tar.clone())]
    {
        let layer = damaged(dir.path(), &blob, |_| {});
        assert!(scrubbed(&layer, &tar).iter().all(Option::is_none), "{name}");
        let half = blob.len() as u64 / 2;
        std::fs::File::options().write(true).open(dir.path().join("bad")).unwrap().set_len(half).unwrap();
        let told = scrubbed(&layer, &tar);
        let first = told.iter().position(Option::is_some).unwrap();
        let about = told.len() / 2;
        assert!((about - 8..about + 8).contains(&first), "{name}: {first} of {}", told.len());
        for damage in &told[first..] {
            assert!(
                matches!(damage, Some(Damage::Undecodable(why)) if why.contains("shorter")),
                "{damage:?}"
            );
        }
    }
}

#[test]
fn damage_ends_at_the_next_checkpoint() {
    let tar = tar(noise);
    let dir = tempfile::tempdir().unwrap();
    let members: Vec<u8> = tar.chunks(700_000).flat_map(|part| gzip(part, 6)).collect();
    let frames: Vec<u8> =
        tar.chunks(700_000).flat_map(|part| zstd::bulk::compress(part, 3).unwrap()).collect();
    for (name, blob) in [("gzip", gzip(&tar, 6)), ("members", members), ("frames", frames)] {
        for part in [1, 2, 3, 4] {
            let at = blob.len() / 5 * part;
            let layer = damaged(dir.path(), &blob, |bad| bad[at..at + 40].fill(0xff));
            let told = scrubbed(&layer, &tar);
            let hit: Vec<usize> = told
                .iter()
                .enumerate()
                .filter_map(|(number, damage)| damage.as_ref().map(|_| number))
                .collect();
            let (first, last) = (hit[0], hit[hit.len() - 1]);
            // The span that is hit has 512 to 700 kB, and may begin and end within a granule.
            assert!(last - first < 7, "{name} {part}: {hit:?} of {}", told.len());
            // Only granules that have something of the damaged span, of which the last begins in it.
            let span = layer.index().checkpoint(TarOffset(granule(last).start)).unwrap().unwrap();
            assert!(granule(first).end > span.place.0, "{name} {part}: {hit:?}, {span:?}");
        }
    }
}

#[test]
fn every_name_of_what_is_hit_is_counted() {
    let names = 50;
    let mut maker = Maker::default().add(b'0', "big", "", &noise(700_000, 1));
    for number in 1..names {
        maker = maker.add(b'1', &format!("d/link{number:02}"), "big", b"");
    }
    let tar = maker.add(b'0', "other", "", &noise(300_000, 2)).file("empty", "").file("z/small", "x").end();
    let dir = tempfile::tempdir().unwrap();
    let layer = damaged(dir.path(), &tar, |_| {});
    let end = tar.len() as u64;
    let all = [0..1, 512..600, 300_000..300_001, 700_000..800_000, end - 1..end];
    let hits = layer.files_in(&all, each(4)).unwrap();
    let found: Vec<(u64, Vec<String>)> = hits
        .into_iter()
        .map(|hit| (hit.count, hit.paths.into_iter().map(|path| String::from_utf8(path).unwrap()).collect()))
        .collect();
    let some = ["big", "d/link01", "d/link02", "d/link03"].map(str::to_owned).to_vec();
    let with_other = (51, some.clone());
    let expected = [(0, vec![]), (50, some.clone()), (50, some.clone()), with_other, (0, vec![])];
    assert_eq!(found, expected);
    let everything = layer.files_in(std::slice::from_ref(&(0..end)), each(1000)).unwrap();
    assert_eq!((everything[0].count, everything[0].paths.len()), (52, 52));
    // All of them together have a limit, and are still counted.
    let few = layer.files_in(&all, PathsMax { each: 4, together: 6 }).unwrap();
    assert_eq!(few.iter().map(|hit| hit.paths.len()).sum::<usize>(), 6);
    assert!(few.iter().zip(&expected).all(|(hit, (count, _))| hit.count == *count));
}

#[test]
fn what_is_wrong_on_the_way_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let tar = tar(dense);
    let granule_bytes = usize::try_from(GRANULE_BYTES).unwrap();
    // Stored, so that what is changed can still be decoded.
    let layer = damaged(dir.path(), &gzip(&tar, 0), |blob| blob[granule_bytes * 3 / 2] ^= 1);
    let mut bytes = [0; 1000];
    for granule in [3, 2, 0] {
        layer.chunks().read(TarOffset(granule as u64 * GRANULE_BYTES), &mut bytes).unwrap();
        assert!(bytes == tar[granule * granule_bytes..granule * granule_bytes + 1000]);
    }
    assert!(layer.chunks().read(TarOffset(GRANULE_BYTES), &mut bytes).is_err());
}

#[test]
fn wrong_bytes_are_not_decoded_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let tar = tar(dense);
    let granule_bytes = usize::try_from(GRANULE_BYTES).unwrap();
    // One stored frame, so one span: what is changed can still be decoded.
    let zstd = through("zstd -1 --no-check", &tar);
    let layer = damaged(dir.path(), &zstd, |blob| {
        blob.iter_mut().skip(300_000).step_by(4000).for_each(|byte| *byte ^= 1)
    });
    let granules = tar.len() / granule_bytes;
    let mut wrong = 0;
    for granule in 0..granules as u64 {
        let read = layer.chunks().read(TarOffset(granule * GRANULE_BYTES), &mut [0; 1000]);
        wrong += u64::from(read.is_err());
    }
    assert!(wrong > 40, "{wrong}");
    let counts = layer.chunks().counts();
    assert!(counts.mismatches.get() <= wrong + 16, "{}", counts.mismatches.get());
    assert!(counts.decoded_bytes.get() < 8 * tar.len() as u64, "{}", counts.decoded_bytes.get());
}
