//! What a container may do.

use clap::Args;

use crate::container::Wishes;

/// What a container may do
#[derive(Clone, Debug, Args)]
pub struct RightsArgs {}

impl RightsArgs {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, _wishes: &mut Wishes) -> anyhow::Result<()> {
        Ok(())
    }
}
