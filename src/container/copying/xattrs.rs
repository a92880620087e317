//! The attributes that are copied: those of programs (`user.`). All others say something about rights on one machine.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};
use rustix::io::Errno;

use crate::model::limits::{XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX};

/// Name and value.
pub(super) type Xattr = (Box<[u8]>, Box<[u8]>);

const COPIED: &[u8] = b"user.";

/// Those of an open file or directory, sorted by name.
pub(super) fn of(fd: impl AsFd) -> io::Result<Vec<Xattr>> {
    let mut names = Vec::new();
    // Most have none; and what there is may grow between two questions.
    match flistxattr(&fd, &mut [0_u8; 0][..]) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Ok(_) => names.resize(XATTR_LIST_BYTES_MAX, 0),
        Err(error) => return Err(error.into()),
    }
    let length = flistxattr(&fd, &mut names[..])?;
    let mut found = Vec::new();
    let mut value = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| is_copied(name)) {
        value.resize(XATTR_VALUE_BYTES_MAX, 0);
        match fgetxattr(&fd, name, &mut value[..]) {
            Ok(length) => found.push((name.into(), value[..length].into())),
            // Removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Sets them; on a filesystem that keeps none they are passed over.
pub(super) fn set(fd: impl AsFd, xattrs: &[Xattr]) -> io::Result<()> {
    for (name, value) in xattrs.iter().filter(|(name, _)| is_copied(name)) {
        match fsetxattr(&fd, &**name, value, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => {}
            result => result?,
        }
    }
    Ok(())
}

fn is_copied(name: &[u8]) -> bool {
    name.starts_with(COPIED)
}
