//! What the commands that deal with containers are told.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::{IMAGE_HELP, PlatformArg};
use super::options::attachment::{DetachKeysArg, SigProxyArg};
use super::options::health::HealthArgs;
use super::options::life::LifeArgs;
use super::options::network::NetworkArgs;
use super::options::process::ProcessArgs;
use super::options::resources::ResourceArgs;
use super::options::rights::RightsArgs;
use super::options::storage::StorageArgs;
use crate::container::stopping::StopWait;

/// `layerfs run`
#[derive(Clone, Debug, Args)]
#[command(after_help = IMAGE_HELP, disable_help_flag = true)]
pub struct RunArgs {
    /// In the background: print the container's id and return when the command runs
    #[arg(long, short = 'd')]
    pub detach: bool,
    /// Whether signals are passed on
    #[command(flatten)]
    pub sig_proxy: SigProxyArg,
    /// Which container
    #[command(flatten)]
    pub container: CreateArgs,
}

/// `layerfs create`, and what `layerfs run` makes
#[derive(Clone, Debug, Args)]
#[command(after_help = IMAGE_HELP, disable_help_flag = true)]
pub struct CreateArgs {
    /// How the command runs
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Replace the image's entrypoint; empty for none
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// Remove the container when it ends
    #[arg(long)]
    pub rm: bool,
    /// Name of the container
    #[arg(long)]
    pub name: Option<String>,
    /// Write the container's id into a file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// What becomes of it
    #[command(flatten)]
    pub life: LifeArgs,
    /// How its health is checked
    #[command(flatten)]
    pub health: HealthArgs,
    /// What it sees of the host's files
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Whom it reaches
    #[command(flatten)]
    pub network: NetworkArgs,
    /// What it may do
    #[command(flatten)]
    pub rights: RightsArgs,
    /// What it may take
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Print nothing but the command's own output
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// What to run
    pub image: String,
    /// Command and arguments, instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// `layerfs exec`
#[derive(Clone, Debug, Args)]
pub struct ExecArgs {
    /// In the background
    #[arg(long, short = 'd')]
    pub detach: bool,
    /// How the command runs
    #[command(flatten)]
    pub process: ProcessArgs,
    /// ID, unique prefix or name
    pub container: String,
    /// Command and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// `layerfs attach`
#[derive(Clone, Debug, Args)]
pub struct AttachArgs {
    /// Only show what it prints
    #[arg(long)]
    pub no_stdin: bool,
    /// What detaches
    #[command(flatten)]
    pub keys: DetachKeysArg,
    /// Whether signals are passed on
    #[command(flatten)]
    pub sig_proxy: SigProxyArg,
    /// ID, unique prefix or name
    pub container: String,
}

/// `layerfs healthcheck`
#[derive(Clone, Debug, Args)]
pub struct HealthcheckArgs {
    /// What to do
    #[command(subcommand)]
    pub command: HealthcheckCommand,
}

/// The commands of `layerfs healthcheck`.
#[derive(Clone, Debug, Subcommand)]
pub enum HealthcheckCommand {
    /// Check a running container now: exit with 0 when it is healthy, else with 1
    Run {
        /// ID, unique prefix or name
        container: String,
    },
}

/// `layerfs start`
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// Show its output, and exit as it does
    #[arg(long, short = 'a')]
    pub attach: bool,
    /// Pass standard input on to it
    #[arg(long, short = 'i', requires = "attach")]
    pub interactive: bool,
    /// What detaches
    #[command(flatten)]
    pub keys: DetachKeysArg,
    /// Whether signals are passed on
    #[command(flatten)]
    pub sig_proxy: SigProxyArg,
    /// IDs, unique prefixes or names
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// How long a stop may take
#[derive(Clone, Copy, Debug, Args)]
pub struct StopWaitArg {
    /// How long they have until they are killed; -1: as long as it takes (default: --stop-timeout of `run`, or 10)
    #[arg(
        long,
        short = 't',
        visible_alias = "timeout",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    pub time: Option<i64>,
}

impl StopWaitArg {
    /// What was asked for, else what the container was made with.
    pub(super) fn wanted(self) -> StopWait {
        self.time.map(StopWait::of_seconds).unwrap_or_default()
    }
}

/// `layerfs restart`
#[derive(Clone, Debug, Args)]
pub struct RestartArgs {
    /// How long they have
    #[command(flatten)]
    pub wait: StopWaitArg,
    /// IDs, unique prefixes or names
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// `layerfs wait`
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// IDs, unique prefixes or names
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// `layerfs logs`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
TIME is as 2001-02-03T04:05:06Z, seconds since 1970, or how long ago, as 90s, 10m or 1h30m. What went to standard error is \
shown there.")]
pub struct LogsArgs {
    /// And what comes, until the container ends
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// With the time of each line
    #[arg(long, short = 't')]
    pub timestamps: bool,
    /// Only what was printed since then
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only what was printed until then
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only the last so many lines
    #[arg(long, short = 'n', value_name = "LINES", default_value = "all")]
    pub tail: String,
    /// ID, unique prefix or name
    pub container: String,
}

/// `layerfs ps`
#[derive(Clone, Debug, Args)]
pub struct PsArgs {
    /// Also those that are not running or mounted
    #[arg(long, short = 'a')]
    pub all: bool,
    /// Only ids
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
}

/// `layerfs rm`
#[derive(Clone, Debug, Args)]
pub struct RmArgs {
    /// Stop it first
    #[arg(long, short = 'f')]
    pub force: bool,
    /// IDs, unique prefixes or names
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// `layerfs stop`
#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    /// How long they have
    #[command(flatten)]
    pub wait: StopWaitArg,
    /// This signal in place of the image's stop signal or SIGTERM
    #[arg(long, short = 's', value_name = "SIGNAL")]
    pub signal: Option<String>,
    /// IDs, unique prefixes or names
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// `layerfs kill`
#[derive(Clone, Debug, Args)]
pub struct KillArgs {
    /// By name or number: SIGHUP, HUP, 1, SIGRTMIN+3
    #[arg(long, short = 's', value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,
    /// IDs, unique prefixes or names
    #[arg(required = true)]
    pub containers: Vec<String>,
}
