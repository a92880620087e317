//! Spill files that are read, evicted, damaged, cut off and deleted by several at a time: what a layer gives is right.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use flate2::Compression;
use proptest::prelude::*;
use rustix::io::Errno;

use super::*;
use crate::index::{self, Expected, GRANULE_BYTES, LayerIndex};
use crate::layer::one_file::{OneFile, the_file};
use crate::layer::read_on::WINDOW;
use crate::layer::{ChunkCache, Layer as _, ReadOn, TarLayer};
use crate::model::EntryId;
use crate::sys::fault::{self, Fault};
use crate::sys::file_range::FileRange;

const GRANULE: usize = 128 << 10;
/// More than the smallest that is not refused.
const LARGE: Option<u64> = Some(1 << 30);

fn open(path: &Path, bytes_max: Option<u64>) -> std::io::Result<Arc<Spill>> {
    Spill::open(&SpillDir { path: path.to_owned(), bytes_max })
}

/// A layer, and a spill directory.
struct World(OneFile);

impl World {
    fn new(granules: usize) -> Self {
        let world = Self(OneFile::new(granules * GRANULE - 3000, Compression::fast()));
        std::fs::create_dir(world.spill_dir()).unwrap();
        world
    }

    /// A mount of its own, as another process would have it: a small cache, and all decoded once again.
    fn mount(&self, cache: u64, bytes_max: Option<u64>) -> Mount {
        let spill = open(&self.spill_dir(), bytes_max).unwrap();
        spill.start();
        let layer = self.0.open(cache).with_spill(&spill);
        let file = the_file(&layer);
        Mount { layer, file }
    }

    fn spill_dir(&self) -> PathBuf {
        self.0.dir.path().join("spill")
    }

    fn spill_file(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.spill_dir()).unwrap().map(|entry| entry.unwrap());
        entries.filter(|entry| entry.file_name() != "lock").map(|entry| entry.path()).next()
    }

    fn opened(&self) -> File {
        File::options().read(true).write(true).open(self.spill_file().unwrap()).unwrap()
    }

    fn check(&self, mount: &Mount, granule: usize) {
        let offset = granule * GRANULE % self.0.content.len();
        let expected = &self.0.content[offset..(offset + 5000).min(self.0.content.len())];
        let mut bytes = vec![0; expected.len()];
        assert_eq!(mount.layer.read_at(mount.file, offset as u64, &mut bytes).unwrap(), expected.len());
        assert!(bytes == expected, "wrong bytes at {offset}");
    }

    fn check_all(&self, mount: &Mount) {
        let mut bytes = vec![0; self.0.content.len()];
        mount.layer.read_at(mount.file, 0, &mut bytes).unwrap();
        assert!(bytes == self.0.content, "wrong bytes");
        mount.settle();
    }

    /// Everything decoded twice, so that it is kept.
    fn filled(granules: usize) -> Self {
        let world = Self::new(granules);
        for _ in 0..2 {
            world.check_all(&world.mount(0, LARGE));
        }
        world
    }
}

struct Mount {
    layer: TarLayer,
    file: EntryId,
}

impl Mount {
    /// Waits until nothing is on its way to the disk.
    fn settle(&self) {
        while Arc::strong_count(self.spill()) > 1 {
            std::thread::yield_now();
        }
    }

    fn spill(&self) -> &Arc<LayerSpill> {
        self.layer.chunks.spill.as_ref().unwrap()
    }

    fn decodes(&self) -> u32 {
        self.layer.chunks.decodes.load(Ordering::Relaxed)
    }
}

fn blocks(path: &Path) -> u64 {
    path.metadata().unwrap().blocks() * 512
}

/// What the spill has of a whole granule.
fn kept(spill: &LayerSpill, granule: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(GRANULE_BYTES).unwrap()];
    spill.get(granule, &mut bytes).then_some(bytes)
}

#[test]
fn what_is_decoded_twice_on_a_machine_is_decoded_no_more() {
    let world = World::new(20);
    let first = world.mount(64 << 20, LARGE);
    world.check_all(&first);
    assert!(first.decodes() > 0);
    assert!(blocks(&world.spill_file().unwrap()) < 1 << 16, "kept at the first time");
    let before = first.decodes();
    world.check_all(&first);
    assert_eq!(first.decodes(), before, "not in the cache");
    // Another process, and a third one: the second time, and never again.
    let second = world.mount(64 << 20, LARGE);
    world.check_all(&second);
    assert_eq!(second.decodes(), before);
    let bytes = world.0.content.len() as u64;
    assert!(blocks(&world.spill_file().unwrap()) >= bytes);
    let written = |mount: &Mount| mount.spill().spill.written().0;
    assert_eq!(written(&first), 0);
    assert!(written(&second) >= bytes);
    let third = world.mount(0, LARGE);
    world.check_all(&third);
    assert_eq!(third.decodes(), 0);
    assert_eq!(world.spill_file().unwrap().metadata().unwrap().mode() & 0o777, 0o600);
}

/// Who reads is there before who writes.
#[test]
fn nothing_is_forgotten_until_the_writer_is_there() {
    let world = World::new(20);
    world.check_all(&world.mount(64 << 20, LARGE));
    let spill = open(&world.spill_dir(), LARGE).unwrap();
    spill.open_queue();
    let layer = world.0.open(64 << 20).with_spill(&spill);
    let mount = Mount { file: the_file(&layer), layer };
    let mut bytes = vec![0; world.0.content.len()];
    mount.layer.read_at(mount.file, 0, &mut bytes).unwrap();
    assert_eq!(spill.written().0, 0);
    spill.start();
    mount.settle();
    assert!(spill.written().0 >= world.0.content.len() as u64);
}

#[test]
fn what_is_kept_is_read_ahead() {
    let world = World::filled(20);
    let Mount { layer, file } = world.mount(64 << 20, LARGE);
    let (layer, read_on) = (Arc::new(layer), Arc::new(ReadOn::default()));
    layer.read_on_by(&read_on);
    read_on.start();
    for granule in 0..20 {
        let mut bytes = [0; 1000];
        layer.read_at(file, (granule * GRANULE) as u64, &mut bytes).unwrap();
        assert!(bytes == world.0.content[granule * GRANULE..][..1000], "granule {granule}");
        let since = std::time::Instant::now();
        while granule == 1 && layer.chunks.counts().ahead.get() < WINDOW {
            assert!(since.elapsed().as_secs() < 60, "nothing is read ahead");
            std::thread::yield_now();
        }
    }
    assert_eq!(layer.chunks.decodes.load(Ordering::Relaxed), 0);
}

#[test]
fn what_lies_far_behind_is_kept_at_once() {
    let world = World::new(4);
    let mount = world.mount(0, LARGE);
    let bytes = Arc::new(vec![7; GRANULE]);
    mount.spill().decoded(0, &bytes, FAR_BYTES);
    mount.spill().decoded(1, &bytes, FAR_BYTES + 1);
    mount.settle();
    assert_eq!(kept(mount.spill(), 0), None);
    assert_eq!(kept(mount.spill(), 1).unwrap(), *bytes);
}

#[test]
fn a_plain_tar_needs_no_second_place() {
    let world = World::new(2);
    let tar = world.0.dir.path().join("tar");
    let mut tar = tar::Builder::new(File::create(&tar).unwrap());
    tar.append_path_with_name(world.0.dir.path().join("blob"), "file").unwrap();
    tar.finish().unwrap();
    let blob = FileRange::open(&world.0.dir.path().join("tar")).unwrap();
    index::build(&blob, &Expected::default(), world.0.dir.path(), "plain", &|_| {}).unwrap();
    let index = Arc::new(LayerIndex::open(&world.0.dir.path().join("plain")).unwrap());
    let spill = open(&world.spill_dir(), LARGE).unwrap();
    let layer = TarLayer::new(index, blob, Arc::new(ChunkCache::new(0))).with_spill(&spill);
    assert!(layer.chunks.spill.is_none());
}

#[test]
fn a_flipped_byte_is_never_served() {
    let world = World::filled(9);
    let file = world.opened();
    let len = file.metadata().unwrap().len();
    let map = len - 64 - 9;
    let mut places: Vec<u64> = (map..len).collect();
    places.extend((0..9).map(|granule| granule * GRANULE_BYTES + 17 * (granule + 1)));
    places.extend([0, map - 1]);
    let intact = std::fs::read(world.spill_file().unwrap()).unwrap();
    for place in places {
        for bit in [1, 2, 128] {
            let file = world.opened();
            file.set_len(0).unwrap();
            file.write_all_at(&intact, 0).unwrap();
            let byte = intact[usize::try_from(place).unwrap()] ^ bit;
            file.write_all_at(&[byte], place).unwrap();
            let mount = world.mount(0, LARGE);
            world.check_all(&mount);
            // In the tar's padding, or a map byte that still says that the granule is here, nothing shows.
            if place < world.0.content.len() as u64 {
                assert!(mount.decodes() > 0, "byte {place} was not looked at");
                let granule = place / GRANULE_BYTES;
                let mut state = [9];
                file.read_exact_at(&mut state, map + granule).unwrap();
                assert_eq!(state, [State::Seen as u8], "the wrong one was dropped, and decoded once");
            }
        }
    }
}

#[test]
fn deleted_cut_off_and_replaced_under_a_mount() {
    let world = World::filled(9);
    let path = world.spill_file().unwrap();
    let damages: [fn(&Path); 6] = [
        |path| std::fs::remove_file(path).unwrap(),
        |path| File::options().write(true).open(path).unwrap().set_len(0).unwrap(),
        |path| File::options().write(true).open(path).unwrap().set_len(200_000).unwrap(),
        |path| File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap(),
        |path| std::fs::write(path, vec![2; 2 << 20]).unwrap(),
        |path| {
            std::fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
        },
    ];
    for (number, damage) in damages.iter().enumerate() {
        let mount = world.mount(0, LARGE);
        world.check_all(&mount);
        assert_eq!(mount.decodes(), 0);
        damage(&path);
        // What is decoded goes into a new file by and by, and the old one is not looked at for ever.
        for _ in 0..4 {
            world.check_all(&mount);
            world.check_all(&world.mount(0, LARGE));
        }
        let fresh = world.mount(0, LARGE);
        world.check_all(&fresh);
        assert_eq!(fresh.decodes(), 0, "damage {number} was for good");
        assert!(blocks(&path) < 4 << 20);
    }
}

#[test]
fn without_its_directory_it_is_only_slower() {
    let world = World::filled(9);
    let mount = world.mount(0, LARGE);
    world.check_all(&mount);
    std::fs::remove_dir_all(world.spill_dir()).unwrap();
    world.check_all(&mount);
    let late = world.mount_without_dir();
    assert!(late.is_err());
}

impl World {
    fn mount_without_dir(&self) -> std::io::Result<Arc<Spill>> {
        open(&self.spill_dir(), LARGE)
    }
}

/// What the thread does, in this one.
fn take_in(
    layer: &Arc<LayerSpill>,
    granule: u64,
    bytes: &Arc<Vec<u8>>,
    budget: &mut Budget,
) -> Result<(), Errno> {
    Decoded { layer: Arc::clone(layer), granule, bytes: Arc::clone(bytes), at_once: true }.take_in(budget)
}

#[test]
fn every_call_may_fail() {
    let bytes = Arc::new(vec![7; GRANULE]);
    for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::OPNOTSUPP, Errno::IO] {
        let mut done = false;
        for at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let spill = open(dir.path(), None).unwrap();
            let layer = spill.layer(Digest::from_bytes([3; 32]), 10 * GRANULE_BYTES);
            fault::arm(Fault::Error(errno), at);
            let took = take_in(&layer, 4, &bytes, &mut Budget::new(None));
            let count = fault::calls().len();
            fault::disarm();
            let got = kept(&spill.layer(Digest::from_bytes([3; 32]), 10 * GRANULE_BYTES), 4);
            match took {
                Ok(()) => assert_eq!(got.as_ref(), Some(&*bytes), "{errno} at {at}"),
                Err(_) => assert_eq!(got, None, "{errno} at {at}"),
            }
            if usize::try_from(at).unwrap() >= count {
                done = true;
                break;
            }
        }
        assert!(done);
    }
}

#[test]
fn the_first_error_ends_the_writing_and_nothing_else() {
    let world = World::filled(9);
    let mount = world.mount(0, LARGE);
    mount.spill().spill.stop(&"a test");
    world.check_all(&mount);
    assert_eq!(mount.decodes(), 0, "what is there is still read");
    std::fs::remove_file(world.spill_file().unwrap()).unwrap();
    let mount = world.mount(0, LARGE);
    mount.spill().spill.stop(&"a test");
    world.check_all(&mount);
    world.check_all(&mount);
    assert_eq!(world.spill_file(), None);
    // A budget in which nothing has room is no error.
    let mount = world.mount(0, Some(100));
    world.check_all(&mount);
    world.check_all(&mount);
    assert!(mount.spill().spill.is_stopped());
}

#[test]
fn stays_within_its_budget_and_keeps_what_was_used() {
    const LIMIT: u64 = 64 * GRANULE_BYTES;
    let dir = tempfile::tempdir().unwrap();
    let bytes = Arc::new(vec![7; GRANULE]);
    // Two processes with three layers of 64 granules each.
    let spills = [0, 1].map(|_| open(dir.path(), Some(LIMIT)).unwrap());
    let mut budgets = [0, 1].map(|_| Budget::new(Some(LIMIT)));
    let layers: Vec<_> = (0..3)
        .map(|layer| spills[layer % 2].layer(Digest::from_bytes([u8::try_from(layer).unwrap(); 32]), LIMIT))
        .collect();
    let total = || -> u64 {
        std::fs::read_dir(dir.path()).unwrap().map(|entry| blocks(&entry.unwrap().path())).sum()
    };
    let mut most = 0;
    for round in 0..64_u64 {
        for (number, layer) in layers.iter().enumerate() {
            take_in(layer, round, &bytes, &mut budgets[number % 2]).unwrap();
            // Asked for all the time.
            assert!(kept(&layers[0], 0).is_some(), "in round {round}");
            most = most.max(total());
        }
    }
    // Each writer looks every eighth of the budget.
    assert!(most <= LIMIT + LIMIT / 8, "{most}");
    assert!(most >= LIMIT * 3 / 4, "{most}");
    let kept = layers.iter().map(|layer| (0..64).filter(|granule| kept(layer, *granule).is_some()).count());
    assert!(kept.sum::<usize>() >= 40);
}

/// Who has the lock may be stopped for ever.
#[test]
fn nobody_waits_for_who_has_the_directory() {
    let world = World::new(40);
    let lock = File::create(world.spill_dir().join("lock")).unwrap();
    lock.lock().unwrap();
    for _ in 0..2 {
        world.check_all(&world.mount(0, LARGE));
    }
    assert_eq!(world.spill_file(), None);
    lock.unlock().unwrap();
    for _ in 0..2 {
        world.check_all(&world.mount(0, LARGE));
    }
    assert!(world.spill_file().is_some());
}

/// After a power cut: the content reached the disk, the map did not.
#[test]
fn what_the_map_does_not_know_makes_room_too() {
    let world = World::filled(40);
    let file = world.opened();
    let (tar_bytes, granules) = {
        let mount = world.mount(0, None);
        (mount.layer.index().tar_bytes(), mount.layer.index().tar_bytes().div_ceil(GRANULE_BYTES))
    };
    let map = vec![0; usize::try_from(granules).unwrap()];
    file.write_all_at(&map, tar_bytes.next_multiple_of(4096)).unwrap();
    let budget = 2 << 20;
    assert!(blocks(&world.spill_file().unwrap()) > budget);
    for _ in 0..2 {
        world.check_all(&world.mount(0, Some(budget)));
    }
    assert!(world.spill_file().is_none_or(|path| blocks(&path) <= budget));
}

#[test]
fn files_of_other_versions_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join(Digest::from_bytes([9; 32]).hex());
    std::fs::write(&old, vec![1; 4 << 20]).unwrap();
    std::fs::write(dir.path().join("README"), vec![1; 1 << 20]).unwrap();
    let spill = open(dir.path(), Some(2 << 20)).unwrap();
    let layer = spill.layer(Digest::from_bytes([1; 32]), 1 << 20);
    take_in(&layer, 0, &Arc::new(vec![7; GRANULE]), &mut Budget::new(Some(2 << 20))).unwrap();
    assert!(!old.exists());
    assert!(dir.path().join("README").exists());
}

#[test]
fn the_format_does_not_change_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let spill = open(dir.path(), LARGE).unwrap();
    let layer = spill.layer(Digest::from_bytes([0xab; 32]), GRANULE_BYTES + 5000);
    take_in(&layer, 1, &Arc::new(vec![7; 5000]), &mut Budget::new(LARGE)).unwrap();
    let bytes = std::fs::read(dir.path().join("ab".repeat(32))).unwrap();
    let mut expected = vec![0; GRANULE];
    expected.extend([7; 5000]);
    expected.resize(GRANULE + 8192, 0);
    expected.extend([0, 2]);
    expected.extend(b"layerspl\x01\0\0\0\0\0\x02\0");
    expected.extend([0xab; 32]);
    expected.extend((GRANULE_BYTES + 5000).to_le_bytes());
    expected.extend([0; 8]);
    assert!(bytes == expected);
}

#[test]
fn readers_of_one_span_decode_it_once() {
    let world = World::new(9);
    for _ in 0..20 {
        let mount = world.mount(64 << 20, LARGE);
        let barrier = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    world.check(&mount, 2);
                });
            }
        });
        assert!(mount.decodes() <= 1);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Read { by: usize, granule: usize },
    Settle(usize),
    Remount(usize),
    Flip { place: u16, bit: u8 },
    FlipMap { granule: u8, byte: u8 },
    Truncate(u16),
    Delete,
    Zeros { place: u16, len: u16 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..2_usize, 0..12_usize).prop_map(|(by, granule)| Step::Read { by, granule }),
        5 => (0..2_usize).prop_map(Step::Settle),
        2 => (0..2_usize).prop_map(Step::Remount),
        2 => (any::<u16>(), 0..8_u8).prop_map(|(place, bit)| Step::Flip { place, bit }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(granule, byte)| Step::FlipMap { granule, byte }),
        1 => any::<u16>().prop_map(Step::Truncate),
        1 => Just(Step::Delete),
        1 => (any::<u16>(), any::<u16>()).prop_map(|(place, len)| Step::Zeros { place, len }),
    ]
}

fn damage(world: &World, step: &Step) {
    let Some(path) = world.spill_file() else { return };
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    let at = |place: u16| len * u64::from(place) / 65536;
    match *step {
        Step::Flip { place, bit } if len > 0 => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at(place)).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << bit)], at(place)).unwrap();
        }
        Step::FlipMap { granule, byte } if len > 100 => {
            file.write_all_at(&[byte % 5], len - 65 - u64::from(granule % 12)).unwrap();
        }
        Step::Truncate(place) => file.set_len(at(place)).unwrap(),
        Step::Delete => std::fs::remove_file(&path).unwrap(),
        Step::Zeros { place, len } => file.write_all_at(&vec![0; usize::from(len)], at(place)).unwrap(),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_it_bytes_are_right(steps in prop::collection::vec(step(), 1..80), small in any::<bool>()) {
        let world = World::new(12);
        // The smallest budget has room for eight of the twelve granules.
        let bytes_max = if small { Some(8 * GRANULE_BYTES + 4096) } else { LARGE };
        let mount = || world.mount(0, bytes_max);
        let mut mounts = [mount(), mount()];
        for step in &steps {
            match *step {
                Step::Read { by, granule } => world.check(&mounts[by], granule),
                Step::Settle(by) => mounts[by].settle(),
                Step::Remount(by) => mounts[by] = mount(),
                _ => damage(&world, step),
            }
        }
        for mount in &mounts {
            world.check_all(mount);
            prop_assert!(!mount.spill().spill.is_stopped());
        }
    }
}

#[test]
fn a_queue_that_is_full_makes_nobody_wait() {
    let dir = tempfile::tempdir().unwrap();
    let spill = open(dir.path(), LARGE).unwrap();
    let (sender, receiver) = sync_channel(2);
    spill.queue.set(sender).unwrap();
    let layer = spill.layer(Digest::from_bytes([1; 32]), 1 << 20);
    for granule in 0..8 {
        layer.decoded(granule, &Arc::new(vec![7; GRANULE]), 0);
    }
    assert_eq!(receiver.try_iter().count(), 2);
    assert_eq!(spill.written(), (0, 6));
}
