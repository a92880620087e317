//! Which ids a container can have.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Check;
use crate::launcher::{IdMaps, IdRange};

const IDS: &str = "ids";
const HELPERS: &str = "newuidmap";
/// What images expect: 0 to 65535.
const IDS_WANTED: u64 = 65536;
/// Where useradd(8) begins to give ranges.
const FIRST_RANGE: u32 = 100_000;
const SET_UID: u32 = 0o4000;
const INSTALL: &str = "sudo apt-get install uidmap    # or: dnf install shadow-utils";

/// Whether there are as many ids as images expect.
pub(super) fn ranges() -> Check {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let given = ["/etc/subuid", "/etc/subgid"].map(|path| fs::read_to_string(path).unwrap_or_default());
    of_maps(&IdMaps::for_caller(), &users, &add_range(&given))
}

/// The command that gives this user a range behind all that others have.
fn add_range(given: &[String]) -> String {
    let end = |line: &str| {
        let mut fields = line.split(':').skip(1).map(|field| field.trim().parse::<u32>().ok());
        fields.next()??.checked_add(fields.next()??)
    };
    let ends = given.iter().flat_map(|text| text.lines()).filter_map(end);
    let first = ends.max().unwrap_or(0).max(FIRST_RANGE);
    let last = first.saturating_add(65535);
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let user = user.map_or_else(|| uid.to_string(), |user| user.name);
    format!("sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}")
}

fn of_maps(maps: &IdMaps, users: &str, add_range: &str) -> Check {
    let (uids, gids) = match maps {
        IdMaps::Identity => return Check::ok(IDS, "all: this is root"),
        IdMaps::Single { reason } => {
            // What an administrator could do about it is said below, with a range that is free.
            let reason = reason.split(" (").next().unwrap_or(reason);
            return Check::warning(
                IDS,
                format!(
                    "only one user id inside: {reason}; su, apt and other users do not work in containers"
                ),
                add_range,
            );
        }
        IdMaps::Ranges { uids, gids } => (uids, gids),
    };
    let count = |ranges: &[IdRange]| ranges.iter().map(|range| u64::from(range.count)).sum::<u64>();
    let fewest = count(uids).min(count(gids));
    if fewest < IDS_WANTED {
        return Check::warning(
            IDS,
            format!(
                "only {fewest} in /etc/subuid and /etc/subgid: files of ids beyond belong to nobody inside"
            ),
            add_range,
        );
    }
    let uid_of = |line: &str| line.split(':').nth(2).and_then(|uid| uid.parse::<u32>().ok());
    let is_inside = |uid: u32| uids.iter().any(|range| uid >= range.first && uid - range.first < range.count);
    let host_user = users.lines().find(|line| uid_of(line).is_some_and(is_inside));
    match host_user.and_then(|line| line.split(':').next()) {
        Some(user) => Check::warning(
            IDS,
            format!(
                "the range in /etc/subuid has user {user} of this host in it: containers can act as that user"
            ),
            format!("{add_range}    # after sudo usermod --del-subuids of the old one"),
        ),
        None => Check::ok(IDS, format!("{fewest} in /etc/subuid and /etc/subgid")),
    }
}

/// Whether there is somebody who writes ranges into an id map.
pub(super) fn helpers() -> Check {
    if IdMaps::for_caller() == IdMaps::Identity {
        return Check::ok(HELPERS, "not needed: this is root");
    }
    for program in ["newuidmap", "newgidmap"] {
        let Some((path, metadata)) = in_path(program) else {
            let says = format!("{program} is not installed: only one user id inside containers");
            return Check::warning(HELPERS, says, INSTALL);
        };
        if !has_power(&path, &metadata) {
            let says = format!(
                "{} is neither setuid root nor has file capabilities: only one user id inside containers",
                path.display()
            );
            return Check::warning(HELPERS, says, format!("sudo chmod u+s {}", path.display()));
        }
    }
    Check::ok(HELPERS, "newuidmap and newgidmap are installed, and may")
}

/// Whether setuid programs have any effect for this process.
pub(super) fn new_privileges() -> Check {
    let is_set = nix::sys::prctl::get_no_new_privs();
    powers(is_set.unwrap_or(false), IdMaps::for_caller() == IdMaps::Identity)
}

fn powers(is_set: bool, is_root: bool) -> Check {
    const NAME: &str = "no_new_privs";
    match (is_set, is_root) {
        (false, _) => Check::ok(NAME, "not set"),
        (true, true) => Check::ok(NAME, "set, which means nothing to root"),
        (true, false) => Check::warning(
            NAME,
            "set: newuidmap and fusermount3 have no power; only one user id inside containers, and no mount",
            "start this without setpriv --no-new-privs, NoNewPrivileges=yes, or --security-opt no-new-privileges",
        ),
    }
}

/// Where a program is, as a shell finds it.
pub(super) fn in_path(program: &str) -> Option<(PathBuf, Metadata)> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find_map(|dir| {
        let file = dir.join(program);
        let metadata = fs::metadata(&file).ok()?;
        (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some((file, metadata))
    })
}

/// Whether a program is root's when others start it, or has capabilities of its own.
pub(super) fn has_power(path: &Path, metadata: &Metadata) -> bool {
    let is_setuid = metadata.uid() == 0 && metadata.permissions().mode() & SET_UID != 0;
    let mut none: [u8; 0] = [];
    is_setuid || rustix::fs::getxattr(path, "security.capability", &mut none).is_ok_and(|size| size > 0)
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn ranges_of_ids() {
        let range = |first, count| IdMaps::Ranges {
            uids: vec![IdRange { first, count }],
            gids: vec![IdRange { first, count }],
        };
        let users = "root:x:0:0::/:/bin/sh\nother:x:100005:1::/:/bin/sh\n";
        assert_eq!(of_maps(&IdMaps::Identity, users, "add").outcome, Outcome::Ok);
        assert_eq!(of_maps(&range(200_000, 65536), users, "add").outcome, Outcome::Ok);
        let few = of_maps(&range(200_000, 1000), users, "add");
        assert!(few.outcome == Outcome::Warning && few.says.contains("only 1000"), "{few:?}");
        let shared = of_maps(&range(100_000, 65536), users, "add");
        assert!(shared.outcome == Outcome::Warning && shared.says.contains("user other"), "{shared:?}");
        let single = of_maps(&IdMaps::Single { reason: "none for me".into() }, users, "add");
        assert!(single.outcome == Outcome::Warning && single.says.contains("none for me"), "{single:?}");
    }

    #[test]
    fn a_range_that_nobody_has() {
        let given = ["a:100000:65536\nb:165536:65536\n# x\n".to_owned(), "a:300000:10\n".to_owned()];
        assert!(add_range(&given).contains("--add-subuids 300010-365545 --add-subgids 300010-365545 "));
        assert!(add_range(&[]).contains(" 100000-165535 "));
    }

    #[test]
    fn powers_of_setuid_programs() {
        assert_eq!(powers(false, false).outcome, Outcome::Ok);
        assert_eq!(powers(true, true).outcome, Outcome::Ok);
        assert_eq!(powers(true, false).outcome, Outcome::Warning);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        fs::write(&file, "").unwrap();
        assert!(!has_power(&file, &fs::metadata(&file).unwrap()));
    }
}
