//! `store check`: the layout, and what was made of it.

use crate::image::facts_are_damaged;
use crate::index::{IndexError, LayerIndex};
use crate::store::{self, Checked, Checking, Finding, Repair, Repaired, Store, StoreError};

use super::PATIENCE;

/// Everything that is wrong in a store.
///
/// # Errors
/// When its directories cannot be listed.
pub fn check(store: &Store, told: &dyn Checking) -> Result<Checked, StoreError> {
    let mut checked = store::check(store, told)?;
    let kept = store.image_facts();
    if facts_are_damaged(&kept) {
        let what = format!("{}: what lists have kept is damaged", kept.display());
        checked.findings.push(of_cache(what, kept));
    }
    let dir = store.index_dir();
    let list = std::fs::read_dir(&dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = list.map_err(|source| StoreError::Io { action: "list", path: dir, source })?;
    for path in entries.into_iter().map(|entry| entry.path()) {
        if path.extension().is_none_or(|ending| ending != "lfx") {
            continue;
        }
        let reason = match LayerIndex::open(&path) {
            Ok(index) => match index.damaged_pages().len() {
                0 => continue,
                pages => format!("{pages} pages of it are damaged"),
            },
            Err(error @ IndexError::Stale { .. }) if !error.is_other_version() => error.to_string(),
            // Of another version, gone meanwhile, or not to be read by us.
            Err(_) => continue,
        };
        let what = format!("index {}: {reason}", path.display());
        checked.findings.push(of_cache(what, path));
    }
    Ok(checked)
}

/// Does what can be done about it. Nobody adds or removes images meanwhile.
///
/// # Errors
/// [`StoreError::Busy`], or when something cannot be written.
pub fn repair(store: &Store, findings: &[Finding]) -> Result<Vec<Repaired>, StoreError> {
    let lock = store.lock_alone(PATIENCE)?;
    store::repair(store, &lock, findings)
}

fn of_cache(what: String, path: std::path::PathBuf) -> Finding {
    let advice = "--repair removes it; it is made again when it is needed".to_owned();
    Finding { what, advice, repair: Repair::Remove(path) }
}
