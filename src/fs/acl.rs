//! The ids inside POSIX ACLs, which are mapped like owners.
//!
//! An ACL as an extended attribute (linux/posix_acl_xattr.h), little-endian: the version, 2, as 32 bits, then entries of a
//! tag (16 bits), permissions (16 bits) and an id (32 bits). Only the entries of named users and groups have an id that
//! means something.

use super::FsError;

/// What the names of both ACLs, an object's own and the one that is inherited in a directory, begin with.
pub(super) const PREFIX: &[u8] = b"system.posix_acl_";

const VERSION: [u8; 4] = [2, 0, 0, 0];
const ENTRY_BYTES: usize = 8;
/// `ACL_USER`
const NAMED_USER: [u8; 2] = [2, 0];
/// `ACL_GROUP`
const NAMED_GROUP: [u8; 2] = [8, 0];

/// Whose an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    User(u32),
    Group(u32),
}

/// Puts another id in the place of each. What is no ACL stays as it is: the kernel refuses it on either side.
pub(super) fn map_ids(acl: &mut [u8], map: impl Fn(Named) -> Result<u32, FsError>) -> Result<(), FsError> {
    if !acl.starts_with(&VERSION) {
        return Ok(());
    }
    for entry in acl[VERSION.len()..].chunks_exact_mut(ENTRY_BYTES) {
        let &mut [tag_low, tag_high, _, _, ref mut id @ ..] = entry else { continue };
        let Ok(number) = <[u8; 4]>::try_from(&*id).map(u32::from_le_bytes) else { continue };
        let named = match [tag_low, tag_high] {
            NAMED_USER => Named::User(number),
            NAMED_GROUP => Named::Group(number),
            _ => continue,
        };
        id.copy_from_slice(&map(named)?.to_le_bytes());
    }
    Ok(())
}
