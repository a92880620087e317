//! `layerfs exec`

use std::io::IsTerminal as _;

use anyhow::ensure;

use super::container_args::ExecArgs;
use super::{environment, run};
use crate::container::command_line::Wishes;
use crate::container::executing;

/// Runs a command in a running container and gives its exit code; in the background that it was started.
pub(super) fn run(args: &ExecArgs) -> anyhow::Result<u8> {
    if args.tty && args.interactive && !args.detach {
        ensure!(std::io::stdin().is_terminal(), "the input device is not a TTY: leave out -t, or -i");
    }
    let wishes = Wishes {
        command: args.command.clone(),
        env: run::variables(&args.env_file, &args.env)?,
        workdir: args.workdir.clone().map(Into::into),
        user: args.user.clone(),
        terminal: args.tty,
        interactive: args.interactive,
        ..Wishes::default()
    };
    let containers = environment::containers(&environment::store()?)?;
    let mut execution = executing::prepare(&containers, &args.container, wishes)?;
    let done = if args.detach { execution.start().map(|()| 0) } else { execution.run() };
    Ok(done.unwrap_or_else(|error| run::told(&error)))
}
