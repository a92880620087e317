//! A user of the host is made known to a container: a line in its own `/etc/passwd` and `/etc/group`, as podman adds it.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::plan::{AddedUser, Plan};
use super::user;
use crate::sys::scoped;

/// Adds the plan's user where the files below `root` know neither its number nor its name. Files that are shown to the
/// container by volumes are left alone.
pub(super) fn add_user(root: BorrowedFd<'_>, plan: &Plan) -> io::Result<()> {
    let Some(added) = &plan.added_user else { return Ok(()) };
    add(root, "passwd", &added.name, added.uid, &passwd_line(added, &home(plan, added)))?;
    add(root, "group", &added.group, added.gid, &group_line(added))
}

/// Podman's: the user's own home only where the container has it.
fn home(plan: &Plan, added: &AddedUser) -> String {
    let is_shown = |home: &Path| plan.volumes.iter().any(|volume| home.starts_with(&volume.destination));
    let home = added.home.as_deref().filter(|home| is_shown(home)).unwrap_or(&plan.cwd);
    home.to_string_lossy().into_owned()
}

fn passwd_line(added: &AddedUser, home: &str) -> String {
    let field = |text: &str| text.replace([':', '\n'], "");
    format!(
        "{}:*:{}:{}:{}:{}:/bin/sh\n",
        field(&added.name),
        added.uid,
        added.gid,
        field(&added.gecos),
        field(home)
    )
}

fn group_line(added: &AddedUser) -> String {
    let members = if added.name.parse::<u32>().is_ok() { "" } else { &added.name };
    format!("{}:x:{}:{members}\n", added.group, added.gid)
}

fn add(root: BorrowedFd<'_>, file: &str, name: &str, id: u32, line: &str) -> io::Result<()> {
    let path = format!("etc/{file}");
    let text = user::read_small(root, &path)?;
    if knows(&text, name, id) {
        return Ok(());
    }
    let opened = match open(root, file) {
        Ok(opened) => File::from(opened),
        // Nothing to add to, or not ours to change.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::ROFS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) != FileType::RegularFile {
        return Ok(());
    }
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    (&opened).write_all(format!("{end}{line}").as_bytes())
}

/// Opens it for appending, not where something else is mounted; an image without it gets one.
fn open(root: BorrowedFd<'_>, file: &str) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    // O_NONBLOCK: an image may put a fifo there.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match scoped::open(root, format!("etc/{file}").as_str(), flags, resolve) {
        Err(Errno::NOENT) => {}
        // A fifo that nobody reads.
        Err(Errno::NXIO) => return Err(Errno::NOENT),
        other => return other,
    }
    let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let etc = scoped::open(root, "etc", place, resolve)?;
    // What is there but leads nowhere stays as it is.
    match rustix::fs::openat(&etc, file, flags | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o644)) {
        Err(Errno::EXIST) => Err(Errno::NOENT),
        other => other,
    }
}

fn knows(text: &str, name: &str, id: u32) -> bool {
    text.lines().any(|line| {
        let mut fields = line.split(':');
        fields.next() == Some(name) || fields.nth(1).and_then(|field| field.parse().ok()) == Some(id)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;

    use super::*;

    fn plan() -> Plan {
        let added = AddedUser {
            uid: 1001,
            gid: 1002,
            name: "me".into(),
            group: "us".into(),
            gecos: "Me: myself".into(),
            home: Some("/home/me".into()),
        };
        let mut plan = Plan::new("0123", "/m".into(), vec!["x".into()]);
        plan.added_user = Some(added);
        plan
    }

    #[test]
    fn once_and_on_a_line_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let fd = fs::File::open(root.path()).unwrap();
        let etc = root.path().join("etc");
        add_user(fd.as_fd(), &plan()).unwrap();
        assert!(!etc.exists());
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("passwd"), "root:x:0:0::/:/bin/sh").unwrap();
        for _ in 0..2 {
            add_user(fd.as_fd(), &plan()).unwrap();
        }
        let passwd = fs::read_to_string(etc.join("passwd")).unwrap();
        assert_eq!(passwd, "root:x:0:0::/:/bin/sh\nme:*:1001:1002:Me myself:/:/bin/sh\n");
        assert_eq!(fs::read_to_string(etc.join("group")).unwrap(), "us:x:1002:me\n");
    }

    #[test]
    fn who_is_known_stays() {
        for known in ["me:x:5:5::/:\n", "other:x:1001:5::/:\n"] {
            assert!(knows(known, "me", 1001), "{known}");
        }
        assert!(!knows("men:x:100:1001::/:\n\nx\n", "me", 1001));
    }

    #[test]
    fn the_home_that_a_volume_shows() {
        let mut plan = plan();
        let added = plan.added_user.clone().unwrap();
        assert_eq!(home(&plan, &added), "/");
        let destination = "/home".into();
        plan.volumes = vec![super::super::Volume::new("/home".into(), destination)];
        assert_eq!(home(&plan, &added), "/home/me");
    }

    #[test]
    fn nothing_outside_and_nothing_odd_is_written() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let fd = fs::File::open(root.path()).unwrap();
        let etc = root.path().join("etc");
        fs::create_dir(&etc).unwrap();
        std::os::unix::fs::symlink(outside.path().join("new"), etc.join("passwd")).unwrap();
        nix::unistd::mkfifo(&etc.join("group"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(add_user(fd.as_fd(), &plan()).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
