//! What is bounded whatever the number of files, and what may wait for what.

use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::world::name;
use crate::fs::{Caller, End, Fs, New, OwnerView, RenameMode};
use crate::layer::fake::FakeLayer;
use crate::layer::{DirItem, DirLayer, Entry, Found, Layer, LayerError, Xattr};
use crate::model::{EntryId, Ino, Name, Timestamp};
use crate::union::Union;
use crate::upper::{Change, SetTime, Upper, What};

const FILES: usize = 700;
const USER: Caller = Caller { uid: 0, gid: 0, thread: 0 };

fn open(dir: &tempfile::TempDir, layer: Arc<dyn Layer>) -> Fs {
    let upper = Upper::open(&dir.path().join("upper"), &dir.path().join("work")).unwrap();
    Fs::new(Union::new(vec![layer]), Some(upper), OwnerView::Image).unwrap()
}

fn create(fs: &Fs, path: &str) -> Ino {
    let new = New { what: What::File, mode: 0o644, umask: 0, caller: USER };
    fs.create(Ino::ROOT, name(path), &new).unwrap().ino
}

fn scratch(dir: &tempfile::TempDir) -> Vec<std::fs::DirEntry> {
    std::fs::read_dir(dir.path().join("work/tmp")).unwrap().map(Result::unwrap).collect()
}

#[test]
fn few_descriptors_for_many_open_files_without_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, Arc::new(FakeLayer::new().file("a", b"a").link("b", "a")));
    let linked = fs.lookup(Ino::ROOT, name("a")).unwrap().unwrap().ino;
    fs.write(linked, 0, b"A", None).unwrap();
    let mut files = Vec::new();
    for number in 0..FILES {
        let ino = create(&fs, &format!("f{number}"));
        fs.write(ino, 0, format!("content {number}").as_bytes(), None).unwrap();
        files.push(ino);
    }
    for number in 0..FILES {
        let path = format!("f{number}");
        // Removed, and replaced by another.
        if number % 2 == 0 {
            fs.unlink(Ino::ROOT, name(&path)).unwrap();
        } else {
            let other = create(&fs, "other");
            let end = |name| End { parent: Ino::ROOT, name };
            fs.rename(end(name("other")), end(name(&path)), RenameMode::Replace).unwrap();
            fs.forget(other, 1);
        }
    }
    for path in ["a", "b"] {
        fs.unlink(Ino::ROOT, name(path)).unwrap();
    }
    let held = fs.pins.held_count();
    assert!((200..=300).contains(&held), "{held} descriptors are held");
    assert_eq!(scratch(&dir).len(), FILES + 1 - held);

    for (number, ino) in files.iter().enumerate() {
        let mut buffer = [0; 20];
        let count = fs.read(*ino, 0, &mut buffer).unwrap();
        assert_eq!(&buffer[..count], format!("content {number}").as_bytes());
        fs.write(*ino, 0, b"C", Some(USER)).unwrap();
        let attr = fs.getattr(*ino).unwrap();
        assert_eq!((attr.nlink, attr.metadata.size), (0, count as u64), "{number}");
    }
    assert_eq!(fs.getattr(linked).unwrap().nlink, 0);
    for ino in files {
        fs.forget(ino, 1);
    }
    fs.forget(linked, 1);
    // It was written to.
    fs.settle(Duration::ZERO).unwrap();
    assert_eq!((fs.pins.held_count(), scratch(&dir).len()), (0, 0));
    assert_eq!(std::fs::read_dir(dir.path().join("work/links")).unwrap().count(), 0, "nothing leads there");
}

#[test]
fn a_kept_file_with_a_name_that_nobody_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir, Arc::new(FakeLayer::new()));
    for number in 0..FILES {
        create(&fs, &format!("f{number}"));
        fs.unlink(Ino::ROOT, name(&format!("f{number}"))).unwrap();
    }
    let ino = create(&fs, "one");
    fs.write(ino, 0, b"kept", None).unwrap();
    std::fs::hard_link(dir.path().join("upper/one"), dir.path().join("upper/two")).unwrap();
    fs.unlink(Ino::ROOT, name("one")).unwrap();
    assert_eq!(fs.getattr(ino).unwrap().nlink, 1);
    let again = fs.lookup(Ino::ROOT, name("two")).unwrap().unwrap();
    assert_eq!((again.ino, again.nlink), (ino, 1));
    fs.unlink(Ino::ROOT, name("two")).unwrap();
    let mut buffer = [0; 9];
    assert_eq!((fs.read(ino, 0, &mut buffer).unwrap(), &buffer[..4]), (4, &b"kept"[..]));
    assert_eq!(fs.getattr(ino).unwrap().nlink, 0);
    fs.forget(ino, 2);
    assert!(scratch(&dir).iter().all(|entry| entry.metadata().unwrap().ino() != ino.0));
}

/// A layer that counts what it is asked, and holds up reads of its files until it is told to go on.
#[derive(Debug)]
struct Slow {
    layer: FakeLayer,
    may_read: Mutex<bool>,
    changed: Condvar,
    waiting: Mutex<mpsc::Sender<()>>,
    calls: AtomicUsize,
    /// What was in use when memory was to be given back.
    in_use: Mutex<Vec<Vec<EntryId>>>,
}

impl Slow {
    /// Each read that waits is told to the receiver.
    fn new(layer: FakeLayer) -> (Arc<Self>, mpsc::Receiver<()>) {
        let (sender, waiting) = mpsc::channel();
        let (may_read, changed, waits) = (Mutex::new(false), Condvar::new(), Mutex::new(sender));
        let (calls, in_use) = (AtomicUsize::new(0), Mutex::default());
        (Arc::new(Self { layer, may_read, changed, waiting: waits, calls, in_use }), waiting)
    }

    fn go_on(&self) {
        *self.may_read.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn counted(&self) -> &FakeLayer {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &self.layer
    }
}

impl Layer for Slow {
    fn root(&self) -> EntryId {
        self.layer.root()
    }

    fn is_found_by_number(&self) -> bool {
        self.layer.is_found_by_number()
    }

    fn entry(&self, id: EntryId) -> Result<Entry, LayerError> {
        self.counted().entry(id)
    }

    fn lookup(&self, dir: EntryId, name: Name<'_>) -> Result<Found, LayerError> {
        self.counted().lookup(dir, name)
    }

    fn read_dir(&self, dir: EntryId) -> Result<Vec<DirItem>, LayerError> {
        self.layer.read_dir(dir)
    }

    fn read_link(&self, id: EntryId) -> Result<Vec<u8>, LayerError> {
        self.layer.read_link(id)
    }

    fn xattrs(&self, id: EntryId) -> Result<Vec<Xattr>, LayerError> {
        self.layer.xattrs(id)
    }

    fn read_at(&self, id: EntryId, offset: u64, buffer: &mut [u8]) -> Result<usize, LayerError> {
        self.waiting.lock().unwrap().send(()).unwrap();
        let may_read = self.may_read.lock().unwrap();
        drop(self.changed.wait_while(may_read, |may_read| !*may_read).unwrap());
        self.layer.read_at(id, offset, buffer)
    }

    fn paths(&self, id: EntryId) -> Result<Vec<Box<[u8]>>, LayerError> {
        self.layer.paths(id)
    }

    fn release_memory(&self, in_use: &dyn Fn() -> Vec<EntryId>) {
        self.in_use.lock().unwrap().push(in_use());
    }
}

#[test]
fn nobody_waits_for_the_copy_up_of_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let files =
        FakeLayer::new().file("d/slow", &[b's'; 9000]).file("d/other", b"other").file("d/third", b"3");
    let (layer, waiting) = Slow::new(files);
    let fs = Arc::new(open(&dir, Arc::clone(&layer) as Arc<dyn Layer>));
    let d = fs.lookup(Ino::ROOT, name("d")).unwrap().unwrap().ino;
    let slow = fs.lookup(d, name("slow")).unwrap().unwrap().ino;
    let (done, finished) = mpsc::channel();
    let spawn = |what: Box<dyn FnOnce(&Fs) + Send>| {
        let (fs, done) = (Arc::clone(&fs), done.clone());
        std::thread::spawn(move || {
            what(&fs);
            done.send(()).unwrap();
        })
    };
    let writer = spawn(Box::new(move |fs| assert_eq!(fs.write(slow, 5, b"new", None).unwrap(), 3)));
    waiting.recv_timeout(Duration::from_secs(10)).unwrap();

    // The file's own attributes too, and everything else in its directory.
    let others = spawn(Box::new(move |fs| {
        assert_eq!(fs.getattr(slow).unwrap().metadata.size, 9000);
        assert_eq!(fs.lookup(d, name("slow")).unwrap().unwrap().ino, slow);
        let other = fs.lookup(d, name("other")).unwrap().unwrap().ino;
        fs.setxattr(d, b"user.x", b"1", 0).unwrap();
        fs.unlink(d, name("third")).unwrap();
        let end = |name| End { parent: d, name };
        let new = New { what: What::File, mode: 0o644, umask: 0, caller: USER };
        let made = fs.create(d, name("made"), &new).unwrap().ino;
        fs.write(made, 0, b"made", None).unwrap();
        fs.fsync(made, false).unwrap();
        fs.rename(end(name("made")), end(name("moved")), RenameMode::NoReplace).unwrap();
        let mut names = 0;
        let mut each = |_: &crate::fs::DirEntry, _: Option<&crate::fs::Attr>| {
            names += 1;
            true
        };
        fs.readdir(d, 0, true, &mut each).unwrap();
        assert_eq!(names, 5);
        fs.forget(other, 1);
    }));
    let answered = finished.recv_timeout(Duration::from_secs(20));
    layer.go_on();
    answered.unwrap();
    writer.join().unwrap();
    others.join().unwrap();
    let mut buffer = [0; 9];
    fs.read(slow, 0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"sssssnews");
}

#[test]
fn a_change_of_attributes_while_the_rest_is_copied_is_not_undone() {
    let dir = tempfile::tempdir().unwrap();
    let (layer, waiting) = Slow::new(FakeLayer::new().file("f", &[b's'; 9000]));
    let fs = Arc::new(open(&dir, Arc::clone(&layer) as Arc<dyn Layer>));
    let file = fs.lookup(Ino::ROOT, name("f")).unwrap().unwrap().ino;
    fs.setxattr(file, b"user.x", b"1", 0).unwrap();
    let completing = Arc::clone(&fs);
    let completer = std::thread::spawn(move || completing.complete().unwrap());
    waiting.recv_timeout(Duration::from_secs(10)).unwrap();

    let time = Timestamp { secs: 7, nanos: 0 };
    let change = Change { mode: Some(0o4711), mtime: Some(SetTime::To(time)), ..Change::default() };
    let (changing, (done, changed)) = (Arc::clone(&fs), mpsc::channel());
    let changer = std::thread::spawn(move || {
        changing.setattr(file, USER, &change).unwrap();
        done.send(()).unwrap();
    });
    // It may wait for the copy.
    changed.recv_timeout(Duration::from_millis(200)).ok();
    layer.go_on();
    assert_eq!(completer.join().unwrap().files, 1);
    changer.join().unwrap();
    let metadata = fs.getattr(file).unwrap().metadata;
    assert_eq!((metadata.mode, metadata.mtime), (0o4711, time));
}

#[test]
fn many_names_of_one_object_cost_each_the_same() {
    const NAMES: usize = 400;
    let with_names = |count: usize| {
        let layer = FakeLayer::new().file("d/0", b"content").file("d/other", b"");
        (1..count).fold(layer, |layer, number| layer.link(&format!("d/{number}"), "d/0"))
    };
    let cost = |count: usize| {
        let dir = tempfile::tempdir().unwrap();
        let (layer, _) = Slow::new(with_names(count));
        let fs = open(&dir, Arc::clone(&layer) as Arc<dyn Layer>);
        let d = fs.lookup(Ino::ROOT, name("d")).unwrap().unwrap().ino;
        let at = |number: usize| fs.lookup(d, name(&number.to_string())).unwrap().unwrap();
        // Looked up and forgotten while it is only in the layers, then while it is in the link index.
        for raised in [false, true] {
            if raised {
                fs.setxattr(at(0).ino, b"user.x", b"1", 0).unwrap();
                fs.forget(at(0).ino, 2);
            }
            for number in 0..count {
                let attr = at(number);
                assert_eq!(attr.nlink as usize, count);
                fs.forget(attr.ino, 1);
            }
        }
        // Removed, the kernel having forgotten all but the name, or that too.
        for number in 0..count {
            let attr = at(number);
            assert_eq!(attr.nlink as usize, count - number);
            if number % 2 == 0 {
                fs.forget(attr.ino, 1);
            }
            fs.unlink(d, name(&number.to_string())).unwrap();
            if number % 2 == 1 {
                fs.forget(attr.ino, 1);
            }
        }
        assert_eq!(std::fs::read_dir(dir.path().join("work/links")).unwrap().count(), 0);
        layer.calls.load(Ordering::Relaxed)
    };
    let (few, many) = (cost(NAMES / 4), cost(NAMES));
    assert!(many <= few * 5, "{} names: {few} calls, {NAMES} names: {many} calls", NAMES / 4);
}

#[test]
fn memory_is_given_back_when_those_who_may_use_it_have_ended() {
    let (layer, _) = Slow::new(FakeLayer::new().file("d/a", b"a").file("d/b", b"b"));
    let union = Union::new(vec![Arc::clone(&layer) as Arc<dyn Layer>]);
    let fs = Fs::new(union, None, OwnerView::Image).unwrap();
    let times = || layer.in_use.lock().unwrap().len();
    fs.release_memory();
    assert_eq!(times(), 0, "there is no reason to");
    let operation = fs.using_layers();
    fs.release.want();
    fs.release_memory();
    assert_eq!(times(), 1, "what was told just now stays anyhow");
    fs.release_memory();
    assert_eq!(times(), 1, "what was told to an operation that is under way must stay");
    let next = fs.using_layers();
    drop(operation);
    fs.release_memory();
    assert_eq!(times(), 2, "what was told to the next one was told since");
    drop(next);
    fs.release_memory();
    assert_eq!(times(), 2, "that was all");

    let d = fs.lookup(Ino::ROOT, name("d")).unwrap().unwrap().ino;
    let b = fs.lookup(d, name("b")).unwrap().unwrap().ino;
    fs.release.want();
    fs.release_memory();
    let entries = layer.in_use.lock().unwrap().pop().unwrap();
    let expected = [layer.root(), d.to_lower().unwrap().1, b.to_lower().unwrap().1];
    assert!(expected.iter().all(|entry| entries.contains(entry)) && entries.len() <= 5, "{entries:?}");

    fs.release_memory();
    assert_eq!(times(), 3);

    // Names that were told and never looked up count too.
    for _ in 0..80 {
        fs.release.told(1000);
    }
    fs.forget(b, 1);
    assert_eq!(times(), 4);
}

#[test]
fn what_is_in_use_of_a_plain_directory_is_not_forgotten() {
    const FILES: usize = 9000;
    let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir_all(root.path().join("d/e")).unwrap();
    for number in 0..FILES {
        std::fs::write(root.path().join(format!("d/e/{number}")), number.to_string()).unwrap();
    }
    let fs = open(&dir, Arc::new(DirLayer::open(root.path()).unwrap()));
    let d = fs.lookup(Ino::ROOT, name("d")).unwrap().unwrap().ino;
    let e = fs.lookup(d, name("e")).unwrap().unwrap().ino;
    let at = |number: usize| fs.lookup(e, name(&number.to_string())).unwrap().unwrap().ino;
    let all: Vec<Ino> = (0..FILES).map(at).collect();
    // One is used in the layer, one by the upper's copy that shares its content.
    fs.setxattr(all[2], b"user.x", b"1", 0).unwrap();
    for ino in all.iter().skip(3) {
        fs.forget(*ino, 1);
    }
    for _ in 0..3 {
        fs.release.want();
        fs.release_memory();
    }
    let content = |ino| {
        let mut buffer = [0; 9];
        let count = fs.read(ino, 0, &mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    };
    for (number, ino) in all.iter().enumerate().take(3) {
        assert_eq!(content(*ino), number.to_string());
    }
    for number in [3, FILES - 1] {
        let again = at(number);
        assert_eq!((again, content(again)), (all[number], number.to_string()));
    }
}
