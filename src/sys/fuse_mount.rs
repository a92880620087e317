//! mount(2) of a FUSE filesystem by a process that may do it itself, and unmounting for everyone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{Mode, OFlags};

use super::message_socket::{Message, MessageSocket};
use super::mount_table::MountId;

/// Opens `/dev/fuse` and mounts on `target` (Documentation/filesystems/fuse.rst). Everyone in the mount's user namespace
/// may use it; the kernel checks permissions.
///
/// # Errors
/// What open(2) of `/dev/fuse` or mount(2) say.
pub fn mount(target: &Path, source: &str, flags: MsFlags) -> io::Result<OwnedFd> {
    let device = open_device()?;
    let options = format!(
        "fd={},rootmode=40755,user_id={},group_id={},allow_other,default_permissions",
        device.as_raw_fd(),
        nix::unistd::geteuid(),
        nix::unistd::getegid()
    );
    nix::mount::mount(Some(source), target, Some("fuse.layerfs"), flags, Some(options.as_str()))?;
    Ok(device.into())
}

/// The same for an ordinary user, by the setuid helper fusermount3(1), which sends the descriptor of `/dev/fuse`.
/// `options`: those of `-o`; without `allow_other` only this user may use the mount.
///
/// # Errors
/// What the helper says; then nothing is mounted.
pub fn mount_by_helper(target: &Path, options: &str) -> io::Result<OwnedFd> {
    let (ours, theirs) = MessageSocket::pair()?;
    let child = Command::new("fusermount3")
        .args(["-o", options, "--"])
        .arg(target)
        // The number of the descriptor that it sends it through: its standard input.
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            io::Error::new(error.kind(), format!("fusermount3 (is fuse3 installed?): {error}"))
        })?;
    let message = ours.receive();
    // It ends when it has sent that, or could not.
    let output = child.wait_with_output()?;
    match message? {
        Some(Message { fd: Some(fd), .. }) => Ok(fd),
        _ => Err(said_by_helper(&output.stderr)),
    }
}

/// Whether what was mounted with this descriptor is still there: afterwards poll(2) says that it is an error. Never waits.
#[must_use]
pub fn is_connected(device: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(device.as_fd(), PollFlags::empty())];
    !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
}

/// Says ahead, and with what to do, that `/dev/fuse` is missing or closed to this user.
///
/// # Errors
/// What open(2) says.
pub fn check_device() -> io::Result<()> {
    open_device().map(drop)
}

fn open_device() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/fuse").map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                "load the kernel module (modprobe fuse), or give an outer container the device"
            }
            io::ErrorKind::PermissionDenied => "let users read and write it (chmod 666 /dev/fuse)",
            _ => "is FUSE in this kernel?",
        };
        io::Error::new(error.kind(), format!("/dev/fuse: {error}: {hint}"))
    })
}

/// Unmounts lazily: the name is free at once, the server ends when the last open file is closed.
///
/// # Errors
/// What umount2(2) or `fusermount3` say.
pub fn unmount_lazily(target: &Path) -> io::Result<()> {
    unmount(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW, &["-u", "-z", "-q"])
}

/// Unmounts, unless something is still open there.
///
/// # Errors
/// What umount2(2) or `fusermount3` say.
pub fn unmount_idle(target: &Path) -> io::Result<()> {
    unmount(target, MntFlags::UMOUNT_NOFOLLOW, &["-u"])
}

/// Unmounts this one mount lazily, wherever it is now. There is nothing to do when it is not mounted any more.
///
/// # Errors
/// `ResourceBusy` when something else is mounted on it, which cannot be passed by; what umount2(2) or `fusermount3` say.
pub fn unmount_only(mount: &MountId) -> io::Result<()> {
    let Some(target) = mount.place()? else { return Ok(()) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(&target, flags, Mode::empty())?;
    if MountId::of_open(&top)? != *mount {
        let message = format!("something else is mounted on {}", target.display());
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
    }
    // Of what was looked at, should the path lead elsewhere by now.
    let link = PathBuf::from(format!("/proc/self/fd/{}", top.as_raw_fd()));
    match nix::mount::umount2(&link, MntFlags::MNT_DETACH) {
        Err(nix::errno::Errno::EPERM) => ask_helper(&target, &["-u", "-z", "-q"]),
        result => Ok(result?),
    }
}

fn unmount(target: &Path, flags: MntFlags, helper_flags: &[&str]) -> io::Result<()> {
    match nix::mount::umount2(target, flags) {
        Err(nix::errno::Errno::EPERM) => ask_helper(target, helper_flags),
        result => Ok(result?),
    }
}

/// An ordinary user's mount goes through `fusermount3`.
fn ask_helper(target: &Path, helper_flags: &[&str]) -> io::Result<()> {
    let helper =
        Command::new("fusermount3").args(helper_flags).arg("--").arg(target).stdin(Stdio::null()).output();
    let output = helper.map_err(|error| io::Error::new(error.kind(), format!("fusermount3: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(said_by_helper(&output.stderr))
}

/// Its words begin with its name.
fn said_by_helper(stderr: &[u8]) -> io::Error {
    let said = String::from_utf8_lossy(stderr).trim().to_owned();
    io::Error::other(if said.is_empty() { "fusermount3 failed and did not say why".to_owned() } else { said })
}
