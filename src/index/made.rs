//! Indexes that lie in no file: of entries that were read from somewhere else than a tar, as tables of contents have them.
//! What entries mean is said in one place, `tree.rs`, so these and a tar's become the same objects.

use std::path::Path;

use super::tree::{Attributes, Body, Data, Tree, Xattr};
use super::write::{self, Facts};
use super::{Encoding, IndexError, LayerIndex, tar};
use crate::model::Digest;

/// Takes entries in the order of their archive, by the rules and within the limits of a tar's.
#[derive(Debug)]
pub(crate) struct IndexBuilder {
    tree: Tree,
}

/// A file in a tar.
#[derive(Debug)]
pub(crate) struct FileInTar {
    pub(crate) path: Vec<u8>,
    pub(crate) attributes: Attributes,
    pub(crate) size: u64,
    /// Of its content, in the tar.
    pub(crate) offset: u64,
}

impl IndexBuilder {
    pub(crate) fn new() -> Self {
        Self { tree: Tree::new() }
    }

    /// Applies one entry. A file's place ([`Data::Contiguous`]) can be any number: the index gives it back as it is.
    /// The error is for people.
    pub(crate) fn add(&mut self, path: &[u8], attributes: Attributes, body: Body) -> Result<(), String> {
        self.tree.apply(path, attributes, body)
    }

    /// The index of what was added; `path` is what messages call it.
    pub(crate) fn finish(mut self, path: &Path) -> Result<LayerIndex, IndexError> {
        let nobody = Digest::from_bytes([0; 32]);
        let facts = Facts {
            encoding: Encoding::Tar.number(),
            blob_digest: nobody,
            diff_id: nobody,
            blob_bytes: 0,
            tar_bytes: 0,
            granules: Vec::new(),
            spans: Vec::new(),
            windows: Vec::new(),
        };
        let names = self.tree.finish().map_err(|reason| IndexError::Tar {
            path: path.to_owned(),
            offset: 0,
            name: Vec::new(),
            reason,
        })?;
        let mut bytes = Vec::new();
        let written = write::write(&mut bytes, &facts, &self.tree, &names);
        written.map_err(|source| IndexError::Io { path: path.to_owned(), source })?;
        LayerIndex::in_memory(bytes, path)
    }
}

/// The extended attributes of an object that are shown, checked and in order. The error is for people.
pub(crate) fn shown_xattrs(given: Vec<Xattr>) -> Result<Vec<Xattr>, String> {
    tar::shown_xattrs(given)
}

/// The only file of a tar that is in memory; `None` when it has another entry, or none. The error is for people.
pub(crate) fn only_file(tar: &[u8]) -> Result<Option<FileInTar>, String> {
    let (mut file, mut count) = (None, 0);
    let mut look = |path: &[u8], attributes, body| {
        count += 1;
        if let Body::File { size, data: Data::Contiguous(offset) } = body {
            file = Some(FileInTar { path: path.to_owned(), attributes, size, offset });
        }
        Ok(())
    };
    tar::read(tar, &mut look).map_err(|error| error.reason)?;
    Ok(file.filter(|_| count == 1))
}
