#!/usr/bin/env python3
"""Does each operation it is told upon two trees, layerfs and the oracle, and says how they differ.

Reads one command a line, answers one line: `= RESULT` when both gave the same, `! WHAT` when not. Each tree has its
own descriptors, mappings, locks and working directory here; several workers make several processes.
"""

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import re
import signal
import stat
import struct
import sys

import random_layers

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, STATX_BTIME = -100, 0x100, 0x1000, 0x800
SYS_GETDENTS64, SYS_STATX = 217, 332
# Names under which no program may keep anything: layerfs's own marks. The oracle would just store them.
CHUNK = 1 << 20
ZEROS = bytes(CHUNK)
READ_WHOLE_MAX = 32 << 20


class Skip(Exception):
    """What layerfs may answer although the oracle would not; the oracle is left alone then."""


def check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def open_now(path, flags, mode=0):
    """Does not wait for the other end of a fifo."""
    return os.open(path, flags | os.O_NONBLOCK, mode)


def bytes_of(length, seed):
    return random_layers.noise(length, seed)


def digest(data):
    return hashlib.sha1(data).hexdigest()[:16]


class Side:
    """One of the two trees."""

    def __init__(self, root, ours):
        self.root, self.ours = root, ours
        self.here = os.open(root, os.O_PATH | os.O_DIRECTORY)
        self.files, self.maps, self.inodes = {}, {}, {}

    def close(self):
        for mapping in self.maps.values():
            mapping.close()
        self.maps.clear()
        for fd in [*self.files.values(), self.here]:
            try:
                if fd is not None:
                    os.close(fd)
            except OSError as error:
                # Its server was killed.
                if error.errno != errno.ENOTCONN:
                    raise
        self.files.clear()
        self.inodes.clear()
        self.here = None

    def reopen(self):
        self.here = os.open(self.root, os.O_PATH | os.O_DIRECTORY)

    def keep(self, slot, fd):
        if slot in self.files:
            os.close(self.files[slot])
        self.files[slot] = fd
        self.inodes[slot] = os.fstat(fd).st_ino

    def fd(self, slot):
        if slot not in self.files:
            raise OSError(errno.EBADF, "no such slot")
        return self.files[slot]


# ---- names

def op_mkdir(side, path, mode):
    os.mkdir(path, int(mode, 8))


def op_create(side, path, mode):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, int(mode, 8)))


def op_mknod(side, path, kind, mode):
    kinds = {"fifo": stat.S_IFIFO, "sock": stat.S_IFSOCK, "null": stat.S_IFCHR, "zero": stat.S_IFCHR, "file": stat.S_IFREG}
    device = os.makedev(1, 3) if kind == "null" else 0
    os.mknod(path, kinds[kind] | int(mode, 8), device)


def op_symlink(side, path, target):
    os.symlink(target, path)


def op_link(side, old, new):
    os.link(old, new, follow_symlinks=False)


def op_unlink(side, path):
    os.unlink(path)


def op_rmdir(side, path):
    os.rmdir(path)


def op_rename(side, old, new, flags):
    try:
        check(LIBC.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), int(flags)))
    except OSError as error:
        if side.ours and int(flags) == 4 and error.errno == errno.EINVAL:
            raise Skip from error
        if int(flags) == 4:
            # ext4 takes its whiteout back, and the directory's time shows it.
            touch_if_allowed(os.path.dirname(old) or ".")
        raise


def touch_if_allowed(path):
    try:
        os.utime(path, follow_symlinks=False)
    except OSError:
        pass


def entries(fd, size):
    """(name, position after it) as getdents64 gives them with a buffer of `size` bytes."""
    buffer = ctypes.create_string_buffer(size)
    while count := check(LIBC.syscall(SYS_GETDENTS64, fd, buffer, size)):
        at = 0
        while at < count:
            _, position, length, _ = struct.unpack_from("<QqHB", buffer, at)
            yield buffer.raw[at + 19:at + length].split(b"\0", 1)[0].decode(), position
            at += length


def op_rmtree(side, path, size):
    """Removes while reading, as rm -r does, all that the caller may."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, _ in entries(fd, int(size)):
            inner = f"{path}/{name}"
            try:
                if name in (".", ".."):
                    continue
                if stat.S_ISDIR(os.lstat(inner).st_mode):
                    op_rmtree(side, inner, size)
                else:
                    os.unlink(inner)
            except OSError:
                pass
    finally:
        os.close(fd)
    os.rmdir(path)


def op_list(side, path, size, restart):
    """All names, read in pieces; then again from a position in between."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = list(entries(fd, int(size)))
        names = [name for name, _ in found]
        if len(set(names)) != len(names):
            return f"twice: {sorted(names)}"
        at = min(int(restart), len(found) - 1)
        os.lseek(fd, found[at][1], os.SEEK_SET)
        again = [name for name, _ in entries(fd, int(size))]
        if again != names[at + 1:]:
            return f"from {at} on: {again}, not {names[at + 1:]}"
        return " ".join(sorted(names))
    finally:
        os.close(fd)


def op_scan(side, path, size, victim):
    """Names seen by a reader during whose reading one goes away and one comes."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        before = set(os.listdir(path))
        seen, done = [], False
        for name, _ in entries(fd, int(size)):
            seen.append(name)
            if not done:
                done = True
                gone = sorted(before)[int(victim) % len(before)] if before else "none"
                try:
                    os.unlink(f"{path}/{gone}")
                    before.discard(gone)
                except OSError:
                    pass
                os.close(os.open(f"{path}/scanned", os.O_CREAT | os.O_WRONLY, 0o644))
        if len(set(seen)) != len(seen):
            return f"twice: {sorted(seen)}"
        return "missed: " + " ".join(sorted(before - set(seen)))
    finally:
        os.close(fd)


def op_chdir(side, path):
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        # Nothing can be done in one that may not be searched.
        os.fchdir(fd)
    except OSError:
        os.close(fd)
        raise
    os.close(side.here)
    side.here = fd


def op_home(side):
    os.close(side.here)
    side.reopen()


def op_stat(side, path):
    return shown(os.lstat(path))


def shown(info):
    if stat.S_ISDIR(info.st_mode):
        return f"{info.st_mode:o} {info.st_uid}:{info.st_gid}"
    return f"{info.st_mode:o} {info.st_uid}:{info.st_gid} nlink {info.st_nlink} size {info.st_size}"


def op_umask(side, mask):
    os.umask(int(mask, 8))


def op_access(side, path, mode):
    return os.access(path, int(mode), effective_ids=True)


# ---- attributes

def is_ambiguous(target, mode):
    """A write by root takes capabilities away and keeps setuid, chown takes both; a FUSE server is told the same."""
    try:
        return mode & 0o6000 and "security.capability" in os.listxattr(target)
    except OSError:
        return False


def op_chmod(side, path, mode):
    if is_ambiguous(path, int(mode, 8)):
        return "not asked"
    # An ordinary user goes on working in it.
    floor = 0o700 if os.geteuid() != 0 and os.path.isdir(path) else 0
    os.chmod(path, int(mode, 8) | floor)


def skip_chown_of_nothing(side, info, ids):
    """FUSE does not tell chown(2) with both ids -1 from the first half of a write, which a stranger may do too."""
    loses = stat.S_ISREG(info.st_mode) and info.st_mode & (stat.S_ISUID | stat.S_ISGID)
    if side.ours and loses and ids == ("-1", "-1") and os.geteuid() not in (0, info.st_uid):
        raise Skip


def op_chown(side, path, uid, gid):
    skip_chown_of_nothing(side, os.lstat(path), (uid, gid))
    os.chown(path, int(uid), int(gid), follow_symlinks=False)


def op_utimens(side, path, atime, mtime):
    os.utime(path, ns=(int(atime), int(mtime)), follow_symlinks=False)
    info = os.lstat(path)
    # That of a symlink changes when the path leads through it.
    atime = "" if stat.S_ISLNK(info.st_mode) else info.st_atime_ns
    return f"{atime} {info.st_mtime_ns}"


def op_touch(side, path):
    os.utime(path, follow_symlinks=False)


def op_setxattr(side, path, name, length, seed, flags):
    value = bytes_of(int(length), int(seed))
    os.setxattr(path, name, value, int(flags), follow_symlinks=False)


def op_rmxattr(side, path, name):
    os.removexattr(path, name, follow_symlinks=False)


def op_setcap(side, path):
    if os.lstat(path).st_mode & 0o6000:
        return "not asked"
    value = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
    os.setxattr(path, "security.capability", value, follow_symlinks=False)


def op_setacl(side, path, which, uid, bits):
    """An ACL with one more user: acl(5) as the kernel's attribute has it."""
    entry = lambda tag, perm, number=0xffffffff: struct.pack("<HHI", tag, perm, number)
    acl = struct.pack("<I", 2) + entry(1, 7) + entry(2, int(bits), int(uid)) + entry(4, 5) + entry(16, 7) + entry(32, 4)
    try:
        os.setxattr(path, f"system.posix_acl_{which}", acl, follow_symlinks=False)
    except OSError as error:
        # Where everything is shown as one user's, ACLs are refused.
        if side.ours and error.errno == errno.EOPNOTSUPP and os.getuid() != 0:
            raise Skip from error
        raise


# ---- content by path

def op_write(side, path, offset, length, seed):
    fd = open_now(path, os.O_WRONLY)
    try:
        return os.pwrite(fd, bytes_of(int(length), int(seed)), int(offset))
    finally:
        os.close(fd)


def op_read(side, path, offset, length):
    fd = open_now(path, os.O_RDONLY)
    try:
        return digest(os.pread(fd, int(length), int(offset)))
    finally:
        os.close(fd)


def op_readpart(side, path, offset, length):
    """Without the zeros at its end, which are there or not as others make the file longer."""
    fd = open_now(path, os.O_RDONLY)
    try:
        return digest(os.pread(fd, int(length), int(offset)).rstrip(b"\0"))
    finally:
        os.close(fd)


def op_append(side, path, length, seed):
    fd = open_now(path, os.O_WRONLY | os.O_APPEND)
    try:
        return os.write(fd, bytes_of(int(length), int(seed)))
    finally:
        os.close(fd)


def op_replace(side, path, length, seed):
    """What a shell's > does."""
    fd = open_now(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        return os.write(fd, bytes_of(int(length), int(seed)))
    finally:
        os.close(fd)


def op_truncate(side, path, size):
    os.truncate(path, int(size))


def op_direct(side, path, what, block, blocks, seed):
    """O_DIRECT, in whole blocks of 4 KiB."""
    length = int(blocks) * 4096
    buffer = mmap.mmap(-1, length)
    fd = open_now(path, (os.O_WRONLY if what == "write" else os.O_RDONLY) | os.O_DIRECT)
    try:
        if what == "write":
            buffer.write(bytes_of(length, int(seed)))
            return os.pwritev(fd, [buffer], int(block) * 4096)
        count = os.preadv(fd, [buffer], int(block) * 4096)
        return digest(buffer[:count])
    finally:
        os.close(fd)
        buffer.close()


def allocate(side, fd, mode, offset, length):
    number = int(mode)
    try:
        result = LIBC.fallocate(fd, number, ctypes.c_long(int(offset)), ctypes.c_long(int(length)))
        check(result)
    except OSError as error:
        # Collapsing and inserting never reach a FUSE server.
        if side.ours and error.errno == errno.EOPNOTSUPP and number & 0x28:
            raise Skip from error
        raise


def op_fallocate(side, path, mode, offset, length):
    fd = open_now(path, os.O_RDWR)
    try:
        allocate(side, fd, mode, offset, length)
    finally:
        os.close(fd)


def copy_range(source, target, offset_in, offset_out, length):
    done, length = 0, int(length)
    while done < length:
        count = os.copy_file_range(source, target, length - done, int(offset_in) + done, int(offset_out) + done)
        if count == 0:
            break
        done += count
    return done


def op_copyrange(side, old, offset_in, new, offset_out, length):
    source = open_now(old, os.O_RDONLY)
    try:
        target = open_now(new, os.O_RDWR)
        try:
            return copy_range(source, target, offset_in, offset_out, length)
        finally:
            os.close(target)
    finally:
        os.close(source)


def op_holes(side, path):
    """What is said to be a hole must read as zeros; where holes are is the filesystem's own affair."""
    fd = open_now(path, os.O_RDONLY)
    try:
        return holes(fd)
    finally:
        os.close(fd)


def holes(fd):
    info, at = os.fstat(fd), 0
    if not stat.S_ISREG(info.st_mode) or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        return "nothing to read"
    size = info.st_size
    for start, end in pieces(fd, size):
        if start < at or end <= start or end > size:
            return f"a piece of data from {start} to {end} after {at}, size {size}"
        for offset in range(at, start, CHUNK):
            if os.pread(fd, min(CHUNK, start - offset), offset).strip(b"\0"):
                return f"data in the hole at {offset}"
        at = end
    for offset in range(at, size, CHUNK):
        if os.pread(fd, CHUNK, offset).strip(b"\0"):
            return f"data in the last hole at {offset}"
    try:
        os.lseek(fd, size, os.SEEK_DATA)
        return "data at the end"
    except OSError as error:
        return f"{size} {errno.errorcode[error.errno]}"


def pieces(fd, size):
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at


def op_appends(side, path, worker, count):
    """Many short appends; several workers do this at the same time."""
    fd = open_now(path, os.O_WRONLY | os.O_APPEND)
    try:
        for number in range(int(count)):
            os.write(fd, f"<{int(worker):02}:{number:08}>".encode())
    finally:
        os.close(fd)


def op_records(side, path):
    """What those wrote, whatever the order; then the file is emptied, because the order is nobody's."""
    fd = open_now(path, os.O_RDONLY)
    try:
        data = os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)
    records = sorted(re.findall(rb"<\d\d:\d{8}>", data))
    rest = digest(re.sub(rb"<\d\d:\d{8}>", b"", data))
    os.truncate(path, 0)
    return f"{len(records)} {digest(b''.join(records))} {rest}"


# ---- content by descriptor

def op_open(side, slot, path, flags):
    names = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR, "a": os.O_WRONLY | os.O_APPEND,
             "c": os.O_RDWR | os.O_CREAT, "t": os.O_RDWR | os.O_TRUNC, "p": os.O_PATH | os.O_NOFOLLOW}
    side.keep(int(slot), open_now(path, names[flags], 0o640))


def op_reopen(side, slot, into, flags):
    names = {"r": os.O_RDONLY, "rw": os.O_RDWR, "t": os.O_RDWR | os.O_TRUNC}
    side.keep(int(into), open_now(f"/proc/self/fd/{side.fd(int(slot))}", names[flags]))


def op_close(side, slot):
    os.close(side.fd(int(slot)))
    del side.files[int(slot)], side.inodes[int(slot)]


def op_fwrite(side, slot, offset, length, seed):
    return os.pwrite(side.fd(int(slot)), bytes_of(int(length), int(seed)), int(offset))


def op_fread(side, slot, offset, length):
    return digest(os.pread(side.fd(int(slot)), int(length), int(offset)))


def op_ftruncate(side, slot, size):
    os.ftruncate(side.fd(int(slot)), int(size))


def op_fchmod(side, slot, mode):
    if is_ambiguous(side.fd(int(slot)), int(mode, 8)):
        return "not asked"
    os.fchmod(side.fd(int(slot)), int(mode, 8))


def op_fchown(side, slot, uid, gid):
    skip_chown_of_nothing(side, os.fstat(side.fd(int(slot))), (uid, gid))
    os.fchown(side.fd(int(slot)), int(uid), int(gid))


def op_fsetxattr(side, slot, name, length, seed, flags):
    os.setxattr(side.fd(int(slot)), name, bytes_of(int(length), int(seed)), int(flags))


def op_futimens(side, slot, atime, mtime):
    os.utime(side.fd(int(slot)), ns=(int(atime), int(mtime)))


def op_fstat(side, slot):
    info = os.fstat(side.fd(int(slot)))
    if info.st_ino != side.inodes[int(slot)]:
        return f"inode number {side.inodes[int(slot)]} became {info.st_ino}"
    return shown(info)


def op_ffallocate(side, slot, mode, offset, length):
    allocate(side, side.fd(int(slot)), mode, offset, length)


def op_fcopyrange(side, source, offset_in, target, offset_out, length):
    return copy_range(side.fd(int(source)), side.fd(int(target)), offset_in, offset_out, length)


def op_fholes(side, slot):
    return holes(side.fd(int(slot)))


def op_fsync(side, slot):
    os.fsync(side.fd(int(slot)))


def op_fdatasync(side, slot):
    os.fdatasync(side.fd(int(slot)))


def op_syncdir(side, path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def op_map(side, slot, access):
    fd = side.fd(int(slot))
    info = os.fstat(fd)
    size = info.st_size
    # Sizes of directories are each filesystem's own: ext4 says 0 of one that was removed.
    if not stat.S_ISREG(info.st_mode) or size == 0 or size > READ_WHOLE_MAX:
        return "not mapped"
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if access == "rw" else 0)
    mapping = mmap.mmap(fd, size, mmap.MAP_SHARED, protection)
    if int(slot) in side.maps:
        side.maps[int(slot)].close()
    side.maps[int(slot)] = Mapping(mapping, os.dup(fd))


class Mapping:
    def __init__(self, mapping, fd):
        self.mapping, self.fd = mapping, fd

    def window(self, offset, length):
        """What of the range can be touched without SIGBUS."""
        size = min(len(self.mapping), os.fstat(self.fd).st_size)
        return min(offset, size), min(offset + length, size)

    def close(self):
        self.mapping.close()
        os.close(self.fd)


def mapping_of(side, slot):
    if int(slot) not in side.maps:
        raise OSError(errno.EBADF, "no such mapping")
    return side.maps[int(slot)]


def op_mapread(side, slot, offset, length):
    found = mapping_of(side, slot)
    start, end = found.window(int(offset), int(length))
    return digest(found.mapping[start:end])


def op_mapwrite(side, slot, offset, length, seed):
    found = mapping_of(side, slot)
    start, end = found.window(int(offset), int(length))
    try:
        found.mapping[start:end] = bytes_of(end - start, int(seed))
    except TypeError:
        return "read-only"
    if not side.ours:
        fd = os.open(mapped_list(side), os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"%d %d %d\n" % (os.fstat(found.fd).st_ino, *birth("", found.fd)))
        os.close(fd)
    return end - start


def mapped_list(oracle):
    """Names what was written through mappings, by any worker. A FUSE server hears of that when it is flushed, which may be
    after the program has set a time, so the mtime is not compared."""
    return oracle.root + ".mapped"


def mapped(oracle):
    with open(mapped_list(oracle), encoding="ascii") as file:
        lines = (tuple(map(int, line.split())) for line in file)
        return {(line[0], line[1:]) for line in lines}


def op_mapsync(side, slot):
    mapping_of(side, slot).mapping.flush()


def op_unmap(side, slot):
    mapping_of(side, slot).close()
    del side.maps[int(slot)]


def op_flock(side, slot, how):
    kinds = {"sh": fcntl.LOCK_SH, "ex": fcntl.LOCK_EX, "un": fcntl.LOCK_UN}
    fcntl.flock(side.fd(int(slot)), kinds[how] | fcntl.LOCK_NB)


def op_lockf(side, slot, how, start, length):
    kinds = {"sh": fcntl.LOCK_SH, "ex": fcntl.LOCK_EX, "un": fcntl.LOCK_UN}
    how = kinds[how] if how == "un" else kinds[how] | fcntl.LOCK_NB
    fcntl.lockf(side.fd(int(slot)), how, int(length), int(start))


# ---- the whole tree

class Judge:
    """Compares the trees, and what must be true of layerfs alone."""

    def __init__(self, start_ns):
        self.start_ns = start_ns
        self.numbers = {}

    def compare(self, ours, oracle):
        problems = []
        wanted = self.listing(oracle, problems)
        found = self.listing(ours, problems)
        timeless = mapped(oracle)
        for path in sorted(wanted.keys() | found.keys()):
            if path not in found:
                problems.append(f"{path}: only the oracle has it: {wanted[path][1]}")
            elif path not in wanted:
                problems.append(f"{path}: only layerfs has it: {found[path][1]}")
            elif wanted[path][1] != found[path][1]:
                problems.append(f"{path}: oracle {wanted[path][1]}, layerfs {found[path][1]}")
            elif wanted[path][2] != found[path][2] and wanted[path][0] not in timeless:
                problems.append(f"{path}: mtime: oracle {wanted[path][2]}, layerfs {found[path][2]}")
        self.identify(wanted, found, problems)
        return problems

    def identify(self, wanted, found, problems):
        """One object of the oracle is one number of layerfs, for as long as it lives."""
        live = {}
        for path, (key, _, _) in wanted.items():
            if path in found:
                number = found[path][0][0]
                if self.numbers.get(key, number) != number:
                    problems.append(f"{path}: inode number {self.numbers[key]} became {number}")
                if live.setdefault(key, number) != number:
                    problems.append(f"{path}: two numbers for one file: {live[key]}, {number}")
        owners = {}
        for key, number in live.items():
            if owners.setdefault(number, key) != key:
                problems.append(f"inode number {number} is two objects'")
        # Kept also without a name: it may come back by a link of an open file, and no other can have its birth time.
        self.numbers.update(live)

    def listing(self, side, problems):
        """path -> ((inode number, birth), description, mtime)"""
        found, firsts, pending = {}, {}, ["."]
        found["."] = self.describe(side, ".", os.lstat(side.root), firsts)
        while pending:
            inner = pending.pop()
            try:
                names = sorted(os.scandir(os.path.join(side.root, inner)), key=lambda entry: entry.name)
            except PermissionError:
                continue
            for entry in names:
                path = os.path.normpath(os.path.join(inner, entry.name))
                try:
                    info = os.lstat(os.path.join(side.root, path))
                except PermissionError:
                    continue
                except OSError as error:
                    problems.append(f"{side.name} {path}: listed, but lstat: {error.strerror}")
                    continue
                if side.ours:
                    if entry.inode() != info.st_ino:
                        problems.append(f"{path}: d_ino {entry.inode()}, st_ino {info.st_ino}")
                    kinds = (entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False), entry.is_symlink())
                    if kinds != (stat.S_ISDIR(info.st_mode), stat.S_ISREG(info.st_mode), stat.S_ISLNK(info.st_mode)):
                        problems.append(f"{path}: d_type {kinds}, st_mode {info.st_mode:o}")
                found[path] = self.describe(side, path, info, firsts)
                if stat.S_ISDIR(info.st_mode):
                    pending.append(path)
        first_of = {}
        for path in sorted(found):
            first_of.setdefault(found[path][0][0], path)
        return {path: (key, f"{text} links {first_of[key[0]]}", mtime) for path, (key, text, mtime) in found.items()}

    def describe(self, side, path, info, firsts):
        full = os.path.join(side.root, path)
        # Nothing tells a FUSE server that somebody wrote into a fifo.
        recent = stat.S_ISFIFO(info.st_mode) or self.start_ns <= info.st_mtime_ns < self.start_ns + 3600 * 10**9
        mtime = "recent" if recent else info.st_mtime_ns
        parts = [shown(info), xattrs(full)]
        if stat.S_ISLNK(info.st_mode):
            parts.append("to " + os.readlink(full))
        elif stat.S_ISREG(info.st_mode):
            if info.st_ino not in firsts:
                firsts[info.st_ino] = content(full, info)
            parts.append(firsts[info.st_ino])
        elif stat.S_ISCHR(info.st_mode):
            parts.append(f"device {info.st_rdev:x}")
        return (info.st_ino, 0 if side.ours else birth(full)), " ".join(filter(None, parts)), mtime


def xattrs(path):
    found = []
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        if name == "security.selinux":
            continue
        try:
            found.append(f"{name}={digest(os.getxattr(path, name, follow_symlinks=False))}")
        except OSError as error:
            found.append(f"{name}:{errno.errorcode[error.errno]}")
    return " ".join(found)


def content(path, info):
    """A sum over the blocks that are not zero: the same for a hole and for zeros."""
    total = hashlib.sha1()
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        return errno.errorcode[error.errno]
    try:
        parts = [(0, info.st_size)] if info.st_size <= READ_WHOLE_MAX else list(pieces(fd, info.st_size))
        blocks = (block for start, end in parts for block in range(start // CHUNK, -(-end // CHUNK)))
        last = -1
        for block in blocks:
            if block == last:
                continue
            last = block
            data = os.pread(fd, CHUNK, block * CHUNK)
            if data != ZEROS[:len(data)]:
                total.update(f"{block}:".encode())
                total.update(data)
        return total.hexdigest()[:16]
    except OSError as error:
        return "read: " + errno.errorcode[error.errno]
    finally:
        os.close(fd)


def birth(path, fd=AT_FDCWD):
    """The moment of an inode's creation, which tells it from a later one with its number."""
    buffer = ctypes.create_string_buffer(256)
    check(LIBC.syscall(SYS_STATX, fd, path.encode(), AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH, STATX_BTIME, buffer))
    return struct.unpack_from("<qI", buffer, 80)


class Worker:
    def __init__(self):
        self.ours = self.oracle = self.judge = None
        self.uid = 0

    def answer(self, line):
        verb, *words = line.split()
        if verb == "image":
            return self.image(*words)
        if verb == "begin":
            return self.begin(*words)
        if verb in ("drop", "unmap-all", "again", "check", "end"):
            return getattr(self, verb.replace("-", "_"))()
        return self.both(globals()["op_" + verb], words)

    def image(self, script, image, oracle):
        """Writes the image and the tree that it is; `-` for what is not wanted."""
        with open(script, encoding="ascii") as file:
            form, layers = random_layers.parse(line for line in file if line.strip())
        if image != "-":
            random_layers.write_image(form, layers, image)
        if oracle != "-":
            os.mkdir(oracle)
            # Written by all workers, whoever they are.
            with open(oracle + ".mapped", "w", encoding="ascii") as file:
                os.chmod(file.fileno(), 0o666)
            random_layers.unpack(random_layers.merged(layers), oracle)
        return "= made"

    def begin(self, ours, oracle, start_ns, uid):
        self.ours, self.oracle = Side(ours, True), Side(oracle, False)
        self.ours.name, self.oracle.name = "layerfs", "oracle"
        self.judge, self.uid = Judge(int(start_ns)), int(uid)
        os.umask(0o022)
        return "= begun"

    def sides(self):
        return [side for side in (self.ours, self.oracle) if side]

    def unmap_all(self):
        for side in self.sides():
            for mapping in side.maps.values():
                mapping.close()
            side.maps.clear()
        return "= unmapped"

    def drop(self):
        os.chdir("/")
        for side in self.sides():
            side.close()
        return "= dropped"

    def again(self):
        for side in self.sides():
            side.reopen()
        # An ordinary user's symlinks and special files cannot carry their numbers (xattr(7)).
        if os.geteuid() != 0:
            lasting = self.lasting()
            self.judge.numbers = {key: number for key, number in self.judge.numbers.items() if key in lasting}
        return "= reopened"

    def lasting(self):
        found = set()
        for inner, dirs, files in os.walk(self.oracle.root):
            for name in [".", *dirs, *files]:
                path = os.path.join(inner, name)
                if not os.access(inner, os.X_OK):
                    continue
                info = os.lstat(path)
                if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
                    found.add((info.st_ino, birth(path)))
        return found

    def end(self):
        self.drop()
        self.ours = self.oracle = self.judge = None
        return "= ended"

    def check(self):
        os.chdir("/")
        problems = self.judge.compare(self.ours, self.oracle)
        return "! " + " | ".join(problems[:8]) if problems else "= same"

    def both(self, operation, words):
        try:
            ours = self.on(self.ours, operation, words)
        except Skip:
            return "= not asked of the oracle"
        oracle = self.on(self.oracle, operation, words)
        # Devices of an ordinary user's mount are not opened at all.
        if ours == oracle or (os.getuid() != 0 and (ours, oracle) == ("EACCES", "ENXIO")):
            return f"= {ours}"
        return f"! oracle: {oracle}; layerfs: {ours}"

    def on(self, side, operation, words):
        try:
            os.fchdir(side.here)
        except PermissionError:
            # An ordinary user has lost the right to search it since.
            if operation is not op_home:
                return "nothing can be done here"
        if self.uid:
            os.setegid(self.uid)
            os.seteuid(self.uid)
        try:
            result = operation(side, *words)
            return "ok" if result is None else str(result)
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error.errno))
        finally:
            if self.uid:
                os.seteuid(0)
                os.setegid(0)


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.geteuid() == 0:
        os.setgroups([])
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(line)
        except Exception as error:  # pylint: disable=broad-except
            answer = f"! the worker: {line.strip()}: {type(error).__name__}: {error}"
        print(answer.replace("\n", " "), flush=True)


if __name__ == "__main__":
    main()
