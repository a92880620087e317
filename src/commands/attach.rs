//! `layerfs attach`

use super::container_args::AttachArgs;
use super::environment;
use crate::container::Purpose;
use crate::container::attaching::{self, Left};
use anyhow::ensure;

/// Attaches to a running container and gives its exit code; 0 when detached.
pub(super) fn run(args: &AttachArgs) -> anyhow::Result<u8> {
    let containers = environment::containers(&environment::store()?)?;
    let container = containers.find(&args.container)?;
    let config = container.config();
    ensure!(config.purpose == Purpose::Run, "container {} is a mount: nothing runs in it", config.name);
    let wishes = config.run.clone().unwrap_or_default();
    let how = args.keys.attach(&wishes, !args.no_stdin, args.sig_proxy)?;
    Ok(left(attaching::attach(&containers, &args.container, &how)?))
}

/// The exit code; being detached is told as docker does.
pub(super) fn left(how: Left) -> u8 {
    if how == Left::Detached {
        super::complain("read escape sequence");
    }
    how.exit_code()
}
