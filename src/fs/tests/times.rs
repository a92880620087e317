//! Directories show the changes that programs made of them, and no others, whatever is copied up inside meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::world::name;
use crate::fs::{Caller, Fs, New, OwnerView};
use crate::layer::Layer;
use crate::layer::fake::FakeLayer;
use crate::model::{Ino, Timestamp};
use crate::union::Union;
use crate::upper::{Change, SetTime, Upper, What};

const FILES: usize = 400;
const THREADS: usize = 4;
const USER: Caller = Caller { uid: 0, gid: 0, thread: 0 };
const LONG_AGO: Timestamp = Timestamp { secs: 1_000_000, nanos: 7 };

/// A directory of a layer with many files, and their numbers.
fn directory(dir: &tempfile::TempDir) -> (Fs, Ino, Vec<Ino>) {
    let layer = (0..FILES)
        .fold(FakeLayer::new().dir("d", 0o755), |layer, number| layer.file(&format!("d/{number}"), b"old"));
    let upper = Upper::open(&dir.path().join("upper"), &dir.path().join("work")).unwrap();
    let union = Union::new(vec![Arc::new(layer) as Arc<dyn Layer>]);
    let fs = Fs::new(union, Some(upper), OwnerView::Image).unwrap();
    let d = fs.lookup(Ino::ROOT, name("d")).unwrap().unwrap().ino;
    let files = (0..FILES).map(|number| fs.lookup(d, name(&number.to_string())).unwrap().unwrap().ino);
    let files = files.collect();
    (fs, d, files)
}

fn set_mtime(fs: &Fs, ino: Ino, time: Timestamp) {
    let change = Change { mtime: Some(SetTime::To(time)), ..Change::default() };
    fs.setattr(ino, USER, &change).unwrap();
}

/// Copies all of them up, by several threads.
fn copy_up(fs: &Fs, files: &[Ino], meanwhile: impl FnOnce(&AtomicBool)) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let copiers: Vec<_> = files
            .chunks(FILES / THREADS)
            .map(|files| scope.spawn(|| files.iter().for_each(|ino| set_mtime(fs, *ino, LONG_AGO))))
            .collect();
        scope.spawn(|| {
            copiers.into_iter().for_each(|copier| copier.join().unwrap());
            done.store(true, Ordering::Relaxed);
        });
        meanwhile(&done);
    });
}

#[test]
fn a_directory_keeps_its_times_when_several_copy_up_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (fs, d, files) = directory(&dir);
    set_mtime(&fs, d, LONG_AGO);
    copy_up(&fs, &files, |done| {
        while !done.load(Ordering::Relaxed) {
            assert_eq!(fs.getattr(d).unwrap().metadata.mtime, LONG_AGO, "while files are copied up");
            assert_eq!(fs.lookup(Ino::ROOT, name("d")).unwrap().unwrap().metadata.mtime, LONG_AGO);
        }
    });
    assert_eq!(fs.getattr(d).unwrap().metadata.mtime, LONG_AGO);
}

#[test]
fn changes_of_a_directory_are_seen_while_others_copy_up_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (fs, d, files) = directory(&dir);
    copy_up(&fs, &files, |done| {
        let mut number = 0;
        while !done.load(Ordering::Relaxed) {
            number += 1;
            let time = Timestamp { secs: number, nanos: 0 };
            set_mtime(&fs, d, time);
            assert_eq!(fs.getattr(d).unwrap().metadata.mtime, time);
            let path = format!("new {number}");
            let new = New { what: What::File, mode: 0o644, umask: 0, caller: USER };
            fs.create(d, name(&path), &new).unwrap();
            assert!(fs.getattr(d).unwrap().metadata.mtime.secs > 1_000_000_000, "after a creation");
            set_mtime(&fs, d, time);
            fs.unlink(d, name(&path)).unwrap();
            assert!(fs.getattr(d).unwrap().metadata.mtime.secs > 1_000_000_000, "after a removal");
        }
    });
}

/// The time of access that the filesystem below has for something of the upper.
fn accessed(dir: &tempfile::TempDir, name: &str) -> std::time::SystemTime {
    std::fs::symlink_metadata(dir.path().join("upper").join(name)).unwrap().accessed().unwrap()
}

#[test]
fn reading_keeps_times_of_access_only_if_wanted() {
    type Quiet = fn(Fs) -> Fs;
    let cases: [(Quiet, _); 3] = [
        (|fs| fs, [true, true]),
        (Fs::without_access_times_of_dirs, [true, false]),
        (Fs::without_access_times, [false, false]),
    ];
    for (quiet, [of_files, of_dirs]) in cases {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (fs, d, files) = directory(&dir);
        let fs = quiet(fs);
        let [layers, own] = [files[0], files[1]];
        let before = fs.getattr(layers).unwrap().atime;
        fs.read(layers, 0, &mut [0; 3]).unwrap();
        assert_eq!(fs.getattr(layers).unwrap().atime != before, of_files, "a layer's file");

        // Older than the last change: the filesystem below sets it if the next read is not quiet.
        fs.write(own, 0, b"own", None).unwrap();
        let change = Change { atime: Some(SetTime::To(LONG_AGO)), ..Change::default() };
        fs.setattr(own, USER, &change).unwrap();
        fs.setattr(d, USER, &change).unwrap();
        let before = [accessed(&dir, "d/1"), accessed(&dir, "d")];
        fs.read(own, 0, &mut [0; 3]).unwrap();
        fs.readdir(d, 0, false, &mut |_, _| true).unwrap();
        let after = [accessed(&dir, "d/1"), accessed(&dir, "d")];
        assert_eq!([0, 1].map(|at| before[at] != after[at]), [of_files, of_dirs], "the upper's");
    }
}
