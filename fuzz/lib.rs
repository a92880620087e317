//! What the fuzz targets share: from bytes to a layer, and everything that a layer can be asked.

use std::path::Path;
use std::sync::Arc;

use layerfs::image;
use layerfs::index::{self, Expected, IndexError, LayerIndex};
use layerfs::layer::{ChunkCache, Found, Layer, LayerError, LayerSource, TarLayer};
use layerfs::model::FileKind;
use layerfs::store::Store;
use layerfs::sys::file_range::FileRange;
use sha2::{Digest as _, Sha256};

/// Objects looked at: a damaged index can have directories inside of themselves.
const OBJECTS_MAX: usize = 2000;

/// Builds the index of `blob` in `dir`.
pub fn build(dir: &Path, blob: &[u8]) -> Result<(), IndexError> {
    std::fs::write(dir.join("blob"), blob).expect("a temporary file");
    let range = FileRange::open(&dir.join("blob")).expect("a temporary file");
    index::build(&range, &Expected::default(), dir, "index", &|_| {})
}

/// Asks for everything in the layer that is in `dir`.
pub fn walk(dir: &Path) -> Result<(), LayerError> {
    let blob = FileRange::open(&dir.join("blob")).expect("a temporary file");
    let Ok(index) = LayerIndex::open(&dir.join("index")) else { return Ok(()) };
    walk_through(&TarLayer::new(Arc::new(index), blob, Arc::new(ChunkCache::new(1 << 20))))
}

/// Asks for everything in a layer.
pub fn walk_through(layer: &dyn Layer) -> Result<(), LayerError> {
    let mut open = vec![layer.root()];
    let mut objects = 0;
    while let Some(dir) = open.pop() {
        for item in layer.read_dir(dir)? {
            if layer.lookup(dir, item.name.as_name())? != item.found {
                // Right for a damaged index, whose names may not be sorted; what was built has no such thing.
                let layer = "fuzz".to_owned();
                return Err(LayerError::BadEntry { layer, entry: dir, reason: "listed, but not found" });
            }
            let Found::Entry(id) = item.found else { continue };
            objects += 1;
            if objects > OBJECTS_MAX {
                return Ok(());
            }
            let entry = layer.entry(id)?;
            layer.xattrs(id)?;
            layer.paths(id)?;
            match entry.metadata.kind {
                FileKind::Directory => open.push(id),
                FileKind::Symlink => drop(layer.read_link(id)?),
                FileKind::Regular => {
                    let mut buffer = [0; 5000];
                    for offset in [0, 4097, entry.metadata.size.saturating_sub(100)] {
                        layer.read_at(id, offset, &mut buffer)?;
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Opens what `spec` names, and walks through its first layers whatever they should hash to.
pub fn open_image(spec: &str, dir: &Path) {
    let store = Store::open(&dir.join("store")).expect("a store");
    let Ok(image) = image::open(spec, &store) else { return };
    assert_eq!(image.layers.len(), image.config.rootfs.diff_ids.len());
    for (number, layer) in image.layers.iter().enumerate().take(3) {
        let LayerSource::Tar(source) = layer else { panic!("a layer of an archive is a tar") };
        let mut blob = vec![0; usize::try_from(source.blob.len()).expect("a small file")];
        let count = source.blob.read_at(0, &mut blob).expect("a range lies in its file");
        assert_eq!(count, blob.len(), "a range lies in its file");
        let place = dir.join(number.to_string());
        std::fs::create_dir_all(&place).expect("a temporary directory");
        if build(&place, &blob).is_ok() {
            walk(&place).expect("what was built can be read");
        }
    }
}

/// The sha256 as hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The header of a regular file.
pub fn tar_header(name: &[u8], size: usize) -> [u8; 512] {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name);
    for (at, text) in [(100, "0000644\0"), (108, "0000000\0"), (116, "0000000\0"), (136, "00000000000\0")] {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[156..157].copy_from_slice(b"0");
    header[257..265].copy_from_slice(b"ustar\x0000");
    fix_checksums(&mut header);
    header
}

/// A gzip member of this deflate stream, which stands for `content`.
pub fn gzip_member(deflate: &[u8], content: &[u8]) -> Vec<u8> {
    let crc32 = crc32fast::hash(content).to_le_bytes();
    let len = u32::try_from(content.len()).expect("a small file").to_le_bytes();
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], deflate, &crc32, &len].concat()
}

/// Makes the checksum of every header right, so that what is behind it is reached.
pub fn fix_checksums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Makes the checksums of an index right (its format is described in `src/index/format.rs`).
pub fn seal(index: &mut [u8]) {
    let body_bytes = u64::from_le_bytes(index[128..136].try_into().expect("8 bytes")) as usize;
    let pages = body_bytes.div_ceil(65536);
    let start = 320 + 32 * pages;
    if index.len() != start + body_bytes {
        return;
    }
    for page in 0..pages {
        let stop = (start + (page + 1) * 65536).min(index.len());
        let hash = blake3::hash(&index[start + page * 65536..stop]);
        index[320 + page * 32..352 + page * 32].copy_from_slice(hash.as_bytes());
    }
    index[16..48].fill(0);
    let hash = blake3::hash(&index[..start]);
    index[16..48].copy_from_slice(hash.as_bytes());
}
