//! Files whose extent map says less than it could, because what was written is not known to be on disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::node::Node;
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

    /// Takes out a file that has lost its last name. Returns whether it was in.
    pub(super) fn drop_nameless(&self, ino: Ino) -> bool {
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
    /// What was written then survives a power cut. A failure is logged, and seen by the program's own fsync.
    pub fn settle(&self, age: Duration) {
        for ino in self.unsettled.take(age) {
            let settled = self.node(ino).and_then(|node| self.settle_if_named(&node));
            if let Err(error) = settled {
                tracing::warn!("inode {}: cannot be flushed: {error}", ino.0);
            }
            self.forget(ino, 1);
        }
    }

    fn settle_if_named(&self, node: &Arc<Node>) -> Result<(), FsError> {
        if node.state().removed || node.sharing().is_none() {
            return Ok(());
        }
        match self.open_upper(node, false)? {
            Some(file) => self.settle_node(node, &file).map(drop),
            None => Ok(()),
        }
    }
}
