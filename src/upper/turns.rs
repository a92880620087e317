//! Locks of single objects, made when they are needed: who counts an object's names waits for nobody who counts another's.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::model::Ino;

/// Who has a turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    taken: Mutex<HashSet<Ino>>,
    ended: Condvar,
}

/// A turn with one object; dropped, it ends.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    ino: Ino,
}

impl Turns {
    /// Waits until nobody has a turn with this object.
    pub(super) fn take(&self, ino: Ino) -> Turn<'_> {
        let mut taken = self.taken();
        while !taken.insert(ino) {
            taken = self.ended.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { turns: self, ino }
    }

    fn taken(&self) -> MutexGuard<'_, HashSet<Ino>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.taken().remove(&self.ino);
        self.turns.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_those_of_the_same_object_wait() {
        let turns = Turns::default();
        let first = turns.take(Ino(1));
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                drop(turns.take(Ino(2)));
                sender.send(2).unwrap();
                drop(turns.take(Ino(1)));
                sender.send(1).unwrap();
            });
            assert_eq!(receiver.recv(), Ok(2));
            assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err(), "it is not its turn");
            drop(first);
            assert_eq!(receiver.recv(), Ok(1));
        });
    }
}
