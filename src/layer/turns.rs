//! One thread at a time decodes a span; the others wait for what comes out.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

/// The spans of a layer that some thread is decoding.
#[derive(Debug, Default)]
pub(super) struct Turns {
    busy: Mutex<HashSet<u64>>,
    changed: Condvar,
}

/// The right to decode a span.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    span: u64,
}

/// What waiting for a turn has come to.
#[derive(Debug)]
pub(super) enum Waited<'a, T> {
    /// It is ours.
    Turn(Turn<'a>),
    /// There is no need for it any more.
    Found(T),
}

impl Turns {
    /// Waits until nobody else decodes a span, or until `find` finds what somebody else has made of it: looked for first,
    /// and whenever a turn ends, so that who waits need not be quicker than who takes the next turn.
    pub(super) fn take<T>(&self, span: u64, mut find: impl FnMut() -> Option<T>) -> Waited<'_, T> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = find() {
                return Waited::Found(found);
            }
            if busy.insert(span) {
                return Waited::Turn(Turn { turns: self, span });
            }
            busy = self.changed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether somebody decodes a span at this moment.
    pub(super) fn is_busy(&self, span: u64) -> bool {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).contains(&span)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.span);
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn who_waits_is_served_although_the_span_stays_busy() {
        let (turns, is_made, looked) = (&Turns::default(), AtomicBool::new(false), AtomicBool::new(false));
        let find = || is_made.load(Ordering::SeqCst).then_some(7);
        let Waited::Turn(first) = turns.take(3, find) else { panic!("nothing was made yet") };
        assert!(turns.is_busy(3) && !turns.is_busy(4));
        let look = || {
            looked.store(true, Ordering::SeqCst);
            find()
        };
        thread::scope(|scope| {
            let waits = scope.spawn(|| matches!(turns.take(3, &look), Waited::Found(7)));
            while !looked.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            // What was made at the end of this turn is there before the next one begins, which then takes long.
            is_made.store(true, Ordering::SeqCst);
            drop(first);
            let Waited::Turn(second) = turns.take(3, || None::<()>) else { panic!("a turn") };
            assert!(waits.join().unwrap());
            drop(second);
        });
        assert!(!turns.is_busy(3));
    }
}
