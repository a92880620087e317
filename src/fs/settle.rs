//! Files whose extent map says less than it could, because what was written is not known to be on disk.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::node::{Home, Node};
use super::table::Table;
use super::{Fs, FsError};
use crate::model::Ino;

/// Those files, and since when. The table keeps their nodes for as long as they are in here.
#[derive(Debug, Default)]
pub(super) struct Unsettled(Mutex<HashMap<Ino, Instant>>);

impl Unsettled {
    /// Remembers a file, unless it is in already.
    pub(super) fn add(&self, node: &Node, table: &Table) {
        let mut inner = self.lock();
        if !inner.contains_key(&node.ino) && table.hold(node.ino) {
            inner.insert(node.ino, Instant::now());
        }
    }

    fn has(&self, ino: Ino) -> bool {
        self.lock().contains_key(&ino)
    }

    /// Takes a file out. Returns whether it was in.
    fn take_out(&self, ino: Ino) -> bool {
        self.lock().remove(&ino).is_some()
    }

    /// Takes out what has been in for at least so long.
    fn take(&self, age: Duration) -> Vec<Ino> {
        let mut inner = self.lock();
        let old: Vec<Ino> =
            inner.iter().filter(|(_, since)| since.elapsed() >= age).map(|(ino, _)| *ino).collect();
        for ino in &old {
            inner.remove(ino);
        }
        old
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ino, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fs {
    /// Flushes files that were written to at least `age` ago, as a filesystem does with what nobody asked it to flush.
    /// What was written then survives a power cut. A file that fails is tried again, and its next fsync(2) is told.
    ///
    /// # Errors
    /// That of the first file that failed; the others were flushed.
    pub fn settle(&self, age: Duration) -> Result<(), FsError> {
        let mut result = match &self.upper {
            Some(upper) => upper.flush_format().map_err(FsError::from).inspect_err(|error| {
                tracing::warn!("the form of the upper is not on disk: {error}");
            }),
            None => Ok(()),
        };
        for ino in self.unsettled.take(age) {
            let settled = self.node(ino).and_then(|node| self.settle_one(&node));
            self.forget(ino, 1);
            result = result.and(settled);
        }
        result
    }

    fn settle_one(&self, node: &Node) -> Result<(), FsError> {
        let flush = || match self.open_upper(node, false)? {
            Some(file) => self.settle_node(node, &file),
            None => Ok(()),
        };
        if node.sharing().is_none() {
            return Ok(());
        }
        flush().inspect_err(|error| {
            tracing::warn!("inode {}: cannot be flushed: {error}", node.ino.0);
            node.state().flush_failed = Some(error.errno());
            self.unsettled.add(node, &self.table);
        })
    }

    /// A file that nothing leads to any more need not be flushed, and must not take room until then.
    pub(super) fn forget_unsettled(&self, node: &Node) -> Result<(), FsError> {
        if !self.unsettled.has(node.ino) {
            return Ok(());
        }
        let Some(pinned) = self.pin(node)? else { return Ok(()) };
        let kept = matches!(node.state().upper.as_ref().map(|part| part.home), Some(Home::Kept(_)));
        let is_gone = self.upper()?.attr(&pinned, b"(deleted)")?.nlink == u32::from(kept);
        if is_gone && self.unsettled.take_out(node.ino) {
            self.forget(node.ino, 1);
        }
        Ok(())
    }
}
