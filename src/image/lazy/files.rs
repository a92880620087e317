//! The store's image layout, in which some layers are still on their way.

use std::collections::HashMap;
use std::path::Path;

use super::super::ImageError;
use super::super::files::{Directory, Files};
use crate::sys::file_range::FileRange;

/// The store's layout and, by their names in it, blobs that arrive.
#[derive(Debug)]
pub(super) struct LazyFiles {
    pub(super) layout: Directory,
    pub(super) arriving: HashMap<String, FileRange>,
}

impl Files for LazyFiles {
    fn place(&self) -> &Path {
        self.layout.place()
    }

    fn open(&self, name: &str) -> Result<Option<FileRange>, ImageError> {
        match self.arriving.get(name) {
            Some(range) => Ok(Some(range.clone())),
            None => self.layout.open(name),
        }
    }
}
