//! What tests of caches read: a gzip layer with one file.

use std::sync::Arc;

use flate2::{Compression, write::GzEncoder};

use super::{ChunkCache, Found, Layer as _, TarLayer};
use crate::index::{self, Expected, LayerIndex};
use crate::model::{EntryId, Name};
use crate::sys::file_range::FileRange;

/// The layer, its index, and room beside them.
pub(super) struct OneFile {
    pub(super) dir: tempfile::TempDir,
    pub(super) content: Vec<u8>,
}

impl OneFile {
    /// With so many bytes, of which half are left when they are compressed.
    pub(super) fn new(len: usize, level: Compression) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut seed = 1_u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed.to_be_bytes()[0] % 16
        };
        let content: Vec<u8> = (0..len).map(|_| next()).collect();
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), level));
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, "file", &content[..]).unwrap();
        let blob = tar.into_inner().unwrap().finish().unwrap();
        std::fs::write(dir.path().join("blob"), blob).unwrap();
        let range = FileRange::open(&dir.path().join("blob")).unwrap();
        index::build(&range, &Expected::default(), dir.path(), "index", &|_| {}).unwrap();
        Self { dir, content }
    }

    /// As another process would open it, with a cache of so many bytes.
    pub(super) fn open(&self, cache_bytes: u64) -> TarLayer {
        let blob = FileRange::open(&self.dir.path().join("blob")).unwrap();
        let index = Arc::new(LayerIndex::open(&self.dir.path().join("index")).unwrap());
        TarLayer::new(index, blob, Arc::new(ChunkCache::new(cache_bytes)))
    }
}

/// The file.
pub(super) fn the_file(layer: &TarLayer) -> EntryId {
    match layer.lookup(layer.root(), Name::new(b"file").unwrap()).unwrap() {
        Found::Entry(file) => file,
        other => panic!("{other:?}"),
    }
}
