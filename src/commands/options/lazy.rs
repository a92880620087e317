//! Whether something starts before its image is here.

use clap::{Args, ValueEnum};

use crate::image::lazy::Background;
use crate::model::Digest;

/// `--lazy`, and how.
#[derive(Args, Clone, Debug)]
pub struct LazyArgs {
    /// Start before the layers are here: what is read comes from the registry when it is read
    #[arg(long)]
    pub lazy: bool,
    /// When the rest of the layers comes
    #[arg(long, value_enum, value_name = "WHEN", default_value = "idle", requires = "lazy")]
    pub background: BackgroundArg,
    /// Use the index that is attached to the image under this digest (`layerfs push --with-index` prints it): who made it is
    /// trusted; may be repeated
    #[arg(long, value_name = "DIGEST", requires = "lazy")]
    pub trust_index: Vec<Digest>,
}

/// `--background`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackgroundArg {
    /// Never
    Off,
    /// While nothing else is wanted
    Idle,
    /// At once
    Now,
}

impl From<BackgroundArg> for Background {
    fn from(arg: BackgroundArg) -> Self {
        match arg {
            BackgroundArg::Off => Self::Off,
            BackgroundArg::Idle => Self::Idle,
            BackgroundArg::Now => Self::Now,
        }
    }
}
