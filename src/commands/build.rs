//! `layerfs build`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, ensure};

use super::args::{BuildArgs, PlatformArg};
use super::progress::{Indexing, Told};
use super::{complain, environment, failure};
use crate::builder::{self, BuildSpec};
use crate::container::sweeping;

/// What a command of the Dockerfile that failed exits with, as docker build does.
const COMMAND_FAILED: u8 = 1;

/// Builds an image and prints its id.
pub(super) fn run(args: &BuildArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    sweeping::sweep(&containers);
    let dockerfile = args.file.clone().unwrap_or_else(|| args.context.join("Dockerfile"));
    let spec = BuildSpec {
        context: args.context.clone(),
        dockerfile,
        name: args.tag.clone(),
        args: build_args(&args.build_arg)?,
        network: args.network.wanted(),
    };
    // What commands print goes where steps are told, so that the id is alone on standard output.
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
    nix::unistd::dup2_stdout(std::io::stderr()).context("standard output")?;
    let mut tell = |text: &str| complain(text);
    let platform = PlatformArg::default();
    let bases = |name: &str| args.pull.open(name, &platform, &store, Told::Progress).map_err(Into::into);
    match builder::build(&store, &containers, &spec, &Indexing::of_any(), &bases, &mut tell) {
        Ok(built) => {
            writeln!(File::from(stdout), "{}", built.config_digest).context("standard output")?;
            Ok(0)
        }
        Err(error) if error.is_failed_command() => {
            complain(&format!("Error: {}", failure::line(&error)));
            Ok(COMMAND_FAILED)
        }
        Err(error) => Err(error.into()),
    }
}

/// `KEY=VALUE`, or `KEY` for the caller's value, if it has one.
fn build_args(texts: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for text in texts {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text.as_str(), std::env::var(text).ok()),
        };
        ensure!(!key.is_empty(), "--build-arg {text}: no name before the =");
        found.extend(value.map(|value| (key.to_owned(), value)));
    }
    Ok(found)
}
