//! Whether two indexes say the same of a layer.

use super::format::Section;
use super::{IndexError, LayerIndex};

/// What a layer is: names, attributes, and the digests of its content. Checkpoints and windows only say how to come to it.
const MEANING: [Section; 8] = [
    Section::Inodes,
    Section::Dirents,
    Section::Strings,
    Section::Xattrs,
    Section::Extents,
    Section::Links,
    Section::Below,
    Section::Granules,
];

impl LayerIndex {
    /// Whether both say the same of the same layer.
    ///
    /// # Errors
    /// [`IndexError::Stale`] when one of them is damaged.
    pub fn agrees_with(&self, other: &Self) -> Result<bool, IndexError> {
        let of_it = |index: &Self| (index.diff_id(), index.blob_digest(), index.tar_bytes());
        if of_it(self) != of_it(other) {
            return Ok(false);
        }
        for section in MEANING {
            if self.section(section)? != other.section(section)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Expected, build};
    use crate::sys::file_range::FileRange;

    #[test]
    fn the_same_layer_agrees_and_another_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let index = |name: &str, content: &[u8]| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, "file", content).unwrap();
            std::fs::write(dir.path().join("blob"), tar.into_inner().unwrap()).unwrap();
            let blob = FileRange::open(&dir.path().join("blob")).unwrap();
            build(&blob, &Expected::default(), dir.path(), name, &|_| {}).unwrap();
            LayerIndex::open(&dir.path().join(name)).unwrap()
        };
        let one = index("one", b"content");
        assert!(one.agrees_with(&index("two", b"content")).unwrap());
        assert!(!one.agrees_with(&index("three", b"Content")).unwrap());
    }
}
