//! Taking an upper into use: lock, clean up after a crash, find out what the filesystem can do.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::adopt::namespace_of;
use super::copy_up::set_times;
use super::error::At as _;
use super::format::{self, Format, Writer};
use super::handle::{magic_link, pin_dir, stat};
use super::made_with::MadeWith;
use super::marks::Namespace;
use super::owner::Owners;
use super::scratch::{clean_up, empty_dir};
use super::{Upper, UpperError, UpperOptions, Whiteouts, volatile};
use crate::model::Digest;
use crate::sys::files;

/// The page size: what the kernel writes of a mapped file.
const GRANULE_BYTES_MIN: u64 = 4096;

/// How long the server of a mount that has just gone may take to end, where engines mount again at once.
const ENDING_SERVER_WAIT: Duration = Duration::from_secs(30);
/// The same where people do (`fusermount3 -u DIR && layerfs mount ...`). A child that some other thread has forked
/// holds the locks too, until it executes its program.
const SOON: Duration = Duration::from_secs(1);
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
        Self::open_with(upper, work, options, None)
    }

    /// As [`Self::open_as`], to be used over layers with these diffIDs, base first; `None` for a directory.
    ///
    /// # Errors
    /// As [`Self::open_as`]; [`UpperError::OtherLayers`] when it was made with others.
    pub fn open_over(
        upper: &Path,
        work: &Path,
        options: UpperOptions,
        layers: &[Option<Digest>],
    ) -> Result<Self, UpperError> {
        Self::open_with(upper, work, options, Some(layers))
    }

    fn open_with(
        upper: &Path,
        work: &Path,
        options: UpperOptions,
        layers: Option<&[Option<Digest>]>,
    ) -> Result<Self, UpperError> {
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
        probe_rename(&root, &scratch).map_err(|source| match source {
            Errno::INVAL => unusable(upper, "RENAME_NOREPLACE, which this filesystem cannot do")(source),
            _ => unusable(work, "rename into the upper (same filesystem?)")(source),
        })?;
        // The root of the mount does not change because it is mounted.
        set_times(&root, before.atime, before.metadata.mtime)?;
        let whiteouts = probe_whiteouts(&scratch)?;
        let found = Format { whiteouts, namespace };
        let (written, made_with) = Format::read(&work_fd, &root)?.unzip();
        let known = made_with.flatten();
        let gives_way = match (&known, layers) {
            (Some(known), Some(layers)) => known.gives_way(layers, upper)?,
            _ => false,
        };
        let recounts = known.as_ref().is_some_and(MadeWith::is_of_any_directory);
        let made_with = MadeWith::to_be(layers, known.as_ref());
        // What engines share is never taken over: it is theirs, and understood as it is.
        let others = if options.shared { None } else { format::others(&work_fd, &root, written.is_some())? };
        // After the kernel's directory was opened to us.
        volatile::check(&work_fd, work, options)?;
        let Format { whiteouts, namespace } = form(found, written, others, &root)?;
        let owners = Owners::of(options);
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
            creator: owners.creator(),
            masks: AtomicBool::new(false),
            shared: options.shared,
            volatile: options.volatile,
            reading_files: OFlags::empty(),
            reading_dirs: OFlags::empty(),
            granule_bytes_min: (!options.shared).then_some(GRANULE_BYTES_MIN),
            boot: crate::sys::boot::id(),
            serial: AtomicU64::new(0),
            counting: super::turns::Turns::default(),
            unflushed: Mutex::default(),
            made_with,
            taking_over: AtomicBool::new(others.is_some() || gives_way || recounts),
            _locks: locks,
        };
        if gives_way {
            upper.forget_numbers()?;
        }
        match others {
            Some(writer) => upper.adopt(writer)?,
            None => upper.record(written.is_some(), known.as_ref())?,
        }
        Ok(upper)
    }

    /// Writes down form and layers where that says something new.
    fn record(&self, is_written: bool, known: Option<&MadeWith>) -> Result<(), UpperError> {
        // What is taken over is recorded when that is done; what engines share only if it was ours before.
        if self.is_taking_over() || (self.shared && !is_written) {
            return Ok(());
        }
        match is_written {
            false => self.write_first_format(),
            true if self.made_with.as_ref() == known => self.doubt_format(),
            true => self.write_format(),
        }
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
    let until = Instant::now() + if shared { ENDING_SERVER_WAIT } else { SOON };
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

/// Devices, where they can be made and everything be done with them that hiding in one step needs.
fn probe_whiteouts(scratch: &OwnedFd) -> Result<Whiteouts, UpperError> {
    let probed = probe_devices(scratch);
    empty_dir(scratch)?;
    match probed {
        Ok(()) => Ok(Whiteouts::Device),
        // What filesystems say that have no device nodes, or only the plain rename; anything else says nothing of the
        // next time.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS | Errno::INVAL | Errno::NOSYS) => {
            Ok(Whiteouts::Named)
        }
        Err(error) => Err(error).at("make a device node"),
    }
}

/// A device, exchanged for something else and left behind by a rename (renameat2(2)). Whoever calls tidies up.
fn probe_devices(scratch: &OwnedFd) -> rustix::io::Result<()> {
    let [device, other, moved] = ["probe-device", "probe-other", "probe-moved"];
    files::mknodat(scratch, device, FileType::CharacterDevice, Mode::empty(), 0)?;
    files::symlinkat("probe", scratch, other)?;
    files::renameat_with(scratch, other, scratch, device, RenameFlags::EXCHANGE)?;
    files::renameat_with(scratch, device, scratch, moved, RenameFlags::WHITEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fault::{Fault, arm, disarm};
    use crate::upper::scratch::names;

    #[test]
    fn where_devices_are_of_no_use_whiteouts_are_names() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = pin_path(dir.path()).unwrap();
        assert_eq!(probe_whiteouts(&scratch).unwrap(), Whiteouts::Device, "else this shows nothing");
        let with = |errno, at| {
            arm(Fault::Error(errno), at);
            let probed = probe_whiteouts(&scratch);
            let hit = disarm().unwrap();
            assert!(names(&scratch).unwrap().is_empty(), "{hit}");
            (hit, probed)
        };
        for (at, call) in [(0, "mknodat"), (2, "renameat_with"), (3, "renameat_with")] {
            let (hit, probed) = with(Errno::INVAL, at);
            assert_eq!((hit, probed.unwrap()), (call, Whiteouts::Named));
            let (_, probed) = with(Errno::NOSPC, at);
            assert_eq!(probed.unwrap_err().errno(), Errno::NOSPC);
        }
    }

    #[test]
    fn a_filesystem_that_only_renames_plainly_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Upper::open(&dir.path().join("upper"), &dir.path().join("work"));
        drop(open().unwrap());
        let refused = (0..).find_map(|at| {
            arm(Fault::Error(Errno::INVAL), at);
            let opened = open();
            (disarm()? == "renameat_with").then_some(opened)
        });
        let error = refused.unwrap().unwrap_err().to_string();
        assert!(error.contains("RENAME_NOREPLACE"), "{error}");
    }
}
