//! The supervisor lets go of the host's mounts.
//!
//! A mount namespace is a copy of all mounts, and each copy keeps its filesystem alive: without this, nothing that is
//! mounted when a container starts could really be unmounted before the container ends.

use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::Mode;
use rustix::mount::MountAttrFlags;

use super::failure::{Context as _, Step};
use super::rootfs;
use crate::sys::mount_attributes::{attach, new_filesystem};

/// Makes an empty directory with nothing but `/proc` the root of this process, and detaches everything else. What is
/// open stays open.
pub(super) fn leave() -> Step<()> {
    let inert = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let empty =
        new_filesystem("tmpfs", &[("mode", "700"), ("size", "4k")], inert).stage("make an empty root")?;
    let root = rootfs::open_directory(Path::new("/")).at("open", "/")?;
    attach(empty.as_fd(), root.as_fd()).at("mount on", "/")?;
    rustix::process::fchdir(&empty).stage("enter the empty root")?;
    // Descriptors are reopened through /proc/self/fd.
    rustix::fs::mkdirat(&empty, "proc", Mode::RWXU).stage("mkdir")?;
    // An absolute path still begins below the new mount.
    rustix::mount::mount_bind_recursive("/proc", "proc").at("bind", "/proc")?;
    rustix::process::pivot_root(".", ".").stage("leave the host's root")?;
    rootfs::detach(Path::new(".")).stage("unmount the host's root")?;
    rustix::process::chdir("/").stage("enter the empty root")
}
