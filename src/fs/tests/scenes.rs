//! What the model does not have meets faults too: ACLs, times, what is not one operation of a program's.
//!
//! Each scene is played without a fault first: what is seen before and after is what may be seen later, when one of its
//! system calls fails or is the last.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tempfile::TempDir;

use super::crash::{READING, Tried, said};
use super::world::name;
use crate::fs::{Caller, End, Fs, FsError, New, OwnerView, RenameMode};
use crate::layer::Layer;
use crate::layer::fake::FakeLayer;
use crate::model::{DeviceId, FileKind, Ino, Timestamp};
use crate::sys::fault::{Fault, NEVER, arm, calls, disarm};
use crate::union::Union;
use crate::upper::tests::Form;
use crate::upper::{Change, SetTime, Upper, What};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
const CALLER: Caller = Caller { uid: 5, gid: 6, thread: 0 };
pub(super) const ERRORS: [Errno; 4] = [Errno::NOSPC, Errno::IO, Errno::DQUOT, Errno::INTR];

/// A time of access that reading does not change: it is not yet.
const FAR_SECS: i64 = 9_000_000_000;
/// Failures of one kind are best seen side by side.
const FAILURES_SHOWN: usize = 20;

type Act = Box<dyn Fn(&Fs) -> Result<(), FsError>>;

pub(super) struct Scene {
    what: String,
    setup: Vec<Act>,
    act: Act,
    /// Paths whose times are compared too.
    timed: Vec<&'static str>,
    /// What must hold of upper and work when it was played to its end.
    done: fn(&Path),
}

/// An ACL (acl(5)) with these permissions of a named user, and a mask, in the form that the kernel hands over.
fn acl(user: u16) -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, user, 1000), (4, 4, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// `f` and `g` in `d` are files; `d/one` and `two` are one; in `acl` ACLs are inherited.
pub(super) fn layer() -> FakeLayer {
    let bytes: Vec<u8> = (0..3000_u16).flat_map(|number| (number | 0x101).to_le_bytes()).collect();
    let access = std::str::from_utf8(ACCESS).unwrap();
    FakeLayer::new()
        .dir("d", 0o755)
        .file("d/f", &bytes)
        .xattr("d/f", "user.old", b"of the layer")
        .file("d/g", &bytes[..1000])
        .file("d/one", &bytes[..2000])
        .link("two", "d/one")
        .symlink("d/s", "target")
        .leaf("p", FileKind::Fifo, 0o640, b"")
        .dir("acl", 0o755)
        .xattr("acl", std::str::from_utf8(DEFAULT).unwrap(), &acl(6))
        .file("acl/old", b"old")
        .file("with", b"an ACL")
        .owner("with", 0o670, 0, 0)
        .xattr("with", access, &acl(5))
}

fn open(dir: &TempDir, form: Form) -> Fs {
    let upper = Upper::open(&dir.path().join("upper"), &dir.path().join("work")).unwrap().in_form(form);
    Fs::new(Union::new(vec![Arc::new(layer()) as Arc<dyn Layer>]), Some(upper), OwnerView::Image).unwrap()
}

pub(super) fn at(fs: &Fs, path: &str) -> Result<Ino, FsError> {
    let mut here = Ino::ROOT;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        here = fs.lookup(here, name(part))?.ok_or(FsError::NotFound)?.ino;
    }
    Ok(here)
}

/// All that a program sees, and times where they are asked for.
pub(super) fn shown(fs: &Fs, timed: &[&str]) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    let mut walk = vec![(String::new(), Ino::ROOT)];
    while let Some((path, ino)) = walk.pop() {
        let attr = fs.getattr(ino).unwrap();
        let metadata = attr.metadata;
        let mut content = Vec::new();
        match metadata.kind {
            FileKind::Regular => {
                content.resize(usize::try_from(metadata.size).unwrap(), 0);
                assert_eq!(fs.read(ino, 0, &mut content).unwrap(), content.len());
            }
            FileKind::Symlink => content = fs.read_link(ino).unwrap(),
            FileKind::Directory => {
                let mut names = Vec::new();
                let told = fs.readdir(ino, 0, false, &mut |entry, _| {
                    names.push(String::from_utf8(entry.name.as_bytes().to_vec()).unwrap());
                    true
                });
                told.unwrap();
                for text in &names[2..] {
                    let found = fs.lookup(ino, name(text)).unwrap().unwrap();
                    walk.push((format!("{path}/{text}"), found.ino));
                }
            }
            _ => {}
        }
        let xattrs = fs.listxattr(ino).unwrap().into_iter();
        let xattrs: Vec<_> = xattrs.map(|key| (fs.getxattr(ino, &key).unwrap(), key)).collect();
        let nlink = if metadata.kind == FileKind::Directory { 0 } else { attr.nlink };
        let times = timed.contains(&path.as_str()).then_some((attr.atime.secs == FAR_SECS, metadata.mtime));
        let (mode, sum) = (metadata.mode, crc32fast::hash(&content));
        // A symlink is whose the process is that copied it up, as far as that may not give it away.
        let is_kept = metadata.kind != FileKind::Symlink || rustix::process::geteuid().is_root();
        let owner = is_kept.then_some((metadata.uid, metadata.gid));
        shown.insert(
            path,
            format!(
                "{:?} {mode:o} {owner:?} {nlink} {} {sum:x} {xattrs:?} {times:?}",
                metadata.kind,
                content.len()
            ),
        );
    }
    shown
}

impl Scene {
    fn new(what: &str, act: impl Fn(&Fs) -> Result<(), FsError> + 'static) -> Self {
        let what = what.to_owned();
        Self { what, setup: Vec::new(), act: Box::new(act), timed: Vec::new(), done: |_| () }
    }

    /// After that.
    fn after(mut self, what: &str, act: impl Fn(&Fs) -> Result<(), FsError> + 'static) -> Self {
        self.what = format!("{} after {what}", self.what);
        self.setup.push(Box::new(act));
        self
    }

    fn timed(mut self, paths: &[&'static str]) -> Self {
        self.timed.extend(paths);
        self
    }

    fn set_up(&self, form: Form) -> (TempDir, Fs) {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let fs = open(&dir, form);
        for act in &self.setup {
            act(&fs).unwrap();
        }
        (dir, fs)
    }

    /// Plays it with a fault at each of its calls; returns how many those are.
    fn play(&self, form: Form, tried: Tried, failures: &mut Vec<String>) -> u32 {
        let (dir, fs) = self.set_up(form);
        let before = shown(&fs, &self.timed);
        (self.act)(&fs).unwrap_or_else(|error| panic!("{}: {error}", self.what));
        let after = shown(&fs, &self.timed);
        drop(fs);
        let fs = open(&dir, form);
        assert_eq!(shown(&fs, &self.timed), after, "{}: after a remount", self.what);
        (self.done)(dir.path());
        self.meet(form, Fault::Death, NEVER, (&before, &after));
        let calls = calls();
        assert!(!calls.is_empty(), "{}: nothing was done", self.what);
        let mut met = 0;
        for (call, name) in (0..).zip(calls) {
            let changes = !READING.contains(&name);
            if !changes && tried == Tried::Changing {
                continue;
            }
            met += 1;
            let errno = ERRORS[(call as usize + form as usize) % ERRORS.len()];
            for fault in [Fault::Error(errno), Fault::Death] {
                if fault == Fault::Death && !changes {
                    break;
                }
                let met = catch_unwind(AssertUnwindSafe(|| self.meet(form, fault, call, (&before, &after))));
                if let Err(panic) = met {
                    failures.push(said(&*panic));
                }
            }
        }
        met
    }

    fn meet(
        &self,
        form: Form,
        fault: Fault,
        call: u32,
        (before, after): (&BTreeMap<String, String>, &BTreeMap<String, String>),
    ) -> Option<&'static str> {
        let (dir, mut fs) = self.set_up(form);
        arm(fault, call);
        let result = (self.act)(&fs);
        let hit = disarm()?;
        let what = format!("{} ({form:?}): {fault:?} at {call}, {hit}: {result:?}", self.what);
        if fault == Fault::Death || call % 2 == 1 {
            drop(fs);
            fs = open(&dir, form);
        }
        let now = shown(&fs, &self.timed);
        match (&result, fault) {
            (Ok(()), _) => assert_eq!(differences(&now, after), [""; 0], "{what}"),
            (Err(error), Fault::Error(errno)) => {
                assert_eq!(error.errno(), errno, "{what}");
                assert_eq!(differences(&now, before), [""; 0], "{what}");
            }
            (Err(_), Fault::Death) if now == *after => {}
            (Err(_), Fault::Death) => assert_eq!(differences(&now, before), [""; 0], "{what}"),
        }
        if now != *after || before == after {
            (self.act)(&fs).unwrap_or_else(|error| panic!("{what}: again: {error}"));
            assert_eq!(differences(&shown(&fs, &self.timed), after), [""; 0], "{what}: again");
            drop(fs);
            let fs = open(&dir, form);
            assert_eq!(differences(&shown(&fs, &self.timed), after), [""; 0], "{what}: again, mounted");
            (self.done)(dir.path());
        }
        Some(hit)
    }
}

pub(super) fn differences(now: &BTreeMap<String, String>, then: &BTreeMap<String, String>) -> Vec<String> {
    let paths = now.keys().chain(then.keys().filter(|path| !now.contains_key(*path)));
    let differ = paths.filter(|path| now.get(*path) != then.get(*path));
    differ.map(|path| format!("{path}: {:?}, not {:?}", now.get(path), then.get(path))).collect()
}

pub(super) fn write(path: &'static str, offset: u64) -> impl Fn(&Fs) -> Result<(), FsError> {
    move |fs| fs.write(at(fs, path)?, offset, &[b'w'; 100], None).map(drop)
}

fn allocate(path: &'static str, mode: u32, offset: u64, len: u64) -> impl Fn(&Fs) -> Result<(), FsError> {
    move |fs| match fs.fallocate(at(fs, path)?, mode, offset, len) {
        // Not every filesystem has every mode.
        Err(error) if error.errno() == Errno::OPNOTSUPP => Ok(()),
        result => result,
    }
}

pub(super) fn times(path: &'static str) -> impl Fn(&Fs) -> Result<(), FsError> {
    let to = |secs| Some(SetTime::To(Timestamp { secs, nanos: 7 }));
    move |fs| {
        fs.setattr(at(fs, path)?, CALLER, &Change { atime: to(FAR_SECS), mtime: to(9), ..Change::default() })
            .map(drop)
    }
}

fn set(path: &'static str, key: &'static [u8], value: Vec<u8>) -> impl Fn(&Fs) -> Result<(), FsError> {
    move |fs| fs.setxattr(at(fs, path)?, key, &value, 0)
}

fn remove(path: &'static str, key: &'static [u8]) -> impl Fn(&Fs) -> Result<(), FsError> {
    move |fs| fs.removexattr(at(fs, path)?, key)
}

pub(super) fn rename(from: &'static str, to: &'static str) -> impl Fn(&Fs) -> Result<(), FsError> {
    move |fs| {
        let end = |path: &'static str| {
            let (dir, last) = path.rsplit_once('/').unwrap_or(("", path));
            at(fs, path).ok();
            Ok::<_, FsError>(End { parent: at(fs, dir)?, name: name(last) })
        };
        fs.rename(end(from)?, end(to)?, RenameMode::Replace)
    }
}

fn copy_range(from: &'static str, to: &'static str) -> impl Fn(&Fs) -> Result<(), FsError> {
    move |fs| fs.copy_file_range((at(fs, from)?, 10), (at(fs, to)?, 500), 300).map(drop)
}

fn make(what: What<'static>, path: &'static str) -> impl Fn(&Fs) -> Result<(), FsError> {
    move |fs| {
        let (dir, last) = path.rsplit_once('/').unwrap_or(("", path));
        let new = New { what, mode: 0o4664, umask: 0o022, caller: CALLER };
        fs.create(at(fs, dir)?, name(last), &new).map(drop)
    }
}

/// By who owns what this process makes: in place, where owners are not recorded.
fn make_own(what: What<'static>, path: &'static str) -> impl Fn(&Fs) -> Result<(), FsError> {
    move |fs| {
        let (dir, last) = path.rsplit_once('/').unwrap_or(("", path));
        let caller = Caller { uid: 0, gid: rustix::process::getegid().as_raw(), thread: 0 };
        let new = New { what, mode: 0o640, umask: 0, caller };
        fs.create(at(fs, dir)?, name(last), &new).map(drop)
    }
}

fn content() -> Vec<Scene> {
    const KEEP: u32 = 1;
    const PUNCH: u32 = 3;
    const ZERO: u32 = 16;
    let mut scenes = Vec::new();
    for path in ["d/f", "two"] {
        scenes.push(Scene::new(&format!("write {path}"), write(path, 1000)));
        // In part over what is the file's own.
        scenes.push(
            Scene::new(&format!("write {path}"), write(path, 1000)).after("a write", write(path, 1050)),
        );
        scenes.push(
            Scene::new(&format!("write {path}"), write(path, 1890)).after("a write", write(path, 1850)),
        );
        for (mode, offset, len) in [
            (0, 100, 50),
            (0, 100, 9000),
            (KEEP, 100, 9000),
            (PUNCH, 1000, 700),
            (ZERO, 1000, 9000),
            (ZERO | KEEP, 0, 9000),
        ] {
            let what = format!("fallocate {mode} {offset} {len} {path}");
            scenes.push(Scene::new(&what, allocate(path, mode, offset, len)));
            // Zeros over what is the file's own already are seen even if those beside it cannot be.
            if mode <= KEEP {
                let scene = Scene::new(&what, allocate(path, mode, offset, len));
                scenes.push(scene.after("a write", write(path, 1050)));
            }
        }
    }
    let whole = |fs: &Fs| {
        set("d/g", b"user.x", vec![1])(fs)?;
        fs.complete().map(drop)
    };
    for path in ["d/f", "two", "new"] {
        let made = make(What::File, "new");
        let scene = Scene::new(&format!("copy_file_range d/g {path}"), copy_range("d/g", path));
        scenes.push(scene.after("making it whole", whole).after("creating", made));
    }
    scenes
}

fn metadata() -> Vec<Scene> {
    let mut scenes = Vec::new();
    for (path, key) in [("d/f", "/d/f"), ("d", "/d"), ("d/s", "/d/s"), ("two", "/two"), ("p", "/p"), ("", "")]
    {
        let scene = || Scene::new(&format!("utimens {path:?}"), times(path)).timed(&[key]);
        scenes.push(scene());
        scenes.push(scene().after("another", move |fs| {
            let mtime = Some(SetTime::To(Timestamp { secs: 77, nanos: 0 }));
            fs.setattr(at(fs, path)?, CALLER, &Change { mtime, ..Change::default() }).map(drop)
        }));
    }
    for path in ["d/f", "d", "two", "with"] {
        scenes.push(Scene::new(&format!("ACL {path}"), set(path, ACCESS, acl(7))));
        scenes.push(Scene::new(&format!("user.x {path}"), set(path, b"user.x", b"value".to_vec())));
        scenes.push(Scene::new(&format!("trusted.x {path}"), set(path, b"trusted.x", b"value".to_vec())));
        scenes.push(Scene::new(&format!("security.x {path}"), set(path, b"security.x", b"value".to_vec())));
    }
    for (path, key) in [("with", ACCESS), ("acl", DEFAULT), ("d/f", b"user.old")] {
        scenes.push(Scene::new(&format!("remove from {path}"), remove(path, key)));
        let changed = move |fs: &Fs| {
            fs.setattr(at(fs, path)?, CALLER, &Change { mode: Some(0o711), ..Change::default() })
        };
        let scene = Scene::new(&format!("remove from {path}"), remove(path, key));
        scenes.push(scene.after("chmod", move |fs| changed(fs).map(drop)));
    }
    scenes.push(Scene::new("default ACL", set("d", DEFAULT, acl(4))));
    let device = What::Special(FileKind::CharDevice, DeviceId { major: 1, minor: 3 });
    let fifo = What::Special(FileKind::Fifo, DeviceId::default());
    for what in [What::File, What::Dir, What::Symlink(b"to"), fifo, device] {
        scenes.push(Scene::new(&format!("create {what:?} below a default ACL"), make(what, "acl/new")));
        let scene = Scene::new(&format!("create {what:?} below a default ACL"), make(what, "acl/old"));
        scenes.push(scene.after("a removal", |fs| {
            at(fs, "acl/old")?;
            fs.unlink(at(fs, "acl")?, name("old"))
        }));
    }
    for what in [What::File, What::Dir] {
        for path in ["new", "d/new"] {
            scenes.push(Scene::new(&format!("create {what:?} {path} in place"), make_own(what, path)));
        }
    }
    scenes
}

fn no_map_is_left(dir: &Path) {
    let mut pending = vec![dir.join("upper")];
    while let Some(path) = pending.pop() {
        let mut list = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, list.as_mut_slice()).unwrap();
        let list = String::from_utf8_lossy(&list[..length]).into_owned();
        // Beside the number a map means nothing: it could not be removed.
        let is_map = list.contains("layerfs.extents") && !list.contains("layerfs.ino");
        assert!(!is_map, "{}: {list}", path.display());
        if std::fs::symlink_metadata(&path).unwrap().is_dir() {
            pending.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

fn nothing_is_shared(dir: &Path) {
    no_map_is_left(dir);
    let left: Vec<_> =
        std::fs::read_dir(dir.join("work/links")).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert!(left.is_empty(), "work/links: {left:?}");
}

fn in_the_background() -> Vec<Scene> {
    let settle = |fs: &Fs| fs.settle(Duration::ZERO);
    let complete = |fs: &Fs| fs.complete().map(drop);
    let chmod = |path: &'static str| {
        move |fs: &Fs| {
            fs.setattr(at(fs, path)?, CALLER, &Change { mode: Some(0o4711), ..Change::default() }).map(drop)
        }
    };
    let mut scenes = Vec::new();
    for path in ["d/f", "two"] {
        scenes.push(Scene::new("settle", settle).after("a write", write(path, 700)));
        let scene = Scene::new("settle", settle).after("a write", write(path, 700));
        scenes.push(scene.after("more", allocate(path, 3, 0, 6000)).after("all", write(path, 1900)));
    }
    let both = || {
        let scene =
            Scene::new("complete", complete).after("chmod", chmod("d/f")).after("a write", write("two", 700));
        Scene { done: nothing_is_shared, ..scene }
    };
    scenes.push(both());
    scenes.push(both().after("a rename", rename("d", "moved")));
    scenes.push(both().after("another", rename("d/one", "acl/one")).after("a removal", |fs| {
        at(fs, "two")?;
        fs.unlink(Ino::ROOT, name("two"))
    }));
    let untouched =
        Scene::new("complete", complete).after("utimens", times("d/f")).after("utimens", times("two"));
    scenes.push(Scene { done: nothing_is_shared, ..untouched });
    scenes
}

/// In the second form errors are told by calls that change something alone.
fn play(scenes: &[Scene], forms: [Form; 2]) {
    let mut failures = Vec::new();
    for (form, tried) in forms.into_iter().zip([Tried::Every, Tried::Changing]) {
        let calls: u32 = scenes.iter().map(|scene| scene.play(form, tried, &mut failures)).sum();
        assert!(calls > 100, "{form:?}: {calls} calls met a fault");
    }
    let shown = failures[..failures.len().min(FAILURES_SHOWN)].join("\n");
    assert!(failures.is_empty(), "{} failures:\n{shown}", failures.len());
}

#[test]
fn every_call_of_a_change_of_content_may_fail() {
    play(&content(), [Form::Found, Form::Rootless]);
}

#[test]
fn every_call_of_a_change_of_metadata_may_fail() {
    play(&metadata(), [Form::NamedWhiteouts, Form::Rootless]);
}

#[test]
fn every_call_of_settling_and_completing_may_fail() {
    play(&in_the_background(), [Form::Found, Form::RootlessNamed]);
}
