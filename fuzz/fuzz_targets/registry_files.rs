//! Files about registries: what somebody wrote by hand is an error that names the file, or it is understood; never a panic.
//!
//! The first byte says what the rest is: even a file of credentials, odd a `registries.conf`.
#![no_main]

use std::fs;

use layerfs::registry::Places;
use layerfs::registry::configuration::{Named, Registries};
use layerfs::registry::credentials::{Keychain, RegistryKey};
use libfuzzer_sys::fuzz_target;

/// No program: helpers that a file names must not be started here.
const NO_HELPER: [&[u8]; 2] = [b"credHelpers", b"credsStore"];

fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = data.split_first() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("file");
    fs::write(&path, text).expect("a temporary file");
    let variable = |name: &str| (name == "CONTAINERS_REGISTRIES_CONF").then(|| path.clone().into());
    let places = Places::new(variable, None, 0).with_etc(dir.path());
    if kind % 2 == 0 {
        if NO_HELPER.iter().any(|name| text.windows(name.len()).any(|part| part == *name)) {
            return;
        }
        let chain = Keychain::new(&places, Some(&path), &[]);
        for key in ["docker.io/library/a", "r.io:5000/a/b", "r.io"] {
            let key: RegistryKey = key.parse().expect("a registry");
            drop(chain.find(&key));
            if chain.store(&key, "user", "secret").is_ok() {
                assert!(chain.find(&key).is_ok_and(|found| found.is_some()), "what was kept is not found");
                assert!(chain.erase(&key).is_ok_and(|keeper| keeper.is_some()), "what was kept is not forgotten");
            }
        }
        return;
    }
    let Ok(registries) = Registries::load(&places) else { return };
    for (host, path) in [("docker.io", "library/a"), ("r.io:5000", "a/b"), ("a.r.io", "a")] {
        for digest in [None, Some("sha256:0")] {
            drop(registries.sources(&Named { host, path, tag: Some("1"), digest }));
        }
        drop(registries.names(path));
    }
});
