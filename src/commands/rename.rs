//! `layerfs rename`

use super::container_args::RenameArgs;
use super::environment;

/// Gives a container another name.
pub(super) fn run(args: &RenameArgs) -> anyhow::Result<u8> {
    environment::containers(&environment::store()?)?.rename(&args.container, &args.name)?;
    Ok(0)
}
