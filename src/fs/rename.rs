//! Rename: check, bring both ends up, publish, update the table.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::caller::Caller;
use super::find::{Found, FoundLower};
use super::node::{Home, LowerPart, Node};
use super::{Fs, FsError, New};
use crate::model::{DeviceId, FileKind, Ino, Name};
use crate::upper::{Moved, Rename, There, What};

/// What renameat2(2) is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Whatever is at the new name goes away.
    Replace,
    /// There must be nothing at the new name.
    NoReplace,
    /// The two swap places.
    Exchange,
    /// As [`Self::Replace`]; a character device 0:0 that belongs to this caller appears at the old name. An overlay
    /// stacked upon this mount asks for that (`RENAME_WHITEOUT`); here the device hides nothing.
    LeaveDevice(Caller),
}

/// One end.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The directory.
    pub parent: Ino,
    /// The name in it.
    pub name: Name<'a>,
}

/// One end, looked at and ready.
struct Ready<'a> {
    end: End<'a>,
    dir: Arc<Node>,
    pinned: Arc<OwnedFd>,
    found: Option<Found>,
    /// The layers have something under the name.
    lower: bool,
    /// What the upper has under the name before anything is brought up.
    there: There,
}

impl Fs {
    /// Renames.
    ///
    /// # Errors
    /// [`FsError`]; then every name leads where it led.
    pub fn rename(&self, from: End<'_>, to: End<'_>, mode: RenameMode) -> Result<(), FsError> {
        self.upper()?.may_be_created(to.name)?;
        let _using = self.using_layers();
        let (from, to) = (self.ready(from)?, self.ready(to)?);
        let source = from.found.as_ref().ok_or(FsError::NotFound)?;
        self.may_rename(source, to.found.as_ref(), mode)?;
        if self.upper()?.is_shared() {
            let moves = if mode == RenameMode::Exchange { vec![&from, &to] } else { vec![&from] };
            for end in moves {
                if self.lower_path(end)?.is_some() {
                    return Err(FsError::CrossDevice);
                }
            }
        }
        self.bring_up(&from)?;
        if mode == RenameMode::Exchange {
            self.bring_up(&to)?;
        }
        let replaces = matches!(mode, RenameMode::Replace | RenameMode::LeaveDevice(_));
        let still = to.found.as_ref().filter(|_| replaces).and_then(|target| self.to_hold_still(target));
        let _still = still.as_ref().map(|node| node.copy_up());
        let to = if still.is_some() { self.ready(to.end)? } else { to };
        let leaving = match (&to.found, mode) {
            (Some(target), RenameMode::Replace | RenameMode::LeaveDevice(_)) => {
                self.hide_all(target)?;
                Some(self.leaving(target, to.end, to.there == There::Object)?)
            }
            _ => None,
        };
        self.publish(&from, &to, mode)?;
        from.dir.touch();
        to.dir.touch();
        if let Some(leaving) = leaving {
            self.left(leaving);
        }
        let (from, source, to, target) = (from.end, source.ino, to.end, to.found.as_ref());
        self.table.move_place(source, (from.parent, from.name), (to.parent, to.name));
        if let (RenameMode::Exchange, Some(target)) = (mode, target) {
            self.table.move_place(target.ino, (to.parent, to.name), (from.parent, from.name));
        }
        Ok(())
    }

    /// Lets an empty directory that gives way do without the whiteouts in it, which go before it does. It is so for
    /// those too who look at it should something fail in between.
    fn hide_all(&self, target: &Found) -> Result<(), FsError> {
        let (Some((object, _)), FoundLower::Dir(lower)) = (&target.upper, &target.lower) else {
            return Ok(());
        };
        if !lower.parts.is_empty() {
            self.upper()?.hide_all(&object.pinned)?;
            if let Some(node) = self.table.get(target.ino) {
                let mut state = node.state();
                state.lower = LowerPart::None;
                state.version += 1;
            }
        }
        Ok(())
    }

    fn ready<'a>(&self, end: End<'a>) -> Result<Ready<'a>, FsError> {
        let dir = self.node(end.parent)?;
        let view = self.view(&dir)?;
        let (found, there) = self.find_there(&view, end.name)?;
        let lower = self.union.lookup(&view.lower, end.name)?.is_some();
        let pinned = self.raise(&dir, 0)?;
        Ok(Ready { end, dir, pinned, found, lower, there })
    }

    fn may_rename(&self, source: &Found, target: Option<&Found>, mode: RenameMode) -> Result<(), FsError> {
        let is_dir = |found: &Found| found.kind == FileKind::Directory;
        match (target, mode) {
            (None, RenameMode::Exchange) => Err(FsError::NotFound),
            (None, _) | (Some(_), RenameMode::Exchange) => Ok(()),
            (Some(_), RenameMode::NoReplace) => Err(FsError::Exists),
            (Some(target), RenameMode::Replace | RenameMode::LeaveDevice(_)) => {
                match (is_dir(source), is_dir(target)) {
                    (true, false) => Err(FsError::NotADirectory),
                    (false, true) => Err(FsError::IsADirectory),
                    (true, true) => self.must_be_empty(target),
                    (false, false) => Ok(()),
                }
            }
        }
    }

    /// Makes sure that the upper has the object under this very name.
    fn bring_up(&self, ready: &Ready<'_>) -> Result<(), FsError> {
        let Some(found) = &ready.found else { return Err(FsError::NotFound) };
        let node = self.node(found.ino)?;
        self.raise(&node, u64::MAX)?;
        let indexed = node.state().upper.as_ref().is_some_and(|part| part.home == Home::Index);
        if indexed {
            self.name_in_upper(&node, &ready.dir, &ready.pinned, ready.end.name)?;
        }
        Ok(())
    }

    fn publish(&self, from: &Ready<'_>, to: &Ready<'_>, mode: RenameMode) -> Result<(), FsError> {
        let upper = self.upper()?;
        let redirect = self.lower_path(from)?;
        let redirect_back = self.lower_path(to)?;
        let rename = Rename {
            from: self.moved(from)?,
            to: self.moved(to)?,
            redirect: redirect.as_deref(),
            redirect_back: redirect_back.as_deref(),
        };
        let _names = from.dir.names_of_both(&to.dir);
        match mode {
            RenameMode::Replace | RenameMode::NoReplace => upper.rename(&rename)?,
            RenameMode::Exchange => upper.exchange(&rename)?,
            RenameMode::LeaveDevice(caller) => {
                let what = What::Special(FileKind::CharDevice, DeviceId::default());
                let inherited =
                    self.inherited(&from.dir, &from.pinned, &New { what, mode: 0, umask: 0, caller })?;
                upper.rename_leaving_device(&rename, &inherited.fresh(what))?;
            }
        }
        Ok(())
    }

    fn moved<'a>(&self, ready: &'a Ready<'_>) -> Result<Moved<'a>, FsError> {
        let there = match ready.there {
            // Unless it has been brought up.
            There::Nothing => self.upper()?.there(&ready.pinned, ready.end.name)?,
            known => known,
        };
        // What stands in for a special file is a regular one there, but a directory is one always.
        let kind = ready.found.as_ref().map(|found| found.kind).filter(|_| there == There::Object);
        let whiteout = there == There::Whiteout;
        Ok(Moved { dir: ready.pinned.as_fd(), name: ready.end.name, kind, whiteout, lower: ready.lower })
    }

    /// Where the layers' part of a directory is.
    fn lower_path(&self, ready: &Ready<'_>) -> Result<Option<Vec<u8>>, FsError> {
        let Some(found) = &ready.found else { return Ok(None) };
        if found.kind != FileKind::Directory {
            return Ok(None);
        }
        let lower = match &found.lower {
            FoundLower::Dir(lower) => Arc::clone(lower),
            _ => self.node(found.ino)?.state().lower.dir(),
        };
        Ok((!lower.parts.is_empty()).then(|| lower.path.clone()))
    }
}
