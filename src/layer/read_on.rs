//! Decoding goes on while a reader is busy with what it has: one thread keeps ahead of who reads a layer front to back.
//!
//! That somebody does is told by a suspended decoder that stands exactly where a granule is missing; of what lies in a plain
//! blob or the spill as it is, by the granule before being the last that was read. Then the next [`WINDOW`] granules are
//! brought, as a reader would, turn and all: who catches up waits for them. The first of them is
//! marked in the cache, and who finds the mark has the next window decoded, as the kernel reads ahead in files
//! (mm/readahead.c, `PG_readahead`). Files do not matter: their contents lie one behind the other in a layer, so a tree of
//! small files is read ahead too, which the kernel cannot do.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, Weak};

use super::TarLayer;
use super::chunk_reader::{ChunkReader, Failure, guarded};
use crate::index::GRANULE_BYTES;

/// What is decoded on the way to a window at most: somebody may have gone elsewhere with the decoder that stood there.
const DETOUR_BYTES: u64 = 4 * GRANULE_BYTES;
/// Granules decoded at once, as long as a span of gzip. At most twice as many are ahead of a reader: when it stops, they
/// were 2 ms of work for nothing.
pub(super) const WINDOW: u64 = 4;
/// Windows that are asked for while one is decoded. What finds no room is decoded when it is read.
const QUEUE_LEN: usize = 8;

/// Keeps ahead of the readers of several layers, once it was started.
#[derive(Debug, Default)]
pub struct ReadOn {
    queue: OnceLock<SyncSender<Wanted>>,
}

/// A window of a layer, by its first granule.
#[derive(Debug)]
struct Wanted {
    layer: Weak<TarLayer>,
    first: u64,
}

/// One layer's way to ask for what comes next.
#[derive(Debug)]
pub(super) struct Follower {
    read_on: Arc<ReadOn>,
    layer: Weak<TarLayer>,
}

impl ReadOn {
    /// Lets it work, in a thread of its own: to be called when this process will not fork any more.
    pub fn start(&self) {
        let (sender, receiver) = sync_channel(QUEUE_LEN);
        if self.queue.set(sender).is_err() {
            return;
        }
        let thread = std::thread::Builder::new().name("read-on".to_owned());
        if let Err(error) = thread.spawn(move || work(&receiver)) {
            tracing::debug!("start a thread: {error}");
        }
    }
}

impl Follower {
    pub(super) fn new(read_on: &Arc<ReadOn>, layer: &Arc<TarLayer>) -> Self {
        Self { read_on: Arc::clone(read_on), layer: Arc::downgrade(layer) }
    }

    /// Somebody will read from granule `first` on.
    pub(super) fn ask(&self, first: u64) {
        if let Some(queue) = self.read_on.queue.get() {
            // Full, or nobody works: then whoever reads it decodes it.
            queue.try_send(Wanted { layer: Weak::clone(&self.layer), first }).ok();
        }
    }
}

/// Does what is asked for until nobody is left who could ask. It keeps no layer alive but the one that it decodes.
fn work(queue: &Receiver<Wanted>) {
    for Wanted { layer, first } in queue {
        if let Some(layer) = layer.upgrade() {
            layer.chunks().read_on(first);
        }
    }
}

impl ChunkReader {
    /// Brings a window into the cache. What is damaged is told to who asks for it.
    fn read_on(&self, first: u64) {
        let granules = first..first.saturating_add(WINDOW).min(self.granules());
        guarded(|| if self.is_plain() { self.read_window(granules) } else { self.decode_window(granules) })
            .ok();
    }

    fn read_window(&self, granules: Range<u64>) -> Result<(), Failure> {
        let first = granules.start;
        for granule in granules {
            if !self.has(granule) {
                self.read_plain(granule)?;
                self.counts().ahead.add(1);
            }
            if granule == first {
                self.mark(granule);
            }
        }
        Ok(())
    }

    /// Those who wait for a granule of a span wait for all of the window in it, which wakes them once and not for each.
    fn decode_window(&self, granules: Range<u64>) -> Result<(), Failure> {
        let mut granule = granules.start;
        while granule < granules.end {
            let checkpoint = self.checkpoint(granule)?;
            // Who is on a long way there comes to where this window begins by itself.
            if checkpoint.is_long() && self.turns.is_busy(checkpoint.number) {
                return Ok(());
            }
            let _turn = self.turns.take(checkpoint.number, || None::<()>);
            while granule < granules.end && self.span(granule) == Some(checkpoint.number) {
                if !self.has(granule) {
                    if self.read_spilled(granule).is_none() {
                        if !self.is_near(&checkpoint, granule, DETOUR_BYTES) {
                            return Ok(());
                        }
                        self.decode_in_passing(&checkpoint, granule)?;
                    }
                    self.counts().ahead.add(1);
                }
                if granule == granules.start {
                    self.mark(granule);
                }
                granule += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::encoding_tests::{tar_of, through};
    use super::super::tar_tests::{id, noise};
    use super::super::{ChunkCache, Layer as _};
    use super::*;
    use crate::index::{self, Expected, LayerIndex};
    use crate::sys::file_range::FileRange;

    const GRANULES: u64 = 40;

    struct World {
        _dir: tempfile::TempDir,
        layer: Arc<TarLayer>,
        read_on: Arc<ReadOn>,
        data: Vec<u8>,
    }

    impl World {
        /// A layer of about [`GRANULES`], in a cache of so many.
        fn new(command: &str, cached: u64) -> Self {
            let data = noise(usize::try_from(GRANULES * GRANULE_BYTES).unwrap(), 5);
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("blob"), through(command, &tar_of(&data))).unwrap();
            let blob = FileRange::open(&dir.path().join("blob")).unwrap();
            index::build(&blob, &Expected::default(), dir.path(), "index", &|_| {}).unwrap();
            let index = Arc::new(LayerIndex::open(&dir.path().join("index")).unwrap());
            let layer =
                Arc::new(TarLayer::new(index, blob, Arc::new(ChunkCache::new(cached * GRANULE_BYTES))));
            let read_on = Arc::new(ReadOn::default());
            layer.read_on_by(&read_on);
            Self { _dir: dir, layer, read_on, data }
        }

        fn started(command: &str) -> Self {
            let world = Self::new(command, 1000);
            world.read_on.start();
            world
        }

        /// What is asked for, which nobody does.
        fn asked(&self) -> Receiver<Wanted> {
            let (sender, receiver) = sync_channel(QUEUE_LEN);
            self.read_on.queue.set(sender).unwrap();
            receiver
        }

        fn read(&self, granule: u64) {
            let offset = granule * GRANULE_BYTES;
            let mut bytes = [0; 100];
            self.layer.read_at(id(&self.layer, "big"), offset, &mut bytes).unwrap();
            let at = usize::try_from(offset).unwrap();
            assert!(bytes == self.data[at..at + 100], "granule {granule}");
        }

        fn ahead(&self) -> u64 {
            self.layer.chunks().counts().ahead.get()
        }

        /// Waits for so many granules to be decoded ahead.
        fn wait_for(&self, count: u64) {
            let since = Instant::now();
            while self.ahead() < count {
                assert!(since.elapsed() < Duration::from_secs(60), "{} of {count}", self.ahead());
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn who_reads_on_finds_what_comes_next() {
        for command in ["gzip -6", "zstd -1", "xz -0", "bzip2 -1", "cat"] {
            let world = World::started(command);
            world.read(0);
            assert_eq!(world.ahead(), 0, "{command}");
            world.read(1);
            world.wait_for(WINDOW);
            world.read(2);
            world.wait_for(2 * WINDOW);
            // Between the marks nothing more is asked for.
            world.read(3);
            world.read(4);
            world.read(5);
            assert_eq!(world.ahead(), 2 * WINDOW, "{command}");
            world.read(6);
            world.wait_for(3 * WINDOW);
            (7..GRANULES).for_each(|granule| world.read(granule));
            let decoded = world.layer.chunks().counts().decoded_bytes.get();
            assert!(decoded <= world.layer.index().tar_bytes(), "{command}: nothing twice");
        }
    }

    #[test]
    fn who_jumps_about_does_not() {
        for command in ["gzip -6", "cat"] {
            let world = World::new(command, 1000);
            let asked = world.asked();
            for granule in [30, 3, 20, 11, 37, 7, 25, 15] {
                world.read(granule);
            }
            assert!(asked.try_recv().is_err(), "{command}");
            world.read(16);
            assert_eq!(asked.try_recv().unwrap().first, 17, "{command}");
        }
    }

    #[test]
    fn a_cache_that_could_not_hold_it_is_left_alone() {
        let world = World::new("gzip -6", 2 * WINDOW);
        let asked = world.asked();
        (0..GRANULES).for_each(|granule| world.read(granule));
        assert!(asked.try_recv().is_err());
    }

    #[test]
    fn nothing_is_begun_far_behind() {
        let world = World::new("zstd -1", 1000);
        let chunks = world.layer.chunks();
        world.read(20);
        // The decoder that stood behind it has gone.
        chunks.forget_suspended();
        let resumed = || chunks.counts().decodes_resumed.get();
        assert_eq!(resumed(), 1);
        chunks.read_on(21);
        assert!(!chunks.has(21));
        assert_eq!(resumed(), 1);
        world.read(21);
        chunks.read_on(22 + WINDOW);
        assert!(chunks.has(22 + WINDOW), "a decoder stands near");
        assert_eq!(resumed(), 2);
    }

    #[test]
    fn what_is_damaged_ends_it() {
        for command in ["gzip -6", "zstd -1", "cat"] {
            let world = World::new(command, 1000);
            let chunks = world.layer.chunks();
            let blob = chunks.blob().path().to_owned();
            let mut bytes = std::fs::read(&blob).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x55;
            std::fs::write(&blob, bytes).unwrap();
            world.read_on.start();
            let size = GRANULES * GRANULE_BYTES;
            let mut failed = 0;
            for offset in (0..size).step_by(100_000) {
                let mut one = [0];
                match world.layer.read_at(id(&world.layer, "big"), offset, &mut one) {
                    Ok(_) => assert_eq!(one[0], world.data[usize::try_from(offset).unwrap()], "{command}"),
                    Err(_) => failed += 1,
                }
            }
            assert!(failed > 0 && failed < 40, "{command}: {failed} reads failed");
        }
    }

    #[test]
    fn the_thread_ends_with_the_last_layer() {
        let world = World::new("gzip -6", 1000);
        let (asked, gone) = (world.asked(), Arc::new(()));
        let (thread_has, layer) = (Arc::clone(&gone), Arc::downgrade(&world.layer));
        std::thread::spawn(move || {
            work(&asked);
            drop(thread_has);
        });
        (0..GRANULES).for_each(|granule| world.read(granule));
        drop(world);
        let since = Instant::now();
        while layer.upgrade().is_some() || Arc::strong_count(&gone) > 1 {
            assert!(since.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
