//! Building indexes, and reading what files hold.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use layerfs::index::{self, Content, Expected, InodeNumber, LayerIndex};
use layerfs::layer::{ChunkCache, Layer as _, Spill, SpillDir, TarLayer};
use layerfs::model::EntryId;
use layerfs::sys::file_range::FileRange;

use super::Bench;
use super::made::{Random, open};

/// What the kernel asks for at least.
const READ_BYTES: usize = 4096;
/// What the kernel asks for at most, by default, and what is kept as one.
const GRANULE_BYTES: usize = 128 << 10;
/// What is read over and over from memory: more than the processor's second cache holds, far less than ours.
const CACHED_FILES: usize = 16;
/// How often, so that a round takes long enough to be measured.
const CACHED_TIMES: usize = 20;
/// Long enough for what is on its way to the spill.
const SPILL_PAUSE: Duration = Duration::from_millis(500);
const RANDOM_READS: u32 = 2000;

impl Bench {
    /// What everything else is held against.
    pub(crate) fn decoder(&self, blob: &Path) {
        self.measure("decoder alone", "MB/s of the tar", || {
            let start = Instant::now();
            let mut decoder = flate2::read::MultiGzDecoder::new(File::open(blob).unwrap());
            let (mut buffer, mut bytes) = (vec![0; GRANULE_BYTES], 0);
            while let count @ 1.. = decoder.read(&mut buffer).unwrap() {
                bytes += count;
            }
            (bytes as f64 / 1e6, start.elapsed())
        });
        self.measure("zcat", "MB/s of the tar", || {
            let start = Instant::now();
            let mut zcat = Command::new("zcat").arg(blob).stdout(Stdio::piped()).spawn().unwrap();
            let bytes = std::io::copy(&mut zcat.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
            assert!(zcat.wait().unwrap().success());
            (bytes as f64 / 1e6, start.elapsed())
        });
    }

    pub(crate) fn build(&self, name: &str, blob: &Path) {
        let blob = FileRange::open(blob).unwrap();
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        self.measure(&format!("index {name}"), "MB/s of the tar", || {
            let start = Instant::now();
            index::build(&blob, &Expected::default(), dir.path(), "index", &|_| {}).unwrap();
            let time = start.elapsed();
            (LayerIndex::open(&dir.path().join("index")).unwrap().tar_bytes() as f64 / 1e6, time)
        });
    }

    /// Each its own share of the files, from its first to its last byte.
    pub(crate) fn readers(&self, name: &str, blob: &Path) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for readers in [1, 4] {
            self.measure(&format!("read {name}, {readers} readers"), "MB/s", || {
                let layer = open(blob, dir.path());
                let files = files(&layer);
                let start = Instant::now();
                let share = files.iter().map(|file| size(&layer, *file)).sum::<u64>() / readers + 1;
                let mut before = 0;
                let shares = files.chunk_by(|file, _| {
                    let share_before = before / share;
                    before += size(&layer, *file);
                    before / share == share_before
                });
                let read =
                    |files: &[EntryId]| read_files(&layer, files, &mut vec![0; GRANULE_BYTES], &mut |_| {});
                let bytes: u64 = std::thread::scope(|scope| {
                    let threads: Vec<_> = shares.map(|files| scope.spawn(|| read(files))).collect();
                    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
                });
                (bytes as f64 / 1e6, start.elapsed())
            });
        }
    }

    pub(crate) fn reads(&self, name: &str, blob: &Path) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let names = ["sequential", "random"].map(|order| format!("read {name} {order}"));
        if !self.wants_any(&names) {
            return;
        }
        self.measure(&names[0], "MB/s", || read_all(&open(blob, dir.path()), &mut |_| {}));
        let (mut random, mut times) = (Random(7), Vec::new());
        let mut buffer = vec![0; READ_BYTES];
        self.measure(&names[1], "reads/s of 4 KiB", || {
            let layer = open(blob, dir.path());
            let large = |file: &EntryId| size(&layer, *file) >= READ_BYTES as u64;
            let files: Vec<EntryId> = files(&layer).into_iter().filter(large).collect();
            let start = Instant::now();
            for _ in 0..RANDOM_READS {
                let file = files[random.below(files.len())];
                let last = usize::try_from(size(&layer, file)).unwrap() - READ_BYTES;
                let offset = random.below(last + 1) as u64;
                let start = Instant::now();
                assert_eq!(layer.read_at(file, offset, &mut buffer).unwrap(), READ_BYTES);
                times.push(start.elapsed());
            }
            (f64::from(RANDOM_READS), start.elapsed())
        });
        times.sort();
        if let Some(last) = times.last() {
            let at = |part: usize| times[times.len() * part / 100];
            println!("    p50 {:?}, p90 {:?}, p99 {:?}, worst {last:?}", at(50), at(90), at(99));
        }
    }

    /// Content whose granules are all in memory, and beside it the same bytes copied from where they lie.
    pub(crate) fn cached(&self, blob: &Path) {
        let names = ["read cached, by 4 KiB", "read cached, by 128 KiB", "copy memory, by 128 KiB"];
        if !self.wants_any(&names.map(str::to_owned)) {
            return;
        }
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let layer = open(blob, dir.path());
        let files = &files(&layer)[..CACHED_FILES];
        let mut plain = Vec::new();
        read_files(&layer, files, &mut vec![0; GRANULE_BYTES], &mut |bytes| plain.extend_from_slice(bytes));
        for (name, bytes) in names.iter().zip([READ_BYTES, GRANULE_BYTES]) {
            let mut buffer = vec![0; bytes];
            self.measure(name, "MB/s", || {
                let start = Instant::now();
                let mut read = || read_files(&layer, files, &mut buffer, &mut |bytes| _ = black_box(bytes));
                let bytes: u64 = (0..CACHED_TIMES).map(|_| read()).sum();
                (bytes as f64 / 1e6, start.elapsed())
            });
        }
        let mut buffer = vec![0; GRANULE_BYTES];
        self.measure(names[2], "MB/s", || {
            let start = Instant::now();
            for part in (0..CACHED_TIMES).flat_map(|_| plain.chunks(GRANULE_BYTES)) {
                buffer[..part.len()].copy_from_slice(part);
                black_box(&mut buffer);
            }
            ((plain.len() * CACHED_TIMES) as f64 / 1e6, start.elapsed())
        });
    }

    /// From the spill, and the same bytes from a file of their own, through the same page cache.
    pub(crate) fn spill(&self, blob: &Path) {
        let names =
            ["plain file", "plain file, hashed", "spill"].map(|from| format!("read 128 KiB of {from}"));
        if !self.wants_any(&names) {
            return;
        }
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        drop(open(blob, dir.path()));
        // Decoded twice, and once more for what found the queue full.
        for _ in 0..3 {
            read_all(&spilled(blob, dir.path()), &mut |_| {});
            std::thread::sleep(SPILL_PAUSE);
        }
        let plain = dir.path().join("plain");
        let mut file = BufWriter::new(File::create(&plain).unwrap());
        read_all(&spilled(blob, dir.path()), &mut |bytes| file.write_all(bytes).unwrap());
        drop(file);
        let file = File::open(&plain).unwrap();
        self.measure(&names[0], "MB/s", || read_file(&file, &mut |bytes| _ = black_box(bytes[0])));
        self.measure(&names[1], "MB/s", || read_file(&file, &mut |bytes| _ = black_box(blake3::hash(bytes))));
        self.measure(&names[2], "MB/s", || {
            let layer = spilled(blob, dir.path());
            read_all(&layer, &mut |bytes| _ = black_box(bytes[0]))
        });
    }
}

/// A layer with what earlier ones have left in its spill, and memory for what is read just now.
fn spilled(blob: &Path, dir: &Path) -> TarLayer {
    let spill = Spill::open(&SpillDir { path: dir.to_owned(), bytes_max: Some(1 << 30) }).unwrap();
    spill.start();
    let index = Arc::new(LayerIndex::open(&dir.join("index")).unwrap());
    let (blob, cache) = (FileRange::open(blob).unwrap(), Arc::new(ChunkCache::new(16 << 20)));
    TarLayer::new(index, blob, cache).with_spill(&spill)
}

fn read_all(layer: &TarLayer, each: &mut dyn FnMut(&[u8])) -> (f64, Duration) {
    let files = files(layer);
    let start = Instant::now();
    let bytes = read_files(layer, &files, &mut vec![0; GRANULE_BYTES], each);
    (bytes as f64 / 1e6, start.elapsed())
}

/// By as much as `buffer` holds.
fn read_files(layer: &TarLayer, files: &[EntryId], buffer: &mut [u8], each: &mut dyn FnMut(&[u8])) -> u64 {
    let mut bytes = 0;
    for file in files {
        let mut offset = 0;
        while let count @ 1.. = layer.read_at(*file, offset, buffer).unwrap() {
            each(&buffer[..count]);
            offset += count as u64;
        }
        bytes += offset;
    }
    bytes
}

fn read_file(file: &File, each: &mut dyn FnMut(&[u8])) -> (f64, Duration) {
    let mut buffer = vec![0; GRANULE_BYTES];
    let start = Instant::now();
    let mut offset = 0;
    while let count @ 1.. = file.read_at(&mut buffer, offset).unwrap() {
        each(&buffer[..count]);
        offset += count as u64;
    }
    (offset as f64 / 1e6, start.elapsed())
}

fn size(layer: &TarLayer, id: EntryId) -> u64 {
    layer.entry(id).unwrap().metadata.size
}

/// All regular files, in the order of the tar.
fn files(layer: &TarLayer) -> Vec<EntryId> {
    let place = |id: u32| match layer.index().inode(InodeNumber(id)).unwrap().content {
        Content::Contiguous(place) => Some((place, EntryId(id.into()))),
        _ => None,
    };
    let count = u32::try_from(layer.index().inode_count()).unwrap();
    let mut files: Vec<_> = (0..count).filter_map(place).collect();
    files.sort();
    files.into_iter().map(|(_, id)| id).collect()
}
