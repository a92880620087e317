//! Operations, by path, on filesystem and model alike. What the kernel refuses by itself is not asked.

use std::time::Duration;

use proptest::prelude::*;
use rustix::io::Errno;

use super::content::ALLOCATIONS;
use super::power_cuts::Lost;
use super::world::{World, name};
use crate::fs::{Caller, New};
use crate::fs::{End, Fs, RenameMode};
use crate::model::{DeviceId, FileKind, Ino};
use crate::sys::fault::Fault;
use crate::union::tests::unpack::{NAMES, Node};
use crate::upper::Change;
use crate::upper::What;

/// Who does everything.
pub(super) const CALLER: Caller = Caller { uid: 5, gid: 6, thread: 0 };

#[derive(Clone, Debug)]
pub(super) enum Op {
    Create(String, u16),
    Mkdir(String, u16),
    Symlink(String, u8),
    Fifo(String),
    Link(String, String),
    Unlink(String),
    Rmdir(String),
    Rename(String, String, RenameMode),
    Write(String, u16, u8),
    Truncate(String, u16),
    Chmod(String, u16),
    Chown(String, u32),
    SetXattr(String, u8, u8),
    RemoveXattr(String, u8),
    Open(String),
    WriteOpen(usize, u16, u8),
    TruncateOpen(usize, u16),
    SetXattrOpen(usize, u8, u8),
    Close(usize),
    /// `rm -r`, reading so many names at a time.
    RemoveAll(String, usize),
    /// fallocate(2): mode, offset, length.
    Allocate(String, u32, u16, u16),
    /// copy_file_range(2): from where to where, and how much.
    CopyRange((String, u16), (String, u16), u16),
    SetTimes(String, i64),
    Sync(String),
    /// So many writes to one file by several threads.
    Together(String, usize),
    Forget,
    Remount,
    Check,
    /// Flushes what was written to files that share content.
    Settle,
    /// Copies what is shared.
    Complete,
    /// The power is cut off.
    Cut(Lost),
    /// The next operation meets a failing layer.
    Fault(usize, u64),
    /// A system call of the next operation, counted from 0, meets that.
    Meets(Fault, u32),
}

impl World {
    pub(super) fn run(&mut self, script: &[Op]) {
        for op in script {
            self.step(op);
        }
        self.check();
        self.forget();
        self.remount();
        self.check();
        self.check_as_layers();
    }

    pub(super) fn step(&mut self, op: &Op) {
        if matches!(op, Op::RemoveAll(..) | Op::Remount | Op::Cut(..)) {
            // These are many operations, or none.
            self.meets = None;
        }
        match op {
            Op::Create(path, mode) => self.make(path, What::File, *mode),
            Op::Mkdir(path, mode) => self.make(path, What::Dir, *mode),
            Op::Symlink(path, to) => self.make(path, What::Symlink(&vec![b's'; usize::from(*to) + 1]), 0o777),
            Op::Fifo(path) => self.make(path, What::Special(FileKind::Fifo, DeviceId::default()), 0o640),
            Op::Link(from, to) => self.link(from, to),
            Op::Unlink(path) => self.remove(path, false),
            Op::Rmdir(path) => self.remove(path, true),
            Op::Rename(from, to, mode) => self.rename(from, to, *mode),
            Op::Write(path, offset, fill) => self.on(path, |world, on| world.write(on, *offset, *fill)),
            Op::Truncate(path, size) => self.on(path, |world, on| world.truncate(on, *size)),
            Op::Chmod(path, mode) => self.on(path, |world, on| world.chmod(on, *mode)),
            Op::Chown(path, uid) => self.on(path, |world, on| world.chown(on, *uid)),
            Op::SetXattr(path, key, value) => self.on(path, |world, on| world.set_xattr(on, *key, *value)),
            Op::RemoveXattr(path, key) => self.on(path, |world, on| world.remove_xattr(on, *key)),
            Op::Open(path) => self.on(path, |world, on| world.open.push(on)),
            Op::WriteOpen(which, offset, fill) => {
                self.on_open(*which, |world, on| world.write(on, *offset, *fill));
            }
            Op::TruncateOpen(which, size) => self.on_open(*which, |world, on| world.truncate(on, *size)),
            Op::SetXattrOpen(which, key, value) => {
                self.on_open(*which, |world, on| world.set_xattr(on, *key, *value));
            }
            Op::Close(which) => {
                if !self.open.is_empty() {
                    self.open.remove(which % self.open.len());
                }
            }
            Op::RemoveAll(path, batch) => self.remove_all(path, *batch),
            Op::Allocate(path, mode, offset, len) => {
                self.on(path, |world, on| world.allocate(on, *mode, (*offset).into(), (*len).into()));
            }
            Op::CopyRange((from, at), (to, offset), len) => {
                self.on_both(from, to, |world, from, to| {
                    world.copy_range(from, (*at).into(), to, (*offset).into(), (*len).into());
                });
            }
            Op::SetTimes(path, secs) => self.on(path, |world, on| world.set_times(on, *secs)),
            Op::Sync(path) => self.on(path, World::sync),
            Op::Together(path, writes) => self.on(path, |world, on| world.together(on, *writes)),
            Op::Forget => self.forget(),
            Op::Remount => self.remount(),
            Op::Check => self.check(),
            Op::Settle => self.settle(),
            Op::Cut(lost) => self.power_cut(*lost),
            Op::Complete => self.complete(),
            Op::Fault(layer, n) => self.fault = Some((*layer, *n)),
            Op::Meets(fault, at) => self.meets = Some((*fault, *at)),
        }
    }

    /// Nothing is seen of it. A layer that fails stops it, and it can go on later.
    fn complete(&mut self) {
        let unchanged = Ok(self.tree.clone());
        self.call(unchanged, Fs::complete);
    }

    /// Nothing is seen of it either, and no layer is asked.
    fn settle(&mut self) {
        let unchanged = Ok(self.tree.clone());
        let fault = self.fault.take();
        self.call(unchanged, |fs| fs.settle(Duration::ZERO));
        self.fault = fault;
    }

    fn on(&mut self, path: &str, act: impl FnOnce(&mut Self, (usize, Ino))) {
        let Some(id) = self.tree.at(path) else { return };
        let ino = self.walk(path).unwrap();
        act(self, (id, ino));
    }

    fn on_both(&mut self, one: &str, other: &str, act: impl FnOnce(&mut Self, (usize, Ino), (usize, Ino))) {
        self.on(one, |world, first| world.on(other, |world, second| act(world, first, second)));
    }

    fn on_open(&mut self, which: usize, act: impl FnOnce(&mut Self, (usize, Ino))) {
        if !self.open.is_empty() {
            let on = self.open[which % self.open.len()];
            act(self, on);
        }
    }

    /// The directory of a path, as model and kernel know it.
    fn parent(&mut self, path: &str) -> Option<((usize, String), Ino)> {
        let (dir, last) = self.tree.place(path)?;
        let last = last.to_owned();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        Some(((dir, last), self.walk(parent)?))
    }

    fn make(&mut self, path: &str, what: What<'_>, mode: u16) {
        let Some(((dir, last), parent)) = self.parent(path) else { return };
        let (kind, content) = match what {
            What::File => (FileKind::Regular, &b""[..]),
            What::Dir => (FileKind::Directory, &b""[..]),
            What::Symlink(target) => (FileKind::Symlink, target),
            What::Special(kind, _) => (kind, &b""[..]),
        };
        let node = Node { uid: CALLER.uid, gid: CALLER.gid, ..Node::new(kind, mode & !0o022, content) };
        let node = if kind == FileKind::Symlink { Node { mode: 0o777, ..node } } else { node };
        let expected = self.tree.make((dir, &last), node);
        let umask = if kind == FileKind::Symlink { 0 } else { 0o022 };
        let new = New { what, mode, umask, caller: CALLER };
        let attr = self.call(expected, |fs| fs.create(parent, name(&last), &new));
        if let Some(attr) = attr {
            self.hold(attr.ino);
        }
    }

    fn link(&mut self, from: &str, to: &str) {
        let Some(source) = self.tree.at(from) else { return };
        let Some(((dir, last), parent)) = self.parent(to) else { return };
        let ino = self.walk(from).unwrap();
        let expected = self.tree.link(source, (dir, &last));
        let attr = self.call(expected, |fs| fs.link(ino, parent, name(&last)));
        if let Some(attr) = attr {
            assert_eq!((attr.ino, attr.nlink), (ino, self.tree.nlink(source)), "link {from} {to}");
            self.hold(attr.ino);
        }
    }

    fn remove(&mut self, path: &str, directory: bool) {
        let Some(((dir, last), parent)) = self.parent(path) else { return };
        self.walk(path);
        let expected = self.tree.remove((dir, &last), directory);
        self.call(expected, |fs| match directory {
            true => fs.rmdir(parent, name(&last)),
            false => fs.unlink(parent, name(&last)),
        });
    }

    fn rename(&mut self, from: &str, to: &str, mode: RenameMode) {
        let Some((old, old_parent)) = self.parent(from) else { return };
        let Some((new, new_parent)) = self.parent(to) else { return };
        let (source, target) = (self.tree.at(from), self.tree.at(to));
        let within =
            |inner: usize, outer: Option<usize>| outer.is_some_and(|outer| self.tree.is_within(inner, outer));
        // The kernel sees to these alone: EINVAL, ENOTEMPTY, and two names of one object.
        if within(new.0, source) || within(old.0, target) || (source.is_some() && source == target) {
            return;
        }
        self.walk(from);
        self.walk(to);
        let expected = self.tree.rename((old.0, &old.1), (new.0, &new.1), mode);
        let from = End { parent: old_parent, name: name(&old.1) };
        let to = End { parent: new_parent, name: name(&new.1) };
        self.call(expected, |fs| fs.rename(from, to, mode));
    }

    fn write(&mut self, (id, ino): (usize, Ino), offset: u16, fill: u8) {
        if self.tree.nodes[id].kind == FileKind::Regular {
            let data = vec![fill; 5 + usize::from(fill) * 100];
            let expected = self.tree.write(id, offset.into(), &data);
            self.call(expected, |fs| fs.write(ino, offset.into(), &data, None));
        }
    }

    fn truncate(&mut self, (id, ino): (usize, Ino), size: u16) {
        if self.tree.nodes[id].kind == FileKind::Regular {
            let expected = self.tree.truncate(id, size.into());
            let set = Change { size: Some(size.into()), ..Change::default() };
            self.call(expected, |fs| fs.setattr(ino, CALLER, &set));
        }
    }

    fn chmod(&mut self, (id, ino): (usize, Ino), mode: u16) {
        if self.tree.nodes[id].kind != FileKind::Symlink {
            let set = Change { mode: Some(mode), ..Change::default() };
            let expected = self.tree.chmod(id, mode);
            self.call(expected, |fs| fs.setattr(ino, CALLER, &set));
        }
    }

    fn chown(&mut self, (id, ino): (usize, Ino), uid: u32) {
        if self.tree.nodes[id].kind != FileKind::Symlink {
            let set = Change { uid: Some(uid), ..Change::default() };
            let expected = self.tree.chown(id, uid);
            self.call(expected, |fs| fs.setattr(ino, CALLER, &set));
        }
    }

    fn set_xattr(&mut self, (id, ino): (usize, Ino), key: u8, value: u8) {
        if matches!(self.tree.nodes[id].kind, FileKind::Regular | FileKind::Directory) {
            let value = vec![value; value.into()];
            let expected = self.tree.set_xattr(id, xattr(key), &value);
            self.call(expected, |fs| fs.setxattr(ino, xattr(key), &value, 0));
        }
    }

    fn remove_xattr(&mut self, (id, ino): (usize, Ino), key: u8) {
        if matches!(self.tree.nodes[id].kind, FileKind::Regular | FileKind::Directory) {
            let expected = self.tree.remove_xattr(id, xattr(key));
            self.call(expected, |fs| fs.removexattr(ino, xattr(key)));
        }
    }

    /// Removes while reading: every name must be met once.
    fn remove_all(&mut self, path: &str, batch: usize) {
        let Some(id) = self.tree.at(path).filter(|id| self.tree.nodes[*id].is_dir()) else { return };
        let ino = self.walk(path).unwrap();
        let faulty = self.fault.is_some();
        let mut offset = 0;
        loop {
            let (entries, next) = self.read_some(ino, offset, batch, batch.is_multiple_of(2));
            offset = next;
            for (text, _, kind) in &entries {
                let path = format!("{path}/{text}");
                match kind {
                    _ if matches!(text.as_str(), "." | "..") => {}
                    FileKind::Directory => self.remove_all(&path, batch),
                    _ => self.remove(&path, false),
                }
            }
            if entries.is_empty() {
                break;
            }
        }
        if !faulty {
            assert!(self.tree.nodes[id].names.is_empty() || id == 0, "{path}: not all names were read");
        }
        self.remove(path, true);
    }
}

fn xattr(key: u8) -> &'static [u8] {
    if key == 0 { b"user.a" } else { b"user.b" }
}

fn path() -> impl Strategy<Value = String> {
    let name = || proptest::sample::select(&NAMES[..3]);
    prop_oneof![
        3 => name().prop_map(str::to_owned),
        4 => (name(), name()).prop_map(|(a, b)| format!("{a}/{b}")),
        2 => (name(), name(), name()).prop_map(|(a, b, c)| format!("{a}/{b}/{c}")),
    ]
}

fn mode() -> impl Strategy<Value = u16> {
    proptest::sample::select(&[0o644_u16, 0o755, 0o000, 0o4755, 0o2755, 0o2644, 0o1777][..])
}

fn rename_mode() -> impl Strategy<Value = RenameMode> {
    prop_oneof![4 => Just(RenameMode::Replace), 1 => Just(RenameMode::NoReplace), 2 => Just(RenameMode::Exchange)]
}

/// A script whose operations meet faults at their system calls.
pub(super) fn script_upon_faults() -> impl Strategy<Value = Vec<Op>> {
    let errors = [Errno::NOSPC, Errno::IO, Errno::DQUOT, Errno::INTR].map(Fault::Error);
    let fault = prop_oneof![1 => Just(Fault::Death), 1 => proptest::sample::select(errors.to_vec())];
    let meets = prop_oneof![2 => 0..12_u32, 1 => 12..60_u32];
    let op = prop_oneof![2 => op(), 1 => (fault, meets).prop_map(|(fault, at)| Op::Meets(fault, at))];
    proptest::collection::vec(op, 1..40)
}

fn content_op() -> impl Strategy<Value = Op> {
    let place = || 0..13_000_u16;
    let mode = proptest::sample::select(&ALLOCATIONS[..]);
    prop_oneof![
        3 => (path(), mode, place(), place()).prop_map(|(path, mode, at, len)| Op::Allocate(path, mode, at, len)),
        3 => ((path(), place()), (path(), place()), place()).prop_map(|(from, to, len)| Op::CopyRange(from, to, len)),
        1 => (path(), -2_147_483_647..9_000_000_000_i64).prop_map(|(path, secs)| Op::SetTimes(path, secs)),
        1 => path().prop_map(Op::Sync),
        1 => (path(), 1..20_usize).prop_map(|(path, writes)| Op::Together(path, writes)),
    ]
}

/// A script in the middle of whose operations, or between them, the power is cut off.
pub(super) fn script_with_power_cuts() -> impl Strategy<Value = Vec<Op>> {
    let alone = op().prop_filter("the journal is this thread's", |op| !matches!(op, Op::Together(..)));
    let at = prop_oneof![2 => 0..12_u32, 1 => 12..60_u32];
    let lost = || proptest::sample::select(&[Lost::All, Lost::Odd, Lost::Even][..]);
    let op = prop_oneof![
        8 => alone,
        2 => (path(), 0..9000_u16, 0..9_u8).prop_map(|(path, at, fill)| Op::Write(path, at, fill)),
        2 => path().prop_map(Op::Sync),
        2 => at.prop_map(|at| Op::Meets(Fault::Death, at)),
        1 => lost().prop_map(Op::Cut),
    ];
    proptest::collection::vec(op, 1..40)
}

pub(super) fn script(faults: bool) -> impl Strategy<Value = Vec<Op>> {
    let op = match faults {
        true => {
            prop_oneof![3 => op(), 1 => (0..3_usize, 1..12_u64).prop_map(|(at, n)| Op::Fault(at, n))].boxed()
        }
        false => op().boxed(),
    };
    proptest::collection::vec(op, 1..30)
}

fn op() -> impl Strategy<Value = Op> {
    let any_open = 0..3_usize;
    prop_oneof![
        3 => (path(), mode()).prop_map(|(path, mode)| Op::Create(path, mode)),
        3 => (path(), mode()).prop_map(|(path, mode)| Op::Mkdir(path, mode)),
        1 => (path(), 0..3_u8).prop_map(|(path, to)| Op::Symlink(path, to)),
        1 => path().prop_map(Op::Fifo),
        3 => (path(), path()).prop_map(|(from, to)| Op::Link(from, to)),
        4 => path().prop_map(Op::Unlink),
        3 => path().prop_map(Op::Rmdir),
        9 => (path(), path(), rename_mode()).prop_map(|(from, to, mode)| Op::Rename(from, to, mode)),
        3 => (path(), 0..9000_u16, 0..9_u8).prop_map(|(path, at, fill)| Op::Write(path, at, fill)),
        2 => (path(), 0..9000_u16).prop_map(|(path, size)| Op::Truncate(path, size)),
        2 => (path(), mode()).prop_map(|(path, mode)| Op::Chmod(path, mode)),
        1 => (path(), 0..9_u32).prop_map(|(path, uid)| Op::Chown(path, uid)),
        2 => (path(), 0..2_u8, 0..3_u8).prop_map(|(path, key, value)| Op::SetXattr(path, key, value)),
        1 => (path(), 0..2_u8).prop_map(|(path, key)| Op::RemoveXattr(path, key)),
        3 => path().prop_map(Op::Open),
        2 => (any_open.clone(), 0..9000_u16, 0..9_u8).prop_map(|(on, at, fill)| Op::WriteOpen(on, at, fill)),
        1 => (any_open.clone(), 0..9000_u16).prop_map(|(on, size)| Op::TruncateOpen(on, size)),
        1 => (any_open.clone(), 0..2_u8, 0..3_u8).prop_map(|(on, key, value)| Op::SetXattrOpen(on, key, value)),
        1 => any_open.prop_map(Op::Close),
        2 => (path(), 1..4_usize).prop_map(|(path, batch)| Op::RemoveAll(path, batch)),
        4 => content_op(),
        2 => Just(Op::Forget),
        2 => Just(Op::Remount),
        3 => Just(Op::Check),
        2 => Just(Op::Settle),
        1 => Just(Op::Complete),
    ]
}
