//! Several parts at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// As docker's five and podman's six, less what one connection more brings on two processors.
const THREADS: usize = 4;

/// Works on all of them, some at a time, and gives what came of each in their order. After the first failure nothing new is
/// begun, `stop` is set for what is being done, and that failure is the answer.
pub(super) fn in_parallel<T: Sync, R: Send, E: Send>(
    items: &[T],
    stop: &AtomicBool,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new((Vec::with_capacity(items.len()), None));
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(place) else { return };
            let result = work(item);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(result) => done.0.push((place, result)),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    // What fails after the first may have failed because of it.
                    done.1.get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..THREADS.min(items.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    let (mut results, failure) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failure {
        Some(error) => Err(error),
        None => {
            results.sort_by_key(|(place, _)| *place);
            Ok(results.into_iter().map(|(_, result)| result).collect())
        }
    }
}
