//! POSIX ACLs (acl(5)): the ids inside them, which are mapped like owners, and the bits that they share with the mode.
//!
//! An ACL as an extended attribute (linux/posix_acl_xattr.h), little-endian: the version, 2, as 32 bits, then entries of a
//! tag (16 bits), permissions (16 bits) and an id (32 bits). Only the entries of named users and groups have an id that
//! means something.

/// What the names of both ACLs, an object's own and the one that is inherited in a directory, begin with.
pub const PREFIX: &[u8] = b"system.posix_acl_";
/// The ACL of an object itself.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The ACL that new objects in a directory inherit.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: [u8; 4] = [2, 0, 0, 0];
const ENTRY_BYTES: usize = 8;
const OWNER: u16 = 1;
const NAMED_USER: u16 = 2;
const GROUP: u16 = 4;
const NAMED_GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHERS: u16 = 32;

/// Whose an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A user's.
    User(u32),
    /// A group's.
    Group(u32),
}

type Entry = [u8; ENTRY_BYTES];

fn tag(entry: &Entry) -> u16 {
    u16::from_le_bytes([entry[0], entry[1]])
}

/// None in what is no ACL: the kernel refuses it on either side.
fn entries(acl: &mut [u8]) -> impl Iterator<Item = &mut Entry> {
    let entries = if acl.starts_with(&VERSION) { &mut acl[VERSION.len()..] } else { &mut [] };
    entries.as_chunks_mut().0.iter_mut()
}

/// Puts another id in the place of each.
///
/// # Errors
/// Those of `map`; then some are mapped and some are not.
pub fn map_ids<E>(acl: &mut [u8], map: impl Fn(Named) -> Result<u32, E>) -> Result<(), E> {
    for entry in entries(acl) {
        let number = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let named = match tag(entry) {
            NAMED_USER => Named::User(number),
            NAMED_GROUP => Named::Group(number),
            _ => continue,
        };
        entry[4..].copy_from_slice(&map(named)?.to_le_bytes());
    }
    Ok(())
}

/// The tags of the entries that are the mode's permissions, with where these are in it: the group's are the mask if there
/// is one (acl(5), "Correspondence between ACL entries and file permission bits").
fn in_mode(acl: &mut [u8]) -> [(u16, u32); 3] {
    let masked = entries(acl).any(|entry| tag(entry) == MASK);
    [(OWNER, 6), (if masked { MASK } else { GROUP }, 3), (OTHERS, 0)]
}

/// Makes an ACL say what the mode says.
pub fn set_mode(acl: &mut [u8], mode: u16) {
    for (of, shift) in in_mode(acl) {
        for entry in entries(acl).filter(|entry| tag(entry) == of) {
            entry[2..4].copy_from_slice(&(mode >> shift & 7).to_le_bytes());
        }
    }
}

/// The nine permission bits of the mode that an ACL says.
#[must_use]
pub fn mode(acl: &[u8]) -> u16 {
    let mut acl = acl.to_vec();
    let mut mode = 0;
    for (of, shift) in in_mode(&mut acl) {
        for entry in entries(&mut acl).filter(|entry| tag(entry) == of) {
            mode |= (u16::from_le_bytes([entry[2], entry[3]]) & 7) << shift;
        }
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut acl = VERSION.to_vec();
        for (tag, bits, id) in entries {
            acl.extend_from_slice(&tag.to_le_bytes());
            acl.extend_from_slice(&bits.to_le_bytes());
            acl.extend_from_slice(&id.to_le_bytes());
        }
        acl
    }

    #[test]
    fn the_mask_is_the_groups_part_of_the_mode() {
        let none = u32::MAX;
        let mut long = acl(&[(1, 6, none), (2, 2, 1000), (4, 5, none), (16, 1, none), (32, 4, none)]);
        assert_eq!(mode(&long), 0o614);
        set_mode(&mut long, 0o4730);
        assert_eq!(long, acl(&[(1, 7, none), (2, 2, 1000), (4, 5, none), (16, 3, none), (32, 0, none)]));
        let mut short = acl(&[(1, 6, none), (4, 5, none), (32, 4, none)]);
        assert_eq!(mode(&short), 0o654);
        set_mode(&mut short, 0o31);
        assert_eq!(short, acl(&[(1, 0, none), (4, 3, none), (32, 1, none)]));
    }

    #[test]
    fn what_is_no_acl_stays_as_it_is() {
        for bytes in [&b""[..], b"\x02\0\0", b"\x03\0\0\0\x01\0\x07\0\0\0\0\0", b"\x02\0\0\0\x01\0\x07"] {
            let mut same = bytes.to_vec();
            set_mode(&mut same, 0o444);
            assert_eq!((&*same, mode(bytes)), (bytes, 0));
        }
    }
}
