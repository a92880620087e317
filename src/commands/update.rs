//! `layerfs update`

use anyhow::Context as _;

use super::container_args::UpdateArgs;
use super::{environment, selection};
use crate::container::updating::{self, Change};

/// Changes what a container may take, and when it runs again; prints its id.
pub(super) fn run(args: &UpdateArgs) -> anyhow::Result<u8> {
    let containers = environment::containers(&environment::store()?)?;
    let container = match &args.container {
        Some(text) => containers.find(text)?,
        None => containers.find(&selection::latest(&containers)?)?,
    };
    let made_with = container.config().run.as_ref().with_context(|| {
        format!("container {} is a mount: there is nothing to limit", container.config().name)
    })?;
    let restart = args.restart.as_ref().map(|text| text.parse().context("--restart")).transpose()?;
    let change = Change {
        resources: args.resources.changed_from(&made_with.resources)?,
        restart: restart.unwrap_or(made_with.restart),
    };
    updating::update(&containers, &container, &change)?;
    super::print(&format!("{}\n", container.id()))?;
    Ok(0)
}
