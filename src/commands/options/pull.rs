//! Whether and how an image comes from a registry.

use clap::{Args, ValueEnum};

use super::registry::RegistryArgs;
use crate::commands::args::PlatformArg;

/// When registries are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// Always; an error when that fails
    Always,
    /// Where the image is not in the store
    Missing,
    /// Never
    Never,
    /// Always, and pulled where it is another one; what is in the store will do when that fails
    Newer,
}

/// `--pull`, and how.
#[derive(Args, Clone, Debug)]
pub struct PullArg {
    /// When registries are asked for the image
    #[arg(long, value_name = "POLICY", default_value = "missing", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pub pull: PullPolicy,
    /// How they are asked
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// `layerfs pull`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
NAME is [HOST/]PATH[:TAG][@DIGEST]; without a host it is one of docker.io. What is there already is not fetched again, \
and what was interrupted goes on where it ended.

The image's id is printed to standard output, everything else to standard error.")]
pub struct PullArgs {
    /// Print the image's id alone
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// All tags of the repository
    #[arg(long, short = 'a')]
    pub all_tags: bool,
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// For which architecture, in Go's words
    #[arg(long, value_name = "ARCH", conflicts_with = "platform")]
    pub arch: Option<String>,
    /// For which operating system
    #[arg(long, value_name = "OS", conflicts_with = "platform")]
    pub os: Option<String>,
    /// For which variant of the architecture
    #[arg(long, value_name = "VARIANT", conflicts_with = "platform")]
    pub variant: Option<String>,
    /// How registries are asked
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// What to pull
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}
