//! `--lazy` of `layerfs mount` and `layerfs run`.

use std::time::Duration;

use anyhow::Context as _;

use super::args::PlatformArg;
use super::complain;
use super::options::lazy::LazyArgs;
use super::options::pull::PullArg;
use super::progress::Told;
use super::transfers::Transfers;
use crate::image::Image;
use crate::image::lazy::{self, LazySpec};
use crate::image::pull::PullSpec;
use crate::store::Store;

/// How long a read waits for a registry that does not answer, unless `$LAYERFS_LAZY_SECONDS` says otherwise.
const WAIT: Duration = Duration::from_secs(120);

/// Nobody waits longer.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

impl LazyArgs {
    /// Opens an image as [`PullArg::open`] does, if possible without its layers.
    pub(super) fn open(
        &self,
        pull: &PullArg,
        spec: &str,
        platform: &PlatformArg,
        store: &Store,
        told: Told,
    ) -> anyhow::Result<Image> {
        if !self.lazy {
            return pull.open(spec, platform, store, told);
        }
        let wait = wait()?;
        pull.open_by(spec, platform, store, told, &|asked: &PullSpec| {
            let spec = LazySpec {
                pull: asked.clone(),
                trusted: self.trust_index.clone(),
                background: self.background.into(),
                wait,
            };
            let mut tell = |what: &str| {
                if told == Told::Progress {
                    complain(what);
                }
            };
            let progress = Transfers::new("pulling", told);
            Ok(lazy::open(store, &spec, &platform.sought(told), &progress, &mut tell)?)
        })
    }
}

fn wait() -> anyhow::Result<Duration> {
    match std::env::var_os("LAYERFS_LAZY_SECONDS").filter(|value| !value.is_empty()) {
        None => Ok(WAIT),
        Some(value) => {
            let seconds = value.to_str().and_then(|text| text.parse().ok()).map(Duration::from_secs);
            let wait = seconds.context("LAYERFS_LAZY_SECONDS: expected a number of seconds")?;
            Ok(wait.min(WAIT_MAX))
        }
    }
}
