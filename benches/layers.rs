//! How fast the data plane is without FUSE: building indexes, reading layers, walking unions. Prints medians.
//!
//! `cargo bench --bench layers [FILTER]`; under a minute in all. `LAYERFS_BENCH_LAYER=layer.tar.gz` measures that layer
//! instead of made-up ones, beside zcat(1) and the decoder alone.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for developers: it fails by panicking"
)]

use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Read as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::{Compression, write::GzEncoder};
use layerfs::index::{self, Content, Expected, InodeNumber, LayerIndex};
use layerfs::layer::{ChunkCache, Layer, Spill, SpillDir, TarLayer};
use layerfs::model::{EntryId, Name};
use layerfs::sys::file_range::FileRange;
use layerfs::union::{Lower, LowerDir, Union};

/// Files of the generated layer, and the bytes of each: 200 MB in all, as a large layer of a real image.
const FILES: usize = 200;
const FILE_BYTES: usize = 1_000_000;
/// What the kernel asks for at least.
const READ_BYTES: usize = 4096;
/// What the kernel asks for at most, by default, and what is kept as one.
const GRANULE_BYTES: usize = 128 << 10;
/// Long enough for what is on its way to the spill.
const SPILL_PAUSE: Duration = Duration::from_millis(500);
const RANDOM_READS: u32 = 2000;
/// Of each zstd frame, where there are several: as zstd:chunked and the seekable format have them, or smaller.
const FRAME_BYTES: u64 = 1 << 20;
/// Names in the merged directory, whatever the number of layers.
const NAMES: usize = 1200;
const ROUNDS: usize = 5;

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bench = Bench { filter };
    if let Some(blob) = std::env::var_os("LAYERFS_BENCH_LAYER") {
        let blob = Path::new(&blob);
        bench.decoder(blob);
        bench.build("layer", blob);
        bench.reads("layer", blob);
        bench.readers("layer", blob);
        return;
    }
    let big = dir.path().join("big.tar");
    big_tar(&big);
    let compressed = dir.path().join("big.tar.gz");
    compress(&big, &compressed);
    let frame = dir.path().join("big.tar.zst");
    zstd_frames(&big, &frame, u64::MAX);
    let frames = dir.path().join("big-frames.tar.zst");
    zstd_frames(&big, &frames, FRAME_BYTES);
    for (name, path) in [("plain", &big), ("gzip", &compressed), ("zstd", &frame), ("zstd-frames", &frames)] {
        bench.build(name, path);
        bench.reads(name, path);
    }
    bench.spill(&compressed);
    for layers in [5, 50, 120] {
        bench.union(layers);
    }
}

struct Bench {
    filter: String,
}

impl Bench {
    /// Prints the median of several rounds, each of which tells how long it took for how much of `unit`.
    fn measure(&self, name: &str, unit: &str, mut round: impl FnMut() -> (f64, Duration)) {
        if !name.contains(&self.filter) {
            return;
        }
        let mut rates: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let (amount, time) = round();
                amount / time.as_secs_f64()
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        let (low, median, high) = (rates[0], rates[ROUNDS / 2], rates[ROUNDS - 1]);
        println!("{name:<28} {median:>12.1} {unit} ({low:.1} .. {high:.1})");
    }

    /// What everything else is held against.
    fn decoder(&self, blob: &Path) {
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

    fn build(&self, name: &str, blob: &Path) {
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
    fn readers(&self, name: &str, blob: &Path) {
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
                let read = |files: &[EntryId]| read_files(&layer, files, &mut |_| {});
                let bytes: u64 = std::thread::scope(|scope| {
                    let threads: Vec<_> = shares.map(|files| scope.spawn(|| read(files))).collect();
                    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
                });
                (bytes as f64 / 1e6, start.elapsed())
            });
        }
    }

    fn reads(&self, name: &str, blob: &Path) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let names = ["sequential", "random"].map(|order| format!("read {name} {order}"));
        if !names.iter().any(|name| name.contains(&self.filter)) {
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

    /// From the spill, and the same bytes from a file of their own, through the same page cache.
    fn spill(&self, blob: &Path) {
        let names =
            ["plain file", "plain file, hashed", "spill"].map(|from| format!("read 128 KiB of {from}"));
        if !names.iter().any(|name| name.contains(&self.filter)) {
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

    fn union(&self, layers: usize) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let names = ["lookup", "lookup absent", "list"].map(|verb| format!("union {layers} {verb}"));
        if !names.iter().any(|name| name.contains(&self.filter)) {
            return;
        }
        let union = Union::new((0..layers).map(|layer| small_layer(dir.path(), layer, layers)).collect());
        let root = union.root().unwrap();
        let Some(Lower::Dir(merged)) = union.lookup(&root, Name::new(b"dir").unwrap()).unwrap() else {
            unreachable!("every layer has this directory");
        };
        assert_eq!(merged.parts.len(), layers);
        self.measure(&names[0], "names/s", || look_up(&union, &merged, 0, true));
        self.measure(&names[1], "names/s", || look_up(&union, &merged, NAMES, false));
        self.measure(&names[2], "names/s", || {
            let start = Instant::now();
            let listed = black_box(union.list(&merged).unwrap());
            assert_eq!(listed.len(), NAMES);
            (listed.len() as f64, start.elapsed())
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
    let bytes = read_files(layer, &files, each);
    (bytes as f64 / 1e6, start.elapsed())
}

fn read_files(layer: &TarLayer, files: &[EntryId], each: &mut dyn FnMut(&[u8])) -> u64 {
    let mut buffer = vec![0; GRANULE_BYTES];
    let mut bytes = 0;
    for file in files {
        let mut offset = 0;
        while let count @ 1.. = layer.read_at(*file, offset, &mut buffer).unwrap() {
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

fn look_up(union: &Union, dir: &LowerDir, first: usize, there: bool) -> (f64, Duration) {
    let names: Vec<String> = (first..first + NAMES).map(name_of).collect();
    let start = Instant::now();
    for name in &names {
        let found = union.lookup(dir, Name::new(name.as_bytes()).unwrap()).unwrap();
        assert_eq!(found.is_some(), there);
    }
    (NAMES as f64, start.elapsed())
}

fn name_of(number: usize) -> String {
    format!("name-{number:06}")
}

/// A layer with its share of the names of one directory.
fn small_layer(dir: &Path, number: usize, layers: usize) -> Arc<dyn Layer> {
    let path = dir.join(format!("{number}.tar"));
    let mut tar = tar::Builder::new(BufWriter::new(File::create(&path).unwrap()));
    for name in (number..NAMES).step_by(layers) {
        append(&mut tar, &format!("dir/{}", name_of(name)), b"content");
    }
    tar.into_inner().unwrap().flush().unwrap();
    let own = dir.join(format!("{number}"));
    std::fs::create_dir(&own).unwrap();
    Arc::new(open(&path, &own))
}

/// A layer with an index and a cache of its own; the index is built at the first time.
fn open(blob: &Path, dir: &Path) -> TarLayer {
    let blob = FileRange::open(blob).unwrap();
    let path = dir.join("index");
    if !path.exists() {
        index::build(&blob, &Expected::default(), dir, "index", &|_| {}).unwrap();
    }
    let index = Arc::new(LayerIndex::open(&path).unwrap());
    TarLayer::new(index, blob, Arc::new(ChunkCache::with_default_size()))
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

/// Content that compresses about as programs and libraries do, to less than a half.
fn big_tar(path: &Path) {
    let mut random = Random(1);
    let mut tar = tar::Builder::new(BufWriter::new(File::create(path).unwrap()));
    let mut content = Vec::with_capacity(FILE_BYTES);
    let words: Vec<[u8; 8]> = (0..4096).map(|_| random.next().to_le_bytes()).collect();
    for number in 0..FILES {
        content.clear();
        while content.len() < FILE_BYTES {
            content.extend_from_slice(&words[random.below(words.len())]);
        }
        append(&mut tar, &name_of(number), &content[..FILE_BYTES]);
    }
    tar.into_inner().unwrap().flush().unwrap();
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
}

fn compress(from: &Path, to: &Path) {
    let mut gzip = GzEncoder::new(File::create(to).unwrap(), Compression::fast());
    std::io::copy(&mut File::open(from).unwrap(), &mut gzip).unwrap();
    gzip.finish().unwrap();
}

fn zstd_frames(from: &Path, to: &Path, frame_bytes: u64) {
    let (mut from, mut to) = (File::open(from).unwrap(), File::create(to).unwrap());
    let mut rest = from.metadata().unwrap().len();
    while rest > 0 {
        let bytes = rest.min(frame_bytes);
        zstd::stream::copy_encode((&mut from).take(bytes), &mut to, 3).unwrap();
        rest -= bytes;
    }
}

/// The same numbers in every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}
