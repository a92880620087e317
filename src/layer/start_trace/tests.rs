//! Learning, and reading ahead.

use std::path::PathBuf;

use flate2::Compression;

use super::*;
use crate::layer::Layer as _;
use crate::layer::one_file::{OneFile, the_file};
use crate::model::EntryId;

const GRANULE: usize = 128 << 10;

fn touches(numbers: &[u64]) -> Vec<Touch> {
    numbers.iter().map(|granule| Touch { layer: 1, granule: *granule }).collect()
}

fn set(numbers: &[u64]) -> HashSet<Touch> {
    touches(numbers).into_iter().collect()
}

#[test]
fn what_is_written_is_read_and_nothing_else_is_believed() {
    let known = touches(&[7, 3, 9]);
    assert_eq!(text(&known), "layerfs start trace 1\n1 7\n1 3\n1 9\n");
    assert_eq!(parse(text(&known).as_bytes()), known);
    let damaged = b"layerfs start trace 1\n1 7\n1 7\nx\n\n1\n1 2 3\n-1 4\n1 99999999999999\n99999999999 1\n\xff 1\n1 3\n1 9";
    assert_eq!(parse(damaged), known);
    for other in [&b""[..], b"layerfs start trace 2\n1 7\n", b"\0\0", b"1 7\n"] {
        assert_eq!(parse(other), []);
    }
    let long: Vec<u64> = (0..3 * TOUCHES_MAX as u64).collect();
    assert_eq!(parse(text(&touches(&long)).as_bytes()).len(), TOUCHES_MAX);
}

#[test]
fn unreadable_files_are_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    for path in [dir.path(), &fifo, &dir.path().join("absent")] {
        assert_eq!(StartTrace::open(path).before, []);
    }
    let large = dir.path().join("large");
    std::fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(StartTrace::open(&large).before, []);
}

#[test]
fn what_is_news_is_merged() {
    let merge = |before: &[u64], noted: &[u64]| merged(&touches(before), touches(noted), &set(noted));
    assert_eq!(merge(&[], &[]), None);
    assert_eq!(merge(&[1, 2], &[]), None, "a mount that nobody looked into");
    assert_eq!(merge(&[], &[2, 1]), Some(touches(&[2, 1])));
    assert_eq!(merge(&[1, 2], &[2, 1]), None);
    assert_eq!(merge(&[1, 2, 3], &[2, 1]), None, "all is covered");
    assert_eq!(merge(&[1, 2], &[2, 3]), Some(touches(&[2, 3, 1])));
    assert_eq!(merge(&[1, 2, 3, 4, 5], &[4, 3]), None, "a glance at what is known");
    assert_eq!(
        merge(&[1, 2, 3, 4, 5], &[9, 2]),
        Some(touches(&[1, 2, 3, 4, 5, 9])),
        "a glance at something else"
    );
    assert_eq!(merge(&[1, 2, 3, 4, 5], &[9, 2, 8]), Some(touches(&[9, 2, 8, 1, 3, 4])), "as much again");
    assert_eq!(merge(&[1, 2, 3, 4, 5], &[2, 1]), None);
}

/// A layer, and where its trace is.
struct World(OneFile);

impl World {
    fn new(granules: usize) -> Self {
        Self(OneFile::new(granules * GRANULE, Compression::new(6)))
    }

    fn trace(&self) -> PathBuf {
        self.0.dir.path().join("trace")
    }

    fn mount(&self, cache_bytes: u64) -> (Arc<StartTrace>, Arc<TarLayer>, EntryId) {
        let trace = StartTrace::open(&self.trace());
        let layer = self.0.open(cache_bytes).with_trace(&trace, 0);
        let file = the_file(&layer);
        (trace, layer, file)
    }
}

fn read_one(layer: &TarLayer, file: EntryId, granule: usize) {
    let mut bytes = [0; 100];
    layer.read_at(file, (granule * GRANULE) as u64, &mut bytes).unwrap();
}

fn decodes(layer: &TarLayer) -> u32 {
    layer.chunks.decodes.load(Ordering::Relaxed)
}

#[test]
fn a_start_is_read_ahead_as_the_one_before_touched_it() {
    let world = World::new(64);
    let (trace, layer, file) = world.mount(64 << 20);
    for granule in [40, 3, 41, 40, 20] {
        read_one(&layer, file, granule);
    }
    drop((trace, layer));
    assert_eq!(
        std::fs::read_to_string(world.trace()).unwrap(),
        "layerfs start trace 1\n0 40\n0 3\n0 41\n0 20\n"
    );

    let (trace, layer, file) = world.mount(64 << 20);
    let spans = trace.spans();
    assert_eq!(spans.iter().map(|(_, granules)| granules.len()).sum::<usize>(), 4);
    assert_eq!(spans[0].1[0], 40, "in the order of the first touch");
    read_ahead(&Arc::downgrade(&trace), Instant::now() + RECORD);
    let ahead = decodes(&layer);
    assert!(ahead >= 3);
    for granule in [40, 3, 41, 20] {
        read_one(&layer, file, granule);
    }
    assert_eq!(decodes(&layer), ahead, "all was there");
    // What was read ahead and not asked for is no reason to read it ahead again.
    read_one(&layer, file, 60);
    drop((trace, layer));
    let text = std::fs::read_to_string(world.trace()).unwrap();
    assert_eq!(text, "layerfs start trace 1\n0 40\n0 3\n0 41\n0 20\n0 60\n");
}

#[test]
fn reading_ahead_leaves_the_cache_to_its_readers() {
    let world = World::new(64);
    let all: Vec<Touch> = (0..64).map(|granule| Touch { layer: 0, granule }).collect();
    let nonsense = [Touch { layer: 9, granule: 1 }, Touch { layer: 0, granule: 1 << 22 }];
    std::fs::write(world.trace(), text(&[&nonsense[..], &all].concat())).unwrap();
    let cache_bytes = 32 * GRANULE_BYTES;
    let (trace, layer, file) = world.mount(cache_bytes);
    read_ahead(&Arc::downgrade(&trace), Instant::now() + RECORD);
    let brought = decodes(&layer);
    // Whole spans, and never more than half.
    assert!((12..=16).contains(&brought), "{brought}");
    read_one(&layer, file, 0);
    assert_eq!(decodes(&layer), brought, "the first is still there");
}

#[test]
fn a_span_that_a_reader_decodes_is_left_to_it() {
    let world = World::new(8);
    let (_trace, layer, file) = world.mount(64 << 20);
    let span = layer.chunks.span(5).unwrap();
    let turn = layer.chunks.turns.take(span, || None::<()>);
    assert_eq!(layer.chunks.bring(5, true), Brought::Not);
    drop(turn);
    assert_eq!(layer.chunks.bring(5, true), Brought::Now);
    assert_eq!(layer.chunks.bring(5, true), Brought::Not, "it is there");
    assert_eq!(layer.chunks.bring(1 << 40, true), Brought::Not);
    read_one(&layer, file, 4);
}

#[test]
fn it_is_written_down_in_time() {
    let world = World::new(2);
    let (trace, layer, file) = world.mount(1 << 20);
    read_one(&layer, file, 0);
    trace.close();
    assert_eq!(parse(&std::fs::read(world.trace()).unwrap()), [Touch { layer: 0, granule: 0 }]);
    std::fs::remove_file(world.trace()).unwrap();
    read_one(&layer, file, 1);
    drop((trace, layer));
    assert!(!world.trace().exists(), "closed is closed");
}

#[test]
fn a_trace_that_is_used_is_young() {
    let world = World::new(2);
    std::fs::write(world.trace(), text(&touches(&[1]))).unwrap();
    let old = SystemTime::now() - Duration::from_secs(1_000_000);
    std::fs::File::open(world.trace()).unwrap().set_modified(old).unwrap();
    drop(world.mount(1 << 20));
    assert!(world.trace().metadata().unwrap().modified().unwrap() > old);
}
