//! Reads the tar of a layer: ustar, PAX and GNU headers (pax(1), GNU tar manual "Basic Tar Format"), one pass, no seeking.
//!
//! Where readers differ, docker's way is taken (Go's archive/tar), because that is what layers are made for.

use std::io::{self, BufRead};

mod header;
mod libarchive;
mod pax;
mod sparse;

use header::Header;
use pax::Pax;
pub(super) use pax::shown_xattrs;

use super::tree::{Attributes, Body, Data};
use crate::model::limits::PAX_BYTES_MAX;
use crate::model::{DeviceId, Timestamp};

/// The unit of a tar.
const BLOCK_BYTES: usize = 512;

/// Takes path, attributes and body of an entry.
type Apply<'a> = dyn FnMut(&[u8], Attributes, Body) -> Result<(), String> + 'a;

/// Why a tar cannot be read.
#[derive(Debug)]
pub(super) struct TarError {
    /// Where the entry begins.
    pub(super) offset: u64,
    pub(super) name: Vec<u8>,
    pub(super) reason: String,
}

/// Why a part of an entry cannot be read; [`read`] adds where.
#[derive(Debug)]
enum Problem {
    Io(io::Error),
    Bad(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<String> for Problem {
    fn from(reason: String) -> Self {
        Self::Bad(reason)
    }
}

impl From<&str> for Problem {
    fn from(reason: &str) -> Self {
        Self::Bad(reason.to_owned())
    }
}

/// Hands every entry (path, attributes, body) to `apply`, until the end of the archive; what follows is left unread.
pub(super) fn read<R: BufRead>(reader: R, apply: &mut Apply<'_>) -> Result<(), TarError> {
    let mut input = Input { reader, position: 0 };
    loop {
        let offset = input.position;
        let mut name = Vec::new();
        match read_entry(&mut input, &mut name, apply) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(Problem::Bad(reason)) => return Err(TarError { offset, name, reason }),
            Err(Problem::Io(error)) => return Err(TarError { offset, name, reason: error.to_string() }),
        }
    }
}

/// The stream, and how far it was read.
struct Input<R> {
    reader: R,
    position: u64,
}

impl<R: BufRead> Input<R> {
    /// The next block; `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, Problem> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < block.len() {
            match self.reader.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err("cut off inside a block".into()),
                count => filled += count,
            }
        }
        self.position += 512;
        Ok(Some(block))
    }

    /// The content of a small member (a header of a header), with its padding.
    fn content(&mut self, size: u64) -> Result<Vec<u8>, Problem> {
        if size > PAX_BYTES_MAX {
            return Err(format!("extended header of {size} bytes").into());
        }
        let mut content = Vec::new();
        while (content.len() as u64) < size {
            content.extend_from_slice(&self.block()?.ok_or("cut off inside an extended header")?);
        }
        content.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(content)
    }

    /// Passes over content and its padding, which the last entry of an archive may lack (as in Go).
    fn skip(&mut self, size: u64) -> Result<(), Problem> {
        let mut count = padded(size)?;
        let padding = count - size;
        while count > 0 {
            let available = self.reader.fill_buf()?.len();
            if available == 0 {
                if count <= padding {
                    break;
                }
                return Err("cut off inside a file's content".into());
            }
            let step = usize::try_from(count).unwrap_or(usize::MAX).min(available);
            self.reader.consume(step);
            self.position += step as u64;
            count -= step as u64;
        }
        Ok(())
    }
}

/// Bytes that content takes with its padding.
fn padded(size: u64) -> Result<u64, Problem> {
    size.checked_next_multiple_of(512).ok_or_else(|| "size is too large".into())
}

/// Reads headers up to and including one entry; `false` at the end of the archive.
fn read_entry<R: BufRead>(
    input: &mut Input<R>,
    name: &mut Vec<u8>,
    apply: &mut Apply<'_>,
) -> Result<bool, Problem> {
    let mut pax = Pax::default();
    let (mut long_name, mut long_link) = (None, None);
    let mut is_first = true;
    loop {
        let Some(block) = input.block()? else {
            return if is_first { Ok(false) } else { Err("cut off after an extended header".into()) };
        };
        if block == [0; BLOCK_BYTES] {
            return match input.block()? {
                Some(next) if next != [0; BLOCK_BYTES] => Err("a lone block of zeros".into()),
                _ => Ok(false),
            };
        }
        is_first = false;
        let header = Header::new(&block)?;
        match header.typeflag() {
            // A second one replaces the first, as in Go; so they cannot pile up either.
            b'x' => {
                pax = Pax::default();
                pax.parse(&input.content(header.size()?)?)?;
            }
            // Global headers are ignored, as by docker and containerd: git-archive puts a comment there.
            b'g' => drop(input.content(header.size()?)?),
            b'L' => long_name = Some(until_nul(&input.content(header.size()?)?)),
            b'K' => long_link = Some(until_nul(&input.content(header.size()?)?)),
            // Volume label and old GNU long names: say nothing about the files.
            b'V' | b'N' => input.skip(header.size()?)?,
            _ => {
                let own = || long_name.unwrap_or_else(|| header.name());
                *name = pax.sparse.name.clone().or_else(|| pax.path.clone()).unwrap_or_else(own);
                let link = pax.link.clone().or(long_link).unwrap_or_else(|| header.link());
                let attributes = attributes(&header, &mut pax)?;
                let body = body(input, &header, &pax, name, link)?;
                apply(name, attributes, body).map_err(Problem::Bad)?;
                return Ok(true);
            }
        }
    }
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn attributes(header: &Header<'_>, pax: &mut Pax) -> Result<Attributes, Problem> {
    let id = |given: Option<u64>, own: Result<i64, Problem>| -> Result<u32, Problem> {
        let id = match given {
            Some(id) => id,
            None => u64::try_from(own?).map_err(|_| "negative owner")?,
        };
        // -1 means "leave it" to chown(2): nobody can own anything with it.
        u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| "owner is out of range".into())
    };
    let mtime = match pax.mtime {
        Some(mtime) => mtime,
        None => Timestamp { secs: header.mtime()?, nanos: 0 },
    };
    Ok(Attributes {
        mode: u16::try_from(header.mode()? & 0o7777).unwrap_or(0),
        uid: id(pax.uid, header.uid())?,
        gid: id(pax.gid, header.gid())?,
        mtime,
        xattrs: pax.take_xattrs()?,
    })
}

/// What the entry is; reads past its content.
fn body<R: BufRead>(
    input: &mut Input<R>,
    header: &Header<'_>,
    pax: &Pax,
    name: &[u8],
    link: Vec<u8>,
) -> Result<Body, Problem> {
    let size = || pax.size.map_or_else(|| header.size(), Ok);
    match header.typeflag() {
        // Types 1 to 6 have no content, whatever their size says (as in Go).
        b'1' => Ok(Body::HardLink(link)),
        b'2' => Ok(Body::Symlink(link)),
        b'3' => Ok(Body::CharDevice(device(header)?)),
        b'4' => Ok(Body::BlockDevice(device(header)?)),
        b'5' => Ok(Body::Directory),
        // How directories were written before they had a type; they have no content either.
        0 if name.ends_with(b"/") => Ok(Body::Directory),
        b'6' => Ok(Body::Fifo),
        // GNU's directory with a list of its names as content.
        b'D' => {
            input.skip(size()?)?;
            Ok(Body::Directory)
        }
        b'S' => sparse::old_gnu(input, header, size()?),
        b'0' | 0 | b'7' if pax.sparse.is_used() => sparse::pax(input, &pax.sparse, size()?),
        b'0' | 0 | b'7' => {
            let (size, start) = (size()?, input.position);
            input.skip(size)?;
            Ok(Body::File { size, data: Data::Contiguous(start) })
        }
        b'M' => Err("continues a file of another volume".into()),
        other => Err(format!("unknown type '{}'", other.escape_ascii()).into()),
    }
}

fn device(header: &Header<'_>) -> Result<DeviceId, Problem> {
    let number = |value: i64| u32::try_from(value).map_err(|_| "device number is out of range");
    Ok(DeviceId { major: number(header.device_major()?)?, minor: number(header.device_minor()?)? })
}
