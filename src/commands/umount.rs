//! `layerfs umount`

use std::path::Path;

use anyhow::Context as _;

use super::args::UmountArgs;
use crate::container::mounts;

/// Unmounts each directory and waits until its server has ended.
pub(super) fn run(args: &UmountArgs) -> anyhow::Result<u8> {
    for dir in &args.dirs {
        unmount(dir, args.lazy).with_context(|| format!("umount {}", dir.display()))?;
    }
    Ok(0)
}

fn unmount(dir: &Path, lazy: bool) -> anyhow::Result<()> {
    let store = super::environment::store()?;
    let containers = super::environment::containers(&store)?;
    Ok(mounts::unmount(&containers, dir, lazy)?)
}
