//! Scripts that overlays got wrong, each in every form of upper. The model says what is right.

use crate::fs::RenameMode::{Exchange, NoReplace, Replace};
use crate::union::tests::unpack::{Dir, Item};
use crate::upper::tests::Form;

use super::ops::Op;
use super::ops::Op::{
    Check, Chmod, Create, Forget, Link, Mkdir, Open, Remount, RemoveAll, Rename, Rmdir, SetXattr,
    SetXattrOpen, Symlink, Truncate, TruncateOpen, Unlink, Write, WriteOpen,
};
use super::world::{Numbers, World};

/// A directory with these paths in it.
pub(super) fn tree(items: &[(&'static str, Item)]) -> Dir {
    let mut root = Dir { mode: 0o755, ..Dir::default() };
    for (path, item) in items {
        let mut here = &mut root;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                here.names.insert(part, item.clone());
                break;
            }
            let inner =
                here.names.entry(part).or_insert_with(|| Item::Dir(Dir { mode: 0o755, ..Dir::default() }));
            let Item::Dir(inner) = inner else { panic!("{path}: {part} is no directory") };
            here = inner;
        }
    }
    root
}

pub(super) fn file(fill: u8) -> Item {
    Item::File { fill, group: None }
}

pub(super) fn linked(group: u8) -> Item {
    Item::File { fill: 2, group: Some(group) }
}

fn p(path: &str) -> String {
    path.to_owned()
}

fn run(layers: &[Dir], script: &[Op]) {
    for form in [Form::Found, Form::NamedWhiteouts, Form::Rootless, Form::RootlessNamed] {
        World::new(layers, form, Numbers::Last).run(script);
        World::new(layers, form, Numbers::Far).run(script);
    }
}

fn base() -> Vec<Dir> {
    vec![
        tree(&[("a/a/a", file(1)), ("a/b", file(2)), ("b/a", file(3)), ("b/b/c", file(1)), ("c", file(2))]),
        tree(&[("a/c", linked(1)), ("b/c", linked(1)), ("a/a/b", linked(1)), ("b/b/a", Item::Symlink(2))]),
    ]
}

#[test]
fn a_directory_that_was_deleted_and_made_again_is_empty() {
    for path in ["a", "a/a", "b/b"] {
        let create = format!("{path}/d");
        run(&base(), &[RemoveAll(p(path), 2), Mkdir(p(path), 0o755), Check, Create(create, 0o644)]);
    }
    // Twice, and by another kind in between.
    let again = [
        RemoveAll(p("a"), 1),
        Create(p("a"), 0o644),
        Unlink(p("a")),
        Mkdir(p("a"), 0o700),
        Remount,
        Rmdir(p("a")),
        Symlink(p("a"), 3),
    ];
    run(&base(), &again);
}

#[test]
fn directories_of_the_layers_are_renamed() {
    let there_and_back = [
        Rename(p("a"), p("d"), Replace),
        Check,
        Rename(p("d/a"), p("b/d"), Replace),
        Remount,
        Rename(p("d"), p("b/d/d"), NoReplace),
        Check,
        Rename(p("b"), p("a"), Replace),
        Write(p("a/d/d/b"), 3, 7),
        Forget,
        Rename(p("a/d/d"), p("b"), Replace),
        Mkdir(p("a/d/d"), 0o755),
    ];
    run(&base(), &there_and_back);
}

#[test]
fn a_directory_replaces_one_that_holds_only_whiteouts() {
    let script = [
        Unlink(p("b/a")),
        Unlink(p("b/c")),
        RemoveAll(p("b/b"), 1),
        Check,
        Rename(p("a"), p("b"), Replace),
        Check,
        Create(p("b/d"), 0o600),
        Rename(p("b"), p("a"), Replace),
    ];
    run(&base(), &script);
}

#[test]
fn objects_of_the_layers_are_exchanged() {
    let script = [
        Rename(p("a"), p("b"), Exchange),
        Check,
        Rename(p("a/b"), p("c"), Exchange),
        Remount,
        Rename(p("a"), p("b/a"), Exchange),
        Rename(p("b/b"), p("c"), Exchange),
        Check,
        Rename(p("b"), p("nothing"), Exchange),
    ];
    run(&base(), &script);
}

#[test]
fn hard_links_of_a_layer_stay_one_file() {
    let script = [
        Write(p("a/c"), 100, 5),
        Check,
        Remount,
        Check,
        Rename(p("b/c"), p("d"), Replace),
        Truncate(p("d"), 10),
        Remount,
        Unlink(p("a/c")),
        Check,
        Rename(p("a"), p("b/d"), Replace),
        Link(p("b/d/a/b"), p("a")),
        Chmod(p("a"), 0o600),
        Remount,
        Unlink(p("b/d/a/b")),
        Unlink(p("d")),
        Check,
        Unlink(p("a")),
    ];
    run(&base(), &script);
    // Names that go before the first write.
    run(
        &base(),
        &[Unlink(p("a/c")), Rename(p("b"), p("d"), Replace), Check, Write(p("a/a/b"), 0, 9), Remount],
    );
}

#[test]
fn unlinked_open_files_live_on() {
    for path in ["a/b", "a/c", "c"] {
        let script = [
            Open(p(path)),
            Unlink(p(path)),
            Forget,
            Check,
            WriteOpen(0, 50, 8),
            TruncateOpen(0, 70),
            SetXattrOpen(0, 0, 2),
            Check,
            Create(p(path), 0o644),
            Check,
        ];
        run(&base(), &script);
        // The same, copied up before, and replaced instead of removed.
        let mut replaced = vec![Write(p(path), 1, 1), Open(p(path)), Create(p("d"), 0o644)];
        replaced.extend([Rename(p("d"), p(path), Replace), Forget, WriteOpen(0, 9, 3), Check]);
        run(&base(), &replaced);
    }
}

#[test]
fn a_name_that_was_removed_is_free() {
    let script = [
        Unlink(p("c")),
        Link(p("a/b"), p("c")),
        Unlink(p("c")),
        Rename(p("a/b"), p("c"), NoReplace),
        Check,
        Rename(p("b/a"), p("c"), NoReplace),
        Mkdir(p("c"), 0o755),
        Link(p("b/a"), p("c")),
        Link(p("a"), p("d")),
        Rmdir(p("a")),
        Rmdir(p("c")),
        Unlink(p("a")),
    ];
    run(&base(), &script);
}

#[test]
fn removal_while_reading_meets_every_name() {
    const NAMES: [&str; 12] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "x", "y"];
    let mut layer = tree(&[]);
    let names = NAMES.iter().map(|name| (*name, file(1))).collect();
    layer.names.insert("a", Item::Dir(Dir { mode: 0o755, names, ..Dir::default() }));
    for batch in [1, 2, 5, 100] {
        run(&[layer.clone()], &[Write(p("a/3"), 0, 1), Create(p("a/z"), 0o644), RemoveAll(p("a"), batch)]);
    }
}

#[test]
fn what_is_copied_up_keeps_everything_else() {
    let script =
        [SetXattr(p("a/a/a"), 1, 2), Chmod(p("a"), 0o1777), Chmod(p("b"), 0o2755), Mkdir(p("b/d"), 0o700)];
    run(&base(), &script);
    run(&base(), &[Chmod(p("c"), 0), Remount, Write(p("c"), 0, 1), Rename(p("c"), p("a/d"), Replace)]);
}
