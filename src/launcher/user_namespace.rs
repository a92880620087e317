//! Which ids a container is to have, and what they come down to for this caller.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use nix::unistd::{Group, User, getgid, getuid};
use serde::{Deserialize, Serialize};

use super::id_maps::{IdMaps, IdRange, read_ranges};
use super::own_ids::{self, IdMap, MapError, OwnIds};
use super::plan::AddedUser;

/// Whose ranges `auto` divides when root asks (containers-storage.conf(5)).
const OWNER_OF_AUTO: &str = "containers";

/// Which ids a container has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserNamespace {
    /// As the caller has them: root the host's own, anybody else 0 for itself and its ranges from 1 on.
    #[default]
    Host,
    /// The caller is the same inside, or these.
    KeepId {
        /// User.
        uid: Option<u32>,
        /// Group.
        gid: Option<u32>,
    },
    /// The caller's ranges from 0 on; not the caller.
    NoMap,
    /// Ids that no other container of this kind has: so many, or as many as the image needs.
    Auto {
        /// How many users, and groups.
        size: Option<u32>,
    },
    /// The ids that were found for [`UserNamespace::Auto`].
    Found(OwnIds),
    /// The ranges of this user and this group in `/etc/subuid` and `/etc/subgid`, from 0 on.
    Named {
        /// A name or number in `/etc/subuid`.
        user: String,
        /// A name or number in `/etc/subgid`.
        group: String,
    },
    /// These.
    Given(OwnIds),
}

/// Why there is no such user namespace for this caller.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// Root's own id cannot be left out.
    #[error("--userns nomap is for ordinary users: root's containers can have --userns auto, or --uidmap")]
    NoMapOfRoot,
    /// Root is root.
    #[error("--userns keep-id:uid=,gid= is for ordinary users: root's ids stay what they are")]
    KeepOtherIdOfRoot,
    /// The caller has one id.
    #[error("--userns {what} needs ids besides your own: {reason}")]
    OneId {
        /// The option's value.
        what: &'static str,
        /// Why there are no others.
        reason: String,
    },
    /// Root divides ranges that somebody has to name.
    #[error(
        "--userns auto divides the ids of the user {OWNER_OF_AUTO}: {reason}; a line such as \
         {OWNER_OF_AUTO}:2147483647:2147483648 in /etc/subuid and /etc/subgid gives it some"
    )]
    NoneForAuto {
        /// What is missing.
        reason: String,
    },
    /// No room is left.
    #[error(
        "--userns auto: {size} {kind} ids are needed, {free} are left of {all}: other containers of this kind have \
         the rest; remove some, or ask for fewer with --userns auto:size="
    )]
    NoneLeft {
        /// User or group.
        kind: &'static str,
        /// How many.
        size: u32,
        /// What nobody has.
        free: u32,
        /// What there is.
        all: u32,
    },
    /// A map that is wrong in itself, or for this caller.
    #[error("{option}: {error}{}", hint(.error, .all, *.is_of_user))]
    Map {
        /// What says so.
        option: String,
        /// What is wrong.
        error: MapError,
        /// The ids that there are.
        all: Vec<Range<u32>>,
        /// Whether they are counted from an ordinary user on.
        is_of_user: bool,
    },
    /// Ranges in a file.
    #[error("{option}: {reason}")]
    Ranges {
        /// What says so.
        option: String,
        /// What is missing.
        reason: String,
    },
    /// Our own ids.
    #[error("/proc/self/uid_map: {0}")]
    Current(#[from] io::Error),
}

fn hint(error: &MapError, all: &[Range<u32>], is_of_user: bool) -> String {
    let all = own_ids::free(all, &[]);
    let have = || all.iter().map(|range| format!("{} to {}", range.start, range.end - 1)).collect::<Vec<_>>();
    match error {
        MapError::NotYours(_) if is_of_user => format!(
            " (0 is you, the others are your ranges in /etc/subuid and /etc/subgid, counted from 1: you have {})",
            have().join(", ")
        ),
        MapError::NotYours(_) => format!(" (you have {})", have().join(", ")),
        _ => String::new(),
    }
}

/// The caller, as the supervisor has it.
const CALLER: Range<u32> = 0..1;

/// The ids of the supervisor: what there is to give, in the pieces that it is mapped in itself.
struct Available {
    uids: Vec<Range<u32>>,
    gids: Vec<Range<u32>>,
}

impl Available {
    fn of(maps: &IdMaps) -> io::Result<Self> {
        let following = |ranges: &[IdRange]| {
            let mut end = CALLER.end;
            let piece = |range: &IdRange| {
                let start = end;
                end = end.saturating_add(range.count);
                start..end
            };
            std::iter::once(CALLER).chain(ranges.iter().map(piece)).collect()
        };
        let current = |file: &str| fs::read_to_string(file).map(|map| own_ids::inside(&map));
        Ok(match maps {
            IdMaps::Identity => {
                Self { uids: current("/proc/self/uid_map")?, gids: current("/proc/self/gid_map")? }
            }
            IdMaps::Ranges { uids, gids } => Self { uids: following(uids), gids: following(gids) },
            IdMaps::Single { .. } => Self { uids: following(&[]), gids: following(&[]) },
        })
    }

    /// All but the caller itself.
    fn others(&self) -> Self {
        let others = |ranges: &[Range<u32>]| own_ids::free(ranges, &[CALLER]);
        Self { uids: others(&self.uids), gids: others(&self.gids) }
    }

    /// As the kernel takes them.
    fn checked(&self, option: &str, maps: &IdMaps, own: OwnIds) -> Result<OwnIds, UserNamespaceError> {
        let check = |option: String, own: Vec<IdMap>, all: &[Range<u32>]| {
            let parts = own_ids::check(&own, all).and_then(|()| {
                let parts = own_ids::split(&own, all);
                own_ids::check(&parts, all).map(|()| parts)
            });
            let is_of_user = *maps != IdMaps::Identity;
            parts.map_err(|error| UserNamespaceError::Map { option, error, all: all.to_vec(), is_of_user })
        };
        Ok(OwnIds {
            uids: check(option.to_owned(), own.uids, &self.uids)?,
            gids: check(option.replace("uid", "gid"), own.gids, &self.gids)?,
        })
    }
}

fn size(ranges: &[Range<u32>]) -> u32 {
    ranges.iter().fold(0_u32, |sum, range| sum.saturating_add(range.end.saturating_sub(range.start)))
}

impl UserNamespace {
    /// The container's own ids; `None` when it has the supervisor's.
    ///
    /// # Errors
    /// [`UserNamespaceError`]
    pub fn own_ids(&self, maps: &IdMaps) -> Result<Option<OwnIds>, UserNamespaceError> {
        let available = Available::of(maps)?;
        let (option, own) = match self {
            Self::Host => return Ok(None),
            Self::KeepId { uid, gid } => ("--userns keep-id", keep_id((*uid, *gid), maps, &available)?),
            Self::NoMap => match maps {
                IdMaps::Identity => return Err(UserNamespaceError::NoMapOfRoot),
                IdMaps::Single { reason } => return Err(one_id("nomap", reason)),
                IdMaps::Ranges { .. } => ("--userns nomap", all_of(&available.others())),
            },
            Self::Auto { size } => ("--userns auto", self.find(size.unwrap_or(1), maps, &[])?),
            Self::Found(own) => ("--userns auto", own.clone()),
            Self::Given(own) => ("--uidmap", own.clone()),
            Self::Named { user, group } => ("--subuidname", named(user, group, maps, &available)?),
        };
        available.checked(option, maps, own).map(Some)
    }

    /// `size` users and groups for [`UserNamespace::Auto`] that are in none of `others`.
    ///
    /// # Errors
    /// [`UserNamespaceError`]
    pub fn find(&self, size: u32, maps: &IdMaps, others: &[OwnIds]) -> Result<OwnIds, UserNamespaceError> {
        let there = match maps {
            IdMaps::Single { reason } => return Err(one_id("auto", reason)),
            IdMaps::Ranges { .. } => Available::of(maps)?.others(),
            IdMaps::Identity => {
                let read = |file: &str| {
                    let ranges = read_ranges(Path::new(file), Some(OWNER_OF_AUTO), None);
                    ranges
                        .map(|ranges| of_host(&ranges))
                        .map_err(|reason| UserNamespaceError::NoneForAuto { reason })
                };
                Available { uids: read("/etc/subuid")?, gids: read("/etc/subgid")? }
            }
        };
        let outer = |maps: fn(&OwnIds) -> &Vec<IdMap>| {
            let ranges = others.iter().flat_map(maps).map(|map| map.outside..map.outside + map.count);
            ranges.collect::<Vec<_>>()
        };
        let take = |kind, there: &[Range<u32>], taken: &[Range<u32>]| {
            let left = own_ids::free(there, taken);
            own_ids::take(&left, size).ok_or_else(|| UserNamespaceError::NoneLeft {
                kind,
                size,
                free: self::size(&left),
                all: self::size(there),
            })
        };
        Ok(OwnIds {
            uids: take("user", &there.uids, &outer(|own| &own.uids))?,
            gids: take("group", &there.gids, &outer(|own| &own.gids))?,
        })
    }

    /// Who a container runs as of which neither the caller nor the image says that.
    #[must_use]
    pub fn user(&self, maps: &IdMaps) -> Option<String> {
        kept(self, maps).map(|(uid, gid)| format!("{uid}:{gid}"))
    }

    /// The user that is made known to the container's own files.
    #[must_use]
    pub fn added_user(&self, maps: &IdMaps) -> Option<AddedUser> {
        let (uid, gid) = kept(self, maps).filter(|_| *maps != IdMaps::Identity)?;
        let themselves = *self == Self::KeepId { uid: None, gid: None };
        let user = if themselves { User::from_uid(getuid()).ok().flatten() } else { None };
        let group = if themselves { Group::from_gid(getgid()).ok().flatten() } else { None };
        let gecos = match &user {
            Some(user) => user.gecos.to_string_lossy().into_owned(),
            None => "container user".to_owned(),
        };
        Some(AddedUser {
            uid,
            gid,
            name: user.as_ref().map_or_else(|| uid.to_string(), |user| user.name.clone()),
            group: group.map_or_else(|| gid.to_string(), |group| group.name),
            gecos,
            home: user.map(|user| user.dir),
        })
    }
}

fn one_id(what: &'static str, reason: &str) -> UserNamespaceError {
    UserNamespaceError::OneId { what, reason: reason.to_owned() }
}

/// The ids that the caller has inside.
fn kept(wanted: &UserNamespace, maps: &IdMaps) -> Option<(u32, u32)> {
    match (wanted, maps) {
        (UserNamespace::KeepId { .. }, IdMaps::Identity) => Some((0, 0)),
        (UserNamespace::KeepId { uid, gid }, _) => {
            Some((uid.unwrap_or_else(|| getuid().as_raw()), gid.unwrap_or_else(|| getgid().as_raw())))
        }
        _ => None,
    }
}

fn keep_id(
    wanted: (Option<u32>, Option<u32>),
    maps: &IdMaps,
    available: &Available,
) -> Result<OwnIds, UserNamespaceError> {
    let (uid, gid) =
        (wanted.0.unwrap_or_else(|| getuid().as_raw()), wanted.1.unwrap_or_else(|| getgid().as_raw()));
    let same = |ranges: &[Range<u32>]| {
        let range = |range: &Range<u32>| IdMap {
            inside: range.start,
            outside: range.start,
            count: range.end - range.start,
        };
        ranges.iter().map(range).collect()
    };
    match maps {
        IdMaps::Identity if wanted != (None, None) => Err(UserNamespaceError::KeepOtherIdOfRoot),
        IdMaps::Identity => Ok(OwnIds { uids: same(&available.uids), gids: same(&available.gids) }),
        IdMaps::Ranges { .. } | IdMaps::Single { .. } => Ok(OwnIds {
            uids: own_ids::keeping(uid, size(&available.uids) - 1),
            gids: own_ids::keeping(gid, size(&available.gids) - 1),
        }),
    }
}

fn named(
    user: &str,
    group: &str,
    maps: &IdMaps,
    available: &Available,
) -> Result<OwnIds, UserNamespaceError> {
    let read = |option: &str, file: &str, name: &str| {
        read_ranges(Path::new(file), Some(name), None)
            .map_err(|reason| UserNamespaceError::Ranges { option: option.to_owned(), reason })
    };
    let users = read("--subuidname", "/etc/subuid", user)?;
    let groups = read("--subgidname", "/etc/subgid", group)?;
    match maps {
        IdMaps::Identity => Ok(all_of(&Available { uids: of_host(&users), gids: of_host(&groups) })),
        IdMaps::Ranges { uids, gids } if (uids, gids) == (&users, &groups) => Ok(all_of(&available.others())),
        IdMaps::Ranges { .. } | IdMaps::Single { .. } => Err(UserNamespaceError::Ranges {
            option: format!("--subuidname {user}"),
            reason: "only root may use the ranges of others".to_owned(),
        }),
    }
}

fn of_host(ranges: &[IdRange]) -> Vec<Range<u32>> {
    ranges.iter().map(|range| range.first..range.first.saturating_add(range.count)).collect()
}

/// Everything from 0 on.
fn all_of(available: &Available) -> OwnIds {
    let all = |ranges: &[Range<u32>]| own_ids::take(ranges, size(ranges)).unwrap_or_default();
    OwnIds { uids: all(&available.uids), gids: all(&available.gids) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> IdMaps {
        let ranges = |first| vec![IdRange { first, count: 600 }, IdRange { first: 9_000_000, count: 1000 }];
        IdMaps::Ranges { uids: ranges(100_000), gids: ranges(200_000) }
    }

    fn single() -> IdMaps {
        IdMaps::Single { reason: "no range for me".to_owned() }
    }

    fn map(inside: u32, outside: u32, count: u32) -> IdMap {
        IdMap { inside, outside, count }
    }

    fn uids(wanted: &UserNamespace, maps: &IdMaps) -> Vec<IdMap> {
        wanted.own_ids(maps).unwrap().unwrap().uids
    }

    fn error(wanted: &UserNamespace, maps: &IdMaps) -> String {
        wanted.own_ids(maps).unwrap_err().to_string()
    }

    #[test]
    fn what_the_names_mean() {
        assert_eq!(UserNamespace::Host.own_ids(&ranges()).unwrap(), None);
        let keep = UserNamespace::KeepId { uid: Some(33), gid: Some(5000) };
        assert_eq!(
            uids(&keep, &ranges()),
            [map(0, 1, 33), map(33, 0, 1), map(34, 34, 567), map(601, 601, 1000)]
        );
        assert_eq!(uids(&keep, &single()), [map(33, 0, 1)]);
        assert_eq!(keep.user(&single()).unwrap(), "33:5000");
        assert_eq!(keep.added_user(&ranges()).unwrap().name, "33");
        assert_eq!(uids(&UserNamespace::NoMap, &ranges()), [map(0, 1, 600), map(600, 601, 1000)]);
        assert!(error(&UserNamespace::NoMap, &single()).contains("no range for me"));
        assert!(error(&UserNamespace::NoMap, &IdMaps::Identity).contains("nomap is for ordinary users"));
        assert!(error(&keep, &IdMaps::Identity).contains("for ordinary users"));
        assert_eq!(UserNamespace::NoMap.user(&ranges()), None);
    }

    #[test]
    fn roots_ids_are_kept_in_a_namespace_of_their_own() {
        let keep = UserNamespace::KeepId { uid: None, gid: None };
        let own = keep.own_ids(&IdMaps::Identity).unwrap().unwrap();
        assert!(own.uids.iter().all(|map| map.inside == map.outside), "{own:?}");
        assert_eq!(keep.user(&IdMaps::Identity).unwrap(), "0:0");
        assert_eq!(keep.added_user(&IdMaps::Identity), None);
    }

    #[test]
    fn found_ids_are_nobody_elses() {
        let auto = UserNamespace::Auto { size: None };
        let first = auto.find(1000, &ranges(), &[]).unwrap();
        assert_eq!(first.uids, [map(0, 1, 1000)]);
        let second = auto.find(600, &ranges(), std::slice::from_ref(&first)).unwrap();
        assert_eq!(second.gids, [map(0, 1001, 600)]);
        let full = auto.find(1, &ranges(), &[first.clone(), second]).unwrap_err().to_string();
        assert!(full.contains("0 are left of 1600"), "{full}");
        assert!(auto.find(1, &single(), &[]).unwrap_err().to_string().contains("no range for me"));
        let again = uids(&UserNamespace::Found(first.clone()), &ranges());
        assert_eq!(again, [map(0, 1, 600), map(600, 601, 400)]);
        // The caller has fewer by now.
        assert!(error(&UserNamespace::Found(first), &single()).contains("not all of the ids 1 to 1000"));
    }

    #[test]
    fn maps_that_were_typed() {
        let given = |uids: Vec<IdMap>, gids| UserNamespace::Given(OwnIds { uids, gids });
        let right = given(vec![map(0, 1, 600), map(700, 0, 1)], vec![map(0, 0, 1601)]);
        assert!(right.own_ids(&ranges()).unwrap().is_some());
        let wrong = error(&given(vec![map(0, 0, 1)], vec![map(0, 1, 1601)]), &ranges());
        assert!(
            wrong.contains("--gidmap: not all of the ids 1 to 1601") && wrong.contains("0 to 1600"),
            "{wrong}"
        );
        let named = UserNamespace::Named { user: "no such name".into(), group: "x".into() };
        assert!(error(&named, &ranges()).contains("no range for no such name"));
    }
}
