//! Whether everything in the layout is what it says: every blob's digest, every reference, and the documents' descriptors
//! (image-spec image-layout.md, descriptor.md). Nothing is changed here.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::gc::{digest_named, files_of, is_gone};
use super::{Descriptor, Store, StoreError};
use crate::model::Digest;
use crate::model::limits::DOCUMENT_BYTES_MAX;
use crate::sys::atomic::TEMP_PREFIX;
use crate::sys::file_range::FileRange;

/// Temporary files older than this are nobody's any more.
const TEMPORARY_AGE_MIN: Duration = Duration::from_secs(24 * 3600);
/// How the temporary files of others begin that write to the layout.
const RECEIVED_PREFIX: &str = "oci-put-blob";
/// Threads that hash. More only wait for the disk.
const THREADS_MAX: usize = 8;
/// An index in an index in an index: nobody makes more.
const DEPTH_MAX: usize = 4;
/// Things that are told of; whoever finds more has to begin anew in any case.
const FINDINGS_MAX: usize = 10_000;

/// Told while blobs are read.
pub trait Checking: Sync {
    /// `done` of `total` bytes have been read.
    fn checked(&self, done: u64, total: u64);
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What, with its digest or file.
    pub what: String,
    /// What to do about it.
    pub advice: String,
    /// What [`super::repair`] does about it.
    pub repair: Repair,
}

/// What can be done without the image's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Nothing.
    Nothing,
    /// The blob is put aside, so that whoever brings the image again writes it anew.
    PutAside(Digest),
    /// The file `oci-layout` is written.
    WriteLayout,
    /// `index.json` says what is true of this document.
    Describe(Descriptor),
    /// The entry of `index.json` leads nowhere and is dropped.
    Drop {
        /// What it is called, if it is.
        name: Option<String>,
        /// Where it leads.
        digest: Digest,
    },
    /// A file that nobody needs is removed.
    Remove(PathBuf),
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// How many blobs were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries of `index.json`.
    pub images: u64,
    /// What is wrong, and what was done about it.
    pub findings: Vec<Finding>,
}

/// A blob as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blob {
    Good(u64),
    Damaged,
    /// It may be good, but cannot be read.
    Unread,
}

/// Reads and compares everything. Images may be used, added and removed meanwhile.
///
/// # Errors
/// [`StoreError`] when the directories cannot be listed; what is wrong with the rest is a [`Finding`].
pub fn check(store: &Store, told: &dyn Checking) -> Result<Checked, StoreError> {
    let mut checked = Checked::default();
    check_layout(store, &mut checked.findings);
    let files = blob_files(store, &mut checked.findings)?;
    let mut blobs = hash_all(store, &files, told, &mut checked);
    // Nothing is removed from here on, so what is missing is missing.
    let _lock = store.lock()?;
    let index = match store.refs().read() {
        Ok(index) => index,
        Err(error) => {
            let advice = "restore it from a copy, or move it away: then the names are lost, and the images have to be \
                          brought again"
                .to_owned();
            checked.add(Finding { what: error.to_string(), advice, repair: Repair::Nothing });
            return Ok(checked);
        }
    };
    checked.images = index.manifests.len() as u64;
    if index.schema_version != 2 {
        let what = format!("index.json: schemaVersion is {}, not 2", index.schema_version);
        let advice = "it was written for another version: copy the images with skopeo".to_owned();
        checked.add(Finding { what, advice, repair: Repair::Nothing });
    }
    let mut walk = Walk { store, blobs: &mut blobs, checked: &mut checked, seen: HashSet::new() };
    for entry in &index.manifests {
        walk.entry(entry);
    }
    Ok(checked)
}

impl Checked {
    fn add(&mut self, finding: Finding) {
        add(&mut self.findings, finding);
    }
}

fn add(findings: &mut Vec<Finding>, finding: Finding) {
    if findings.len() < FINDINGS_MAX {
        findings.push(finding);
    }
}

fn check_layout(store: &Store, findings: &mut Vec<Finding>) {
    let path = store.oci_dir().join("oci-layout");
    let version = read_small(&path).map(|bytes| {
        let document: Option<Value> = serde_json::from_slice(&bytes).ok();
        document.and_then(|document| Some(document.get("imageLayoutVersion")?.as_str()?.to_owned()))
    });
    let reason = match version {
        Ok(Some(version)) if version == "1.0.0" => return,
        Ok(Some(version)) => format!("imageLayoutVersion is {version:?}, not 1.0.0"),
        Ok(None) => "it does not say imageLayoutVersion".to_owned(),
        Err(error) => error.to_string(),
    };
    let what = format!("{}: {reason}", path.display());
    let advice = "--repair writes it again".to_owned();
    add(findings, Finding { what, advice, repair: Repair::WriteLayout });
}

/// Files that are named like blobs, with their lengths. Temporary files that nobody writes to any more are findings.
fn blob_files(store: &Store, findings: &mut Vec<Finding>) -> Result<Vec<(Digest, u64)>, StoreError> {
    let mut files = Vec::new();
    for (entry, age) in files_of(store.blobs().dir())? {
        let metadata = match entry.metadata() {
            Err(error) if is_gone(&error) => continue,
            metadata => metadata.map_err(StoreError::io("read", &entry.path()))?,
        };
        match digest_named(&entry, "") {
            Some(digest) if metadata.is_file() => files.push((digest, metadata.len())),
            Some(digest) => {
                let what = format!("blob {digest} is no regular file: {}", entry.path().display());
                let advice = "look what it is, and move it away".to_owned();
                add(findings, Finding { what, advice, repair: Repair::Nothing });
            }
            None => left_over(&entry, age, TEMP_PREFIX, findings),
        }
    }
    for (entry, age) in files_of(&store.oci_dir())? {
        left_over(&entry, age, TEMP_PREFIX, findings);
        left_over(&entry, age, RECEIVED_PREFIX, findings);
    }
    for dir in [store.root().to_owned(), store.index_dir()] {
        for (entry, age) in files_of(&dir)? {
            left_over(&entry, age, TEMP_PREFIX, findings);
        }
    }
    Ok(files)
}

fn left_over(entry: &std::fs::DirEntry, age: Duration, prefix: &str, findings: &mut Vec<Finding>) {
    let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
    if is_file && age >= TEMPORARY_AGE_MIN && entry.file_name().to_string_lossy().starts_with(prefix) {
        let path = entry.path();
        let what = format!("{}: a temporary file that was left behind", path.display());
        let advice = "--repair removes it".to_owned();
        add(findings, Finding { what, advice, repair: Repair::Remove(path) });
    }
}

/// Hashes all blobs, several at a time.
fn hash_all(
    store: &Store,
    files: &[(Digest, u64)],
    told: &dyn Checking,
    checked: &mut Checked,
) -> HashMap<Digest, Blob> {
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let results = Mutex::new(Vec::with_capacity(files.len()));
    let work = || {
        while let Some((digest, bytes)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = hash(store, *digest);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((*digest, *bytes, found));
            told.checked(done.fetch_add(*bytes, Ordering::Relaxed) + bytes, total);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(digest, ..)| *digest);
    let mut blobs = HashMap::new();
    for (digest, bytes, found) in results {
        let Some(blob) = judge(store, digest, found, checked) else { continue };
        checked.blobs += 1;
        checked.bytes += bytes;
        blobs.insert(digest, blob);
    }
    blobs
}

fn hash(store: &Store, digest: Digest) -> io::Result<(Digest, u64)> {
    let range = FileRange::open(&store.blobs().path(digest))?;
    Ok((range.digest()?, range.len()))
}

/// What a blob is by what its bytes hash to; `None` when it has gone meanwhile.
fn judge(
    store: &Store,
    digest: Digest,
    found: io::Result<(Digest, u64)>,
    checked: &mut Checked,
) -> Option<Blob> {
    let path = store.blobs().path(digest);
    match found {
        Ok((actual, bytes)) if actual == digest => Some(Blob::Good(bytes)),
        Ok((actual, bytes)) => {
            let what = format!("blob {digest} is damaged: its {bytes} bytes hash to {actual}");
            let advice = format!(
                "--repair puts it aside into {}, and then bring the image again",
                store.damaged_dir().display()
            );
            checked.add(Finding { what, advice, repair: Repair::PutAside(digest) });
            Some(Blob::Damaged)
        }
        Err(error) if is_gone(&error) => None,
        Err(error) => {
            let what = format!("blob {digest} cannot be read: {}: {error}", path.display());
            let advice = "look at the disk and at its permissions".to_owned();
            checked.add(Finding { what, advice, repair: Repair::Nothing });
            Some(Blob::Unread)
        }
    }
}

/// From the entries of `index.json` to all that they lead to.
struct Walk<'a> {
    store: &'a Store,
    blobs: &'a mut HashMap<Digest, Blob>,
    checked: &'a mut Checked,
    /// Documents that were walked through.
    seen: HashSet<Digest>,
}

const BRING: &str = "bring the image again";

impl Walk<'_> {
    /// An entry of `index.json`, which can be written anew.
    fn entry(&mut self, entry: &Descriptor) {
        let name = entry.full_name().map(str::to_owned);
        let called =
            name.clone().map_or_else(|| format!("image {}", entry.digest), |name| format!("image {name:?}"));
        let drop = Repair::Drop { name, digest: entry.digest };
        let bytes = match self.blob(entry.digest) {
            Some(Blob::Good(bytes)) => bytes,
            Some(Blob::Unread) => return,
            Some(Blob::Damaged) => {
                let what = format!("{called}: its manifest {} is damaged", entry.digest);
                let advice = format!("--repair drops the name, and then {BRING}");
                return self.checked.add(Finding { what, advice, repair: drop });
            }
            None => {
                let what = format!("{called}: its manifest {} is missing", entry.digest);
                let advice = format!("--repair drops the name, and then {BRING}");
                return self.checked.add(Finding { what, advice, repair: drop });
            }
        };
        let document = match self.document(entry.digest, bytes) {
            Ok(document) => document,
            Err(reason) => {
                let what = format!("{called}: {} is no manifest: {reason}", entry.digest);
                let advice = format!("--repair drops the name, and then {BRING}");
                return self.checked.add(Finding { what, advice, repair: drop });
            }
        };
        let own =
            media_type(&document).filter(|own| !entry.media_type.is_empty() && *own != entry.media_type);
        let mut right = entry.clone();
        right.size = bytes;
        if let Some(own) = own {
            right.media_type = own.to_owned();
        }
        if right != *entry {
            let what = format!(
                "{called}: index.json says {} bytes of {:?}, the manifest {} has {bytes} and is {:?}",
                entry.size, entry.media_type, entry.digest, right.media_type
            );
            let advice = "--repair writes into index.json what is true".to_owned();
            self.checked.add(Finding { what, advice, repair: Repair::Describe(right) });
        }
        self.walk(&called, entry.digest, &document, 0);
    }

    /// What a manifest or an index leads to.
    fn walk(&mut self, called: &str, digest: Digest, document: &Value, depth: usize) {
        if !self.seen.insert(digest) {
            return;
        }
        let list = |field: &str| document.get(field).and_then(Value::as_array).cloned();
        if let Some(manifests) = list("manifests") {
            if depth >= DEPTH_MAX {
                return self.tell(format!("{called}: more than {DEPTH_MAX} indexes in each other"));
            }
            // Of an image for many platforms mostly one is there.
            let parsed: Vec<Descriptor> = manifests.iter().filter_map(descriptor).collect();
            let mut present = 0_u64;
            for one in &parsed {
                if self.blob(one.digest).is_some() {
                    present += 1;
                    self.part(called, "manifest", one, Some(depth + 1));
                }
            }
            if present == 0 && !parsed.is_empty() {
                self.tell(format!(
                    "{called}: of the {} manifests of index {digest} none is there",
                    parsed.len()
                ));
            }
            return;
        }
        match document.get("config").map(|config| (config, descriptor(config))) {
            Some((_, Some(config))) => self.part(called, "config", &config, None),
            Some((_, None)) => self.tell(format!("{called}: manifest {digest}: its config is no descriptor")),
            None => self.tell(format!("{called}: manifest {digest} has no config")),
        }
        for layer in list("layers").unwrap_or_default() {
            match descriptor(&layer) {
                Some(layer) => self.part(called, "layer", &layer, None),
                None => self.tell(format!("{called}: manifest {digest}: a layer is no descriptor")),
            }
        }
    }

    /// Something that a document refers to, which nobody can write anew.
    fn part(&mut self, called: &str, what: &str, descriptor: &Descriptor, depth: Option<usize>) {
        let digest = descriptor.digest;
        let bytes = match self.blob(digest) {
            Some(Blob::Good(bytes)) => bytes,
            Some(Blob::Damaged) => return self.tell(format!("{called}: its {what} {digest} is damaged")),
            Some(Blob::Unread) => return,
            None => return self.tell(format!("{called}: its {what} {digest} is missing")),
        };
        if bytes != descriptor.size {
            let promised = descriptor.size;
            self.tell(format!("{called}: its {what} {digest} has {bytes} bytes, not {promised}"));
        }
        if what == "layer" {
            return;
        }
        match self.document(digest, bytes) {
            Err(reason) => self.tell(format!("{called}: its {what} {digest} is none: {reason}")),
            Ok(document) => {
                let own = media_type(&document).unwrap_or(&descriptor.media_type);
                if own != descriptor.media_type {
                    let promised = &descriptor.media_type;
                    self.tell(format!("{called}: its {what} {digest} is {own:?}, not {promised:?}"));
                }
                if let Some(depth) = depth {
                    self.walk(called, digest, &document, depth);
                }
            }
        }
    }

    fn tell(&mut self, what: String) {
        self.checked.add(Finding { what, advice: BRING.to_owned(), repair: Repair::Nothing });
    }

    /// What is known of a blob; one that came after the others were read is read now.
    fn blob(&mut self, digest: Digest) -> Option<Blob> {
        if let Some(known) = self.blobs.get(&digest) {
            return Some(*known);
        }
        let found = judge(self.store, digest, hash(self.store, digest), self.checked)?;
        self.blobs.insert(digest, found);
        Some(found)
    }

    fn document(&self, digest: Digest, bytes: u64) -> Result<Value, String> {
        if bytes > DOCUMENT_BYTES_MAX {
            return Err(format!("{bytes} bytes, at most {DOCUMENT_BYTES_MAX} are accepted"));
        }
        let text = read_small(&self.store.blobs().path(digest)).map_err(|error| error.to_string())?;
        let document: Value = serde_json::from_slice(&text).map_err(|error| format!("not JSON: {error}"))?;
        if document.is_object() { Ok(document) } else { Err("not a JSON object".to_owned()) }
    }
}

fn descriptor(value: &Value) -> Option<Descriptor> {
    serde_json::from_value(value.clone()).ok()
}

fn media_type(document: &Value) -> Option<&str> {
    document.get("mediaType").and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
