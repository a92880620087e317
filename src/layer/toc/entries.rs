//! From the entries of a TOC to objects and chunks.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::contents::{Chunk, Collector, Contents, Stored};
use super::json::Entry;
use super::{CHUNK_BYTES_MAX, TocError};
use crate::index::{Attributes, Body, Data, IndexBuilder, LayerIndex, Xattr, shown_xattrs};
use crate::model::digest::DigestError;
use crate::model::limits::{LAYER_BYTES_MAX, LAYER_ENTRIES_MAX};
use crate::model::{DeviceId, Digest, Timestamp, rfc3339};
use crate::sys::file_range::FileRange;

/// What Go has for no time: the first second of year 1.
const GO_NO_TIME: Timestamp = Timestamp { secs: -62_135_596_800, nanos: 0 };

/// Where the formats differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    EStargz,
    /// Chunks may be of zeros.
    ZstdChunked,
}

/// Takes entries in the order of the TOC.
#[derive(Debug)]
pub(super) struct TocBuilder {
    format: Format,
    index: IndexBuilder,
    contents: Collector,
    /// Where in the blob the TOC begins: all content is before it.
    content_end: u64,
    entries: u64,
    bytes: u64,
    open: Option<OpenFile>,
}

/// A file of which not all chunks were seen.
#[derive(Debug)]
struct OpenFile {
    name: String,
    size: u64,
    filled: u64,
}

impl TocBuilder {
    pub(super) fn new(format: Format, content_end: u64) -> Self {
        let (index, contents) = (IndexBuilder::new(), Collector::new(content_end));
        Self { format, index, contents, content_end, entries: 0, bytes: 0, open: None }
    }

    /// Applies an entry. The error is for people.
    pub(super) fn add(&mut self, entry: &Entry<'_>) -> Result<(), String> {
        self.entries += 1;
        if self.entries > LAYER_ENTRIES_MAX {
            return Err(format!("more than {LAYER_ENTRIES_MAX} entries"));
        }
        let named = |reason: String| format!("entry {:?}: {reason}", entry.name);
        if entry.kind == "chunk" {
            return self.add_chunk(entry).map_err(named);
        }
        self.close_file()?;
        self.add_object(entry).map_err(named)
    }

    /// Adds a file that the TOC does not mention: the TOC itself.
    pub(super) fn add_itself(
        &mut self,
        path: &[u8],
        attributes: Attributes,
        chunk: Chunk,
    ) -> Result<(), String> {
        self.close_file()?;
        let data = Data::Contiguous(self.contents.begin_file()?);
        self.contents.add(chunk);
        self.index.add(path, attributes, Body::File { size: chunk.len, data })
    }

    /// All that was added; `end` is where in the blob nothing of the layer is any more.
    pub(super) fn finish(mut self, blob: &FileRange) -> Result<(LayerIndex, Contents), TocError> {
        let bad = |reason| TocError::bad(blob, reason);
        self.close_file().map_err(bad)?;
        let contents = self.contents.finish().map_err(bad)?;
        let path: &Path = blob.path();
        let index = self.index.finish(path).map_err(|error| TocError::no_index(blob, error))?;
        Ok((index, contents))
    }

    /// Something else begins at this place of the blob.
    pub(super) fn bound(&mut self, offset: u64) {
        self.contents.bound(offset);
    }

    fn add_object(&mut self, entry: &Entry<'_>) -> Result<(), String> {
        let link =
            || text(entry.link_name.as_deref().unwrap_or_default()).map(|link| link.as_bytes().to_vec());
        let body = match &*entry.kind {
            "dir" => Body::Directory,
            "reg" => self.file(entry)?,
            "symlink" => Body::Symlink(link()?),
            "hardlink" => Body::HardLink(link()?),
            "char" => Body::CharDevice(device(entry)?),
            "block" => Body::BlockDevice(device(entry)?),
            "fifo" => Body::Fifo,
            other => return Err(format!("unknown type {other:?}")),
        };
        self.index.add(text(&entry.name)?.as_bytes(), attributes(entry)?, body)
    }

    /// Begins a file, with its first chunk.
    fn file(&mut self, entry: &Entry<'_>) -> Result<Body, String> {
        let size = entry.size.unwrap_or(0);
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > LAYER_BYTES_MAX {
            return Err(format!("the files have more than {LAYER_BYTES_MAX} bytes"));
        }
        let data = Data::Contiguous(self.contents.begin_file()?);
        if size > 0 {
            self.open = Some(OpenFile { name: entry.name.clone().into_owned(), size, filled: 0 });
            self.add_chunk(entry)?;
        }
        if let Some(end) = entry.end_offset.filter(|end| *end > 0) {
            self.contents.bound(self.checked_end(end)?);
        }
        Ok(Body::File { size, data })
    }

    fn checked_end(&self, end: u64) -> Result<u64, String> {
        (end <= self.content_end)
            .then_some(end)
            .ok_or_else(|| format!("it ends at {end}, which is no content"))
    }

    /// The next chunk of the file before.
    fn add_chunk(&mut self, entry: &Entry<'_>) -> Result<(), String> {
        let Some(open) = self.open.as_mut().filter(|open| open.name == *entry.name) else {
            return Err("a chunk of no file, or behind its end".to_owned());
        };
        let (file_offset, rest) = (open.filled, open.size - open.filled);
        if entry.chunk_offset.unwrap_or(0) != file_offset {
            return Err(format!("a chunk is not at {file_offset}, where the one before ends"));
        }
        let len = match entry.chunk_size.unwrap_or(0) {
            0 => rest,
            len if len <= rest => len,
            len => return Err(format!("a chunk of {len} bytes where {rest} are left")),
        };
        let is_only = len == open.size;
        open.filled += len;
        if open.filled == open.size {
            self.open = None;
        }
        let chunk_type = entry.chunk_type.as_deref().filter(|_| self.format == Format::ZstdChunked);
        let stored = match chunk_type.unwrap_or_default() {
            "" => Some(self.stored(entry, len, is_only)?),
            "zeros" => {
                // There are bytes for them in the blob, which nobody needs.
                if let Some(offset) = entry.offset.filter(|offset| *offset < self.content_end) {
                    self.contents.bound(offset);
                }
                None
            }
            other => return Err(format!("unknown type of chunk {other:?}")),
        };
        self.contents.add(Chunk { file_offset, len, stored });
        Ok(())
    }

    /// Where a chunk lies.
    fn stored(&self, entry: &Entry<'_>, len: u64, is_only: bool) -> Result<Stored, String> {
        let (offset, inner) = (entry.offset.unwrap_or(0), entry.inner_offset.unwrap_or(0));
        // At 0 there is the header of the first entry; content may only be in the same gzip member.
        if (offset, inner) == (0, 0) || offset >= self.content_end {
            return Err(format!("content at {offset}, where there is none"));
        }
        if len > CHUNK_BYTES_MAX || inner > CHUNK_BYTES_MAX {
            let max = CHUNK_BYTES_MAX >> 20;
            return Err(format!("a chunk of {len} bytes behind {inner}: {max} MiB of each are accepted"));
        }
        let own = entry.chunk_digest.as_deref().filter(|digest| !digest.is_empty());
        let of_all = entry.digest.as_deref().filter(|digest| is_only && !digest.is_empty());
        let digest = own.or(of_all).ok_or("content without a digest")?;
        let digest: Digest = digest.parse().map_err(|error: DigestError| error.to_string())?;
        Ok(Stored { offset, inner, digest: *digest.as_bytes() })
    }

    fn close_file(&mut self) -> Result<(), String> {
        match self.open.take() {
            None => Ok(()),
            Some(OpenFile { name, size, filled }) => {
                Err(format!("entry {name:?}: its chunks have {filled} bytes, and it has {size}"))
            }
        }
    }
}

/// What every kind of object has.
fn attributes(entry: &Entry<'_>) -> Result<Attributes, String> {
    let owner = |id: Option<i64>| {
        // As of a tar: -1 means "leave it" to chown(2).
        let id = u32::try_from(id.unwrap_or(0)).ok().filter(|id| *id != u32::MAX);
        id.ok_or("owner is out of range")
    };
    let mut xattrs: Vec<Xattr> = Vec::new();
    for (name, value) in entry.xattrs.iter().flatten() {
        let value = STANDARD.decode(value.as_deref().unwrap_or_default());
        let value = value.map_err(|error| format!("extended attribute {name:?}: {error}"))?;
        xattrs.push((text(name)?.as_bytes().to_vec(), value));
    }
    Ok(Attributes {
        mode: u16::try_from(entry.mode.unwrap_or(0) & 0o7777).unwrap_or(0),
        uid: owner(entry.uid)?,
        gid: owner(entry.gid)?,
        mtime: time(entry.mod_time.as_deref().unwrap_or_default())?,
        xattrs: shown_xattrs(xattrs)?,
    })
}

/// None is the beginning of 1970, as in a tar.
fn time(text: &str) -> Result<Timestamp, String> {
    if text.is_empty() {
        return Ok(Timestamp::default());
    }
    let time = rfc3339::parse_with_offset(text).ok_or_else(|| format!("{text:?} is not a time"))?;
    Ok(if time == GO_NO_TIME { Timestamp::default() } else { time })
}

fn device(entry: &Entry<'_>) -> Result<DeviceId, String> {
    let number =
        |number: Option<i64>| u32::try_from(number.unwrap_or(0)).map_err(|_| "device number is out of range");
    Ok(DeviceId { major: number(entry.dev_major)?, minor: number(entry.dev_minor)? })
}

/// A text that says which bytes it stands for: writers put U+FFFD in the place of what is no UTF-8.
fn text(text: &str) -> Result<&str, String> {
    match text.contains(['\u{fffd}', '\0']) {
        true => Err(format!("{text:?} does not say which bytes it stands for")),
        false => Ok(text),
    }
}
