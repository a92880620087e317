//! What can be typed behind `image`, and behind the commands that deal with images of the store.

use clap::{ArgAction, Args, Subcommand, ValueEnum};

use super::args::{IMAGE_HELP, InspectArgs, PlatformArg};

const NAMES_HELP: &str = "\
IMAGE is a name (without a tag that is :latest), NAME@DIGEST, the beginning of an id, or the digest of a manifest.";

/// `layerfs image`
#[derive(Clone, Debug, Args)]
pub struct ImageArgs {
    /// What to do
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// The commands of `layerfs image`.
#[derive(Clone, Debug, Subcommand)]
pub enum ImageCommand {
    /// Tell by the exit status whether an image is in the store: 0 it is, 1 it is not
    Exists(ImageExistsArgs),
    /// Show how an image was made, step by step
    History(HistoryArgs),
    /// Show everything known about images, as JSON
    Inspect(InspectArgs),
    /// List the images of the store
    #[command(visible_alias = "list")]
    Ls(ImageListArgs),
    /// Remove images without a name; with --all, all that no container uses
    Prune(ImagePruneArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(RmiArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Take names from an image
    Untag(UntagArgs),
}

/// `layerfs images`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
SIZE is what an image takes in the store: its layers as they lie there, compressed or not, its config and its manifest. What \
several images share counts for each. The id is the digest of the config.

Filters: dangling=, readonly=, intermediate=true|false, label=KEY[=VALUE], label!=KEY[=VALUE], before=IMAGE, \
since=IMAGE, until=TIME, reference=PATTERN, id=PREFIX, digest=PREFIX.")]
pub struct ImageListArgs {
    /// All; nothing is hidden without it either
    #[arg(long, short = 'a')]
    pub all: bool,
    /// Only ids, each once
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
    /// With the digests of manifests
    #[arg(long, conflicts_with_all = ["quiet", "format"])]
    pub digests: bool,
    /// Only those of which this holds
    #[arg(long, short = 'f', value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// json, a template of Go to fill in for each line, or `table TEMPLATE`
    #[arg(long, value_name = "FORM", conflicts_with = "quiet")]
    pub format: Option<String>,
    /// In which order
    #[arg(long, value_enum, default_value = "created")]
    pub sort: ImageSortArg,
    /// No headings
    #[arg(long, short = 'n')]
    pub noheading: bool,
    /// Only what is called so: a name, with its tag or without, or a pattern
    pub name: Option<String>,
}

/// `--sort`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImageSortArg {
    /// The youngest first.
    Created,
    /// By the id.
    Id,
    /// By the name without its tag.
    Repository,
    /// The smallest first.
    Size,
    /// By the tag.
    Tag,
}

/// `layerfs tag`
#[derive(Clone, Debug, Args)]
#[command(after_help = NAMES_HELP)]
pub struct TagArgs {
    /// Which image
    pub image: String,
    /// Its further names, which are taken from what has them
    #[arg(required = true, value_name = "NAME[:TAG]")]
    pub names: Vec<String>,
}

/// `layerfs untag`
#[derive(Clone, Debug, Args)]
#[command(after_help = NAMES_HELP)]
pub struct UntagArgs {
    /// Which image; it stays, also without any name
    pub image: String,
    /// Which of its names (default: all)
    #[arg(value_name = "NAME[:TAG]")]
    pub names: Vec<String>,
}

/// `layerfs rmi`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
IMAGE is a name (without a tag that is :latest), NAME@DIGEST, the beginning of an id, or the digest of a manifest. A name is \
taken away; with the last one goes the image, but for layers that others need. What a container uses is never removed.

Exit status: 1 there is no such image, 2 a container uses it, 125 any other failure.")]
pub struct RmiArgs {
    /// Also by an id where there are several names; of an image that a container uses take the names
    #[arg(long, short = 'f')]
    pub force: bool,
    /// All images
    #[arg(long, short = 'a', conflicts_with = "images")]
    pub all: bool,
    /// What is not there is no error
    #[arg(long, short = 'i')]
    pub ignore: bool,
    /// Which
    #[arg(required_unless_present = "all", value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// `layerfs image prune`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Blobs that nothing leads to go as well when they are a day old, unless there is a --filter: younger ones may be another \
program's that is still writing. What a container uses stays.")]
pub struct ImagePruneArgs {
    /// All that no container uses, not only those without a name
    #[arg(long, short = 'a')]
    pub all: bool,
    /// Do not ask
    #[arg(long, short = 'f')]
    pub force: bool,
    /// Only images that were made before then (until=TIME), or that have a label or not (label=KEY[=VALUE],
    /// label!=KEY[=VALUE])
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// `layerfs image exists`
#[derive(Clone, Debug, Args)]
pub struct ImageExistsArgs {
    /// Which
    pub image: String,
}

/// `layerfs history`
#[derive(Clone, Debug, Args)]
#[command(after_help = IMAGE_HELP)]
pub struct HistoryArgs {
    /// Only ids
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
    /// Sizes and times in words
    #[arg(
        long,
        short = 'H',
        action = ArgAction::Set,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub human: bool,
    /// json, a template of Go to fill in for each step, or `table TEMPLATE`
    #[arg(long, value_name = "FORM", conflicts_with = "quiet")]
    pub format: Option<String>,
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// Which
    pub image: String,
}

/// `layerfs store`
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// What to do
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// The commands of `layerfs store`.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Check every blob of the store, every name, and what was made of them
    #[command(after_help = "\
With --repair damaged blobs are moved to the directory damaged of the store, so that whoever brings the image again writes \
them anew; names that lead nowhere are dropped and told; what can be made again and is wrong is removed.

Exit status: 0 nothing is wrong, or all of it is repaired, 1 something is damaged, 125 it could not be found out.")]
    Check(StoreCheckArgs),
}

/// `layerfs store check`
#[derive(Clone, Debug, Args)]
pub struct StoreCheckArgs {
    /// Do what can be done about it
    #[arg(long)]
    pub repair: bool,
    /// Show no progress
    #[arg(long, short = 'q')]
    pub quiet: bool,
}
