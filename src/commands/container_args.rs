//! What the commands that deal with containers are told.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::args::{IMAGE_HELP, PlatformArg};
use super::options::life::LifeArgs;
use super::options::network::NetworkArgs;
use super::options::process::ProcessArgs;
use super::options::resources::ResourceArgs;
use super::options::rights::RightsArgs;
use super::options::storage::StorageArgs;
use super::options::userns::UsernsArgs;

/// `layerfs run`
#[derive(Clone, Debug, Args)]
#[command(after_help = IMAGE_HELP, disable_help_flag = true)]
pub struct RunArgs {
    /// In the background: print the container's id and return when the command runs
    #[arg(long, short = 'd')]
    pub detach: bool,
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
    /// What it sees of the host's files
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Whom it reaches
    #[command(flatten)]
    pub network: NetworkArgs,
    /// What it may do
    #[command(flatten)]
    pub rights: RightsArgs,
    /// Which ids it has
    #[command(flatten)]
    pub userns: UsernsArgs,
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

/// `layerfs start`
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// Show its output, and exit as it does
    #[arg(long, short = 'a')]
    pub attach: bool,
    /// Pass standard input on to it
    #[arg(long, short = 'i', requires = "attach")]
    pub interactive: bool,
    /// IDs, unique prefixes or names
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// How long a stop may take
#[derive(Clone, Copy, Debug, Args)]
pub struct StopWaitArg {
    /// How long they have until they are killed; -1: as long as it takes
    #[arg(
        long,
        short = 't',
        visible_alias = "timeout",
        value_name = "SECONDS",
        default_value_t = 10,
        allow_negative_numbers = true
    )]
    pub time: i64,
}

impl StopWaitArg {
    /// As docker and podman have it: `None` for as long as it takes.
    pub(super) fn duration(self) -> Option<Duration> {
        u64::try_from(self.time).ok().map(Duration::from_secs)
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
