//! A layer that is a directory of differences, as container engines keep them unpacked: a plain directory in which names
//! and attributes may hide what the layers below have.
//!
//! Understood are whiteouts as aufs and images have them (`.wh.NAME`), as kernel overlayfs has them (devices 0:0, empty
//! files marked `overlay.whiteout`) and fuse-overlayfs; opaque directories in each of their spellings; recorded owners
//! (`user.containers.override_stat`, and fuse-overlayfs's). What kernel overlayfs can say besides, that a file's content
//! or a directory's is elsewhere, is refused: without it the content would be wrong.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Stat};

use super::dir_layer::{DirLayer, Listed};
use super::{DirItem, Entry, Found, Layer, LayerError, Xattr};
use crate::model::whiteout::{self, Meaning};
use crate::model::{EntryId, FileKind, FileName, Name, Timestamp, recorded_owner};

/// A directory of differences.
#[derive(Debug)]
pub struct DiffLayer {
    dir: DirLayer,
}

const OPAQUE: [&[u8]; 3] = [b"trusted.overlay.opaque", b"user.overlay.opaque", b"user.fuseoverlayfs.opaque"];
const WHITEOUT: [&[u8]; 2] = [b"trusted.overlay.whiteout", b"user.overlay.whiteout"];
const ELSEWHERE: [&[u8]; 6] = [
    b"trusted.overlay.metacopy",
    b"user.overlay.metacopy",
    b"trusted.overlay.redirect",
    b"user.overlay.redirect",
    b"trusted.overlay.layerfs.extents",
    b"user.overlay.layerfs.extents",
];
const RECORDED: [&[u8]; 3] = [
    b"user.containers.override_stat",
    b"user.fuseoverlayfs.override_stat",
    b"security.fuseoverlayfs.override_stat",
];
/// What an unprivileged process could not set lies below this.
const STAND_IN: &[u8] = b"user.containers.override_";
const OTHERS_OWN: &[u8] = b"user.fuseoverlayfs.";

impl DiffLayer {
    /// The directory at `path`.
    ///
    /// # Errors
    /// [`LayerError::Io`] when it cannot be opened or is no directory.
    pub fn open(path: &Path) -> Result<Self, LayerError> {
        Ok(Self { dir: DirLayer::open(path)? })
    }

    /// The same layer, in which the directory at `target`, should it be in there, stays visible although something is
    /// going to be mounted on it. See [`DirLayer::beside_mount`].
    ///
    /// # Errors
    /// [`LayerError::Io`]
    pub fn beside_mount(self, target: &Path) -> Result<Self, LayerError> {
        Ok(Self { dir: self.dir.beside_mount(target)? })
    }

    fn is_whiteout(&self, fd: &OwnedFd, stat: &Stat) -> Result<bool, LayerError> {
        if is_device_whiteout(stat) {
            return Ok(true);
        }
        if !may_be_marked_whiteout(stat) {
            return Ok(false);
        }
        Ok(self.dir.xattr_names(fd)?.iter().any(|name| one_of(&WHITEOUT, name)))
    }

    /// Whether what `listed` says of a name in a directory is that it hides.
    fn hides(&self, dir: EntryId, listed: &Listed) -> Result<bool, LayerError> {
        let (name, stat) = listed;
        if !may_be_marked_whiteout(stat) {
            return Ok(is_device_whiteout(stat));
        }
        match self.dir.look(dir, name)? {
            Some((fd, stat)) => self.is_whiteout(&fd, &stat),
            None => Ok(false),
        }
    }

    fn has(&self, dir: EntryId, marker: &FileName) -> Result<bool, LayerError> {
        Ok(self.dir.look(dir, marker.as_bytes())?.is_some())
    }
}

impl Layer for DiffLayer {
    fn root(&self) -> EntryId {
        self.dir.root()
    }

    fn is_found_by_number(&self) -> bool {
        self.dir.is_found_by_number()
    }

    fn changed_at(&self, id: EntryId) -> Result<Option<Timestamp>, LayerError> {
        self.dir.changed_at(id)
    }

    fn entry(&self, id: EntryId) -> Result<Entry, LayerError> {
        let (fd, stat) = self.dir.open_entry(id)?;
        let mut entry = self.dir.entry_of(id, &stat)?;
        let real = entry.metadata.kind;
        if !matches!(real, FileKind::Regular | FileKind::Directory) {
            return Ok(entry);
        }
        for name in self.dir.xattr_names(&fd)? {
            if one_of(&ELSEWHERE, &name) {
                return Err(self.dir.bad(id, "its content is elsewhere (overlayfs's metacopy or redirect, or an upper that is not complete)"));
            } else if one_of(&OPAQUE, &name) {
                entry.opaque |= self.dir.xattr(&fd, &name)?.as_deref() == Some(b"y");
            } else if one_of(&RECORDED, &name) {
                let text = self.dir.xattr(&fd, &name)?.unwrap_or_default();
                let damaged = || self.dir.bad(id, "damaged record of its owner (override_stat)");
                recorded_owner::apply(&text, &mut entry.metadata).ok_or_else(damaged)?;
            }
        }
        if real == FileKind::Directory
            && !entry.opaque
            && let Ok(marker) = whiteout::opaque_marker()
        {
            entry.opaque = match self.has(id, &marker) {
                // Whatever is in it cannot be reached either; that it is there can be told.
                Err(LayerError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::PermissionDenied =>
                {
                    false
                }
                result => result?,
            };
        }
        Ok(entry)
    }

    fn lookup(&self, dir: EntryId, name: Name<'_>) -> Result<Found, LayerError> {
        if !matches!(whiteout::meaning(name.as_bytes()), Ok(Meaning::Object(_))) {
            return Ok(Found::Absent);
        }
        match self.dir.look(dir, name.as_bytes())? {
            Some((fd, stat)) if self.is_whiteout(&fd, &stat)? => Ok(Found::Whiteout),
            Some((_, stat)) => Ok(Found::Entry(self.dir.note(dir, name.as_bytes(), &stat))),
            None => match whiteout::hiding(name) {
                Ok(marker) if self.has(dir, &marker)? => Ok(Found::Whiteout),
                _ => Ok(Found::Absent),
            },
        }
    }

    fn read_dir(&self, dir: EntryId) -> Result<Vec<DirItem>, LayerError> {
        let listed = self.dir.listed(dir)?;
        let present: HashSet<&[u8]> = listed.iter().map(|(name, _)| &**name).collect();
        let mut items = Vec::with_capacity(listed.len());
        for entry in &listed {
            let (name, stat) = entry;
            match whiteout::meaning(name) {
                // Whiteouts act on the layers below; an object of the same layer beside it stays.
                Ok(Meaning::Whiteout(hidden)) if !present.contains(hidden.as_bytes()) => {
                    items.push(DirItem { name: hidden.to_owned(), found: Found::Whiteout });
                }
                Ok(Meaning::Object(plain)) => {
                    let hides = self.hides(dir, entry)?;
                    let found =
                        if hides { Found::Whiteout } else { Found::Entry(self.dir.note(dir, name, stat)) };
                    items.push(DirItem { name: plain.to_owned(), found });
                }
                Ok(Meaning::Whiteout(_) | Meaning::Opaque | Meaning::AufsMeta) | Err(_) => {}
            }
        }
        items.sort_unstable_by(|one, other| one.name.as_bytes().cmp(other.name.as_bytes()));
        Ok(items)
    }

    fn read_link(&self, id: EntryId) -> Result<Vec<u8>, LayerError> {
        self.dir.read_link(id)
    }

    fn xattrs(&self, id: EntryId) -> Result<Vec<Xattr>, LayerError> {
        let mut xattrs: Vec<Xattr> = Vec::new();
        for (name, value) in self.dir.xattrs(id)? {
            match name.strip_prefix(STAND_IN) {
                Some(meant) if meant.starts_with(b"security.") || meant.starts_with(b"trusted.") => {
                    xattrs.retain(|(known, _)| **known != *meant);
                    xattrs.push((meant.into(), value));
                }
                Some(_) => {}
                None if name.starts_with(OTHERS_OWN) || one_of(&RECORDED, &name) => {}
                None => xattrs.push((name, value)),
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }

    fn read_at(&self, id: EntryId, offset: u64, buffer: &mut [u8]) -> Result<usize, LayerError> {
        self.dir.read_at(id, offset, buffer)
    }

    fn release_memory(&self, in_use: &dyn Fn() -> Vec<EntryId>) {
        self.dir.release_memory(in_use);
    }

    fn paths(&self, id: EntryId) -> Result<Vec<Box<[u8]>>, LayerError> {
        self.dir.paths(id)
    }
}

fn one_of(known: &[&[u8]], name: &[u8]) -> bool {
    known.contains(&name)
}

fn is_device_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_char_device() && stat.st_rdev == 0
}

/// Kernel overlayfs, in a directory whose opaque mark is `x`: an empty file with a mark of its own.
fn may_be_marked_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_size == 0
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, symlink};

    use rustix::fs::{CWD, Mode, XattrFlags};

    use super::*;
    use crate::model::DeviceId;

    struct Tree {
        dir: tempfile::TempDir,
    }

    impl Tree {
        fn new(files: &[&str]) -> Self {
            let dir = tempfile::tempdir_in(std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into()))
                .unwrap();
            for path in files {
                let path = dir.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "x").unwrap();
            }
            Self { dir }
        }

        fn set(&self, path: &str, name: &str, value: &str) {
            rustix::fs::setxattr(self.dir.path().join(path), name, value.as_bytes(), XattrFlags::empty())
                .unwrap();
        }

        fn layer(&self) -> DiffLayer {
            DiffLayer::open(self.dir.path()).unwrap()
        }
    }

    fn at(layer: &DiffLayer, path: &str) -> EntryId {
        path.split('/').fold(layer.root(), |dir, name| match find(layer, dir, name) {
            Found::Entry(id) => id,
            other => panic!("{path}: {other:?}"),
        })
    }

    fn find(layer: &DiffLayer, dir: EntryId, name: &str) -> Found {
        layer.lookup(dir, Name::new(name.as_bytes()).unwrap()).unwrap()
    }

    /// Names with `-` before those that hide, as a listing and as lookups say.
    fn shown(layer: &DiffLayer, dir: EntryId) -> Vec<String> {
        let items = layer.read_dir(dir).unwrap();
        let text = |item: &DirItem| {
            let name = String::from_utf8(item.name.as_bytes().to_vec()).unwrap();
            assert_eq!(find(layer, dir, &name), item.found, "{name}");
            if item.found == Found::Whiteout { format!("-{name}") } else { name }
        };
        items.iter().map(text).collect()
    }

    #[test]
    fn names_of_aufs() {
        let tree =
            Tree::new(&["d/a", "d/.wh.b", "d/.wh.a", "d/.wh..wh.plnk/z", "o/.wh..wh..opq", "o/c", "d/.wh."]);
        let layer = tree.layer();
        assert_eq!(shown(&layer, at(&layer, "d")), ["a", "-b"]);
        assert_eq!(shown(&layer, at(&layer, "o")), ["c"]);
        assert_eq!(find(&layer, at(&layer, "d"), ".wh.b"), Found::Absent);
        assert!(layer.entry(at(&layer, "o")).unwrap().opaque);
        assert!(!layer.entry(at(&layer, "d")).unwrap().opaque);
    }

    #[test]
    fn marks_of_overlayfs_and_fuse_overlayfs() {
        let tree = Tree::new(&["d/a", "d/w", "d/e", "o/a", "f/a", "x/a"]);
        for empty in ["d/w", "d/e"] {
            fs::write(tree.dir.path().join(empty), "").unwrap();
        }
        tree.set("d/w", "user.overlay.whiteout", "y");
        tree.set("o", "user.overlay.opaque", "y");
        tree.set("f", "user.fuseoverlayfs.opaque", "y");
        tree.set("x", "user.overlay.opaque", "x");
        rustix::fs::mknodat(CWD, tree.dir.path().join("d/dev"), FileType::CharacterDevice, Mode::empty(), 0)
            .unwrap();
        assert!(fs::metadata(tree.dir.path().join("d/dev")).unwrap().file_type().is_char_device());
        let layer = tree.layer();
        assert_eq!(shown(&layer, at(&layer, "d")), ["a", "-dev", "e", "-w"]);
        let opaque = |path| layer.entry(at(&layer, path)).unwrap().opaque;
        assert_eq!(["d", "o", "f", "x"].map(opaque), [false, true, true, false]);
        assert_eq!(layer.xattrs(at(&layer, "f")).unwrap(), []);
    }

    #[test]
    fn recorded_owners_and_attributes() {
        let tree = Tree::new(&["a", "null", "bad"]);
        tree.set("a", "user.containers.override_stat", "1000:7:4755");
        tree.set("a", "user.containers.override_security.capability", "cap");
        tree.set("a", "user.mine", "1");
        tree.set("null", "user.containers.override_stat", "0:0:0666:char-1-3");
        tree.set("bad", "user.containers.override_stat", "?");
        let layer = tree.layer();
        let metadata = layer.entry(at(&layer, "a")).unwrap().metadata;
        assert_eq!((metadata.uid, metadata.gid, metadata.mode), (1000, 7, 0o4755));
        assert_eq!((metadata.kind, metadata.size), (FileKind::Regular, 1));
        let metadata = layer.entry(at(&layer, "null")).unwrap().metadata;
        assert_eq!((metadata.kind, metadata.rdev), (FileKind::CharDevice, DeviceId { major: 1, minor: 3 }));
        assert!(layer.entry(at(&layer, "bad")).is_err());
        let xattrs: Vec<_> = layer.xattrs(at(&layer, "a")).unwrap();
        let expected: [Xattr; 2] = [
            (b"security.capability"[..].into(), b"cap"[..].into()),
            (b"user.mine"[..].into(), b"1"[..].into()),
        ];
        assert_eq!(xattrs, expected);
    }

    #[test]
    fn what_is_elsewhere_is_refused() {
        let tree = Tree::new(&["a", "d/b"]);
        tree.set("a", "user.overlay.metacopy", "");
        tree.set("d", "user.overlay.redirect", "/old");
        let layer = tree.layer();
        for path in ["a", "d"] {
            assert!(layer.entry(at(&layer, path)).unwrap_err().to_string().contains("elsewhere"), "{path}");
        }
    }

    #[test]
    fn a_directory_beside_a_mount() {
        let tree = Tree::new(&["low/mnt/inside", "low/other"]);
        let low = tree.dir.path().join("low");
        symlink("mnt", low.join("link")).unwrap();
        let layer = DiffLayer::open(&low).unwrap().beside_mount(&low.join("mnt")).unwrap();
        // What a mount does to the name.
        fs::rename(low.join("mnt"), tree.dir.path().join("moved")).unwrap();
        fs::create_dir(low.join("mnt")).unwrap();
        fs::write(low.join("mnt/mounted"), "").unwrap();
        assert_eq!(shown(&layer, layer.root()), ["link", "mnt", "other"]);
        let mnt = at(&layer, "mnt");
        assert_eq!(shown(&layer, mnt), ["inside"]);
        assert_eq!(layer.entry(mnt).unwrap().metadata.kind, FileKind::Directory);
        let mut buffer = [0; 2];
        assert_eq!(layer.read_at(at(&layer, "mnt/inside"), 0, &mut buffer).unwrap(), 1);
        // Elsewhere there is nothing to keep visible.
        DiffLayer::open(&low).unwrap().beside_mount(tree.dir.path()).unwrap();
    }
}
