//! What a container may do.

use clap::Args;

use crate::container::Wishes;

/// What a container may do
#[derive(Clone, Debug, Args)]
pub struct RightsArgs {
    /// Add the user to a group, a name or a number of the image
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
}

impl RightsArgs {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, wishes: &mut Wishes) -> anyhow::Result<()> {
        wishes.groups.clone_from(&self.group_add);
        Ok(())
    }
}
