#!/usr/bin/env python3
"""Writes until the quota of the upper is used up, and on when it is raised: quota.py MOUNT SUBVOLUME (of btrfs).

MOUNT has the file `lower/old` of a layer, 3,000,000 bytes `l`. SUBVOLUME is limited to less than that.
"""

import errno
import os
import subprocess
import sys

mount, disk = sys.argv[1:]
OLD_BYTES = 3_000_000
PIECE = 65_536


def is_refused(action):
    """Whether the quota did not allow it; anything else that goes wrong is wrong."""
    try:
        action()
        return False
    except OSError as error:
        assert error.errno == errno.EDQUOT, error
        return True


def write_all(path, byte, size):
    """Writes up to so many bytes from the start; says how many were taken."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    taken = 0
    try:
        while taken < size:
            taken += os.pwrite(fd, byte * min(PIECE, size - taken), taken)
        os.fsync(fd)
    except OSError as error:
        assert error.errno == errno.EDQUOT, error
    finally:
        os.close(fd)
    return taken


def content(path):
    with open(path, "rb") as file:
        return file.read()


def main():
    taken = write_all(f"{mount}/lower/old", b"n", OLD_BYTES)
    assert 0 < taken < OLD_BYTES, taken
    half_new = b"n" * taken + b"l" * (OLD_BYTES - taken)
    assert content(f"{mount}/lower/old") == half_new
    new = write_all(f"{mount}/new", b"f", OLD_BYTES) if not is_refused(lambda: open(f"{mount}/new", "x").close()) else None
    assert os.path.exists(f"{mount}/new") == (new is not None)
    assert new is None or content(f"{mount}/new") == b"f" * new
    for number in range(20):
        made = not is_refused(lambda: os.mkdir(f"{mount}/d{number}"))
        assert os.path.isdir(f"{mount}/d{number}") == made
    assert not os.listdir(f"{disk}/work/tmp")
    assert content(f"{mount}/lower/old") == half_new
    subprocess.run(["btrfs", "qgroup", "limit", "none", disk], check=True, stdout=subprocess.DEVNULL)
    assert write_all(f"{mount}/new", b"f", OLD_BYTES) == OLD_BYTES
    fd = os.open(f"{mount}/lower/old", os.O_WRONLY)
    assert os.pwrite(fd, b"e" * 1000, OLD_BYTES - 1000) == 1000
    os.fsync(fd)
    os.close(fd)
    assert content(f"{mount}/lower/old") == half_new[:-1000] + b"e" * 1000
    os.mkdir(f"{mount}/works-on")


if __name__ == "__main__":
    main()
