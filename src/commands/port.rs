//! `layerfs port`

use anyhow::{Context as _, ensure};

use super::container_args::PortArgs;
use super::environment;
use crate::container::{ContainerError, ports};
use crate::model::port::Port;

/// Prints where a container's ports are reached.
pub(super) fn run(args: &PortArgs) -> anyhow::Result<u8> {
    let only = match &args.port {
        Some(text) => Some(text.parse::<Port>().with_context(|| format!("port {text}"))?),
        None => None,
    };
    let container = environment::containers(&environment::store()?)?.find(&args.container)?;
    let status = container.status()?;
    if !status.is_running() {
        let name = container.config().name.clone();
        return Err(ContainerError::NotRunning { id: container.id(), name }.into());
    }
    let lines = ports::lines(&ports::published(container.dir(), &status)?, only);
    if let Some(port) = only {
        ensure!(!lines.is_empty(), "container {} does not publish port {port}", args.container);
    }
    super::print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(0)
}
