//! Tables of contents that lie: an error or a layer that can be walked, never a panic. After an even first byte the table of
//! an eStargz, after an odd one that of a zstd:chunked layer. What they may speak of is two chunks behind a header.
#![no_main]

use layerfs::layer::{LayerError, Toc, TocAnnotation, TocLayer};
use layerfs::model::Digest;
use layerfs::sys::file_range::FileRange;
use layerfs_fuzz::{gzip_member, sha256_hex, tar_header};
use libfuzzer_sys::fuzz_target;

/// fuzz/seeds.py knows them too.
const BEGINNING: [&[u8]; 3] = [b"a header", b"the first chunk", b"and the second"];
/// What fits in a block of both compressors that is only copied.
const JSON_BYTES_MAX: usize = 60_000;

fuzz_target!(|data: &[u8]| {
    let Some((first, json)) = data.split_first().filter(|_| data.len() < JSON_BYTES_MAX) else { return };
    let (blob, annotation) = if first % 2 == 0 { estargz(json) } else { zstd_chunked(json) };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("blob");
    std::fs::write(&path, &blob).expect("a temporary file");
    let blob = FileRange::open(&path).expect("a temporary file");
    let Ok(toc) = Toc::of(&blob, &annotation) else { return };
    let layer = TocLayer::new(&toc, digest(b"any"), blob).expect("what was understood has a root");
    match layerfs_fuzz::walk_through(&layer) {
        // Not what its digest says.
        Ok(()) | Err(LayerError::Corrupt { .. }) => {}
        Err(error) => panic!("{error}"),
    }
});

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_hex(&sha256_hex(bytes)).expect("a sha256")
}

/// Header, chunks, table and footer, each a gzip member of a block that is only copied.
fn estargz(json: &[u8]) -> (Vec<u8>, TocAnnotation) {
    let mut tar = [&tar_header(b"stargz.index.json", json.len()), json].concat();
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    layerfs_fuzz::fix_checksums(&mut tar[..512]);
    let mut blob = BEGINNING.map(gzip).concat();
    let place = format!("{:016x}STARGZ", blob.len());
    blob.extend(gzip(&tar));
    blob.extend([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0]);
    blob.extend_from_slice(place.as_bytes());
    blob.extend([1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
    (blob, TocAnnotation::EStargz { toc_digest: digest(json) })
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("a small file");
    let deflate = [&[1], &len.to_le_bytes()[..], &(!len).to_le_bytes(), content].concat();
    gzip_member(&deflate, content)
}

/// Header, chunks and table, each a zstd frame of a block that is only copied.
fn zstd_chunked(json: &[u8]) -> (Vec<u8>, TocAnnotation) {
    let (mut blob, table) = (BEGINNING.map(zstd).concat(), zstd(json));
    let position = format!("{}:{}:{}:1", blob.len(), table.len(), json.len());
    let checksum = digest(&table);
    blob.extend(table);
    (blob, TocAnnotation::ZstdChunked { checksum, position })
}

fn zstd(content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).expect("a small file");
    let block = (len << 3 | 1).to_le_bytes();
    [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0], &len.to_le_bytes()[..], &block[..3], content].concat()
}
