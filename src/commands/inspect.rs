//! `layerfs inspect`

use super::args::InspectArgs;
use super::environment;
use crate::container::view;

/// Prints a JSON array.
pub(super) fn run(args: &InspectArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    let mut rows = Vec::new();
    for text in &args.containers {
        let container = containers.find(text)?;
        let status = container.status()?;
        rows.push((container, status));
    }
    super::print(&view::inspect(&rows)?)?;
    Ok(0)
}
