//! What can be typed: the definitions behind parsing, `--help`, man pages and shell completions.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::archive_args::{ImportArgs, LoadArgs, SaveArgs};
use super::container::ContainerArgs;
use super::container_args::{
    AttachArgs, CpArgs, CreateArgs, DiffArgs, ExecArgs, HealthcheckArgs, KillArgs, LogsArgs, PauseArgs,
    PortArgs, PsArgs, RenameArgs, RestartArgs, RmArgs, RunArgs, StartArgs, StopArgs, TopArgs, WaitArgs,
};
use super::image_args::{HistoryArgs, ImageArgs, ImageListArgs, RmiArgs, StoreArgs, TagArgs, UntagArgs};
use super::login::{LoginArgs, LogoutArgs};
use super::look_args::{CatArgs, LsArgs, TreeArgs, WhichArgs};
use super::options::lazy::LazyArgs;
use super::options::network::BuildNetworkArg;
use super::options::pull::{PullArg, PullArgs};
use super::push::PushArgs;
use super::search::{SearchArgs, SearchTagsArgs};
use super::update::UpdateArgs;
use super::volume::VolumeArgs;
use crate::image::TargetPlatform;

/// Mounts container images lazily, straight from their compressed layers, and runs them. No root, no daemon, no unpacking.
#[derive(Clone, Debug, Parser)]
#[command(name = "layerfs", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Files and environment:
  LAYERFS_ROOT   where indexes and containers are kept
                 (default: /var/lib/layerfs for root, else $XDG_DATA_HOME/layerfs or ~/.local/share/layerfs)
  LAYERFS_SPILL_BYTES
                 how much decoded data is kept on disk for all mounts together: 0 for none, or such as 2G
                 (default: a tenth of what is free there, at most 10G)
  LAYERFS_TRACE  0: do not learn what a start reads first, nor read it ahead
  LAYERFS_LOG    what is logged: error, warn (default), info, debug, trace, or target=level,...

Exit status: 125 layerfs itself failed, 126 the command cannot be executed, 127 it was not found,
128+n it was killed by signal n, else that of the command.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Mount an image, writable unless asked otherwise
    Mount(MountArgs),
    /// Unmount what `layerfs mount` mounted
    #[command(visible_alias = "unmount")]
    Umount(UmountArgs),
    /// Run a command in a new container
    Run(RunArgs),
    /// Run a command in a container that runs
    Exec(ExecArgs),
    /// Attach the terminal, or standard input and output, to a container that runs in the background
    Attach(AttachArgs),
    /// Check the health of a container
    Healthcheck(HealthcheckArgs),
    /// The commands that deal with containers, by docker's other names for them
    Container(ContainerArgs),
    /// Make a container without starting it
    Create(CreateArgs),
    /// Copy files between a container and the host
    Cp(CpArgs),
    /// Show what a container has changed: added (A), changed (C) and deleted (D) paths
    Diff(DiffArgs),
    /// Start containers that were made or have ended
    Start(StartArgs),
    /// Stop containers, and start them again
    Restart(RestartArgs),
    /// Wait until containers have ended, and print their exit codes
    Wait(WaitArgs),
    /// Show what containers printed that were started in the background
    Logs(LogsArgs),
    /// Pull images from registries into the store
    Pull(PullArgs),
    /// Push an image to a registry
    Push(PushArgs),
    /// Say why registries cannot be searched; with --list-tags as `search-tags`
    Search(SearchArgs),
    /// List the tags of an image in its registry
    SearchTags(SearchTagsArgs),
    /// Build an image from a Dockerfile
    Build(BuildArgs),
    /// List the images of the store
    Images(ImageListArgs),
    /// The commands that deal with images of the store
    Image(ImageArgs),
    /// Show how an image was made, step by step
    History(HistoryArgs),
    /// Remove images
    Rmi(RmiArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Take names from an image
    Untag(UntagArgs),
    /// Look after the store
    Store(StoreArgs),
    /// Make changes readable for overlayfs and others: copy what they still share with the image
    Complete(CompleteArgs),
    /// Show where the ports of a container are reached
    Port(PortArgs),
    /// List containers
    Ps(PsArgs),
    /// Give a container another name
    Rename(RenameArgs),
    /// Remove containers
    Rm(RmArgs),
    /// Show the processes of a running container
    Top(TopArgs),
    /// Stop running containers: their stop signal, and after a while SIGKILL
    Stop(StopArgs),
    /// Send a signal to running containers
    Kill(KillArgs),
    /// Let nothing run in containers until they are unpaused
    Pause(PauseArgs),
    /// Let paused containers go on
    Unpause(PauseArgs),
    /// Change what a container may take, and when it runs again
    Update(UpdateArgs),
    /// Remove what can be made again and was not used for long, or all containers that are not in use
    Prune(PruneArgs),
    /// Show everything known about containers or images, as JSON
    Inspect(InspectArgs),
    /// Put the images of an archive or a layout into the store
    Load(LoadArgs),
    /// Write images as an archive that other tools load, or as an OCI layout
    #[command(after_help = IMAGE_HELP)]
    Save(SaveArgs),
    /// Make an image of a tar of a root filesystem
    Import(ImportArgs),
    /// Build the indexes of images ahead, so that their first mount takes no time
    #[command(after_help = IMAGE_HELP)]
    Index(ImagesArgs),
    /// List what is in an image, without mounting it
    Ls(LsArgs),
    /// Draw what is in an image as a tree, without mounting it
    Tree(TreeArgs),
    /// Write files of an image to standard output, without mounting it
    Cat(CatArgs),
    /// Tell which layer of an image each version of a path comes from, and what hides it
    Which(WhichArgs),
    /// Log in to a registry
    Login(LoginArgs),
    /// Log out of registries
    Logout(LogoutArgs),
    /// Check every byte of images
    #[command(after_help = VERIFY_HELP)]
    Verify(ImagesArgs),
    /// Make, list and remove volumes
    Volume(VolumeArgs),
    /// Show what running containers take of the machine; or what a mount has counted
    Stats(StatsArgs),
    /// Look at everything that this host must have, and say what to do about what is missing
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write the man pages into a directory
    Man(ManArgs),
}

/// What IMAGE may be; shown in the help of every command that takes one.
pub(super) const IMAGE_HELP: &str = "\
IMAGE is, in this order, an existing path: a docker-archive (docker save, podman save), an OCI layout directory \
(PATH[:TAG]), an OCI archive, or a plain root filesystem directory, used where it lies; or a name in the store, where \
`layerfs pull` and --pull put what registries have. \
A prefix docker-archive:, oci:, oci-archive: or dir: says which it is.";

const VERIFY_HELP: &str = "\
Checked are the digests of all documents and layers, the indexes, and every block of every layer after decompression. \
A damaged index is built again.

Exit status: 0 nothing is wrong, 1 something is damaged, 125 it could not be found out.";

/// `layerfs mount`
#[derive(Clone, Debug, Args)]
#[command(after_help = IMAGE_HELP)]
pub struct MountArgs {
    /// Stay in the foreground and log to standard error
    #[arg(long, short = 'f')]
    pub foreground: bool,
    /// Refuse every change
    #[arg(long, conflicts_with_all = ["container", "upper"])]
    pub read_only: bool,
    /// Delete the container directory, and with it all changes, on unmount
    #[arg(long, conflicts_with = "upper")]
    pub rm: bool,
    /// Mount this container again, with its changes (ID, unique prefix, or name)
    #[arg(long, value_name = "ID")]
    pub container: Option<String>,
    /// Keep changes in DIR/upper and DIR/work instead of the store
    #[arg(long, value_name = "DIR", conflicts_with = "container")]
    pub upper: Option<PathBuf>,
    /// Whose files they are: all the caller's, or as the image says (default: caller for ordinary users, image for root)
    #[arg(long, value_enum)]
    pub owner: Option<OwnerArg>,
    /// Do not print the container's id
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Mount options, separated by commas: ro, rw, allow_other, dev, nodev, suid, nosuid, exec, noexec, atime, noatime,
    /// nodiratime, writeback, passthrough
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// When registries are asked
    #[command(flatten)]
    pub pull: PullArg,
    /// Whether it waits for all of the image
    #[command(flatten)]
    pub lazy: LazyArgs,
    /// What to mount; not needed with --container
    #[arg(required_unless_present = "container")]
    pub image: Option<String>,
    /// Where; an existing directory
    #[arg(required_unless_present = "container")]
    pub dir: Option<PathBuf>,
}

/// `layerfs complete`
#[derive(Clone, Debug, Args)]
#[command(after_help = IMAGE_HELP)]
pub struct CompleteArgs {
    /// The container (ID, unique prefix, or name); it must not be running or mounted
    #[arg(long, value_name = "ID", conflicts_with_all = ["upper", "image"])]
    pub container: Option<String>,
    /// Changes in DIR/upper and DIR/work
    #[arg(long, value_name = "DIR", requires = "image")]
    pub upper: Option<PathBuf>,
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// The image that DIR belongs to
    pub image: Option<String>,
}

/// `--platform`
#[derive(Clone, Debug, Default, Args)]
pub struct PlatformArg {
    /// For which platform, where an image is there for several (default: this machine)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<TargetPlatform>,
}

/// `--owner`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OwnerArg {
    /// Everything belongs to whoever mounts.
    Caller,
    /// The image's own ids.
    Image,
}

/// `layerfs umount`
#[derive(Clone, Debug, Args)]
pub struct UmountArgs {
    /// Free the name at once, even if something is still open; the server ends with the last open file
    #[arg(long, short = 'l')]
    pub lazy: bool,
    /// What to unmount
    #[arg(required = true)]
    pub dirs: Vec<PathBuf>,
}

/// `layerfs build`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
One stage, no build cache; each RUN, COPY, ADD and WORKDIR that changes files makes a layer. What is not supported \
(further stages, COPY --from, RUN --mount, here-documents, downloads, ONBUILD) is refused before anything is done.

Exit status: 1 when a command of the Dockerfile failed, 125 when layerfs did.")]
pub struct BuildArgs {
    /// Name of the image in the store (default: the printed id)
    #[arg(long, short = 't', value_name = "NAME[:TAG]")]
    pub tag: Option<String>,
    /// The Dockerfile (default: CONTEXT/Dockerfile)
    #[arg(long, short = 'f')]
    pub file: Option<PathBuf>,
    /// Value of an ARG (KEY=VALUE), or the caller's variable (KEY)
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Network of RUN: none, or the host's
    #[arg(long, visible_alias = "net", value_enum, default_value = "none")]
    pub network: BuildNetworkArg,
    /// When registries are asked
    #[command(flatten)]
    pub pull: PullArg,
    /// Directory that COPY copies from
    pub context: PathBuf,
}

/// `layerfs prune`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Removed is what was made of images, can be made again and was not used for that long: indexes, decompressed archives, \
decoded parts of layers, start traces; for images in the store these are kept. So are the images themselves. Temporary files \
go when they are a day old. Containers and their changes stay, but with --containers, which removes nothing else: all that do \
not run and are not mounted, also those that were never started. Changes in a directory of yours (mount --upper) stay \
where they are.")]
pub struct PruneArgs {
    /// What was not used for so many days goes; 0 is all of it
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub unused: u32,
    /// Remove all containers that do not run and are not mounted, with their changes
    #[arg(long, conflicts_with = "unused")]
    pub containers: bool,
    /// Do not ask
    #[arg(long, short = 'f', requires = "containers")]
    pub force: bool,
    /// Only containers that were made before then (until=TIME, as `layerfs logs` takes it), or that have a label or not
    /// (label=KEY[=VALUE], label!=KEY[=VALUE])
    #[arg(long, value_name = "FILTER", requires = "containers")]
    pub filter: Vec<String>,
}

/// `layerfs inspect`
#[derive(Clone, Debug, Args)]
#[command(after_help = IMAGE_HELP)]
pub struct InspectArgs {
    /// What is named are images; without this what is no container is looked for among the images
    #[arg(long, conflicts_with = "kind")]
    pub image: bool,
    /// What is named are these only
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub kind: Option<KindArg>,
    /// A template of Go to fill in for each, such as '{{.State.Status}}'; json: on one line
    #[arg(long, short = 'f', value_name = "TEMPLATE")]
    pub format: Option<String>,
    /// With the size of what containers have changed, in bytes: SizeRw
    #[arg(long, short = 's')]
    pub size: bool,
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// IDs, unique prefixes or names of containers, or IMAGEs
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// `--type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// Containers.
    Container,
    /// Images.
    Image,
}

/// What `layerfs index` and `layerfs verify` are told.
#[derive(Clone, Debug, Args)]
pub struct ImagesArgs {
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// `layerfs stats`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Of containers that run there is a line each, once a second: processors, memory, network, disks, processes. -- is what \
nobody counts on this host. All other is of mounts: requests, where content came from, bytes, durations.

Counted since the mount began. Durations run from the decoded request to the answer that is ready to be sent. P50, P90 \
and P99 are off by at most an eighth, or 128 ns; counts, sums and MAX are exact. What the kernel answers from its \
caches is no request. A granule is 128 KiB of a layer. Only who mounted it, and root, may ask.")]
pub struct StatsArgs {
    /// Also containers that do not run
    #[arg(long, short = 'a')]
    pub all: bool,
    /// Look once
    #[arg(long)]
    pub no_stream: bool,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
    /// How a container is shown: table, json, or a text with {{.Name}}, {{.ID}}, {{.Container}}, {{.CPUPerc}}, {{.MemUsage}},
    /// {{.MemPerc}}, {{.NetIO}}, {{.BlockIO}}, {{.PIDs}}
    #[arg(long, value_name = "FORM", default_value = "table")]
    pub format: String,
    /// Show what the mount of a container has counted
    #[arg(long)]
    pub mount: bool,
    /// That as a JSON object; durations are in nanoseconds
    #[arg(long, conflicts_with = "prometheus")]
    pub json: bool,
    /// That in the text format of Prometheus, to be scraped from a file
    #[arg(long)]
    pub prometheus: bool,
    /// Containers (IDs, unique prefixes or names; default: all that run); or a mount point, or anything in it
    #[arg(value_name = "DIR|NAME")]
    pub names: Vec<PathBuf>,
}

/// `layerfs doctor`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Each thing is tried where that is possible, in a process and in namespaces that end with it; nothing is left behind. At the \
end an empty container is started.

Exit status: 0 when layerfs run works, 1 when something is missing that it needs.")]
pub struct DoctorArgs {
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// `layerfs completions`
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// For which shell
    pub shell: clap_complete::Shell,
}

/// `layerfs man`
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// An existing directory, such as /usr/local/share/man/man1
    pub dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_end_at_the_image() {
        let cli = Cli::try_parse_from([
            "layerfs", "run", "-it", "--rm", "-h", "box", "image", "ls", "-l", "--", "-h",
        ])
        .unwrap();
        let Command::Run(run) = cli.command else { panic!("{cli:?}") };
        let run = run.container;
        assert_eq!((run.image.as_str(), run.network.hostname.as_deref()), ("image", Some("box")));
        assert_eq!(run.command, ["ls", "-l", "--", "-h"]);
    }
}
