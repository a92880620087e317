//! A read-only mapping of a file that the store owns.

use std::fs::File;
use std::io;

/// The whole of a file, mapped.
#[derive(Debug)]
pub struct Mapping(Option<memmap2::Mmap>);

impl Mapping {
    /// Maps `file` as long as it is now.
    ///
    /// Only for files that layerfs itself published and never rewrites: were another process to truncate one, access
    /// beyond its new end would be SIGBUS. What users hand over is read with pread instead.
    ///
    /// # Errors
    /// What fstat(2) and mmap(2) say.
    pub fn of_published_file(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the file must not change while it is mapped: published files are replaced by rename, never rewritten.
        unsafe { memmap2::Mmap::map(file) }.map(Some).map(Self)
    }

    /// Gives back the memory of all pages that were touched; they are read again when they are needed.
    ///
    /// # Errors
    /// What madvise(2) says.
    pub fn release(&self) -> io::Result<()> {
        let Some(map) = &self.0 else { return Ok(()) };
        // SAFETY: the pages are those of a file and never written, so nothing is lost with them.
        unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for content in [&b""[..], b"content"] {
            std::fs::write(&path, content).unwrap();
            let mapping = Mapping::of_published_file(&File::open(&path).unwrap()).unwrap();
            assert_eq!(mapping.bytes(), content);
            mapping.release().unwrap();
            assert_eq!(mapping.bytes(), content);
        }
    }
}
