//! Writing a layer: a gzip-compressed PAX tar (POSIX.1-2001 pax, "pax Interchange Format"), the same bytes for the same
//! entries.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::layer::Xattr;
use crate::model::whiteout::{self, Meaning};
use crate::model::{Digest, FileKind, Metadata, Name, Timestamp};

const BLOCK: usize = 512;
/// Room for a path or a link's target in a header.
const NAME_BYTES: usize = 100;
/// Room for owner and group: seven octal digits.
const ID_MAX: u64 = 0o7_777_777;
/// Room for size and time: eleven octal digits.
const NUMBER_MAX: u64 = 0o77_777_777_777;

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
        let records = header.pax_records()?;
        if !records.is_empty() {
            let size = records.len() as u64;
            let metadata = nothing();
            let pax = Header {
                path: b"PaxHeaders/entry",
                type_flag: b'x',
                metadata: &metadata,
                size,
                target: &[],
                xattrs: &[],
            };
            self.put(&pax.block())?;
            self.put(&records)?;
            self.pad(size)?;
        }
        self.entries += 1;
        self.put(&header.block())
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

struct Header<'a> {
    path: &'a [u8],
    type_flag: u8,
    metadata: &'a Metadata,
    size: u64,
    target: &'a [u8],
    xattrs: &'a [Xattr],
}

impl Header<'_> {
    /// What the fields of the header cannot hold.
    fn pax_records(&self) -> io::Result<Vec<u8>> {
        let mut records = Vec::new();
        let fits = |name: &[u8]| name.len() <= NAME_BYTES && name.is_ascii();
        if !fits(self.path) {
            record(&mut records, b"path", self.path);
        }
        if !fits(self.target) {
            record(&mut records, b"linkpath", self.target);
        }
        for (key, id) in [(&b"uid"[..], self.metadata.uid), (b"gid", self.metadata.gid)] {
            if u64::from(id) > ID_MAX {
                record(&mut records, key, id.to_string().as_bytes());
            }
        }
        if self.size > NUMBER_MAX {
            record(&mut records, b"size", self.size.to_string().as_bytes());
        }
        let time = self.metadata.mtime;
        if time.nanos != 0 || u64::try_from(time.secs).is_ok_and(|secs| secs > NUMBER_MAX) || time.secs < 0 {
            record(&mut records, b"mtime", decimal(time).as_bytes());
        }
        for (name, value) in self.xattrs {
            if name.contains(&b'=') {
                return Err(invalid(&format!(
                    "attribute {}: a tar cannot hold a name with =",
                    name.escape_ascii()
                )));
            }
            record(&mut records, &[b"SCHILY.xattr.", &**name].concat(), value);
        }
        Ok(records)
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let secs = u64::try_from(self.metadata.mtime.secs).unwrap_or(0);
        let id = |id: u32| if u64::from(id) > ID_MAX { 0 } else { u64::from(id) };
        let number = |number: u64| if number > NUMBER_MAX { 0 } else { number };
        text(&mut block[0..100], self.path);
        octal(&mut block[100..108], self.metadata.mode.into());
        octal(&mut block[108..116], id(self.metadata.uid));
        octal(&mut block[116..124], id(self.metadata.gid));
        octal(&mut block[124..136], number(self.size));
        octal(&mut block[136..148], number(secs));
        block[156] = self.type_flag;
        text(&mut block[157..257], self.target);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], self.metadata.rdev.major.into());
        octal(&mut block[337..345], self.metadata.rdev.minor.into());
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[148..155], sum);
        block
    }
}

/// Octal digits and a NUL; callers make sure that they fit.
fn octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    let digits = format!("{number:0width$o}");
    text(&mut field[..width], &digits.as_bytes()[digits.len() - width..]);
    field[width] = 0;
}

fn text(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// `LENGTH KEY=VALUE\n`; the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    for part in [key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// Seconds with their fraction; a time before 1970 counts its fraction downwards.
fn decimal(time: Timestamp) -> String {
    let (sign, secs, nanos) = match (time.secs < 0, time.nanos) {
        (false, nanos) => ("", time.secs.unsigned_abs(), nanos),
        (true, 0) => ("-", time.secs.unsigned_abs(), 0),
        (true, nanos) => ("-", time.secs.unsigned_abs() - 1, 1_000_000_000 - nanos),
    };
    let text = format!("{sign}{secs}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A path whose last name a layer would understand as a mark cannot be in one.
fn check(path: &[u8]) -> io::Result<()> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if name.is_empty() || matches!(whiteout::meaning(name), Ok(Meaning::Object(_))) {
        return Ok(());
    }
    Err(invalid("in a layer this name would be a whiteout: rename the file"))
}

fn nothing() -> Metadata {
    Metadata {
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: crate::model::DeviceId::default(),
        size: 0,
        mtime: Timestamp::default(),
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        for length in 0..1100 {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; length]);
            let text = String::from_utf8(records).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse(), Ok(text.len()));
        }
    }

    #[test]
    fn times() {
        let time = |secs, nanos| decimal(Timestamp { secs, nanos });
        assert_eq!(time(1, 500_000_000), "1.5");
        assert_eq!(time(-2, 500_000_000), "-1.5");
        assert_eq!(time(-1, 999_999_999), "-0.000000001");
        assert_eq!(time(-3, 0), "-3");
        assert_eq!(time(10, 0), "10");
    }

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
