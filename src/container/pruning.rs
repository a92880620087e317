//! Removing all containers that nobody uses (`layerfs prune --containers`).

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::filter::Filters;
use super::inside::Worker;
use super::{Container, ContainerError, ContainerId, Containers, Listing, Moment, OwnVolumes, ending};
use crate::launcher::{IdMaps, as_root_of};

/// What was removed.
#[derive(Debug, Default)]
pub struct Pruned {
    /// These.
    pub ids: Vec<ContainerId>,
    /// What they took on disk.
    pub bytes: u64,
    /// Those that could not be removed, and why.
    pub failed: Vec<ContainerError>,
}

/// Removes every container that does not run, is not mounted, and is held by nobody; of those only what was made before
/// `until` and is meant by `filters`. Changes that are kept in a directory of the user's stay there.
///
/// # Errors
/// When the containers cannot be listed.
pub fn prune(
    containers: &Containers,
    until: Option<Moment>,
    filters: &Filters,
) -> Result<Pruned, ContainerError> {
    let mut pruned = Pruned::default();
    let maps = IdMaps::for_caller();
    for one in containers.listed(Listing::Shown)? {
        let is_old = until.is_none_or(|until| one.about.created < until);
        if !is_old || !one.status.can_remove() || !filters.admit(&one) {
            continue;
        }
        let id = one.about.id;
        let Some(container) = containers.load(id)? else { continue };
        match remove(containers, container, &maps) {
            Ok(bytes) => {
                pruned.ids.push(id);
                pruned.bytes += bytes;
            }
            // Somebody has just taken it into use, or removed it.
            Err(ContainerError::InUse { .. } | ContainerError::NotFound(_)) => {}
            Err(error) => pruned.failed.push(error),
        }
    }
    Ok(pruned)
}

fn remove(containers: &Containers, container: Container, maps: &IdMaps) -> Result<u64, ContainerError> {
    let held = containers.hold(container)?;
    let dir = held.dir().to_owned();
    let bytes = bytes_in(&dir, maps).map_err(ContainerError::io("look through", &dir))?;
    let own = if held.config().remove_at_end { OwnVolumes::Go } else { OwnVolumes::Stay };
    ending::delete(held.detach(containers, own)?, containers, maps)?;
    Ok(bytes)
}

/// What a directory takes on disk. Those of other ids are looked into as the root of these.
fn bytes_in(dir: &Path, maps: &IdMaps) -> io::Result<u64> {
    match count(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && *maps != IdMaps::Identity => {
            let (worker, ()) = Worker::start((), |told| {
                as_root_of(maps, || {
                    told.tell(&count(dir).map(|bytes| bytes.to_le_bytes().to_vec()));
                    Ok(())
                })
            })?;
            Ok(worker.finish()?.try_into().map_or(0, u64::from_le_bytes))
        }
        counted => counted,
    }
}

fn count(dir: &Path) -> io::Result<u64> {
    let mut bytes = std::fs::symlink_metadata(dir)?.blocks() * 512;
    let mut ahead = vec![dir.to_owned()];
    while let Some(dir) = ahead.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                ahead.push(entry.path());
            }
        }
    }
    Ok(bytes)
}
