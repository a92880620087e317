//! Opening below a directory that nothing on the way may lead out of.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// How often it is tried at once, and how often after that with a pause in between: a second in all.
const TRIES_AT_ONCE: u32 = 128;
const TRIES: u32 = TRIES_AT_ONCE + 1000;
const PAUSE: Duration = Duration::from_millis(1);

/// openat2(2) with `resolve`, which has `BENEATH` or `IN_ROOT`, until the kernel can tell: while anything is renamed or
/// mounted anywhere on the system, it answers `EAGAIN` to paths with a `..` in them or in a symlink on the way.
///
/// # Errors
/// What the system says; `EAGAIN` when it cannot tell for a second.
pub fn open(dir: impl AsFd, path: impl Arg + Copy, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
    patiently(|| openat2(&dir, path, flags, Mode::empty(), resolve))
}

fn patiently<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    for tried in 1..TRIES {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
        if tried >= TRIES_AT_ONCE {
            thread::sleep(PAUSE);
        }
    }
    call()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_path_is_opened_while_others_are_renamed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::create_dir(dir.path().join("x")).unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (x, y) = (dir.path().join("x"), dir.path().join("y"));
                while !is_done.load(Ordering::Relaxed) {
                    fs::rename(&x, &y).unwrap();
                    fs::rename(&y, &x).unwrap();
                }
            });
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let up_and_down = ["a/b/../..", "a/b/../../a/b", "a/../a/../a/b"];
            let opened = (0..5000)
                .flat_map(|_| {
                    up_and_down.map(|path| open(&root, path, flags, ResolveFlags::IN_ROOT).map(drop))
                })
                .collect::<Result<Vec<_>>>()
                .map(|all| all.len());
            is_done.store(true, Ordering::Relaxed);
            assert_eq!(opened, Ok(15_000));
        });
    }

    #[test]
    fn it_gives_up_at_last() {
        let mut calls = 0;
        let result: Result<()> = patiently(|| {
            calls += 1;
            Err(Errno::AGAIN)
        });
        assert_eq!((result, calls), (Err(Errno::AGAIN), TRIES));
        assert_eq!(patiently(|| Err::<(), _>(Errno::NOENT)), Err(Errno::NOENT));
    }
}
