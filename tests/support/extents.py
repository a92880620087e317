#!/usr/bin/env python3
"""Changes parts of one large file in every way, on a mount and on a plain copy, and compares the two after each.

    extents.py MOUNTED PLAIN UPPER [LIMIT_BYTES]

The first step is 4 KiB written into the middle: the upper may not have grown by more than LIMIT_BYTES then.
"""
import ctypes
import fcntl
import hashlib
import mmap
import os
import sys

mounted, plain, upper = sys.argv[1:4]
limit = int(sys.argv[4]) if len(sys.argv) > 4 else 1 << 20
libc = ctypes.CDLL(None, use_errno=True)
# The file has 1024 of these.
PART = os.stat(plain).st_size >> 10
KEEP_SIZE, PUNCH_HOLE, ZERO = 1, 2, 16


def allocated():
    return sum(os.lstat(os.path.join(at, name)).st_blocks * 512 for at, _, names in os.walk(upper) for name in names)


def digest(path):
    """Of the data, zeros left out: the same for any choice of holes. What lseek calls a hole must be zeros."""
    sha = hashlib.sha256(str(os.stat(path).st_size).encode())
    zeros = bytes(1 << 20)
    with open(path, "rb", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size
        for at in range(0, end, len(zeros)):
            block = os.pread(file.fileno(), len(zeros), at)
            assert len(block) == min(len(zeros), end - at)
            if block != zeros[: len(block)]:
                sha.update(b"%d:" % at + block)
                try:
                    data = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    raise AssertionError("no data at %d" % at)
                assert not block[: data - at].strip(b"\0"), "data in a hole at %d" % at
    return sha.hexdigest()


def write(fd):
    os.pwrite(fd, b"w" * 4096, 500 * PART)


def write_across(fd):
    os.pwrite(fd, os.urandom(0) + b"a" * 1_000_001, 100 * PART + 77)


def small(fd):
    for at in range(0, 900 * PART, 1_654_321):
        os.pwrite(fd, b"small", at)


def append(fd):
    with open("/proc/self/fd/%d" % fd, "ab") as file:
        file.write(b"the end")


def mapped(fd):
    size = os.fstat(fd).st_size
    with mmap.mmap(fd, size) as view:
        view[117 * PART + 99 : 117 * PART + 109] = b"0123456789"
        view[size - 3 : size] = b"END"
        view.flush()


def fallocate(mode, at, length):
    def call(fd):
        result = libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(length))
        return 0 if result == 0 else ctypes.get_errno()

    return call


def cut(fd):
    os.ftruncate(fd, 300 * PART + 5)


def grow(fd):
    os.ftruncate(fd, 400 * PART)


def direct(fd):
    other = os.open("/proc/self/fd/%d" % fd, os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, 8192)
    buffer.write(b"d" * 8192)
    os.pwrite(other, buffer, 50 * PART)
    os.preadv(other, [buffer], 60 * PART)
    os.close(other)
    return hashlib.sha256(buffer).hexdigest()


def copy_range(fd):
    done = 0
    while done < 3_000_000:
        count = os.copy_file_range(fd, fd, 3_000_000 - done, 20 * PART + done, 222 * PART + 333 + done)
        assert count > 0
        done += count


def appenders(fd):
    """Four processes: no line is lost or torn."""
    children = []
    for who in range(4):
        child = os.fork()
        if child == 0:
            file = os.open("/proc/%d/fd/%d" % (os.getppid(), fd), os.O_WRONLY | os.O_APPEND)
            for _ in range(200):
                os.write(file, b"%d" % who * 99 + b"\n")
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    size = os.fstat(fd).st_size
    lines = os.pread(fd, 80_000, size - 80_000).split(b"\n")[:-1]
    assert len(lines) == 800 and all(len(line) == 99 and len(set(line)) == 1 for line in lines)
    os.ftruncate(fd, size - 80_000)


STEPS = [
    write,
    write_across,
    small,
    append,
    mapped,
    fallocate(PUNCH_HOLE | KEEP_SIZE, 586 * PART + 1, 10 * PART),
    fallocate(ZERO, 683 * PART + 1, 3_333_333),
    fallocate(0, 781 * PART, 5 * PART),
    fallocate(KEEP_SIZE, 1024 * PART, 1 << 20),
    direct,
    copy_range,
    appenders,
    cut,
    grow,
    write_across,
]


def main():
    assert digest(mounted) == digest(plain), "before any change"
    reader = os.open(mounted, os.O_RDONLY)
    view = mmap.mmap(reader, 1 << 20, prot=mmap.PROT_READ, offset=500 * PART)
    view[0]
    os.chmod(mounted, 0o640)
    os.chmod(plain, 0o640)
    base = allocated()
    assert base <= 64 << 10, "chmod moved data: %d" % base
    for step in STEPS:
        results = []
        for path in (mounted, plain):
            fd = os.open(path, os.O_RDWR)
            results.append(step(fd))
            os.close(fd)
        if step is write:
            grown = allocated() - base
            assert grown <= limit, "%d bytes for 4 KiB" % grown
            assert view[:4096] == b"w" * 4096, "a mapping that was there before sees the write"
            assert os.pread(reader, 1, 500 * PART) == b"w"
        assert results[0] == results[1], (step, results)
        assert os.stat(mounted).st_size == os.stat(plain).st_size, step
        assert digest(mounted) == digest(plain), step
    print("same")


main()
