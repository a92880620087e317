//! Hostile compressed data. After a first byte below 128 a whole blob: an error or a layer that can be walked, never a
//! panic. After any other a deflate stream: whatever another decoder makes of it is what a file must read as.
#![no_main]

use std::sync::Arc;

use layerfs::index::LayerIndex;
use layerfs::layer::{ChunkCache, Found, Layer, TarLayer};
use layerfs::model::Name;
use layerfs::sys::file_range::FileRange;
use layerfs_fuzz::gzip_member;
use libfuzzer_sys::fuzz_target;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// More is slow to try and shows nothing new: several spans.
const CONTENT_BYTES_MAX: usize = 3 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    if *first < 128 {
        let blob = [&[0x1f, 0x8b, 8], data].concat();
        if layerfs_fuzz::build(dir.path(), &blob).is_ok() {
            layerfs_fuzz::walk(dir.path()).expect("what was built can be read");
        }
        return;
    }
    let decoded = decompress_to_vec_with_limit(data, CONTENT_BYTES_MAX);
    let Ok(content) = decoded else {
        // Not deflate, cut off, or too long: nothing but the first can be told from here.
        let blob = gzip_around(data, &[]);
        drop(layerfs_fuzz::build(dir.path(), &blob));
        return;
    };
    // What follows the stream would be taken for its trailer.
    let Some(end) = deflate_end(data) else { return };
    let blob = gzip_around(&data[..end], &content);
    layerfs_fuzz::build(dir.path(), &blob).expect("another decoder takes it");
    layerfs_fuzz::walk(dir.path()).expect("what was built can be read");
    check(dir.path(), &content);
});

/// A tar with one file, of which the content is a gzip member of its own: this deflate stream.
fn gzip_around(deflate: &[u8], content: &[u8]) -> Vec<u8> {
    let header = layerfs_fuzz::tar_header(b"f", content.len());
    let padding = vec![0; content.len().next_multiple_of(512) - content.len() + 1024];
    let pack = |bytes: &[u8]| gzip_member(&miniz_oxide::deflate::compress_to_vec(bytes, 6), bytes);
    [pack(&header), gzip_member(deflate, content), pack(&padding)].concat()
}

/// How many bytes the stream takes.
fn deflate_end(data: &[u8]) -> Option<usize> {
    use miniz_oxide::inflate::stream::{InflateState, inflate};
    let mut state = InflateState::new_boxed(miniz_oxide::DataFormat::Raw);
    let (mut used, mut output) = (0, vec![0; 1 << 16]);
    loop {
        let result = inflate(&mut state, &data[used..], &mut output, miniz_oxide::MZFlush::None);
        used += result.bytes_consumed;
        match result.status.ok()? {
            miniz_oxide::MZStatus::StreamEnd => return Some(used),
            _ if result.bytes_consumed + result.bytes_written == 0 => return None,
            _ => {}
        }
    }
}

/// Reads the file front to back and from its end to its front.
fn check(dir: &std::path::Path, content: &[u8]) {
    let index = LayerIndex::open(&dir.join("index")).expect("an index");
    let blob = FileRange::open(&dir.join("blob")).expect("a temporary file");
    let layer = TarLayer::new(Arc::new(index), blob, Arc::new(ChunkCache::new(256 << 10)));
    let name = Name::new(b"f").expect("a name");
    let Ok(Found::Entry(id)) = layer.lookup(layer.root(), name) else { panic!("the file is there") };
    let mut places: Vec<usize> = (0..content.len()).step_by(50_000).collect();
    places.extend(places.clone().into_iter().rev());
    for place in places {
        let mut buffer = vec![0; 50_000];
        let count = layer.read_at(id, place as u64, &mut buffer).expect("it can be read");
        let expected = &content[place..content.len().min(place + buffer.len())];
        assert!(&buffer[..count] == expected, "wrong bytes at {place}");
    }
}
