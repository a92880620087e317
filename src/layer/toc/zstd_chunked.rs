//! zstd:chunked: a zstd frame for each chunk, and behind them the TOC, compressed, in a frame that decoders skip
//! (containers/storage, docs/containers-storage-zstd-chunked.md).

use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::entries::{Format, TocBuilder};
use super::{TOC_BYTES_MAX, Toc, TocError, decoding, json};
use crate::index::{DecodeError, Encoding};
use crate::model::Digest;
use crate::sys::file_range::FileRange;

/// The only kind of TOC: `ManifestTypeCRFS`.
const TYPE_CRFS: u64 = 1;

/// Where the TOC lies in the blob.
#[derive(Debug)]
pub(super) struct Position {
    range: Range<u64>,
    /// Of the TOC itself.
    json_bytes: usize,
}

impl Position {
    /// Reads the annotation.
    pub(super) fn parse(text: &str, blob: &FileRange) -> Result<Self, TocError> {
        let wrong = |reason: &str| TocError::Annotation {
            name: "manifest-position".to_owned(),
            reason: format!("{text:?}: {reason}"),
        };
        let number = |part: &str| part.parse().ok().filter(|_| !part.starts_with('+'));
        let numbers: Option<Vec<u64>> = text.split(':').map(number).collect();
        let Some([offset, len, json_bytes, kind]) = numbers.as_deref() else {
            return Err(wrong("not offset:length:length:type"));
        };
        if *kind != TYPE_CRFS {
            return Err(wrong("an unknown type of table"));
        }
        if *len > TOC_BYTES_MAX || *json_bytes > TOC_BYTES_MAX {
            return Err(wrong(&format!("more than {} MiB", TOC_BYTES_MAX >> 20)));
        }
        let end = offset.checked_add(*len).filter(|end| *end <= blob.len());
        let end = end.ok_or_else(|| wrong(&format!("not inside a blob of {} bytes", blob.len())))?;
        let json_bytes = usize::try_from(*json_bytes).map_err(|_| wrong("too long"))?;
        Ok(Self { range: *offset..end, json_bytes })
    }
}

/// The TOC, verified before it is decompressed.
pub(super) fn fetch(
    blob: &FileRange,
    expected: Digest,
    position: &Position,
    doubtful: &mut Range<u64>,
) -> Result<Vec<u8>, TocError> {
    *doubtful = position.range.clone();
    let len = usize::try_from(position.range.end - position.range.start);
    let mut packed = vec![0; len.map_err(|_| TocError::bad(blob, "too long"))?];
    blob.read_at(position.range.start, &mut packed).map_err(|source| TocError::io(blob, source))?;
    let found = Digest::from_bytes(Sha256::digest(&packed).into());
    if found != expected {
        return Err(TocError::Mismatch { path: blob.to_path_buf(), expected, found });
    }
    let unpack = || zstd::bulk::decompress(&packed, position.json_bytes);
    let bad = |reason: String| DecodeError::Bad { offset: position.range.start, reason };
    let json = decoding::guarded(|| unpack().map_err(|error| bad(error.to_string())));
    let json = json.map_err(|error| TocError::undecoded(blob, error))?;
    if json.len() != position.json_bytes {
        return Err(TocError::bad(blob, "it is shorter than its annotation says"));
    }
    Ok(json)
}

/// The layer that the TOC describes.
pub(super) fn understand(blob: &FileRange, position: &Position, json: &[u8]) -> Result<Toc, TocError> {
    let mut builder = TocBuilder::new(Format::ZstdChunked, position.range.start);
    json::read(json, &mut |entry| builder.add(&entry)).map_err(|reason| TocError::bad(blob, reason))?;
    let (index, contents) = builder.finish(blob)?;
    Ok(Toc { index: Arc::new(index), contents: Arc::new(contents), encoding: Encoding::Zstd })
}
