//! Which ids of the host a container may use.

use std::fs;
use std::path::Path;
use std::process::{Child as Helper, Command, Stdio};

use nix::unistd::{Uid, User, getgid, getuid};
use rustix::thread::{CapabilitySet, capabilities};
use serde::Serialize;

/// How ids of the container become ids of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdMaps {
    /// We are privileged: no user namespace, ids are the host's own.
    Identity,
    /// The caller is 0, and ranges that belong to the caller follow from 1 on.
    Ranges {
        /// Of users.
        uids: Vec<IdRange>,
        /// Of groups.
        gids: Vec<IdRange>,
    },
    /// The caller is 0, and there is no other id.
    Single {
        /// Why not more.
        reason: String,
    },
}

/// Consecutive ids of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IdRange {
    /// The first one.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl IdMaps {
    /// What the caller of this process may use: everything, the ranges of `/etc/subuid` and `/etc/subgid`, or only itself.
    #[must_use]
    pub fn for_caller() -> Self {
        if Uid::effective().is_root() && has_sys_admin() {
            return Self::Identity;
        }
        let uid = getuid();
        let name = match User::from_uid(uid) {
            Ok(user) => user.map(|user| user.name),
            Err(error) => {
                tracing::debug!(%uid, %error, "no name for the calling user");
                None
            }
        };
        let read = |path: &str| read_ranges(Path::new(path), name.as_deref(), Some(uid.as_raw()));
        match (read("/etc/subuid"), read("/etc/subgid")) {
            (Ok(uids), Ok(gids)) => Self::Ranges { uids, gids },
            (Err(reason), _) | (_, Err(reason)) => Self::Single { reason },
        }
    }
}

fn has_sys_admin() -> bool {
    match capabilities(None) {
        Ok(sets) => sets.effective.contains(CapabilitySet::SYS_ADMIN),
        Err(error) => {
            tracing::debug!(%error, "capget");
            false
        }
    }
}

/// The ranges of a user in a file of subuid(5) form; what is missing, and what to do, if there are none.
pub(super) fn read_ranges(path: &Path, name: Option<&str>, uid: Option<u32>) -> Result<Vec<IdRange>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let ranges = parse_ranges(&text, name, uid);
    if ranges.is_empty() {
        let who = name.map(str::to_owned).or_else(|| uid.map(|uid| uid.to_string())).unwrap_or_default();
        return Err(format!(
            "{} has no range for {who} (an administrator can add one: usermod --add-subuids 100000-165535 \
             --add-subgids 100000-165535 {who})",
            path.display()
        ));
    }
    Ok(ranges)
}

/// The ranges of a user, by name or number, in a file of subuid(5) form. Lines that make no sense are passed over, as
/// newuidmap(1) does.
fn parse_ranges(text: &str, name: Option<&str>, uid: Option<u32>) -> Vec<IdRange> {
    let mut ranges = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().splitn(3, ':');
        let (Some(owner), Some(first), Some(count)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if Some(owner) != name && (uid.is_none() || owner.parse().ok() != uid) {
            continue;
        }
        let (Ok(first), Ok(count)) = (first.parse::<u32>(), count.parse::<u32>()) else { continue };
        // The last id, 2^32-1, is the kernel's "no id".
        if count > 0 && first.checked_add(count).is_some() {
            ranges.push(IdRange { first, count });
        }
    }
    ranges
}

/// What was written into a process's maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The ranges.
    Ranges,
    /// Only the caller's own ids.
    Single {
        /// Why not more.
        reason: String,
    },
}

/// Writes the maps of `pid`, which has just made its user namespace. Falls back to a single id where ranges fail, because
/// newuidmap is powerless in many places (no_new_privs, nosuid, other namespaces).
pub(super) fn write(maps: &IdMaps, pid: i32) -> Result<Written, std::io::Error> {
    let reason = match maps {
        IdMaps::Identity => return Ok(Written::Ranges),
        IdMaps::Single { reason } => reason.clone(),
        IdMaps::Ranges { uids, gids } => return finish(pid, start_helpers(pid, uids, gids)),
    };
    write_single(pid)?;
    Ok(Written::Single { reason })
}

/// newuidmap(1) and newgidmap(1), or why they do not run.
pub(super) type Helpers = Result<[(&'static str, Helper); 2], String>;

/// Starts what writes the ranges, side by side: each takes a millisecond, most of it to start and to look up who calls.
pub(super) fn start_helpers(pid: i32, uids: &[IdRange], gids: &[IdRange]) -> Helpers {
    let users = ("newuidmap", start_helper("newuidmap", pid, getuid().as_raw(), uids)?);
    match start_helper("newgidmap", pid, getgid().as_raw(), gids) {
        Ok(groups) => Ok([users, ("newgidmap", groups)]),
        Err(reason) => {
            wait_for(users).ok();
            Err(reason)
        }
    }
}

/// Waits for them, and writes what there can be when they have failed.
pub(super) fn finish(pid: i32, helpers: Helpers) -> Result<Written, std::io::Error> {
    let written = helpers.and_then(|[users, groups]| {
        let users = wait_for(users);
        wait_for(groups).and(users)
    });
    match written {
        Ok(()) => Ok(Written::Ranges),
        Err(reason) => {
            write_single(pid)?;
            Ok(Written::Single { reason })
        }
    }
}

fn start_helper(program: &str, pid: i32, own: u32, ranges: &[IdRange]) -> Result<Helper, String> {
    let mut command = Command::new(program);
    command.args(helper_arguments(pid, own, ranges));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{program} is not installed (Debian package uidmap)"),
        _ => format!("{program}: {error}"),
    })
}

fn wait_for((program, helper): (&str, Helper)) -> Result<(), String> {
    let output = helper.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let hint = match nix::sys::prctl::get_no_new_privs() {
        Ok(true) => " (no_new_privs is set, so setuid programs have no effect)",
        Ok(false) | Err(_) if said.contains("Operation not permitted") => {
            " (it has to be setuid root or to have file capabilities: `layerfs doctor` says what to do)"
        }
        Ok(false) | Err(_) => "",
    };
    Err(format!("{program} failed, {}: {}{hint}", output.status, said.trim()))
}

fn helper_arguments(pid: i32, own: u32, ranges: &[IdRange]) -> Vec<String> {
    let mut arguments = vec![pid.to_string(), "0".to_owned(), own.to_string(), "1".to_owned()];
    let mut inside: u32 = 1;
    for range in ranges {
        let count = range.count.min(u32::MAX - inside);
        if count == 0 {
            break;
        }
        arguments.extend([inside.to_string(), range.first.to_string(), count.to_string()]);
        inside += count;
    }
    arguments
}

/// Whether this process's user namespace has one id only, as `unshare -r` makes it.
pub(super) fn is_single_here() -> std::io::Result<bool> {
    Ok(is_single(&fs::read_to_string("/proc/self/uid_map")?))
}

/// The same of another process.
pub(super) fn is_single_of(pid: u32) -> std::io::Result<bool> {
    Ok(is_single(&fs::read_to_string(format!("/proc/{pid}/uid_map"))?))
}

fn is_single(map: &str) -> bool {
    map.lines().count() == 1 && map.split_ascii_whitespace().nth(2) == Some("1")
}

fn write_single(pid: i32) -> std::io::Result<()> {
    let write = |file: &str, text: &str| {
        fs::write(format!("/proc/{pid}/{file}"), text)
            .map_err(|error| std::io::Error::new(error.kind(), format!("/proc/{pid}/{file}: {error}")))
    };
    // One helper may have done its part when the other failed; the kernel takes a map only once.
    let is_missing =
        |map: &str| std::io::Result::Ok(fs::read_to_string(format!("/proc/{pid}/{map}"))?.is_empty());
    if is_missing("uid_map")? {
        write("uid_map", &format!("0 {} 1\n", getuid()))?;
    }
    if is_missing("gid_map")? {
        write("setgroups", "deny")?;
        write("gid_map", &format!("0 {} 1\n", getgid()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_name_and_number() {
        let text = "other:100000:65536\nme:200000:1000\n1001:300000:5\n# me:1:1\nme:x:1\nme:7:0\nme:4294967295:1\nme:9\n";
        let ranges = parse_ranges(text, Some("me"), Some(1001));
        assert_eq!(ranges, [IdRange { first: 200_000, count: 1000 }, IdRange { first: 300_000, count: 5 }]);
        assert_eq!(parse_ranges(text, None, Some(7)), []);
    }

    #[test]
    fn helper_arguments_are_consecutive_inside() {
        let ranges = [IdRange { first: 200_000, count: 1000 }, IdRange { first: 300_000, count: u32::MAX }];
        let arguments = helper_arguments(42, 1001, &ranges).join(" ");
        assert_eq!(arguments, "42 0 1001 1 1 200000 1000 1001 300000 4294966294");
    }

    #[test]
    fn single_maps() {
        assert!(is_single("         0       1001          1\n"));
        assert!(!is_single("         0          0 4294967295\n"));
        assert!(!is_single("         0       1001          1\n         1     100000      65536\n"));
    }

    #[test]
    fn a_user_without_ranges_learns_how_to_get_some() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reason = read_ranges(file.path(), Some("me"), Some(1001)).unwrap_err();
        assert!(reason.contains("no range for me"), "{reason}");
        assert!(read_ranges(Path::new("/nowhere"), None, Some(1)).unwrap_err().contains("/nowhere"));
    }
}
