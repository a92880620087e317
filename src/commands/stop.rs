//! `layerfs stop` and `layerfs kill`

use std::time::Duration;

use anyhow::Context as _;

use super::container_args::{KillArgs, StopArgs};
use super::environment;
use crate::container::stopping::{self, Stop};
use crate::sys::process;

/// Stops containers and prints what they were called by; goes on after a failure, and fails then.
pub(super) fn stop(args: &StopArgs) -> anyhow::Result<u8> {
    let signal = args.signal.as_deref().map(signal_number).transpose()?;
    // As docker and podman have it.
    let wait = u64::try_from(args.time).ok().map(Duration::from_secs);
    let containers = environment::containers(&environment::store()?)?;
    let how = Stop { signal, wait };
    super::each(&args.containers, |text| stopping::stop(&containers, text, &how).map(|()| text.to_owned()))
}

/// Sends a signal to containers; goes on after a failure, and fails then.
pub(super) fn kill(args: &KillArgs) -> anyhow::Result<u8> {
    let signal = signal_number(&args.signal)?;
    let containers = environment::containers(&environment::store()?)?;
    super::each(&args.containers, |text| stopping::kill(&containers, text, signal).map(|()| text.to_owned()))
}

fn signal_number(text: &str) -> anyhow::Result<i32> {
    process::signal_number(text).with_context(|| format!("--signal {text}: no such signal"))
}
