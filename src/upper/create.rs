//! New objects, complete when they appear: made by one call, or built in `work/tmp`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{self, magic_link, pin};
use super::owner::Recorded;
use super::scratch::Scratch;
use super::{Marks, Object, Upper, UpperAttr, UpperError, Whiteouts};
use crate::model::{DeviceId, FileKind, Metadata, Name, posix_acl, whiteout};
use crate::sys::files;

/// What to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// An empty regular file.
    File,
    /// A directory.
    Dir,
    /// A symlink to this target.
    Symlink(&'a [u8]),
    /// A device node, fifo or socket.
    Special(FileKind, DeviceId),
}

/// A new object.
#[derive(Clone, Copy, Debug)]
pub struct Fresh<'a> {
    /// What it is.
    pub what: What<'a>,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The parent's default ACL, to be inherited (acl(5)).
    pub default_acl: Option<&'a [u8]>,
    /// A whiteout is under the name and gives way. A directory then hides what the layers have.
    pub over_whiteout: bool,
}

/// An object that nobody sees yet.
pub(super) struct Made {
    pub(super) pinned: OwnedFd,
    /// What stat(2) says of it.
    pub(super) real: UpperAttr,
    pub(super) recorded: Recorded,
}

impl What<'_> {
    fn kind(&self) -> FileKind {
        match self {
            Self::File => FileKind::Regular,
            Self::Dir => FileKind::Directory,
            Self::Symlink(_) => FileKind::Symlink,
            Self::Special(kind, _) => *kind,
        }
    }
}

impl Upper {
    /// Whether a program may create this name: where whiteouts are names, those names are taken.
    ///
    /// # Errors
    /// [`UpperError`] with `EPERM`, and a line in the log that says why.
    pub fn may_be_created(&self, name: Name<'_>) -> Result<(), UpperError> {
        if self.is_marker(name) {
            tracing::warn!("upper: {name:?}: names of this form hide files here and cannot be created");
            return Err(Errno::PERM).at("create a name that means a whiteout");
        }
        Ok(())
    }

    /// Creates an object under a name that nothing of the upper but perhaps a whiteout has. Also returns what is recorded
    /// of it.
    ///
    /// # Errors
    /// [`UpperError`]; then the name is as it was.
    pub fn create(
        &self,
        dir: impl AsFd,
        name: Name<'_>,
        fresh: &Fresh<'_>,
    ) -> Result<(Object, Recorded), UpperError> {
        if let Some(object) = self.create_in_place(dir.as_fd(), name, fresh)? {
            return Ok((object, Recorded::default()));
        }
        let scratch = self.scratch();
        let Made { pinned, real, recorded } = self.create_nameless(&scratch, fresh)?;
        let kind = real.metadata.kind;
        let opaque = fresh.over_whiteout && kind == FileKind::Directory;
        if opaque {
            self.namespace.set_opaque(&pinned)?;
        }
        self.publish(scratch, dir, name, kind, fresh.over_whiteout)?;
        let marks = Marks { opaque, ..Marks::default() };
        Ok((self.published(Object { attr: recorded.applied(real), marks, pinned }), recorded))
    }

    /// Creates at once what one system call makes complete: a file or directory of the server's own, of which nothing else is
    /// to be kept. `None` when it takes more than that. An error may leave a change in the times of the directory.
    fn create_in_place(
        &self,
        dir: BorrowedFd<'_>,
        name: Name<'_>,
        fresh: &Fresh<'_>,
    ) -> Result<Option<Object>, UpperError> {
        let is_plain = matches!(fresh.what, What::File | What::Dir) && fresh.mode & 0o7000 == 0;
        let inherits = fresh.over_whiteout || fresh.default_acl.is_some();
        let is_own = self.creator == Some((fresh.uid, fresh.gid)) && !self.masks.load(Ordering::Relaxed);
        if !is_plain || inherits || !is_own {
            return Ok(None);
        }
        let mode = Mode::from_raw_mode(u32::from(fresh.mode));
        match fresh.what {
            What::Dir => files::mkdirat(dir, name.as_bytes(), mode).at("mkdir")?,
            _ => make_file(dir, name.as_bytes(), mode).at("create")?,
        }
        let look = || {
            let pinned = pin(dir, name.as_bytes()).at("open")?;
            let attr = handle::stat(&pinned)?;
            Ok(Object { attr, marks: Marks::default(), pinned })
        };
        let made = look();
        if let Ok(Object { attr: UpperAttr { metadata: Metadata { mode, uid, gid, .. }, .. }, .. }) = made
            && (mode, uid, gid) == (fresh.mode, fresh.uid, fresh.gid)
        {
            return made.map(Some);
        }
        let flags = if fresh.what == What::Dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        files::unlinkat(dir, name.as_bytes(), flags).at("unlink")?;
        made?;
        // The filesystem below has rules of its own (a mask, the mount option `grpid`): not again.
        self.masks.store(true, Ordering::Relaxed);
        Ok(None)
    }

    /// The object with its mode and owner, and what the filesystem below says of it.
    pub(super) fn create_nameless(
        &self,
        scratch: &Scratch<'_>,
        fresh: &Fresh<'_>,
    ) -> Result<Made, UpperError> {
        let rdev = if let What::Special(_, rdev) = fresh.what { rdev } else { DeviceId::default() };
        let (pinned, mode) = self.build(scratch, fresh)?;
        let wanted = Metadata {
            kind: fresh.what.kind(),
            mode,
            uid: fresh.uid,
            gid: fresh.gid,
            rdev,
            size: 0,
            mtime: crate::model::Timestamp::default(),
        };
        let mut real = handle::stat(&pinned)?;
        let had = real.metadata;
        let recorded = self.owners.apply(&pinned, &had, &wanted, None)?;
        if !recorded.is_there() && (had.mode, had.uid, had.gid) != (wanted.mode, wanted.uid, wanted.gid) {
            // Set, but for what the filesystem would not have.
            real = handle::stat(&pinned)?;
        }
        Ok(Made { pinned, real, recorded })
    }

    /// Makes the object with the mode that it will have; with a default ACL the filesystem computes that mode.
    fn build(&self, scratch: &Scratch<'_>, fresh: &Fresh<'_>) -> Result<(OwnedFd, u16), UpperError> {
        let Some(acl) = fresh.default_acl else {
            let pinned = self.make(self.scratch.as_fd(), &scratch.name, &fresh.what, fresh.mode)?;
            return Ok((pinned, fresh.mode));
        };
        let nursery = self.scratch();
        files::mkdirat(&self.scratch, &nursery.name, Mode::RWXU).at("mkdir")?;
        let inside = pin(&self.scratch, nursery.name.as_bytes()).at("open")?;
        files::setxattr(magic_link(&inside), OsStr::from_bytes(posix_acl::DEFAULT), acl, XattrFlags::empty())
            .at("set the default ACL")?;
        let pinned = self.make(inside.as_fd(), &scratch.name, &fresh.what, fresh.mode)?;
        files::renameat(&inside, &scratch.name, &self.scratch, &scratch.name).at("rename")?;
        let mode = handle::stat(&pinned)?.metadata.mode | (fresh.mode & 0o7000);
        Ok((pinned, mode))
    }

    /// Makes the bare object; a special file that the process may not make becomes an empty file that records its type.
    pub(super) fn make(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        what: &What<'_>,
        mode: u16,
    ) -> Result<OwnedFd, UpperError> {
        let mode = Mode::from_raw_mode(u32::from(mode & 0o777));
        match what {
            What::File => make_file(dir, name, mode).at("create")?,
            What::Dir => files::mkdirat(dir, name, mode).at("mkdir")?,
            What::Symlink(target) => files::symlinkat(*target, dir, name).at("symlink")?,
            What::Special(kind, rdev) => match self.make_special(dir, name, *kind, *rdev, mode) {
                Err(Errno::PERM) => make_file(dir, name, mode).at("create")?,
                result => result.at("mknod")?,
            },
        }
        pin(dir, name.as_bytes()).at("open")
    }

    fn make_special(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        kind: FileKind,
        rdev: DeviceId,
        mode: Mode,
    ) -> rustix::io::Result<()> {
        // A real 0:0 character device would be a whiteout; a recorded owner needs a file to carry the record.
        if (kind == FileKind::CharDevice && rdev == DeviceId::default())
            || self.owners == super::Owners::Recorded
        {
            return Err(Errno::PERM);
        }
        let file_type = FileType::from_raw_mode(kind.st_mode());
        let dev = rustix::fs::makedev(rdev.major, rdev.minor);
        files::mknodat(dir, name, file_type, mode, dev)
    }

    /// Moves a complete object to its name, in one step. `whiteout` says that one is there and gives way.
    pub(super) fn publish(
        &self,
        scratch: Scratch<'_>,
        dir: impl AsFd,
        name: Name<'_>,
        kind: FileKind,
        whiteout: bool,
    ) -> Result<(), UpperError> {
        let dir = dir.as_fd();
        if whiteout {
            self.turn_marker_into_device(dir, name)?;
        }
        let device = whiteout && self.whiteouts == Whiteouts::Device;
        let flags = match (device, kind) {
            (false, _) => RenameFlags::NOREPLACE,
            // A directory cannot replace a device; the whiteout is left in the scratch name, and goes with it.
            (true, FileKind::Directory) => RenameFlags::EXCHANGE,
            (true, _) => RenameFlags::empty(),
        };
        files::renameat_with(&self.scratch, &scratch.name, dir, name.as_bytes(), flags)
            .at("rename into place")?;
        if flags != RenameFlags::EXCHANGE {
            scratch.published();
        }
        if whiteout && self.whiteouts == Whiteouts::Named {
            self.drop_named_whiteout(dir, name);
        }
        Ok(())
    }

    /// Takes a `.wh.` marker away that an object stands beside. The object wins, so it hurts nobody should this fail.
    pub(super) fn drop_named_whiteout(&self, dir: impl AsFd, name: Name<'_>) {
        let Ok(marker) = whiteout::hiding(name) else { return };
        match files::unlinkat(dir, marker.as_bytes(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => tracing::warn!("upper: a whiteout stays beside {name:?}: {error}"),
        }
    }
}

/// mknod(2): open(2) may fail after it has made the file.
fn make_file(dir: BorrowedFd<'_>, name: impl rustix::path::Arg, mode: Mode) -> rustix::io::Result<()> {
    files::mknodat(dir, name, FileType::RegularFile, mode, 0)
}
