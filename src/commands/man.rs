//! Man pages, from the definitions that parse.

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::args::{Cli, ManArgs};

/// Writes `layerfs.1` and a page for each command.
pub(super) fn run(args: &ManArgs) -> anyhow::Result<u8> {
    anyhow::ensure!(args.dir.is_dir(), "{}: not a directory: create it first", args.dir.display());
    clap_mangen::generate_to(Cli::command(), &args.dir).with_context(|| args.dir.display().to_string())?;
    Ok(0)
}
