//! mount_setattr(2) and the building of detached mounts: what `rustix` lacks, and short names for what it has.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

pub use rustix::mount::MountAttrFlags;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags};

/// Whether a call is about one mount or also about those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// That one mount.
    One,
    /// It and all that are mounted below.
    Tree,
}

/// Sets attributes on a mount; those not named stay as they are.
///
/// # Errors
/// What mount_setattr(2) says.
pub fn set_attributes(mount: BorrowedFd<'_>, set: MountAttrFlags, reach: Reach) -> io::Result<()> {
    let attributes = MountAttributes { set: u64::from(set.bits()), ..MountAttributes::default() };
    let flags = libc::AT_EMPTY_PATH | if reach == Reach::Tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a terminated empty string, the structure is a whole mount_attr of the size given, and the kernel
    // only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(&attributes),
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct mount_attr` (linux/mount.h), version 0.
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

const _: () = assert!(size_of::<MountAttributes>() == 32);

/// A new filesystem of type `kind`, mounted nowhere yet.
///
/// # Errors
/// What fsopen(2), fsconfig(2) and fsmount(2) say.
pub fn new_filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What mount(8) and /proc/mounts show as the device.
    mount::fsconfig_set_string(context.as_fd(), "source", kind)?;
    for (key, value) in options {
        mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    mount::fsconfig_create(context.as_fd())?;
    Ok(mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A copy of the mount that `path` lies in, from `path` down, mounted nowhere yet (what a bind mount is made of).
///
/// # Errors
/// What open_tree(2) says.
pub fn clone_path(path: &Path, reach: Reach) -> io::Result<OwnedFd> {
    Ok(mount::open_tree(rustix::fs::CWD, path, clone_flags(reach))?)
}

/// The same, from an open file or directory.
///
/// # Errors
/// What open_tree(2) says.
pub fn clone_fd(from: BorrowedFd<'_>, reach: Reach) -> io::Result<OwnedFd> {
    Ok(mount::open_tree(from, "", clone_flags(reach) | OpenTreeFlags::AT_EMPTY_PATH)?)
}

fn clone_flags(reach: Reach) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if reach == Reach::Tree { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Attaches a detached mount on top of what `onto` has open. No path is looked up, so there is none to race with.
///
/// # Errors
/// What move_mount(2) says.
pub fn attach(mount: BorrowedFd<'_>, onto: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(mount::move_mount(mount, "", onto, "", flags)?)
}
