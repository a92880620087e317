//! `layerfs prune`

use std::time::Duration;

use super::args::PruneArgs;
use super::environment;
use crate::store;

/// Removes what can be made again and was not used for long, and says how much that was. Blobs stay: other tools write to
/// the layout as well, and use again what is there, without a lock.
pub(super) fn run(args: &PruneArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let lock = store.lock_exclusive()?;
    let unused = Duration::from_secs(u64::from(args.unused) * 24 * 3600);
    let done = store::collect_caches(&store, &lock, unused)?;
    super::print(&format!(
        "removed {} indexes, {} caches, {} temporary files: {} MB\n",
        done.indexes,
        done.caches,
        done.temporaries,
        done.bytes / 1_000_000
    ))?;
    Ok(0)
}
