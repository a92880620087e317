//! A file or a tree as a tar stream. It is walked by descriptors, and no symlink is followed but those on the way to it.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::place::{Parts, World, at};
use super::{Links, xattrs};
use crate::model::limits::DEPTH_MAX;
use crate::model::pax::{BLOCK, Header};
use crate::model::{DeviceId, FileKind, Metadata, Timestamp};

/// Magic numbers (linux/magic.h) of filesystems whose files are the kernel's own and say nothing of their size: proc, sysfs,
/// devpts, cgroup, cgroup2, mqueue, securityfs, debugfs, tracefs, bpf.
const KERNELS: [u32; 10] = [
    0x9fa0,
    0x6265_6572,
    0x1cd1,
    0x0027_e0eb,
    0x6367_7270,
    0x1980_0202,
    0x7363_6673,
    0x6462_6720,
    0x7472_6163,
    0xcafe_4a11,
];
/// A device or a fifo that takes a file's place meanwhile must not make us wait.
const READING: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const READING_DIR: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Writes what is at `path`.
pub(super) fn pack(world: World<'_>, path: &Path, links: Links, out: impl Write) -> io::Result<()> {
    let parts = Parts::of(path);
    let mut packing = Packing { out, links: HashMap::new() };
    let packed = match parts.name {
        None => world.open(path, OFlags::DIRECTORY).map_err(io::Error::from).and_then(|dir| {
            packing.must_not_be_kernels(&dir)?;
            packing.tree(&dir, &mut b".".to_vec(), 0)
        }),
        Some(name) => packing.named(world, path, &parts, links, name),
    };
    packed.map_err(|error| if error.raw_os_error().is_some() { at(path, error) } else { error })?;
    packing.out.write_all(&[0; 2 * BLOCK])?;
    packing.out.flush()
}

struct Packing<W> {
    out: W,
    /// What has several names, and the first of them.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packing<W> {
    fn named(
        &mut self,
        world: World<'_>,
        path: &Path,
        parts: &Parts<'_>,
        links: Links,
        name: &OsStr,
    ) -> io::Result<()> {
        let mut called = name.as_bytes().to_vec();
        if links == Links::Followed || parts.is_directory {
            let place = world.open(path, OFlags::PATH)?;
            let kind = kind(&statat(&place, "", AtFlags::EMPTY_PATH)?);
            match kind {
                FileKind::Directory => {
                    let dir = world.open(path, OFlags::DIRECTORY)?;
                    self.must_not_be_kernels(&dir)?;
                    return self.tree(&dir, &mut called, 0);
                }
                _ if parts.is_directory => return Err(Errno::NOTDIR.into()),
                FileKind::Regular => {
                    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
                    return self.regular(world.open(path, flags)?, &called);
                }
                // Fifos and their like need not be opened, and a link cannot be the end of a path that was followed.
                _ => {}
            }
        }
        let parent = world.open_directory(parts.parent)?;
        let name = CString::new(name.as_bytes())?;
        self.child(&parent, &name, &mut called, 0, None)
    }

    fn must_not_be_kernels(&self, dir: &OwnedFd) -> io::Result<()> {
        if is_kernels(dir)? {
            return Err(io::Error::other(
                "the kernel's own files cannot be copied: read them with `layerfs exec`",
            ));
        }
        Ok(())
    }

    /// A directory with all that is in it.
    fn tree(&mut self, dir: &OwnedFd, path: &mut Vec<u8>, depth: usize) -> io::Result<()> {
        let stat = fstat(dir)?;
        self.object(path, &stat, &[], &xattrs::of(dir)?)?;
        if depth >= DEPTH_MAX {
            return Err(named(path, &io::Error::from(Errno::NAMETOOLONG)));
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable();
        let length = path.len();
        for name in names {
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
            match self.child(dir, &name, path, depth + 1, Some(stat.st_dev)) {
                // Removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.raw_os_error().is_some() => return Err(named(path, &error)),
                result => result?,
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// Something in a directory; of those that are on the device `above`, what the kernel has mounted there is left out.
    fn child(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        path: &mut Vec<u8>,
        depth: usize,
        above: Option<u64>,
    ) -> io::Result<()> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match kind(&stat) {
            FileKind::Directory => {
                let inner = openat(dir, name, READING_DIR, Mode::empty())?;
                let stat = fstat(&inner)?;
                if above != Some(stat.st_dev) && is_kernels(&inner)? {
                    return match above {
                        Some(_) => self.object(path, &stat, &[], &[]),
                        None => self.must_not_be_kernels(&inner),
                    };
                }
                self.tree(&inner, path, depth)
            }
            FileKind::Regular => self.regular(openat(dir, name, READING, Mode::empty())?, path),
            FileKind::Symlink => {
                let target = readlinkat(dir, name, Vec::new())?;
                self.object(path, &stat, target.as_bytes(), &[])
            }
            FileKind::Fifo => self.object(path, &stat, &[], &[]),
            FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
                tracing::warn!("{}: devices and sockets are not copied; left out", path.escape_ascii());
                Ok(())
            }
        }
    }

    fn regular(&mut self, file: OwnedFd, path: &[u8]) -> io::Result<()> {
        let stat = fstat(&file)?;
        if kind(&stat) != FileKind::Regular {
            return Err(named(path, &io::Error::other("it was replaced while it was copied")));
        }
        if is_kernels(&file)? {
            return self.must_not_be_kernels(&file);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let header = Header {
                    path,
                    type_flag: b'1',
                    metadata: &metadata(&stat),
                    size: 0,
                    target: first,
                    xattrs: &[],
                };
                return self.out.write_all(&header.blocks().map_err(io::Error::other)?);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        let size = self.object_of(path, &stat, &[], &xattrs::of(&file)?)?;
        let copied = io::copy(&mut File::from(file).take(size), &mut self.out)?;
        if copied != size {
            return Err(named(path, &io::Error::other("it became shorter while it was copied")));
        }
        let padding =
            usize::try_from(size.next_multiple_of(BLOCK as u64) - size).map_err(io::Error::other)?;
        self.out.write_all(&[0; BLOCK][..padding])
    }

    fn object(
        &mut self,
        path: &[u8],
        stat: &Stat,
        target: &[u8],
        xattrs: &[xattrs::Xattr],
    ) -> io::Result<()> {
        self.object_of(path, stat, target, xattrs).map(drop)
    }

    /// The header of an object; gives how many bytes have to follow.
    fn object_of(
        &mut self,
        path: &[u8],
        stat: &Stat,
        target: &[u8],
        xattrs: &[xattrs::Xattr],
    ) -> io::Result<u64> {
        let metadata = metadata(stat);
        let (type_flag, path) = match metadata.kind {
            FileKind::Directory => (b'5', &[path, b"/"].concat()[..]),
            FileKind::Symlink => (b'2', path),
            FileKind::Fifo => (b'6', path),
            _ => (b'0', path),
        };
        let size = if metadata.kind == FileKind::Regular { metadata.size } else { 0 };
        let header = Header { path, type_flag, metadata: &metadata, size, target, xattrs };
        self.out.write_all(&header.blocks().map_err(io::Error::other)?)?;
        Ok(size)
    }
}

fn is_kernels(fd: impl AsFd) -> io::Result<bool> {
    let magic = rustix::fs::fstatfs(fd)?.f_type;
    Ok(u32::try_from(magic).is_ok_and(|magic| KERNELS.contains(&magic)))
}

fn kind(stat: &Stat) -> FileKind {
    FileKind::from_st_mode(stat.st_mode).unwrap_or(FileKind::Socket)
}

fn metadata(stat: &Stat) -> Metadata {
    Metadata {
        kind: kind(stat),
        mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or_default(),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: DeviceId::default(),
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mtime: Timestamp {
            secs: stat.st_mtime,
            nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        },
    }
}

fn named(path: &[u8], error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.escape_ascii()))
}
