#!/usr/bin/env python3
"""Says all that can be seen of a tree, one canonical line per object, and compares two such listings.

    tree.py list DIR              prints the listing of DIR
    tree.py diff [options] A B    A and B are listings or directories; prints what differs, exits 1 when something does
"""

import argparse
import errno
import hashlib
import os
import stat
import sys

FIELDS = ["type", "mode", "uid", "gid", "rdev", "size", "mtime", "target", "xattrs", "links", "nlink", "sha256"]
TYPES = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFSOCK: "socket",
}
# Marks of overlay file systems and labels of the host: no part of any image.
HIDDEN_XATTRS = ("trusted.overlay.", "user.overlay.", "user.containers.", "security.selinux")
OVERFLOW_ID = 65534


def escape(raw):
    """Bytes as printable ASCII without blanks."""
    return "".join(chr(b) if 33 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in raw)


def xattrs_of(path):
    found = []
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EACCES, errno.EPERM):
            return "-"
        raise
    for name in sorted(names):
        if name.startswith(HIDDEN_XATTRS):
            continue
        value = os.getxattr(path, name, follow_symlinks=False)
        found.append(f"{escape(os.fsencode(name))}={value.hex()}")
    return ";".join(found) or "-"


def sha256_of(path):
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return "unreadable"
        return f"error:{errno.errorcode.get(error.errno, error.errno)}"
    return digest.hexdigest()


def describe(path, first_names):
    info = os.lstat(path)
    kind = stat.S_IFMT(info.st_mode)
    is_dir, is_device = kind == stat.S_IFDIR, kind in (stat.S_IFCHR, stat.S_IFBLK)
    return {
        "type": TYPES[kind],
        "mode": f"{stat.S_IMODE(info.st_mode):04o}" if kind != stat.S_IFLNK else "-",
        "uid": str(info.st_uid),
        "gid": str(info.st_gid),
        "rdev": f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}" if is_device else "-",
        # What a directory's size and link count mean is the file system's own affair.
        "size": "-" if is_dir else str(info.st_size),
        "mtime": f"{info.st_mtime_ns // 10**9}.{info.st_mtime_ns % 10**9:09d}",
        "target": escape(os.fsencode(os.readlink(path))) if kind == stat.S_IFLNK else "-",
        "xattrs": xattrs_of(path),
        "links": "-" if is_dir else first_names[(info.st_dev, info.st_ino)],
        "nlink": "-" if is_dir else str(info.st_nlink),
        "sha256": sha256_of(path) if kind == stat.S_IFREG else "-",
    }


def walk(root):
    """Paths below root as bytes, in byte order of the whole path, root itself as `.`."""
    found, pending = [b"."], [b""]
    while pending:
        inner = pending.pop()
        try:
            entries = list(os.scandir(os.path.join(root, inner)))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                continue
            raise
        for entry in entries:
            path = os.path.join(inner, entry.name)
            found.append(path)
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
    return sorted(found)


def listing(root):
    """path -> fields, paths escaped."""
    root = os.fsencode(root)
    names, first_names = walk(root), {}
    for name in names:
        info = os.lstat(os.path.join(root, name))
        first_names.setdefault((info.st_dev, info.st_ino), escape(name))
    return {escape(name): describe(os.path.join(root, name), first_names) for name in names}


def write(tree, out):
    for path, fields in tree.items():
        out.write(" ".join([path] + [f"{field}={fields[field]}" for field in FIELDS]) + "\n")


def read(source):
    if os.path.isdir(source):
        return listing(source)
    tree = {}
    with open(source, encoding="ascii") as file:
        for line in file:
            path, *fields = line.rstrip("\n").split(" ")
            tree[path] = dict(field.split("=", 1) for field in fields)
    return tree


def comparable(field, value, other, options):
    if field in ("uid", "gid") and options.ids_below and int(value) >= options.ids_below:
        return str(OVERFLOW_ID)
    if field == "mtime" and options.recent and options.recent <= float(value) < options.recent + 3600:
        return "recent"
    if field == "sha256" and "unreadable" in (value, other):
        return "unreadable"
    if field == "xattrs" and options.ignore_xattr:
        kept = [one for one in value.split(";") if not one.startswith(tuple(options.ignore_xattr))]
        return ";".join(kept) or "-"
    return value


def differences(left, right, options):
    for path in sorted(left.keys() | right.keys()):
        if path not in right:
            yield f"only in A: {path} ({left[path]['type']})"
        elif path not in left:
            yield f"only in B: {path} ({right[path]['type']})"
        else:
            for field in FIELDS:
                a, b = left[path][field], right[path][field]
                if field not in options.ignore and comparable(field, a, b, options) != comparable(field, b, a, options):
                    yield f"{path}: {field}: A {a}, B {b}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list").add_argument("dir")
    diff = commands.add_parser("diff")
    diff.add_argument("--ignore", default="", help="fields not to compare, by commas: " + ",".join(FIELDS))
    diff.add_argument("--ignore-xattr", action="append", help="names that start like this are not compared")
    diff.add_argument("--ids-below", type=int, help="ids from here on are shown as the overflow id")
    diff.add_argument("--recent", type=int, help="times from here on (seconds since 1970) count as the same time")
    diff.add_argument("--max", type=int, default=40, help="how many differences to print")
    diff.add_argument("a")
    diff.add_argument("b")
    options = parser.parse_args()
    if options.command == "list":
        write(listing(options.dir), sys.stdout)
        return 0
    options.ignore = options.ignore.split(",")
    found = list(differences(read(options.a), read(options.b), options))
    for line in found[:options.max]:
        print(line)
    if len(found) > options.max:
        print(f"and {len(found) - options.max} more")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
