//! `verify`: everything of an image against what it promises. It goes on after a defect.
//!
//! Documents are checked by whoever opens the image; here are the layers: the blob against its digest, the index page by
//! page, each granule decoded from the blob and compared, all of them together against the diffID. Two threads hash
//! while one decodes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::bytes_text;
use crate::image::Image;
use crate::index::IndexError;
use crate::layer::{LayerError, LayerSource, TarLayer, TarSource};
use crate::model::Digest;
use crate::mount::{Caches, MountSpec, Progress};
use crate::sys::file_range::FileRange;

/// Read at once when a blob is hashed.
const PIECE_BYTES: usize = 1 << 20;
/// Granules on their way to the hash: 2 MiB at most.
const GRANULES_AHEAD: usize = 16;
/// Paths that are named for one damaged stretch; the others are counted.
const PATHS_MAX: usize = 20;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefectKind {
    /// A document, or a layer that is not there as the documents say.
    Document,
    /// Bytes of a blob that do not have its digest.
    Blob,
    /// Bytes of the uncompressed layer.
    Content,
    /// The layer as a whole.
    DiffId,
    /// The index; it was built again.
    Index,
}

/// One broken thing.
#[derive(Clone, Debug)]
pub struct Defect {
    /// What.
    pub kind: DefectKind,
    /// In which layer, counted from 1 at the base.
    pub layer: Option<usize>,
    /// The digest that it should have, or that of the layer it is in.
    pub digest: Option<Digest>,
    /// The file.
    pub file: PathBuf,
    /// Where: in the file for a document, blob or index, in the uncompressed layer for content.
    pub range: Option<Range<u64>>,
    /// What is wrong.
    pub reason: String,
    /// Files of the image that have content there, some of them.
    pub paths: Vec<Vec<u8>>,
    /// How many there are.
    pub path_count: usize,
}

/// What was found out about an image.
#[derive(Debug)]
pub struct Verified {
    /// What it is called.
    pub name: String,
    /// Layers that were read.
    pub layers: usize,
    /// Bytes that were read, uncompressed.
    pub bytes: u64,
    /// Layers without any digest: plain directories.
    pub unverifiable: usize,
    /// What is broken.
    pub defects: Vec<Defect>,
    /// What could not be looked at, and why.
    pub unread: Vec<String>,
}

/// One layer that is being checked.
#[derive(Debug)]
struct Checking<'a> {
    number: usize,
    tar: &'a TarSource,
    found: &'a mut Verified,
}

/// Checks all layers of an image, one after the other.
#[must_use]
pub fn verify(image: &Image, index_dir: &Path, progress: &dyn Progress) -> Verified {
    let spec = MountSpec {
        layers: image.layers.clone(),
        index_dir: index_dir.to_owned(),
        caches: Caches::default(),
    };
    let name = image.name.clone();
    let mut found =
        Verified { name, layers: 0, bytes: 0, unverifiable: 0, defects: Vec::new(), unread: Vec::new() };
    let places = image.layers_by_place();
    let count = places.len();
    for (place, source) in places.into_iter().enumerate() {
        match source {
            Some(LayerSource::Directory(_)) => found.unverifiable += 1,
            Some(LayerSource::Tar(tar)) => {
                found.layers += 1;
                let report = |done: u64, total: u64| progress.indexed(place + 1, count, done, total);
                Checking { number: place + 1, tar, found: &mut found }.run(&spec, &report);
            }
            None => {}
        }
    }
    for broken in &image.documents.broken {
        if !broken.is_damage {
            found.unread.push(format!("layer {}: {}", broken.place + 1, broken.reason));
            continue;
        }
        found.defects.push(Defect {
            kind: DefectKind::Document,
            layer: Some(broken.place + 1),
            digest: Some(broken.diff_id),
            file: PathBuf::from(&image.source),
            range: None,
            reason: broken.reason.clone(),
            paths: Vec::new(),
            path_count: 0,
        });
    }
    found.defects.sort_by_key(|defect| defect.layer);
    found
}

impl Checking<'_> {
    fn run(mut self, spec: &MountSpec, report: &(dyn Fn(u64, u64) + Sync)) {
        let mut damage = Vec::new();
        let total = self.tar.blob.len();
        let opened = spec.layer_to_check(self.tar, &mut |one| damage.push(one), &|done| report(done, total));
        for one in damage {
            let range = one.offset.map(|offset| offset..offset);
            let defect = self.defect(DefectKind::Index, one.path, range, one.reason);
            self.found.defects.push(defect);
        }
        match opened {
            Ok(layer) => self.read(&layer, report),
            // An index that cannot be kept says nothing of the layer.
            Err(error @ IndexError::Io { .. }) if !error.is_of(self.tar.blob.path()) => {
                self.found.unread.push(format!("layer {}: {error}", self.number));
            }
            Err(error) => {
                // Without an index there is no telling where: the whole blob is in doubt.
                let defect =
                    self.defect(DefectKind::Blob, self.tar.blob.to_path_buf(), None, error.to_string());
                self.found.defects.push(defect);
            }
        }
    }

    fn read(&mut self, layer: &TarLayer, report: &(dyn Fn(u64, u64) + Sync)) {
        let file = self.tar.blob.to_path_buf();
        let (tar_bytes, blob_bytes) = (layer.index().tar_bytes(), self.tar.blob.len());
        let mut damaged: BTreeMap<String, Vec<Range<u64>>> = BTreeMap::new();
        let (to_hash, hash_ahead) = sync_channel::<Vec<u8>>(GRANULES_AHEAD);
        let (blob, diff_id) = std::thread::scope(|scope| {
            let blob = scope.spawn(|| digest_of(&self.tar.blob));
            let whole = scope.spawn(move || {
                let mut sha256 = Sha256::new();
                hash_ahead.iter().for_each(|bytes| sha256.update(&bytes));
                Digest::from_bytes(sha256.finalize().into())
            });
            layer.scrub(&mut |range, bytes| {
                let done = u128::from(range.end) * u128::from(blob_bytes) / u128::from(tar_bytes.max(1));
                report(u64::try_from(done).unwrap_or(blob_bytes), blob_bytes);
                match bytes {
                    // Who hashes only ends when this one does.
                    Ok(bytes) => to_hash.send(bytes.to_vec()).unwrap_or_default(),
                    Err(error) => add(damaged.entry(reason(&error)).or_default(), range),
                }
            });
            drop(to_hash);
            (blob.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread died"))), whole.join())
        });
        self.found.bytes += tar_bytes;
        let expected = self.tar.blob_digest.unwrap_or(layer.index().blob_digest());
        let wrong = match blob {
            Ok(actual) if actual == expected => None,
            Ok(actual) => Some(format!("expected {expected}, its bytes hash to {actual}")),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = wrong {
            let offset = self.tar.blob.offset();
            let range = (!self.tar.blob.is_stand_in()).then(|| offset..offset + blob_bytes);
            let mut defect = self.defect(DefectKind::Blob, file.clone(), range, reason);
            defect.digest = Some(expected);
            self.found.defects.push(defect);
        }
        if damaged.is_empty() && diff_id.as_ref().ok() != Some(&self.tar.diff_id) {
            let defect = self.defect(
                DefectKind::DiffId,
                file.clone(),
                None,
                "the bytes do not have the diffID".into(),
            );
            self.found.defects.push(defect);
        }
        for (reason, ranges) in damaged {
            for range in ranges {
                self.damaged(layer, &file, range, &reason);
            }
        }
        if let Err(error) = layer.walk_index() {
            let path = layer.index().path().to_owned();
            let defect = self.defect(DefectKind::Index, path, None, error.to_string());
            self.found.defects.push(defect);
        }
    }

    fn damaged(&mut self, layer: &TarLayer, file: &Path, range: Range<u64>, reason: &str) {
        let paths = layer.files_in(std::slice::from_ref(&range)).unwrap_or_default();
        let mut defect = self.defect(DefectKind::Content, file.to_owned(), Some(range), reason.to_owned());
        defect.path_count = paths.len();
        defect.paths = paths.into_iter().take(PATHS_MAX).collect();
        self.found.defects.push(defect);
    }

    fn defect(&self, kind: DefectKind, file: PathBuf, range: Option<Range<u64>>, reason: String) -> Defect {
        let digest = Some(self.tar.diff_id);
        Defect {
            kind,
            layer: Some(self.number),
            digest,
            file,
            range,
            reason,
            paths: Vec::new(),
            path_count: 0,
        }
    }
}

/// Neighbours become one stretch.
fn add(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// Without the place, which differs from granule to granule.
fn reason(error: &LayerError) -> String {
    match error {
        LayerError::Corrupt { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

fn digest_of(blob: &FileRange) -> std::io::Result<Digest> {
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut offset = 0;
    while offset < blob.len() {
        let count = blob.read_at(offset, &mut buffer)?;
        if count == 0 {
            return Err(std::io::Error::other("the file ends too early"));
        }
        sha256.update(&buffer[..count]);
        offset += count as u64;
    }
    Ok(Digest::from_bytes(sha256.finalize().into()))
}

impl Defect {
    fn word(&self) -> &'static str {
        match self.kind {
            DefectKind::Document => "document",
            DefectKind::Blob => "blob",
            DefectKind::Content => "content",
            DefectKind::DiffId => "diffID",
            DefectKind::Index => "index",
        }
    }

    /// For people: one line, then the files that are hit.
    #[must_use]
    pub fn text(&self) -> String {
        let layer = self.layer.map_or_else(String::new, |layer| format!("layer {layer}: "));
        let digest = self.digest.map_or_else(String::new, |digest| format!(" {digest}"));
        let range = match (&self.range, self.kind) {
            (Some(range), DefectKind::Content) => {
                format!(", uncompressed bytes {} to {}", range.start, range.end)
            }
            (Some(range), _) => format!(", offset {}", range.start),
            (None, _) => String::new(),
        };
        let mut text =
            format!("{layer}{}{digest} in {}{range}: {}", self.word(), self.file.display(), self.reason);
        for path in &self.paths {
            text.push_str(&format!("\n    /{}", super::shown(path)));
        }
        if self.path_count > self.paths.len() {
            text.push_str(&format!("\n    and {} more files", self.path_count - self.paths.len()));
        }
        text
    }

    fn json(&self) -> Map<String, Value> {
        let mut object = Map::new();
        let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
        set("kind", self.word().into());
        set("layer", self.layer.into());
        set("digest", self.digest.map(|digest| digest.to_string()).into());
        set("file", self.file.display().to_string().into());
        set("offset", self.range.as_ref().map(|range| range.start).into());
        set("length", self.range.as_ref().map(|range| range.end - range.start).into());
        set("reason", self.reason.clone().into());
        let path = |path: &Vec<u8>| {
            let mut object = Map::new();
            bytes_text::put(&mut object, "path", &[b"/", &path[..]].concat());
            Value::from(object)
        };
        set("files", self.paths.iter().map(path).collect::<Vec<_>>().into());
        set("file_count", self.path_count.into());
        object
    }
}

impl Verified {
    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let defects: Vec<Value> = self.defects.iter().map(|defect| defect.json().into()).collect();
        serde_json::json!({
            "image": self.name,
            "layers": self.layers,
            "bytes": self.bytes,
            "unverifiable": self.unverifiable,
            "ok": self.defects.is_empty() && self.unread.is_empty(),
            "defects": defects,
            "unread": self.unread,
        })
    }
}
