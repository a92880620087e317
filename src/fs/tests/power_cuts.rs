//! The power is cut off, in the middle of any operation or between two. Changes of names, attributes and lengths are on
//! the disk in their order; data is where it was flushed, else as it was before (`sys/power.rs`).
//!
//! The next boot shows the tree as it was before the operation or after it. Each byte of a file is one that the file had
//! there when it was last flushed, or since. Zeros are what it had beyond its end, and nowhere else.

use proptest::prelude::*;

use super::crash::{READING, is_that, without_privileges_to_go};
use super::crash_cases;
use super::ops::Op::{
    self, Allocate, Chmod, Complete, CopyRange, Create, Cut, Link, Remount, Rename, Settle, Sync, Truncate,
    Unlink, Write,
};
use super::ops::script_with_power_cuts;
use super::world::{Numbers, World, name};
use super::{config, layers};
use crate::fs::RenameMode::Replace;
use crate::model::{FileKind, Ino};
use crate::sys::fault::{Fault, NEVER, calls};
use crate::sys::power;
use crate::union::tests::unpack::Tree;
use crate::upper::tests::Form;

/// Which sectors of what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    All,
    Odd,
    Even,
}

impl World {
    /// Cuts the power off between two operations.
    pub(super) fn power_cut(&mut self, lost: Lost) {
        let tree = self.tree.clone();
        self.power_cut_in(&tree, false, lost);
    }

    /// Cuts the power off during an operation that leads to `after`.
    pub(super) fn power_cut_in(&mut self, after: &Tree, may_be_before: bool, lost: Lost) {
        self.may_have(after);
        self.restart(|sector| match lost {
            Lost::All => true,
            Lost::Odd => sector % 2 == 1,
            Lost::Even => sector.is_multiple_of(2),
        });
        self.stale_numbers = true;
        let mut candidates = vec![after.clone()];
        if may_be_before {
            candidates.push(self.tree.clone());
            candidates.push(without_privileges_to_go(&self.tree, after));
        }
        let shown = self.shown();
        let mut wrong = Vec::new();
        let found = candidates.into_iter().find_map(|tree| {
            let tree = self.with_contents_found(tree).map_err(|error| wrong.push(error)).ok()?;
            let expected = self.expected(&tree);
            let found = is_that(&shown, &expected);
            if !found {
                wrong.push(format!("expected {expected:?}"));
            }
            found.then_some(tree)
        });
        self.tree = found.unwrap_or_else(|| panic!("{wrong:#?}\nbut {shown:?}"));
        self.contents.clear();
        self.check();
    }

    /// The tree with what its files have; an error when a file has what it never had.
    fn with_contents_found(&mut self, mut tree: Tree) -> Result<Tree, String> {
        let mut walk = vec![(0, Ino::ROOT, String::new())];
        while let Some((id, ino, path)) = walk.pop() {
            for (text, child) in tree.nodes[id].names.clone() {
                let path = format!("{path}/{text}");
                // Where the tree has a directory there may be something else.
                let found = self.fs().lookup(ino, name(&text)).map_err(|error| format!("{path}: {error}"))?;
                let attr = found.ok_or_else(|| format!("{path} is missing"))?;
                self.hold(attr.ino);
                if tree.nodes[child].is_dir() {
                    walk.push((child, attr.ino, path));
                } else if attr.metadata.kind == FileKind::Regular {
                    let mut content = vec![0; usize::try_from(attr.metadata.size).unwrap()];
                    assert_eq!(self.fs().read(attr.ino, 0, &mut content).unwrap(), content.len());
                    let had = self.contents.get(&child).cloned();
                    let had = had.unwrap_or_else(|| vec![tree.nodes[child].content.clone()]);
                    is_old_or_new(&content, &had).map_err(|error| format!("{path}: {error}"))?;
                    tree.nodes[child].content = content;
                }
            }
        }
        Ok(tree)
    }
}

fn is_old_or_new(content: &[u8], had: &[Vec<u8>]) -> Result<(), String> {
    if !had.iter().any(|had| had.len() == content.len()) {
        let sizes: Vec<_> = had.iter().map(Vec::len).collect();
        return Err(format!("{} bytes, it had {sizes:?}", content.len()));
    }
    let wrong = (0..content.len())
        .find(|at| !had.iter().any(|had| had.get(*at).copied().unwrap_or(0) == content[*at]));
    wrong.map_or(Ok(()), |at| {
        Err(format!("byte {at} of {} is {}, which it never was", content.len(), content[at]))
    })
}

/// Runs a script; what dies in it is the machine.
fn run_with_power_cuts(world: &mut World, script: &[Op]) {
    power::record();
    for (op, lost) in script.iter().zip([Lost::All, Lost::Odd, Lost::All, Lost::Even].into_iter().cycle()) {
        world.step(op);
        if let Some(met) = world.met.take() {
            world.power_cut_in(&met.after, met.error.is_some(), lost);
        }
    }
    world.meets = None;
    world.check();
    world.power_cut(Lost::All);
    power::forget();
    world.run(&[]);
}

fn p(path: &str) -> String {
    path.to_owned()
}

/// What is done before, and then. `c`, `a/a` and `a/b`, which is `b/b` too, are files of a layer, 3000 and 6000 bytes long.
fn cases() -> Vec<(Vec<Op>, Op)> {
    const PUNCH: u32 = 3;
    const ZERO: u32 = 16;
    let synced = |path: &str| vec![Write(p(path), 700, 4), Sync(p(path))];
    let mut cases = Vec::new();
    for path in ["c", "a/b"] {
        let unsynced = vec![Write(p(path), 700, 4), Write(p(path), 2000, 5)];
        let both = [synced(path), unsynced.clone()].concat();
        for before in [vec![], synced(path), unsynced, both] {
            for op in [
                Write(p(path), 1000, 2),
                Write(p(path), 10, 8),
                Write(p(path), 5900, 3),
                Truncate(p(path), 1100),
                Truncate(p(path), 9000),
                Allocate(p(path), 0, 500, 9000),
                Allocate(p(path), PUNCH, 500, 900),
                Allocate(p(path), ZERO, 500, 9000),
                Sync(p(path)),
                Settle,
                Complete,
                Chmod(p(path), 0o600),
                Rename(p(path), p("d"), Replace),
                Unlink(p(path)),
                Link(p(path), p("d")),
            ] {
                cases.push((before.clone(), op));
            }
        }
    }
    let copied = CopyRange((p("c"), 300), (p("a/a"), 1000), 2000);
    cases.push((vec![Chmod(p("c"), 0o600), Complete], copied.clone()));
    cases.push((vec![Write(p("c"), 0, 9), Write(p("c"), 900, 9), Write(p("c"), 1800, 9)], copied));
    // A file of the upper alone, and the next boot after a first cut.
    cases.push((vec![Create(p("d"), 0o644), Write(p("d"), 0, 9), Sync(p("d"))], Write(p("d"), 300, 9)));
    let cut = [synced("c"), vec![Write(p("c"), 2000, 5), Cut(Lost::All), Write(p("c"), 1990, 1)]].concat();
    for op in [Write(p("c"), 2100, 3), Sync(p("c")), Settle, Complete, Remount] {
        cases.push((cut.clone(), op));
    }
    // What comes before the new file takes the old one's name is for programs to flush: then it is there.
    let new = vec![Create(p("d"), 0o644), Write(p("d"), 0, 9), Sync(p("d"))];
    cases.push((new, Rename(p("d"), p("c"), Replace)));
    cases
}

/// Runs every case, cut off behind the last call and at each that changes or flushes something.
fn cut_at_every_call(form: Form, numbers: Numbers, losses: &[Lost]) {
    let mut cuts = 0;
    for (setup, op) in cases() {
        for lost in losses {
            cut_at(form, numbers, (&setup, &op), NEVER, *lost);
            for (at, call) in (0..).zip(calls()) {
                if call == "fsync" || !READING.contains(&call) {
                    cut_at(form, numbers, (&setup, &op), at, *lost);
                    cuts += 1;
                }
            }
        }
    }
    assert!(cuts > 300, "{cuts} cuts");
}

fn cut_at(form: Form, numbers: Numbers, (setup, op): (&[Op], &Op), at: u32, lost: Lost) {
    let mut world = World::in_memory(&crash_cases::layers(), form, numbers);
    power::record();
    setup.iter().for_each(|op| world.step(op));
    world.meets = Some((Fault::Death, at));
    world.step(op);
    match world.met.take() {
        Some(met) => world.power_cut_in(&met.after, met.error.is_some(), lost),
        None => world.power_cut(lost),
    }
    power::forget();
}

#[test]
fn every_call_may_be_the_last() {
    cut_at_every_call(Form::Found, Numbers::Last, &[Lost::All, Lost::Odd]);
}

#[test]
fn every_call_may_be_the_last_rootless() {
    cut_at_every_call(Form::RootlessNamed, Numbers::Last, &[Lost::All]);
}

#[test]
fn every_call_may_be_the_last_where_files_are_copied_whole() {
    cut_at_every_call(Form::Found, Numbers::Far, &[Lost::All]);
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn like_the_model_upon_power_cuts(layers in layers(false), script in script_with_power_cuts()) {
        run_with_power_cuts(&mut World::in_memory(&layers, Form::Found, Numbers::Last), &script);
    }

    #[test]
    fn like_the_model_upon_power_cuts_rootless(layers in layers(false), script in script_with_power_cuts()) {
        run_with_power_cuts(&mut World::in_memory(&layers, Form::RootlessNamed, Numbers::Last), &script);
    }

    #[test]
    fn like_the_model_upon_power_cuts_with_numbers_that_do_not_fit(
        layers in layers(true),
        script in script_with_power_cuts(),
    ) {
        run_with_power_cuts(&mut World::in_memory(&layers, Form::Found, Numbers::Far), &script);
    }
}
