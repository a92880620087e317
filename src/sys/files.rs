//! The system calls that the writable layer is made of, as rustix has them, each a place where a test can let it fail.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    Access, AtFlags, Dev, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, SeekFrom,
    StatVfs, Statx, StatxFlags, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

use super::fault;
#[cfg(test)]
use super::power;

macro_rules! system_calls {
    ($($(#[$doc:meta])* $module:ident::$name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// What the system says.
            pub fn $name($($arg: $type),*) -> Result<$result> {
                fault::point(stringify!($name))?;
                rustix::$module::$name($($arg),*)
            }
        )*
    };
}

system_calls! {
    /// openat(2)
    fs::openat(dir: impl AsFd, path: impl Arg, flags: OFlags, mode: Mode) -> OwnedFd;
    /// openat2(2)
    fs::openat2(dir: impl AsFd, path: impl Arg, flags: OFlags, mode: Mode, resolve: ResolveFlags) -> OwnedFd;
    /// statx(2)
    fs::statx(dir: impl AsFd, path: impl Arg, flags: AtFlags, mask: StatxFlags) -> Statx;
    /// faccessat2(2)
    fs::accessat(dir: impl AsFd, path: impl Arg, access: Access, flags: AtFlags) -> ();
    /// mkdirat(2)
    fs::mkdirat(dir: impl AsFd, path: impl Arg, mode: Mode) -> ();
    /// mknodat(2)
    fs::mknodat(dir: impl AsFd, path: impl Arg, kind: FileType, mode: Mode, dev: Dev) -> ();
    /// symlinkat(2)
    fs::symlinkat(target: impl Arg, dir: impl AsFd, path: impl Arg) -> ();
    /// linkat(2)
    fs::linkat(from: impl AsFd, path: impl Arg, to: impl AsFd, new: impl Arg, flags: AtFlags) -> ();
    /// unlinkat(2)
    fs::unlinkat(dir: impl AsFd, path: impl Arg, flags: AtFlags) -> ();
    /// renameat(2)
    fs::renameat(from: impl AsFd, path: impl Arg, to: impl AsFd, new: impl Arg) -> ();
    /// renameat2(2)
    fs::renameat_with(from: impl AsFd, path: impl Arg, to: impl AsFd, new: impl Arg, flags: RenameFlags) -> ();
    /// fchmodat(2)
    fs::chmodat(dir: impl AsFd, path: impl Arg, mode: Mode, flags: AtFlags) -> ();
    /// fchownat(2)
    fs::chownat(dir: impl AsFd, path: impl Arg, uid: Option<Uid>, gid: Option<Gid>, flags: AtFlags) -> ();
    /// utimensat(2)
    fs::utimensat(dir: impl AsFd, path: impl Arg, times: &Timestamps, flags: AtFlags) -> ();
    /// readlinkat(2)
    fs::readlinkat(dir: impl AsFd, path: impl Arg, buffer: Vec<u8>) -> CString;
    /// getxattr(2)
    fs::getxattr(path: impl Arg, name: impl Arg, value: &mut [u8]) -> usize;
    /// listxattr(2)
    fs::listxattr(path: impl Arg, list: &mut [u8]) -> usize;
    /// setxattr(2)
    fs::setxattr(path: impl Arg, name: impl Arg, value: &[u8], flags: XattrFlags) -> ();
    /// removexattr(2)
    fs::removexattr(path: impl Arg, name: impl Arg) -> ();
    /// fstatvfs(3)
    fs::fstatvfs(file: impl AsFd) -> StatVfs;
    /// lseek(2)
    fs::seek(file: impl AsFd, to: SeekFrom) -> u64;
    /// pread(2)
    io::pread(file: impl AsFd, buffer: &mut [u8], offset: u64) -> usize;
}

/// What a power cut may take, or what keeps it from that: tests note it.
macro_rules! durability_calls {
    ($($(#[$doc:meta])* $module:ident::$name:ident($file:ident $(, $arg:ident: $type:ty)*) -> $result:ty {
        $(before $before:expr;)? $(after $after:expr;)?
    })*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// What the system says.
            pub fn $name($file: impl AsFd $(, $arg: $type)*) -> Result<$result> {
                fault::point(stringify!($name))?;
                let $file = $file.as_fd();
                $(
                    #[cfg(test)]
                    $before;
                )?
                let result = rustix::$module::$name($file $(, $arg)*)?;
                $(
                    #[cfg(test)]
                    $after;
                )?
                Ok(result)
            }
        )*
    };
}

durability_calls! {
    /// fsync(2)
    fs::fsync(file) -> () { after power::flushed(file); }
    /// syncfs(2)
    fs::syncfs(file) -> () { after power::flushed_all(); }
    /// fdatasync(2)
    fs::fdatasync(file) -> () { after power::flushed(file); }
    /// ftruncate(2)
    fs::ftruncate(file, len: u64) -> () { after power::resized(file); }
    /// fallocate(2)
    fs::fallocate(file, mode: FallocateFlags, offset: u64, len: u64) -> () {
        after if !mode.contains(FallocateFlags::KEEP_SIZE) { power::resized(file) };
    }
    /// pwrite(2)
    io::pwrite(file, bytes: &[u8], offset: u64) -> usize { before power::writes(file, offset, bytes.len()); }
}

/// copy_file_range(2)
///
/// # Errors
/// What the system says.
pub fn copy_file_range(
    from: impl AsFd,
    from_offset: Option<&mut u64>,
    to: impl AsFd,
    to_offset: &mut u64,
    len: usize,
) -> Result<usize> {
    fault::point("copy_file_range")?;
    #[cfg(test)]
    power::writes(to.as_fd(), *to_offset, len);
    rustix::fs::copy_file_range(from, from_offset, to, Some(to_offset), len)
}

/// Removes the file of that name, if it still is the one with this device and inode number; whether it was. One that takes
/// the name between the look and the removal goes in its place: for files that can be made again.
///
/// # Errors
/// As statx(2) and unlinkat(2).
pub fn unlink_same(dir: impl AsFd, name: impl Arg + Copy, id: (u64, u64)) -> Result<bool> {
    let found = statx(&dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO)?;
    let is_same = (rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino) == id;
    if is_same {
        unlinkat(&dir, name, AtFlags::empty())?;
    }
    Ok(is_same)
}

/// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
///
/// # Errors
/// What pread(2) says.
pub fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match pread(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all of `bytes` at `offset`.
///
/// # Errors
/// What pwrite(2) says; some of the bytes may have been written.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        done += write_some_at(file, &bytes[done..], offset + done as u64)?;
    }
    Ok(())
}

/// Writes as many of `bytes` at `offset` as there is room for, and returns how many.
///
/// # Errors
/// What pwrite(2) says of the first.
pub fn write_some_at(file: &File, bytes: &[u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match pwrite(file, &bytes[done..], offset + done as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
