//! A read-only mapping of a file that the store owns, or bytes that take its place.

use std::fs::File;
use std::io;

use super::bus_error::Watch;

/// The whole of a file, mapped.
#[derive(Debug)]
pub struct Mapping(Content);

#[derive(Debug)]
enum Content {
    /// The watch goes first.
    Mapped(Watch, memmap2::Mmap),
    /// An empty file, or no file at all.
    Own(Vec<u8>),
}

impl Mapping {
    /// Maps `file` as long as it is now.
    ///
    /// Only for files that layerfs itself published and never rewrites; what users hand over is read with pread instead.
    /// What cannot be read is zeros, and [`Mapping::has_fault`] says so: another process truncated the file, or the disk
    /// below it fails.
    ///
    /// # Errors
    /// What fstat(2) and mmap(2) say, or too many files are mapped.
    pub fn of_published_file(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self(Content::Own(Vec::new())));
        }
        // SAFETY: the file must not change while it is mapped: published files are replaced by rename, never rewritten.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        Ok(Self(Content::Mapped(Watch::new(&map)?, map)))
    }

    /// Bytes that lie in no file.
    #[must_use]
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        Self(Content::Own(bytes))
    }

    /// Whether some of the bytes that were looked at could not be read. Who takes anything from them asks afterwards.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        matches!(&self.0, Content::Mapped(watch, _) if watch.has_fault())
    }

    /// Gives back the memory of all pages that were touched; they are read again when they are needed.
    ///
    /// # Errors
    /// What madvise(2) says.
    pub fn release(&self) -> io::Result<()> {
        let Content::Mapped(_, map) = &self.0 else { return Ok(()) };
        // SAFETY: the pages are those of a file and never written, so nothing is lost with them.
        unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Content::Mapped(_, map) => map,
            Content::Own(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_shrinks_is_a_fault_and_not_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let open = || Mapping::of_published_file(&File::open(&path).unwrap()).unwrap();
        let (mapping, other) = (open(), open());
        assert_eq!(mapping.bytes()[99_999], 7);
        File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
        let threads: Vec<_> = [20_000, 50_000, 99_999].into_iter().collect();
        std::thread::scope(|scope| {
            threads.iter().for_each(|at| drop(scope.spawn(|| assert_eq!(mapping.bytes()[*at], 0))));
        });
        assert!(mapping.has_fault());
        assert_eq!((mapping.bytes()[0], mapping.bytes()[4999]), (7, 7));
        assert!(!other.has_fault(), "nobody looked");
        drop((mapping, other));
        assert!(!open().has_fault());
    }

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
        let own = Mapping::of_bytes(b"own".to_vec());
        own.release().unwrap();
        assert_eq!((own.bytes(), own.has_fault()), (&b"own"[..], false));
    }
}
