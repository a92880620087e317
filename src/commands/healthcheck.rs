//! `layerfs healthcheck`

use anyhow::Context as _;

use super::container_args::{HealthcheckArgs, HealthcheckCommand};
use super::environment;
use crate::container::health;

/// What podman exits with when a container is unhealthy.
const UNHEALTHY: u8 = 1;

/// Checks a container, once, and gives 0 when it is healthy.
pub(super) fn run(args: &HealthcheckArgs) -> anyhow::Result<u8> {
    let HealthcheckCommand::Run { container } = &args.command;
    let containers = environment::containers(&environment::store()?)?;
    let checked = health::check_now(&containers, container)?;
    let checked =
        checked.with_context(|| format!("container {container} was made without a health check"))?;
    if checked.exit_code == 0 {
        return Ok(0);
    }
    super::complain("unhealthy");
    Ok(UNHEALTHY)
}
