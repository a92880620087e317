//! The program that this process runs, where nothing in a container can write to it.
//!
//! A container gets at it: its processes may open `/proc/PID/exe` of one that is about to become their program, and an
//! image may name `/proc/self/exe` as its program, or as the interpreter of a script. An ordinary user's container runs as
//! that user, who may own the program (CVE-2019-5736). So whoever starts programs in containers does it from a copy of the
//! mount that the program lies in, attached nowhere and read-only: no memory, no copying, and a tenth of a millisecond.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, Uid, execveat};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};

use crate::sys::message_socket::MessageSocket;
use crate::sys::mount_attributes::{MountAttrFlags, Reach, clone_fd, clone_path, set_attributes};
use crate::sys::process::{self, Fork};

const OWN_PROGRAM: &str = "/proc/self/exe";

/// Why this process cannot run from where its program cannot be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot run from where no container can write to this program: {copy} (and no read-only mount of it: {mount})"
)]
pub struct OwnProgramError {
    mount: io::Error,
    copy: io::Error,
}

/// Executes this process's program again, with the same arguments, from where nothing in a container can write to it;
/// returns when that is so. To be called before anything else is done that a second time would do twice.
///
/// The calling process must have one thread.
///
/// # Errors
/// [`OwnProgramError`]; no container should be started then.
pub fn make_own_program_unwritable() -> Result<(), OwnProgramError> {
    let opened = rustix::fs::open(OWN_PROGRAM, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let read_only = opened.map_err(io::Error::from).and_then(|program| {
        let is_safe = is_unwritable(program.as_fd())?;
        Ok(if is_safe { None } else { Some(read_only_mount(program.as_fd())?) })
    });
    let from_mount = match read_only {
        Ok(None) => {
            take_name();
            return Ok(());
        }
        Ok(Some(mount)) => execute_again(mount.as_fd()),
        Err(error) => Err(error),
    };
    let Err(mount) = from_mount;
    tracing::debug!(error = %mount, "no read-only mount of this program");
    let Err(copy) = sealed_copy().and_then(|copy| execute_again(copy.as_fd()));
    Err(OwnProgramError { mount, copy })
}

fn is_unwritable(program: BorrowedFd<'_>) -> io::Result<bool> {
    if rustix::fs::fstatvfs(program)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    if is_roots_alone(&std::fs::metadata(OWN_PROGRAM)?, Uid::effective()) {
        return Ok(true);
    }
    // Only what is made for it can have seals; who may not read the program has made no copy of it.
    let seals = File::open(OWN_PROGRAM).and_then(|program| Ok(rustix::fs::fcntl_get_seals(program)?));
    Ok(seals.is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// Whether no id that an ordinary user's container can have may write to it: root of the host is not among them. The bits
/// of the group are the most that an ACL gives.
fn is_roots_alone(program: &Metadata, caller: Uid) -> bool {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    !caller.is_root() && program.uid() == 0 && program.mode() & WRITABLE_BY_OTHERS == 0
}

/// A copy of the mount of a file, read-only. It lasts for as long as somebody executes it, and as it is in no mount
/// namespace, nobody can make it writable.
fn read_only_mount(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match clone_fd(program, Reach::One) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => clone_by_child(program),
        mount => mount.and_then(read_only),
    }
}

fn read_only(mount: OwnedFd) -> io::Result<OwnedFd> {
    set_attributes(mount.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, Reach::One)?;
    Ok(mount)
}

/// By a child that may, in namespaces that end with it.
fn clone_by_child(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (here, there) = MessageSocket::pair()?;
    let child = match process::fork()? {
        Fork::Child => process::exit_now(match clone_as_root(program, &there) {
            Ok(()) => 0,
            Err(error) => {
                tracing::debug!(%error, "a read-only mount in namespaces of its own");
                1
            }
        }),
        Fork::Parent(child) => child,
    };
    drop(there);
    let message = here.receive()?;
    waitpid(Pid::from_raw(child.pid), None)?;
    message.and_then(|message| message.fd).ok_or_else(|| io::ErrorKind::PermissionDenied.into())
}

fn clone_as_root(program: BorrowedFd<'_>, answer: &MessageSocket) -> io::Result<()> {
    let path = std::fs::read_link(OWN_PROGRAM)?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    // By its path, because the mount that the descriptor is of belongs to the namespace that was left.
    let mount = read_only(clone_path(&path, Reach::One)?)?;
    let [here, there] = [rustix::fs::fstat(&mount)?, rustix::fs::fstat(program)?];
    if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino) {
        return Err(io::Error::other(format!("{} is another program by now", path.display())));
    }
    answer.send(b"m", Some(mount.as_fd()))
}

/// A copy in memory that nobody can change, for where no mount can be made.
fn sealed_copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create("layerfs", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 all were executable.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("layerfs", flags)?,
        memory => memory?,
    };
    let mut memory = File::from(memory);
    io::copy(&mut File::open(OWN_PROGRAM)?, &mut memory)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    Ok(memory.into())
}

fn execute_again(program: BorrowedFd<'_>) -> io::Result<Infallible> {
    let terminated = |strings: Vec<OsString>| -> io::Result<Vec<CString>> {
        Ok(strings.into_iter().map(|string| CString::new(string.into_vec())).collect::<Result<_, _>>()?)
    };
    let args = terminated(std::env::args_os().collect())?;
    let variables = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    Ok(execveat(program, c"", &args, &terminated(variables.collect())?, AtFlags::AT_EMPTY_PATH)?)
}

/// The kernel has named the process after the number of a descriptor.
fn take_name() {
    let first = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&first).file_name().unwrap_or(OsStr::new("layerfs"));
    let named = CString::new(name.as_bytes()).map(|name| prctl::set_name(&name));
    if !matches!(named, Ok(Ok(()))) {
        tracing::debug!(?named, "naming this process");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_a_container_may_write_to() {
        let root = std::fs::metadata("/bin/sh").unwrap();
        let user = Uid::from_raw(1000);
        assert!(is_roots_alone(&root, user));
        assert!(!is_roots_alone(&root, Uid::from_raw(0)));
        let file = tempfile::NamedTempFile::new().unwrap();
        let with_mode = |mode| {
            file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            is_roots_alone(&file.as_file().metadata().unwrap(), user)
        };
        assert_eq!(with_mode(0o755), Uid::effective().is_root(), "who owns a file may write to it");
        assert!(!with_mode(0o775) && !with_mode(0o757));
    }

    #[test]
    fn a_copy_is_the_same_and_stays_so() {
        let mut copy = File::from(sealed_copy().unwrap());
        let mut copied = Vec::new();
        copy.rewind().unwrap();
        io::Read::read_to_end(&mut copy, &mut copied).unwrap();
        assert!(copied == std::fs::read(OWN_PROGRAM).unwrap());
        let error = io::Write::write(&mut copy, b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
