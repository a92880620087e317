//! `layerfs stop` and `layerfs kill`

use anyhow::Context as _;

use super::container_args::{KillArgs, StopArgs};
use super::environment;
use super::selection::Missing;
use crate::container::stopping::{self, Stop};
use crate::sys::process;

/// Stops containers and prints what they were called by; goes on after a failure, and fails then.
pub(super) fn stop(args: &StopArgs) -> anyhow::Result<u8> {
    let signal = args.signal.as_deref().map(signal_number).transpose()?;
    let containers = environment::containers(&environment::store()?)?;
    let how = Stop { signal, wait: args.wait.wanted() };
    let missing = Missing::ignored_if(args.ignore);
    let names = args
        .selection
        .names(&containers, missing, |one| one.status.is_running() || one.status.is_restarting())?;
    super::each(&names, |text| stopping::stop(&containers, text, &how).map(|()| text.to_owned()))
}

/// Sends a signal to containers; goes on after a failure, and fails then.
pub(super) fn kill(args: &KillArgs) -> anyhow::Result<u8> {
    let signal = signal_number(&args.signal)?;
    let containers = environment::containers(&environment::store()?)?;
    let names = args.selection.names(&containers, Missing::Told, |one| one.status.is_running())?;
    super::each(&names, |text| stopping::kill(&containers, text, signal).map(|()| text.to_owned()))
}

fn signal_number(text: &str) -> anyhow::Result<i32> {
    process::signal_number(text).with_context(|| format!("--signal {text}: no such signal"))
}
