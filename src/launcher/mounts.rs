//! What is mounted in a container besides its root: made as detached mounts while the host can still be seen, attached after
//! pivot_root(2), when no path can lead out of the container any more.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, makedev};
use rustix::mount::MountAttrFlags as Attr;

use super::failure::{Context as _, Failure, Step};
use super::fill;
use super::in_root::{self, Symlinks};
use super::plan::{Network, Plan};
use super::rootfs;
use super::user_mounts;
use crate::sys::mount_attributes::{Reach, attach, clone_fd, clone_path, new_filesystem, set_attributes};
use crate::sys::scoped;

/// All that was made before pivot_root(2).
#[derive(Debug)]
pub(super) struct Prepared {
    mounts: Vec<Pending>,
    /// Copies of the host's `/dev/null`, for masked paths that are files: the container's could be something else.
    nulls: Vec<Option<OwnedFd>>,
    /// The devpts instance, from which the terminal is opened.
    pub(super) devpts: OwnedFd,
}

/// What is mounted with the supervisor's ids for a first process that has others, so that it can do it no more.
#[derive(Debug)]
pub(super) struct Carried {
    /// The root filesystem.
    pub(super) root: OwnedFd,
    pub(super) volumes: Volumes,
}

/// What a plan has of the host.
#[derive(Debug)]
pub(super) struct Volumes(Vec<Pending>);

/// A mount without a place.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) mount: OwnedFd,
    pub(super) destination: PathBuf,
    pub(super) place: Place,
    /// Whether it gets what the image has there.
    pub(super) fill: Option<Fill>,
}

/// How a mount is filled.
#[derive(Debug)]
pub(super) struct Fill {
    /// Its directory, where it can be written.
    pub(super) into: OwnedFd,
    /// Whether it gets owner and mode, too.
    pub(super) as_in_image: bool,
    /// What it is set to afterwards.
    pub(super) then: Attr,
}

/// What is done about the place that something is mounted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Of ours: a directory with no symlink on the way, made when missing.
    Own,
    /// Of ours, and in something of ours, so it is there.
    Inner,
    /// Made when missing, directory and all, as for images with nothing but a program; passed over where that is impossible.
    OptionalFile,
    /// The user's: made when missing, symlinks followed inside the container.
    Directory,
    /// The user's: made when missing, symlinks followed inside the container.
    File,
}

impl Place {
    /// Such a path may lead anywhere in the container, as the image has it.
    fn is_of_the_users_choice(self) -> bool {
        matches!(self, Self::OptionalFile | Self::Directory | Self::File)
    }
}

/// The six device nodes of every container, with their numbers.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const DEVICE_LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];

/// The group `tty` of every Linux distribution.
pub(super) const TTY_GID: &str = "5";

fn inert() -> Attr {
    Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOEXEC
}

/// Copies of the root filesystem's mount and of what the plan has of the host.
pub(super) fn carry(plan: &Plan) -> Step<Carried> {
    let target = &plan.rootfs_mount_point;
    Ok(Carried { root: clone_path(target, Reach::One).at("bind", target)?, volumes: of_host(plan)? })
}

/// Makes the mounts of what the plan has of the host.
pub(super) fn of_host(plan: &Plan) -> Step<Volumes> {
    user_mounts::check_destinations(plan)?;
    user_mounts::of_host(plan).map(Volumes)
}

/// Makes every other mount of the plan. `single` says that there is one id only, so none for the group of terminals.
pub(super) fn prepare(plan: &Plan, volumes: Volumes, single: bool) -> Step<Prepared> {
    let devpts = new_devpts(single).at("mount", "/dev/pts")?;
    let mut mounts = Vec::new();
    let mut add = |destination: &str, place: Place, mount: OwnedFd| {
        if !plan.volumes.iter().any(|volume| volume.destination == Path::new(destination)) {
            mounts.push(Pending { mount, destination: PathBuf::from(destination), place, fill: None });
        }
    };
    add("/proc", Place::Own, new_proc()?);
    add_sys(plan, &mut add)?;
    add("/dev", Place::Own, new_dev(plan.terminal).at("mount", "/dev")?);
    add("/dev/pts", Place::Inner, devpts.try_clone().at("mount", "/dev/pts")?);
    let shm = [("mode", "1777"), ("size", &plan.shm_bytes.to_string())];
    add("/dev/shm", Place::Inner, new_filesystem("tmpfs", &shm, inert()).at("mount", "/dev/shm")?);
    add("/dev/mqueue", Place::Inner, new_filesystem("mqueue", &[], inert()).at("mount", "/dev/mqueue")?);
    if !plan.volumes.iter().any(|volume| volume.destination == Path::new("/dev")) {
        for (name, major, minor) in DEVICES {
            let path = format!("/dev/{name}");
            add(&path, Place::Inner, clone_device(&path, major, minor).at("bind", &path)?);
        }
    }
    let before_the_users = mounts.len();
    mounts.extend(user_mounts::tmpfs(plan)?);
    mounts.extend(volumes.0);
    let nulls: io::Result<Vec<Option<OwnedFd>>> =
        plan.masked_paths.iter().map(|path| null_for(path, &mounts)).collect();
    let nulls = nulls.at("bind", "/dev/null")?;
    mounts.splice(before_the_users..before_the_users, generated_files(plan)?);
    // Outer before inner, as podman sorts them; the sort is stable, so equal depths keep their order.
    mounts.sort_by_key(|pending| pending.destination.components().count());
    Ok(Prepared { mounts, nulls, devpts })
}

pub(super) fn new_proc() -> Step<OwnedFd> {
    new_filesystem("proc", &[], inert()).at("mount", "/proc").map_err(|failure| {
        if failure.errno == Some(rustix::io::Errno::PERM.raw_os_error()) {
            return Box::new(failure.hint(
                "the kernel allows this only where /proc is not masked; inside another container, start that one \
                 with --security-opt unmask=/proc/*",
            ));
        }
        failure
    })
}

/// `/sys` shows the network namespace of whoever mounts it, so with the host's network it has to be the host's.
fn add_sys(plan: &Plan, add: &mut impl FnMut(&str, Place, OwnedFd)) -> Step<()> {
    let read_only = inert() | Attr::MOUNT_ATTR_RDONLY;
    let attributes = if plan.writable_sys { inert() } else { read_only };
    let fresh = match plan.network {
        Network::Host => Err(io::ErrorKind::PermissionDenied.into()),
        _ => new_filesystem("sysfs", &[], attributes),
    };
    let (sys, is_copy) = match fresh {
        Ok(sys) => (sys, false),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let copy = clone_path(Path::new("/sys"), Reach::Tree).at("bind", "/sys")?;
            set_attributes(copy.as_fd(), attributes, Reach::Tree).at("bind", "/sys")?;
            (copy, true)
        }
        Err(error) => return Err(error).at("mount", "/sys"),
    };
    add("/sys", Place::Own, sys);
    let cgroup = Path::new("/sys/fs/cgroup");
    if has_cgroup2(cgroup) {
        // The cgroup namespace makes this show our own subtree only.
        add("/sys/fs/cgroup", Place::Inner, new_filesystem("cgroup2", &[], read_only).at("mount", cgroup)?);
    } else if is_copy && cgroup.is_dir() {
        // A copy of /sys brings the host's cgroup version 1 trees along. They are none of the container's business.
        add("/sys/fs/cgroup", Place::Inner, new_filesystem("tmpfs", &[], read_only).at("mount", cgroup)?);
    }
    Ok(())
}

/// `CGROUP2_SUPER_MAGIC` (linux/magic.h).
const CGROUP2_MAGIC: u32 = 0x6367_7270;

pub(super) fn has_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| u32::try_from(stat.f_type) == Ok(CGROUP2_MAGIC))
}

fn new_dev(terminal: bool) -> io::Result<OwnedFd> {
    let attributes = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NOEXEC | Attr::MOUNT_ATTR_STRICTATIME;
    let dev = new_filesystem("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes)?;
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755))?;
    }
    let files = DEVICES.iter().map(|device| device.0).chain(terminal.then_some("console"));
    for name in files {
        make_file(dev.as_fd(), name)?;
    }
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlinkat(target, &dev, name)?;
    }
    Ok(dev)
}

fn make_file(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644))?)
}

fn new_devpts(single: bool) -> io::Result<OwnedFd> {
    let mut options = vec![("ptmxmode", "0666"), ("mode", "0620")];
    if !single {
        options.push(("gid", TTY_GID));
    }
    match new_filesystem("devpts", &options, Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NOEXEC) {
        // A range of fewer than five groups.
        Err(error) if !single && error.kind() == io::ErrorKind::InvalidInput => new_devpts(true),
        other => other,
    }
}

/// A copy of a device of the host, which must be the device that its name says.
fn clone_device(path: &str, major: u32, minor: u32) -> io::Result<OwnedFd> {
    let device = clone_path(Path::new(path), Reach::One)?;
    check_device(device.as_fd(), major, minor)?;
    set_attributes(device.as_fd(), of_device(), Reach::One)?;
    Ok(device)
}

/// A device can be written to through a read-only mount, but its node, which is the host's, cannot be changed: the root of a
/// container of root's could otherwise give it other permissions for everybody.
pub(super) fn of_device() -> Attr {
    Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NOEXEC | Attr::MOUNT_ATTR_RDONLY
}

fn check_device(device: BorrowedFd<'_>, major: u32, minor: u32) -> io::Result<()> {
    let stat = rustix::fs::statat(device, "", AtFlags::EMPTY_PATH)?;
    let is_character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if is_character && stat.st_rdev == makedev(major, minor) {
        return Ok(());
    }
    Err(io::Error::other(format!("not the character device {major}:{minor}")))
}

/// A copy of the host's `/dev/null` for a masked path, unless it is known that the path is none of a file: a mount that is
/// never attached costs a grace period of the kernel when it is closed.
fn null_for(path: &Path, mounts: &[Pending]) -> io::Result<Option<OwnedFd>> {
    let below = |pending: &Pending| pending.destination.components().count();
    let covering =
        mounts.iter().filter(|pending| path.starts_with(&pending.destination)).max_by_key(|p| below(p));
    let needed = match covering {
        Some(pending) => is_file_in(pending, path)?,
        // Of the image, which cannot be seen yet.
        None => true,
    };
    needed.then(|| clone_device("/dev/null", 1, 3)).transpose()
}

fn is_file_in(pending: &Pending, path: &Path) -> io::Result<bool> {
    let inside = path.strip_prefix(&pending.destination).map_err(io::Error::other)?;
    match in_root::open(pending.mount.as_fd(), inside, Symlinks::Refused) {
        Ok(place) => Ok(!in_root::is_directory(place.as_fd())?),
        Err(error) if in_root::is_absent(&error) => Ok(false),
        // A symlink, which may lead to anything.
        Err(_) => Ok(true),
    }
}

/// Opens the container's `/dev/null`, for a program without input.
pub(super) fn open_null(root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let null = scoped::open(root, "dev/null", flags, resolve)?;
    check_device(null.as_fd(), 1, 3)?;
    Ok(null)
}

/// The generated files, on a tmpfs of their own. A file can be cloned from an attached mount only (before Linux 6.15), so the
/// tmpfs lies over the host's `/proc`, in this process's mount namespace, until all of the host's mounts are detached: an
/// unmount of its own would cost a grace period of the kernel, up to 2 ms.
fn generated_files(plan: &Plan) -> Step<Vec<Pending>> {
    if plan.files.is_empty() {
        return Ok(Vec::new());
    }
    let attributes = inert() | if plan.read_only { Attr::MOUNT_ATTR_RDONLY } else { Attr::empty() };
    let tmpfs =
        new_filesystem("tmpfs", &[("mode", "755"), ("size", "1m")], inert()).stage("generated files")?;
    let proc = rootfs::open_directory(Path::new("/proc")).at("open", "/proc")?;
    attach(tmpfs.as_fd(), proc.as_fd()).at("generated files", "/proc")?;
    let mut pending = Vec::new();
    for (number, file) in plan.files.iter().enumerate() {
        let mount = write_file(tmpfs.as_fd(), &number.to_string(), &file.content)
            .and_then(|written| clone_fd(written.as_fd(), Reach::One))
            .at("generated file", &file.destination)?;
        set_attributes(mount.as_fd(), attributes, Reach::One).at("generated file", &file.destination)?;
        let (destination, place) = (file.destination.clone(), Place::OptionalFile);
        pending.push(Pending { mount, destination, place, fill: None });
    }
    let is_ours =
        |pending: &Pending| !plan.volumes.iter().any(|volume| volume.destination == pending.destination);
    pending.retain(is_ours);
    Ok(pending)
}

fn write_file(directory: BorrowedFd<'_>, name: &str, content: &str) -> io::Result<File> {
    let mut file = File::from(make_file(directory, name)?);
    io::Write::write_all(&mut file, content.as_bytes())?;
    Ok(file)
}

/// Makes the mounts of the plan's volumes alone.
pub(super) fn prepare_volumes(plan: &Plan) -> Step<Volumes> {
    user_mounts::check_destinations(plan)?;
    let mut volumes = user_mounts::prepare_volumes(plan)?;
    volumes.sort_by_key(|pending| pending.destination.components().count());
    Ok(Volumes(volumes))
}

/// Attaches them below `root`, which is the container's.
pub(super) fn attach_volumes(volumes: &Volumes, root: BorrowedFd<'_>) -> Step<()> {
    attach_pending(&volumes.0, root)
}

/// Attaches everything below `root`, which is the container's.
pub(super) fn attach_all(prepared: &Prepared, root: BorrowedFd<'_>) -> Step<()> {
    attach_pending(&prepared.mounts, root)
}

fn attach_pending(mounts: &[Pending], root: BorrowedFd<'_>) -> Step<()> {
    for pending in mounts {
        // Before anything is made, or copied from there.
        if pending.place.is_of_the_users_choice()
            && let Some(there) =
                open_existing(root, &pending.destination).at("mount", &pending.destination)?
        {
            check_place(there.as_fd(), root, pending)?;
        }
        if let Some(Fill { into, as_in_image, then }) = &pending.fill {
            fill::fill(root, &pending.destination, (into.as_fd(), *as_in_image))
                .and_then(|()| set_attributes(pending.mount.as_fd(), *then, Reach::One))
                .at("fill", &pending.destination)?;
        }
        let Some(onto) = open_place(root, pending).at("mount", &pending.destination)? else { continue };
        check_place(onto.as_fd(), root, pending)?;
        attach(pending.mount.as_fd(), onto.as_fd()).at("mount", &pending.destination)?;
    }
    Ok(())
}

/// Where the user's choice has led to by symlinks of the image.
fn check_place(place: BorrowedFd<'_>, root: BorrowedFd<'_>, pending: &Pending) -> Step<()> {
    let problem = if !pending.place.is_of_the_users_choice() {
        return Ok(());
    } else if is_in_proc(root, place) {
        "it is in /proc, where nothing may be mounted"
    } else if in_root::is_same(place, root).at("mount", &pending.destination)? {
        "it is the root directory, where nothing can be mounted"
    } else {
        return Ok(());
    };
    Err(Box::new(Failure::new("mount", &io::Error::other(problem)).on(&pending.destination)))
}

/// `PROC_SUPER_MAGIC` (linux/magic.h).
const PROC_MAGIC: u32 = 0x9fa0;

/// Something mounted there could make masks, and what is written to a process's own files, mean something else.
fn is_in_proc(root: BorrowedFd<'_>, place: BorrowedFd<'_>) -> bool {
    // The root filesystem would be asked.
    !in_root::is_beside(root, place).unwrap_or(false)
        && rustix::fs::fstatfs(place).is_ok_and(|stat| u32::try_from(stat.f_type) == Ok(PROC_MAGIC))
}

fn open_place(root: BorrowedFd<'_>, pending: &Pending) -> io::Result<Option<OwnedFd>> {
    let path = &pending.destination;
    match pending.place {
        Place::Own => match in_root::open_or_make_directory(root, path, Symlinks::Refused) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                Err(io::Error::other("a symlink in this image, where a directory has to be"))
            }
            other => other.map(Some),
        },
        Place::Inner => in_root::open(root, path, Symlinks::Refused).map(Some),
        Place::Directory => in_root::open_or_make_directory(root, path, Symlinks::Inside).map(Some),
        Place::File => file_with_directory(root, path).map(Some),
        Place::OptionalFile => match file_with_directory(root, path) {
            Ok(place) => Ok(Some(place)),
            Err(error) if in_root::is_absent(&error) || error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                tracing::debug!(path = %path.display(), %error, "no place for a generated file");
                Ok(None)
            }
            Err(error) => Err(error),
        },
    }
}

pub(super) fn file_with_directory(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    if let Some(above) = path.parent() {
        in_root::open_or_make_directory(root, above, Symlinks::Inside)?;
    }
    in_root::open_or_make_file(root, path)
}

/// Hides and write-protects what the plan says, as far as it exists, and at last the root itself.
pub(super) fn protect(plan: &Plan, prepared: Prepared, root: BorrowedFd<'_>) -> Step<()> {
    for (path, null) in plan.masked_paths.iter().zip(prepared.nulls) {
        mask(root, path, null).at("mask", path)?;
    }
    for path in &plan.read_only_paths {
        make_read_only(root, path).at("make read-only", path)?;
    }
    if plan.read_only {
        protect_root(root)?;
    }
    Ok(())
}

/// Makes the root read-only, but not what is mounted in it.
pub(super) fn protect_root(root: BorrowedFd<'_>) -> Step<()> {
    set_attributes(root, Attr::MOUNT_ATTR_RDONLY, Reach::One).at("make read-only", "/")
}

fn mask(root: BorrowedFd<'_>, path: &Path, null: Option<OwnedFd>) -> io::Result<()> {
    let Some(place) = open_existing(root, path)? else { return Ok(()) };
    if in_root::is_directory(place.as_fd())? {
        let empty = new_filesystem("tmpfs", &[("size", "4k")], inert() | Attr::MOUNT_ATTR_RDONLY)?;
        return attach(empty.as_fd(), place.as_fd());
    }
    let null = null.ok_or_else(|| io::Error::other("it was no file when the container was prepared"))?;
    attach(null.as_fd(), place.as_fd())
}

fn make_read_only(root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let Some(place) = open_existing(root, path)? else { return Ok(()) };
    let copy = clone_fd(place.as_fd(), Reach::Tree)?;
    set_attributes(copy.as_fd(), Attr::MOUNT_ATTR_RDONLY, Reach::Tree)?;
    attach(copy.as_fd(), place.as_fd())
}

fn open_existing(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    match in_root::open(root, path, Symlinks::Inside) {
        Ok(place) => Ok(Some(place)),
        Err(error) if in_root::is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
