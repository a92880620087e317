//! What a container has changed against its image (`layerfs diff`).
//!
//! Of one that nobody serves the upper itself is read, and what is told is exact. Of one that runs or is mounted its tree is
//! compared with the layers, as a program sees it: what differs in nothing but extended attributes is not told.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::inside::{Idle, Inside, Worker};
use super::{Changes, Container, Owners, Purpose};
use crate::fs::{Change, OwnerView};
use crate::launcher::{IdMaps, as_root_of, inside as inside_of};
use crate::model::limits::PATH_BYTES_MAX;
use crate::model::{DeviceId, FileKind, Metadata, Timestamp};
use crate::mount::{Layers, UpperDirs};
use crate::sys::mount_attributes::{Reach, clone_fd};
use crate::union::{Lower, LowerDir, Union};

/// How a path differs from the image's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Difference {
    /// The image has nothing there.
    Added,
    /// It is not as the image has it, or something in it is not.
    Changed,
    /// Only the image has it.
    Deleted,
}

/// All paths that differ, from the root on, with a slash in front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences(BTreeMap<Vec<u8>, Difference>);

/// Where a container's own filesystems are mounted. What the launcher made there for that is not the container's doing.
const MOUNT_POINTS: [&[u8]; 3] = [b"dev", b"proc", b"sys"];
/// The same of the files that every container gets.
const GENERATED: [&[u8]; 4] = [b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b"run/.containerenv"];
/// What owners are shown as that a user namespace does not have (user_namespaces(7)).
const NOBODY: u32 = 65534;

/// Whether something new is only there because the launcher mounts upon it.
#[must_use]
pub fn is_the_launchers(path: &[u8], found: &Metadata) -> bool {
    match found.kind {
        FileKind::Directory => MOUNT_POINTS.contains(&path),
        FileKind::Regular => found.size == 0 && GENERATED.contains(&path),
        _ => false,
    }
}

impl Differences {
    /// Path and difference, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Difference)> {
        self.0.iter().map(|(path, difference)| (path.as_slice(), *difference))
    }

    /// A path without its slash; the directories above it are changed by that.
    fn add(&mut self, path: &[u8], difference: Difference) {
        if path.is_empty() {
            return;
        }
        let path = [b"/", path].concat();
        for (at, _) in path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/') {
            self.0.entry(path[..at].to_vec()).or_insert(Difference::Changed);
        }
        self.0.insert(path, difference);
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(&self.0.iter().collect::<Vec<_>>())?)
    }

    fn decode(bytes: &[u8]) -> io::Result<Self> {
        let list: Vec<(Vec<u8>, Difference)> = serde_json::from_slice(bytes)?;
        Ok(Self(list.into_iter().collect()))
    }
}

/// Of a container that nobody serves.
///
/// The calling process must have one thread.
///
/// # Errors
/// When the upper or a layer cannot be read.
pub fn of_idle(idle: Idle) -> io::Result<Differences> {
    let Idle { held, layers } = idle;
    let Some(dirs) = held.upper_dirs() else { return Ok(Differences::default()) };
    // A directory of the user's that is gone must not be made again.
    if matches!(held.config().changes, Changes::In(_)) && !dirs.upper.try_exists()? {
        return Ok(Differences::default());
    }
    let purpose = held.config().purpose;
    let (worker, ()) = Worker::start((), |told| {
        let work = || {
            told.tell(&in_upper(layers, &dirs).and_then(|found| found.encode()));
            Ok(())
        };
        match (purpose, IdMaps::for_caller()) {
            (Purpose::Mount, _) | (_, IdMaps::Identity) => work(),
            // Files of other ids are read as the root of those.
            (Purpose::Run, maps) => as_root_of(&maps, work),
        }
    })?;
    Differences::decode(&worker.finish()?)
}

fn in_upper(layers: Layers, dirs: &UpperDirs) -> io::Result<Differences> {
    let fs = layers.into_fs(Some(dirs), OwnerView::Image).map_err(io::Error::other)?;
    let mut found = Told::default();
    let told = fs.changes(&mut |path, change| {
        match change {
            Change::Removed => found.tell(path, None, None),
            Change::Link(_, true) => found.differences.add(path, Difference::Added),
            Change::Link(_, false) => found.differences.add(path, Difference::Changed),
            Change::Object(object) => found.tell(path, Some(&object.metadata), object.before.as_ref()),
        }
        Ok(())
    });
    told.map_err(io::Error::other)?;
    Ok(found.finish())
}

/// What has been told, and what only the launcher has done.
#[derive(Default)]
struct Told {
    differences: Differences,
    /// Directories that differ in nothing but their time.
    only_times: Vec<Vec<u8>>,
    launchers: Vec<Vec<u8>>,
}

impl Told {
    /// What is there now, and what the image has.
    fn tell(&mut self, path: &[u8], now: Option<&Metadata>, before: Option<&Metadata>) {
        let difference = match (now, before) {
            (None, _) => Difference::Deleted,
            (Some(now), None) if is_the_launchers(path, now) => return self.launchers.push(path.to_vec()),
            (Some(_), None) => Difference::Added,
            (Some(now), Some(before)) => {
                let is_time = now.kind == FileKind::Directory
                    && Metadata { mtime: before.mtime, size: before.size, ..*now } == *before;
                if is_time {
                    return self.only_times.push(path.to_vec());
                }
                Difference::Changed
            }
        };
        self.differences.add(path, difference);
    }

    /// A directory in which nothing but the launcher has made something is as it was.
    fn finish(mut self) -> Differences {
        let parent = |path: &[u8]| path.iter().rposition(|byte| *byte == b'/').map(|at| path[..at].to_vec());
        let launchers: Vec<Vec<u8>> = self.launchers.iter().filter_map(|path| parent(path)).collect();
        for path in self.only_times.iter().filter(|path| !launchers.contains(path)) {
            self.differences.add(path, Difference::Changed);
        }
        self.differences
    }
}

/// Of a container that runs or is mounted.
///
/// The calling process must have one thread.
///
/// # Errors
/// When its tree or a layer cannot be read.
pub fn of_served(container: &Container, inside: Inside, layers: Layers) -> io::Result<Differences> {
    let owners = match &inside {
        Inside::Running(pid, _) => {
            let ids =
                |map: &str| std::fs::read_to_string(format!("/proc/{pid}/{map}")).map(|map| inside_of(&map));
            let ids = [ids("uid_map")?, ids("gid_map")?];
            let is_many = |ids: &Vec<Range<u32>>| ids.iter().map(ExactSizeIterator::len).sum::<usize>() > 1;
            Some(ids).filter(|ids| is_many(&ids[0]))
        }
        Inside::Mounted(_) | Inside::Idle(_) => (container.config().owners == Owners::Image)
            .then(|| std::array::from_fn(|_| std::iter::once(0..u32::MAX).collect())),
    };
    let (worker, ()) = inside.start((), |root| {
        let comparison = Comparison { union: layers.union(), owners, found: Told::default() };
        comparison.whole(root)?.encode()
    })?;
    Differences::decode(&worker.finish()?)
}

struct Comparison<'a> {
    union: &'a Union,
    /// The users and groups that are shown as they are; nothing where nobody is.
    owners: Option<[Vec<Range<u32>>; 2]>,
    found: Told,
}

impl Comparison<'_> {
    fn whole(mut self, root: BorrowedFd<'_>) -> io::Result<Differences> {
        // Without what is mounted in it, where that may be left out; else what is on other devices is passed over.
        let root = clone_fd(root, Reach::One).or_else(|_| root.try_clone_to_owned())?;
        let root = openat(&root, ".", READING_DIR, Mode::empty())?;
        let device = fstat(&root)?.st_dev;
        let below = self.union.root().map_err(io::Error::other)?;
        self.directory(&root, device, Some(&below), &mut Vec::new())?;
        Ok(self.found.finish())
    }

    fn directory(
        &mut self,
        dir: &OwnedFd,
        device: u64,
        below: Option<&LowerDir>,
        path: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut names: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        if let Some(below) = below {
            let list = self.union.list(below).map_err(io::Error::other)?;
            names.extend(list.into_keys().map(|name| (name.as_bytes().to_vec(), false)));
        }
        for entry in Dir::read_from(dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if !matches!(&*name, b"." | b"..") {
                names.insert(name, true);
            }
        }
        let length = path.len();
        for (name, is_there) in names {
            path.truncate(length);
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if path.len() >= PATH_BYTES_MAX {
                return Err(Errno::NAMETOOLONG.into());
            }
            let named = |error: io::Error| io::Error::other(format!("/{}: {error}", path.escape_ascii()));
            if !is_there {
                self.found.tell(path, None, None);
                continue;
            }
            let below = below
                .map(|below| {
                    self.union
                        .lookup(below, crate::model::Name::new(&name).map_err(io::Error::other)?)
                        .map_err(io::Error::other)
                })
                .transpose()
                .map_err(named)?
                .flatten();
            match self.object(dir, &CString::new(name)?, device, below.as_ref(), path) {
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        path.truncate(length);
        Ok(())
    }

    fn object(
        &mut self,
        dir: &OwnedFd,
        name: &CString,
        device: u64,
        below: Option<&Lower>,
        path: &mut Vec<u8>,
    ) -> io::Result<()> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if stat.st_dev != device {
            return Ok(());
        }
        let (before, number) = match below {
            None => (None, None),
            Some(Lower::Dir(dir)) => (Some(self.union.dir_metadata(dir)), None),
            Some(Lower::Leaf(lower, _)) => (Some(self.union.metadata(*lower)), lower.ino()),
            // Of another number than what it is a link to.
            Some(Lower::Link(lower, _)) => (Some(self.union.metadata(*lower)), None),
        };
        let before = before.transpose().map_err(io::Error::other)?;
        let now = self.metadata(&stat, before.as_ref());
        // Who gives a file of the image one more name changes it.
        let has_new_name = match below {
            Some(Lower::Leaf(lower, _)) => {
                let names = self.union.names(*lower).map_err(io::Error::other)?;
                // Its width is the architecture's.
                u32::try_from(stat.st_nlink).map_or(true, |links| links > names)
            }
            _ => false,
        };
        let same = !has_new_name
            && before.is_some_and(|before| before == now)
            && number.is_none_or(|number| number.0 == stat.st_ino);
        if !same {
            self.found.tell(path, Some(&now), before.as_ref());
        }
        if now.kind != FileKind::Directory {
            return Ok(());
        }
        let inner = openat(dir, name, READING_DIR, Mode::empty())?;
        let below = match below {
            Some(Lower::Dir(below)) => Some(below),
            _ => None,
        };
        self.directory(&inner, device, below, path)
    }

    /// What stat(2) says; where that is not the object's own, what the image says.
    fn metadata(&self, stat: &Stat, before: Option<&Metadata>) -> Metadata {
        let kind = FileKind::from_st_mode(stat.st_mode).unwrap_or(FileKind::Socket);
        let owner = |at: usize, shown: u32, before: Option<u32>| {
            let is_own =
                |before: &u32| self.owners.as_ref().is_some_and(|ids| !is_another(shown, *before, &ids[at]));
            before.filter(|before| !is_own(before)).unwrap_or(shown)
        };
        let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        let rdev = u32::try_from(stat.st_rdev).ok().filter(|_| is_device);
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        Metadata {
            kind,
            mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or_default(),
            uid: owner(0, stat.st_uid, before.map(|before| before.uid)),
            gid: owner(1, stat.st_gid, before.map(|before| before.gid)),
            rdev: rdev.map(DeviceId::decode).unwrap_or_default(),
            // Of regular files alone it says something.
            size: if kind == FileKind::Regular { size } else { before.map_or(size, |before| before.size) },
            mtime: Timestamp {
                secs: stat.st_mtime,
                nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            },
        }
    }
}

/// Whether an owner that `ids` may not have is shown as somebody else: as nobody, or as the last of them.
fn is_another(shown: u32, owner: u32, ids: &[Range<u32>]) -> bool {
    let last = ids.iter().map(|ids| ids.end.saturating_sub(1)).max();
    shown == NOBODY || Some(shown) == last && !ids.iter().any(|ids| ids.contains(&owner))
}

const READING_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use super::*;

    fn told(found: &Differences) -> Vec<String> {
        let line = |(path, difference)| format!("{difference:?} {}", String::from_utf8_lossy(path));
        found.iter().map(line).collect()
    }

    #[test]
    fn owners_that_are_not_there() {
        let ids = [0..1000, 5000..5001];
        assert!(is_another(5000, 70_000, &ids) && is_another(NOBODY, 3, &ids));
        assert!(!is_another(5000, 3, &ids) && !is_another(999, 70_000, &ids));
    }

    #[test]
    fn what_is_above_a_change_is_changed() {
        let mut found = Differences::default();
        found.add(b"a/b/c", Difference::Added);
        found.add(b"a/new", Difference::Added);
        found.add(b"a/new/in", Difference::Added);
        found.add(b"gone", Difference::Deleted);
        found.add(b"", Difference::Changed);
        let expected = [
            "Changed /a",
            "Changed /a/b",
            "Added /a/b/c",
            "Added /a/new",
            "Added /a/new/in",
            "Deleted /gone",
        ];
        assert_eq!(told(&found), expected);
        assert_eq!(Differences::decode(&found.encode().unwrap()).unwrap(), found);
    }

    #[test]
    fn what_the_launcher_does_is_not_told() {
        let regular = Metadata { size: 0, ..crate::model::pax::nothing() };
        let dir = |secs| Metadata {
            kind: FileKind::Directory,
            mtime: Timestamp { secs, nanos: 0 },
            ..crate::model::pax::nothing()
        };
        let mut found = Told::default();
        found.tell(b"etc", Some(&dir(2)), Some(&dir(1)));
        found.tell(b"etc/hosts", Some(&regular), None);
        found.tell(b"dev", Some(&dir(1)), None);
        found.tell(b"var", Some(&dir(2)), Some(&dir(1)));
        assert_eq!(told(&found.finish()), ["Changed /var"]);
        let mut found = Told::default();
        found.tell(b"etc", Some(&Metadata { mode: 0o700, ..dir(2) }), Some(&dir(1)));
        found.tell(b"etc/hosts", Some(&Metadata { size: 1, ..regular }), None);
        assert_eq!(told(&found.finish()), ["Changed /etc", "Added /etc/hosts"]);
    }
}
