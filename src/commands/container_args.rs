//! What the commands that deal with containers are told.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::args::{IMAGE_HELP, NetworkArg, PlatformArg};

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

/// What a command in a container has for itself
#[derive(Clone, Debug, Args)]
pub struct ProcessArgs {
    /// Set a variable (KEY=VALUE), or pass the caller's on (KEY)
    #[arg(long, short = 'e', value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// Read variables from a file: KEY=VALUE or KEY in each line, taken literally; # begins a comment
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Directory in the container to start in
    #[arg(long, short = 'w', value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// User to run as, a name or a number of the image
    #[arg(long, short = 'u', value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Keep standard input open
    #[arg(long, short = 'i')]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(long, short = 't')]
    pub tty: bool,
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
    /// What is kept of the output: max-size=BYTES of a file (k, m, g), max-file=N files
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,
    /// Host name inside (default: the container's short id)
    #[arg(long, short = 'h', value_name = "NAME")]
    pub hostname: Option<String>,
    /// Show a file or directory of the host inside
    #[arg(long, short = 'v', value_name = "SRC:DST[:ro]")]
    pub volume: Vec<String>,
    /// Refuse changes to the root filesystem; /run, /tmp and /var/tmp become tmpfs
    #[arg(long)]
    pub read_only: bool,
    /// Let the kernel keep what is written to files until they are closed or flushed: much faster small writes, but errors
    /// such as a full disk come from close and fsync
    #[arg(long, conflicts_with = "read_only")]
    pub writeback: bool,
    /// Network: none, or the host's
    #[arg(long, visible_alias = "net", value_enum, default_value = "none")]
    pub network: NetworkArg,
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
