//! Ids that no other container of the store has (`--userns auto`). There is no database of them: each container's config
//! says which it has, and they are free again when it is removed.

use super::{ContainerError, Containers, Wishes};
use crate::launcher::{IdMaps, OwnIds, UserNamespace};
use crate::sys::lock::FileLock;

/// As few as podman gives.
const SIZE_MIN: u32 = 1024;
/// Nobody's files are shown as belonging to somebody else rather than have 64 containers in place of one.
const NOBODY: [&str; 2] = ["nobody", "nogroup"];

/// Keeps others from taking ids until it is dropped: by then the container's config has to say which it has.
#[derive(Debug)]
pub struct Claim {
    _lock: Option<FileLock>,
}

/// What of an image says how many ids it needs.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Its `/etc/passwd`.
    pub passwd: String,
    /// Its `/etc/group`.
    pub group: String,
    /// Who it is run as: `user[:group]`.
    pub user: String,
}

impl Known {
    /// One more than the highest id, of users and of groups, but podman's minimum.
    #[must_use]
    fn size(&self) -> u32 {
        let lines = self.passwd.lines().chain(self.group.lines());
        let listed = lines.filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            fields.nth(1).filter(|_| !NOBODY.contains(&name))?.parse::<u32>().ok()
        });
        let wanted = self.user.split(':').filter_map(|id| id.parse().ok());
        listed.chain(wanted).max().map_or(0, |highest| highest.saturating_add(1)).max(SIZE_MIN)
    }
}

/// Finds ids where the wish is for some of its own, and sees that there are those that are wished for.
///
/// # Errors
/// [`ContainerError`]
pub fn claim(
    containers: &Containers,
    wishes: &mut Wishes,
    known: impl FnOnce() -> Known,
) -> Result<Claim, ContainerError> {
    let maps = IdMaps::for_caller();
    let UserNamespace::Auto { size } = wishes.user_namespace else {
        wishes.user_namespace.own_ids(&maps)?;
        return Ok(Claim { _lock: None });
    };
    let lock = containers.lock_ids()?;
    let size = size.unwrap_or_else(|| known().size());
    let found = wishes.user_namespace.find(size, &maps, &taken(containers)?)?;
    wishes.user_namespace = UserNamespace::Found(found);
    Ok(Claim { _lock: Some(lock) })
}

fn taken(containers: &Containers) -> Result<Vec<OwnIds>, ContainerError> {
    let own = |container: super::Container| match container.config().run.as_ref()?.user_namespace.clone() {
        UserNamespace::Found(own) => Some(own),
        _ => None,
    };
    // One that cannot be read may have any.
    Ok(containers.list_strictly()?.into_iter().filter_map(own).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_needs() {
        let size = |passwd: &str, group: &str, user: &str| {
            Known { passwd: passwd.into(), group: group.into(), user: user.into() }.size()
        };
        assert_eq!(size("", "", ""), 1024);
        let passwd = "root:x:0:0::/:\nnobody:x:65534:65534::/:\nbroken\napp:x:2000:1::/:\n";
        assert_eq!(size(passwd, "nogroup:x:65534:\n", "app"), 2001);
        assert_eq!(size(passwd, "big:x:3000:\n", ""), 3001);
        assert_eq!(size("", "", "5000:6000"), 6001);
    }
}
