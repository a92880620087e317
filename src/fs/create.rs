//! New objects: files, directories, symlinks, special files.

use super::caller::Caller;
use super::find::{Found, FoundLower};
use super::node::Home;
use super::{Attr, Fs, FsError};
use crate::model::{Ino, Metadata, Name};
use crate::upper::{Fresh, Looked, Object, What};

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

/// The parent's ACL that new objects inherit (acl(5)).
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

impl Fs {
    /// Creates an object. Counts one lookup.
    ///
    /// # Errors
    /// [`FsError::Exists`] when the name leads to something.
    pub fn create(&self, parent: Ino, name: Name<'_>, new: &New<'_>) -> Result<Attr, FsError> {
        let object = self.make(parent, name, new)?;
        let kind = object.attr.metadata.kind;
        let own = Ino::of_upper(object.attr.st_ino);
        let ino = own.unwrap_or_else(|| self.table.number(super::table::Foreign::Upper(object.attr.st_ino)));
        let found = Found { ino, kind, lower: FoundLower::None, upper: Some((object, Home::Named)) };
        self.enter(found, parent, name)
    }

    fn make(&self, parent: Ino, name: Name<'_>, new: &New<'_>) -> Result<Object, FsError> {
        let upper = self.upper()?;
        upper.may_be_created(name)?;
        let dir = self.node(parent)?;
        let _using = self.using_layers();
        let lower = self.view(&dir)?.lower;
        let pinned = self.raise(&dir, 0)?;
        let over_whiteout = match upper.look(&pinned, name)? {
            Looked::Object(_) => return Err(FsError::Exists),
            Looked::Whiteout => true,
            Looked::Absent if self.union.lookup(&lower, name)?.is_some() => return Err(FsError::Exists),
            Looked::Absent => false,
        };
        let default_acl = match new.what {
            What::Symlink(_) => None,
            _ => upper.xattr(&pinned, DEFAULT_ACL)?,
        };
        let parent_attr = upper.attr(&pinned, b"(parent)")?.metadata;
        let (uid, gid) = self.owner_inside(&parent_attr, new.caller);
        let mut mode = if default_acl.is_some() { new.mode } else { new.mode & !new.umask };
        if parent_attr.mode & 0o2000 != 0 && new.what == What::Dir {
            mode |= 0o2000;
        }
        let fresh =
            Fresh { what: new.what, mode, uid, gid, default_acl: default_acl.as_deref(), over_whiteout };
        let _names = dir.names_shared();
        let object = upper.create(&pinned, name, &fresh)?;
        dir.touch();
        Ok(object)
    }

    /// Who owns what this caller creates in a directory, as the upper stores it: a setgid directory hands its group
    /// down, and the bit to directories (inode(7)).
    pub(super) fn owner_inside(&self, parent: &Metadata, caller: Caller) -> (u32, u32) {
        let (uid, gid) = self.owners.stored_owner(caller);
        (uid, if parent.mode & 0o2000 != 0 { parent.gid } else { gid })
    }
}
