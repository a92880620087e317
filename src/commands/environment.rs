//! What the environment decides: where things are kept.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::container::Containers;
use crate::store::Store;

/// The store's root: `$LAYERFS_ROOT`, else `/var/lib/layerfs` for root, else below the user's data directory (XDG Base
/// Directory Specification).
fn root() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(root) = set("LAYERFS_ROOT") {
        return std::path::absolute(&root).context("LAYERFS_ROOT");
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/layerfs"));
    }
    let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    Ok(data.context("neither LAYERFS_ROOT nor XDG_DATA_HOME nor HOME is set: set one")?.join("layerfs"))
}

/// The caller's store.
pub(super) fn store() -> anyhow::Result<Store> {
    Ok(Store::open(&root()?)?)
}

/// The caller's containers.
pub(super) fn containers(store: &Store) -> anyhow::Result<Containers> {
    Ok(Containers::open(store.root())?)
}
