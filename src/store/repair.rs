//! What can be put right without an image's origin: damaged blobs are put aside, names that lead nowhere are dropped.

use std::path::Path;

use super::check::{Finding, Repair};
use super::{OCI_LAYOUT, Store, StoreError, StoreLockExclusive};
use crate::sys::atomic;
use crate::sys::file_range::FileRange;

/// What became of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The finding's words.
    pub what: String,
    /// What was done; `None` when nothing can be done here.
    pub done: Option<String>,
}

/// Does what can be done about each finding. Each is looked at again first: it may be long ago that it was found. Blobs come
/// before names, as a name is only dropped when nothing is where it leads.
///
/// # Errors
/// [`StoreError`] when something cannot be written; what was done until then stays done.
pub fn repair(
    store: &Store,
    _lock: &StoreLockExclusive,
    findings: &[Finding],
) -> Result<Vec<Repaired>, StoreError> {
    let is_name = |finding: &&Finding| matches!(finding.repair, Repair::Drop { .. });
    let names = findings.iter().filter(is_name);
    let others = findings.iter().filter(|finding| !is_name(finding));
    let mut repaired = Vec::new();
    for finding in others.chain(names) {
        repaired.push(Repaired { what: finding.what.clone(), done: one(store, &finding.repair)? });
    }
    Ok(repaired)
}

fn one(store: &Store, repair: &Repair) -> Result<Option<String>, StoreError> {
    Ok(match repair {
        Repair::Nothing => None,
        Repair::PutAside(digest) => {
            let path = store.blobs().path(*digest);
            let good =
                FileRange::open(&path).and_then(|range| range.digest()).is_ok_and(|found| found == *digest);
            if good {
                return Ok(Some("it has been written again meanwhile".to_owned()));
            }
            let aside = store.damaged_dir();
            super::create_dir(&aside)?;
            let aside = aside.join(digest.hex());
            match std::fs::rename(&path, &aside) {
                Err(error) if super::gc::is_gone(&error) => {
                    return Ok(Some("it has been removed meanwhile".to_owned()));
                }
                moved => moved.map_err(StoreError::io("move away", &path))?,
            }
            flush(store.blobs().dir())?;
            flush(&store.damaged_dir())?;
            Some(format!("moved to {}", aside.display()))
        }
        Repair::WriteLayout => {
            let path = store.oci_dir().join("oci-layout");
            let written = atomic::write(&path, OCI_LAYOUT.as_bytes(), 0o644);
            written.map_err(StoreError::io("write", &path))?;
            Some("written again".to_owned())
        }
        Repair::Describe(right) => store.refs().edit(|index| {
            let is_it = |one: &&mut super::Descriptor| {
                one.digest == right.digest && one.full_name() == right.full_name()
            };
            let found = index.manifests.iter_mut().find(is_it)?;
            found.size = right.size;
            found.media_type.clone_from(&right.media_type);
            Some("index.json says now what is true".to_owned())
        })?,
        Repair::Drop { name, digest } => {
            if is_manifest(store, *digest) {
                return Ok(Some("it has been written again meanwhile".to_owned()));
            }
            let removed = store.refs().edit(|index| {
                let before = index.manifests.len();
                index.manifests.retain(|one| one.digest != *digest || one.full_name() != name.as_deref());
                before != index.manifests.len()
            })?;
            removed.then(|| "dropped from index.json".to_owned())
        }
        Repair::Remove(path) => match std::fs::remove_file(path) {
            Err(error) if super::gc::is_gone(&error) => None,
            removed => {
                removed.map_err(StoreError::io("remove", path))?;
                Some("removed".to_owned())
            }
        },
    })
}

/// Whether there is a JSON object by now that has this digest.
fn is_manifest(store: &Store, digest: crate::model::Digest) -> bool {
    let path = store.blobs().path(digest);
    let Ok(range) = FileRange::open(&path) else { return false };
    let is_small = range.len() <= crate::model::limits::DOCUMENT_BYTES_MAX;
    let is_object = || {
        let bytes = std::fs::read(&path).ok()?;
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes).ok()
    };
    is_small && range.digest().is_ok_and(|found| found == digest) && is_object().is_some()
}

fn flush(dir: &Path) -> Result<(), StoreError> {
    atomic::sync_dir(dir).map_err(StoreError::io("flush", dir))
}
