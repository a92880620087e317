//! Who the program runs as: `user[:group]` looked up in the container's own `/etc/passwd` and `/etc/group`.

use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags, ResolveFlags};

use crate::sys::scoped;

/// Bytes of a passwd or group file. Real ones have some kilobytes; an image must not make us read gigabytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who the program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Supplementary groups.
    pub(super) groups: Vec<u32>,
    /// The home directory, for `HOME`.
    pub(super) home: String,
}

/// Looks up `spec` below `root`.
pub(super) fn resolve(root: BorrowedFd<'_>, spec: &str) -> io::Result<User> {
    let passwd = read_small(root, "etc/passwd")?;
    let group = read_small(root, "etc/group")?;
    resolve_in(&passwd, &group, spec).map_err(|message| io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// The numbers of groups that are named, or numbered, below `root`.
pub(super) fn groups(root: BorrowedFd<'_>, wanted: &[String]) -> io::Result<Vec<u32>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let group = read_small(root, "etc/group")?;
    let number = |wanted: &String| resolve_group(&group, wanted);
    let numbers: Result<_, String> = wanted.iter().map(number).collect();
    numbers.map_err(|message| io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// The text of a file; empty when there is none. Never waits on a fifo, never leaves the container.
pub(super) fn read_small(root: BorrowedFd<'_>, path: &str) -> io::Result<String> {
    // O_NONBLOCK: an image may put a fifo there.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = match scoped::open(root, path, flags, resolve) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("/{path} is not a regular file")));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("/{path} is larger than 1 MiB")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(PasswdEntry { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or("") })
    })
}

/// The rules of docker and podman: a name wins over a number that is spelled alike; a number needs no entry; supplementary
/// groups count only when no group was asked for.
fn resolve_in(passwd: &str, group: &str, spec: &str) -> Result<User, String> {
    let (user, wanted_group) = match spec.split_once(':') {
        Some((user, wanted)) => (user, Some(wanted).filter(|wanted| !wanted.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = parse_id(user);
    let entry = passwd_entries(passwd)
        .find(|entry| entry.name == user)
        .or_else(|| passwd_entries(passwd).find(|entry| Some(entry.uid) == number));
    let mut found = match (&entry, number) {
        (Some(entry), _) => {
            User { uid: entry.uid, gid: entry.gid, groups: Vec::new(), home: entry.home.to_owned() }
        }
        (None, Some(uid)) => User { uid, gid: 0, groups: Vec::new(), home: String::new() },
        (None, None) => return Err(format!("no user {user:?} in the container's /etc/passwd")),
    };
    if found.home.is_empty() {
        found.home = "/".to_owned();
    }
    match wanted_group {
        Some(wanted) => found.gid = resolve_group(group, wanted)?,
        None => {
            let name = entry.map_or("", |entry| entry.name);
            found.groups = group_entries(group)
                .filter(|one| !name.is_empty() && one.members.split(',').any(|member| member == name))
                .map(|one| one.gid)
                .collect();
        }
    }
    Ok(found)
}

fn resolve_group(group: &str, wanted: &str) -> Result<u32, String> {
    group_entries(group)
        .find(|entry| entry.name == wanted)
        .map(|entry| entry.gid)
        .or_else(|| parse_id(wanted))
        .ok_or_else(|| format!("no group {wanted:?} in the container's /etc/group"))
}

/// An id; 2^32-1 is the kernel's "no id".
fn parse_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\n:x:5:5::/:\nweb:x:33:34:Web:/srv:/bin/false\n100:x:7:8::/seven:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:50:web,root\ndisk:x:51:webber\n";

    fn user(spec: &str) -> User {
        resolve_in(PASSWD, GROUP, spec).unwrap()
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(user(""), User { uid: 0, gid: 0, groups: vec![50], home: "/root".into() });
        assert_eq!(user("web"), User { uid: 33, gid: 34, groups: vec![50], home: "/srv".into() });
        assert_eq!(user("33"), user("web"));
        assert_eq!(user("100").uid, 7);
        assert_eq!(user("4242"), User { uid: 4242, gid: 0, groups: vec![], home: "/".into() });
    }

    #[test]
    fn a_group_that_was_asked_for_is_the_only_one() {
        assert_eq!(user("web:log"), User { uid: 33, gid: 50, groups: vec![], home: "/srv".into() });
        assert_eq!(user("web:77").gid, 77);
        assert_eq!(user(":log"), User { uid: 0, gid: 50, groups: vec![], home: "/root".into() });
    }

    #[test]
    fn more_groups() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/group"), GROUP).unwrap();
        let fd = std::fs::File::open(root.path()).unwrap();
        let groups =
            |wanted: &[&str]| groups(fd.as_fd(), &wanted.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(groups(&["log", "77", "web"]).unwrap(), [50, 77, 34]);
        assert!(groups(&["log", "none"]).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn unknown_names_are_errors() {
        assert!(resolve_in(PASSWD, GROUP, "nobody").unwrap_err().contains("nobody"));
        assert!(resolve_in(PASSWD, GROUP, "web:none").unwrap_err().contains("none"));
        assert!(resolve_in("", "", "4294967295").is_err());
        assert!(resolve_in("", "", "-1").is_err());
    }

    #[test]
    fn hostile_files_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(root.path()).unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = root.path().join("etc/passwd");
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(resolve(fd.as_fd(), "0").unwrap_err().to_string().contains("regular"));
        std::fs::remove_file(&passwd).unwrap();
        std::fs::write(&passwd, vec![b'x'; 1 << 21]).unwrap();
        assert!(resolve(fd.as_fd(), "0").unwrap_err().to_string().contains("1 MiB"));
        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("/proc/self/exe", &passwd).unwrap();
        assert_eq!(resolve(fd.as_fd(), "0").unwrap().home, "/");
    }
}
