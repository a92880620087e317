//! `layerfs rm`

use anyhow::ensure;

use super::container_args::RmArgs;
use super::environment;
use super::selection::Missing;
use crate::container::ending::{self, How};

/// Removes containers and prints their ids; goes on after a failure, and fails then.
pub(super) fn run(args: &RmArgs) -> anyhow::Result<u8> {
    ensure!(args.force || args.wait.time.is_none(), "--time: without --force nothing is stopped");
    let containers = environment::containers(&environment::store()?)?;
    let names = args.selection.names(&containers, Missing::ignored_if(args.ignore), |_| true)?;
    let how = How { force: args.force.then(|| args.wait.wanted()), volumes: args.volumes };
    super::each(&names, |text| ending::remove(&containers, text, how).map(|id| id.to_string()))
}
