#!/usr/bin/env python3
"""Unpacks layers into one directory each, in the form that kernel overlayfs stacks: overlay-layers.py TARS OUT (as root).

GNU tar unpacks; this only turns whiteouts into what overlayfs understands, and gives directories that a layer implies
without listing them the attributes they have below.
"""

import os
import shutil
import stat
import subprocess
import sys
import tarfile

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
MARK = "trusted.overlay.opaque"


def main(tars, out):
    os.makedirs(out)
    lower = []
    for name in sorted(os.listdir(tars)):
        tar = os.path.join(tars, name)
        layer = os.fsencode(os.path.join(out, name.removesuffix(".tar")))
        os.mkdir(layer)
        subprocess.run(["tar", "-C", layer, "--numeric-owner", "--xattrs", "--xattrs-include=*", "--delay-directory-restore", "-xpf", tar], check=True)
        listed = listed_dirs(tar)
        for path, dirs, files in os.walk(layer, topdown=False):
            inner = os.path.relpath(path, layer)
            before = os.lstat(path)
            convert(path, files)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            if inner not in listed:
                imply(path, inner, lower)
        lower.insert(0, layer)


def listed_dirs(tar):
    with tarfile.open(tar, encoding="utf-8", errors="surrogateescape") as archive:
        return {os.path.normpath(os.fsencode(member.name)) or b"." for member in archive if member.isdir()}


def convert(path, files):
    for name in files:
        if name == OPAQUE:
            os.unlink(os.path.join(path, name))
            os.setxattr(path, MARK, b"y")
        elif name.startswith(PREFIX):
            os.unlink(os.path.join(path, name))
            hidden = os.path.join(path, name[len(PREFIX):])
            if not os.path.lexists(hidden):
                os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0))
            elif os.path.isdir(hidden) and not os.path.islink(hidden):
                os.setxattr(hidden, MARK, b"y")


def imply(path, inner, lower):
    for layer in lower:
        below = os.path.join(layer, inner)
        if not os.path.isdir(below):
            continue
        info = os.lstat(below)
        os.chown(path, info.st_uid, info.st_gid)
        is_opaque = MARK in os.listxattr(path)
        shutil.copystat(below, path, follow_symlinks=False)
        # The mark says something about its own layer, nothing about the directory.
        if not is_opaque and MARK in os.listxattr(path):
            os.removexattr(path, MARK)
        return
    os.chown(path, 0, 0)
    os.chmod(path, 0o755)
    os.utime(path, (0, 0))


if __name__ == "__main__":
    main(*sys.argv[1:])
