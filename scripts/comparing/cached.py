"""Prints how many bytes of each path, all files below it taken together, are in the page cache."""

import ctypes
import os
import stat
import sys

# cachestat(2), since Linux 6.5; libraries do not know it yet.
CACHESTAT = 451


class Range(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")]


def cached_bytes(path):
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return 0
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except PermissionError:
        # Who measures cannot have read it either.
        return 0
    counts = Counts()
    whole = Range(0, 0)
    code = ctypes.CDLL(None, use_errno=True).syscall(CACHESTAT, file, ctypes.byref(whole), ctypes.byref(counts), 0)
    os.close(file)
    if code != 0:
        raise OSError(ctypes.get_errno(), f"{path}: cachestat: {os.strerror(ctypes.get_errno())}")
    return counts.cached * os.sysconf("SC_PAGE_SIZE")


def main():
    for path in sys.argv[1:]:
        files = [f"{directory}/{name}" for directory, _, names in os.walk(path) for name in names]
        print(sum(map(cached_bytes, files or [path])))


if __name__ == "__main__":
    main()
