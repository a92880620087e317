//! Taking over what kernel overlayfs or fuse-overlayfs wrote: once, before the first lookup, so that afterwards every
//! whiteout and every mark has the one form that this upper is kept in.
//!
//! What is understood: device whiteouts, `.wh.NAME` and `.wh..wh..opq` (not of the kernel's), empty files marked
//! `overlay.whiteout`, opaque marks in every spelling, owners in `user.fuseoverlayfs.override_stat`. Each step leaves a
//! tree that means the same, so after a crash the next mount goes on.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::copy_up::set_times;
use super::error::At as _;
use super::format::Writer;
use super::handle::{self, pin};
use super::marks::{self, Attributes, Namespace, OVERRIDE_STAT};
use super::scratch::{names, remove_tree};
use super::{Upper, UpperError, Whiteouts, look};
use crate::model::whiteout::{Meaning, meaning};
use crate::model::{FileKind, Name};
use crate::sys::files;

/// fuse-overlayfs's spellings.
const OTHER_OPAQUE: [&str; 3] =
    ["trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"];
const OTHER_OVERRIDE_STAT: &str = "user.fuseoverlayfs.override_stat";
/// fuse-overlayfs 1 leaves this device in an opaque directory.
const OTHER_LITTER: &[u8] = b".opq";

/// A directory to be walked: its parent, and its name there.
type Pending = (Rc<OwnedFd>, Vec<u8>);

/// In which namespace the marks of an upper are: what is there decides, else `found`.
pub(super) fn namespace_of(upper: &OwnedFd, found: Namespace) -> Result<Namespace, UpperError> {
    let mut user = false;
    let mut trusted = false;
    walk(upper, &mut |dir| {
        for (namespace, seen) in [(Namespace::Trusted, &mut trusted), (Namespace::User, &mut user)] {
            for mark in ["opaque", "redirect", "origin", "impure"] {
                *seen |= marks::get(dir, namespace.name(mark))?.is_some();
            }
        }
        Ok(!trusted)
    })?;
    Ok(match (trusted, user) {
        // Beside `trusted.` ones those of `user.` are attributes like others.
        (true, _) => Namespace::Trusted,
        (false, true) => Namespace::User,
        (false, false) => found,
    })
}

/// Calls `each` with every directory below and with `root` itself, until it says that it has seen enough.
pub(super) fn walk(
    root: &OwnedFd,
    each: &mut dyn FnMut(&OwnedFd) -> Result<bool, UpperError>,
) -> Result<(), UpperError> {
    let root = handle::pin_dir(root, b".").at("open the upper")?;
    let mut pending: Vec<Pending> = vec![(Rc::new(root), b".".to_vec())];
    // Only the parents of what is pending are kept open: not more than the tree is deep.
    while let Some((parent, name)) = pending.pop() {
        let dir = Rc::new(handle::pin_dir(&*parent, &name).at("open a directory")?);
        if !each(&dir)? {
            return Ok(());
        }
        for name in names(&*dir)? {
            match handle::pin_dir(&*dir, &name) {
                Ok(_) => pending.push((Rc::clone(&dir), name)),
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => {}
                Err(error) => return Err(error).at("open a directory"),
            }
        }
    }
    Ok(())
}

impl Upper {
    /// Brings the whole upper into this form.
    pub(super) fn adopt(&self, writer: Writer) -> Result<(), UpperError> {
        walk(&self.root, &mut |dir| {
            let before = handle::stat(dir)?;
            self.adopt_dir(dir, writer)?;
            // Nothing that a program can see has changed.
            if handle::stat(dir)?.metadata.mtime != before.metadata.mtime {
                set_times(dir, before.atime, before.metadata.mtime)?;
            }
            Ok(true)
        })
    }

    fn adopt_dir(&self, dir: &OwnedFd, writer: Writer) -> Result<(), UpperError> {
        self.adopt_owner(dir)?;
        if writer == Writer::Others && self.is_opaque_somehow(dir)? {
            self.namespace.set_opaque(dir)?;
        }
        // Damage is told now and not when a program stumbles over it.
        self.namespace.read(&Attributes::of(dir.as_fd()), b"(directory)", self.boot)?;
        for bytes in names(dir)? {
            let Ok(name) = Name::new(&bytes) else { continue };
            match meaning(&bytes) {
                Ok(Meaning::Object(_)) => self.adopt_object(dir, name)?,
                _ if writer == Writer::Kernel => self.adopt_object(dir, name)?,
                Ok(Meaning::Whiteout(hidden)) if hidden.as_bytes() != OTHER_LITTER => {
                    self.adopt_named_whiteout(dir, name, hidden)?;
                }
                // What these said is in the directory's mark by now.
                Ok(_) | Err(_) => remove_tree(dir, &bytes)?,
            }
        }
        Ok(())
    }

    fn is_opaque_somehow(&self, dir: &OwnedFd) -> Result<bool, UpperError> {
        for mark in OTHER_OPAQUE {
            if marks::get(dir, mark)?.as_deref() == Some(b"y") {
                return Ok(true);
            }
        }
        Ok(names(dir)?.iter().any(|name| meaning(name) == Ok(Meaning::Opaque)))
    }

    fn adopt_object(&self, dir: &OwnedFd, name: Name<'_>) -> Result<(), UpperError> {
        let pinned = match pin(dir, name.as_bytes()) {
            // A whiteout that has been replaced in this very pass.
            Err(Errno::NOENT) => return Ok(()),
            result => result.at("open")?,
        };
        let attr = handle::stat(&pinned)?;
        if look::is_whiteout(&attr) {
            return if self.whiteouts == Whiteouts::Device { Ok(()) } else { self.replace(dir, name) };
        }
        if attr.metadata.kind != FileKind::Regular {
            return Ok(());
        }
        if attr.metadata.size == 0 && marks::get(&pinned, self.namespace.name("whiteout"))?.is_some() {
            return self.replace(dir, name);
        }
        self.adopt_owner(&pinned)?;
        self.namespace.read(&Attributes::of(pinned.as_fd()), name.as_bytes(), self.boot).map(drop)
    }

    /// Puts a whiteout of this upper's form in place of an object that is one in another.
    fn replace(&self, dir: &OwnedFd, name: Name<'_>) -> Result<(), UpperError> {
        if self.whiteouts == Whiteouts::Named {
            self.make_named_whiteout(&dir.as_fd(), name)?;
            return files::unlinkat(dir, name.as_bytes(), AtFlags::empty()).at("unlink");
        }
        let scratch = self.scratch_whiteout()?;
        files::renameat(&self.scratch, &scratch.name, dir, name.as_bytes()).at("rename into place")?;
        scratch.published();
        Ok(())
    }

    fn adopt_named_whiteout(
        &self,
        dir: &OwnedFd,
        marker: Name<'_>,
        hidden: Name<'_>,
    ) -> Result<(), UpperError> {
        match pin(dir, hidden.as_bytes()) {
            // Beside an object it hides what the layers have: of a directory, all that would merge.
            Ok(pinned) if handle::stat(&pinned)?.metadata.kind == FileKind::Directory => {
                self.namespace.set_opaque(&pinned)?;
            }
            Ok(_) => {}
            Err(Errno::NOENT) if self.whiteouts == Whiteouts::Named => return Ok(()),
            Err(Errno::NOENT) => {
                let scratch = self.scratch_whiteout()?;
                let flags = RenameFlags::NOREPLACE;
                files::renameat_with(&self.scratch, &scratch.name, dir, hidden.as_bytes(), flags)
                    .at("rename a whiteout into place")?;
                scratch.published();
            }
            Err(error) => return Err(error).at("open"),
        }
        remove_tree(dir, marker.as_bytes())
    }

    fn adopt_owner(&self, pinned: &OwnedFd) -> Result<(), UpperError> {
        let Some(record) = marks::get(pinned, OTHER_OVERRIDE_STAT)? else { return Ok(()) };
        if marks::get(pinned, OVERRIDE_STAT)?.is_none() {
            marks::set(pinned, OVERRIDE_STAT, &record).at("set user.containers.override_stat")?;
        }
        marks::remove(pinned, OTHER_OVERRIDE_STAT).at("removexattr")
    }
}
