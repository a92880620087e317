//! A filesystem beside its model, and a stand-in for the kernel that asks both.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::os::unix::fs::DirEntryExt as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tempfile::TempDir;

use crate::fs::{Change, Fs, FsError, OwnerView};
use crate::layer::Layer;
use crate::layer::fake::FakeLayer;
use crate::model::{FileKind, Ino, Name};
use crate::sys::fault::{Fault, arm, disarm};
use crate::sys::power;
use crate::union::Union;
use crate::union::tests::unpack::{Dir, Links, NAMES, Tree, unpack};
use crate::upper::Upper;
use crate::upper::tests::Form;

pub(super) struct World {
    pub(super) layers: Vec<Arc<FakeLayer>>,
    pub(super) dir: TempDir,
    pub(super) form: Form,
    numbers: Numbers,
    fs: Option<Fs>,
    pub(super) tree: Tree,
    /// Which number a node of the model was seen with; it may never change.
    pub(super) inos: HashMap<usize, Ino>,
    /// Lookups to give back.
    held: BTreeMap<Ino, u64>,
    /// Nodes that a program has open.
    pub(super) open: Vec<(usize, Ino)>,
    /// Which call of which layer is to fail during the next operation.
    pub(super) fault: Option<(usize, u64)>,
    /// What a system call of the next operation is to meet, and which one, counted from 0.
    pub(super) meets: Option<(Fault, u32)>,
    /// What came of that.
    pub(super) met: Option<Met>,
    /// An operation succeeded although a call failed: what it could not tidy up stays until the next mount.
    untidy: bool,
    /// The process has died: numbers of what it was removing may be left.
    pub(super) stale_numbers: bool,
    /// What a power cut may leave of files: what was last flushed, and all that they had since.
    pub(super) contents: Contents,
    /// The boot that the upper is told of, after the machine has started again.
    pub(super) boot: Option<u64>,
}

/// By the number of the node in the model.
pub(super) type Contents = HashMap<usize, Vec<Vec<u8>>>;

/// An operation one of whose system calls met a fault.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) call: &'static str,
    /// What the operation said.
    pub(super) error: Option<Errno>,
    /// What the model says that it should do.
    pub(super) after: Tree,
}

/// What is to be expected of inode numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    /// They last.
    Last,
    /// There are links into layers below, whose numbers last as long as the kernel knows them.
    BelowVary,
    /// No number of a layer fits, so all are like that.
    Far,
}

pub(super) fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

/// What a program is told when a call meets the fault.
fn told_as(fault: Fault) -> Errno {
    match fault {
        Fault::Error(errno) => errno,
        Fault::Death => Errno::IO,
    }
}

impl World {
    pub(super) fn new(layers: &[Dir], form: Form, numbers: Numbers) -> Self {
        Self::new_in(tempfile::tempdir().unwrap(), layers, form, numbers)
    }

    /// With an upper that is flushed in no time, where there is such a filesystem.
    pub(super) fn in_memory(layers: &[Dir], form: Form, numbers: Numbers) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").ok().filter(|dir| {
            rustix::fs::setxattr(dir.path(), "user.probe", b"", rustix::fs::XattrFlags::empty()).is_ok()
        });
        Self::new_in(dir.unwrap_or_else(|| tempfile::tempdir().unwrap()), layers, form, numbers)
    }

    fn new_in(dir: TempDir, layers: &[Dir], form: Form, numbers: Numbers) -> Self {
        let far = |layer: FakeLayer| if numbers == Numbers::Far { layer.far() } else { layer };
        let fake: Vec<_> = layers.iter().map(|layer| Arc::new(far(layer.to_layer()))).collect();
        let links = if numbers == Numbers::Far { Links::Copies } else { Links::InLayers };
        let mut world = Self {
            layers: fake,
            dir,
            form,
            numbers,
            fs: None,
            tree: unpack(layers, links),
            inos: HashMap::new(),
            held: BTreeMap::new(),
            open: Vec::new(),
            fault: None,
            meets: None,
            met: None,
            untidy: false,
            stale_numbers: false,
            contents: HashMap::new(),
            boot: None,
        };
        world.mount();
        world
    }

    fn mount(&mut self) {
        self.untidy = false;
        let upper = Upper::open(&self.dir.path().join("upper"), &self.dir.path().join("work")).unwrap();
        let layers = self.layers.iter().map(|layer| Arc::clone(layer) as Arc<dyn Layer>).collect();
        let upper = upper.in_form(self.form);
        let upper = if let Some(boot) = self.boot { upper.in_boot(boot) } else { upper };
        self.fs = Some(Fs::new(Union::new(layers), Some(upper), OwnerView::Image).unwrap());
    }

    pub(super) fn fs(&self) -> &Fs {
        self.fs.as_ref().unwrap()
    }

    pub(super) fn remount(&mut self) {
        self.unmount();
        self.mount();
    }

    fn unmount(&mut self) {
        self.fs = None;
        self.held.clear();
        self.open.clear();
        self.forget_numbers();
    }

    /// Cuts the power off, with the loss of those sectors, and mounts in the next boot.
    pub(super) fn restart(&mut self, lost: impl Fn(u64) -> bool) {
        self.unmount();
        power::cut(lost);
        self.boot = Some(self.boot.unwrap_or(0) + 1);
        self.mount();
    }

    /// Remembers what files have had in `next` too.
    pub(super) fn may_have(&mut self, next: &Tree) {
        for (id, node) in next.nodes.iter().enumerate().filter(|(_, node)| node.kind == FileKind::Regular) {
            let old = self.tree.nodes.get(id).map(|old| &old.content);
            if old != Some(&node.content) {
                let all = self.contents.entry(id).or_insert_with(|| old.cloned().into_iter().collect());
                all.push(node.content.clone());
            }
        }
    }

    /// Numbers of objects whose own fit nowhere last as long as the kernel knows them.
    fn forget_numbers(&mut self) {
        let open = &self.open;
        let is_open = |id: usize| open.iter().any(|(open, _)| *open == id);
        self.inos.retain(|id, _| is_open(*id) || self.numbers == Numbers::Last);
    }

    /// Takes back all lookups but those of open nodes.
    pub(super) fn forget(&mut self) {
        for (ino, count) in std::mem::take(&mut self.held) {
            let kept = u64::from(self.open.iter().any(|(_, open)| *open == ino));
            self.fs().forget(ino, count - kept);
            if kept > 0 {
                self.held.insert(ino, kept);
            }
        }
        // What was written to is held until it is flushed.
        self.fs().settle(Duration::ZERO).ok();
        self.forget_numbers();
        if self.open.is_empty() {
            assert_eq!(self.fs().stats().nodes, 1, "nodes that nobody holds");
        }
    }

    pub(super) fn hold(&mut self, ino: Ino) {
        *self.held.entry(ino).or_default() += 1;
    }

    /// What a path leads to, as the kernel asks; `None` when the model has nothing there.
    pub(super) fn walk(&mut self, path: &str) -> Option<Ino> {
        self.tree.at(path)?;
        let mut here = Ino::ROOT;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let found = self.fs().lookup(here, name(part)).unwrap();
            here = found.unwrap_or_else(|| panic!("{path}: {part} is missing")).ino;
            self.hold(here);
        }
        Some(here)
    }

    /// Does something to the filesystem whose effect on the model is `next`, or which must fail like that.
    pub(super) fn call<T: std::fmt::Debug>(
        &mut self,
        expected: Result<Tree, Errno>,
        operation: impl FnOnce(&Fs) -> Result<T, FsError>,
    ) -> Option<T> {
        let fault = self.fault.take().filter(|_| !self.layers.is_empty());
        if let Some((layer, n)) = fault {
            self.layers[layer % self.layers.len()].fail_in(n);
        }
        if let Some((fault, at)) = self.meets {
            arm(fault, at);
        }
        let got = operation(self.fs());
        let hit = disarm();
        let meets = self.meets.take().filter(|_| hit.is_some());
        self.untidy |= got.is_ok() && meets.is_some();
        if let Some(call) = hit {
            let error = got.as_ref().err().map(FsError::errno);
            let after = expected.as_ref().unwrap_or(&self.tree).clone();
            self.met = Some(Met { call, error, after });
        }
        self.layers.iter().for_each(|layer| layer.fail_in(0));
        match (got.map_err(|error| (error.errno(), error)), expected) {
            (Ok(value), Ok(next)) => {
                self.may_have(&next);
                self.tree = next;
                Some(value)
            }
            (Err((got, _)), Err(expected)) if got == expected => None,
            (Err((Errno::IO, FsError::Layer(_) | FsError::Upper(_))), _) if fault.is_some() => None,
            (Err((got, _)), _) if meets.is_some_and(|(fault, _)| told_as(fault) == got) => None,
            (got, expected) => panic!("got {got:?}, expected {:?}", expected.map(drop)),
        }
    }

    /// All entries, read in pieces; `plus` with attributes.
    pub(super) fn read_dir(&mut self, ino: Ino, batch: usize, plus: bool) -> Vec<(String, Ino, FileKind)> {
        let mut all = Vec::new();
        let mut offset = 0;
        loop {
            let (entries, next) = self.read_some(ino, offset, batch, plus);
            if entries.is_empty() {
                return all;
            }
            all.extend(entries);
            offset = next;
        }
    }

    pub(super) fn read_some(
        &mut self,
        ino: Ino,
        offset: u64,
        count: usize,
        plus: bool,
    ) -> (Vec<(String, Ino, FileKind)>, u64) {
        let mut entries = Vec::new();
        let mut next = offset;
        let mut names = Vec::new();
        let result = self.fs().readdir(ino, offset, plus, &mut |entry, attr| {
            if entries.len() == count {
                return false;
            }
            assert_eq!(attr.is_some(), plus);
            if let Some(attr) = attr {
                assert_eq!((attr.ino, attr.metadata.kind), (entry.ino, entry.kind));
                names.extend(entry.file_name().map(|_| entry.ino));
            }
            let text = String::from_utf8(entry.name.as_bytes().to_vec()).unwrap();
            entries.push((text, entry.ino, entry.kind));
            next = entry.next;
            true
        });
        result.unwrap();
        names.into_iter().for_each(|ino| self.hold(ino));
        (entries, next)
    }

    /// Compares everything.
    pub(super) fn check(&mut self) {
        let mut seen = HashMap::new();
        self.check_dir(0, Ino::ROOT, Ino::ROOT, "", &mut seen);
        for (id, ino) in self.open.clone() {
            self.check_node(id, ino, "(open)");
            if self.tree.nodes[id].is_dir() && self.tree.nlink(id) == 0 {
                assert_eq!(self.read_dir(ino, 10, false).len(), 2, "a removed directory shows names");
            }
        }
        if !self.untidy {
            let left: Vec<_> = std::fs::read_dir(self.dir.path().join("work/tmp")).unwrap().collect();
            assert!(left.is_empty(), "left in work/tmp: {left:?}");
            self.check_index();
        }
        if !self.untidy && !self.stale_numbers {
            self.check_numbers();
        }
    }

    /// Puts the changes on top as a further layer, without an upper: the tree must be the same.
    pub(super) fn check_as_layers(&mut self) {
        self.remount();
        let mut layer = FakeLayer::new().implied("");
        let text = |path: &[u8]| std::str::from_utf8(path).unwrap().to_owned();
        let told = self.fs().changes(&mut |path, change| {
            let path = text(path);
            let old = std::mem::replace(&mut layer, FakeLayer::new());
            layer = match change {
                Change::Removed => old.whiteout(&path),
                Change::Link(to, _) => old.link(&path, &text(to)),
                Change::Object(object) => {
                    let metadata = object.metadata;
                    let mut content = object.target;
                    std::io::copy(&mut object.content.take(metadata.size), &mut content)?;
                    let new = match metadata.kind {
                        FileKind::Directory => old.dir(&path, metadata.mode),
                        kind => old.leaf(&path, kind, metadata.mode, &content),
                    };
                    let new = new.owner(&path, metadata.mode, metadata.uid, metadata.gid);
                    let xattrs = object.xattrs.into_iter();
                    xattrs.fold(new, |new, (key, value)| new.xattr(&path, &text(&key), &value))
                }
            };
            Ok(())
        });
        told.unwrap();
        self.layers.push(Arc::new(layer));
        let layers = self.layers.iter().map(|layer| Arc::clone(layer) as Arc<dyn Layer>).collect();
        self.fs = Some(Fs::new(Union::new(layers), None, OwnerView::Image).unwrap());
        self.held.clear();
        self.inos.clear();
        self.check_dir(0, Ino::ROOT, Ino::ROOT, "", &mut HashMap::new());
    }

    fn check_dir(&mut self, id: usize, ino: Ino, parent: Ino, path: &str, seen: &mut HashMap<Ino, usize>) {
        self.identify(id, ino, path, seen);
        self.check_node(id, ino, path);
        let plus = path.len() % 4 == 1;
        let entries = self.read_dir(ino, 3, plus);
        let numbers: Vec<_> = entries.iter().take(2).map(|entry| (entry.0.as_str(), entry.1)).collect();
        assert_eq!(numbers, [(".", ino), ("..", parent)], "in {path:?}");
        let mut listed: Vec<_> = entries[2..].iter().map(|entry| entry.0.clone()).collect();
        listed.sort();
        let names = self.tree.nodes[id].names.clone();
        assert_eq!(listed, names.keys().cloned().collect::<Vec<_>>(), "names in {path:?}");
        for (text, entry_ino, kind) in &entries[2..] {
            let child = names[text];
            let path = format!("{path}/{text}");
            let attr = self.fs().lookup(ino, name(text)).unwrap().unwrap_or_else(|| panic!("{path}: none"));
            self.hold(attr.ino);
            assert_eq!((*entry_ino, *kind), (attr.ino, attr.metadata.kind), "d_ino, d_type of {path}");
            if self.tree.nodes[child].is_dir() {
                self.check_dir(child, attr.ino, ino, &path, seen);
            } else {
                self.identify(child, attr.ino, &path, seen);
                self.check_node(child, attr.ino, &path);
            }
        }
        for absent in NAMES.into_iter().filter(|text| !names.contains_key(*text)) {
            assert!(self.fs().lookup(ino, name(absent)).unwrap().is_none(), "{path}/{absent} is there");
        }
        self.check_whiteouts(ino, path);
    }

    /// One object, one number, for ever.
    fn identify(&mut self, id: usize, ino: Ino, path: &str, seen: &mut HashMap<Ino, usize>) {
        assert_eq!(*self.inos.entry(id).or_insert(ino), ino, "{path}: its number changed");
        assert_eq!(*seen.entry(ino).or_insert(id), id, "{path}: its number is another object's too");
    }

    pub(super) fn check_node(&self, id: usize, ino: Ino, path: &str) {
        let (fs, node) = (self.fs(), &self.tree.nodes[id]);
        let attr = fs.getattr(ino).unwrap();
        let metadata = attr.metadata;
        assert_eq!((metadata.kind, attr.ino), (node.kind, ino), "{path}");
        assert_eq!(format!("{:o}", metadata.mode), format!("{:o}", node.mode), "mode of {path}");
        if node.kind != FileKind::Symlink || !self.form.is_rootless() {
            assert_eq!((metadata.uid, metadata.gid), (node.uid, node.gid), "owner of {path}");
        }
        let nlink = self.tree.nlink(id);
        if node.is_dir() && nlink > 0 {
            // One name, `.`, and `..` of each directory in it; 1 says that they are not counted.
            let links = 2 + node.names.values().filter(|child| self.tree.nodes[**child].is_dir()).count();
            assert!(attr.nlink == 1 || attr.nlink as usize == links, "nlink {} of {path}", attr.nlink);
        } else {
            assert_eq!(attr.nlink, nlink, "nlink of {path}");
        }
        match node.kind {
            FileKind::Regular => {
                let mut buffer = vec![0; node.content.len() + 10];
                let count = fs.read(ino, 0, &mut buffer).unwrap();
                assert_eq!(metadata.size, node.content.len() as u64, "size of {path}");
                assert!(buffer[..count] == node.content, "{path}: wrong content, {count} bytes");
                self.check_holes(ino, &node.content, path);
            }
            FileKind::Symlink => assert_eq!(fs.read_link(ino).unwrap(), node.content, "{path}"),
            _ => {}
        }
        let listed = fs.listxattr(ino).unwrap();
        assert_eq!(listed, node.xattrs.keys().cloned().collect::<Vec<_>>(), "attributes of {path}");
        for (key, value) in &node.xattrs {
            assert_eq!(fs.getxattr(ino, key).unwrap(), *value, "{path}: {}", key.escape_ascii());
        }
    }

    /// Every whiteout hides something: others would make `diff` list deletions that nobody made.
    fn check_whiteouts(&self, ino: Ino, path: &str) {
        let fs = self.fs();
        let view = fs.view(&fs.node(ino).unwrap()).unwrap();
        let Some(pinned) = view.upper else { return };
        let listed = fs.upper().unwrap().list(&pinned).unwrap();
        let names = |whiteout| listed.iter().filter(move |one| one.whiteout == whiteout).map(|one| &one.name);
        for hidden in names(true) {
            let below = fs.union.lookup(&view.lower, hidden.as_name()).unwrap();
            let shown = names(false).any(|name| name == hidden);
            assert!(below.is_some() && !shown, "{path}: whiteout of {hidden:?} hides nothing");
        }
    }

    /// Numbers are kept only for what is there.
    fn check_numbers(&self) {
        let numbers = std::fs::read_dir(self.dir.path().join("work/numbers")).unwrap();
        let numbers: Vec<_> =
            numbers.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let mut live = Vec::new();
        let mut pending = vec![self.dir.path().join("upper"), self.dir.path().join("work/links")];
        while let Some(dir) = pending.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                live.push(format!("{:x}", entry.ino()));
                if entry.file_type().unwrap().is_dir() {
                    pending.push(entry.path());
                }
            }
        }
        for number in numbers {
            assert!(live.contains(&number), "work/numbers/{number}: there is no such object");
        }
    }

    /// The link index holds only what some name still leads to.
    fn check_index(&self) {
        let live = self.tree.reachable();
        for entry in std::fs::read_dir(self.dir.path().join("work/links")).unwrap() {
            let text = entry.unwrap().file_name().into_string().unwrap();
            if text.ends_with("-gone") {
                continue;
            }
            let ino = Ino(u64::from_str_radix(&text, 16).unwrap());
            let known = self.inos.iter().any(|(id, known)| *known == ino && live.contains_key(id));
            assert!(known, "work/links/{text}: no name leads to it");
        }
    }
}
