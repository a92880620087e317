//! A tar stream becomes files. Where it is unpacked on the host, no symlink is followed below the destination, whether it came
//! from the stream or was there; in a container those are followed that stay inside, as programs there would.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, mkdirat, openat, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::place::{Destination, Landing, World, no_directory};
use super::{Owners, xattrs};
use crate::model::Timestamp;
use crate::sys::scoped;
use crate::sys::tar_stream::{Entry, Kind, TarStream};

/// How much of a file is handled at once. So much of zeros becomes a hole.
const PIECE_BYTES: usize = 64 << 10;
/// Of directories that are made on the way, and of those that are still being filled.
const MODE_BETWEEN: u32 = 0o755;
const MODE_FILLING: u32 = 0o700;

/// Unpacks `stream` and gives the bytes of all files. `source` is named where the stream is refused as a whole.
pub(super) fn unpack(
    world: World<'_>,
    destination: Destination,
    owners: Owners,
    stream: impl Read,
) -> io::Result<u64> {
    let Destination { dir, path, landing } = destination;
    let mut unpacking = Unpacking {
        world,
        dir,
        path,
        landing,
        top: None,
        owners,
        stream: TarStream::new(stream),
        parent: None,
        directories: Vec::new(),
        bytes: 0,
    };
    while let Some(entry) = unpacking.stream.next_entry()? {
        unpacking.entry(entry)?;
    }
    unpacking.finish_directories()?;
    Ok(unpacking.bytes)
}

struct Unpacking<'a, R> {
    world: World<'a>,
    /// The destination.
    dir: OwnedFd,
    path: PathBuf,
    landing: Landing,
    /// The first name of the first entry, that all others begin with as well; empty for what a directory contains.
    top: Option<OsString>,
    owners: Owners,
    stream: TarStream<R>,
    /// The directory of the last entry.
    parent: Option<(PathBuf, OwnedFd)>,
    /// What becomes of directories once they are filled.
    directories: Vec<(PathBuf, Entry)>,
    bytes: u64,
}

impl<R: Read> Unpacking<'_, R> {
    fn entry(&mut self, entry: Entry) -> io::Result<()> {
        let names = names_of(&entry.path)?;
        let Some(path) = self.place(&names, entry.kind)? else { return Ok(()) };
        let done = self.make(&path, entry);
        done.map_err(|error| match error.raw_os_error() {
            Some(_) => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
            None => error,
        })
    }

    /// The path of an entry below the destination; `None` of the destination itself.
    fn place(&mut self, names: &[&OsStr], kind: Kind) -> io::Result<Option<PathBuf>> {
        let Landing::As { name, is_there, is_directory } = &self.landing else {
            let path: PathBuf = names.iter().collect();
            return Ok((!names.is_empty()).then_some(path));
        };
        let Some(top) = &self.top else {
            if kind == Kind::Directory && *is_there {
                return Err(refused(name, "a directory cannot be copied to a file"));
            }
            if kind != Kind::Directory && *is_directory {
                return Err(no_directory(&self.path.join(name)));
            }
            self.top = Some(names.first().map(|first| (*first).to_owned()).unwrap_or_default());
            return Ok(Some(PathBuf::from(name)));
        };
        let rest = match names.split_first() {
            _ if top.is_empty() => names,
            Some((first, rest)) if first == top => rest,
            _ => return Err(refused(top, "the stream has something beside it")),
        };
        Ok(Some(std::iter::once(name.as_os_str()).chain(rest.iter().copied()).collect()))
    }

    fn make(&mut self, path: &Path, entry: Entry) -> io::Result<()> {
        let Some(name) = path.file_name().map(OsStr::to_owned) else { return Ok(()) };
        let above = path.parent().unwrap_or(Path::new(""));
        let parent = self.directory(above)?;
        let made = match entry.kind {
            Kind::Directory => {
                if make_directory(&parent, &name)? || self.is_directory_there(&parent, &name, path)? {
                    self.directories.push((path.to_owned(), entry));
                    Ok(())
                } else {
                    Err(refused(path.as_os_str(), "a directory cannot take the place of something else"))
                }
            }
            Kind::Regular => self.regular(&parent, &name, &entry),
            Kind::Symlink => {
                make_room(&parent, &name)?;
                rustix::fs::symlinkat(&*entry.target, &parent, &name)?;
                self.finish_at(&parent, &name, &entry)
            }
            Kind::Fifo => {
                make_room(&parent, &name)?;
                let mode = Mode::from_raw_mode(self.mode(&entry));
                rustix::fs::mknodat(&parent, &name, FileType::Fifo, mode, 0)?;
                self.finish_at(&parent, &name, &entry)
            }
            Kind::Link => self.link(&parent, &name, &entry),
            Kind::Device => {
                tracing::warn!("{}: devices are not copied; left out", path.display());
                Ok(())
            }
        };
        self.parent = Some((above.to_owned(), parent));
        made
    }

    /// Opens a directory below the destination; missing ones are made.
    fn directory(&mut self, path: &Path) -> io::Result<OwnedFd> {
        if let Some((_, dir)) = self.parent.take_if(|(known, _)| known == path) {
            return Ok(dir);
        }
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            Err(Errno::LOOP) => return Err(refused(path.as_os_str(), "a symlink is in the way")),
            opened => return Ok(opened?),
        }
        let (Some(name), Some(above)) = (path.file_name(), path.parent()) else {
            return Err(Errno::NOENT.into());
        };
        let parent = self.directory(above)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(MODE_BETWEEN)) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
        Ok(self.open(path, OFlags::PATH)?)
    }

    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match self.world {
            World::Host => {
                let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                scoped::open(&self.dir, path, flags, resolve)
            }
            World::Container(_) => self.world.open(&self.path.join(path), flags),
        }
    }

    /// Whether a name that is taken is that of a directory; in a container also by a symlink, as `/lib` is in many.
    fn is_directory_there(&self, parent: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<bool> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match (FileType::from_raw_mode(stat.st_mode), self.world) {
            (FileType::Directory, _) => Ok(true),
            (FileType::Symlink, World::Container(_)) => Ok(self.open(path, OFlags::PATH).is_ok()),
            _ => Ok(false),
        }
    }

    fn regular(&mut self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let (file, is_new) = match make_room(parent, name) {
            // Something is mounted on it, as on /etc/hosts: it can only be filled.
            Err(Errno::BUSY) => (open_to_fill(parent, name)?, false),
            room => {
                room?;
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
                (File::from(openat(parent, name, flags, Mode::from_raw_mode(0o600))?), true)
            }
        };
        file.set_len(entry.size)?;
        let mut piece = vec![0; PIECE_BYTES];
        for (offset, length) in &entry.data {
            let mut done = 0;
            while done < *length {
                let count = usize::try_from(length - done).unwrap_or(usize::MAX).min(PIECE_BYTES);
                self.stream.content(&mut piece[..count])?;
                if piece[..count].iter().any(|byte| *byte != 0) {
                    file.write_all_at(&piece[..count], offset + done)?;
                }
                done += count as u64;
            }
        }
        self.bytes += entry.size;
        if is_new { self.finish(&file.into(), entry) } else { Ok(()) }
    }

    /// One more name of something that was unpacked before.
    fn link(&mut self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let names = names_of(&entry.target)?;
        let Some(target) = self.place(&names, Kind::Link)? else {
            return Err(refused(name, "a link to a directory"));
        };
        let (Some(of), Some(above)) = (target.file_name(), target.parent()) else {
            return Err(refused(name, "a link to a directory"));
        };
        let there = self.open(above, OFlags::PATH)?;
        make_room(parent, name)?;
        Ok(rustix::fs::linkat(&there, of, parent, name, AtFlags::empty())?)
    }

    /// Owner and times of what cannot be opened.
    fn finish_at(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
        if self.owners == Owners::Kept {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags)
                .map_err(|error| not_given(entry, error))?;
        }
        Ok(rustix::fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Everything that an entry says besides its content.
    fn finish(&self, fd: &OwnedFd, entry: &Entry) -> io::Result<()> {
        if self.owners == Owners::Kept {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(|error| not_given(entry, error))?;
        }
        xattrs::set(fd, &entry.xattrs)?;
        // After the owner: a change of that takes setuid and setgid away.
        rustix::fs::fchmod(fd, Mode::from_raw_mode(self.mode(entry)))?;
        Ok(rustix::fs::futimens(fd, &times(entry.mtime))?)
    }

    /// A container's setuid program must not become one of the caller's.
    fn mode(&self, entry: &Entry) -> u32 {
        match (self.world, self.owners) {
            (World::Host, Owners::Receivers) => entry.mode & 0o1777,
            (World::Container(_), _) | (_, Owners::Kept) => entry.mode,
        }
    }

    /// The inner ones first: what is made in a directory changes its time, and its mode may forbid it.
    fn finish_directories(&mut self) -> io::Result<()> {
        self.parent = None;
        while let Some((path, entry)) = self.directories.pop() {
            let dir = match self.open(&path, OFlags::RDONLY) {
                // Somebody else has taken it away.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                dir => dir?,
            };
            self.finish(&dir, &entry).map_err(|error| match error.raw_os_error() {
                Some(_) => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
                None => error,
            })?;
        }
        Ok(())
    }
}

/// The names in a path of an entry. As tar(1) has it, it is relative whether it begins with a slash or not.
fn names_of(path: &[u8]) -> io::Result<Vec<&OsStr>> {
    let names: Vec<&OsStr> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .map(OsStr::from_bytes)
        .collect();
    if names.contains(&OsStr::new("..")) || path.contains(&0) {
        let path = OsString::from_vec(path.to_vec());
        return Err(refused(&path, "a path in the stream leads out of the destination"));
    }
    Ok(names)
}

/// Makes a directory that is filled and finished later; `false` when the name is taken.
fn make_directory(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<bool> {
    match mkdirat(parent, name, Mode::from_raw_mode(MODE_FILLING)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes away what has that name; never a directory.
fn make_room(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

fn open_to_fill(parent: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat(parent, name, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(Errno::BUSY.into());
    }
    file.set_len(0)?;
    Ok(file)
}

fn times(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn not_given(entry: &Entry, error: Errno) -> io::Error {
    let path = entry.path.escape_ascii();
    let (uid, gid) = (entry.uid, entry.gid);
    let hint = "--archive keeps owners, but there is no such owner, or it may not be given: leave it out";
    io::Error::other(format!("{path} cannot belong to {uid}:{gid}: {}: {hint}", io::Error::from(error)))
}

fn refused(name: &OsStr, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {why}", name.display()))
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
