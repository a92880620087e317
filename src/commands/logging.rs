//! The log: to standard error, which a server has sent to its container's log file.

use std::io;
use std::str::FromStr as _;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging what `LAYERFS_LOG` asks for, else warnings.
pub(super) fn start() {
    start_at(tracing::Level::WARN);
}

/// Starts logging what `LAYERFS_LOG` asks for, else what is of this level.
pub(super) fn start_at(level: tracing::Level) {
    let wanted = std::env::var("LAYERFS_LOG").unwrap_or_default();
    let default = || Targets::new().with_default(level);
    let targets = if wanted.is_empty() { Ok(default()) } else { Targets::from_str(&wanted) };
    let complaint = targets.as_ref().err().map(ToString::to_string);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false).with_ansi(false);
    tracing_subscriber::registry().with(targets.unwrap_or_else(|_| default())).with(lines).init();
    if let Some(complaint) = complaint {
        tracing::warn!("LAYERFS_LOG: {complaint}: using \"warn\"");
    }
}
