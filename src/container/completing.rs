//! Making a container's changes readable for others: overlayfs, tar, backup programs.

use std::io;

use super::{ContainerError, Held, Purpose};
use crate::fs::OwnerView;
use crate::launcher::{IdMaps, as_root_of};
use crate::mount::{Layers, UpperDirs};

/// Copies everything that the changes of a container, which nobody serves, still share with the layers.
///
/// # Errors
/// [`ContainerError`]
pub fn complete(held: &Held, layers: Layers) -> Result<(), ContainerError> {
    let Some(dirs) = held.upper_dirs() else { return Ok(()) };
    match (held.config().purpose, IdMaps::for_caller()) {
        (Purpose::Mount, _) | (_, IdMaps::Identity) => complete_upper(&dirs, layers),
        // Files of other ids are written as the root of those.
        (Purpose::Run, maps) => {
            let work = || complete_upper(&dirs, layers).map_err(io::Error::other);
            as_root_of(&maps, work).map_err(ContainerError::io("complete", &dirs.upper))
        }
    }
}

/// The same for an upper that no container has.
///
/// # Errors
/// [`ContainerError`]
pub fn complete_upper(dirs: &UpperDirs, layers: Layers) -> Result<(), ContainerError> {
    let work = || {
        let fs = layers.into_fs(Some(dirs), OwnerView::Image).map_err(io::Error::other)?;
        let completed = fs.complete().map_err(io::Error::other)?;
        tracing::info!("{}: {completed:?}", dirs.upper.display());
        Ok(())
    };
    work().map_err(ContainerError::io("complete", &dirs.upper))
}
