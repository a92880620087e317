//! The layers that are measured.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::{Compression, write::GzEncoder};
use layerfs::index::{self, Expected, LayerIndex};
use layerfs::layer::{ChunkCache, TarLayer};
use layerfs::sys::file_range::FileRange;

/// Files of the generated layer, and the bytes of each: 200 MB in all, as a large layer of a real image.
const FILES: usize = 200;
const FILE_BYTES: usize = 1_000_000;
/// Of each zstd frame, where there are several: as zstd:chunked and the seekable format have them, or smaller.
pub(crate) const FRAME_BYTES: u64 = 1 << 20;

/// A layer with an index and a cache of its own; the index is built at the first time.
pub(crate) fn open(blob: &Path, dir: &Path) -> TarLayer {
    let blob = FileRange::open(blob).unwrap();
    let path = dir.join("index");
    if !path.exists() {
        index::build(&blob, &Expected::default(), dir, "index", &|_| {}).unwrap();
    }
    let index = Arc::new(LayerIndex::open(&path).unwrap());
    TarLayer::new(index, blob, Arc::new(ChunkCache::with_default_size()))
}

/// Content that compresses about as programs and libraries do, to less than a half.
pub(crate) fn big_tar(path: &Path) {
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

pub(crate) fn append(tar: &mut tar::Builder<impl Write>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
}

pub(crate) fn compress(from: &Path, to: &Path) {
    let mut gzip = GzEncoder::new(File::create(to).unwrap(), Compression::fast());
    std::io::copy(&mut File::open(from).unwrap(), &mut gzip).unwrap();
    gzip.finish().unwrap();
}

pub(crate) fn zstd_frames(from: &Path, to: &Path, frame_bytes: u64) {
    let (mut from, mut to) = (File::open(from).unwrap(), File::create(to).unwrap());
    let mut rest = from.metadata().unwrap().len();
    while rest > 0 {
        let bytes = rest.min(frame_bytes);
        zstd::stream::copy_encode((&mut from).take(bytes), &mut to, 3).unwrap();
        rest -= bytes;
    }
}

/// The same numbers in every run (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}
pub(crate) fn name_of(number: usize) -> String {
    format!("name-{number:06}")
}
