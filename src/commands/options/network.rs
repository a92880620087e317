//! Whom a container reaches, and who reaches it.

use clap::{Args, ValueEnum};

use crate::container::Wishes;
use crate::launcher::Network;

/// Whom a container reaches
#[derive(Clone, Debug, Args)]
pub struct NetworkArgs {
    /// Host name inside (default: the container's short id)
    #[arg(long, short = 'h', value_name = "NAME")]
    pub hostname: Option<String>,
    /// Network: none, or the host's
    #[arg(long, visible_alias = "net", value_enum, default_value = "none")]
    pub network: NetworkArg,
}

/// `--network`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkArg {
    /// A network namespace with nothing but `lo`.
    None,
    /// The host's network.
    Host,
}

impl NetworkArg {
    /// What is wished for.
    pub(in crate::commands) fn wanted(self) -> Network {
        match self {
            Self::None => Network::None,
            Self::Host => Network::Host,
        }
    }
}

impl NetworkArgs {
    /// Adds what is wished for.
    pub(in crate::commands) fn add_to(&self, wishes: &mut Wishes) -> anyhow::Result<()> {
        wishes.hostname.clone_from(&self.hostname);
        wishes.network = self.network.wanted();
        Ok(())
    }
}
