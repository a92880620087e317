//! What the upper writes, looked at with plain system calls.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use tempfile::TempDir;

use super::marks::Namespace;
use super::owner::Owners;
use super::{Change, Content, Fresh, Looked, Marks, Origin, Upper, UpperError, UpperName, What, Whiteouts};
use crate::model::{DeviceId, EntryId, FileKind, Ino, LayerOrdinal, Metadata, Name, Timestamp};
use crate::sys::fault::{Fault, arm, disarm};

/// In which form an upper keeps what its filesystem or its user cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// What the probes of `open` find.
    Found,
    /// As where device nodes cannot be made.
    NamedWhiteouts,
    /// As for an ordinary user.
    Rootless,
    /// Both.
    RootlessNamed,
}

impl Form {
    /// Whether symlinks cannot carry marks.
    pub(crate) fn is_rootless(self) -> bool {
        matches!(self, Self::Rootless | Self::RootlessNamed) || !rustix::process::geteuid().is_root()
    }
}

impl Upper {
    /// The same upper, as if the probes had found something else.
    /// As if the machine had been started again.
    pub(crate) fn in_boot(mut self, boot: u64) -> Self {
        self.boot = boot;
        self
    }

    pub(crate) fn in_form(mut self, form: Form) -> Self {
        if matches!(form, Form::NamedWhiteouts | Form::RootlessNamed) {
            self.whiteouts = Whiteouts::Named;
        }
        if matches!(form, Form::Rootless | Form::RootlessNamed) {
            self.owners = Owners::Recorded;
            self.creator = None;
            self.namespace = Namespace::User;
        }
        // So that small files have many granules.
        self.granule_bytes_min = Some(16);
        self
    }
}

const FORMS: [Form; 4] = [Form::Found, Form::NamedWhiteouts, Form::Rootless, Form::RootlessNamed];

struct Dirs(TempDir);

impl Dirs {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn upper(&self, path: &str) -> PathBuf {
        self.0.path().join("upper").join(path)
    }

    fn work(&self, path: &str) -> PathBuf {
        self.0.path().join("work").join(path)
    }

    fn try_open(&self) -> Result<Upper, UpperError> {
        Upper::open(&self.upper(""), &self.work(""))
    }

    fn open(&self, form: Form) -> Upper {
        self.try_open().unwrap().in_form(form)
    }
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

fn root(upper: &Upper) -> OwnedFd {
    upper.root().unwrap().pinned
}

fn fresh(what: What<'_>) -> Fresh<'_> {
    Fresh { what, mode: 0o640, uid: 7, gid: 8, default_acl: None, over_whiteout: false }
}

fn metadata(kind: FileKind, size: u64) -> Metadata {
    let mtime = Timestamp { secs: 1_000_000_000, nanos: 5 };
    Metadata { kind, mode: 0o4751, uid: 7, gid: 8, rdev: DeviceId::default(), size, mtime }
}

fn raw_xattr(path: &Path, key: &str) -> Option<String> {
    let mut value = vec![0; 1000];
    let length = rustix::fs::lgetxattr(path, key, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(String::from_utf8(value).unwrap())
}

fn set_raw_xattr(path: &Path, key: &str, value: &str) {
    rustix::fs::setxattr(path, key, value.as_bytes(), XattrFlags::empty()).unwrap();
}

fn mark(upper: &Upper, mark: &str) -> String {
    match upper.namespace {
        Namespace::Trusted => format!("trusted.overlay.{mark}"),
        Namespace::User => format!("user.overlay.{mark}"),
    }
}

fn is_device_whiteout(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    found.is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
}

fn names(path: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(path).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_upper_has_one_user() {
    let dirs = Dirs::new();
    let upper = dirs.open(Form::Found);
    assert!(matches!(dirs.try_open(), Err(UpperError::InUse(path)) if path == dirs.work("")));
    // Neither with other scratch space, nor another upper with this one, nor by another path.
    let (upper_dir, work_dir) = (dirs.upper(""), dirs.work(""));
    let elsewhere = |text: &str| dirs.0.path().join(text);
    assert!(
        matches!(Upper::open(&upper_dir, &elsewhere("work2")), Err(UpperError::InUse(path)) if path == upper_dir)
    );
    assert!(matches!(Upper::open(&elsewhere("upper2"), &work_dir), Err(UpperError::InUse(_))));
    std::os::unix::fs::symlink(&upper_dir, elsewhere("alias")).unwrap();
    assert!(matches!(Upper::open(&elsewhere("alias"), &elsewhere("work3")), Err(UpperError::InUse(_))));
    // The server of a mount that has just gone ends a little later.
    let ending = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(upper);
    });
    dirs.open(Form::Found);
    ending.join().unwrap();
}

#[test]
fn what_a_crash_left_in_tmp_goes_at_open() {
    let dirs = Dirs::new();
    drop(dirs.open(Form::Found));
    let deep = dirs.work("tmp/1/deep");
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), b"x").unwrap();
    std::os::unix::fs::symlink("/etc", dirs.work("tmp/link")).unwrap();
    let upper = dirs.open(Form::Found);
    assert!(names(&dirs.work("tmp")).is_empty());
    assert!(names(&dirs.upper("")).is_empty(), "probes leave nothing");
    assert!(Path::new("/etc/passwd").exists());
    drop(upper);
}

#[test]
fn opening_changes_nothing_that_shows() {
    let dirs = Dirs::new();
    drop(dirs.open(Form::Found));
    let times = || {
        let root = std::fs::metadata(dirs.upper("")).unwrap();
        (root.mtime(), root.mtime_nsec())
    };
    let before = times();
    std::thread::sleep(std::time::Duration::from_millis(20));
    drop(dirs.open(Form::Found));
    assert_eq!(times(), before);
}

#[test]
fn a_real_owner_replaces_a_recorded_one() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can give files away
    }
    let dirs = Dirs::new();
    let upper = dirs.open(Form::Found);
    std::fs::write(dirs.upper("file"), b"").unwrap();
    set_raw_xattr(&dirs.upper("file"), "user.containers.override_stat", "70000:70000:0640:file");
    let Looked::Object(object) = upper.look(root(&upper), name("file")).unwrap() else { panic!("not there") };
    assert_eq!(object.attr.metadata.uid, 70000);
    let change = Change { uid: Some(5), ..Change::default() };
    let changed = upper.change(&object.pinned, b"file", &change).unwrap().metadata;
    assert_eq!((changed.uid, changed.gid, changed.mode), (5, 70000, 0o640));
}

/// What one call makes complete is made where it belongs; all else appears only when it is complete.
#[test]
fn what_is_made_in_place() {
    if !rustix::process::geteuid().is_root() {
        return; // whose owners are recorded
    }
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    let own = rustix::process::getegid().as_raw();
    let plain = |what| Fresh { mode: 0o700, uid: 0, gid: own, ..fresh(what) };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:\t")).unwrap();
    let mask = u16::from_str_radix(mask, 8).unwrap();
    let in_place = [plain(What::File), plain(What::Dir)];
    let elsewhere = [
        fresh(What::File),
        Fresh { mode: 0o4700, ..plain(What::File) },
        Fresh { gid: own + 1, ..plain(What::Dir) },
        plain(What::Symlink(b"target")),
        // More than the mask of this process lets through.
        Fresh { mode: 0o777, ..plain(What::Dir) },
        Fresh { mode: 0o666, ..plain(What::File) },
    ];
    let all = in_place.iter().map(|fresh| (fresh, true)).chain(elsewhere.iter().map(|fresh| (fresh, false)));
    for form in [Form::Found, Form::NamedWhiteouts] {
        for (number, (fresh, is_in_place)) in all.clone().enumerate() {
            let dirs = Dirs::new();
            let upper = dirs.open(form);
            std::fs::File::open(dirs.work("tmp")).unwrap().set_modified(long_ago).unwrap();
            let (object, _) = upper.create(root(&upper), name("new"), fresh).unwrap();
            let found = std::fs::symlink_metadata(dirs.upper("new")).unwrap();
            let is_untouched = dirs.work("tmp").metadata().unwrap().modified().unwrap() == long_ago;
            assert_eq!(is_untouched, is_in_place || number > 5 && fresh.mode & mask == 0, "{fresh:?}");
            assert_eq!((found.uid(), found.gid()), (fresh.uid, fresh.gid), "{fresh:?}");
            assert_eq!(found.ino(), object.attr.st_ino);
            if !matches!(fresh.what, What::Symlink(_)) {
                assert_eq!(found.mode() & 0o7777, u32::from(fresh.mode), "{fresh:?}");
            }
            assert!(names(&dirs.work("tmp")).is_empty(), "{fresh:?}");
        }
    }
}

/// Whatever call of it fails, no name is left behind.
#[test]
fn what_cannot_be_made_in_place_is_not_there() {
    if !rustix::process::geteuid().is_root() {
        return; // whose owners are recorded
    }
    let gid = rustix::process::getegid().as_raw();
    for what in [What::File, What::Dir] {
        let dirs = Dirs::new();
        let upper = dirs.open(Form::Found);
        let root = root(&upper);
        let plain = Fresh { mode: 0o700, uid: 0, gid, ..fresh(what) };
        for call in 0.. {
            arm(Fault::Error(Errno::MFILE), call);
            let created = upper.create(&root, name("new"), &plain);
            let Some(hit) = disarm() else { break };
            assert!(created.is_err() && !crate::sys::fault::calls().contains(&"renameat_with"), "{hit}");
            assert!(names(&dirs.upper("")).is_empty(), "{hit}");
            assert!(names(&dirs.work("tmp")).is_empty(), "{hit}");
        }
    }
}

#[test]
fn an_upper_that_is_none() {
    let dirs = Dirs::new();
    std::fs::write(dirs.0.path().join("upper"), b"a file").unwrap();
    assert!(matches!(dirs.try_open(), Err(UpperError::Unusable { .. })));
}

#[test]
fn whiteouts() {
    for form in FORMS {
        let dirs = Dirs::new();
        let upper = dirs.open(form);
        let root = root(&upper);
        upper.hide(&root, name("a")).unwrap();
        assert!(matches!(upper.look(&root, name("a")).unwrap(), Looked::Whiteout), "{form:?}");
        match upper.whiteouts {
            Whiteouts::Device => assert!(is_device_whiteout(&dirs.upper("a"))),
            Whiteouts::Named => assert_eq!(names(&dirs.upper("")), [".wh.a".to_owned()].into()),
        }
        let listed = upper.list(&root).unwrap();
        assert_eq!(listed, [UpperName { name: name("a").to_owned(), whiteout: true }]);
        // Over it, and away again with something below to hide.
        let over = Fresh { over_whiteout: true, ..fresh(What::Dir) };
        upper.create(&root, name("a"), &over).unwrap();
        assert_eq!(raw_xattr(&dirs.upper("a"), &mark(&upper, "opaque")).as_deref(), Some("y"));
        assert_eq!(names(&dirs.upper("")), ["a".to_owned()].into(), "{form:?}");
        upper.remove(&root, name("a"), FileKind::Directory, true).unwrap();
        assert!(matches!(upper.look(&root, name("a")).unwrap(), Looked::Whiteout), "{form:?}");
        assert!(names(&dirs.work("tmp")).is_empty());
    }
}

#[test]
fn names_that_mean_whiteouts() {
    let dirs = Dirs::new();
    let upper = dirs.open(Form::NamedWhiteouts);
    for text in [".wh.x", ".wh..wh..opq"] {
        assert_eq!(upper.may_be_created(name(text)).unwrap_err().errno(), Errno::PERM);
        assert!(matches!(upper.look(root(&upper), name(text)).unwrap(), Looked::Absent));
    }
    drop(upper);
    let upper = dirs.open(Form::Found);
    if upper.whiteouts == Whiteouts::Device {
        upper.may_be_created(name(".wh.x")).unwrap();
        upper.create(root(&upper), name(".wh.x"), &fresh(What::File)).unwrap();
        assert!(matches!(upper.look(root(&upper), name("x")).unwrap(), Looked::Absent));
        assert!(matches!(upper.look(root(&upper), name(".wh.x")).unwrap(), Looked::Object(_)));
    }
}

#[test]
fn owners_are_recorded_in_the_form_of_containers_storage() {
    let dirs = Dirs::new();
    let upper = dirs.open(Form::Rootless);
    let root = root(&upper);
    let device = What::Special(FileKind::BlockDevice, DeviceId { major: 8, minor: 17 });
    for (text, what, record) in [
        ("f", What::File, "7:8:0640:file"),
        ("d", What::Dir, "7:8:0640:dir"),
        ("b", device, "7:8:0640:block-8-17"),
        ("s", What::Special(FileKind::Socket, DeviceId::default()), "7:8:0640:socket"),
    ] {
        let made = upper.create(&root, name(text), &fresh(what)).unwrap().0.attr.metadata;
        assert_eq!(raw_xattr(&dirs.upper(text), "user.containers.override_stat").as_deref(), Some(record));
        assert_eq!((made.mode, made.uid, made.gid), (0o640, 7, 8));
        let real = std::fs::metadata(dirs.upper(text)).unwrap().mode() & 0o7777;
        assert_eq!(real, if text == "d" { 0o740 } else { 0o640 }, "{text}: the caller can still use it");
    }
    let closed = Change { mode: Some(0o4000), uid: Some(9), ..Change::default() };
    let pinned = super::handle::pin(&root, b"f").unwrap();
    let changed = upper.change(&pinned, b"f", &closed).unwrap().metadata;
    assert_eq!((changed.mode, changed.uid, changed.gid), (0o4000, 9, 8));
    assert_eq!(std::fs::metadata(dirs.upper("f")).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_copy_keeps_its_number() {
    for form in FORMS {
        let dirs = Dirs::new();
        let upper = dirs.open(form);
        let ino = Ino::of_lower(LayerOrdinal(3), EntryId(77)).unwrap();
        let mut content = |offset: u64, buffer: &mut [u8]| {
            buffer.fill(u8::from(offset < 4096));
            Ok(buffer.len())
        };
        let xattrs = vec![(Box::from(&b"user.k"[..]), Box::from(&b"v"[..]))];
        let mut origin = Origin {
            metadata: metadata(FileKind::Regular, 5 << 20),
            xattrs,
            ino,
            target: &[],
            content: &mut content,
            keep_bytes: u64::MAX,
            later: None,
        };
        let place = |copied| upper.place(copied, root(&upper), name("f"));
        let object = place(upper.copy_up(&mut origin).unwrap()).unwrap();
        assert_eq!(object.attr.metadata, metadata(FileKind::Regular, 5 << 20), "{form:?}");
        assert_eq!(object.marks, Marks { ino: Some(ino), ..Marks::default() });
        let number = raw_xattr(&dirs.upper("f"), &mark(&upper, "layerfs.ino"));
        assert_eq!(number.as_deref(), Some("4398046511181"));
        assert_eq!(upper.xattr_names(&object.pinned).unwrap(), [b"user.k"]);
        assert!(object.attr.blocks < (4 << 20) / 512, "holes stay holes");
        // Under a name that is taken nothing happens.
        let taken = place(upper.copy_up(&mut origin).unwrap()).unwrap_err();
        assert_eq!(taken.errno(), Errno::EXIST);
        assert!(names(&dirs.work("tmp")).is_empty());
    }
}

#[test]
fn a_copy_that_fails_leaves_nothing() {
    let dirs = Dirs::new();
    let upper = dirs.open(Form::Found);
    let ino = Ino::of_lower(LayerOrdinal(0), EntryId(1)).unwrap();
    for answer in [Err(Errno::IO), Ok(0_usize)] {
        let mut content = move |offset: u64, _: &mut [u8]| if offset == 0 { Ok(1 << 20) } else { answer };
        let metadata = metadata(FileKind::Regular, 3 << 20);
        let (xattrs, target, content) = (Vec::new(), &[][..], &mut content as Content<'_>);
        let mut origin = Origin { metadata, xattrs, ino, target, content, keep_bytes: u64::MAX, later: None };
        let error = upper.copy_up(&mut origin).unwrap_err();
        assert_eq!(error.errno(), Errno::IO, "a layer that ends early is damaged, not short");
        assert!(names(&dirs.upper("")).is_empty() && names(&dirs.work("tmp")).is_empty());
    }
}

#[test]
fn marks_of_others_are_understood() {
    let dirs = Dirs::new();
    let upper = dirs.open(Form::Found);
    for text in ["opaque", "moved", "whole", "damaged", "odd", "nowhere", "unclear"] {
        std::fs::create_dir(dirs.upper(text)).unwrap();
    }
    set_raw_xattr(&dirs.upper("opaque"), &mark(&upper, "opaque"), "y");
    set_raw_xattr(&dirs.upper("moved"), &mark(&upper, "redirect"), "/a/b");
    set_raw_xattr(&dirs.upper("whole"), &mark(&upper, "opaque"), "x");
    set_raw_xattr(&dirs.upper("damaged"), &mark(&upper, "layerfs.ino"), "12x");
    set_raw_xattr(&dirs.upper("nowhere"), &mark(&upper, "redirect"), "a/b");
    set_raw_xattr(&dirs.upper("unclear"), &mark(&upper, "opaque"), "z");
    set_raw_xattr(&dirs.upper("odd"), "user.containers.override_stat", "0:0");
    let marks = |text| match upper.look(root(&upper), name(text)) {
        Ok(Looked::Object(object)) => Ok(object.marks),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    assert_eq!(marks("opaque").unwrap(), Marks { opaque: true, ..Marks::default() });
    assert_eq!(marks("moved").unwrap().redirect.as_deref(), Some(&b"/a/b"[..]));
    assert_eq!(marks("whole").unwrap(), Marks::default(), "it may hold whiteouts of another kind, no more");
    for text in ["damaged", "odd", "nowhere", "unclear"] {
        assert!(matches!(marks(text), Err(UpperError::Mark { path, .. }) if path == dirs.upper(text)));
    }
}

#[test]
fn attributes_that_a_stand_in_holds() {
    let dirs = Dirs::new();
    let upper = dirs.open(Form::Rootless);
    let (object, _) = upper.create(root(&upper), name("f"), &fresh(What::File)).unwrap();
    set_raw_xattr(&dirs.upper("f"), "user.containers.override_security.capability", "cap");
    set_raw_xattr(&dirs.upper("f"), "user.overlay.layerfs.other", "1");
    upper.set_xattr(&object.pinned, b"user.x", b"1", XattrFlags::empty()).unwrap();
    assert_eq!(upper.xattr_names(&object.pinned).unwrap(), [&b"security.capability"[..], b"user.x"]);
    assert_eq!(upper.xattr(&object.pinned, b"security.capability").unwrap().as_deref(), Some(&b"cap"[..]));
    upper.remove_xattr(&object.pinned, b"security.capability").unwrap();
    assert_eq!(upper.xattr(&object.pinned, b"security.capability").unwrap(), None);
    let again = upper.remove_xattr(&object.pinned, b"user.y").unwrap_err();
    assert_eq!(again.errno(), Errno::NODATA);
}

#[test]
fn counters_of_hard_links() {
    let dirs = Dirs::new();
    let upper = dirs.open(Form::Found);
    let ino = Ino::of_lower(LayerOrdinal(0), EntryId(1)).unwrap();
    assert_eq!(upper.names_gone(ino).unwrap(), 0);
    for count in 1..4 {
        upper.name_going(ino, b"a").unwrap().gone();
        assert_eq!(upper.names_gone(ino).unwrap(), count);
        drop(upper.name_going(ino, b"a").unwrap());
        assert_eq!(upper.names_gone(ino).unwrap(), count, "it stayed");
    }
    assert!(upper.indexed(ino).unwrap().is_none());
    upper.forget_indexed(ino).unwrap();
    assert_eq!(upper.names_gone(ino).unwrap(), 0);
    assert!(names(&dirs.work("links")).is_empty() && names(&dirs.work("tmp")).is_empty());
}

#[test]
fn names_that_were_going_when_the_process_died() {
    let dirs = Dirs::new();
    let upper = dirs.open(Form::Found);
    let ino = |entry| Ino::of_lower(LayerOrdinal(0), EntryId(entry)).unwrap();
    upper.create(root(&upper), name("d"), &fresh(What::Dir)).unwrap();
    upper.hide(super::handle::pin(root(&upper), b"d").unwrap(), name("gone")).unwrap();
    let long = vec![b'x'; 5000];
    for (entry, path) in [(1, &b"d/gone"[..]), (2, b"d/there"), (3, b"nowhere/gone"), (4, &long)] {
        let going = upper.name_going(ino(entry), path).unwrap();
        arm(Fault::Death, 0);
        drop(going);
        disarm();
    }
    assert_eq!(names(&dirs.work("links")).len(), 4);
    upper.recover().unwrap();
    let counted: Vec<_> = (1..5).map(|entry| upper.names_gone(ino(entry)).unwrap()).collect();
    assert_eq!(counted, [1, 0, 0, 0]);
    assert_eq!(names(&dirs.work("links")).len(), 1);
}

#[test]
fn a_call_that_fails_leaves_nothing_in_tmp() {
    for fault in [Fault::Error(Errno::DQUOT), Fault::Death] {
        for at in 0.. {
            let dirs = Dirs::new();
            let upper = dirs.open(Form::Found);
            let root = root(&upper);
            arm(fault, at);
            let result = upper.create(&root, name("f"), &fresh(What::File));
            let Some(call) = disarm() else { break };
            assert_eq!(result.is_ok(), dirs.upper("f").exists(), "{call} ({at})");
            drop(upper);
            dirs.open(Form::Found);
            assert!(names(&dirs.work("tmp")).is_empty(), "{call} ({at})");
        }
    }
}
