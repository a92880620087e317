//! New objects: files, directories, symlinks, special files.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::caller::Caller;
use super::find::{Found, FoundLower};
use super::node::{Home, Node};
use super::{Attr, Fs, FsError};
use crate::model::{Ino, Name};
use crate::upper::{Fresh, Object, Recorded, There, What};

/// A new object.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// What it is.
    pub what: What<'a>,
    /// The mode as asked for, before the umask.
    pub mode: u16,
    /// The caller's umask.
    pub umask: u16,
    /// Who asks, and owns it.
    pub caller: Caller,
}

/// Mode and owner as the upper stores them, and the ACL, of an object that is to be created.
pub(super) struct Inherited {
    mode: u16,
    uid: u32,
    gid: u32,
    default_acl: Option<Arc<[u8]>>,
}

impl Fs {
    /// Creates an object. Counts one lookup.
    ///
    /// # Errors
    /// [`FsError::Exists`] when the name leads to something.
    pub fn create(&self, parent: Ino, name: Name<'_>, new: &New<'_>) -> Result<Attr, FsError> {
        let (object, recorded) = self.make(parent, name, new)?;
        let kind = object.attr.metadata.kind;
        let own = Ino::of_upper(object.attr.st_ino);
        let ino = own.unwrap_or_else(|| self.table.number(super::table::Foreign::Upper(object.attr.st_ino)));
        let found = Found { ino, kind, lower: FoundLower::None, upper: Some((object, Home::Named)) };
        self.enter(found, parent, name, Some(recorded))
    }

    fn make(&self, parent: Ino, name: Name<'_>, new: &New<'_>) -> Result<(Object, Recorded), FsError> {
        let upper = self.upper()?;
        upper.may_be_created(name)?;
        let dir = self.node(parent)?;
        let _using = self.using_layers();
        let lower = self.view(&dir)?.lower;
        let pinned = self.raise(&dir, 0)?;
        let over_whiteout = match upper.there(&pinned, name)? {
            There::Object => return Err(FsError::Exists),
            There::Whiteout => true,
            There::Nothing if self.union.lookup(&lower, name)?.is_some() => return Err(FsError::Exists),
            There::Nothing => false,
        };
        let inherited = self.inherited(&dir, &pinned, new)?;
        let fresh = Fresh { over_whiteout, ..inherited.fresh(new.what) };
        let _names = dir.names_shared();
        let created = upper.create(&pinned, name, &fresh);
        // Also after an error: what was made may have stayed when it could not be removed again.
        dir.touch();
        Ok(created?)
    }

    /// What a directory hands down to an object that is created in it: its default ACL in place of the umask (acl(5)),
    /// and, if it is setgid, its group, and the bit to directories (inode(7)).
    pub(super) fn inherited(
        &self,
        dir: &Node,
        pinned: &OwnedFd,
        new: &New<'_>,
    ) -> Result<Inherited, FsError> {
        let default_acl = match new.what {
            What::Symlink(_) => None,
            _ => self.default_acl(dir, pinned)?,
        };
        let parent = self.upper_attr(dir, pinned)?.metadata;
        let (uid, gid) = self.owners.stored_owner(new.caller);
        let mode = if default_acl.is_some() { new.mode } else { new.mode & !new.umask };
        if parent.mode & 0o2000 == 0 {
            return Ok(Inherited { mode, uid, gid, default_acl });
        }
        let bit = if new.what == What::Dir { 0o2000 } else { 0 };
        Ok(Inherited { mode: mode | bit, uid, gid: parent.gid, default_acl })
    }
}

impl Inherited {
    pub(super) fn fresh<'a>(&'a self, what: What<'a>) -> Fresh<'a> {
        let Self { mode, uid, gid, ref default_acl } = *self;
        Fresh { what, mode, uid, gid, default_acl: default_acl.as_deref(), over_whiteout: false }
    }
}
