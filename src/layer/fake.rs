//! A layer in memory, for tests: built by paths, and able to fail on demand.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{DirItem, Entry, Found, Layer, LayerError, Xattr};
use crate::model::{DeviceId, Digest, EntryId, FileKind, FileName, Metadata, Name, Timestamp};

/// A layer that holds what its builder methods put in. Parents that were not put in are implied.
#[derive(Debug)]
pub(crate) struct FakeLayer {
    objects: Vec<Object>,
    /// Calls until one fails; 0 when none is to fail.
    fail_in: AtomicU64,
    /// Entry of the first object.
    base: u64,
    diff_id: Option<Digest>,
}

#[derive(Debug)]
struct Object {
    entry: Entry,
    /// Of a directory.
    names: BTreeMap<FileName, Found>,
    /// Of a regular file its bytes, of a symlink its target.
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The mtime of all objects: whatever copies an object up must keep it.
pub(crate) const MTIME: Timestamp = Timestamp { secs: 1_000_000_000, nanos: 123_456_789 };

fn name(text: &str) -> FileName {
    Name::new(text.as_bytes()).unwrap().to_owned()
}

impl FakeLayer {
    /// A layer with nothing but its root.
    pub(crate) fn new() -> Self {
        let mut layer = Self { objects: Vec::new(), fail_in: AtomicU64::new(0), base: 0, diff_id: None };
        layer.add(FileKind::Directory, 0o755, b"");
        layer
    }

    /// Has a directory.
    pub(crate) fn dir(mut self, path: &str, mode: u16) -> Self {
        let id = self.dir_at(path);
        let entry = &mut self.object(id).entry;
        entry.implied = false;
        entry.metadata.mode = mode;
        self
    }

    /// Has a directory that it never mentions.
    pub(crate) fn implied(mut self, path: &str) -> Self {
        let id = self.dir_at(path);
        self.object(id).entry.implied = true;
        self
    }

    /// Makes a directory hide what is below.
    pub(crate) fn opaque(mut self, path: &str) -> Self {
        let id = self.dir_at(path);
        self.object(id).entry.opaque = true;
        self
    }

    /// Has a regular file.
    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.leaf(path, FileKind::Regular, 0o644, content)
    }

    /// Has a symlink.
    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.leaf(path, FileKind::Symlink, 0o777, target.as_bytes())
    }

    /// Has anything but a directory.
    pub(crate) fn leaf(mut self, path: &str, kind: FileKind, mode: u16, content: &[u8]) -> Self {
        let id = self.add(kind, mode, content);
        self.put(path, Found::Entry(id))
    }

    /// Has a further name of one of its files.
    pub(crate) fn link(mut self, path: &str, target: &str) -> Self {
        let Found::Entry(id) = self.at(target) else { panic!("{target}: not in this layer") };
        self.object(id).entry.names += 1;
        self.put(path, Found::Entry(id))
    }

    /// Has a hard link to a path of a layer below.
    pub(crate) fn link_below(self, path: &str, target: &str) -> Self {
        self.put(path, Found::LinkBelow(target.as_bytes().into()))
    }

    /// Hides a name.
    pub(crate) fn whiteout(self, path: &str) -> Self {
        self.put(path, Found::Whiteout)
    }

    /// Sets an extended attribute of one of its objects; the root is "".
    pub(crate) fn xattr(mut self, path: &str, key: &str, value: &[u8]) -> Self {
        let Found::Entry(id) = self.at(path) else { panic!("{path}: not in this layer") };
        self.object(id).xattrs.insert(key.into(), value.to_vec());
        self
    }

    /// Sets mode and owner of one of its objects.
    pub(crate) fn owner(mut self, path: &str, mode: u16, uid: u32, gid: u32) -> Self {
        let Found::Entry(id) = self.at(path) else { panic!("{path}: not in this layer") };
        let old = self.object(id).entry.metadata;
        self.object(id).entry.metadata = Metadata { mode, uid, gid, ..old };
        self
    }

    /// Gives its objects numbers that do not fit into inode numbers, as some filesystems do.
    pub(crate) fn far(mut self) -> Self {
        self.base = 1 << 50;
        for object in &mut self.objects {
            for found in object.names.values_mut() {
                if let Found::Entry(id) = found {
                    id.0 += self.base;
                }
            }
        }
        self
    }

    /// Is a tar with the diffID that consists of this byte.
    pub(crate) fn diff_id(mut self, byte: u8) -> Self {
        self.diff_id = Some(Digest::from_bytes([byte; 32]));
        self
    }

    /// Lets the `n`th call from now on fail, once; 0 takes that back.
    pub(crate) fn fail_in(&self, n: u64) {
        self.fail_in.store(n, Ordering::Relaxed);
    }

    fn add(&mut self, kind: FileKind, mode: u16, content: &[u8]) -> EntryId {
        let size = content.len() as u64;
        let metadata = Metadata { kind, mode, uid: 0, gid: 0, rdev: DeviceId::default(), size, mtime: MTIME };
        let entry = Entry { metadata, names: 1, implied: false, opaque: false };
        let content = content.to_vec();
        self.objects.push(Object { entry, names: BTreeMap::new(), content, xattrs: BTreeMap::new() });
        EntryId(self.objects.len() as u64 - 1)
    }

    fn object(&mut self, id: EntryId) -> &mut Object {
        &mut self.objects[usize::try_from(id.0).unwrap()]
    }

    fn put(mut self, path: &str, found: Found) -> Self {
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.dir_at(parent);
        self.object(dir).names.insert(name(last), found);
        self
    }

    fn dir_at(&mut self, path: &str) -> EntryId {
        let mut here = EntryId(0);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            here = match self.object(here).names.get(part.as_bytes()).cloned() {
                Some(Found::Entry(id)) => id,
                _ => {
                    let id = self.add(FileKind::Directory, 0o755, b"");
                    self.object(id).entry.implied = true;
                    self.object(here).names.insert(name(part), Found::Entry(id));
                    id
                }
            };
        }
        here
    }

    fn at(&mut self, path: &str) -> Found {
        let mut here = Found::Entry(EntryId(0));
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let Found::Entry(id) = here else { return Found::Absent };
            here = self.object(id).names.get(part.as_bytes()).cloned().unwrap_or(Found::Absent);
        }
        here
    }

    fn read(&self, id: EntryId) -> Result<&Object, LayerError> {
        let left = self.fail_in.load(Ordering::Relaxed);
        if left > 0 {
            self.fail_in.store(left - 1, Ordering::Relaxed);
            if left == 1 {
                let source = io::Error::other("injected");
                return Err(LayerError::Io { layer: "fake".to_owned(), source });
            }
        }
        let place = usize::try_from(id.0.wrapping_sub(self.base)).ok();
        let object = place.and_then(|place| self.objects.get(place));
        object.ok_or(LayerError::BadEntry { layer: "fake".to_owned(), entry: id, reason: "no such entry" })
    }
}

impl Layer for FakeLayer {
    fn diff_id(&self) -> Option<Digest> {
        self.diff_id
    }

    fn root(&self) -> EntryId {
        EntryId(self.base)
    }

    fn is_found_by_number(&self) -> bool {
        true
    }

    fn entry(&self, id: EntryId) -> Result<Entry, LayerError> {
        Ok(self.read(id)?.entry)
    }

    fn lookup(&self, dir: EntryId, name: Name<'_>) -> Result<Found, LayerError> {
        Ok(self.read(dir)?.names.get(name.as_bytes()).cloned().unwrap_or(Found::Absent))
    }

    fn read_dir(&self, dir: EntryId) -> Result<Vec<DirItem>, LayerError> {
        let item = |(name, found): (&FileName, &Found)| DirItem { name: name.clone(), found: found.clone() };
        Ok(self.read(dir)?.names.iter().map(item).collect())
    }

    fn read_link(&self, id: EntryId) -> Result<Vec<u8>, LayerError> {
        Ok(self.read(id)?.content.clone())
    }

    fn xattrs(&self, id: EntryId) -> Result<Vec<Xattr>, LayerError> {
        let xattrs = self.read(id)?.xattrs.iter();
        Ok(xattrs.map(|(key, value)| (key.clone().into(), value.clone().into())).collect())
    }

    fn read_at(&self, id: EntryId, offset: u64, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let content = &self.read(id)?.content;
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or(&[]);
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn paths(&self, id: EntryId) -> Result<Vec<Box<[u8]>>, LayerError> {
        self.read(id)?;
        let mut paths = Vec::new();
        let mut walk = vec![(self.root(), Vec::new())];
        while let Some((dir, path)) = walk.pop() {
            for (name, found) in &self.objects[usize::try_from(dir.0 - self.base).unwrap()].names {
                let Found::Entry(child) = *found else { continue };
                let mut path = path.clone();
                path.extend_from_slice(name.as_bytes());
                if child == id {
                    paths.push(path.into_boxed_slice());
                } else {
                    path.push(b'/');
                    walk.push((child, path));
                }
            }
        }
        Ok(paths)
    }
}
