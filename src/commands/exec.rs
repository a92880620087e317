//! `layerfs exec`

use super::container_args::ExecArgs;
use super::{environment, run};
use crate::container::{Wishes, executing};

/// Runs a command in a running container and gives its exit code; in the background that it was started.
pub(super) fn run(args: &ExecArgs) -> anyhow::Result<u8> {
    if !args.detach {
        args.process.must_be_terminal()?;
    }
    let wishes = Wishes { command: args.command.clone(), ..args.process.wishes()? };
    let containers = environment::containers(&environment::store()?)?;
    let mut execution = executing::prepare(&containers, &args.container, wishes)?;
    let done = if args.detach { execution.start().map(|()| 0) } else { execution.run() };
    Ok(done.unwrap_or_else(|error| run::told(&error)))
}
