//! `work/format`: in which form an upper is kept, so that every later mount goes on in it, and who wrote it last.
//!
//! A line `layerfs-upper 1 WHITEOUTS NAMESPACE`, with `device` or `named`, and `trusted` or `user`. Without it a name
//! `.wh.x` could be a whiteout or a program's own file, and marks that only root can read would be passed over. Then one
//! that says with which layers it was made, see `made_with.rs`; an upper of an earlier layerfs has none.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::error::At as _;
use super::handle::{self, path_of, pin, pin_dir, reopen_own};
use super::made_with::MadeWith;
use super::marks::Namespace;
use super::{Upper, UpperError, Whiteouts, volatile};
use crate::model::limits::IMAGE_LAYERS_MAX;
use crate::sys::files;

/// The file in `work`.
const FORMAT: &str = "format";
/// What kernel overlayfs and fuse-overlayfs make in `work`. Taken away once what they left has been taken over, so it
/// says that they had the upper since.
const WORK_OF_OTHERS: &str = "work";
/// A short line, and one of a digest per layer; more is damage.
const BYTES_MAX: usize = 200 + 80 * IMAGE_LAYERS_MAX;

/// The form of an upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) whiteouts: Whiteouts,
    pub(super) namespace: Namespace,
}

/// Who else wrote an upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// Kernel overlayfs, for which names `.wh.x` mean nothing.
    Kernel,
    /// fuse-overlayfs, or whoever unpacked a layer into it: `.wh.x` is a whiteout.
    Others,
}

impl Format {
    fn line(self) -> String {
        let whiteouts = if self.whiteouts == Whiteouts::Device { "device" } else { "named" };
        let namespace = if self.namespace == Namespace::Trusted { "trusted" } else { "user" };
        format!("layerfs-upper 1 {whiteouts} {namespace}\n")
    }

    /// The whole file.
    fn parse_all(text: &str) -> Option<(Self, Option<MadeWith>)> {
        let (first, second) = text.split_at(text.find('\n')? + 1);
        let made_with = match second {
            "" => None,
            line => Some(MadeWith::parse(line.strip_suffix('\n')?)?),
        };
        Some((Self::parse(first)?, made_with))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_suffix('\n')?.split(' ');
        if (words.next()?, words.next()?) != ("layerfs-upper", "1") {
            return None;
        }
        let whiteouts = match words.next()? {
            "device" => Whiteouts::Device,
            "named" => Whiteouts::Named,
            _ => return None,
        };
        let namespace = match words.next()? {
            "trusted" => Namespace::Trusted,
            "user" => Namespace::User,
            _ => return None,
        };
        words.next().is_none().then_some(Self { whiteouts, namespace })
    }

    /// The form that was written down, and the layers if they were; `None` when none was.
    pub(super) fn read(
        work: &OwnedFd,
        upper: &OwnedFd,
    ) -> Result<Option<(Self, Option<MadeWith>)>, UpperError> {
        let pinned = match pin(work, FORMAT.as_bytes()) {
            Ok(pinned) => pinned,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).at("open work/format"),
        };
        let file = reopen_own(&pinned, FORMAT)?;
        let mut line = vec![0; BYTES_MAX];
        let length = files::read_full_at(&file, &mut line, 0).at("read work/format")?;
        match std::str::from_utf8(&line[..length]).ok().and_then(Self::parse_all) {
            Some(format) => Ok(Some(format)),
            // The machine stopped before it was on disk, and before anything else was.
            None if length == 0 && super::scratch::names(upper)?.is_empty() => Ok(None),
            None => Err(UpperError::Form {
                path: path_of(&pinned, FORMAT.as_bytes()),
                problem: "damaged, or written by a later layerfs".to_owned(),
                remedy: "use that one, or remove the file to let the upper be looked through",
            }),
        }
    }

    /// The form to go on in: the written one, as far as this process on this filesystem (`found`) can.
    pub(super) fn go_on(self, found: Self, upper: &OwnedFd) -> Result<Self, UpperError> {
        let refuse = |problem: &str, remedy| {
            let (path, problem) = (path_of(upper, b"upper"), problem.to_owned());
            Err(UpperError::Form { path, problem, remedy })
        };
        if self.namespace == Namespace::Trusted && found.namespace == Namespace::User {
            return refuse("written by root, with marks that only root can read", "mount it as root");
        }
        if self.whiteouts == Whiteouts::Device && found.whiteouts == Whiteouts::Named {
            return refuse(
                "has device nodes for deleted files, which cannot be made here",
                "copy upper and work to a filesystem that has device nodes (cp -a as root)",
            );
        }
        Ok(self)
    }
}

impl Upper {
    /// Writes the form down, and with which layers the upper is made.
    pub(super) fn write_format(&self) -> Result<(), UpperError> {
        self.write_format_with(self.made_with.as_ref())
    }

    pub(super) fn write_format_with(&self, made_with: Option<&MadeWith>) -> Result<(), UpperError> {
        self.place_format(made_with, true).map(drop)
    }

    /// Writes it down in an upper that has none yet. It need not be on disk before something else of the upper is, so no
    /// mount waits for that; see [`Self::flush_format`].
    pub(super) fn write_first_format(&self) -> Result<(), UpperError> {
        *self.unflushed() = Some(self.place_format(self.made_with.as_ref(), false)?);
        Ok(())
    }

    /// The mount that wrote it may have been killed before it was on disk.
    pub(super) fn doubt_format(&self) -> Result<(), UpperError> {
        let pinned = pin(&self.work, FORMAT.as_bytes()).at("open work/format")?;
        *self.unflushed() = Some(reopen_own(&pinned, FORMAT)?);
        Ok(())
    }

    /// Makes sure that the form is on disk: to be called soon after a mount, and before anything else is flushed.
    ///
    /// # Errors
    /// [`UpperError`]; the next call tries again.
    pub fn flush_format(&self) -> Result<(), UpperError> {
        let mut unflushed = self.unflushed();
        let Some(file) = &*unflushed else { return Ok(()) };
        if !self.volatile && files::fsync(file).is_err() {
            // What could not be written is gone (fsync(2)), so once more from the beginning.
            *unflushed = Some(self.place_format(self.made_with.as_ref(), true)?);
        }
        *unflushed = None;
        Ok(())
    }

    fn unflushed(&self) -> MutexGuard<'_, Option<File>> {
        self.unflushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the file by one that is on disk before, if it `lasts`.
    fn place_format(&self, made_with: Option<&MadeWith>, lasts: bool) -> Result<File, UpperError> {
        let mut text = Format { whiteouts: self.whiteouts, namespace: self.namespace }.line();
        text.extend(made_with.map(MadeWith::line));
        let scratch = self.scratch();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = files::openat(&self.scratch, &scratch.name, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.at("create work/format")?);
        files::write_all_at(&file, text.as_bytes(), 0).at("write work/format")?;
        if lasts && !self.volatile {
            files::fsync(&file).at("fsync")?;
        }
        files::renameat(&self.scratch, &scratch.name, &self.work, FORMAT).at("rename into place")?;
        scratch.published();
        Ok(file)
    }

    /// Takes away what says that somebody else had the upper, now that this one has it.
    pub(super) fn forget_others(&self) -> Result<(), UpperError> {
        let scratch = self.scratch();
        match files::renameat(&self.work, WORK_OF_OTHERS, &self.scratch, &scratch.name) {
            Ok(()) => {
                // Seen to be a directory at the mount; should it be a symlink now, that is not followed.
                let moved = pin_dir(&self.scratch, scratch.name.as_bytes()).at("open work/work")?;
                files::chmodat(CWD, handle::magic_link(&moved), Mode::RWXU, AtFlags::empty()).at("chmod")
            }
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).at("rename work/work out"),
        }
    }
}

/// Who wrote the upper since its form was written down, if anybody.
pub(super) fn others(work: &OwnedFd, upper: &OwnedFd, known: bool) -> Result<Option<Writer>, UpperError> {
    let found = match pin_dir(work, WORK_OF_OTHERS.as_bytes()) {
        // The mark of our own last mount, and nothing else.
        Ok(_) if volatile::is_only_ours(work)? => Err(Errno::NOENT),
        found => found,
    };
    let pinned = match found {
        Ok(pinned) => pinned,
        Err(Errno::NOENT) if known || super::scratch::names(upper)?.is_empty() => return Ok(None),
        Err(Errno::NOENT) => return Ok(Some(Writer::Others)),
        Err(error) => return Err(error).at("open work/work"),
    };
    let refuse = |problem: &str, remedy| {
        let (path, problem) = (path_of(&pinned, b"work/work"), problem.to_owned());
        Err(UpperError::Form { path, problem, remedy })
    };
    let found = handle::stat(&pinned)?.metadata;
    if found.uid != rustix::process::geteuid().as_raw() {
        return refuse(
            "another user's overlay has written here, whose marks may be unreadable",
            "mount it as that user",
        );
    }
    // The kernel closes the directory to everybody. It stays unreadable, so that this is still seen after a crash.
    let writer = if found.mode & 0o400 == 0 { Writer::Kernel } else { Writer::Others };
    if writer == Writer::Kernel {
        let mode = Mode::WUSR | Mode::XUSR;
        files::chmodat(work, WORK_OF_OTHERS, mode, AtFlags::empty()).at("chmod")?;
    }
    Ok(Some(writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_goes_on_or_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let upper = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        let format = |whiteouts, namespace| Format { whiteouts, namespace };
        let found = format(Whiteouts::Device, Namespace::Trusted);
        // Root goes on with what an ordinary user began.
        let users = format(Whiteouts::Named, Namespace::User);
        assert_eq!(users.go_on(found, &upper).unwrap(), users);
        let refused = |written: Format, found| written.go_on(found, &upper).unwrap_err().to_string();
        assert!(refused(found, users).contains("only root can read: mount it as root"));
        let devices = format(Whiteouts::Device, Namespace::User);
        assert!(refused(devices, users).contains("device nodes for deleted files"));
    }

    #[test]
    fn lines() {
        for whiteouts in [Whiteouts::Device, Whiteouts::Named] {
            for namespace in [Namespace::Trusted, Namespace::User] {
                let format = Format { whiteouts, namespace };
                assert_eq!(Format::parse(&format.line()), Some(format));
            }
        }
        for line in ["", "\n", "layerfs-upper 2 device user\n", "layerfs-upper 1 device\n"] {
            assert_eq!(Format::parse(line), None);
        }
        let first = "layerfs-upper 1 device user\n";
        assert_eq!(Format::parse_all(first).unwrap().1, None);
        let layers = vec![None];
        let made_with = Some(MadeWith { layers, complete: false });
        assert_eq!(Format::parse_all(&format!("{first}made-with directory\n")).unwrap().1, made_with);
        assert_eq!(Format::parse_all(&format!("{first}made-with directory")), None, "torn");
        assert_eq!(Format::parse_all(&format!("{first}made-with directory\n\n")), None);
        assert_eq!(Format::parse("layerfs-upper 1 device user more\n"), None);
        assert_eq!(Format::parse("layerfs-upper 1 device user"), None, "torn");
    }

    #[test]
    fn a_form_that_did_not_reach_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (path, work) = (dir.path().join("upper"), dir.path().join("work"));
        let open = || Upper::open(&path, &work);
        for _ in 0..2 {
            // The second mount cannot know whether the first one came so far.
            let upper = open().unwrap();
            assert!(upper.unflushed().is_some());
            upper.flush_format().unwrap();
            assert!(upper.unflushed().is_none());
        }
        std::fs::write(work.join(FORMAT), b"").unwrap();
        open().unwrap();
        assert!(std::fs::read_to_string(work.join(FORMAT)).unwrap().starts_with("layerfs-upper 1 "));
        std::fs::write(path.join("file"), b"").unwrap();
        std::fs::write(work.join(FORMAT), b"").unwrap();
        assert!(open().unwrap_err().to_string().contains("damaged"));
    }
}
