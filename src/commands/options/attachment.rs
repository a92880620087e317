//! How a command is attached to a container.

use anyhow::Context as _;
use clap::{ArgAction, Args};

use crate::container::Wishes;
use crate::container::attaching::{Attach, DetachKeys};

/// Whether signals reach the program
#[derive(Clone, Copy, Debug, Args)]
pub struct SigProxyArg {
    /// Pass this command's signals on to the container's
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set
    )]
    pub sig_proxy: bool,
}

/// What detaches
#[derive(Clone, Debug, Args)]
pub struct DetachKeysArg {
    /// Keys that detach a terminal: a-z or ctrl-a and so on, separated by commas; empty for none (default: ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
}

impl DetachKeysArg {
    /// What was typed, once it is known to be keys.
    pub(in crate::commands) fn checked(&self) -> anyhow::Result<Option<String>> {
        if let Some(keys) = &self.detach_keys {
            parse(keys)?;
        }
        Ok(self.detach_keys.clone())
    }

    /// These, else those that the container was made with.
    fn or_of(&self, wishes: &Wishes) -> anyhow::Result<DetachKeys> {
        match self.detach_keys.as_ref().or(wishes.detach_keys.as_ref()) {
            Some(keys) => parse(keys),
            None => Ok(DetachKeys::default()),
        }
    }

    /// All of it together.
    pub(in crate::commands) fn attach(
        &self,
        wishes: &Wishes,
        input: bool,
        signals: SigProxyArg,
    ) -> anyhow::Result<Attach> {
        Ok(Attach { input, keys: self.or_of(wishes)?, signals: signals.sig_proxy })
    }
}

fn parse(keys: &str) -> anyhow::Result<DetachKeys> {
    keys.parse().with_context(|| format!("--detach-keys {keys}"))
}
