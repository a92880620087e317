//! `layerfs pause` and `layerfs unpause`

use super::container_args::PauseArgs;
use super::environment;
use crate::container::{ContainerError, Containers, Listing, Status, pausing};

/// Pauses containers and prints what they were called by; goes on after a failure, and fails then.
pub(super) fn pause(args: &PauseArgs) -> anyhow::Result<u8> {
    let containers = environment::containers(&environment::store()?)?;
    let texts = named(&containers, args, |status| status.is_running() && !status.is_paused())?;
    super::each(&texts, |text| pausing::pause(&containers, text).map(|()| text.to_owned()))
}

/// Lets paused containers go on and prints what they were called by; goes on after a failure, and fails then.
pub(super) fn unpause(args: &PauseArgs) -> anyhow::Result<u8> {
    let containers = environment::containers(&environment::store()?)?;
    let texts = named(&containers, args, Status::is_paused)?;
    super::each(&texts, |text| pausing::unpause(&containers, text).map(|()| text.to_owned()))
}

fn named(
    containers: &Containers,
    args: &PauseArgs,
    wanted: impl Fn(&Status) -> bool,
) -> Result<Vec<String>, ContainerError> {
    if !args.all {
        return Ok(args.containers.clone());
    }
    let live = containers.listed(Listing::Live)?;
    Ok(live.iter().filter(|one| wanted(&one.status)).map(|one| one.about.id.to_string()).collect())
}
