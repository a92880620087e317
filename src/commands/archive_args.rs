//! What can be typed for commands that take images in and give them out.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::PlatformArg;

/// `layerfs load`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What is loaded is an archive of docker save, podman save or skopeo, an OCI archive, each perhaps compressed as a whole, or the \
directory of an OCI layout. Every digest is checked before anything of it is in the store.")]
pub struct LoadArgs {
    /// The archive, or the directory of an OCI layout (default: standard input)
    #[arg(long, short = 'i', value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Show no progress, and print ids alone
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// Only these of the archive's images
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// `layerfs save`
#[derive(Clone, Debug, Args)]
pub struct SaveArgs {
    /// The file, or with --format oci-dir the directory, to write (default: standard output)
    #[arg(long, short = 'o', value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The form of what is written
    #[arg(long, value_enum, default_value = "docker-archive")]
    pub format: SaveFormatArg,
    /// For podman's sake: nothing is printed anyway
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// For podman's sake: several images are always possible
    #[arg(long, short = 'm')]
    pub multi_image_archive: bool,
    /// Refused: layers are uncompressed in a docker-archive, and as they are in the other forms
    #[arg(long)]
    pub compress: bool,
    /// Which of several
    #[command(flatten)]
    pub platform: PlatformArg,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// `--format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SaveFormatArg {
    /// What `docker load` takes, also an old one.
    DockerArchive,
    /// An OCI layout in a tar.
    OciArchive,
    /// The directory of an OCI layout.
    OciDir,
}

/// `layerfs import`
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// An instruction of Dockerfiles for the image's config: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME
    /// or WORKDIR
    #[arg(long, short = 'c', value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// What the image's history says
    #[arg(long, short = 'm')]
    pub message: Option<String>,
    /// Show no progress
    #[arg(long, short = 'q')]
    pub quiet: bool,
    /// The system that it is for
    #[arg(long, default_value = "linux", value_parser = ["linux"])]
    pub os: String,
    /// The architecture that it is for, in Go's words (default: this machine's)
    #[arg(long)]
    pub arch: Option<String>,
    /// The architecture's variant, such as v7
    #[arg(long)]
    pub variant: Option<String>,
    /// A tar of a root filesystem, perhaps compressed; - is standard input
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// Name of the image in the store (default: the printed id)
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
}
