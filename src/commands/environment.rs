//! What the environment decides: where things are kept.

use std::path::PathBuf;

use anyhow::Context as _;
use nix::unistd::{Uid, User};

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
    let data = match set("XDG_DATA_HOME") {
        Some(data) => data,
        None => home(set("HOME"), Uid::effective())?.join(".local/share"),
    };
    Ok(data.join("layerfs"))
}

/// `$HOME`, else what the system knows of the user: mount(8) hides the variable from its helper, and services lack it.
fn home(set: Option<PathBuf>, uid: Uid) -> anyhow::Result<PathBuf> {
    if let Some(home) = set {
        return Ok(home);
    }
    let user = User::from_uid(uid).with_context(|| format!("home directory of uid {uid}"))?;
    let home = user.map(|user| user.dir).filter(|dir| dir.is_absolute());
    home.with_context(|| {
        format!("uid {uid} has no home directory: set LAYERFS_ROOT to a directory of your own")
    })
}

/// The caller's store.
pub(super) fn store() -> anyhow::Result<Store> {
    Ok(Store::open(&root()?)?)
}

/// The caller's containers.
pub(super) fn containers(store: &Store) -> anyhow::Result<Containers> {
    Ok(Containers::open(store.root())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_what_was_set_else_what_the_system_knows() {
        assert_eq!(home(Some("/set".into()), Uid::from_raw(0)).unwrap(), PathBuf::from("/set"));
        assert_eq!(home(None, Uid::from_raw(0)).unwrap(), PathBuf::from("/root"));
        let error = home(None, Uid::from_raw(4_111_222_333)).unwrap_err().to_string();
        assert!(error.contains("4111222333") && error.contains("LAYERFS_ROOT"), "{error}");
    }
}
