//! What can be typed behind commands that look at an image without mounting it.

use std::ffi::OsString;

use clap::Args;

use super::args::{IMAGE_HELP, PlatformArg};

/// `layerfs ls`
#[derive(Clone, Debug, Args)]
#[command(after_help = IMAGE_HELP)]
pub struct LsArgs {
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// With type, permissions, links, the image's own ids, size or device number, time (UTC), and targets of symlinks
    #[arg(short = 'l')]
    pub long: bool,
    /// With everything below
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Print a JSON array; names that are not UTF-8 are there twice: readable, and exactly under name_base64
    #[arg(long)]
    pub json: bool,
    /// Image
    pub image: String,
    /// Path in it
    #[arg(default_value = "/")]
    pub path: OsString,
}

/// `layerfs tree`
#[derive(Clone, Debug, Args)]
#[command(after_help = IMAGE_HELP)]
pub struct TreeArgs {
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// How many levels
    #[arg(short = 'L', value_name = "LEVELS")]
    pub levels: Option<usize>,
    /// Print nested JSON objects
    #[arg(long)]
    pub json: bool,
    /// Image
    pub image: String,
    /// Directory in it
    #[arg(default_value = "/")]
    pub path: OsString,
}

/// `layerfs cat`
#[derive(Clone, Debug, Args)]
#[command(after_help = IMAGE_HELP)]
pub struct CatArgs {
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// Image
    pub image: String,
    /// Files in it; symlinks are followed, and never out of it
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<OsString>,
}

/// `layerfs which`
#[derive(Clone, Debug, Args)]
#[command(after_help = IMAGE_HELP)]
pub struct WhichArgs {
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
    /// Image
    pub image: String,
    /// Path in it; symlinks on the way are followed, the last name is not
    pub path: OsString,
}
