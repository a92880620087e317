//! `verify`: everything of an image against what it promises. It goes on after a defect.
//!
//! Documents are checked by whoever opens the image; here are the layers: the blob against its digest, the index page by
//! page, each granule decoded from the blob and compared, all of them together against the diffID. Two threads hash
//! while one decodes. It takes the same time whatever is damaged.

use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::bytes_text::{self, shown, told};
use crate::image::Image;
use crate::index::IndexError;
use crate::layer::{Damage, Hit, LayerSource, PathsMax, TarLayer, TarSource};
use crate::model::Digest;
use crate::mount::{Caches, MountSpec, Progress};

/// Granules on their way to the hash: 2 MiB at most.
const GRANULES_AHEAD: usize = 16;
/// Paths that are named for one damaged stretch; the others are counted.
const PATHS_MAX: usize = 20;
/// Paths that are named for all of them: damage may be in every other granule.
const PATHS_TOGETHER_MAX: usize = 10_000;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefectKind {
    /// A document, or a layer that is not there as the documents say.
    Document,
    /// Bytes of a blob that do not have its digest.
    Blob,
    /// Bytes of the uncompressed layer that are there, but not those of the image.
    Content,
    /// Bytes of the uncompressed layer that cannot be read or decoded.
    Undecodable,
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
    /// The files of the layer that have content there.
    pub hit: Hit,
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
            hit: Hit::default(),
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
        let mut damaged: Vec<(Damage, Range<u64>)> = Vec::new();
        let (to_hash, hash_ahead) = sync_channel::<Vec<u8>>(GRANULES_AHEAD);
        let (blob, diff_id) = std::thread::scope(|scope| {
            let blob = scope.spawn(|| self.tar.blob.digest());
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
                    Err(damage) => add(&mut damaged, damage, range),
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
        self.damaged(layer, &file, damaged);
        if let Err(error) = layer.walk_index() {
            let path = layer.index().path().to_owned();
            let defect = self.defect(DefectKind::Index, path, None, error.to_string());
            self.found.defects.push(defect);
        }
    }

    fn damaged(&mut self, layer: &TarLayer, file: &Path, damaged: Vec<(Damage, Range<u64>)>) {
        if damaged.is_empty() {
            return;
        }
        let ranges: Vec<Range<u64>> = damaged.iter().map(|(_, range)| range.clone()).collect();
        // An index that cannot say is a defect of its own: the walk finds it.
        let named: usize = self.found.defects.iter().map(|defect| defect.hit.paths.len()).sum();
        let paths_max = PathsMax { each: PATHS_MAX, together: PATHS_TOGETHER_MAX.saturating_sub(named) };
        let mut hits = layer.files_in(&ranges, paths_max).unwrap_or_default().into_iter();
        for (damage, range) in damaged {
            let (kind, reason) = match damage {
                Damage::Differs => (DefectKind::Content, "they do not have their digest".to_owned()),
                Damage::Undecodable(reason) => (DefectKind::Undecodable, reason),
            };
            let mut defect = self.defect(kind, file.to_owned(), Some(range), reason);
            defect.hit = hits.next().unwrap_or_default();
            self.found.defects.push(defect);
        }
    }

    fn defect(&self, kind: DefectKind, file: PathBuf, range: Option<Range<u64>>, reason: String) -> Defect {
        let digest = Some(self.tar.diff_id);
        Defect { kind, layer: Some(self.number), digest, file, range, reason, hit: Hit::default() }
    }
}

/// Neighbours become one stretch.
fn add(damaged: &mut Vec<(Damage, Range<u64>)>, damage: Damage, range: Range<u64>) {
    match damaged.last_mut() {
        Some((last, before)) if before.end == range.start && *last == damage => before.end = range.end,
        _ => damaged.push((damage, range)),
    }
}

impl Defect {
    fn word(&self) -> &'static str {
        match self.kind {
            DefectKind::Document => "document",
            DefectKind::Blob => "blob",
            DefectKind::Content => "content",
            DefectKind::Undecodable => "undecodable",
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
            (Some(range), DefectKind::Content | DefectKind::Undecodable) => {
                format!(", uncompressed bytes {} to {}", range.start, range.end)
            }
            (Some(range), _) => format!(", offset {}", range.start),
            (None, _) => String::new(),
        };
        let (file, reason) = (shown(self.file.as_os_str().as_bytes()), told(&self.reason));
        let mut text = format!("{layer}{}{digest} in {file}{range}: {reason}", self.word());
        for path in &self.hit.paths {
            text.push_str(&format!("\n    {}", shown(&[b"/", &path[..]].concat())));
        }
        let others = self.hit.count.saturating_sub(self.hit.paths.len() as u64);
        if others > 0 {
            text.push_str(&format!("\n    and {others} more files"));
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
        set("files", self.hit.paths.iter().map(path).collect::<Vec<_>>().into());
        set("file_count", self.hit.count.into());
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
