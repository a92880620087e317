//! `layerfs rm`

use super::args::RmArgs;
use super::{environment, failure};
use crate::container::ending;

/// Removes containers and prints their ids; goes on after a failure, and fails then.
pub(super) fn run(args: &RmArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    let mut failed = None;
    for text in &args.containers {
        match ending::remove(&containers, text, args.force) {
            Ok(id) => super::print(&format!("{id}\n"))?,
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    super::complain(&format!("Error: {}", failure::line(&earlier)));
                }
            }
        }
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(0),
    }
}
