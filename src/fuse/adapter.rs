//! One method per request: decode, call, reply.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::convert::{caller, errno, file_attr, file_type, ino, mode_bits, name, nothing, set_time};
use super::policy::{FOR_EVER, NEEDED, WANTED, WRITE_BYTES_MAX};
use crate::fs::{Attr, End, Fs, FsError, Heard, New, RenameMode, Seek};
use crate::model::{DeviceId, FileKind};
use crate::upper::{Change, What};

/// Answers the kernel's requests for one mount.
#[derive(Debug)]
pub(super) struct Adapter {
    fs: Arc<Fs>,
    /// Set once there is a session.
    notifier: Arc<OnceLock<Notifier>>,
}

/// Numbers are never given to another object, so there is only one generation.
const GENERATION: Generation = Generation(0);
/// There are no handles.
const NO_HANDLE: FileHandle = FileHandle(0);

/// Replies with the value, or with the error's errno.
macro_rules! answer {
    ($reply:ident, $result:expr, |$value:ident| $answer:expr) => {
        match $result {
            Ok($value) => $answer,
            Err(error) => $reply.error(errno(&error)),
        }
    };
}

impl Adapter {
    pub(super) fn new(fs: Arc<Fs>, notifier: Arc<OnceLock<Notifier>>) -> Self {
        Self { fs, notifier }
    }

    /// Before a reader is told that there are no more names: the kernel forgets what was put together from several
    /// states of the directory, because it would go on giving it to readers who began after the last change.
    fn at_end(&self, number: INodeNo, heard: Heard) {
        if let (Heard::End { mixed: true }, Some(notifier)) = (heard, self.notifier.get())
            && let Err(error) = notifier.inval_inode(number, 0, 0)
        {
            tracing::debug!("inode {}: listing not dropped: {error}", number.0);
        }
    }

    fn create(
        &self,
        request: &Request,
        at: (INodeNo, &OsStr),
        what: What<'_>,
        modes: (u32, u32),
    ) -> Result<Attr, FsError> {
        let (mode, umask) = (mode_bits(modes.0), mode_bits(modes.1));
        self.fs.create(ino(at.0), name(at.1)?, &New { what, mode, umask, caller: caller(request) })
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities();
        if !offered.contains(NEEDED) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel's FUSE is too old (before Linux 5.1)",
            ));
        }
        let refused = |_| io::Error::other("the kernel takes back what its FUSE offered");
        config.add_capabilities(WANTED & offered).map_err(refused)?;
        let clamped = |_| io::Error::other("the kernel refuses writes of 1 MiB");
        config.set_max_write(WRITE_BYTES_MAX).map(drop).map_err(clamped)
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEntry) {
        let found = name(child).and_then(|child| self.fs.lookup(ino(parent), child));
        answer!(reply, found, |attr| {
            let attr = attr.as_ref().map_or_else(nothing, file_attr);
            reply.entry(&FOR_EVER, &attr, GENERATION);
        });
    }

    fn forget(&self, _request: &Request, number: INodeNo, count: u64) {
        self.fs.forget(ino(number), count);
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.fs.getattr(ino(number)), |attr| reply.attr(&FOR_EVER, &file_attr(&attr)));
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let times = (atime.map(set_time), mtime.map(set_time));
        let set = Change { mode: mode.map(mode_bits), uid, gid, size, atime: times.0, mtime: times.1 };
        let result = self.fs.setattr(ino(number), caller(request), &set);
        answer!(reply, result, |attr| reply.attr(&FOR_EVER, &file_attr(&attr)));
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        answer!(reply, self.fs.read_link(ino(number)), |target| reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let what = match FileKind::from_st_mode(mode) {
            Some(FileKind::Regular) => What::File,
            Some(
                kind @ (FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket),
            ) => What::Special(kind, DeviceId::decode(rdev)),
            _ => return reply.error(Errno::EINVAL),
        };
        let made = self.create(request, (parent, child), what, (mode, umask));
        answer!(reply, made, |attr| reply.entry(&FOR_EVER, &file_attr(&attr), GENERATION));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.create(request, (parent, child), What::Dir, (mode, umask));
        answer!(reply, made, |attr| reply.entry(&FOR_EVER, &file_attr(&attr), GENERATION));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, child: &OsStr, target: &Path, reply: ReplyEntry) {
        let what = What::Symlink(target.as_os_str().as_bytes());
        let made = self.create(request, (parent, child), what, (0o777, 0));
        answer!(reply, made, |attr| reply.entry(&FOR_EVER, &file_attr(&attr), GENERATION));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = Self::create(self, request, (parent, child), What::File, (mode, umask));
        answer!(reply, made, |attr| {
            reply.created(&FOR_EVER, &file_attr(&attr), GENERATION, NO_HANDLE, FopenFlags::FOPEN_KEEP_CACHE);
        });
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        let result = name(child).and_then(|child| self.fs.unlink(ino(parent), child));
        answer!(reply, result, |_done| reply.ok());
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        let result = name(child).and_then(|child| self.fs.rmdir(ino(parent), child));
        answer!(reply, result, |_done| reply.ok());
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        new_parent: INodeNo,
        new_child: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            // Nothing is there if NOREPLACE comes with it: the kernel has looked, and holds both directories' locks.
            flags if flags.contains(RenameFlags::RENAME_WHITEOUT) => RenameMode::LeaveDevice(caller(request)),
            flags if flags.is_empty() => RenameMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let rename = || {
            let from = End { parent: ino(parent), name: name(child)? };
            self.fs.rename(from, End { parent: ino(new_parent), name: name(new_child)? }, mode)
        };
        answer!(reply, rename(), |_done| reply.ok());
    }

    fn link(&self, _request: &Request, number: INodeNo, parent: INodeNo, child: &OsStr, reply: ReplyEntry) {
        let made = name(child).and_then(|child| self.fs.link(ino(number), ino(parent), child));
        answer!(reply, made, |attr| reply.entry(&FOR_EVER, &file_attr(&attr), GENERATION));
    }

    fn open(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(0)];
        let result = self.fs.read(ino(number), offset, &mut buffer);
        answer!(reply, result, |count| reply.data(&buffer[..count]));
    }

    fn write(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let sheds = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID).then(|| caller(request));
        let result = self.fs.write(ino(number), offset, data, sheds);
        // A request is at most WRITE_BYTES_MAX long.
        answer!(reply, result, |count| reply.written(u32::try_from(count).unwrap_or(0)));
    }

    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.fs.fsync(ino(number), data_only), |_done| reply.ok());
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.fs.fsync_dir(ino(number)), |_done| reply.ok());
    }

    fn readdir(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let result = self.fs.readdir(ino(number), offset, false, &mut |entry, _| {
            let name = OsStr::from_bytes(entry.name.as_bytes());
            !reply.add(INodeNo(entry.ino.0), entry.next, file_type(entry.kind), name)
        });
        let result = result.inspect(|heard| self.at_end(number, *heard));
        answer!(reply, result, |_heard| reply.ok());
    }

    fn readdirplus(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let result = self.fs.readdir(ino(number), offset, true, &mut |entry, attr| {
            let name = OsStr::from_bytes(entry.name.as_bytes());
            let attr = attr.map_or_else(nothing, file_attr);
            !reply.add(INodeNo(entry.ino.0), entry.next, name, &FOR_EVER, &attr, GENERATION)
        });
        let result = result.inspect(|heard| self.at_end(number, *heard));
        answer!(reply, result, |_heard| reply.ok());
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        answer!(reply, self.fs.statfs(), |space| reply.statfs(
            space.blocks,
            space.blocks_free,
            space.blocks_available,
            space.files,
            space.files_free,
            space.block_bytes,
            space.name_bytes_max,
            space.block_bytes,
        ));
    }

    fn setxattr(
        &self,
        request: &Request,
        number: INodeNo,
        attribute: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let flags = u32::try_from(flags).unwrap_or(u32::MAX);
        let (number, name) = (ino(number), attribute.as_bytes());
        let result = self.fs.setxattr(number, name, value, flags);
        let result = result.and_then(|()| self.fs.after_xattr(number, name, caller(request)));
        answer!(reply, result, |_done| reply.ok());
    }

    fn getxattr(&self, _request: &Request, number: INodeNo, attribute: &OsStr, size: u32, reply: ReplyXattr) {
        let result = self.fs.getxattr(ino(number), attribute.as_bytes());
        answer!(reply, result, |value| sized(reply, size, &value));
    }

    fn listxattr(&self, request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let list = self.fs.listxattr_for(ino(number), caller(request)).map(|names| {
            names.into_iter().flat_map(|mut name| {
                name.push(0);
                name
            })
        });
        answer!(reply, list, |bytes| sized(reply, size, &bytes.collect::<Vec<u8>>()));
    }

    fn removexattr(&self, _request: &Request, number: INodeNo, attribute: &OsStr, reply: ReplyEmpty) {
        let result = self.fs.removexattr(ino(number), attribute.as_bytes());
        answer!(reply, result, |_done| reply.ok());
    }

    fn fallocate(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = u32::try_from(mode).unwrap_or(u32::MAX);
        let result = self.fs.shed_privileges(ino(number), caller(request));
        let result = result.and_then(|()| self.fs.fallocate(ino(number), mode, offset, length));
        answer!(reply, result, |_done| reply.ok());
    }

    fn lseek(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        // SEEK_DATA and SEEK_HOLE (lseek(2)); the kernel answers the others itself.
        let seek = match (u64::try_from(offset), whence) {
            (Ok(offset), 3) => Seek::Data(offset),
            (Ok(offset), 4) => Seek::Hole(offset),
            _ => return reply.error(Errno::EINVAL),
        };
        answer!(reply, self.fs.seek(ino(number), seek), |offset| reply
            .offset(i64::try_from(offset).unwrap_or(i64::MAX)));
    }

    fn copy_file_range(
        &self,
        request: &Request,
        number_in: INodeNo,
        _handle_in: FileHandle,
        offset_in: u64,
        number_out: INodeNo,
        _handle_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // At most what the reply can count.
        let len = usize::try_from(len.min(1 << 30)).unwrap_or(0);
        let shed = self.fs.shed_privileges(ino(number_out), caller(request));
        let copy =
            || self.fs.copy_file_range((ino(number_in), offset_in), (ino(number_out), offset_out), len);
        let result = shed.and_then(|()| copy());
        answer!(reply, result, |count| reply.written(u32::try_from(count).unwrap_or(0)));
    }
}

/// An attribute's answer: its length when asked with size 0, else its bytes if they fit (getxattr(2)).
fn sized(reply: ReplyXattr, size: u32, bytes: &[u8]) {
    match u32::try_from(bytes.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(bytes),
        _ => reply.error(Errno::ERANGE),
    }
}
