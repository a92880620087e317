//! What the model does not have: times, special modes, views, read-only mounts.

use std::sync::Arc;

use rustix::io::Errno;
use tempfile::TempDir;

use super::world::name;
use crate::fs::{Caller, End, Fs, IdRange, IdView, New, OwnerView, RenameMode, Seek};
use crate::layer::Layer;
use crate::layer::fake::{FakeLayer, MTIME};
use crate::model::{DeviceId, FileKind, Ino, Timestamp, posix_acl};
use crate::union::Union;
use crate::upper::tests::Form;
use crate::upper::{Change, SetTime};
use crate::upper::{Upper, What};

const USER: Caller = Caller { uid: 7, gid: 8, thread: 0 };
const FORMS: [Form; 4] = [Form::Found, Form::NamedWhiteouts, Form::Rootless, Form::RootlessNamed];

fn layer() -> FakeLayer {
    FakeLayer::new()
        .dir("d", 0o755)
        .file("d/f", &[b'x'; 5000])
        .owner("d/f", 0o6777, 1000, 1001)
        .symlink("d/l", "target")
        .file("g", b"other")
}

fn open(dir: &TempDir, form: Form, owners: OwnerView) -> Fs {
    let upper = Upper::open(&dir.path().join("upper"), &dir.path().join("work")).unwrap().in_form(form);
    Fs::new(Union::new(vec![Arc::new(layer()) as Arc<dyn Layer>]), Some(upper), owners).unwrap()
}

fn at(fs: &Fs, path: &str) -> Ino {
    path.split('/').fold(Ino::ROOT, |here, part| fs.lookup(here, name(part)).unwrap().unwrap().ino)
}

fn new(what: What<'_>, mode: u16) -> New<'_> {
    New { what, mode, umask: 0o027, caller: USER }
}

#[test]
fn copy_up_keeps_times_and_owner_and_the_parents_times() {
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let fs = open(&dir, form, OwnerView::Image);
        let (d, f) = (at(&fs, "d"), at(&fs, "d/f"));
        fs.setxattr(f, b"user.x", b"1", 0).unwrap();
        let attr = fs.getattr(f).unwrap();
        assert_eq!((attr.metadata.mtime, fs.getattr(d).unwrap().metadata.mtime), (MTIME, MTIME), "{form:?}");
        assert_eq!((attr.metadata.mode, attr.metadata.uid, attr.metadata.gid), (0o6777, 1000, 1001));
        fs.write(f, 0, b"y", None).unwrap();
        assert!(fs.getattr(f).unwrap().metadata.mtime > MTIME);
        assert_eq!(fs.getattr(d).unwrap().metadata.mtime, MTIME);
        fs.unlink(d, name("l")).unwrap();
        assert!(fs.getattr(d).unwrap().metadata.mtime > MTIME, "{form:?}: a removal changes the directory");
    }
}

#[test]
fn hard_links_that_cannot_carry_their_number_stay_one_object() {
    let layer = || {
        let layer = FakeLayer::new().symlink("a", "target").leaf("d/fifo", FileKind::Fifo, 0o640, b"");
        let layer = layer.link("d/a", "a").link("e", "a").link("fifo", "d/fifo");
        Union::new(vec![Arc::new(layer) as Arc<dyn Layer>])
    };
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let upper = Upper::open(&dir.path().join("upper"), &dir.path().join("work")).unwrap();
            Fs::new(layer(), Some(upper.in_form(form)), OwnerView::Image).unwrap()
        };
        let fs = open();
        let numbers = [at(&fs, "a"), at(&fs, "fifo")];
        let time = Change { mtime: Some(SetTime::To(Timestamp { secs: 7, nanos: 0 })), ..Change::default() };
        for ino in numbers {
            fs.setattr(ino, USER, &time).unwrap();
        }
        let end = |parent, text| End { parent, name: name(text) };
        fs.rename(end(Ino::ROOT, "a"), end(at(&fs, "d"), "moved"), RenameMode::Replace).unwrap();
        fs.rename(end(Ino::ROOT, "fifo"), end(at(&fs, "d"), "moved-fifo"), RenameMode::Replace).unwrap();
        drop(fs);
        let fs = open();
        for (ino, paths) in
            [(numbers[0], &["d/a", "d/moved", "e"][..]), (numbers[1], &["d/fifo", "d/moved-fifo"])]
        {
            for path in paths {
                assert_eq!(at(&fs, path), ino, "{form:?}: {path}");
                let attr = fs.getattr(ino).unwrap();
                assert_eq!(
                    (attr.nlink as usize, attr.metadata.mtime.secs),
                    (paths.len(), 7),
                    "{form:?}: {path}"
                );
            }
        }
    }
}

#[test]
fn a_number_that_was_left_behind_is_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, Form::Rootless, OwnerView::Image);
    let made = fs.create(Ino::ROOT, name("new"), &new(What::Symlink(b"x"), 0o777)).unwrap();
    drop(fs);
    // As after a crash between the removal of the copy and that of its record.
    let record = dir.path().join("work/numbers").join(format!("{:x}", made.ino.0));
    std::os::unix::fs::symlink("1099511627783 1000000000.000000000", record).unwrap();
    let fs = open(&dir, Form::Rootless, OwnerView::Image);
    assert_eq!(at(&fs, "new"), made.ino);
}

/// An upper whose symlinks cannot carry their numbers, over a layer with a symlink of three names; the symlink has been
/// changed.
fn with_numbered_symlink(dir: &TempDir) -> (Fs, Ino) {
    let layer = FakeLayer::new().symlink("a", "target").link("d/a", "a").link("e", "a").symlink("one", "x");
    let upper = Upper::open(&dir.path().join("upper"), &dir.path().join("work")).unwrap();
    let union = Union::new(vec![Arc::new(layer) as Arc<dyn Layer>]);
    let fs = Fs::new(union, Some(upper.in_form(Form::Rootless)), OwnerView::Image).unwrap();
    let time = Change { mtime: Some(SetTime::To(Timestamp { secs: 7, nanos: 0 })), ..Change::default() };
    for path in ["a", "one"] {
        fs.setattr(at(&fs, path), USER, &time).unwrap();
    }
    let ino = at(&fs, "one");
    (fs, ino)
}

fn in_work(dir: &TempDir, name: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir.path().join("work").join(name)).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn no_number_stays_recorded_of_what_is_gone() {
    for known in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (fs, one) = with_numbered_symlink(&dir);
        let (a, d) = (at(&fs, "a"), at(&fs, "d"));
        assert_eq!((in_work(&dir, "numbers").len(), in_work(&dir, "links").len()), (2, 1));
        if !known {
            fs.forget(a, 10);
            fs.forget(one, 10);
        }
        for (parent, text) in [(Ino::ROOT, "a"), (d, "a"), (Ino::ROOT, "e"), (Ino::ROOT, "one")] {
            assert!(!in_work(&dir, "numbers").is_empty());
            fs.unlink(parent, name(text)).unwrap();
        }
        let left = [in_work(&dir, "numbers"), in_work(&dir, "links")];
        assert_eq!(left, [vec![], vec![]] as [Vec<std::path::PathBuf>; 2], "known: {known}");
    }
}

#[test]
fn what_has_another_name_keeps_its_number_when_a_crash_is_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    let (fs, one) = with_numbered_symlink(&dir);
    drop(fs);
    // As after a crash in the middle of link(2).
    std::fs::hard_link(dir.path().join("upper/one"), dir.path().join("work/tmp/1f")).unwrap();
    let (fs, again) = with_numbered_symlink(&dir);
    assert_eq!((again, in_work(&dir, "tmp").len()), (one, 0));
    assert_eq!(fs.getattr(one).unwrap().nlink, 1);
}

#[test]
fn a_redirect_out_of_the_layers_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, Form::Found, OwnerView::Image);
    let end = |text| End { parent: Ino::ROOT, name: name(text) };
    at(&fs, "d");
    fs.rename(end("d"), end("moved"), RenameMode::Replace).unwrap();
    drop(fs);
    let upper = Upper::open(&dir.path().join("upper"), &dir.path().join("work")).unwrap();
    let other: Arc<dyn Layer> = Arc::new(FakeLayer::new().file("d", b"no directory"));
    let fs = Fs::new(Union::new(vec![other]), Some(upper), OwnerView::Image).unwrap();
    let error = fs.lookup(Ino::ROOT, name("moved")).unwrap_err();
    assert_eq!(error.errno(), Errno::IO);
    let text = error.to_string();
    assert!(
        text.contains("upper/moved: a redirect to /d,") && text.contains("remove the attribute"),
        "{text}"
    );
}

#[test]
fn reading_an_object_of_a_layer_sets_its_time_of_access_once_a_day() {
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let fs = open(&dir, form, OwnerView::Image);
        let f = at(&fs, "d/f");
        let atime = || fs.getattr(f).unwrap().atime;
        assert_eq!(atime(), MTIME);
        fs.read(f, 0, &mut [0; 10]).unwrap();
        let first = atime();
        assert!(first > MTIME, "{form:?}");
        fs.read(f, 0, &mut [0; 10]).unwrap();
        assert_eq!(atime(), first, "{form:?}");
        fs.setxattr(f, b"user.x", b"1", 0).unwrap();
        assert_eq!((atime(), fs.getattr(f).unwrap().metadata.mtime), (first, MTIME), "copied up, {form:?}");
        let set = Change { atime: Some(SetTime::To(MTIME)), ..Change::default() };
        assert_eq!(fs.setattr(f, USER, &set).unwrap().atime, MTIME, "{form:?}");
    }
}

#[test]
fn writes_and_truncates_of_ordinary_users_clear_setuid() {
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let fs = open(&dir, form, OwnerView::Image);
        let f = at(&fs, "d/f");
        let mode = |mode| Change { mode: Some(mode), ..Change::default() };
        let size = Change { size: Some(3), ..Change::default() };
        fs.write(f, 0, b"y", None).unwrap();
        assert_eq!(fs.getattr(f).unwrap().metadata.mode, 0o6777);
        fs.write(f, 0, b"y", Some(USER)).unwrap();
        assert_eq!(fs.getattr(f).unwrap().metadata.mode, 0o777);
        let member = Caller { gid: 1001, ..USER };
        for (caller, left) in [(member, 0o2744), (USER, 0o744)] {
            fs.setattr(f, caller, &mode(0o6744)).unwrap();
            assert_eq!(fs.setattr(f, caller, &size).unwrap().metadata.mode, left, "setgid without x");
        }
        fs.setattr(f, USER, &mode(0o6755)).unwrap();
        fs.shed_privileges(f, USER).unwrap();
        assert_eq!(fs.getattr(f).unwrap().metadata.mode, 0o755);
    }
}

#[test]
fn every_chown_clears_setuid() {
    for form in FORMS {
        let (same, neither) = (Change { uid: Some(7), ..Change::default() }, Change::default());
        // A request without any change is a chown of the owner's only.
        let owner = Caller { uid: 1000, ..USER };
        for (owners, caller, set) in [
            (OwnerView::Image, owner, neither),
            (OwnerView::Caller { uid: 7, gid: 8 }, USER, same),
            (OwnerView::Image, USER, same),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let fs = open(&dir, form, owners);
            let (f, d) = (at(&fs, "d/f"), at(&fs, "d"));
            assert_eq!(fs.setattr(f, caller, &set).unwrap().metadata.mode, 0o777, "{form:?}");
            fs.setattr(d, USER, &Change { mode: Some(0o6755), ..Change::default() }).unwrap();
            let kept = fs.setattr(d, USER, &set).unwrap().metadata.mode;
            assert_eq!(kept, 0o6755, "{form:?}: of a directory it means something else");
        }
    }
}

#[test]
fn truncate_before_copy_up_keeps_the_rest() {
    for (size, expected) in [(0, 0), (10, 10), (5000, 5000), (9000, 5000)] {
        let dir = tempfile::tempdir().unwrap();
        let fs = open(&dir, Form::Found, OwnerView::Image);
        let f = at(&fs, "d/f");
        let set = Change { size: Some(size), ..Change::default() };
        assert_eq!(fs.setattr(f, USER, &set).unwrap().metadata.size, size);
        let mut buffer = vec![1; 10_000];
        let count = fs.read(f, 0, &mut buffer).unwrap();
        assert_eq!(count as u64, size);
        assert!(buffer[..expected].iter().all(|byte| *byte == b'x'));
        assert!(buffer[expected..count].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn the_umask_applies_and_setgid_directories_hand_their_group_down() {
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let fs = open(&dir, form, OwnerView::Image);
        let made = fs.create(Ino::ROOT, name("x"), &new(What::File, 0o666)).unwrap().metadata;
        assert_eq!((made.mode, made.uid, made.gid), (0o640, 7, 8), "{form:?}");
        let d = at(&fs, "d");
        let set = Change { mode: Some(0o2775), gid: Some(99), ..Change::default() };
        fs.setattr(d, USER, &set).unwrap();
        let made = fs.create(d, name("sub"), &new(What::Dir, 0o777)).unwrap().metadata;
        assert_eq!((made.mode, made.gid), (0o2750, 99), "{form:?}");
        let made = fs.create(d, name("file"), &new(What::File, 0o777)).unwrap().metadata;
        assert_eq!((made.mode, made.gid), (0o750, 99), "{form:?}");
    }
}

#[test]
fn directories_that_are_the_uppers_alone_count_theirs() {
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let fs = open(&dir, form, OwnerView::Image);
        let made = fs.create(Ino::ROOT, name("new"), &new(What::Dir, 0o755)).unwrap();
        let links = |text: &str| fs.getattr(at(&fs, text)).unwrap().nlink;
        let below = std::fs::metadata(dir.path().join("upper/new")).unwrap();
        // btrfs counts no subdirectories.
        let each = u32::from(std::os::unix::fs::MetadataExt::nlink(&below) == 2);
        assert_eq!(made.nlink, 1 + each, "{form:?}");
        fs.create(made.ino, name("sub"), &new(What::Dir, 0o755)).unwrap();
        assert_eq!((links("new"), links("new/sub")), (1 + 2 * each, 1 + each), "{form:?}");
        fs.rmdir(made.ino, name("sub")).unwrap();
        assert_eq!((links("new"), links("d")), (1 + each, 1), "{form:?}");
    }
}

#[test]
fn special_files() {
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let fs = open(&dir, form, OwnerView::Image);
        let specials = [
            ("null", FileKind::CharDevice, DeviceId { major: 1, minor: 3 }),
            // What would be a whiteout is a device like any other.
            ("zero", FileKind::CharDevice, DeviceId { major: 0, minor: 0 }),
            ("disk", FileKind::BlockDevice, DeviceId { major: 8, minor: 300 }),
            ("sock", FileKind::Socket, DeviceId::default()),
            ("pipe", FileKind::Fifo, DeviceId::default()),
        ];
        for (text, kind, rdev) in specials {
            let made = fs.create(Ino::ROOT, name(text), &new(What::Special(kind, rdev), 0o660)).unwrap();
            let found = fs.lookup(Ino::ROOT, name(text)).unwrap().unwrap();
            assert_eq!(found, made, "{form:?} {text}");
            assert_eq!((found.metadata.kind, found.metadata.rdev), (kind, rdev), "{form:?} {text}");
            assert_eq!(found.metadata.mode, 0o640);
            assert_eq!(fs.read(found.ino, 0, &mut [0; 4]).unwrap_err().errno(), Errno::INVAL);
        }
    }
}

#[test]
fn marks_of_a_program_are_content_and_those_of_ours_nobodys_business() {
    if !rustix::process::geteuid().is_root() {
        return; // trusted attributes are set
    }
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let fs = open(&dir, form, OwnerView::Image);
        let (d, f) = (at(&fs, "d"), at(&fs, "d/f"));
        fs.rename(
            End { parent: Ino::ROOT, name: name("d") },
            End { parent: Ino::ROOT, name: name("e") },
            RenameMode::Replace,
        )
        .unwrap();
        assert_eq!(fs.listxattr(d).unwrap(), Vec::<Vec<u8>>::new(), "{form:?}");
        let before = fs.getattr(d).unwrap().metadata;
        for key in ["user.overlay.opaque", "trusted.overlay.redirect", "user.containers.override_stat"] {
            let key = key.as_bytes();
            assert_eq!(fs.getxattr(d, key).unwrap_err().errno(), Errno::NODATA);
            fs.setxattr(d, key, b"y", 0).unwrap();
            assert_eq!(fs.getxattr(d, key).unwrap(), b"y");
            assert_eq!(fs.listxattr(d).unwrap(), [key]);
            // It hides, redirects and describes nothing.
            assert_eq!(at(&fs, "e/f"), f);
            assert_eq!(fs.getattr(d).unwrap().metadata, before);
            fs.removexattr(d, key).unwrap();
            assert_eq!(fs.removexattr(d, key).unwrap_err().errno(), Errno::NODATA);
        }
        assert_eq!(fs.setxattr(d, b"user.x", b"1", 2).unwrap_err().errno(), Errno::NODATA, "XATTR_REPLACE");
        fs.setxattr(d, b"user.x", b"1", 1).unwrap();
        assert_eq!(fs.setxattr(d, b"user.x", b"1", 1).unwrap_err().errno(), Errno::EXIST, "XATTR_CREATE");
    }
}

#[test]
fn one_user_sees_everything_as_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, Form::Found, OwnerView::Caller { uid: 7, gid: 8 });
    let f = at(&fs, "d/f");
    let owner = |ino| fs.getattr(ino).map(|attr| (attr.metadata.uid, attr.metadata.gid)).unwrap();
    let chown = |uid| fs.setattr(f, USER, &Change { uid: Some(uid), ..Change::default() });
    assert_eq!(owner(f), (7, 8));
    chown(7).unwrap();
    assert_eq!(chown(0).unwrap_err().errno(), Errno::PERM);
    let made = fs.create(Ino::ROOT, name("x"), &new(What::File, 0o666)).unwrap().ino;
    assert_eq!(owner(made), (7, 8));
    drop(fs);
    let fs = open(&dir, Form::Found, OwnerView::Image);
    let stored = fs.getattr(at(&fs, "x")).unwrap().metadata;
    assert_eq!((stored.uid, stored.gid), (0, 0), "in the image's terms that user is root");
    assert_eq!(fs.getattr(at(&fs, "d/f")).unwrap().metadata.uid, 1000);
}

#[test]
fn without_an_upper_nothing_changes() {
    let fs = Fs::new(Union::new(vec![Arc::new(layer()) as Arc<dyn Layer>]), None, OwnerView::Image).unwrap();
    let (d, f) = (at(&fs, "d"), at(&fs, "d/f"));
    let ends = (End { parent: d, name: name("f") }, End { parent: d, name: name("h") });
    let refused = [
        fs.write(f, 0, b"y", None).unwrap_err(),
        fs.unlink(d, name("f")).unwrap_err(),
        fs.rmdir(Ino::ROOT, name("d")).unwrap_err(),
        fs.create(d, name("x"), &new(What::File, 0o644)).unwrap_err(),
        fs.link(f, d, name("h")).unwrap_err(),
        fs.rename(ends.0, ends.1, RenameMode::Replace).unwrap_err(),
        fs.setattr(f, USER, &Change { mode: Some(0), ..Change::default() }).unwrap_err(),
        fs.setxattr(f, b"user.x", b"", 0).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.errno(), Errno::ROFS);
    }
    assert_eq!(fs.read(f, 4990, &mut [0; 100]).unwrap(), 10);
    assert_eq!(fs.statfs().unwrap().blocks, 0);
}

#[test]
fn data_holes_and_copies() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, Form::Found, OwnerView::Image);
    let (f, g) = (at(&fs, "d/f"), at(&fs, "g"));
    assert_eq!(fs.seek(f, Seek::Data(10)).unwrap(), 10);
    assert_eq!(fs.seek(f, Seek::Hole(10)).unwrap(), 5000);
    assert_eq!(fs.seek(f, Seek::Data(5000)).unwrap_err().errno(), Errno::NXIO);
    // A source that is in a layer is for the kernel to read.
    assert_eq!(fs.copy_file_range((f, 0), (g, 0), 10).unwrap_err().errno(), Errno::OPNOTSUPP);
    fs.write(f, 1 << 20, b"end", None).unwrap();
    assert_eq!(fs.seek(f, Seek::Data(500_000)).unwrap(), 1 << 20);
    assert_eq!(fs.copy_file_range((f, 1 << 20), (g, 2), 3).unwrap(), 3);
    let mut buffer = [0; 10];
    let count = fs.read(g, 0, &mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"otend");
    fs.fallocate(g, 0, 0, 100).unwrap();
    assert_eq!(fs.getattr(g).unwrap().metadata.size, 100);
    fs.fsync(g, false).and_then(|()| fs.fsync_dir(Ino::ROOT)).unwrap();
}

#[test]
fn wrong_kinds_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, Form::Found, OwnerView::Image);
    let (d, f, l) = (at(&fs, "d"), at(&fs, "d/f"), at(&fs, "d/l"));
    assert_eq!(fs.lookup(f, name("x")).unwrap_err().errno(), Errno::NOTDIR);
    assert_eq!(fs.read(d, 0, &mut [0]).unwrap_err().errno(), Errno::ISDIR);
    assert_eq!(fs.read_link(f).unwrap_err().errno(), Errno::INVAL);
    assert_eq!(fs.read_link(l).unwrap(), b"target");
    assert_eq!(fs.link(d, Ino::ROOT, name("x")).unwrap_err().errno(), Errno::PERM);
    let size = Change { size: Some(0), ..Change::default() };
    assert_eq!(fs.setattr(d, USER, &size).unwrap_err().errno(), Errno::ISDIR);
    assert_eq!(fs.getattr(Ino(12345)).unwrap_err().errno(), Errno::STALE);
}

#[test]
fn a_rename_that_leaves_a_device_changes_both_directories() {
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let layer = FakeLayer::new().implied("c").leaf("c/c/b", FileKind::Fifo, 0o644, b"").dir("d", 0o755);
        let upper = Upper::open(&dir.path().join("upper"), &dir.path().join("work")).unwrap().in_form(form);
        let union = Union::new(vec![Arc::new(layer) as Arc<dyn Layer>]);
        let fs = Fs::new(union, Some(upper), OwnerView::Image).unwrap();
        let (c, d) = (at(&fs, "c"), at(&fs, "d"));
        at(&fs, "c/c/b");
        let setgid = Change { mode: Some(0o2755), gid: Some(42), ..Change::default() };
        fs.setattr(c, USER, &setgid).unwrap();
        // Version 2; rwx for the owner, user 7, the group, the mask; nothing for others (acl(5)).
        let entries: [(u16, u16, u32); 5] =
            [(1, 7, u32::MAX), (2, 7, 7), (4, 7, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)];
        let entries = entries.map(|(tag, allowed, id)| {
            [&tag.to_le_bytes()[..], &allowed.to_le_bytes(), &id.to_le_bytes()].concat()
        });
        let acl = [&2_u32.to_le_bytes()[..], &entries.concat()].concat();
        fs.setxattr(c, b"system.posix_acl_default", &acl, 0).unwrap();
        let from = End { parent: c, name: name("c") };
        fs.rename(from, End { parent: d, name: name("x") }, RenameMode::LeaveDevice(USER)).unwrap();
        for dir in [c, d] {
            assert!(fs.getattr(dir).unwrap().metadata.mtime > MTIME, "{form:?}");
        }
        let left = fs.lookup(c, name("c")).unwrap().unwrap().metadata;
        assert_eq!((left.kind, left.rdev), (FileKind::CharDevice, DeviceId::default()), "{form:?}");
        assert_eq!(left.gid, 42, "{form:?}: the group of a setgid directory");
        let left = at(&fs, "c/c");
        assert!(fs.getxattr(left, b"system.posix_acl_access").is_ok(), "{form:?}: the ACL of its directory");
    }
}

#[test]
fn acls_are_mapped_both_ways() {
    if !rustix::process::geteuid().is_root() {
        return; // files are given away
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let ids =
        || IdView { ranges: vec![IdRange { stored: 0, shown: 1000, count: 50 }], overflow: 99, squash: None };
    let fs = open(&dir, Form::Found, OwnerView::Mapped { uids: ids(), gids: ids() });
    let acl = |user: u32, group: u32| {
        let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[4, 0], &id.to_le_bytes()].concat();
        let entries = [(1, u32::MAX), (2, user), (4, u32::MAX), (8, group), (16, u32::MAX), (32, u32::MAX)];
        let entries = entries.map(|(tag, id)| entry(tag, id)).concat();
        [&2_u32.to_le_bytes()[..], &entries].concat()
    };
    let (d, f) = (at(&fs, "d"), at(&fs, "d/f"));
    for (ino, path, key) in [(f, "d/f", "system.posix_acl_access"), (d, "d", "system.posix_acl_default")] {
        fs.setxattr(ino, key.as_bytes(), &acl(1007, 1008), 0).unwrap();
        assert_eq!(fs.getxattr(ino, key.as_bytes()).unwrap(), acl(1007, 1008), "{key}");
        let mut below = [0; 200];
        let path = dir.path().join("upper").join(path);
        let length = rustix::fs::getxattr(&path, key, &mut below[..]).unwrap();
        assert_eq!(below[..length], acl(7, 8), "{key}: as it is stored");
        let unknown = fs.setxattr(ino, key.as_bytes(), &acl(1007, 7), 0).unwrap_err();
        assert_eq!(unknown.errno(), Errno::INVAL);
        rustix::fs::setxattr(&path, key, &acl(7, 50), rustix::fs::XattrFlags::empty()).unwrap();
        assert_eq!(fs.getxattr(ino, key.as_bytes()).unwrap(), acl(1007, 99), "{key}");
    }
    // What is inherited is what is stored.
    let own = fs.create(d, name("own"), &new(What::File, 0o666)).unwrap().ino;
    assert_eq!(fs.getxattr(own, b"system.posix_acl_access").unwrap(), acl(1007, 99));
}

/// A device without a number would be a whiteout: a file that says so stands in for it.
#[test]
fn the_mode_of_a_stand_in_and_its_acl_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, Form::Found, OwnerView::Image);
    let what = What::Special(FileKind::CharDevice, DeviceId::default());
    let device =
        fs.create(Ino::ROOT, name("device"), &New { what, mode: 0, umask: 0, caller: USER }).unwrap().ino;
    let acl = |mode: u16| {
        let entry =
            |tag: u8, bits: u16, id: u32| [[tag, 0, bits.to_le_bytes()[0] & 7, 0], id.to_le_bytes()].concat();
        let (owner, mask, others) =
            (entry(1, mode >> 6, u32::MAX), entry(16, mode >> 3, u32::MAX), entry(32, mode, u32::MAX));
        [vec![2, 0, 0, 0], owner, entry(2, 2, 1000), entry(4, 5, u32::MAX), mask, others].concat()
    };
    let mode = || fs.getattr(device).unwrap().metadata.mode;
    let key = posix_acl::ACCESS;
    fs.setxattr(device, key, &acl(0o463), 0).unwrap();
    assert_eq!((mode(), fs.getxattr(device, key).unwrap()), (0o463, acl(0o463)));
    fs.setattr(device, USER, &Change { mode: Some(0o4016), ..Change::default() }).unwrap();
    assert_eq!((mode(), fs.getxattr(device, key).unwrap()), (0o4016, acl(0o016)));
    fs.removexattr(device, key).unwrap();
    assert_eq!(mode(), 0o4016);
}

/// chown(2) with both ids -1, as ext4 has it; nothing else asks to change nothing of a fifo.
#[test]
fn a_chown_to_nobody_takes_privileges_of_a_fifo() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, Form::Found, OwnerView::Image);
    let what = What::Special(FileKind::Fifo, DeviceId::default());
    let fifo =
        fs.create(Ino::ROOT, name("fifo"), &New { what, mode: 0, umask: 0, caller: USER }).unwrap().ino;
    fs.setattr(fifo, USER, &Change { mode: Some(0o6755), ..Change::default() }).unwrap();
    let stranger = Caller { uid: 9, ..USER };
    assert_eq!(fs.setattr(fifo, stranger, &Change::default()).unwrap_err().errno(), Errno::PERM);
    assert_eq!(fs.setattr(fifo, USER, &Change::default()).unwrap().metadata.mode, 0o755);
    fs.setattr(fifo, stranger, &Change::default()).unwrap();
}

/// An ACL (acl(5)) that gives `group` to the owning group, in the form of its extended attribute.
fn acl(group: u16) -> Vec<u8> {
    let entries = [(1_u16, 7_u16), (4, group), (0x20, 0)];
    let entries = entries.iter().flat_map(|(tag, bits)| {
        [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &u32::MAX.to_le_bytes()].concat()
    });
    2_u32.to_le_bytes().into_iter().chain(entries).collect()
}

#[test]
fn what_is_known_of_an_object_ends_with_its_changes() {
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let fs = open(&dir, form, OwnerView::Image);
        let mode = |ino| fs.getattr(ino).unwrap().metadata.mode;
        let place = fs.create(Ino::ROOT, name("place"), &new(What::Dir, 0o755)).unwrap().ino;
        let first = fs.create(place, name("first"), &new(What::File, 0o666)).unwrap().ino;
        assert_eq!((mode(place), mode(first)), (0o750, 0o640), "{form:?}");

        fs.setxattr(place, posix_acl::DEFAULT, &acl(6), 0).unwrap();
        let second = fs.create(place, name("second"), &new(What::File, 0o666)).unwrap().ino;
        assert_eq!(mode(second), 0o660, "{form:?}: the default ACL counts from now on");
        fs.removexattr(place, posix_acl::DEFAULT).unwrap();
        fs.setattr(place, USER, &Change { mode: Some(0o2700), ..Change::default() }).unwrap();
        fs.setattr(
            place,
            Caller { uid: 0, gid: 0, thread: 0 },
            &Change { gid: Some(77), ..Change::default() },
        )
        .unwrap();
        let third = fs.create(place, name("third"), &new(What::File, 0o666)).unwrap();
        assert_eq!((third.metadata.mode, third.metadata.gid), (0o640, 77), "{form:?}");

        const CAPABILITY: &[u8] = b"security.capability";
        let capable = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(fs.getxattr(first, CAPABILITY).is_err());
        fs.setxattr(first, CAPABILITY, &capable, 0).unwrap();
        assert_eq!(fs.getxattr(first, CAPABILITY).unwrap(), capable, "{form:?}");
        fs.write(first, 0, b"x", Some(USER)).unwrap();
        assert!(fs.getxattr(first, CAPABILITY).is_err(), "{form:?}: a write takes it away");
        fs.setattr(first, USER, &Change { mode: Some(0o6755), ..Change::default() }).unwrap();
        fs.write(first, 0, b"x", Some(USER)).unwrap();
        assert_eq!(mode(first), 0o755, "{form:?}: a write takes setuid and setgid away");
        fs.setattr(first, USER, &Change { mode: Some(0o6755), ..Change::default() }).unwrap();
        let nobody = fs.setattr(first, USER, &Change::default()).unwrap();
        assert_eq!((nobody.metadata.mode, mode(first)), (0o755, 0o755), "{form:?}: so does chown to nobody");

        fs.setxattr(place, CAPABILITY, &capable, 0).unwrap();
        assert_eq!(fs.getxattr(place, CAPABILITY).unwrap(), capable, "{form:?}: a directory may have it too");
        fs.removexattr(place, CAPABILITY).unwrap();
    }
}

#[test]
fn a_chmod_to_what_is_there_sets_the_time_of_change() {
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let fs = open(&dir, form, OwnerView::Image);
        let file = fs.create(Ino::ROOT, name("file"), &new(What::File, 0o644)).unwrap();
        // Timestamps of a filesystem may be as coarse as its clock.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let same = Change { mode: Some(file.metadata.mode), ..Change::default() };
        let changed = fs.setattr(file.ino, USER, &same).unwrap();
        assert!(changed.ctime > file.ctime, "{form:?}");
    }
}
