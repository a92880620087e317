#!/usr/bin/env python3
"""Holds files open, and goes on each time it reads a line: open_files.py DIR COUNT

Makes COUNT files, keeps them open and mapped; removes them all; changes and checks them all; ends.
"""

import mmap
import os
import resource
import sys


def main():
    directory, count = sys.argv[1], int(sys.argv[2])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = []
    for number in range(count):
        fd = os.open(f"{directory}/{number}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, b"%d" % number)
        # Not through mmap.mmap with a descriptor of its own: it would hold another one.
        files.append((fd, mmap.mmap(fd, 0, trackfd=False) if sys.version_info >= (3, 13) else None))
    step("open")
    for number in range(count):
        os.unlink(f"{directory}/{number}")
    step("removed")
    for number, (fd, memory) in enumerate(files):
        os.pwrite(fd, b" changed", len(b"%d" % number))
        expected = b"%d changed" % number
        found, info = os.pread(fd, 100, 0), os.fstat(fd)
        assert (found, info.st_nlink, info.st_size) == (expected, 0, len(expected)), (number, found, info)
        os.ftruncate(fd, 1)
        os.fsync(fd)
        assert os.pread(fd, 100, 0) == expected[:1]
    step("checked")


def step(name):
    print(name, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
