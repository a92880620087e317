//! Whether an image is looked for elsewhere.

use anyhow::bail;
use clap::{Args, ValueEnum};

/// When registries are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// Always, as podman has it
    Always,
    /// Where the image is not here
    Missing,
    /// Never
    Never,
    /// Where theirs is newer
    Newer,
}

/// The option.
#[derive(Args, Clone, Copy, Debug)]
pub struct PullArg {
    /// When registries are asked for the image; none can be asked yet, so "always" and "newer" are refused
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pub pull: PullPolicy,
}

impl PullArg {
    /// Refuses what cannot be done. An image that is missing is told by who opens it, with what to do.
    pub(in crate::commands) fn check(self, image: &str) -> anyhow::Result<()> {
        match self.pull {
            PullPolicy::Missing | PullPolicy::Never => Ok(()),
            PullPolicy::Always | PullPolicy::Newer => bail!(
                "--pull: nothing can be pulled yet: run `skopeo copy docker://{image} oci:DIR:TAG` first, or leave it out"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_pulled_is_refused() {
        for (pull, is_possible) in [
            (PullPolicy::Always, false),
            (PullPolicy::Newer, false),
            (PullPolicy::Missing, true),
            (PullPolicy::Never, true),
        ] {
            let checked = PullArg { pull }.check("web:1");
            assert_eq!(checked.is_ok(), is_possible, "{pull:?}");
            assert!(checked.err().is_none_or(|error| error.to_string().contains("docker://web:1")));
        }
    }
}
