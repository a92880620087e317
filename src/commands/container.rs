//! `layerfs container`: docker's and podman's other names of commands.

use clap::{Args, Subcommand};

use super::args::{Command, InspectArgs, KindArg, PruneArgs, StatsArgs};
use super::container_args::{
    AttachArgs, CpArgs, CreateArgs, DiffArgs, ExecArgs, KillArgs, LogsArgs, PauseArgs, PortArgs, PsArgs,
    RenameArgs, RestartArgs, RmArgs, RunArgs, StartArgs, StopArgs, TopArgs, WaitArgs,
};
use super::update::UpdateArgs;

/// `layerfs container`
#[derive(Clone, Debug, Args)]
pub struct ContainerArgs {
    /// What to do
    #[command(subcommand)]
    pub command: ContainerCommand,
}

/// `layerfs container prune`
#[derive(Clone, Debug, Args)]
pub struct ContainerPruneArgs {
    /// Do not ask
    #[arg(long, short = 'f')]
    pub force: bool,
    /// Only containers that were made before then (until=TIME), or that have a label or not (label=KEY[=VALUE],
    /// label!=KEY[=VALUE])
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// The commands of `layerfs container`.
#[derive(Clone, Debug, Subcommand)]
pub enum ContainerCommand {
    /// Attach the terminal, or standard input and output, to a container that runs in the background
    Attach(AttachArgs),
    /// Copy files between a container and the host
    Cp(CpArgs),
    /// Make a container without starting it
    Create(CreateArgs),
    /// Show what a container has changed
    Diff(DiffArgs),
    /// Run a command in a container that runs
    Exec(ExecArgs),
    /// Show everything known about containers, as JSON
    Inspect(InspectArgs),
    /// Send a signal to running containers
    Kill(KillArgs),
    /// List containers
    #[command(visible_alias = "ps", visible_alias = "list")]
    Ls(PsArgs),
    /// Show what containers printed that were started in the background
    Logs(LogsArgs),
    /// Let nothing run in containers until they are unpaused
    Pause(PauseArgs),
    /// Show where the ports of a container are reached
    Port(PortArgs),
    /// Remove all containers that are not in use
    Prune(ContainerPruneArgs),
    /// Give a container another name
    Rename(RenameArgs),
    /// Stop containers, and start them again
    Restart(RestartArgs),
    /// Remove containers
    Rm(RmArgs),
    /// Run a command in a new container
    Run(RunArgs),
    /// Start containers that were made or have ended
    Start(StartArgs),
    /// Show what running containers take of the machine
    Stats(StatsArgs),
    /// Stop running containers
    Stop(StopArgs),
    /// Show the processes of a running container
    Top(TopArgs),
    /// Let paused containers go on
    Unpause(PauseArgs),
    /// Change what a container may take, and when it runs again
    Update(UpdateArgs),
    /// Wait until containers have ended, and print their exit codes
    Wait(WaitArgs),
}

impl ContainerCommand {
    /// The command that it is another name of.
    pub(super) fn plain(self) -> Command {
        match self {
            Self::Attach(args) => Command::Attach(args),
            Self::Cp(args) => Command::Cp(args),
            Self::Create(args) => Command::Create(args),
            Self::Diff(args) => Command::Diff(args),
            Self::Exec(args) => Command::Exec(args),
            Self::Inspect(args) => Command::Inspect(InspectArgs { kind: Some(KindArg::Container), ..args }),
            Self::Kill(args) => Command::Kill(args),
            Self::Ls(args) => Command::Ps(args),
            Self::Logs(args) => Command::Logs(args),
            Self::Pause(args) => Command::Pause(args),
            Self::Port(args) => Command::Port(args),
            Self::Prune(ContainerPruneArgs { force, filter }) => {
                Command::Prune(PruneArgs { unused: 0, containers: true, force, filter })
            }
            Self::Rename(args) => Command::Rename(args),
            Self::Restart(args) => Command::Restart(args),
            Self::Rm(args) => Command::Rm(args),
            Self::Run(args) => Command::Run(args),
            Self::Start(args) => Command::Start(args),
            Self::Stats(args) => Command::Stats(args),
            Self::Stop(args) => Command::Stop(args),
            Self::Top(args) => Command::Top(args),
            Self::Unpause(args) => Command::Unpause(args),
            Self::Update(args) => Command::Update(args),
            Self::Wait(args) => Command::Wait(args),
        }
    }
}
