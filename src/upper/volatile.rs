//! Uppers that nobody minds losing: nothing is flushed, and a mark says that a crash may have cost something.
//!
//! `work/work/incompat/volatile` is kernel overlayfs's mark (Documentation/filesystems/overlayfs.rst, "Volatile mount"):
//! as long as it is there the kernel refuses the upper. Container engines remove it before they mount, because they
//! throw their uppers away. `work/volatile` is ours and says in which run of the system the mark was made: within the
//! same one nothing can have been lost. An upper that is shared with other engines has both.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{pin, pin_dir, reopen, reopen_own};
use super::{Upper, UpperError, UpperOptions};
use crate::sys::{boot, files};

/// The kernel's mark: a directory in a directory in a directory of `work`.
const STEPS: [&str; 3] = ["work", "incompat", "volatile"];
/// Our own, in `work`.
const OWN: &str = "volatile";
/// What it is called until it is written; whatever is there goes when the upper is opened.
const UNFINISHED: &str = "tmp/volatile";
/// A number in hexadecimal digits, and a newline.
const BOOT_ID_BYTES: usize = 17;

impl Upper {
    /// Whether nothing is flushed.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Makes a file's content durable, unless nobody minds.
    pub(super) fn flush(&self, file: impl AsFd) -> Result<(), UpperError> {
        if self.volatile {
            return Ok(());
        }
        self.flush_format()?;
        files::fsync(file).at("fsync")
    }
}

/// Sees whether the last mount was volatile, refuses the upper if it may have lost something, and says for those to come
/// whether this one is.
pub(super) fn check(work_fd: &OwnedFd, work: &Path, options: UpperOptions) -> Result<(), UpperError> {
    let boot = format!("{:016x}\n", boot::id()).into_bytes();
    let own = own_mark(work_fd)?;
    // Engines that share an upper take the kernel's mark away when they throw it away themselves.
    let is_marked = is_marked(work_fd)? || (own.is_some() && !options.shared);
    if is_marked && own.as_deref() != Some(&boot[..]) {
        return Err(UpperError::Volatile(work.to_path_buf()));
    }
    match (own.is_some(), options.volatile) {
        (true, false) => {
            let readable = reopen(work_fd, OFlags::RDONLY | OFlags::DIRECTORY).at("open")?;
            files::syncfs(&readable).at("syncfs")?;
            unmark(work_fd)
        }
        (_, true) => {
            mark(work_fd, &boot)?;
            // The marks themselves must be there after a crash; not in what is removed then anyhow.
            if options.shared { mark_as_kernel(work_fd).and_then(|()| sync_up(work_fd)) } else { Ok(()) }
        }
        (false, false) => Ok(()),
    }
}

/// Whether `work/work` holds nothing but the mark of a volatile mount of ours.
pub(super) fn is_only_ours(work: &OwnedFd) -> Result<bool, UpperError> {
    if own_mark(work)?.is_none() {
        return Ok(false);
    }
    let [outer, inner, _] = STEPS;
    // What may not be read is the kernel's.
    match pin_dir(work, outer.as_bytes()).at("open").and_then(|outer| super::scratch::names(&outer)) {
        Ok(names) => Ok(names == [inner.as_bytes()]),
        Err(error) if matches!(error.errno(), Errno::ACCESS | Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn own_mark(work: &OwnedFd) -> Result<Option<Vec<u8>>, UpperError> {
    let pinned = match pin(work, OWN.as_bytes()) {
        Err(Errno::NOENT) => return Ok(None),
        result => result.at("open a volatile mark")?,
    };
    let mut buffer = vec![0; BOOT_ID_BYTES];
    let file = reopen_own(&pinned, OWN)?;
    let length = files::read_full_at(&file, &mut buffer, 0).at("read a volatile mark")?;
    buffer.truncate(length);
    Ok(Some(buffer))
}

fn is_marked(work: &OwnedFd) -> Result<bool, UpperError> {
    match pin(work, STEPS.join("/").as_bytes()) {
        Ok(_) => Ok(true),
        // Engines that share an upper with the kernel remove its mark themselves; so it is not there if we may not look.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error).at("look for a volatile mark"),
    }
}

fn mark(work: &OwnedFd, boot: &[u8]) -> Result<(), UpperError> {
    // It is there as a whole or not at all: half a mark would be one of another run of the system.
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let own = files::openat(work, UNFINISHED, flags, Mode::RUSR | Mode::WUSR).at("make a volatile mark")?;
    files::write_all_at(&File::from(own), boot, 0).at("write a volatile mark")?;
    files::renameat(work, UNFINISHED, work, OWN).at("make a volatile mark")
}

fn mark_as_kernel(work: &OwnedFd) -> Result<(), UpperError> {
    let mut dir = pin_dir(work, b".").at("open")?;
    for step in STEPS {
        match files::mkdirat(&dir, step, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).at("make a volatile mark"),
        }
        dir = pin_dir(&dir, step.as_bytes()).at("make a volatile mark")?;
    }
    Ok(())
}

fn sync_up(work: &OwnedFd) -> Result<(), UpperError> {
    for depth in (0..STEPS.len()).rev() {
        let path = if depth == 0 { ".".to_owned() } else { STEPS[..depth].join("/") };
        let dir = pin_dir(work, path.as_bytes()).at("open")?;
        let readable = reopen(&dir, OFlags::RDONLY | OFlags::DIRECTORY).at("open")?;
        files::fsync(&readable).at("fsync")?;
    }
    Ok(())
}

/// What is left of the directories goes as far as it is empty.
fn unmark(work: &OwnedFd) -> Result<(), UpperError> {
    for steps in [&STEPS[..], &STEPS[..2], &STEPS[..1]] {
        match files::unlinkat(work, steps.join("/"), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(Errno::NOTEMPTY) => break,
            Err(error) => return Err(error).at("remove a volatile mark"),
        }
    }
    files::unlinkat(work, OWN, AtFlags::empty()).at("remove a volatile mark")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const VOLATILE: UpperOptions = UpperOptions { volatile: true, record_owners: false, shared: true };

    fn open(dir: &Path, options: UpperOptions) -> Result<Upper, UpperError> {
        Upper::open_as(&dir.join("upper"), &dir.join("work"), options)
    }

    #[test]
    fn our_own_mark_is_no_sign_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let volatile = UpperOptions { volatile: true, ..UpperOptions::default() };
        drop(open(dir.path(), volatile).unwrap());
        // A program's own file, which fuse-overlayfs would have meant as a whiteout.
        let file = dir.path().join("upper/.wh.name");
        fs::write(&file, b"").unwrap();
        let upper = open(dir.path(), UpperOptions::default()).unwrap();
        assert!(file.exists(), "taken for a whiteout");
        assert!(!upper.is_taking_over(), "taken for somebody else's");
    }

    #[test]
    fn the_mark_is_made_taken_over_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("work/work/incompat/volatile");
        assert!(!open(dir.path(), UpperOptions::default()).unwrap().is_volatile());
        assert!(!mark.exists());
        assert!(open(dir.path(), VOLATILE).unwrap().is_volatile());
        assert!(mark.is_dir());
        assert!(open(dir.path(), VOLATILE).unwrap().is_volatile());
        open(dir.path(), UpperOptions::default()).unwrap();
        assert!(!mark.exists() && !dir.path().join("work/work").exists());
        assert!(!dir.path().join("work/volatile").exists());
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        for own in ["volatile", "format"] {
            let dir = tempfile::tempdir().unwrap();
            open(dir.path(), UpperOptions::default()).unwrap();
            let fifo = dir.path().join("work").join(own);
            if fifo.exists() {
                fs::remove_file(&fifo).unwrap();
            }
            rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
            for options in [VOLATILE, UpperOptions::default()] {
                // A writer, so that a mistake is an error here too and not a hang.
                let writer = rustix::fs::open(&fifo, OFlags::RDWR, Mode::empty()).unwrap();
                let error = open(dir.path(), options).unwrap_err().to_string();
                assert!(error.starts_with(fifo.to_str().unwrap()), "{error}");
                assert!(error.contains("no regular file"), "{error}");
                drop(writer);
            }
        }
    }

    #[test]
    fn what_a_crash_may_have_cost_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("work/work/incompat/volatile");
        open(dir.path(), VOLATILE).unwrap();
        fs::write(dir.path().join("work/volatile"), "another boot\n").unwrap();
        for options in [VOLATILE, UpperOptions::default()] {
            let error = open(dir.path(), options).unwrap_err();
            assert!(matches!(error, UpperError::Volatile(_)), "{error}");
        }
        // What container engines do.
        fs::remove_dir_all(&mark).unwrap();
        open(dir.path(), VOLATILE).unwrap();
        // What the kernel leaves.
        fs::remove_file(dir.path().join("work/volatile")).unwrap();
        assert!(matches!(open(dir.path(), VOLATILE), Err(UpperError::Volatile(_))));
    }
}
