//! Objects of the upper that somebody copied with their marks while it was not mounted: two then say that they are the
//! copy of one object of the layers.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use tempfile::TempDir;

use super::world::name;
use crate::fs::{Change as Told, End, Fs, OwnerView, RenameMode};
use crate::layer::Layer;
use crate::layer::fake::FakeLayer;
use crate::model::{FileKind, Ino};
use crate::sys::fault::{self, Fault};
use crate::union::Union;
use crate::upper::Upper;

/// Bytes of the file `big`, each with its place in it.
const BIG: u32 = 400_000;

fn big() -> Vec<u8> {
    (0..BIG).map(|place| u8::try_from(place / 4096 % 251).unwrap()).collect()
}

fn open(dir: &TempDir) -> Fs {
    let layer = FakeLayer::new()
        .file("a", b"of the layer")
        .file("big", &big())
        .file("l", b"with a link")
        .link("m", "l")
        .dir("d", 0o755)
        .file("d/f", b"inside");
    let upper = Upper::open(&dir.path().join("upper"), &dir.path().join("work")).unwrap();
    Fs::new(Union::new(vec![Arc::new(layer) as Arc<dyn Layer>]), Some(upper), OwnerView::Image).unwrap()
}

fn at(fs: &Fs, path: &str) -> Ino {
    path.split('/').fold(Ino::ROOT, |here, part| fs.lookup(here, name(part)).unwrap().unwrap().ino)
}

fn read(fs: &Fs, path: &str) -> String {
    let ino = at(fs, path);
    let mut bytes = vec![0; usize::try_from(fs.getattr(ino).unwrap().metadata.size).unwrap()];
    assert_eq!(fs.read(ino, 0, &mut bytes).unwrap(), bytes.len());
    String::from_utf8(bytes).unwrap()
}

fn write(fs: &Fs, path: &str, text: &str) {
    fs.write(at(fs, path), 0, text.as_bytes(), None).unwrap();
    fs.fsync(at(fs, path), false).unwrap();
}

fn rename(fs: &Fs, from: &str, to: &str) {
    let end = |text| End { parent: Ino::ROOT, name: name(text) };
    fs.rename(end(from), end(to), RenameMode::Replace).unwrap();
}

/// What `cp -a` does: copies with all marks, and keeps links. No process is started: it would hold the locks of the
/// mounts of tests that run meanwhile, for a moment.
fn copy(from: &[PathBuf], to: &Path) {
    let mut links = HashMap::new();
    for from in from {
        let inside = to.join(from.file_name().unwrap());
        copy_one(from, if to.is_dir() { &inside } else { to }, &mut links);
    }
}

fn copy_one(from: &Path, to: &Path, links: &mut HashMap<u64, PathBuf>) {
    let found = from.symlink_metadata().unwrap();
    if found.is_dir() {
        std::fs::create_dir(to).unwrap();
        for inner in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            copy_one(&inner.path(), &to.join(inner.file_name()), links);
        }
    } else if let Some(first) = links.get(&found.ino()) {
        return std::fs::hard_link(first, to).unwrap();
    } else {
        std::fs::copy(from, to).unwrap();
        links.insert(found.ino(), to.to_owned());
    }
    let (mut list, mut value) = (vec![0; 4096], vec![0; 4096]);
    let length = rustix::fs::llistxattr(from, list.as_mut_slice()).unwrap();
    for mark in list[..length].split(|byte| *byte == 0).filter(|mark| !mark.is_empty()) {
        let length = rustix::fs::lgetxattr(from, mark, value.as_mut_slice()).unwrap();
        rustix::fs::lsetxattr(to, mark, &value[..length], rustix::fs::XattrFlags::empty()).unwrap();
    }
}

fn in_upper(dir: &TempDir, path: &str) -> PathBuf {
    dir.path().join("upper").join(path)
}

fn overwrite(dir: &TempDir, path: &str, text: &str) {
    assert!(in_upper(dir, path).exists());
    std::fs::write(in_upper(dir, path), text).unwrap();
}

/// What a listing without attributes, and one with them, says of a name's number.
fn listed(fs: &Fs, path: &str) -> [Ino; 2] {
    [false, true].map(|with_attr| {
        let mut found = None;
        fs.readdir(Ino::ROOT, 0, with_attr, &mut |entry, attr| {
            if entry.name.as_bytes() == path.as_bytes() {
                found = Some(entry.ino);
                assert!(attr.is_none_or(|attr| attr.ino == entry.ino));
            }
            true
        })
        .unwrap();
        found.unwrap()
    })
}

/// Both have an object and a number of their own, whichever is met first, and a change of the second is none of the first.
fn must_be_apart(dir: &TempDir, texts: [(&str, &str); 2]) {
    for texts in [texts, [texts[1], texts[0]]] {
        let fs = open(dir);
        let numbers = texts.map(|(path, text)| {
            let ino = at(&fs, path);
            assert_eq!(read(&fs, path), text, "{path} of {texts:?}");
            ino
        });
        assert_ne!(numbers[0], numbers[1], "{texts:?}");
        for ((path, _), ino) in texts.iter().zip(numbers) {
            assert_eq!(listed(&fs, path), [ino; 2], "{path} of {texts:?}");
            assert_eq!(at(&fs, path), ino);
        }
    }
    let fs = open(dir);
    let [(one, text), (other, _)] = texts;
    assert_eq!(read(&fs, one), text);
    write(&fs, other, "changed");
    assert_eq!(read(&fs, one), text);
    drop(fs);
    let fs = open(dir);
    assert!(read(&fs, other).starts_with("changed"));
    assert_eq!(read(&fs, one), text);
}

#[test]
fn a_copy_of_a_copied_file() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir);
    write(&fs, "a", "OF");
    drop(fs);
    copy(&[in_upper(&dir, "a")], &in_upper(&dir, "b"));
    overwrite(&dir, "b", "another's");
    must_be_apart(&dir, [("a", "OF the layer"), ("b", "another's")]);
}

#[test]
fn a_copy_of_a_file_of_the_link_index() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir);
    write(&fs, "l", "WITH");
    rename(&fs, "m", "n");
    drop(fs);
    copy(&[in_upper(&dir, "n")], &in_upper(&dir, "b"));
    overwrite(&dir, "b", "another's");
    std::fs::hard_link(in_upper(&dir, "b"), in_upper(&dir, "c")).unwrap();
    for other in ["l", "n"] {
        must_be_apart(&dir, [("b", "another's"), (other, "WITH a link")]);
        let fs = open(&dir);
        assert_eq!((at(&fs, "b"), at(&fs, "l")), (at(&fs, "c"), at(&fs, "n")));
        assert_eq!(fs.getattr(at(&fs, "b")).unwrap().nlink, 2);
        drop(fs);
        for (path, text) in [("b", "another's"), ("n", "WITH a link")] {
            overwrite(&dir, path, text);
        }
    }
}

#[test]
fn a_file_of_a_layer_whose_copy_has_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir);
    write(&fs, "a", "OF");
    fs.complete().unwrap();
    drop(fs);
    std::fs::rename(in_upper(&dir, "a"), in_upper(&dir, "b")).unwrap();
    must_be_apart(&dir, [("a", "of the layer"), ("b", "OF the layer")]);
}

#[test]
fn a_file_with_links_of_a_layer_whose_copy_has_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir);
    write(&fs, "l", "WITH");
    fs.complete().unwrap();
    drop(fs);
    std::fs::rename(in_upper(&dir, "l"), in_upper(&dir, "b")).unwrap();
    std::fs::remove_file(in_upper(&dir, "m")).unwrap();
    must_be_apart(&dir, [("b", "WITH a link"), ("l", "with a link")]);
    must_be_apart(&dir, [("b", "WITH a link"), ("m", "with a link")]);
}

#[test]
fn copies_of_directories() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir);
    write(&fs, "d/f", "IN");
    drop(fs);
    copy(&[in_upper(&dir, "d")], &in_upper(&dir, "e"));
    overwrite(&dir, "e/f", "another's");
    // The root's number is marked too.
    let outside = tempfile::tempdir().unwrap();
    copy(&[dir.path().join("upper")], &outside.path().join("root"));
    copy(&[outside.path().join("root")], &dir.path().join("upper"));
    for order in [["d", "e", "root"], ["root", "e", "d"]] {
        let fs = open(&dir);
        let mut numbers = order.map(|path| at(&fs, path)).to_vec();
        numbers.push(Ino::ROOT);
        numbers.sort();
        numbers.dedup();
        assert_eq!(numbers.len(), 4);
        assert_eq!(read(&fs, "d/f"), "INside");
        assert_eq!(read(&fs, "e/f"), "another's");
        assert_eq!(read(&fs, "root/e/f"), "another's");
        assert_eq!(fs.lookup(at(&fs, "e"), name("e")).unwrap(), None);
    }
}

#[test]
fn what_is_told_as_changed() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir);
    write(&fs, "l", "WITH");
    fs.complete().unwrap();
    drop(fs);
    std::fs::create_dir(in_upper(&dir, "x")).unwrap();
    copy(&["l", "m"].map(|path| in_upper(&dir, path)), &in_upper(&dir, "x"));
    overwrite(&dir, "x/l", "another's");
    let fs = open(&dir);
    let mut told = Vec::new();
    fs.changes(&mut |path, change| {
        let path = String::from_utf8(path.to_vec()).unwrap();
        match change {
            Told::Object(object) if object.metadata.kind == FileKind::Regular => {
                let mut text = String::new();
                object.content.read_to_string(&mut text)?;
                told.push(format!("{path}: {text}"));
            }
            Told::Link(to, _) => told.push(format!("{path} -> {}", to.escape_ascii())),
            _ => {}
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(told, ["l: WITH a link", "m -> l", "x/l: another's", "x/m -> x/l"]);
}

#[test]
fn a_copy_may_get_the_inode_number_of_a_twin_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir);
    write(&fs, "a", "OF");
    drop(fs);
    // As ext4 gives numbers again; which of them the copy of "a" gets, nobody knows.
    let twins: Vec<_> = (0..64).map(|number| format!("b{number}")).collect();
    for twin in &twins {
        copy(&[in_upper(&dir, "a")], &in_upper(&dir, twin));
    }
    std::fs::remove_file(in_upper(&dir, "a")).unwrap();
    let fs = open(&dir);
    let number = at(&fs, "a");
    for twin in &twins {
        assert_ne!(at(&fs, twin), number);
    }
    for twin in &twins {
        let ino = at(&fs, twin);
        fs.unlink(Ino::ROOT, name(twin)).unwrap();
        fs.forget(ino, 2);
    }
    write(&fs, "a", "OF");
    assert_eq!((at(&fs, "a"), listed(&fs, "a")), (number, [number; 2]));
    assert_eq!(read(&fs, "a"), "OF the layer");
}

/// What is own is in an attribute, which fdatasync(2) need not flush.
#[test]
fn fdatasync_of_a_twin_that_shares_content_is_an_fsync() {
    let dir = tempfile::tempdir().unwrap();
    let fs = open(&dir);
    write(&fs, "big", "OF");
    drop(fs);
    copy(&[in_upper(&dir, "big")], &in_upper(&dir, "b"));
    let fs = open(&dir);
    let [first, twin] = ["big", "b"].map(|path| at(&fs, path));
    assert!(first.to_lower().is_some() && twin.to_lower().is_none());
    for (path, ino) in [("big", first), ("b", twin)] {
        fs.write(ino, 200_000, b"more", None).unwrap();
        fault::arm(Fault::Error(Errno::IO), fault::NEVER);
        fs.fsync(ino, true).unwrap();
        fault::disarm();
        // Before the mark is set, the data is flushed.
        let calls = fault::calls();
        assert_eq!(calls.last(), Some(&"fsync"), "{path}: {calls:?}");
    }
}

/// An attribute grows with what is own, and programs fill the room that a filesystem has for attributes.
#[test]
fn a_file_becomes_whole_where_there_is_no_room_for_another_attribute() {
    for fill_first in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let fs = open(&dir);
        let ino = at(&fs, "big");
        if !fill_first {
            fs.write(ino, 0, b"OF", None).unwrap();
        }
        for len in [1000, 100, 10, 1] {
            let fill = |serial| fs.setxattr(ino, format!("user.{len}-{serial}").as_bytes(), &vec![7; len], 0);
            assert!((0..500).take_while(|serial| fill(*serial).is_ok()).count() < 500 || len < 1000);
        }
        let mut wanted = big();
        for start in (0..BIG as usize).step_by(20_000) {
            fs.write(ino, start as u64, &[b'x'; 20_000], None).unwrap();
            wanted[start..start + 20_000].fill(b'x');
            fs.fsync(ino, true).unwrap();
            let mut found = vec![0; wanted.len()];
            assert_eq!(fs.read(ino, 0, &mut found).unwrap(), found.len());
            assert!(found == wanted, "{start}");
        }
        drop(fs);
        let fs = open(&dir);
        assert_eq!(at(&fs, "big"), ino);
        let mut found = vec![0; wanted.len()];
        assert_eq!(fs.read(ino, 0, &mut found).unwrap(), found.len());
        assert!(found == wanted);
    }
}
