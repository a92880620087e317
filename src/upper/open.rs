//! Taking an upper into use: lock, clean up after a crash, find out what the filesystem can do.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::adopt::namespace_of;
use super::copy_up::set_times;
use super::format::{self, Format, Writer};
use super::handle::{magic_link, pin_dir, stat};
use super::marks::Namespace;
use super::owner::Owners;
use super::scratch::clean_up;
use super::{Upper, UpperError, UpperOptions, Whiteouts, volatile};
use crate::sys::files;

/// The page size: what the kernel writes of a mapped file.
const GRANULE_BYTES_MIN: u64 = 4096;

/// How long the server of a mount that has just gone may take to end.
const ENDING_SERVER_WAIT: Duration = Duration::from_secs(5);
const ENDING_SERVER_POLL: Duration = Duration::from_millis(10);

impl Upper {
    /// Takes `upper` (the changes) and `work` (scratch space on the same filesystem) into use; missing ones are made.
    ///
    /// # Errors
    /// [`UpperError::InUse`] when another mount has them, [`UpperError::Unusable`] when the filesystem cannot hold
    /// what an upper needs.
    pub fn open(upper: &Path, work: &Path) -> Result<Self, UpperError> {
        Self::open_as(upper, work, UpperOptions::default())
    }

    /// As [`Self::open`], to be used as `options` say.
    ///
    /// # Errors
    /// As [`Self::open`]; [`UpperError::Volatile`] when its last mount may have lost something.
    pub fn open_as(upper: &Path, work: &Path, options: UpperOptions) -> Result<Self, UpperError> {
        let unusable = |path: &Path, operation: &'static str| {
            let path = path.to_path_buf();
            move |source: Errno| UpperError::Unusable { path, operation, source }
        };
        for directory in [upper, work] {
            make_dir(CWD, directory).map_err(unusable(directory, "mkdir"))?;
        }
        let locks = [lock(work, options.shared)?, lock(upper, options.shared)?];
        let open = |path: &Path| pin_path(path).map_err(unusable(path, "open"));
        let (root, work_fd) = (open(upper)?, open(work)?);
        for name in ["tmp", "links", "numbers"] {
            make_dir(&work_fd, Path::new(name)).map_err(unusable(work, "mkdir"))?;
        }
        let inner = |name: &str| pin_dir(&work_fd, name.as_bytes()).map_err(unusable(work, "open"));
        let (scratch, links, numbers) = (inner("tmp")?, inner("links")?, inner("numbers")?);
        clean_up(&scratch, &numbers)?;
        let namespace = probe_namespace(&scratch).map_err(unusable(upper, "set an extended attribute"))?;
        let before = stat(&root)?;
        probe_rename(&root, &scratch).map_err(unusable(work, "rename into the upper (same filesystem?)"))?;
        // The root of the mount does not change because it is mounted.
        set_times(&root, before.atime, before.metadata.mtime)?;
        let whiteouts = probe_whiteouts(&scratch).map_err(unusable(work, "make a device node"))?;
        let found = Format { whiteouts, namespace };
        let written = Format::read(&work_fd)?;
        // What engines share is never taken over: it is theirs, and understood as it is.
        let others = if options.shared { None } else { format::others(&work_fd, &root, written.is_some())? };
        // After the kernel's directory was opened to us.
        volatile::check(&work_fd, work, options.volatile)?;
        let Format { whiteouts, namespace } = form(found, written, others, &root)?;
        let real = rustix::process::geteuid().is_root() && !options.record_owners;
        let owners = if real { Owners::Real } else { Owners::Recorded };
        tracing::debug!("upper {}: {whiteouts:?} {namespace:?} {owners:?}", upper.display());
        let upper = Self {
            root,
            work: work_fd,
            scratch,
            links,
            numbers,
            whiteouts,
            namespace,
            owners,
            shared: options.shared,
            volatile: options.volatile,
            granule_bytes_min: (!options.shared).then_some(GRANULE_BYTES_MIN),
            boot: crate::sys::boot::id(),
            serial: AtomicU64::new(0),
            counting: super::turns::Turns::default(),
            taking_over: AtomicBool::new(others.is_some()),
            _locks: locks,
        };
        match others {
            Some(writer) => upper.adopt(writer)?,
            None if written.is_none() && !options.shared => upper.write_format()?,
            None => {}
        }
        Ok(upper)
    }
}

/// The form to keep the upper in.
fn form(
    found: Format,
    written: Option<Format>,
    others: Option<Writer>,
    root: &OwnedFd,
) -> Result<Format, UpperError> {
    match written {
        Some(written) => written.go_on(found, root),
        None if others.is_some() => Ok(Format { namespace: namespace_of(root, found.namespace)?, ..found }),
        None => Ok(found),
    }
}

fn make_dir(dir: impl AsFd, path: &Path) -> rustix::io::Result<()> {
    match files::mkdirat(dir, path, Mode::RWXU) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// The directories that the user names may lie behind symlinks; what is in them may not.
fn pin_path(path: &Path) -> rustix::io::Result<OwnedFd> {
    files::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn lock(dir: &Path, shared: bool) -> Result<File, UpperError> {
    let unusable =
        |operation| move |source| UpperError::Unusable { path: dir.to_path_buf(), operation, source };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = files::openat(CWD, dir, flags, Mode::empty()).map_err(unusable("open"))?;
    // Engines mount again as soon as the unmount returns; its server may be about to end.
    let until = Instant::now() + if shared { ENDING_SERVER_WAIT } else { Duration::ZERO };
    loop {
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(File::from(fd)),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(ENDING_SERVER_POLL),
            Err(Errno::WOULDBLOCK) => return Err(UpperError::InUse(dir.to_path_buf())),
            Err(source) => return Err(unusable("flock")(source)),
        }
    }
}

/// `trusted.` where we may write it, else `user.`.
fn probe_namespace(scratch: &OwnedFd) -> rustix::io::Result<Namespace> {
    let path = magic_link(scratch);
    let try_one = |name: &str| {
        files::setxattr(&path, name, b"y", XattrFlags::empty()).and_then(|()| files::removexattr(&path, name))
    };
    match try_one("trusted.overlay.layerfs.probe") {
        Ok(()) => Ok(Namespace::Trusted),
        // Anything else says nothing of the next time, and what one mount wrote the next would not see.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS) => {
            try_one("user.overlay.layerfs.probe").map(|()| Namespace::User)
        }
        Err(error) => Err(error),
    }
}

/// A rename into the upper and out again. A mount that is killed in between leaves something there that no program made.
fn probe_rename(root: &OwnedFd, scratch: &OwnedFd) -> rustix::io::Result<()> {
    const PROBE: &str = ".layerfs-rename-probe";
    const TARGET: &str = "left by a layerfs that was killed while it mounted";
    match files::readlinkat(root, PROBE, Vec::new()) {
        Ok(target) if target.as_bytes() == TARGET.as_bytes() => {
            files::unlinkat(root, PROBE, AtFlags::empty())?;
        }
        // Nothing, or a program's own.
        Ok(_) | Err(Errno::NOENT | Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    files::symlinkat(TARGET, scratch, PROBE)?;
    match files::renameat_with(scratch, PROBE, root, PROBE, RenameFlags::NOREPLACE) {
        Ok(()) => files::unlinkat(root, PROBE, AtFlags::empty()),
        // A program has made something of that name: there have been renames into this upper.
        Err(Errno::EXIST) => files::unlinkat(scratch, PROBE, AtFlags::empty()),
        Err(error) => Err(error),
    }
}

fn probe_whiteouts(scratch: &OwnedFd) -> rustix::io::Result<Whiteouts> {
    const PROBE: &str = "whiteout-probe";
    match files::mknodat(scratch, PROBE, FileType::CharacterDevice, Mode::empty(), 0) {
        Ok(()) => files::unlinkat(scratch, PROBE, AtFlags::empty()).map(|()| Whiteouts::Device),
        // What filesystems without device nodes say; anything else says nothing of the next time.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS | Errno::INVAL | Errno::NOSYS) => {
            Ok(Whiteouts::Named)
        }
        Err(error) => Err(error),
    }
}
