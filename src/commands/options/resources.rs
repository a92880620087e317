//! What a container may take.

use clap::Args;

use crate::container::Wishes;

/// What a container may take
#[derive(Clone, Debug, Args)]
pub struct ResourceArgs {}

impl ResourceArgs {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, _wishes: &mut Wishes) -> anyhow::Result<()> {
        Ok(())
    }
}
