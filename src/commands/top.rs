//! `layerfs top`

use super::container_args::TopArgs;
use super::environment;
use crate::container::processes;

/// Prints the processes of a running container.
pub(super) fn run(args: &TopArgs) -> anyhow::Result<u8> {
    let columns = processes::columns(&args.descriptors)?;
    let containers = environment::containers(&environment::store()?)?;
    super::print(&processes::table(&containers, &args.container, &columns)?)?;
    Ok(0)
}
