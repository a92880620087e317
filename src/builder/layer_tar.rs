//! Writing a layer: a gzip-compressed PAX tar, the same bytes for the same entries.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::layer::Xattr;
use crate::model::pax::{BLOCK, Header, nothing};
use crate::model::whiteout::{self, Meaning};
use crate::model::{Digest, FileKind, Metadata, Name};

/// One object of a layer.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) metadata: Metadata,
    pub(super) xattrs: &'a [Xattr],
    /// The target of a symlink.
    pub(super) target: &'a [u8],
}

/// A layer on its way to `W`, compressed.
#[derive(Debug)]
pub(super) struct LayerTar<W: Write> {
    gzip: GzEncoder<W>,
    hash: Sha256,
    entries: u64,
}

impl<W: Write> LayerTar<W> {
    pub(super) fn new(target: W) -> Self {
        Self { gzip: GzEncoder::new(target, Compression::default()), hash: Sha256::new(), entries: 0 }
    }

    /// An object at a path relative to the root; the root's own is empty. `content` is read for regular files.
    pub(super) fn object(
        &mut self,
        path: &[u8],
        entry: &Entry<'_>,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        check(path)?;
        let metadata = &entry.metadata;
        let size = if metadata.kind == FileKind::Regular { metadata.size } else { 0 };
        let type_flag = match metadata.kind {
            FileKind::Regular => b'0',
            FileKind::Symlink => b'2',
            FileKind::CharDevice => b'3',
            FileKind::BlockDevice => b'4',
            FileKind::Directory => b'5',
            FileKind::Fifo => b'6',
            FileKind::Socket => return Err(invalid("a tar cannot hold sockets")),
        };
        let path = match (metadata.kind, path) {
            (FileKind::Directory, b"") => b"./".to_vec(),
            (FileKind::Directory, path) => [path, b"/"].concat(),
            _ => path.to_vec(),
        };
        self.header(&Header {
            path: &path,
            type_flag,
            metadata,
            size,
            target: entry.target,
            xattrs: entry.xattrs,
        })?;
        let copied = io::copy(&mut content.take(size), &mut Sink(self))?;
        if copied != size {
            return Err(invalid(&format!("only {copied} of {size} bytes are there")));
        }
        self.pad(size)
    }

    /// One more name of an object that was written before.
    pub(super) fn link(&mut self, path: &[u8], to: &[u8]) -> io::Result<()> {
        check(path)?;
        self.header(&Header { path, type_flag: b'1', metadata: &nothing(), size: 0, target: to, xattrs: &[] })
    }

    /// Hides what the layers below have at this path.
    pub(super) fn whiteout(&mut self, path: &[u8]) -> io::Result<()> {
        check(path)?;
        let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let name = Name::new(&path[start..]).map_err(io::Error::other)?;
        let hiding = whiteout::hiding(name).map_err(io::Error::other)?;
        let path = [&path[..start], hiding.as_bytes()].concat();
        self.header(&Header {
            path: &path,
            type_flag: b'0',
            metadata: &nothing(),
            size: 0,
            target: &[],
            xattrs: &[],
        })
    }

    /// How many entries there are.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Ends the layer and gives the digest of its uncompressed bytes.
    pub(super) fn finish(mut self) -> io::Result<(Digest, W)> {
        self.put(&[0; 2 * BLOCK])?;
        let target = self.gzip.finish()?;
        Ok((Digest::from_bytes(self.hash.finalize().into()), target))
    }

    fn header(&mut self, header: &Header<'_>) -> io::Result<()> {
        self.entries += 1;
        self.put(&header.blocks().map_err(|error| invalid(&error.to_string()))?)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.gzip.write_all(bytes)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = usize::try_from(size % BLOCK as u64).map_err(io::Error::other)?;
        if rest == 0 { Ok(()) } else { self.put(&[0; BLOCK][rest..]) }
    }
}

struct Sink<'a, W: Write>(&'a mut LayerTar<W>);

impl<W: Write> Write for Sink<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A path whose last name a layer would understand as a mark cannot be in one.
fn check(path: &[u8]) -> io::Result<()> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if name.is_empty() || matches!(whiteout::meaning(name), Ok(Meaning::Object(_))) {
        return Ok(());
    }
    Err(invalid("in a layer this name would be a whiteout: rename the file"))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_reader_agrees() {
        let mut layer = LayerTar::new(Vec::new());
        let long = [b"d/".repeat(90), b"\xff".to_vec()].concat();
        let metadata = Metadata { uid: 3_000_000, mode: 0o4755, size: 3, ..nothing() };
        let xattrs: [Xattr; 1] = [(b"user.x"[..].into(), b"a\0="[..].into())];
        let entry = Entry { metadata, xattrs: &xattrs, target: &[] };
        layer.object(&long, &entry, &mut &b"abc"[..]).unwrap();
        layer.link(b"other", &long).unwrap();
        layer.whiteout(b"a/gone").unwrap();
        assert!(layer.object(b"a/.wh.b", &entry, &mut &b"abc"[..]).is_err());
        let (digest, blob) = layer.finish().unwrap();
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&blob[..]).read_to_end(&mut tar).unwrap();
        assert_eq!(digest.as_bytes()[..], Sha256::digest(&tar)[..]);
        let mut archive = tar::Archive::new(&tar[..]);
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let mut first = entries.next().unwrap();
        assert_eq!(*first.path_bytes(), *long);
        assert_eq!((first.header().mode().unwrap(), first.size()), (0o4755, 3));
        let found: Vec<_> = first.pax_extensions().unwrap().unwrap().map(Result::unwrap).collect();
        let value = |key: &str| found.iter().find(|one| one.key() == Ok(key)).unwrap().value_bytes().to_vec();
        assert_eq!(value("uid"), b"3000000");
        assert_eq!(value("SCHILY.xattr.user.x"), b"a\0=");
        assert_eq!(*entries.next().unwrap().link_name_bytes().unwrap(), *long);
        assert_eq!(*entries.next().unwrap().path_bytes(), *b"a/.wh.gone");
        assert!(entries.next().is_none());
    }
}
