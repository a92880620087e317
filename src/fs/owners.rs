//! Owners: which ids are shown for those that objects have, and which are stored for what callers say.

use std::ops::Range;

use super::{Caller, FsError};
use crate::model::Metadata;
use crate::model::posix_acl::{self, Named};
use crate::upper::Change;

/// As whom objects are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerView {
    /// With the ids that the image and the upper have.
    Image,
    /// With those ids, as far as the user namespace of the mount has them. All others are shown as nobody's, 65534: an
    /// object whose owner the kernel cannot represent could not even be removed by the namespace's root.
    Namespace {
        /// Users that it has.
        uids: Vec<Range<u32>>,
        /// Groups that it has.
        gids: Vec<Range<u32>>,
    },
    /// All as one user's, who may then use everything as the image's root would.
    Caller {
        /// The user.
        uid: u32,
        /// The user's group.
        gid: u32,
    },
    /// As mappings and squashing say.
    Mapped {
        /// Users.
        uids: IdView,
        /// Groups.
        gids: IdView,
    },
}

/// How ids of one kind, users or groups, are shown and stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdView {
    /// Stored ids and what they are shown as.
    pub ranges: Vec<IdRange>,
    /// Stands for every id outside of all ranges, in both directions.
    pub overflow: u32,
    /// Shown instead of every id. What is stored does not change by it.
    pub squash: Option<u32>,
}

/// Consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first as it is stored.
    pub stored: u32,
    /// The first as it is shown.
    pub shown: u32,
    /// How many.
    pub count: u32,
}

/// The kernel's number for ids that a user namespace does not have (/proc/sys/kernel/overflowuid).
const NOBODY: u32 = 65534;

impl IdRange {
    /// Every id as it is. The last 32-bit number is none (chown(2)).
    pub const EVERY_ID: Self = Self { stored: 0, shown: 0, count: u32::MAX };

    fn shown(&self, id: u32) -> Option<u32> {
        let at = id.checked_sub(self.stored).filter(|at| *at < self.count)?;
        self.shown.checked_add(at)
    }

    fn stored(&self, id: u32) -> Option<u32> {
        Self { stored: self.shown, shown: self.stored, count: self.count }.shown(id)
    }
}

impl IdView {
    fn of_ranges(ranges: &[Range<u32>]) -> Self {
        let same = |range: &Range<u32>| IdRange {
            stored: range.start,
            shown: range.start,
            count: range.end.saturating_sub(range.start),
        };
        Self { ranges: ranges.iter().map(same).collect(), overflow: NOBODY, squash: None }
    }

    fn shown(&self, id: u32) -> u32 {
        let mapped = || self.ranges.iter().find_map(|range| range.shown(id));
        self.squash.or_else(mapped).unwrap_or(self.overflow)
    }

    /// The id to store, unless none is shown as this one.
    fn stored(&self, id: u32) -> Option<u32> {
        self.ranges.iter().find_map(|range| range.stored(id))
    }
}

/// What becomes of the ids that callers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    /// The views say which ids they are.
    Mapped,
    /// Whoever asks acts as the image's root. Nothing can be given to anybody else, because that could not be shown.
    AsRoot,
}

/// What an [`OwnerView`] comes down to.
#[derive(Debug)]
pub(super) struct Owners {
    uids: IdView,
    gids: IdView,
    writes: Writes,
}

impl From<OwnerView> for Owners {
    fn from(view: OwnerView) -> Self {
        let every = || IdView { ranges: vec![IdRange::EVERY_ID], overflow: NOBODY, squash: None };
        let (uids, gids, writes) = match view {
            OwnerView::Image => (every(), every(), Writes::Mapped),
            OwnerView::Namespace { uids, gids } => {
                (IdView::of_ranges(&uids), IdView::of_ranges(&gids), Writes::Mapped)
            }
            OwnerView::Caller { uid, gid } => {
                let only = |id| IdView { squash: Some(id), ..every() };
                (only(uid), only(gid), Writes::AsRoot)
            }
            OwnerView::Mapped { uids, gids } => (uids, gids, Writes::Mapped),
        };
        Self { uids, gids, writes }
    }
}

impl Owners {
    /// The metadata as this mount shows it.
    pub(super) fn shown(&self, metadata: Metadata) -> Metadata {
        Metadata { uid: self.uids.shown(metadata.uid), gid: self.gids.shown(metadata.gid), ..metadata }
    }

    /// The ids to store for a chown. Where all objects are shown as one user's, a chown to that user changes nothing.
    pub(super) fn stored_ids(&self, set: &Change) -> Result<(Option<u32>, Option<u32>), FsError> {
        let stored = |view: &IdView, id: Option<u32>| match (id, self.writes) {
            (None, _) => Ok(None),
            // As chown(2) has it for ids that the namespace does not have.
            (Some(id), Writes::Mapped) => view.stored(id).map(Some).ok_or(FsError::Invalid),
            (Some(id), Writes::AsRoot) if view.squash == Some(id) => Ok(None),
            (Some(_), Writes::AsRoot) => Err(FsError::NotPermitted),
        };
        Ok((stored(&self.uids, set.uid)?, stored(&self.gids, set.gid)?))
    }

    /// Whose a new object is.
    pub(super) fn stored_owner(&self, caller: Caller) -> (u32, u32) {
        let stored = |view: &IdView, id| match self.writes {
            Writes::Mapped => view.stored(id).unwrap_or(view.overflow),
            Writes::AsRoot => 0,
        };
        (stored(&self.uids, caller.uid), stored(&self.gids, caller.gid))
    }

    /// The value of an extended attribute as this mount shows it: the ids in an ACL are owners too.
    pub(super) fn shown_xattr(&self, name: &[u8], mut value: Vec<u8>) -> Result<Vec<u8>, FsError> {
        if name.starts_with(posix_acl::PREFIX) {
            posix_acl::map_ids(&mut value, |id| match id {
                Named::User(id) => Ok::<_, FsError>(self.uids.shown(id)),
                Named::Group(id) => Ok(self.gids.shown(id)),
            })?;
        }
        Ok(value)
    }

    /// The value to store for one that a caller says. Ids that none is shown as are refused, as for chown(2).
    pub(super) fn stored_xattr(&self, name: &[u8], value: &[u8]) -> Result<Vec<u8>, FsError> {
        let mut value = value.to_vec();
        if name.starts_with(posix_acl::PREFIX) {
            posix_acl::map_ids(&mut value, |id| match id {
                Named::User(id) => self.uids.stored(id).ok_or(FsError::Invalid),
                Named::Group(id) => self.gids.stored(id).ok_or(FsError::Invalid),
            })?;
        }
        Ok(value)
    }

    /// Whether ids mean something beyond the owner: an ACL names some, and shares bits with the mode.
    pub(super) fn are_real(&self) -> bool {
        self.writes == Writes::Mapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceId, FileKind, Timestamp};

    fn of(uid: u32, gid: u32) -> Metadata {
        let (kind, rdev, mtime) = (FileKind::Regular, DeviceId::default(), Timestamp::default());
        Metadata { kind, mode: 0o644, uid, gid, rdev, size: 0, mtime }
    }

    fn shown(owners: &Owners, uid: u32, gid: u32) -> (u32, u32) {
        let metadata = owners.shown(of(uid, gid));
        (metadata.uid, metadata.gid)
    }

    fn chown(owners: &Owners, uid: u32) -> Result<Option<u32>, FsError> {
        owners.stored_ids(&Change { uid: Some(uid), ..Change::default() }).map(|ids| ids.0)
    }

    fn mapped(squash: Option<u32>) -> Owners {
        let range = |stored, shown, count| IdRange { stored, shown, count };
        let ranges = vec![range(0, 1000, 1), range(1, 100_000, 65_535)];
        let uids = IdView { ranges: ranges.clone(), overflow: 99, squash };
        Owners::from(OwnerView::Mapped { uids, gids: IdView { ranges, overflow: 98, squash: None } })
    }

    #[test]
    fn every_id_is_itself() {
        let owners = Owners::from(OwnerView::Image);
        for id in [0, 1, 65534, 1 << 31, u32::MAX - 1] {
            assert_eq!(shown(&owners, id, id), (id, id));
            assert_eq!(chown(&owners, id).unwrap(), Some(id));
            assert_eq!(owners.stored_owner(Caller { uid: id, gid: id, thread: 0 }), (id, id));
        }
    }

    #[test]
    fn mappings_hold_in_both_directions() {
        let owners = mapped(None);
        assert_eq!(shown(&owners, 0, 1), (1000, 100_000));
        assert_eq!(shown(&owners, 65_535, 65_536), (165_534, 98));
        assert_eq!(shown(&owners, 65_536, 0), (99, 1000));
        assert_eq!(chown(&owners, 1000).unwrap(), Some(0));
        assert_eq!(chown(&owners, 100_041).unwrap(), Some(42));
        assert!(matches!(chown(&owners, 0), Err(FsError::Invalid)));
        assert!(matches!(chown(&owners, 165_535), Err(FsError::Invalid)));
        assert_eq!(owners.stored_owner(Caller { uid: 100_000, gid: 1000, thread: 0 }), (1, 0));
        assert_eq!(owners.stored_owner(Caller { uid: 5, gid: 5, thread: 0 }), (99, 98));
    }

    #[test]
    fn squashing_is_only_shown() {
        let owners = mapped(Some(7));
        assert_eq!(shown(&owners, 3, 0), (7, 1000));
        assert_eq!(shown(&owners, 70_000, 0), (7, 1000));
        assert_eq!(chown(&owners, 100_000).unwrap(), Some(1));
        assert_eq!(owners.stored_owner(Caller { uid: 1000, gid: 1000, thread: 0 }), (0, 0));
    }

    /// The owner's entry, which has no id, and those of a user and a group.
    fn acl_of(user: u32, group: u32) -> Vec<u8> {
        let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[7, 0], &id.to_le_bytes()].concat();
        [&2_u32.to_le_bytes()[..], &entry(1, u32::MAX), &entry(2, user), &entry(8, group)].concat()
    }

    #[test]
    fn ids_in_acls_are_owners() {
        for name in [&b"system.posix_acl_access"[..], b"system.posix_acl_default"] {
            let shown = |owners: &Owners, user, group| owners.shown_xattr(name, acl_of(user, group)).unwrap();
            let owners = mapped(None);
            assert_eq!(shown(&owners, 0, 42), acl_of(1000, 100_041));
            assert_eq!(shown(&owners, 70_000, 70_000), acl_of(99, 98));
            assert_eq!(shown(&mapped(Some(7)), 3, 0), acl_of(7, 1000));
            let stored = |user, group| owners.stored_xattr(name, &acl_of(user, group));
            assert_eq!(stored(100_041, 1000).unwrap(), acl_of(42, 0));
            assert!(matches!(stored(5, 1000), Err(FsError::Invalid)));
            assert!(matches!(stored(1000, 5), Err(FsError::Invalid)));
            // No ACL, or of a version that is unknown.
            for value in [&b""[..], b"\x02\0\0", &[&[3, 0, 0, 0], &acl_of(0, 0)[4..]].concat()] {
                assert_eq!(owners.stored_xattr(name, value).unwrap(), value);
            }
        }
        assert_eq!(mapped(None).stored_xattr(b"user.x", &acl_of(0, 0)).unwrap(), acl_of(0, 0));
        let caller = Owners::from(OwnerView::Caller { uid: 1000, gid: 100 });
        assert_eq!(caller.shown_xattr(b"system.posix_acl_access", acl_of(5, 6)).unwrap(), acl_of(1000, 100));
    }

    #[test]
    fn callers_act_as_root_and_give_nothing_away() {
        let owners = Owners::from(OwnerView::Caller { uid: 1000, gid: 100 });
        assert_eq!(shown(&owners, 0, 5), (1000, 100));
        assert_eq!(chown(&owners, 1000).unwrap(), None);
        assert!(matches!(chown(&owners, 0), Err(FsError::NotPermitted)));
        assert_eq!(owners.stored_owner(Caller { uid: 5, gid: 5, thread: 0 }), (0, 0));
        assert!(!owners.are_real());
    }

    #[test]
    fn ids_that_the_namespace_lacks_are_nobodys() {
        let owners =
            Owners::from(OwnerView::Namespace { uids: vec![0..1, 1..65537], gids: vec![0..1, 1..5] });
        assert_eq!(shown(&owners, 65_536, 4), (65_536, 4));
        assert_eq!(shown(&owners, 65_537, 5), (NOBODY, NOBODY));
        assert_eq!(chown(&owners, 12).unwrap(), Some(12));
    }
}
