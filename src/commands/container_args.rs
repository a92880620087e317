//! What the commands that deal with containers are told.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::args::{IMAGE_HELP, PlatformArg};
use super::options::attachment::{DetachKeysArg, SigProxyArg};
use super::options::health::HealthArgs;
use super::options::lazy::LazyArgs;
use super::options::life::LifeArgs;
use super::options::network::NetworkArgs;
use super::options::process::ProcessArgs;
use super::options::pull::PullArg;
use super::options::resources::ResourceArgs;
use super::options::rights::RightsArgs;
use super::options::rlimits::RlimitArgs;
use super::options::runtime::RuntimeArg;
use super::options::storage::StorageArgs;
use super::options::userns::UsernsArgs;
use super::selection::SelectionArgs;
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
    /// Whether it waits for all of the image
    #[command(flatten)]
    pub lazy: LazyArgs,
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
    /// What each of its processes may take
    #[command(flatten)]
    pub rlimits: RlimitArgs,
    /// Which ids it has
    #[command(flatten)]
    pub userns: UsernsArgs,
    /// What it may take
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Who makes it
    #[command(flatten)]
    pub runtime: RuntimeArg,
    /// Print nothing but the command's own output
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Where it is looked for
    #[command(flatten)]
    pub pull: PullArg,
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

/// `layerfs cp`
#[derive(Clone, Debug, Args)]
#[command(
    override_usage = "layerfs cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       layerfs cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    after_help = "\
The container may run, be mounted, or neither. A directory is copied with all that is in it: into DEST where that is a directory, \
else it becomes DEST, whose parent has to be there. SRC/. is what is in SRC. - is a tar stream; from standard input it is \
unpacked into DEST, a directory. A symlink as SRC is copied itself, those on the way to it are followed, and never out of \
the container. Of extended attributes those of programs (user.) are copied; devices and sockets are left out. On the \
host no symlink below DEST is followed, and without --archive nothing becomes setuid or setgid."
)]
pub struct CpArgs {
    /// Keep the numbers of owners; else all belongs to root in the container, and to the caller on the host
    #[arg(long, short = 'a')]
    pub archive: bool,
    /// Copy what a symlink as SRC leads to
    #[arg(long, short = 'L')]
    pub follow_link: bool,
    /// Do not say how much was copied; where standard error is no terminal, it is not said anyway
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// What to copy: CONTAINER:PATH, PATH, or - for a tar stream on standard input
    #[arg(value_name = "SRC")]
    pub source: OsString,
    /// Where to: CONTAINER:PATH, PATH, or - for a tar stream on standard output
    #[arg(value_name = "DEST")]
    pub destination: OsString,
}

/// `layerfs diff`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Of a container that runs or is mounted everything is compared with the image; a change of nothing but extended attributes is \
then not seen.")]
pub struct DiffArgs {
    /// Print a JSON object
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<DiffFormat>,
    /// ID, unique prefix or name
    pub container: String,
}

/// `layerfs diff --format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DiffFormat {
    /// As podman prints it.
    Json,
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
    /// All that can be started
    #[arg(long, conflicts_with_all = ["attach", "latest", "containers"])]
    pub all: bool,
    /// The one that was made last
    #[arg(long, short = 'l', conflicts_with_all = ["containers", "filter"])]
    pub latest: bool,
    /// Those of which this holds, as in `layerfs ps`, and that can be started
    #[arg(long, short = 'f', value_name = "KEY=VALUE", conflicts_with_all = ["attach", "containers"])]
    pub filter: Vec<String>,
    /// What detaches
    #[command(flatten)]
    pub keys: DetachKeysArg,
    /// Whether signals are passed on
    #[command(flatten)]
    pub sig_proxy: SigProxyArg,
    /// IDs, unique prefixes or names
    #[arg(required_unless_present_any = ["all", "latest", "filter"])]
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
    /// Which
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// `layerfs wait`
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// Until this holds, instead of the end; of several one is enough. The exit code is -1 then, unless it has ended
    #[arg(long, value_enum, value_name = "CONDITION")]
    pub condition: Vec<ConditionArg>,
    /// How often it is looked for that: as 250ms or 2s
    #[arg(long, short = 'i', value_name = "TIME", default_value = "250ms")]
    pub interval: String,
    /// The one that was made last
    #[arg(long, short = 'l', conflicts_with = "containers")]
    pub latest: bool,
    /// IDs, unique prefixes or names
    #[arg(required_unless_present = "latest")]
    pub containers: Vec<String>,
}

/// `layerfs wait --condition`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConditionArg {
    /// It was made, and has not run.
    #[value(alias = "configured", alias = "initialized")]
    Created,
    /// Its program runs.
    Running,
    /// None of its processes may run.
    Paused,
    /// Its program has ended.
    #[value(alias = "stopped")]
    Exited,
    /// Its last health check was a success.
    Healthy,
    /// Its last health checks were failures.
    Unhealthy,
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
    /// Only the last so many lines of each
    #[arg(long, value_name = "LINES", default_value = "all")]
    pub tail: String,
    /// With the name of the container before each line
    #[arg(long, short = 'n')]
    pub names: bool,
    /// Of the container that was made last
    #[arg(long, short = 'l', conflicts_with = "containers")]
    pub latest: bool,
    /// IDs, unique prefixes or names
    #[arg(required_unless_present = "latest")]
    pub containers: Vec<String>,
}

/// `layerfs port`
#[derive(Clone, Debug, Args)]
pub struct PortArgs {
    /// ID, unique prefix or name
    pub container: String,
    /// Only where this port of it is reached
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub port: Option<String>,
}

/// `layerfs ps`
#[derive(Clone, Debug, Args)]
#[command(after_help = PS_HELP)]
pub struct PsArgs {
    /// Also those that are not running or mounted
    #[arg(long, short = 'a')]
    pub all: bool,
    /// Only those of which this holds: of one key any value, of different keys and of labels all
    #[arg(long, short = 'f', value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// The N that were made last, whatever their state; -1: all that run
    #[arg(long, short = 'n', value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    pub last: i64,
    /// The one that was made last, whatever its state
    #[arg(long, short = 'l', conflicts_with = "last")]
    pub latest: bool,
    /// With the size of what they have changed
    #[arg(long, short = 's')]
    pub size: bool,
    /// In this order, instead of the youngest first
    #[arg(long, value_enum)]
    pub sort: Option<SortArg>,
    /// json: an array with podman's field names; TEMPLATE: a line for each; table TEMPLATE: below headings
    #[arg(long, value_name = "FORMAT", conflicts_with = "quiet")]
    pub format: Option<String>,
    /// Only ids
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// No line of headings
    #[arg(long)]
    pub noheading: bool,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
}

const PS_HELP: &str = "\
Filters: id=, name= (found anywhere; ^ $ . * + ? as in regular expressions), label=KEY[=VALUE], label!=KEY[=VALUE], \
status= (created, running, mounted, paused, exited), exited=CODE, ancestor=IMAGE, before=NAME, since=NAME, until=TIME, \
volume=PATH, network=.

A template is one of Go's, such as '{{.ID}}\\t{{.Names}}': AutoRemove Command Created CreatedAt ExitCode Exited ID Image ImageID \
Label Labels Mounts Names Networks Pid Ports RunningFor Size StartedAt State Status.";

/// `--sort`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortArg {
    /// By command.
    Command,
    /// The oldest first.
    Created,
    /// By id.
    Id,
    /// By the name of the image.
    Image,
    /// By name.
    Names,
    /// By when they were started, the earliest first.
    Runningfor,
    /// The smallest first.
    Size,
    /// By state.
    Status,
}

/// `layerfs rename`
#[derive(Clone, Debug, Args)]
pub struct RenameArgs {
    /// ID, unique prefix or name
    pub container: String,
    /// Its new name
    pub name: String,
}

/// `layerfs rm`
#[derive(Clone, Debug, Args)]
pub struct RmArgs {
    /// Stop it first
    #[arg(long, short = 'f')]
    pub force: bool,
    /// Say nothing of those that are not there
    #[arg(long, short = 'i')]
    pub ignore: bool,
    /// And with it the volumes that it alone has and nobody has named
    #[arg(long, short = 'v')]
    pub volumes: bool,
    /// With --force: how long it has
    #[command(flatten)]
    pub wait: StopWaitArg,
    /// Which
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// `layerfs top`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Descriptors are podman's: args, comm, etime, group, hgroup, hpid, huser, nice, pcpu, pgid, pid, ppid, rgroup, rss, ruser, state, \
time, tty, user, vsz; those that begin with h are the host's numbers, all others as in the container.")]
pub struct TopArgs {
    /// ID, unique prefix or name
    pub container: String,
    /// What to show (default: user pid ppid pcpu etime tty time args)
    #[arg(allow_hyphen_values = true)]
    pub descriptors: Vec<String>,
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
    /// Say nothing of those that are not there
    #[arg(long, short = 'i')]
    pub ignore: bool,
    /// Which; of all only those that run
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// `layerfs kill`
#[derive(Clone, Debug, Args)]
pub struct KillArgs {
    /// By name or number: SIGHUP, HUP, 1, SIGRTMIN+3
    #[arg(long, short = 's', value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,
    /// Which; of all only those that run
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// `layerfs pause` and `layerfs unpause`
#[derive(Clone, Debug, Args)]
pub struct PauseArgs {
    /// All that can be
    #[arg(long, short = 'a', conflicts_with = "containers")]
    pub all: bool,
    /// IDs, unique prefixes or names
    #[arg(required_unless_present = "all")]
    pub containers: Vec<String>,
}
