#!/usr/bin/env python3
"""Compares what `layerfs ls -lR IMAGE` prints with an unpacked tree: long_form.py LISTING TREE

Every row is what lstat(2) says: type, mode, ids, size or device, seconds, name and target, in the order of names. Links
are compared where there is one; names that an upper layer links to a lower one are files of their own in layerfs. Sizes
of directories are the filesystem's own business.
"""
import datetime
import os
import re
import stat
import sys

ROW = re.compile(rb" *(\S{10}) +(\d+) +(\d+) +(\d+) +(\d+(?:, \d+)?) +(\S+Z) ")


def expected(tree):
    """Rows as (columns, label), headings as (None, line), in the order of the listing."""
    def walk(path, typed, depth):
        if depth:
            yield None, b""
        yield None, typed + b":"
        names = sorted(os.listdir(path))
        for name in names:
            s = os.lstat(os.path.join(path, name))
            seconds = datetime.timedelta(seconds=s.st_mtime_ns // 10**9)
            time = (datetime.datetime(1970, 1, 1) + seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
            is_device = stat.S_ISCHR(s.st_mode) or stat.S_ISBLK(s.st_mode)
            size = "%d, %d" % (os.major(s.st_rdev), os.minor(s.st_rdev)) if is_device else str(s.st_size)
            if stat.S_ISDIR(s.st_mode):
                size = None
            links = 1 if stat.S_ISDIR(s.st_mode) else s.st_nlink
            label = name
            if stat.S_ISLNK(s.st_mode):
                label += b" -> " + os.readlink(os.path.join(path, name))
            yield (stat.filemode(s.st_mode), links, str(s.st_uid), str(s.st_gid), size, time), label
        for name in names:
            below = os.path.join(path, name)
            if stat.S_ISDIR(os.lstat(below).st_mode):
                yield from walk(below, typed.rstrip(b"/") + b"/" + name, depth + 1)
    return walk(tree, b"/", 0)


def main():
    rest = open(sys.argv[1], "rb").read()
    rows = 0
    for columns, label in expected(os.fsencode(sys.argv[2])):
        found = rest
        if columns is not None:
            match = ROW.match(rest)
            if not match:
                sys.exit("not a row, where there should be %r: %r" % (label, rest[:200]))
            mode, links, uid, gid, size, time = (column.decode() for column in match.groups())
            mode_, links_, uid_, gid_, size_, time_ = columns
            same = (mode, uid, gid, time) == (mode_, uid_, gid_, time_) and size_ in (None, size)
            if not same or not (links == "1" or 1 < int(links) <= links_):
                sys.exit("%r: %r, but lstat says %r" % (label, match.groups(), columns))
            found = rest[match.end():]
            rows += 1
        if not found.startswith(label + b"\n"):
            sys.exit("%r, where there should be %r" % (found[:200], label))
        rest = found[len(label) + 1:]
    if rest:
        sys.exit("more than there is: %r" % rest[:200])
    print(rows)


main()
