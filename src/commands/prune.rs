//! `layerfs prune`

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context as _;

use super::args::PruneArgs;
use super::environment;
use crate::model::Digest;
use crate::store::{self, GcPolicy};

/// Another tool may be writing an image into the store, blob by blob.
const BLOB_AGE_MIN: Duration = Duration::from_secs(24 * 3600);

/// Removes what nothing needs, and says how much that was.
pub(super) fn run(args: &PruneArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let lock = store.lock_exclusive()?;
    // What a damaged one needs is not known: it might be what would go.
    let containers = environment::containers(&store)?.all();
    let containers = containers.context("nothing was removed: remove that container first (layerfs rm)")?;
    let policy = GcPolicy {
        blob_age_min: BLOB_AGE_MIN,
        index_age_min: Duration::from_secs(u64::from(args.unused) * 24 * 3600),
        keep: containers.iter().flat_map(|container| needed(&container.config().image.source)).collect(),
    };
    let done = store::collect(&store, &lock, &policy)?;
    super::print(&format!(
        "removed {} indexes, {} caches, {} blobs, {} temporary files: {} MB\n",
        done.indexes,
        done.caches,
        done.blobs,
        done.temporaries,
        done.bytes / 1_000_000
    ))?;
    Ok(0)
}

/// The manifest that a container was made with: whatever became of its name.
fn needed(source: &str) -> HashSet<Digest> {
    source.rsplit_once('@').and_then(|(_, digest)| digest.parse().ok()).into_iter().collect()
}
