//! Every operation meets a fault at each of its system calls in turn: the call fails, or the process dies there.
//!
//! When the caller was told of an error, the tree is the one before, to those who have it mounted and to the next
//! mount, and the same operation succeeds afterwards. When it was told nothing, the tree is the one after. When the
//! process died, the next mount shows one of the two.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use rustix::io::Errno;

use super::cases::tree;
use super::crash_cases::{self, Case, cases};
use super::ops::{Op, script_upon_faults};
use super::world::{Numbers, World, name};
use super::{config, layers};
use crate::fs::RenameMode::Exchange;
use crate::model::{FileKind, Ino};
use crate::sys::fault::{Fault, NEVER, calls};
use crate::union::tests::unpack::{Dir, Item, Tree};
use crate::upper::tests::Form;

const ERRORS: [Errno; 4] = [Errno::NOSPC, Errno::IO, Errno::DQUOT, Errno::INTR];
/// Failures of one kind are best seen side by side.
const FAILURES_SHOWN: usize = 40;

/// Calls that change nothing. To die at one is to die at the next that does.
pub(super) const READING: [&str; 10] = [
    "openat2",
    "statx",
    "accessat",
    "readlinkat",
    "getxattr",
    "listxattr",
    "fstatvfs",
    "seek",
    "pread",
    "fsync",
];

/// The calls that meet an error; those that change something meet death too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    Every,
    Changing,
}

fn every_call_of_every_case(form: Form, tried: Tried) {
    let mut failures = Vec::new();
    let mut hits = 0;
    for case in cases() {
        let mut try_at = |fault: Fault, at: u32| {
            let met = catch_unwind(AssertUnwindSafe(|| meet(form, &case, fault, at)));
            hits += u32::from(!matches!(met, Ok(None)));
            met.unwrap_or_else(|panic| {
                failures.push(format!("{case:?} {fault:?} at {at}: {}", said(&*panic)));
                Some("?")
            })
        };
        try_at(Fault::Death, NEVER);
        let calls = calls();
        assert!(!calls.is_empty(), "{case:?}: nothing was done");
        for (at, call) in (0..).zip(calls) {
            let changes = !READING.contains(&call);
            // To the code they are all the same, so each call meets one in each form.
            let errno = ERRORS[(at as usize + form as usize) % ERRORS.len()];
            if changes || tried == Tried::Every {
                try_at(Fault::Error(errno), at);
            }
            if changes {
                try_at(Fault::Death, at);
            }
        }
    }
    assert!(hits > 1000, "{form:?}: {hits} calls met a fault");
    let shown = failures[..failures.len().min(FAILURES_SHOWN)].join("\n");
    assert!(failures.is_empty(), "{} failures:\n{shown}", failures.len());
}

pub(super) fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?").to_owned()
}

/// Which call met the fault; `None` when the operation has fewer calls.
fn meet(form: Form, case: &Case, fault: Fault, at: u32) -> Option<&'static str> {
    let mut world = World::in_memory(&crash_cases::layers(), form, Numbers::Last);
    for op in &case.setup {
        world.step(op);
    }
    world.meets = Some((fault, at));
    world.step(&case.op);
    let met = world.met.take()?;
    let result = catch_unwind(AssertUnwindSafe(|| world.stands(case, fault, at, &met.after, met.error)));
    if let Err(panic) = result {
        panic!("{}, then {:?}: {}", met.call, met.error, said(&*panic));
    }
    Some(met.call)
}

impl World {
    fn stands(&mut self, case: &Case, fault: Fault, at: u32, after: &Tree, error: Option<Errno>) {
        match (fault, error) {
            (Fault::Death, error) => self.died(after, error.is_some()),
            (Fault::Error(_), None) => {
                self.check();
                self.remount();
                self.check();
            }
            // One after the other would hide from the second what the first tidies up.
            (Fault::Error(_), Some(_)) if at.is_multiple_of(2) || case.on_open() => self.check(),
            (Fault::Error(_), Some(_)) => {
                self.remount();
                self.check();
            }
        }
        if error.is_some() && self.tree != *after {
            self.step(&case.op);
            self.check();
        }
        self.forget();
    }

    /// Mounts again after the process died, and finds out which of the two states is there.
    pub(super) fn died(&mut self, after: &Tree, may_be_before: bool) {
        self.remount();
        // A removed symlink's record may be left: harmless, see `upper/numbers.rs`, and gone when its place is needed.
        self.stale_numbers = true;
        let there = self.shown();
        if is_that(&there, &self.expected(after)) {
            self.tree = after.clone();
        } else if may_be_before {
            let unprivileged = without_privileges_to_go(&self.tree, after);
            if is_that(&there, &self.expected(&unprivileged)) {
                self.tree = unprivileged;
            }
            let (before, after) = (self.expected(&self.tree), self.expected(after));
            assert!(
                is_that(&there, &before),
                "neither\nbefore {before:?}\nnor after {after:?}\nbut {there:?}"
            );
        }
        self.check();
    }

    /// All that a program sees.
    pub(super) fn shown(&mut self) -> Shown {
        let mut shown = BTreeMap::new();
        let mut walk = vec![(String::new(), Ino::ROOT)];
        while let Some((path, ino)) = walk.pop() {
            let attr = self.fs().getattr(ino).unwrap();
            let metadata = attr.metadata;
            let mut content = Vec::new();
            match metadata.kind {
                FileKind::Regular => {
                    content.resize(usize::try_from(metadata.size).unwrap(), 0);
                    assert_eq!(self.fs().read(ino, 0, &mut content).unwrap(), content.len());
                }
                FileKind::Symlink => content = self.fs().read_link(ino).unwrap(),
                FileKind::Directory => {
                    for (text, ..) in &self.read_dir(ino, 10, false)[2..] {
                        let found = self.fs().lookup(ino, name(text)).unwrap().unwrap();
                        self.hold(found.ino);
                        walk.push((format!("{path}/{text}"), found.ino));
                    }
                }
                _ => {}
            }
            // Of directories it depends on where they are, see `attr.rs`.
            let nlink = if metadata.kind == FileKind::Directory { 0 } else { attr.nlink };
            let owner = self.shown_owner(metadata.kind, (metadata.uid, metadata.gid));
            let xattrs = self.fs().listxattr(ino).unwrap().into_iter();
            let xattrs = xattrs.map(|key| (self.fs().getxattr(ino, &key).unwrap(), key)).collect();
            let looks = describe(metadata.kind, metadata.mode, owner, nlink, &content, xattrs);
            shown.insert(path, (looks, Some(ino)));
        }
        shown
    }

    /// What a program should see.
    pub(super) fn expected(&self, tree: &Tree) -> Shown {
        let mut shown = BTreeMap::new();
        let mut walk = vec![(String::new(), 0)];
        let links = tree.reachable();
        while let Some((path, id)) = walk.pop() {
            let node = &tree.nodes[id];
            walk.extend(node.names.iter().map(|(text, id)| (format!("{path}/{text}"), *id)));
            let nlink = if node.is_dir() { 0 } else { links[&id] };
            let owner = self.shown_owner(node.kind, (node.uid, node.gid));
            let xattrs = node.xattrs.iter().map(|(key, value)| (value.clone(), key.clone())).collect();
            let looks = describe(node.kind, node.mode, owner, nlink, &node.content, xattrs);
            shown.insert(path, (looks, self.inos.get(&id).copied()));
        }
        shown
    }

    fn shown_owner(&self, kind: FileKind, owner: (u32, u32)) -> Option<(u32, u32)> {
        (kind != FileKind::Symlink || !self.form.is_rootless()).then_some(owner)
    }
}

/// What a program sees by its path, and its number, if that is known.
type Shown = BTreeMap<String, (String, Option<Ino>)>;

/// Trees that look alike are told apart by the numbers of what is in them.
pub(super) fn is_that(shown: &Shown, expected: &Shown) -> bool {
    shown.len() == expected.len()
        && shown.iter().zip(expected).all(|((path, (looks, ino)), (that, (that_looks, number)))| {
            (path, looks) == (that, that_looks) && (number.is_none() || ino == number)
        })
}

/// Setuid and setgid go before the content of a file is changed by somebody who may not keep them: in between it would
/// be worse for them to be there than to be gone.
pub(super) fn without_privileges_to_go(before: &Tree, after: &Tree) -> Tree {
    let mut tree = before.clone();
    for (node, after) in tree.nodes.iter_mut().zip(&after.nodes) {
        if node.content.len() != after.content.len() && node.mode & 0o1777 == after.mode & 0o1777 {
            node.mode = after.mode;
        }
    }
    tree
}

fn describe(
    kind: FileKind,
    mode: u16,
    owner: Option<(u32, u32)>,
    nlink: u32,
    content: &[u8],
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
) -> String {
    let sum: u64 = (1..).zip(content).map(|(place, byte)| place * u64::from(*byte)).sum();
    format!("{kind:?} {mode:o} {owner:?} {nlink} {} {sum} {xattrs:?}", content.len())
}

impl Case {
    /// A mount that ends takes the open files with it.
    fn on_open(&self) -> bool {
        matches!(self.op, Op::WriteOpen(..) | Op::TruncateOpen(..) | Op::SetXattrOpen(..))
    }
}

/// Runs a script whose operations meet faults; after a death the next mount goes on.
fn run_upon_faults(world: &mut World, script: &[Op]) {
    for op in script {
        let death = matches!(world.meets, Some((Fault::Death, _)));
        world.step(op);
        if let Some(met) = world.met.take().filter(|_| death) {
            world.died(&met.after, met.error.is_some());
        }
    }
    world.meets = None;
    world.run(&[]);
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn like_the_model_upon_faults(layers in layers(false), script in script_upon_faults()) {
        run_upon_faults(&mut World::in_memory(&layers, Form::Found, Numbers::Last), &script);
    }

    #[test]
    fn like_the_model_upon_faults_with_named_whiteouts(
        layers in layers(false),
        script in script_upon_faults(),
    ) {
        run_upon_faults(&mut World::in_memory(&layers, Form::NamedWhiteouts, Numbers::Last), &script);
    }

    #[test]
    fn like_the_model_upon_faults_rootless(layers in layers(false), script in script_upon_faults()) {
        run_upon_faults(&mut World::in_memory(&layers, Form::Rootless, Numbers::Last), &script);
    }
}

#[test]
fn directories_that_look_alike_and_are_to_swap_places_are_told_apart() {
    let empty = || Item::Dir(Dir { mode: 0o700, ..Dir::default() });
    let layers = [tree(&[("a", empty()), ("c", empty())])];
    let swap = || Op::Rename("a".to_owned(), "c".to_owned(), Exchange);
    for at in 0..40 {
        let mut world = World::in_memory(&layers, Form::Rootless, Numbers::Last);
        run_upon_faults(&mut world, &[Op::Check, Op::Meets(Fault::Death, at), swap()]);
    }
}

#[test]
fn a_flush_that_fails_in_the_background_is_told_once() {
    let path = || "c".to_owned();
    let write = || Op::Write(path(), 700, 4);
    for at in 0..20 {
        let fails = Op::Meets(Fault::Error(Errno::NOSPC), at);
        let mut world = World::in_memory(&crash_cases::layers(), Form::Found, Numbers::Last);
        run_upon_faults(
            &mut world,
            &[write(), fails, Op::Settle, Op::Sync(path()), write(), Op::Sync(path())],
        );
    }
}

#[test]
fn every_call_may_fail() {
    every_call_of_every_case(Form::Found, Tried::Every);
}

#[test]
fn every_call_may_fail_with_named_whiteouts() {
    every_call_of_every_case(Form::NamedWhiteouts, Tried::Changing);
}

#[test]
fn every_call_may_fail_rootless() {
    every_call_of_every_case(Form::Rootless, Tried::Changing);
}

#[test]
fn every_call_may_fail_rootless_with_named_whiteouts() {
    every_call_of_every_case(Form::RootlessNamed, Tried::Every);
}
