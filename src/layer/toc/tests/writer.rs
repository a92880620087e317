//! Writers of blobs with tables of contents, after the formats' documentation.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Blob, TocAnnotation};
use crate::layer::tar_tests::gzip;
use crate::model::rfc3339::{self, Precision};
use crate::model::{Digest, Timestamp};

/// How an eStargz is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) chunk_bytes: usize,
    /// What a gzip member has at least, so that several chunks are in one.
    pub(super) member_bytes_min: usize,
    pub(super) is_legacy: bool,
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// The blob so far, and the member that is being filled.
#[derive(Default)]
struct Members {
    blob: Vec<u8>,
    open: Vec<u8>,
}

impl Members {
    fn close(&mut self) {
        if !self.open.is_empty() {
            self.blob.extend(gzip(&self.open, 6));
            self.open.clear();
        }
    }
}

/// The tar as eStargz; `change` is what becomes of its TOC.
pub(super) fn estargz(tar: &[u8], form: Form, change: &dyn Fn(&mut Value)) -> Blob {
    let (mut members, mut entries, mut at) = (Members::default(), Vec::new(), 0);
    let mut archive = tar::Archive::new(Cursor::new(tar));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut described = describe(&mut entry);
        let start = usize::try_from(entry.raw_file_position()).unwrap();
        members.open.extend_from_slice(&tar[at..start]);
        let size = if described["type"] == "reg" { usize::try_from(entry.size()).unwrap() } else { 0 };
        at = start + size;
        if size == 0 {
            entries.push(described);
            continue;
        }
        described["size"] = size.into();
        described["digest"] = digest(&tar[start..at]).to_string().into();
        let name = described["name"].clone();
        for (number, chunk) in tar[start..at].chunks(form.chunk_bytes).enumerate() {
            if members.open.len() >= form.member_bytes_min {
                members.close();
            }
            let mut entry =
                if number == 0 { described.clone() } else { json!({"type": "chunk", "name": name}) };
            entry["offset"] = members.blob.len().into();
            if !members.open.is_empty() {
                entry["innerOffset"] = members.open.len().into();
            }
            let offset = number * form.chunk_bytes;
            if offset > 0 {
                entry["chunkOffset"] = offset.into();
            }
            if offset + chunk.len() < size {
                entry["chunkSize"] = chunk.len().into();
            }
            entry["chunkDigest"] = digest(chunk).to_string().into();
            entries.push(entry);
            members.open.extend_from_slice(chunk);
        }
    }
    members.open.resize(members.open.len() + at.next_multiple_of(512) - at, 0);
    members.close();
    let mut toc = json!({"version": 1, "entries": entries});
    change(&mut toc);
    seal(members.blob, &serde_json::to_vec(&toc).unwrap(), form.is_legacy)
}

/// Adds TOC and footer.
pub(super) fn seal(mut blob: Vec<u8>, json: &[u8], is_legacy: bool) -> Blob {
    let place = format!("{:016x}STARGZ", blob.len());
    let mut header = tar::Header::new_ustar();
    header.set_path("stargz.index.json").unwrap();
    header.set_size(json.len() as u64);
    header.set_mode(0);
    header.set_cksum();
    let mut tar = [header.as_bytes(), json].concat();
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    blob.extend(gzip(&tar, 9));
    blob.extend([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255]);
    blob.extend_from_slice(if is_legacy { b"\x16\0" } else { b"\x1a\0SG\x16\0" });
    blob.extend_from_slice(place.as_bytes());
    blob.extend([1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
    Blob { bytes: blob, annotation: TocAnnotation::EStargz { toc_digest: digest(json) } }
}

fn describe<R: std::io::Read>(entry: &mut tar::Entry<'_, R>) -> Value {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut xattrs = serde_json::Map::new();
    for record in entry.pax_extensions().unwrap().into_iter().flatten() {
        let record = record.unwrap();
        if let Some(name) = record.key().unwrap().strip_prefix("SCHILY.xattr.") {
            xattrs.insert(name.to_owned(), STANDARD.encode(record.value_bytes()).into());
        }
    }
    let header = entry.header();
    let kind = match header.entry_type() {
        tar::EntryType::Regular => "reg",
        tar::EntryType::Link => "hardlink",
        tar::EntryType::Symlink => "symlink",
        tar::EntryType::Char => "char",
        tar::EntryType::Block => "block",
        tar::EntryType::Directory => "dir",
        tar::EntryType::Fifo => "fifo",
        other => panic!("{other:?}"),
    };
    let time = Timestamp { secs: i64::try_from(header.mtime().unwrap()).unwrap(), nanos: 0 };
    let mut described = json!({
        "name": text(&entry.path_bytes()),
        "type": kind,
        "modtime": rfc3339::text(time, Precision::Seconds),
        "mode": header.mode().unwrap(),
        "uid": header.uid().unwrap(),
        "gid": header.gid().unwrap(),
        "userName": "ignored",
        "xattrs": xattrs,
    });
    if let Some(link) = entry.link_name_bytes() {
        described["linkName"] = text(&link).into();
    }
    if matches!(kind, "char" | "block") {
        // The fields may be empty.
        described["devMajor"] = header.device_major().unwrap_or_default().into();
        described["devMinor"] = header.device_minor().unwrap_or_default().into();
    }
    described
}

/// A zstd:chunked blob of these frames; its TOC has what `entries` makes of the places where they begin.
pub(super) fn chunked(frames: &[&[u8]], entries: impl FnOnce(&[usize]) -> Value) -> Blob {
    let mut blob = zstd::bulk::compress(b"a header", 1).unwrap();
    let mut places = Vec::new();
    for frame in frames {
        places.push(blob.len());
        blob.extend(zstd::bulk::compress(frame, 1).unwrap());
    }
    places.push(blob.len());
    let entries = entries(&places);
    let json = serde_json::to_vec(&json!({"version": 1, "entries": entries, "tarSplitDigest": "x"})).unwrap();
    let packed = zstd::bulk::compress(&json, 1).unwrap();
    blob.extend([0x50, 0x2a, 0x4d, 0x18]);
    blob.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
    let position = format!("{}:{}:{}:1", blob.len(), packed.len(), json.len());
    blob.extend(&packed);
    Blob { bytes: blob, annotation: TocAnnotation::ZstdChunked { checksum: digest(&packed), position } }
}
