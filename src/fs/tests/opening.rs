//! Opening an upper meets faults at each of its calls: whatever was there before, the next mount opens it and shows the same.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use tempfile::TempDir;

use super::crash::{READING, said};
use super::scenes::{ERRORS, at, differences, layer, rename, shown, times, write};
use super::world::name;
use crate::fs::{Fs, FsError, OwnerView};
use crate::layer::Layer;
use crate::sys::fault::{Fault, arm, disarm};
use crate::union::Union;
use crate::upper::{Upper, UpperOptions};

const ORDINARY: UpperOptions = UpperOptions { volatile: false, record_owners: false, shared: false };
const VOLATILE: UpperOptions = UpperOptions { volatile: true, ..ORDINARY };
const RECORDED: UpperOptions = UpperOptions { record_owners: true, ..ORDINARY };
const SHARED: UpperOptions = UpperOptions { shared: true, ..ORDINARY };

/// What was there before, and how it is opened.
struct Before {
    what: &'static str,
    make: fn(&Path),
    options: UpperOptions,
}

fn open(dir: &Path, options: UpperOptions) -> Result<Fs, FsError> {
    let upper = Upper::open_as(&dir.join("upper"), &dir.join("work"), options)?;
    Fs::new(Union::new(vec![Arc::new(layer()) as Arc<dyn Layer>]), Some(upper), OwnerView::Image)
}

fn used(dir: &Path) {
    let fs = open(dir, ORDINARY).unwrap();
    for change in [write("d/f", 700), write("two", 5)] {
        change(&fs).unwrap();
    }
    times("d/s")(&fs).unwrap();
    rename("d", "moved")(&fs).unwrap();
    at(&fs, "moved/g").unwrap();
    fs.unlink(at(&fs, "moved").unwrap(), name("g")).unwrap();
}

/// Names that are about to go: one still shows, the other does not.
fn killed(dir: &Path) {
    used(dir);
    let indexed: Vec<_> =
        fs::read_dir(dir.join("work/links")).unwrap().map(|one| one.unwrap().file_name()).collect();
    let number = indexed.iter().map(|name| name.to_str().unwrap()).find(|name| !name.contains('-')).unwrap();
    symlink("1 two", dir.join("work/links").join(format!("{number}-going"))).unwrap();
    fs::create_dir_all(dir.join("work/tmp/1/inner")).unwrap();
    fs::write(dir.join("work/tmp/1/inner/file"), "half a copy").unwrap();
    symlink("half a link", dir.join("work/tmp/2")).unwrap();
    symlink("left by a layerfs that was killed while it mounted", dir.join("upper/.layerfs-rename-probe"))
        .unwrap();
}

fn last_name_gone(dir: &Path) {
    used(dir);
    let fs = open(dir, ORDINARY).unwrap();
    let moved = at(&fs, "moved").unwrap();
    at(&fs, "moved/one").and(at(&fs, "two")).unwrap();
    fs.unlink(moved, name("one")).unwrap();
    // It dies when the name has gone, and before that is counted.
    for call in 0.. {
        arm(Fault::Death, call);
        let result = fs.unlink(crate::model::Ino::ROOT, name("two"));
        disarm();
        if result.is_ok() {
            break;
        }
        assert!(call < 100, "{result:?}");
    }
}

fn of_others(dir: &Path) {
    fs::create_dir_all(dir.join("upper/d")).unwrap();
    fs::create_dir_all(dir.join("upper/acl")).unwrap();
    for (path, content) in
        [("d/.wh..wh..opq", ""), ("d/new", "new"), (".wh.two", ""), ("acl/.wh.old", ""), ("with", "")]
    {
        fs::write(dir.join("upper").join(path), content).unwrap();
    }
    let owner = b"7:8:0640";
    let file = dir.join("upper/with");
    rustix::fs::setxattr(&file, "user.fuseoverlayfs.override_stat", owner, XattrFlags::empty()).unwrap();
}

fn of_the_kernel(dir: &Path) {
    fs::create_dir_all(dir.join("upper/d")).unwrap();
    fs::create_dir_all(dir.join("work/work")).unwrap();
    fs::write(dir.join("upper/d/new"), "new").unwrap();
    for namespace in ["trusted", "user"] {
        let mark = format!("{namespace}.overlay.opaque");
        let done = rustix::fs::setxattr(dir.join("upper/d"), &mark, b"y", XattrFlags::empty());
        if done.is_ok() {
            break;
        }
    }
    let whiteout = dir.join("upper/two");
    rustix::fs::mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    fs::set_permissions(dir.join("work/work"), fs::Permissions::from_mode(0o0)).unwrap();
}

fn volatile(dir: &Path) {
    let fs = open(dir, VOLATILE).unwrap();
    write("d/f", 700)(&fs).unwrap();
}

fn all() -> [Before; 11] {
    let before = |what, make, options| Before { what, make, options };
    [
        before("nothing", |_| (), ORDINARY),
        before("nothing, recorded", |_| (), RECORDED),
        before("nothing, volatile", |_| (), VOLATILE),
        before("nothing, shared", |_| (), SHARED),
        before("used", used, ORDINARY),
        before("used, then volatile", used, VOLATILE),
        before("killed", killed, ORDINARY),
        before("killed, of the last name", last_name_gone, ORDINARY),
        before("others'", of_others, ORDINARY),
        before("the kernel's", of_the_kernel, ORDINARY),
        before("volatile", volatile, ORDINARY),
    ]
}

fn made(before: &Before) -> TempDir {
    let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    (before.make)(dir.path());
    dir
}

fn meet(
    before: &Before,
    expected: &BTreeMap<String, String>,
    fault: Fault,
    call: u32,
) -> Option<&'static str> {
    let dir = made(before);
    arm(fault, call);
    let opened = open(dir.path(), before.options);
    let hit = disarm()?;
    let what = format!("{}: {fault:?} at {call}, {hit}: {:?}", before.what, opened.as_ref().map(|_| "open"));
    match (&opened, fault) {
        (Ok(fs), Fault::Error(_)) => {
            assert_eq!(differences(&shown(fs, &[]), expected), [""; 0], "{what}");
        }
        (Err(error), Fault::Error(errno)) => assert_eq!(error.errno(), errno, "{what}: {error}"),
        (_, Fault::Death) => {}
    }
    drop(opened);
    for time in ["the next time", "and again"] {
        let fs = open(dir.path(), before.options).unwrap_or_else(|error| panic!("{what}: {time}: {error}"));
        assert_eq!(differences(&shown(&fs, &[]), expected), [""; 0], "{what}: {time}");
        let left: Vec<_> = fs::read_dir(dir.path().join("work/tmp")).unwrap().collect();
        assert!(left.is_empty(), "{what}: {time}: work/tmp has {left:?}");
    }
    Some(hit)
}

#[test]
fn every_call_of_opening_an_upper_may_fail() {
    let mut failures = Vec::new();
    let mut calls = 0;
    for before in all() {
        let expected = shown(&open(made(&before).path(), before.options).unwrap(), &[]);
        'calls: for call in 0.. {
            for fault in [Fault::Error(ERRORS[call as usize % ERRORS.len()]), Fault::Death] {
                match catch_unwind(AssertUnwindSafe(|| meet(&before, &expected, fault, call))) {
                    Ok(None) => break 'calls,
                    Ok(Some(hit)) if READING.contains(&hit) => break,
                    Ok(Some(_)) => {}
                    Err(panic) => failures.push(said(&*panic)),
                }
            }
            calls += 1;
        }
    }
    assert!(calls > 300, "{calls} calls met a fault");
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures[..failures.len().min(20)].join("\n")
    );
}
