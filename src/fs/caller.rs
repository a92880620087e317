//! Who asks, and what somebody may keep who changes a file.

use crate::sys::credentials::{Credentials, FOWNER, FSETID, SYS_ADMIN};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The filesystem user id, in the mount's user namespace.
    pub uid: u32,
    /// The filesystem group id.
    pub gid: u32,
    /// The thread, as this process sees it; 0 when it cannot be seen.
    pub thread: u32,
}

impl Caller {
    /// Groups and capabilities, which a request does not carry; none when they cannot be found out.
    fn credentials(&self) -> Credentials {
        Credentials::of(self.thread).unwrap_or_else(|error| {
            tracing::debug!("caller {}: {error}; it counts as unprivileged", self.thread);
            Credentials::default()
        })
    }

    /// Whether setuid and setgid stay when it changes a file's content.
    pub(super) fn keeps_setuid(&self) -> bool {
        self.credentials().has_everywhere(FSETID)
    }

    /// Whether a setgid bit that does not mean "run as this group" may stay with an object of this group.
    pub(super) fn may_set_group_bit(&self, gid: u32) -> bool {
        self.gid == gid || {
            let credentials = self.credentials();
            credentials.has_group(gid) || credentials.has(FSETID)
        }
    }

    /// Whether it may act as the owner of what belongs to `uid`.
    pub(super) fn is_owner(&self, uid: u32) -> bool {
        self.uid == uid || self.credentials().has(FOWNER)
    }

    /// Whether it is shown `trusted.` attributes (xattr(7)).
    pub(super) fn sees_trusted(&self) -> bool {
        self.credentials().has_everywhere(SYS_ADMIN)
    }
}

/// The mode without the privileges that it gives: setuid, and setgid unless the group may not execute: then it never
/// meant "run as this group" (inode(7)), and stays for those who might set it.
pub(super) fn without_privileges(mode: u16, gid: u32, caller: &Caller) -> u16 {
    let mode = mode & !0o4000;
    if mode & 0o2000 != 0 && (mode & 0o010 != 0 || !caller.may_set_group_bit(gid)) {
        return mode & !0o2000;
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setgid_stays_where_it_gives_nothing_to_those_who_might_set_it() {
        let member = Caller { uid: 7, gid: 8, thread: 0 };
        for (mode, gid, left) in [
            (0o6777, 8, 0o777),
            (0o6766, 8, 0o2766),
            (0o6766, 9, 0o766),
            (0o2710, 8, 0o710),
            (0o1755, 9, 0o1755),
        ] {
            assert_eq!(format!("{:o}", without_privileges(mode, gid, &member)), format!("{left:o}"));
        }
    }
}
