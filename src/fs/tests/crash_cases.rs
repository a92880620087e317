//! What meets faults: each operation on objects of every origin.

use super::cases::{file, linked, tree};
use super::ops::Op;
use super::ops::Op::{
    Chmod, Chown, Create, Fifo, Forget, Link, Mkdir, Open, Remount, RemoveXattr, Rename, Rmdir, SetXattr,
    SetXattrOpen, Symlink, Truncate, TruncateOpen, Unlink, Write, WriteOpen,
};
use crate::fs::RenameMode::{Exchange, NoReplace, Replace};
use crate::union::tests::unpack::{Dir, Item};

/// An operation, and what was done before.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) setup: Vec<Op>,
    pub(super) op: Op,
}

/// `a/b` and `b/b` are one file; `d` is nowhere.
pub(super) fn layers() -> Vec<Dir> {
    vec![tree(&[
        ("a/a", file(1)),
        ("a/b", linked(1)),
        ("a/c/a", file(0)),
        ("b/b", linked(1)),
        ("b/c", Item::Symlink(2)),
        ("b/d", Item::Fifo),
        ("c", file(1)),
    ])]
}

fn p(path: &str) -> String {
    path.to_owned()
}

fn case<const N: usize>(setup: [Op; N], op: Op) -> Case {
    Case { setup: setup.into(), op }
}

pub(super) fn cases() -> Vec<Case> {
    [creations(), removals(), renames_of_files(), renames_of_directories(), exchanges(), links(), changes()]
        .into_iter()
        .flatten()
        .collect()
}

fn creations() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in ["d", "a/d"] {
        cases.push(case([], Create(p(path), 0o4644)));
        cases.push(case([], Mkdir(p(path), 0o1755)));
        cases.push(case([], Symlink(p(path), 2)));
        cases.push(case([], Fifo(p(path))));
    }
    // Over whiteouts.
    for path in ["c", "a/a"] {
        cases.push(case([Unlink(p(path))], Create(p(path), 0o644)));
        cases.push(case([Unlink(p(path))], Mkdir(p(path), 0o755)));
        cases.push(case([Unlink(p(path))], Symlink(p(path), 1)));
        cases.push(case([Unlink(p(path))], Fifo(p(path))));
    }
    cases.push(case([Unlink(p("a/c/a")), Rmdir(p("a/c"))], Mkdir(p("a/c"), 0o755)));
    cases.push(case([Unlink(p("a/b"))], Create(p("a/b"), 0o644)));
    cases
}

fn removals() -> Vec<Case> {
    vec![
        case([Create(p("d"), 0o644)], Unlink(p("d"))),
        case([Create(p("a/d"), 0o644)], Unlink(p("a/d"))),
        case([Create(p("d"), 0o644), Open(p("d"))], Unlink(p("d"))),
        case([Create(p("d"), 0o644), Link(p("d"), p("a/d"))], Unlink(p("d"))),
        case([], Unlink(p("c"))),
        case([], Unlink(p("a/a"))),
        case([Open(p("c"))], Unlink(p("c"))),
        case([Write(p("c"), 0, 1)], Unlink(p("c"))),
        case([Write(p("c"), 0, 1), Open(p("c"))], Unlink(p("c"))),
        case([Write(p("c"), 0, 1), Remount], Unlink(p("c"))),
        case([], Unlink(p("b/c"))),
        case([Link(p("b/c"), p("d"))], Unlink(p("b/c"))),
        case([], Unlink(p("b/d"))),
        // One of several names.
        case([], Unlink(p("a/b"))),
        case([Unlink(p("b/b"))], Unlink(p("a/b"))),
        case([Write(p("a/b"), 0, 1)], Unlink(p("a/b"))),
        case([Write(p("a/b"), 0, 1), Remount], Unlink(p("b/b"))),
        case([Write(p("a/b"), 0, 1), Unlink(p("b/b"))], Unlink(p("a/b"))),
        case([Write(p("a/b"), 0, 1), Unlink(p("b/b")), Open(p("a/b"))], Unlink(p("a/b"))),
        case([Rename(p("a/b"), p("d"), Replace)], Unlink(p("d"))),
        case([Rename(p("a/b"), p("d"), Replace), Unlink(p("b/b"))], Unlink(p("d"))),
        case([Rename(p("a"), p("d"), Replace)], Unlink(p("d/b"))),
        case([Link(p("a/b"), p("d")), Unlink(p("b/b"))], Unlink(p("a/b"))),
        case([Mkdir(p("d"), 0o755)], Rmdir(p("d"))),
        case([Mkdir(p("d"), 0o755), Open(p("d"))], Rmdir(p("d"))),
        case([Unlink(p("a/c/a"))], Rmdir(p("a/c"))),
        case([Unlink(p("a/c/a")), Open(p("a/c"))], Rmdir(p("a/c"))),
        case([Unlink(p("a/c/a")), Rmdir(p("a/c")), Mkdir(p("a/c"), 0o755)], Rmdir(p("a/c"))),
        case([Rename(p("a/c"), p("d"), Replace), Unlink(p("d/a"))], Rmdir(p("d"))),
    ]
}

fn renames_of_files() -> Vec<Case> {
    let rename = |from, to| Rename(p(from), p(to), Replace);
    let new = || Create(p("d"), 0o644);
    vec![
        case([], rename("c", "d")),
        case([], Rename(p("c"), p("a/d"), NoReplace)),
        case([], rename("b/c", "d")),
        case([], rename("b/d", "d")),
        case([], rename("c", "a/a")),
        case([new()], rename("d", "a/d")),
        case([new()], rename("d", "c")),
        case([new()], rename("c", "d")),
        case([new(), Open(p("d"))], rename("c", "d")),
        case([Open(p("c")), Open(p("a/a"))], rename("c", "a/a")),
        case([Unlink(p("a/a"))], rename("c", "a/a")),
        case([Unlink(p("a/a")), new()], rename("d", "a/a")),
        // One of several names, from there and to there.
        case([], rename("a/b", "d")),
        case([Write(p("a/b"), 0, 1)], rename("a/b", "d")),
        case([Unlink(p("b/b"))], rename("a/b", "d")),
        case([rename("a/b", "d")], rename("d", "a/d")),
        case([], rename("c", "a/b")),
        case([Write(p("a/b"), 0, 1)], rename("c", "a/b")),
        case([Write(p("a/b"), 0, 1), Unlink(p("b/b"))], rename("c", "a/b")),
        case([Write(p("a/b"), 0, 1), Unlink(p("b/b")), Open(p("a/b"))], rename("c", "a/b")),
        case([rename("a/b", "d"), Unlink(p("b/b"))], rename("c", "d")),
    ]
}

fn renames_of_directories() -> Vec<Case> {
    let rename = |from, to| Rename(p(from), p(to), Replace);
    let new = || Mkdir(p("d"), 0o755);
    vec![
        case([], rename("a", "d")),
        case([], Rename(p("a"), p("b/a"), NoReplace)),
        case([Create(p("a/d"), 0o644)], rename("a", "d")),
        case([Unlink(p("a/a")), Write(p("a/b"), 0, 1)], rename("a", "d")),
        case([new()], rename("d", "a/d")),
        case([rename("a", "d")], rename("d", "a")),
        case([rename("a", "d"), Forget], rename("d/c", "b/a")),
        // Onto a whiteout, which may have to stay behind or go.
        case([Unlink(p("c"))], rename("a", "c")),
        case([Unlink(p("c")), new()], rename("d", "c")),
        case([Unlink(p("a/a")), new()], rename("d", "a/a")),
        // Over empty ones, with whiteouts or without.
        case([new()], rename("a", "d")),
        case([new(), Open(p("d"))], rename("a", "d")),
        case([Unlink(p("a/c/a"))], rename("b", "a/c")),
        case([Unlink(p("a/c/a")), Open(p("a/c"))], rename("b", "a/c")),
        case([Unlink(p("a/c/a")), new()], rename("d", "a/c")),
        case([rename("a/c", "d"), Unlink(p("d/a"))], rename("b", "d")),
    ]
}

fn exchanges() -> Vec<Case> {
    let exchange = |from, to| Rename(p(from), p(to), Exchange);
    vec![
        case([], exchange("c", "a/a")),
        case([], exchange("a", "b")),
        case([], exchange("a", "c")),
        case([], exchange("a/b", "c")),
        case([], exchange("a/c", "b")),
        case([Mkdir(p("d"), 0o755)], exchange("d", "a")),
        case([Create(p("d"), 0o644)], exchange("a", "d")),
        case([Write(p("a/b"), 0, 1)], exchange("a/b", "b/c")),
        case([Mkdir(p("d"), 0o755), Mkdir(p("a/d"), 0o755)], exchange("d", "a/d")),
    ]
}

fn links() -> Vec<Case> {
    let link = |from, to| Link(p(from), p(to));
    vec![
        case([], link("c", "d")),
        case([], link("a/a", "b/a")),
        case([], link("b/c", "d")),
        case([], link("b/d", "d")),
        case([], link("a/b", "d")),
        case([Write(p("a/b"), 0, 1)], link("a/b", "d")),
        case([Create(p("d"), 0o644)], link("d", "a/d")),
        case([Unlink(p("c"))], link("a/a", "c")),
        case([Unlink(p("a/b"))], link("b/b", "a/b")),
        case([link("c", "d")], link("d", "a/d")),
    ]
}

fn changes() -> Vec<Case> {
    let mut cases = Vec::new();
    // Of the layers, of several names, copied up before, new, a directory.
    for path in ["c", "a/c/a", "a/b", "a/a", "d", "a"] {
        let setup = || match path {
            "a/a" => vec![Chmod(p(path), 0o6755)],
            "d" => vec![Create(p(path), 0o4755)],
            _ => vec![],
        };
        let mut ops = vec![Chmod(p(path), 0o4711), Chown(p(path), 77), SetXattr(p(path), 1, 3)];
        if path != "a" {
            ops.extend([Write(p(path), 100, 2), Truncate(p(path), 10), Truncate(p(path), 9000)]);
        }
        cases.extend(ops.into_iter().map(|op| Case { setup: setup(), op }));
    }
    cases.push(case([], RemoveXattr(p("c"), 0)));
    cases.push(case([SetXattr(p("c"), 1, 1)], RemoveXattr(p("c"), 1)));
    // Of what has no name any more.
    for path in ["c", "a/b"] {
        cases.push(case([Open(p(path)), Unlink(p(path))], WriteOpen(0, 50, 2)));
        cases.push(case([Open(p(path)), Unlink(p(path))], TruncateOpen(0, 70)));
        cases.push(case([Write(p(path), 0, 1), Open(p(path)), Unlink(p(path))], SetXattrOpen(0, 1, 2)));
    }
    cases
}
