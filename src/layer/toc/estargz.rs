//! eStargz: a gzip member for each chunk, one for the TOC, and an empty one whose header says where that is
//! (stargz-snapshotter, docs/estargz.md).

use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::contents::{Chunk, Stored};
use super::entries::{Format, TocBuilder};
use super::{TOC_BYTES_MAX, Toc, TocError, decoding, json};
use crate::index::{Encoding, FileInTar, only_file};
use crate::model::Digest;
use crate::sys::file_range::FileRange;

/// The file in the tar that the TOC is.
const TOC_NAME: &[u8] = b"stargz.index.json";
/// An empty gzip member with `SG` and 22 bytes in its extra field (RFC 1952, section 2.3.1.1).
const FOOTER_BYTES: usize = 51;
/// That of stargz before it was eStargz: without `SG` and the length.
const LEGACY_FOOTER_BYTES: usize = 47;
/// gzip, deflate, with an extra field and nothing else.
const FOOTER_START: [u8; 4] = [0x1f, 0x8b, 8, 4];
/// What a tar has besides its only file: headers, padding, the end, rounded up as tar(1) does.
const TAR_BYTES_MORE: u64 = 64 << 10;

/// The TOC, verified, and where it was.
pub(super) struct Found {
    /// Its gzip member, up to the footer.
    member: Range<u64>,
    tar: Vec<u8>,
    file: FileInTar,
    digest: Digest,
}

impl Found {
    fn json(&self) -> &[u8] {
        content(&self.tar, &self.file)
    }
}

fn content<'a>(tar: &'a [u8], file: &FileInTar) -> &'a [u8] {
    let start = usize::try_from(file.offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(usize::try_from(file.size).unwrap_or(usize::MAX));
    tar.get(start..end).unwrap_or_default()
}

/// Finds the TOC by the blob's footer.
pub(super) fn find(blob: &FileRange, expected: Digest, doubtful: &mut Range<u64>) -> Result<Found, TocError> {
    let start = blob.len().saturating_sub(FOOTER_BYTES as u64);
    *doubtful = start..blob.len();
    let mut end = [0; FOOTER_BYTES];
    let count = blob.read_at(start, &mut end).map_err(|source| TocError::io(blob, source))?;
    let (offset, len) = footer(&end[..count]).ok_or_else(|| TocError::bad(blob, "no footer of eStargz"))?;
    let member = offset..blob.len() - len as u64;
    // Nobody vouches for the footer: what it says must not have the whole blob fetched.
    if member.is_empty() || member.end - member.start > TOC_BYTES_MAX + TAR_BYTES_MORE {
        return Err(TocError::bad(blob, format!("the footer says that it is at {offset}")));
    }
    doubtful.start = offset;
    let tar = decoding::guarded(|| {
        let mut decoder = decoding::decoder(blob, Encoding::Gzip, member.start, member.end)?;
        decoding::read_all(&mut decoder, TOC_BYTES_MAX + TAR_BYTES_MORE)
    });
    let tar = tar.map_err(|error| TocError::undecoded(blob, error))?;
    let file = only_file(&tar).map_err(|reason| TocError::bad(blob, reason))?;
    let file = file.filter(|file| file.path.strip_prefix(b"./").unwrap_or(&file.path) == TOC_NAME);
    let file = file.ok_or_else(|| TocError::bad(blob, "no stargz.index.json where the footer says"))?;
    let digest = Digest::from_bytes(Sha256::digest(content(&tar, &file)).into());
    if digest != expected {
        return Err(TocError::Mismatch { path: blob.to_path_buf(), expected, found: digest });
    }
    Ok(Found { member, tar, file, digest })
}

/// Where the TOC's member begins, and how long the footer is, from the last bytes of a blob.
fn footer(end: &[u8]) -> Option<(u64, usize)> {
    let modern = end.strip_prefix(&FOOTER_START).and_then(|rest| rest.get(6..34));
    let legacy = end.get(end.len().checked_sub(LEGACY_FOOTER_BYTES)?..)?.strip_prefix(&FOOTER_START);
    let legacy = legacy.and_then(|rest| rest.get(6..30));
    // The length of the field, of its only part, and the part.
    let modern =
        modern.and_then(|field| field.strip_prefix(b"\x1a\0SG\x16\0")).filter(|_| end.len() == FOOTER_BYTES);
    let legacy = legacy.and_then(|field| field.strip_prefix(b"\x16\0"));
    let (text, len) = match (modern, legacy) {
        (Some(text), _) => (text, FOOTER_BYTES),
        (None, text) => (text?, LEGACY_FOOTER_BYTES),
    };
    let digits = text.strip_suffix(b"STARGZ")?;
    let is_hex = digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex)?;
    Some((u64::from_str_radix(digits, 16).ok()?, len))
}

/// The layer that the TOC describes. As in the tar, and for whoever pulls the whole, its own file is there, and so are the
/// marks for what is to be fetched first.
pub(super) fn understand(blob: &FileRange, found: &Found) -> Result<Toc, TocError> {
    let bad = |reason| TocError::bad(blob, reason);
    let mut builder = TocBuilder::new(Format::EStargz, found.member.start);
    json::read(found.json(), &mut |entry| builder.add(&entry)).map_err(bad)?;
    let FileInTar { path, attributes, size, offset: inner } = &found.file;
    let stored = Stored { offset: found.member.start, inner: *inner, digest: *found.digest.as_bytes() };
    let chunk = Chunk { file_offset: 0, len: *size, stored: Some(stored) };
    builder.add_itself(path, attributes.clone(), chunk).map_err(bad)?;
    builder.bound(found.member.end);
    let (index, contents) = builder.finish(blob)?;
    Ok(Toc { index: Arc::new(index), contents: Arc::new(contents), encoding: Encoding::Gzip })
}
