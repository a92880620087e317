//! A tar that is written in one go, the same bytes for the same files: times are 1970, owners root.

use std::io::{self, Write};
use std::path::Path;

use super::super::ImageError;
use super::{Counted, Target};
use crate::model::Metadata;
use crate::model::pax::{BLOCK, Header, nothing};

/// The tar on its way.
pub(super) struct TarOut<'a> {
    out: &'a mut dyn Write,
    /// What messages call it.
    place: &'a Path,
}

impl<'a> TarOut<'a> {
    pub(super) fn new(out: &'a mut dyn Write, place: &'a Path) -> Self {
        Self { out, place }
    }

    /// A symlink to `target`.
    pub(super) fn symlink(&mut self, name: &str, target: &str) -> Result<(), ImageError> {
        self.header(name, b'2', 0o777, 0, target)
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> Result<(), ImageError> {
        let end = self.out.write_all(&[0; 2 * BLOCK]).and_then(|()| self.out.flush());
        end.map_err(ImageError::io("write", self.place))
    }

    fn header(
        &mut self,
        name: &str,
        type_flag: u8,
        mode: u16,
        size: u64,
        target: &str,
    ) -> Result<(), ImageError> {
        let metadata = Metadata { mode, ..nothing() };
        let (path, target) = (name.as_bytes(), target.as_bytes());
        let header = Header { path, type_flag, metadata: &metadata, size, target, xattrs: &[] };
        let blocks = header.blocks().map_err(io::Error::other);
        blocks.and_then(|blocks| self.out.write_all(&blocks)).map_err(ImageError::io("write", self.place))
    }
}

impl Target for TarOut<'_> {
    fn file(
        &mut self,
        name: &str,
        size: u64,
        fill: &mut dyn FnMut(&mut dyn Write, &Path) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        self.header(name, b'0', 0o644, size, "")?;
        let mut counted = Counted { out: &mut *self.out, bytes: 0 };
        fill(&mut counted, self.place)?;
        if counted.bytes != size {
            let reason = format!("{name}: {} bytes came where {size} were expected", counted.bytes);
            return Err(ImageError::io("write", self.place)(io::Error::other(reason)));
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        let padding = usize::try_from(padding).unwrap_or_default();
        self.out.write_all(&[0; BLOCK][..padding]).map_err(ImageError::io("write", self.place))
    }

    fn directory(&mut self, name: &str) -> Result<(), ImageError> {
        self.header(&format!("{name}/"), b'5', 0o755, 0, "")
    }
}
