//! Containers of one store, for tests of their life.

use std::path::PathBuf;

use crate::support::*;

/// Containers, ended with their test.
pub(crate) struct All {
    pub(crate) place: Place,
}

/// The small image.
pub(crate) fn tiny() -> PathBuf {
    image("tiny").join("docker-gzip.tar")
}

impl All {
    pub(crate) fn new() -> Self {
        Self { place: Place::new() }
    }

    pub(crate) fn layerfs(&self, words: &[&str]) -> Done {
        self.place.layerfs(words)
    }

    /// `layerfs run OPTIONS IMAGE sh -c SCRIPT`
    #[track_caller]
    pub(crate) fn run(&self, options: &[&str], script: &str) -> Done {
        let mut layerfs = self.place.command();
        finish(layerfs.arg("run").args(options).arg(tiny()).args(["sh", "-c", script]))
    }

    #[track_caller]
    pub(crate) fn inspect(&self, name: &str) -> serde_json::Value {
        let text = self.layerfs(&["inspect", name]);
        serde_json::from_str::<serde_json::Value>(text.ok()).unwrap()[0].clone()
    }

    #[track_caller]
    pub(crate) fn status(&self, name: &str, awaited: &str) {
        let mut last = String::new();
        let found = eventually(|| {
            last = self.layerfs(&["ps", "-a"]).out;
            last.lines().any(|line| line.ends_with(name) && line.contains(awaited))
        });
        assert!(found, "awaited {awaited:?} of {name}: {last}");
    }
}

impl Drop for All {
    fn drop(&mut self) {
        for id in self.place.containers() {
            self.layerfs(&["rm", "-f", &id]);
        }
    }
}
