#!/usr/bin/env python3
"""Fills the filesystem that has the upper, and uses it on: full.py MOUNT UPPER-FILESYSTEM (where upper/ and work/ are).

MOUNT has the files `lower/0` and so on of a layer, 300,000 bytes each, all of the byte that is their number.
"""

import errno
import os
import sys
import time

mount, disk = sys.argv[1:]
FULL = (errno.ENOSPC, errno.EDQUOT)


def nothing_left(what):
    left = os.listdir(f"{disk}/work/tmp")
    assert not left, f"{what}: work/tmp holds {left}"


def fails(action):
    """Whether there was no room for it; anything else that goes wrong is wrong."""
    try:
        action()
        return False
    except OSError as error:
        assert error.errno in FULL, error
        return True


def same_space():
    fields = ("f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_frsize", "f_namemax")
    # What was deleted becomes free while we look.
    for _ in range(50):
        told, below = os.statvfs(mount), os.statvfs(disk)
        if all(getattr(told, field) == getattr(below, field) for field in fields):
            return
        time.sleep(0.1)
    raise AssertionError((told, below))


def fill(path, piece):
    """Writes until there is no room; says how much was taken."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    taken = 0
    try:
        while True:
            taken += os.write(fd, b"f" * piece)
    except OSError as error:
        assert error.errno in FULL, error
    os.close(fd)
    assert os.stat(path).st_size == taken, (os.stat(path).st_size, taken)
    with open(path, "rb") as file:
        assert file.read() == b"f" * taken
    return taken


def is_untouched(number):
    with open(f"{mount}/lower/{number}", "rb") as file:
        return file.read() == bytes([number]) * 300_000


def overwrite(path):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, b"n" * 250_000, 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def rename_away(number):
    os.rename(f"{mount}/lower/{number}", f"{mount}/lower/{number}.moved")
    os.rename(f"{mount}/lower/{number}.moved", f"{mount}/lower/{number}")


def eventually(done):
    for _ in range(200):
        if done():
            return
        time.sleep(0.02)
    raise AssertionError("it never was so")


def without_blocks():
    taken = fill(f"{mount}/large", 1 << 16) + fill(f"{mount}/small", 512)
    assert taken > 1 << 20, taken
    same_space()
    assert fails(lambda: overwrite(f"{mount}/lower/1")), "there is room?"
    nothing_left("a write to a file of a layer")
    for number in range(2, 20):
        fails(lambda: os.truncate(f"{mount}/lower/{number}", 299_999))
        fails(lambda: os.truncate(f"{mount}/lower/{number}", 300_000))
        fails(lambda: rename_away(number))
        fails(lambda: os.mkdir(f"{mount}/new{number}"))
        fails(lambda: os.symlink("s" * 200, f"{mount}/link{number}"))
        fails(lambda: os.setxattr(f"{mount}/lower/{number}", "user.x", b"v" * 2000))
        nothing_left(f"changes of {number}")
    for number in range(20, 30):
        assert is_untouched(number)
    os.unlink(f"{mount}/large")
    # The space is there when the kernel has told the server that nobody has the file open any more.
    eventually(lambda: not fails(lambda: overwrite(f"{mount}/lower/1")))
    with open(f"{mount}/lower/1", "rb") as file:
        assert file.read() == b"n" * 250_000 + b"\1" * 50_000
    os.unlink(f"{mount}/small")
    same_space()


def without_inodes():
    made = 0
    while not fails(lambda: os.close(os.open(f"{mount}/i{made}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))):
        made += 1
    assert not os.path.exists(f"{mount}/i{made}")
    assert fails(lambda: os.mkdir(f"{mount}/d")) and not os.path.exists(f"{mount}/d")
    assert fails(lambda: os.chmod(f"{mount}/lower/29", 0o600)) and os.stat(f"{mount}/lower/29").st_mode & 0o777 == 0o644
    nothing_left("without inodes")
    same_space()
    for number in range(made):
        os.unlink(f"{mount}/i{number}")
    os.chmod(f"{mount}/lower/29", 0o600)
    assert is_untouched(29) and is_untouched(28)


def main():
    same_space()
    without_blocks()
    if os.statvfs(disk).f_files < 10_000:
        without_inodes()
    nothing_left("at the end")


if __name__ == "__main__":
    main()
