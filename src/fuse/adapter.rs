//! One method per request: decode, call, reply.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::convert::{
    caller, errno, file_type, ino, mode_bits, name, nothing, rename_mode, seek, set_time, special,
};
use super::mounted::{Adapter, sized};
use super::opened::{How, kept};
use super::policy::{FOR_EVER, Writes};
use super::requests::Kind;
use crate::fs::End;
use crate::model::stats;
use crate::upper::{Change, What};

/// Numbers are never given to another object, so there is only one generation.
const GENERATION: Generation = Generation(0);
/// There are no handles.
const NO_HANDLE: FileHandle = FileHandle(0);

/// Replies with the value, or with the error's errno; what `$asked` begins ends before.
macro_rules! answer {
    ($asked:expr, $reply:ident, $result:expr, |$value:pat_param| $answer:expr) => {{
        let asked = $asked;
        match $result {
            Ok($value) => {
                asked.answered();
                $answer
            }
            Err(error) => $reply.error(asked.failed(errno(&error))),
        }
    }};
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.writes.agree(config)
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEntry) {
        let find = || self.fs.lookup(ino(parent), name(child)?);
        answer!(self.begin(Kind::Lookup), reply, find(), |attr| {
            let valid = attr.as_ref().map_or(FOR_EVER, |attr| self.valid_for(attr));
            let attr = attr.as_ref().map_or_else(nothing, |attr| self.shown(attr));
            reply.entry_with_ttls(&FOR_EVER, &valid, &attr, GENERATION);
        });
    }

    fn forget(&self, _request: &Request, number: INodeNo, count: u64) {
        self.requests.forgotten.add(1);
        self.fs.forget(ino(number), count);
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        answer!(self.begin(Kind::Getattr), reply, self.fs.getattr(ino(number)), |attr| reply
            .attr(&self.valid_for(&attr), &self.shown(&attr)));
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
        ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let times = (atime.map(set_time), mtime.map(set_time));
        let set = Change { mode: mode.map(mode_bits), uid, gid, size, atime: times.0, mtime: times.1 };
        let kept = Change { mtime: set.mtime, ..Change::default() };
        let change = || match (ctime, set.mtime) {
            // With a ctime the kernel hands over times that it kept ([`Writes::Back`]), or a program sets this one there.
            (Some(_), Some(mtime)) if set == kept => self.fs.keep_mtime(ino(number), caller(request), mtime),
            _ => self.fs.setattr(ino(number), caller(request), &set),
        };
        answer!(self.begin(Kind::Setattr), reply, change(), |attr| reply
            .attr(&self.valid_for(&attr), &self.shown(&attr)));
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        answer!(self.begin(Kind::Readlink), reply, self.fs.read_link(ino(number)), |target| reply
            .data(&target));
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
        let Some(what) = special(mode, rdev) else {
            return reply.error(self.requests.refused(Kind::Mknod, Errno::EINVAL));
        };
        let make = || self.create(request, (parent, child), what, (mode, umask));
        answer!(self.begin(Kind::Mknod), reply, make(), |attr| reply.entry(
            &FOR_EVER,
            &self.shown(&attr),
            GENERATION
        ));
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
        let make = || self.create(request, (parent, child), What::Dir, (mode, umask));
        answer!(self.begin(Kind::Mkdir), reply, make(), |attr| reply.entry(
            &FOR_EVER,
            &self.shown(&attr),
            GENERATION
        ));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, child: &OsStr, target: &Path, reply: ReplyEntry) {
        let what = What::Symlink(target.as_os_str().as_bytes());
        let make = || self.create(request, (parent, child), what, (0o777, 0));
        answer!(self.begin(Kind::Symlink), reply, make(), |attr| reply.entry(
            &FOR_EVER,
            &self.shown(&attr),
            GENERATION
        ));
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
        let at = (parent, child);
        let make = || self.create_open(request, at, (mode, umask), |file| reply.open_backing(file));
        answer!(self.begin(Kind::Create), reply, make(), |(attr, how)| {
            let attr = self.shown(&attr);
            match how {
                How::Passed(id) => {
                    reply.created_passthrough(
                        &FOR_EVER,
                        &attr,
                        GENERATION,
                        NO_HANDLE,
                        FopenFlags::empty(),
                        &id,
                    );
                }
                How::Asked { keeps } => reply.created(&FOR_EVER, &attr, GENERATION, NO_HANDLE, kept(keeps)),
            }
        });
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        let remove = || self.fs.unlink(ino(parent), name(child)?);
        answer!(self.begin(Kind::Unlink), reply, remove(), |_done| reply.ok());
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        let remove = || self.fs.rmdir(ino(parent), name(child)?);
        answer!(self.begin(Kind::Rmdir), reply, remove(), |_done| reply.ok());
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
        let Some(mode) = rename_mode(flags, request) else {
            return reply.error(self.requests.refused(Kind::Rename, Errno::EINVAL));
        };
        let rename = || {
            let from = End { parent: ino(parent), name: name(child)? };
            self.fs.rename(from, End { parent: ino(new_parent), name: name(new_child)? }, mode)
        };
        answer!(self.begin(Kind::Rename), reply, rename(), |_done| reply.ok());
    }

    fn link(&self, _request: &Request, number: INodeNo, parent: INodeNo, child: &OsStr, reply: ReplyEntry) {
        let make = || self.fs.link(ino(number), ino(parent), name(child)?);
        answer!(self.begin(Kind::Link), reply, make(), |attr| reply.entry(
            &FOR_EVER,
            &self.shown(&attr),
            GENERATION
        ));
    }

    fn open(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let Some(opened) = &self.opened else {
            return reply.error(self.requests.refused(Kind::Open, Errno::ENOSYS));
        };
        let asked = self.begin(Kind::Open);
        let how = opened.open(&self.fs, ino(number), |file| reply.open_backing(file));
        asked.answered();
        match how {
            How::Passed(id) => reply.opened_passthrough(NO_HANDLE, FopenFlags::empty(), &id),
            How::Asked { keeps } => reply.opened(NO_HANDLE, kept(keeps)),
        }
    }

    fn opendir(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(self.requests.refused(Kind::Opendir, Errno::ENOSYS));
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
        let asked = self.begin(Kind::Read);
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(0)];
        answer!(asked, reply, self.fs.read(ino(number), offset, &mut buffer), |count| {
            self.requests.read_bytes.add(count as u64);
            reply.data(&buffer[..count]);
        });
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
        let kept = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let write = || match kept {
            true => self.fs.write_all(ino(number), offset, data, sheds).map(|()| data.len()),
            false => self.fs.write(ino(number), offset, data, sheds),
        };
        answer!(self.begin(Kind::Write), reply, write(), |count| {
            self.requests.written_bytes.add(count as u64);
            // A request is at most WRITE_BYTES_MAX long.
            reply.written(u32::try_from(count).unwrap_or(0));
        });
    }

    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(self.requests.refused(Kind::Flush, Errno::ENOSYS));
    }

    fn release(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let asked = self.begin(Kind::Release);
        self.opened.iter().for_each(|opened| opened.release(ino(number)));
        asked.answered();
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
        answer!(self.begin(Kind::Fsync), reply, self.fs.fsync(ino(number), data_only), |_done| reply.ok());
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        answer!(self.begin(Kind::Fsyncdir), reply, self.fs.fsync_dir(ino(number)), |_done| reply.ok());
    }

    fn readdir(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let asked = self.begin(Kind::Readdir);
        let result = self.fs.readdir(ino(number), offset, false, &mut |entry, _| {
            let name = OsStr::from_bytes(entry.name.as_bytes());
            !reply.add(INodeNo(entry.ino.0), entry.next, file_type(entry.kind), name)
        });
        let result = result.inspect(|heard| self.at_end(number, *heard));
        answer!(asked, reply, result, |_heard| reply.ok());
    }

    fn readdirplus(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let asked = self.begin(Kind::Readdirplus);
        let result = self.fs.readdir(ino(number), offset, true, &mut |entry, attr| {
            let name = OsStr::from_bytes(entry.name.as_bytes());
            let valid = attr.map_or(FOR_EVER, |attr| self.valid_for(attr));
            let attr = attr.map_or_else(nothing, |attr| self.shown(attr));
            !reply.add(INodeNo(entry.ino.0), entry.next, name, &valid, &attr, GENERATION)
        });
        let result = result.inspect(|heard| self.at_end(number, *heard));
        answer!(asked, reply, result, |_heard| reply.ok());
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        answer!(self.begin(Kind::Statfs), reply, self.fs.statfs(), |space| reply.statfs(
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
        let set = || {
            self.fs.setxattr(number, name, value, flags)?;
            self.fs.after_xattr(number, name, caller(request))
        };
        answer!(self.begin(Kind::Setxattr), reply, set(), |_done| reply.ok());
    }

    fn getxattr(&self, request: &Request, number: INodeNo, attribute: &OsStr, size: u32, reply: ReplyXattr) {
        if attribute == stats::ATTRIBUTE {
            // Not counted: who looks often should not see himself.
            return match self.told_to(&caller(request)) {
                Ok(stats) => sized(reply, size, &stats),
                Err(error) => reply.error(error),
            };
        }
        let get = || self.fs.getxattr(ino(number), attribute.as_bytes());
        answer!(self.begin(Kind::Getxattr), reply, get(), |value| sized(reply, size, &value));
    }

    fn listxattr(&self, request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let list = || self.fs.listxattr_for(ino(number), caller(request));
        answer!(self.begin(Kind::Listxattr), reply, list(), |names| {
            let ended = |name: Vec<u8>| name.into_iter().chain([0]);
            sized(reply, size, &names.into_iter().flat_map(ended).collect::<Vec<u8>>());
        });
    }

    fn removexattr(&self, _request: &Request, number: INodeNo, attribute: &OsStr, reply: ReplyEmpty) {
        let remove = || self.fs.removexattr(ino(number), attribute.as_bytes());
        answer!(self.begin(Kind::Removexattr), reply, remove(), |_done| reply.ok());
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
        let allocate = || {
            self.fs.shed_privileges(ino(number), caller(request))?;
            self.fs.fallocate(ino(number), mode, offset, length)
        };
        answer!(self.begin(Kind::Fallocate), reply, allocate(), |_done| reply.ok());
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
        if self.writes == Writes::Back {
            // The kernel does not hand over before what it keeps: data would be taken for a hole. After this answer it
            // says that all is data.
            return reply.error(self.requests.refused(Kind::Lseek, Errno::ENOSYS));
        }
        let Some(seek) = seek(offset, whence) else {
            return reply.error(self.requests.refused(Kind::Lseek, Errno::EINVAL));
        };
        answer!(self.begin(Kind::Lseek), reply, self.fs.seek(ino(number), seek), |offset| reply
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
        let copy = || {
            self.fs.shed_privileges(ino(number_out), caller(request))?;
            self.fs.copy_file_range((ino(number_in), offset_in), (ino(number_out), offset_out), len)
        };
        answer!(self.begin(Kind::CopyFileRange), reply, copy(), |count| reply
            .written(u32::try_from(count).unwrap_or(0)));
    }

    fn ioctl(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(self.requests.refused(Kind::Ioctl, Errno::ENOSYS));
    }
}
