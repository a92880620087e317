//! What the environment decides: where things are kept, and which.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use nix::unistd::{Uid, User};
use sha2::{Digest as _, Sha256};

use crate::container::Containers;
use crate::image::Image;
use crate::layer::SpillDir;
use crate::model::Digest;
use crate::mount::Caches;
use crate::registry::Places;
use crate::registry::configuration::Registries;
use crate::registry::credentials::Keychain;
use crate::registry::proxies::Proxies;
use crate::registry::surroundings::Surroundings;
use crate::store::Store;

/// The store's root: `$LAYERFS_ROOT`, else `/var/lib/layerfs` for root, else below the user's data directory (XDG Base
/// Directory Specification).
pub(super) fn root() -> anyhow::Result<PathBuf> {
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

/// What this host says about registries. `authfile` is the file of credentials that was named, if one was.
pub(super) fn surroundings(authfile: Option<&Path>) -> anyhow::Result<Surroundings> {
    let variable = |name: &str| std::env::var_os(name);
    let uid = Uid::effective();
    let set = variable("HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    // Who has no home directory has nothing in it.
    let home = home(set, uid).ok();
    let places = Places::new(variable, home.as_deref(), uid.as_raw());
    let registries = Registries::load(&places)?;
    let keychain = Keychain::new(&places, authfile, registries.credential_helpers());
    let roots = match variable("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from) {
        Some(path) => {
            let pem = std::fs::read(&path).with_context(|| format!("SSL_CERT_FILE {}", path.display()))?;
            Some(Arc::new(pem))
        }
        None => None,
    };
    Ok(Surroundings { registries, keychain, proxies: Proxies::new(variable)?, roots, places })
}

/// The caller's store.
pub(super) fn store() -> anyhow::Result<Store> {
    Ok(Store::open(&root()?)?)
}

/// What is kept of an image's layers besides indexes. `command` is what it is started with.
pub(super) fn caches(store: &Store, image: &Image, command: &[OsString]) -> anyhow::Result<Caches> {
    let trace = match std::env::var_os("LAYERFS_TRACE") {
        Some(off) if off == "0" => None,
        _ => Some(store.trace_dir().join(trace_name(&image.config_digest, command))),
    };
    Ok(Caches { spill: spill(store)?, trace })
}

/// Where decoded content is kept: `$LAYERFS_SPILL_BYTES` says how much, 0 not at all.
pub(super) fn spill(store: &Store) -> anyhow::Result<Option<SpillDir>> {
    let bytes_max = match std::env::var_os("LAYERFS_SPILL_BYTES").filter(|value| !value.is_empty()) {
        None => None,
        Some(value) => {
            let bytes = value.to_str().and_then(bytes_of);
            Some(bytes.context("LAYERFS_SPILL_BYTES: expected a number of bytes, such as 0 or 2G")?)
        }
    };
    Ok((bytes_max != Some(0)).then(|| SpillDir { path: store.spill_dir(), bytes_max }))
}

/// A number, perhaps with `K`, `M`, `G` or `T` for powers of 1024.
pub(super) fn bytes_of(text: &str) -> Option<u64> {
    let unit = ["K", "M", "G", "T"].into_iter().zip(1_u32..).find_map(|(unit, power)| {
        let number = text.strip_suffix(unit)?;
        Some((number, 1024_u64.checked_pow(power)?))
    });
    let (number, unit) = unit.unwrap_or((text, 1));
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// The config's digest; with a command, also what tells it from others.
fn trace_name(config: &Digest, command: &[OsString]) -> String {
    if command.is_empty() {
        return config.hex();
    }
    let mut sha256 = Sha256::new();
    for word in command {
        // No word has a NUL.
        sha256.update(word.as_encoded_bytes());
        sha256.update([0]);
    }
    let hash = Digest::from_bytes(sha256.finalize().into()).hex();
    format!("{}-{}", config.hex(), &hash[..16])
}

/// The caller's containers.
pub(super) fn containers(store: &Store) -> anyhow::Result<Containers> {
    Ok(Containers::open(store.root())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_with_and_without_units() {
        let known = ["0", "17", "2K", "3M", "1G", "1T"].map(|text| bytes_of(text).unwrap());
        assert_eq!(known, [0, 17, 2048, 3 << 20, 1 << 30, 1 << 40]);
        for wrong in ["", "K", "-1", "1.5G", "1g", "99999999999T"] {
            assert_eq!(bytes_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_command_has_a_trace_of_its_own() {
        let config = Digest::from_bytes([7; 32]);
        let name =
            |words: &[&str]| trace_name(&config, &words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(name(&[]), config.hex());
        let names = [name(&["a"]), name(&["a", "b"]), name(&["ab"])];
        assert!(names.iter().all(|name| name.starts_with(&config.hex()) && name.len() == 81), "{names:?}");
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
    }

    #[test]
    fn home_is_what_was_set_else_what_the_system_knows() {
        assert_eq!(home(Some("/set".into()), Uid::from_raw(0)).unwrap(), PathBuf::from("/set"));
        assert_eq!(home(None, Uid::from_raw(0)).unwrap(), PathBuf::from("/root"));
        let error = home(None, Uid::from_raw(4_111_222_333)).unwrap_err().to_string();
        assert!(error.contains("4111222333") && error.contains("LAYERFS_ROOT"), "{error}");
    }
}
