//! Memory that holds only what can be read again, given back now and then.
//!
//! A layer that is a plain directory remembers where each object is that it told of, and can forget what no node refers
//! to; but not what an operation has been told that is still to make a node of it. So it keeps what it told since it was
//! asked before ([`Layer::release_memory`](crate::layer::Layer::release_memory)), and is asked again only when all
//! operations have ended that were under way then.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Fs;
use crate::sys::memory;

/// An operation that uses what layers tell it. Dropped, it has ended.
#[derive(Debug)]
pub(super) struct Using {
    _operations: Arc<()>,
}

/// When to give back.
#[derive(Debug, Default)]
pub(super) struct Release {
    /// Shared by all operations that began since the last time. Never held across anything.
    operations: Mutex<Arc<()>>,
    /// Those that began before. Held while memory is given back, by one at a time: no I/O.
    before: Mutex<Weak<()>>,
    /// It is worth while.
    wanted: AtomicBool,
    /// And once more: what was told just before the last time stayed.
    again: AtomicBool,
    /// What layers have told since the last time.
    told: AtomicUsize,
}

/// So much is told before it is worth while.
const TOLD_MIN: usize = 64 << 10;

impl Release {
    /// Says that it is worth while.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Counts names that layers told of.
    pub(super) fn told(&self, count: usize) {
        self.told.fetch_add(count, Ordering::Relaxed);
    }

    fn is_due(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) || self.again.load(Ordering::Relaxed)
    }
}

impl Fs {
    /// To be held by an operation from before it asks a layer until it has a node of what it was told.
    pub(super) fn using_layers(&self) -> Using {
        let operations = self.release.operations.lock().unwrap_or_else(PoisonError::into_inner);
        Using { _operations: Arc::clone(&operations) }
    }

    /// Gives memory back if that is worth while and possible at this moment. Costs nothing else, so it can be called at
    /// any time; somebody should do so every few seconds.
    pub fn release_memory(&self) {
        let release = &self.release;
        let told = release.told.load(Ordering::Relaxed);
        // As much again as is in use, so that on the whole it costs no more than the telling.
        if told > TOLD_MIN && told > TOLD_MIN + self.table.len() {
            release.want();
        }
        if !release.is_due() {
            return;
        }
        let Ok(mut before) = release.before.try_lock() else { return };
        if before.strong_count() > 0 || !release.is_due() {
            return;
        }
        release.told.store(0, Ordering::Relaxed);
        let first = release.wanted.swap(false, Ordering::Relaxed);
        release.again.store(first, Ordering::Relaxed);
        self.union.release_memory(&|layer| self.table.in_use(layer));
        // After that: who begins now is told anew.
        let mut operations = release.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::take(&mut *operations);
        drop(operations);
        *before = Arc::downgrade(&old);
        drop(old);
        memory::give_back();
    }
}
