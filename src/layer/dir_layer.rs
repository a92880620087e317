//! A layer that is a plain directory: the root filesystem of an unpacked image, say.
//!
//! Everything is reached from one descriptor of the root with openat2(2), never across a symlink, so a hostile tree
//! cannot lead outside. Whiteouts mean nothing here: this is a root filesystem. See `diff_layer.rs` for differences.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lru::LruCache;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{DirItem, Entry, Found, Layer, LayerError, Xattr};
use crate::model::limits::{DEPTH_MAX, XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use crate::model::{DeviceId, EntryId, FileKind, Metadata, Name, Timestamp};
use crate::sys::file_handle::file_handle;
use crate::sys::scoped;

/// Files kept open between reads.
const OPEN_FILES_MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Ids of objects on other filesystems than the root's, whose inode numbers could meet. No filesystem counts up to here.
const FOREIGN: u64 = 1 << 62;
/// Bookkeeping of overlays is not content.
const HIDDEN_XATTRS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// A name in a directory, and what stat(2) says of the object.
pub(super) type Listed = (Box<[u8]>, Stat);
/// Objects with their paths.
type Linked = HashMap<EntryId, Vec<Box<[u8]>>>;

/// A plain directory.
#[derive(Debug)]
pub struct DirLayer {
    path: PathBuf,
    root: OwnedFd,
    root_id: EntryId,
    device: u64,
    beside_mount: Option<Covered>,
    /// Taken alone, never across I/O.
    known: Mutex<Known>,
    /// Taken alone, never across I/O.
    files: Mutex<LruCache<EntryId, Arc<File>>>,
    /// Paths of all objects with several names, once somebody asks for one.
    linked: OnceLock<Linked>,
}

/// A directory that something is going to be mounted on.
#[derive(Debug)]
struct Covered {
    /// Its path, relative to the root.
    path: Vec<u8>,
    /// The directory itself. What is found from here is what is below the mount.
    dir: OwnedFd,
}

/// Where the objects are that were seen so far: each by one of its names.
#[derive(Debug, Default)]
struct Known {
    places: HashMap<EntryId, Place>,
    foreign: HashMap<(u64, u64), EntryId>,
    /// Counts the times that places were forgotten.
    releases: u32,
}

#[derive(Debug)]
struct Place {
    dir: EntryId,
    name: Box<[u8]>,
    /// After which release it was told last.
    told: u32,
}

/// So few places are not worth forgetting.
const PLACES_KEPT: usize = 4096;

impl Known {
    /// Forgets all places but those that were told since this was done before, those in use, and what leads to them.
    fn release(&mut self, in_use: Vec<EntryId>) {
        let mut kept = HashSet::new();
        let told = self.places.iter().filter(|(_, place)| place.told == self.releases).map(|(id, _)| *id);
        for id in told.chain(in_use) {
            let mut at = id;
            while let Some(place) = self.places.get(&at) {
                if !kept.insert(at) {
                    break;
                }
                at = place.dir;
            }
        }
        self.places.retain(|id, _| kept.contains(id));
        self.places.shrink_to_fit();
        self.releases = self.releases.wrapping_add(1);
    }
}

impl DirLayer {
    /// The directory at `path`.
    ///
    /// # Errors
    /// [`LayerError::Io`] when it cannot be opened or is no directory.
    pub fn open(path: &Path) -> Result<Self, LayerError> {
        let io = |error: Errno| LayerError::Io { layer: path.display().to_string(), source: error.into() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(io)?;
        let stat = rustix::fs::fstat(&root).map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            root,
            root_id: EntryId(stat.st_ino),
            device: stat.st_dev,
            beside_mount: None,
            known: Mutex::default(),
            files: Mutex::new(LruCache::new(OPEN_FILES_MAX)),
            linked: OnceLock::new(),
        })
    }

    /// Keeps the directory at `target` visible as it is, should it be in this layer, although something is going to be
    /// mounted on it: asking a mount about itself while it answers would never end.
    ///
    /// # Errors
    /// [`LayerError::Io`] when `target` cannot be opened.
    pub fn beside_mount(mut self, target: &Path) -> Result<Self, LayerError> {
        let root = self.path.canonicalize().map_err(|error| self.io(error))?;
        if let Ok(path) = target.strip_prefix(&root)
            && !path.as_os_str().is_empty()
        {
            let path = path.as_os_str().as_bytes().to_vec();
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let dir = self.open_beneath(&path, flags).map_err(|error| self.io(error))?;
            self.beside_mount = Some(Covered { path, dir });
        }
        Ok(self)
    }

    fn io(&self, source: impl Into<io::Error>) -> LayerError {
        LayerError::Io { layer: self.path.display().to_string(), source: source.into() }
    }

    pub(super) fn bad(&self, entry: EntryId, reason: &'static str) -> LayerError {
        LayerError::BadEntry { layer: self.path.display().to_string(), entry, reason }
    }

    /// One of its paths, relative to the root; `.` for the root.
    fn path_of(&self, id: EntryId) -> Result<Vec<u8>, LayerError> {
        match self.known_path(id) {
            // Never looked up in this mount; but one with several names can be known by its number from an earlier one.
            Err(error) => self.linked()?.get(&id).map(|paths| paths[0].to_vec()).ok_or(error),
            path => path,
        }
    }

    fn known_path(&self, id: EntryId) -> Result<Vec<u8>, LayerError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names = Vec::new();
        let mut at = id;
        while at != self.root_id {
            let place = known.places.get(&at).ok_or_else(|| self.bad(id, "there is no such entry"))?;
            names.push(&place.name[..]);
            at = place.dir;
            if names.len() > DEPTH_MAX {
                return Err(self.bad(id, "directories are nested too deeply"));
            }
        }
        names.reverse();
        Ok(if names.is_empty() { b".".to_vec() } else { names.join(&b'/') })
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (root, path) = self.start(path);
        scoped::open(root, path, flags, resolve)
    }

    /// From where to walk to a path, and what of it is left to walk.
    fn start<'a>(&'a self, path: &'a [u8]) -> (&'a OwnedFd, &'a [u8]) {
        let path = path.strip_prefix(b"./").unwrap_or(path);
        let below = |covered: &'a Covered| match path.strip_prefix(&covered.path[..])? {
            b"" => Some((&covered.dir, &b"."[..])),
            [b'/', rest @ ..] => Some((&covered.dir, rest)),
            _ => None,
        };
        self.beside_mount.as_ref().and_then(below).unwrap_or((&self.root, path))
    }

    /// Opens the object itself, and makes sure that it still is the same.
    pub(super) fn open_entry(&self, id: EntryId) -> Result<(OwnedFd, Stat), LayerError> {
        let path = self.path_of(id)?;
        let fd = self.open_beneath(&path, OFlags::PATH).map_err(|error| self.io(error))?;
        let stat = rustix::fs::fstat(&fd).map_err(|error| self.io(error))?;
        if self.id_of(&stat) != id {
            return Err(self.bad(id, "another object is in its place now"));
        }
        Ok((fd, stat))
    }

    fn id_of(&self, stat: &Stat) -> EntryId {
        if stat.st_dev == self.device {
            return EntryId(stat.st_ino);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let next = EntryId(FOREIGN + known.foreign.len() as u64);
        *known.foreign.entry((stat.st_dev, stat.st_ino)).or_insert(next)
    }

    /// Remembers where an object is.
    pub(super) fn note(&self, dir: EntryId, name: &[u8], stat: &Stat) -> EntryId {
        let id = self.id_of(stat);
        if id != self.root_id {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let told = known.releases;
            let place = known.places.entry(id).or_insert_with(|| Place { dir, name: name.into(), told });
            place.told = told;
        }
        id
    }

    /// A regular file, open for reading.
    fn file(&self, id: EntryId) -> Result<Arc<File>, LayerError> {
        let lock = || self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = lock().get(&id) {
            return Ok(Arc::clone(file));
        }
        let (_, stat) = self.open_entry(id)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(self.bad(id, "not a regular file"));
        }
        // Should a device or FIFO take its place at this moment: do not wait for it.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = self.open_beneath(&self.path_of(id)?, flags);
        let file = File::from(opened.map_err(|error| self.io(error))?);
        let stat = rustix::fs::fstat(&file).map_err(|error| self.io(error))?;
        if self.id_of(&stat) != id {
            return Err(self.bad(id, "another object is in its place now"));
        }
        let file = Arc::new(file);
        lock().put(id, Arc::clone(&file));
        Ok(file)
    }

    /// The names in the directory at `path`, sorted, each with what it names.
    fn list(&self, path: &[u8]) -> Result<Vec<Listed>, Errno> {
        let fd = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut items: Vec<Listed> = Vec::new();
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut reader = RawDir::new(&fd, buffer.spare_capacity_mut());
        while let Some(item) = reader.next() {
            let item = item?;
            let name = item.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match &self.beside_mount {
                Some(covered) if covered.path == join(path, name.to_bytes()) => {
                    rustix::fs::fstat(&covered.dir)
                }
                // One component below a directory that is open: nothing to follow.
                _ => rustix::fs::statat(fd.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW),
            };
            match stat {
                Ok(stat) => items.push((name.to_bytes().into(), stat)),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        items.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(items)
    }

    /// What is under a name in a directory, and what stat(2) says of it.
    pub(super) fn look(&self, dir: EntryId, name: &[u8]) -> Result<Option<(OwnedFd, Stat)>, LayerError> {
        let path = [&self.path_of(dir)?[..], name].join(&b'/');
        let fd = match self.open_beneath(&path, OFlags::PATH) {
            Ok(fd) => fd,
            // ELOOP: "dir" is a symlink, so it holds nothing.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| self.io(error))?;
        Ok(Some((fd, stat)))
    }

    /// The names in a directory; none of what is no directory.
    pub(super) fn listed(&self, dir: EntryId) -> Result<Vec<Listed>, LayerError> {
        match self.list(&self.path_of(dir)?) {
            Ok(items) => Ok(items),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(Vec::new()),
            Err(error) => Err(self.io(error)),
        }
    }

    /// What a stat of an object makes of it.
    pub(super) fn entry_of(&self, id: EntryId, stat: &Stat) -> Result<Entry, LayerError> {
        let metadata = metadata(stat).ok_or_else(|| self.bad(id, "unknown type"))?;
        let mut names = 1;
        if stat.st_nlink > 1 && metadata.kind != FileKind::Directory {
            let paths = self.linked()?.get(&id).map_or(1, Vec::len);
            names = u32::try_from(paths).unwrap_or(u32::MAX);
        }
        Ok(Entry { metadata, names, implied: false, opaque: false })
    }

    /// The names of all extended attributes of an object.
    pub(super) fn xattr_names(&self, fd: &OwnedFd) -> Result<Vec<Box<[u8]>>, LayerError> {
        let path = proc_path(fd);
        let list = match grown(XATTR_LIST_BYTES_MAX, |list| rustix::fs::listxattr(&path, list)) {
            Err(Errno::NOTSUP) => Vec::new(),
            result => result.map_err(|error| self.io(error))?,
        };
        let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(Box::from).collect())
    }

    /// The value of an extended attribute.
    pub(super) fn xattr(&self, fd: &OwnedFd, name: &[u8]) -> Result<Option<Vec<u8>>, LayerError> {
        let path = proc_path(fd);
        match grown(XATTR_VALUE_BYTES_MAX, |value| rustix::fs::getxattr(&path, name, value)) {
            Ok(value) => Ok(Some(value)),
            // Gone since, or listed without being readable (some security modules do).
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Every path of every object with several names: one walk through the whole tree, the first time.
    fn linked(&self) -> Result<&Linked, LayerError> {
        if let Some(linked) = self.linked.get() {
            return Ok(linked);
        }
        let mut linked: Linked = HashMap::new();
        let mut directories = vec![b".".to_vec()];
        while let Some(path) = directories.pop() {
            let items = match self.list(&path) {
                Ok(items) => items,
                // What we may not see cannot be reached through us either.
                Err(error @ (Errno::ACCESS | Errno::NOENT)) => {
                    let path = path.escape_ascii().to_string();
                    tracing::warn!(layer = %self.path.display(), path, %error, "directory left out");
                    continue;
                }
                Err(error) => return Err(self.io(error)),
            };
            for (name, stat) in items {
                let below = join(&path, &name);
                if FileType::from_raw_mode(stat.st_mode).is_dir() {
                    directories.push(below);
                } else if stat.st_nlink > 1 {
                    linked.entry(self.id_of(&stat)).or_default().push(below.into());
                }
            }
        }
        Ok(self.linked.get_or_init(|| linked))
    }
}

/// The path of a name in the directory at `path`.
fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path == b"." { name.to_vec() } else { [path, name].join(&b'/') }
}

fn metadata(stat: &Stat) -> Option<Metadata> {
    let kind = FileKind::from_st_mode(stat.st_mode)?;
    let has_size = matches!(kind, FileKind::Regular | FileKind::Symlink);
    let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
    let rdev = DeviceId { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) };
    Some(Metadata {
        kind,
        mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: if device { rdev } else { DeviceId::default() },
        size: if has_size { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        mtime: Timestamp { secs: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) },
    })
}

/// What a call fills a buffer with, `bytes_max` at most. A short buffer is tried first: most answers are short.
fn grown(bytes_max: usize, fill: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256.min(bytes_max)];
    let length = match fill(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(bytes_max, 0);
            fill(&mut buffer)?
        }
        result => result?,
    };
    buffer.truncate(length);
    Ok(buffer)
}

/// Names the object itself to system calls that take no O_PATH descriptor.
fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Layer for DirLayer {
    fn root(&self) -> EntryId {
        self.root_id
    }

    fn is_found_by_number(&self) -> bool {
        false
    }

    fn entry(&self, id: EntryId) -> Result<Entry, LayerError> {
        let (_, stat) = self.open_entry(id)?;
        self.entry_of(id, &stat)
    }

    fn lookup(&self, dir: EntryId, name: Name<'_>) -> Result<Found, LayerError> {
        let found = self.look(dir, name.as_bytes())?;
        Ok(found.map_or(Found::Absent, |(_, stat)| Found::Entry(self.note(dir, name.as_bytes(), &stat))))
    }

    fn read_dir(&self, dir: EntryId) -> Result<Vec<DirItem>, LayerError> {
        let item = |(name, stat): Listed| {
            let found = Found::Entry(self.note(dir, &name, &stat));
            let name = Name::new(&name).map_err(|_| self.bad(dir, "a name in it is not valid"))?;
            Ok(DirItem { name: name.to_owned(), found })
        };
        self.listed(dir)?.into_iter().map(item).collect()
    }

    fn changed_at(&self, id: EntryId) -> Result<Option<Timestamp>, LayerError> {
        let (_, stat) = self.open_entry(id)?;
        Ok(Some(Timestamp { secs: stat.st_ctime, nanos: u32::try_from(stat.st_ctime_nsec).unwrap_or(0) }))
    }

    fn read_link(&self, id: EntryId) -> Result<Vec<u8>, LayerError> {
        let (fd, _) = self.open_entry(id)?;
        let target = rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(|error| self.io(error))?;
        Ok(target.into_bytes())
    }

    fn xattrs(&self, id: EntryId) -> Result<Vec<Xattr>, LayerError> {
        let (fd, _) = self.open_entry(id)?;
        let mut xattrs: Vec<Xattr> = Vec::new();
        for name in self.xattr_names(&fd)? {
            if HIDDEN_XATTRS.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            if let Some(value) = self.xattr(&fd, &name)? {
                xattrs.push((name, value.into()));
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }

    fn read_at(&self, id: EntryId, offset: u64, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let file = self.file(id)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io(error)),
            }
        }
        Ok(filled)
    }

    fn paths(&self, id: EntryId) -> Result<Vec<Box<[u8]>>, LayerError> {
        Ok(self.linked()?.get(&id).cloned().unwrap_or_default())
    }

    fn file_handle(&self, id: EntryId) -> Result<Option<Vec<u8>>, LayerError> {
        file_handle(self.open_entry(id)?.0).map_err(|error| self.io(error))
    }

    fn release_memory(&self, in_use: &dyn Fn() -> Vec<EntryId>) {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().places.len() <= PLACES_KEPT {
            return;
        }
        // What comes into use from now on is told from now on.
        let in_use = in_use();
        lock().release(in_use);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn id(layer: &DirLayer, path: &str) -> EntryId {
        path.split('/').fold(layer.root(), |dir, name| {
            match layer.lookup(dir, Name::new(name.as_bytes()).unwrap()).unwrap() {
                Found::Entry(id) => id,
                other => panic!("{path}: {other:?}"),
            }
        })
    }

    #[test]
    fn says_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/file"), "0123456789").unwrap();
        fs::set_permissions(root.join("d/file"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::write(root.join("d/.wh.x"), "").unwrap();
        fs::hard_link(root.join("d/file"), root.join("d/e/hard")).unwrap();
        symlink("/etc", root.join("out")).unwrap();
        let layer = DirLayer::open(root).unwrap();

        let file = id(&layer, "d/e/hard");
        assert_eq!(file.0, fs::metadata(root.join("d/file")).unwrap().ino());
        let entry = layer.entry(file).unwrap();
        assert_eq!((entry.metadata.mode, entry.metadata.size, entry.names), (0o4755, 10, 2));
        let mut paths = layer.paths(file).unwrap();
        paths.sort();
        assert_eq!(paths, [b"d/e/hard".to_vec().into_boxed_slice(), b"d/file".to_vec().into()]);
        let mut buffer = [0; 20];
        assert_eq!(layer.read_at(file, 3, &mut buffer).unwrap(), 7);
        assert_eq!(&buffer[..7], b"3456789");

        let names: Vec<_> =
            layer.read_dir(id(&layer, "d")).unwrap().into_iter().map(|item| item.name).collect();
        let names: Vec<_> = names.iter().map(|name| name.as_bytes()).collect();
        assert_eq!(names, [&b".wh.x"[..], b"e", b"file"]);
        let link = id(&layer, "out");
        assert_eq!(layer.read_link(link).unwrap(), b"/etc");
        assert_eq!(layer.lookup(link, Name::new(b"passwd").unwrap()).unwrap(), Found::Absent);
        assert!(layer.read_dir(link).unwrap().is_empty());
        assert!(layer.read_dir(file).unwrap().is_empty());
        assert!(layer.read_at(link, 0, &mut buffer).is_err());
        assert!(layer.entry(EntryId(u64::MAX)).is_err());
    }

    #[test]
    fn a_number_of_an_earlier_mount_leads_to_an_object_with_several_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/one"), "content").unwrap();
        fs::hard_link(dir.path().join("d/one"), dir.path().join("two")).unwrap();
        let before = id(&DirLayer::open(dir.path()).unwrap(), "two");
        let layer = DirLayer::open(dir.path()).unwrap();
        assert_eq!(layer.entry(before).unwrap().names, 2);
        assert_eq!(layer.read_at(before, 0, &mut [0; 9]).unwrap(), 7);
    }

    #[test]
    fn what_nobody_uses_is_forgotten_and_found_again() {
        const FILES: usize = 3 * PLACES_KEPT;
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/e")).unwrap();
        for number in 0..FILES {
            fs::write(dir.path().join(format!("d/e/{number}")), "").unwrap();
        }
        let layer = DirLayer::open(dir.path()).unwrap();
        let e = id(&layer, "d/e");
        let places = || layer.known.lock().unwrap().places.len();
        let used = id(&layer, "d/e/7");
        assert_eq!(layer.read_dir(e).unwrap().len(), FILES);
        let release = || layer.release_memory(&|| vec![used]);
        release();
        assert_eq!(places(), FILES + 2, "all were told just now");
        let told = id(&layer, "d/e/8");
        release();
        assert_eq!(places(), 4, "d, d/e, what is used, what was told");
        assert!(layer.entry(used).is_ok() && layer.entry(told).is_ok());
        assert_eq!(layer.read_dir(e).unwrap().len(), FILES);
        assert!(layer.entry(id(&layer, "d/e/9")).is_ok());
        for _ in 0..2 {
            release();
        }
        assert_eq!(places(), 3);
        assert!(layer.entry(told).is_err());
    }

    #[test]
    fn a_symlink_in_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/passwd"), "inside").unwrap();
        let layer = DirLayer::open(dir.path()).unwrap();
        let file = id(&layer, "d/passwd");
        fs::rename(dir.path().join("d"), dir.path().join("old")).unwrap();
        symlink("/etc", dir.path().join("d")).unwrap();
        assert!(layer.entry(file).is_err());
        assert!(layer.read_at(file, 0, &mut [0; 9]).is_err());
    }

    #[test]
    fn extended_attributes_without_the_overlays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "").unwrap();
        let set = |name: &str, value: &[u8]| {
            rustix::fs::setxattr(&path, name, value, rustix::fs::XattrFlags::empty())
        };
        if set("user.b", b"2\0").is_err() {
            return; // this filesystem has none
        }
        set("user.a", b"").unwrap();
        set("user.overlay.opaque", b"y").unwrap();
        let layer = DirLayer::open(dir.path()).unwrap();
        let xattrs = layer.xattrs(id(&layer, "f")).unwrap();
        let user: Vec<_> = xattrs.iter().filter(|(name, _)| name.starts_with(b"user.")).collect();
        let expected: [Xattr; 2] =
            [(b"user.a"[..].into(), b""[..].into()), (b"user.b"[..].into(), b"2\0"[..].into())];
        assert_eq!(user, expected.iter().collect::<Vec<_>>());
    }
}
