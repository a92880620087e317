//! `layerfs rm`

use super::container_args::RmArgs;
use super::environment;
use crate::container::ending;

/// Removes containers and prints their ids; goes on after a failure, and fails then.
pub(super) fn run(args: &RmArgs) -> anyhow::Result<u8> {
    let containers = environment::containers(&environment::store()?)?;
    super::each(&args.containers, |text| {
        ending::remove(&containers, text, args.force).map(|id| id.to_string())
    })
}
