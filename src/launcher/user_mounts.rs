//! What the user has mounted in a container: volumes, tmpfs, devices; made as detached mounts.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};
use rustix::mount::MountAttrFlags as Attr;

use super::failure::{Context as _, Failure, Step};
use super::fill;
use super::in_root;
use super::mounts::{Fill, Pending, Place, of_device};
use super::own_ids::OwnIds;
use super::plan::{MountFlags, Plan, Tmpfs, Volume};
use super::rootfs;
use crate::sys::mount_attributes::{Reach, clone_path, new_filesystem, set_attributes};

/// The tmpfs, which belong to the user namespace in which they are made.
pub(super) fn tmpfs(plan: &Plan) -> Step<Vec<Pending>> {
    let new = |tmpfs: &Tmpfs| new_tmpfs(tmpfs).at("mount tmpfs", &tmpfs.destination);
    plan.tmpfs.iter().map(new).collect()
}

/// What comes from the host: volumes and devices.
pub(super) fn of_host(plan: &Plan) -> Step<Vec<Pending>> {
    let mut pending = prepare_volumes(plan)?;
    for device in &plan.devices {
        let mount = clone_device(&device.source).at("device", &device.source)?;
        let destination = device.destination.clone();
        pending.push(Pending { mount, destination, place: Place::File, fill: None });
    }
    Ok(pending)
}

/// The volumes alone.
pub(super) fn prepare_volumes(plan: &Plan) -> Step<Vec<Pending>> {
    let mut pending = Vec::new();
    for volume in &plan.volumes {
        pending.push(clone_volume(volume, plan.own_ids.as_ref()).at("volume", &volume.source)?);
    }
    Ok(pending)
}

/// Refuses what would hide what every container needs.
pub(super) fn check_destinations(plan: &Plan) -> Step<()> {
    let volumes = plan.volumes.iter().map(|volume| &volume.destination);
    let tmpfs = plan.tmpfs.iter().map(|tmpfs| &tmpfs.destination);
    let devices = plan.devices.iter().map(|device| &device.destination);
    let mut all: Vec<&PathBuf> = volumes.chain(tmpfs).chain(devices).collect();
    for destination in &all {
        let problem = if !destination.is_absolute() {
            "what is mounted needs an absolute path in the container"
        } else if destination.components().count() == 1 {
            "nothing can be mounted on the root directory"
        } else if destination.starts_with("/proc") {
            "nothing may be mounted within /proc"
        } else {
            continue;
        };
        return Err(refused(destination, problem));
    }
    all.sort_unstable();
    match all.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(refused(pair[0], "two things would be mounted there")),
        None => Ok(()),
    }
}

fn refused(destination: &Path, problem: &str) -> Box<Failure> {
    Box::new(Failure::new("volume", &io::Error::other(problem)).on(destination))
}

fn new_tmpfs(tmpfs: &Tmpfs) -> io::Result<Pending> {
    let (uid, gid) = tmpfs.owner;
    let mut options = vec![("mode", format!("{:o}", tmpfs.mode))];
    // Root's it is anyway; and a container need not have the id 0.
    let owner = [("uid", uid), ("gid", gid)].into_iter().filter(|(_, id)| *id != 0);
    options.extend(owner.map(|(key, id)| (key, id.to_string())));
    let limits = [("size", tmpfs.bytes), ("nr_inodes", tmpfs.inodes)];
    options.extend(limits.iter().filter_map(|(key, limit)| Some((*key, (*limit)?.to_string()))));
    let options: Vec<(&str, &str)> = options.iter().map(|(key, value)| (*key, value.as_str())).collect();
    // It has to be filled before it can be read-only.
    let at_first = MountFlags { read_only: tmpfs.flags.read_only && !tmpfs.fill, ..tmpfs.flags };
    let mount = new_filesystem("tmpfs", &options, attributes(at_first))?;
    let fill = match tmpfs.fill {
        true => Some(Fill {
            into: mount.try_clone()?,
            as_in_image: tmpfs.as_in_image,
            then: attributes(tmpfs.flags),
        }),
        false => None,
    };
    Ok(Pending { mount, destination: tmpfs.destination.clone(), place: Place::Directory, fill })
}

fn clone_volume(volume: &Volume, own_ids: Option<&OwnIds>) -> io::Result<Pending> {
    let reach = if volume.recursive { Reach::Tree } else { Reach::One };
    let mount = clone_path(&volume.source, reach)?;
    set_attributes(mount.as_fd(), attributes(volume.flags), reach)?;
    let place = if in_root::is_directory(mount.as_fd())? { Place::Directory } else { Place::File };
    let fill = match volume.fill {
        true => {
            // Not through the copy, which may be read-only.
            let into = rootfs::open_directory(&volume.source)?;
            own_ids.map_or(Ok(()), |own| fill::hand_over(into.as_fd(), own))?;
            Some(Fill { into, as_in_image: true, then: Attr::empty() })
        }
        false => None,
    };
    Ok(Pending { mount, destination: volume.destination.clone(), place, fill })
}

fn attributes(flags: MountFlags) -> Attr {
    let MountFlags { read_only, no_exec, set_ids, devices } = flags;
    let chosen = [
        (read_only, Attr::MOUNT_ATTR_RDONLY),
        (no_exec, Attr::MOUNT_ATTR_NOEXEC),
        (!set_ids, Attr::MOUNT_ATTR_NOSUID),
        (!devices, Attr::MOUNT_ATTR_NODEV),
    ];
    chosen.into_iter().filter(|(is_set, _)| *is_set).map(|(_, attribute)| attribute).collect()
}

/// A copy of whatever device of the host has this path.
fn clone_device(path: &Path) -> io::Result<OwnedFd> {
    let device = clone_path(path, Reach::One)?;
    let kind = FileType::from_raw_mode(rustix::fs::statat(&device, "", AtFlags::EMPTY_PATH)?.st_mode);
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        return Err(io::Error::other("not a device"));
    }
    set_attributes(device.as_fd(), of_device(), Reach::One)?;
    Ok(device)
}
