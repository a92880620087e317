#!/usr/bin/env python3
"""Writes layers that no builder makes by itself: everything that a tar can say and that a reader can get wrong.

    hard-layer.py base OUT BUSYBOX   OUT/0-base.tar: a root file system around a static busybox
    hard-layer.py hard OUT [PATH...] OUT/1-hard.tar .. OUT/4-hard.tar, to lie upon any base; the second of them also
                                     deletes the PATHs of that base

Everything is reproducible: no clock, no ids of the caller.
"""

import io
import os
import struct
import sys
import tarfile

EPOCH_2024 = "1704067200.123456789"
# CAP_NET_RAW, effective and permitted; struct vfs_cap_data of revision 2.
NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
NOT_UTF8 = b"caf\xe9-\xff\x01"


class Layer:
    """One tar, written front to back."""

    def __init__(self, path):
        self.tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tar.close()

    def add(self, name, kind, *, mode=0o644, uid=0, gid=0, mtime=EPOCH_2024, data=b"", target="", device=(0, 0), xattrs=None, pax=None):
        info = tarfile.TarInfo(text(name))
        info.type, info.mode, info.uid, info.gid, info.size = kind, mode, uid, gid, len(data)
        info.linkname = text(target)
        info.devmajor, info.devminor = device
        info.pax_headers = {"mtime": mtime, **(pax or {})}
        for key, value in (xattrs or {}).items():
            info.pax_headers["SCHILY.xattr." + key] = text(value)
        self.tar.addfile(info, io.BytesIO(data))

    def file(self, name, data=b"", **more):
        self.add(name, tarfile.REGTYPE, data=data, **more)

    def dir(self, name, **more):
        self.add(name, tarfile.DIRTYPE, **{"mode": 0o755, **more})

    def symlink(self, name, target, **more):
        self.add(name, tarfile.SYMTYPE, target=target, **{"mode": 0o777, **more})

    def link(self, name, target, **more):
        self.add(name, tarfile.LNKTYPE, target=target, **more)

    def whiteout(self, name):
        head, _, tail = name.rpartition("/")
        self.file((head + "/" if head else "") + ".wh." + tail, mode=0)

    def opaque(self, name):
        self.file(name + "/.wh..wh..opq", mode=0)

    def sparse(self, name, size, pieces):
        """GNU sparse format 1.0: the map lies in front of the data. Pieces are whole blocks: there readers agree."""
        numbers = [len(pieces) + 1] + [n for offset, data in pieces for n in (offset, len(data))] + [size, 0]
        table = "".join(f"{n}\n" for n in numbers).encode()
        table += bytes(-len(table) % 512)
        body = table + b"".join(data for _, data in pieces)
        head, _, tail = name.rpartition("/")
        pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": str(size)}
        self.file(f"{head}/GNUSparseFile.0/{tail}", body, pax=pax)


def text(raw):
    return raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw


def noise(size, seed):
    """Bytes that do not compress to nothing, the same ones each time."""
    state, out = seed | 1, bytearray()
    while len(out) < size:
        state = (state * 6364136223846793005 + 1442695040888963407) & (2**64 - 1)
        out += struct.pack("<Q", state ^ (state >> 29))
    return bytes(out[:size])


def base(out, busybox):
    with Layer(out + "/0-base.tar") as layer:
        for name in ("", "bin", "dev", "etc", "home", "lib", "opt", "proc", "run", "sbin", "srv", "sys", "usr", "usr/bin", "usr/share", "var", "var/lib"):
            layer.dir("./" + name)
        layer.dir("./root", mode=0o700)
        layer.dir("./tmp", mode=0o1777)
        layer.dir("./var/tmp", mode=0o1777)
        layer.dir("./home/app", mode=0o750, uid=1000, gid=1000)
        layer.file("./bin/busybox", open(busybox, "rb").read(), mode=0o755)
        applets = """[ ash awk basename cat chgrp chmod chown cmp cp cut date dd df dirname du echo env expr false find grep groups
            gunzip gzip head hostname id install kill ln ls md5sum mkdir mkfifo mknod mktemp mount mv nc ping printenv printf ps
            pwd readlink realpath rm rmdir sed seq setsid sh sha256sum sleep sort stat stty su sync tail tar tee test timeout
            touch tr true truncate tty umount uname uniq usleep vi wc wget which whoami xargs yes""".split()
        for applet in applets:
            layer.symlink("./bin/" + applet, "busybox")
        layer.file("./etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n")
        layer.file("./etc/group", b"root:x:0:\nstaff:x:50:app\napp:x:1000:\nnogroup:x:65534:\n")
        layer.file("./etc/shadow", b"root:*:19000:0:99999:7:::\napp:*:19000:0:99999:7:::\n", mode=0o640, gid=42)
        layer.file("./etc/hostname", b"tiny\n")
        layer.dir("./usr/share/old")
        layer.file("./usr/share/old/gone", b"the second hard layer deletes this\n")
        layer.file("./usr/share/data", noise(3 << 20, 7))


def first(out):
    """Everything is there once."""
    with Layer(out + "/1-hard.tar") as layer:
        layer.dir("hard", mtime="1000000000.5")
        layer.file("hard/plain", b"plain\n")
        layer.file("hard/empty", b"")
        layer.file("hard/exactly-one-block", noise(512, 1))
        layer.file("hard/large", noise((1 << 20) + 12345, 2))
        layer.file("hard/no-permissions", b"closed\n", mode=0)
        layer.file("hard/setuid", b"#!/bin/sh\n", mode=0o4755)
        layer.file("hard/setgid", b"#!/bin/sh\n", mode=0o2755, gid=50)
        layer.dir("hard/sticky", mode=0o1777)
        layer.dir("hard/setgid-dir", mode=0o2775, gid=50)
        layer.file("hard/ids", b"ids\n", uid=1000, gid=1000)
        layer.file("hard/high-ids", b"high\n", uid=2**31, gid=2**31 + 1)
        layer.file("hard/highest-ids", b"highest\n", uid=2**32 - 2, gid=2**32 - 2)
        layer.file("hard/subsecond", b"", mtime="1234567890.000000001")
        layer.file("hard/before-1970", b"", mtime="-86400.25")
        layer.file("hard/at-1970", b"", mtime="0")
        layer.file("hard/after-2038", b"", mtime="4102444800.999999999")
        layer.file("hard/capable", b"#!/bin/sh\n", mode=0o755, xattrs={"security.capability": NET_RAW})
        layer.file("hard/xattrs", b"x\n", xattrs={"user.text": b"value", "user.bytes": bytes(range(256))})
        layer.dir("hard/xattr-dir", xattrs={"user.dir": b"yes"})
        layer.file(b"hard/" + NOT_UTF8, b"a name that is not UTF-8\n")
        layer.symlink("hard/to-not-utf8", NOT_UTF8)
        layer.file("hard/" + "n" * 255, b"the longest name\n")
        layer.file("hard/blank and\nnewline\\", b"odd name\n")
        layer.dir("hard/" + "d" * 200)
        layer.dir("hard/" + "d" * 200 + "/" + "e" * 200)
        layer.file("hard/" + "d" * 200 + "/" + "e" * 200 + "/deep", b"long path\n")
        layer.add("hard/fifo", tarfile.FIFOTYPE, mode=0o600, uid=1000)
        layer.add("hard/null", tarfile.CHRTYPE, mode=0o666, device=(1, 3))
        layer.add("hard/loop", tarfile.BLKTYPE, mode=0o660, gid=6, device=(7, 300))
        layer.sparse("hard/sparse", 8 << 20, [(0, noise(4096, 3)), (1 << 20, noise(137 * 512, 4)), (5 << 20, noise(512, 5))])
        layer.sparse("hard/only-hole", 3 << 20, [])
        layer.file("hard/one", b"three names\n", uid=7, gid=8)
        layer.link("hard/two", "hard/one")
        layer.dir("hard/elsewhere")
        layer.link("hard/elsewhere/three", "hard/one")
        layer.symlink("hard/relative", "plain", mtime="1111111111.1")
        layer.link("hard/relative-too", "hard/relative")
        layer.symlink("hard/absolute", "/hard/plain", uid=1000, gid=1000)
        layer.symlink("hard/dangling", "../no/such/thing")
        layer.symlink("hard/long-target", "x/" * 500 + "end")
        for name in ("doomed", "doomed/sub", "opaque", "opaque/sub", "reborn", "reborn/sub", "was-dir", "was-dir/sub", "merged", "merged/sub"):
            layer.dir("hard/" + name)
            layer.file(f"hard/{name}/file", name.encode())
            layer.file(f"hard/{name}/secret", b"seen from below " + name.encode())
        layer.file("hard/was-file", b"a file first\n")
        layer.symlink("hard/was-link", "plain")
        layer.file("hard/deleted", b"deleted later\n")
        layer.file("hard/shadowed", b"the old one\n", mode=0o600)


def second(out, doomed):
    """Deletes, replaces by other types, hides."""
    with Layer(out + "/2-hard.tar") as layer:
        layer.dir("hard", mtime="1000000002.5")
        layer.whiteout("hard/deleted")
        layer.whiteout("hard/doomed")
        layer.whiteout("hard/never-was")
        layer.dir("hard/opaque", mtime="1000000003.25")
        layer.file("hard/opaque/new", b"beside the mark\n")
        layer.opaque("hard/opaque")
        layer.dir("hard/opaque/sub")
        layer.whiteout("hard/reborn")
        layer.file("hard/was-dir", b"a file now\n")
        layer.dir("hard/was-file")
        layer.file("hard/was-file/inside", b"inside\n")
        layer.dir("hard/was-link", mode=0o700)
        layer.file("hard/shadowed", b"the new one, longer\n", mode=0o640, uid=5)
        layer.dir("hard/merged", mode=0o711, uid=3, gid=4, mtime="1000000004.75")
        layer.file("hard/merged/more", b"more\n")
        layer.whiteout("hard/merged/secret")
        # One of three names goes; the other two keep the object.
        layer.whiteout("hard/two")
        # The mark comes before and after an object of that name in the same layer: it acts below only.
        layer.whiteout("hard/plain")
        layer.file("hard/plain", b"plain again\n", mtime="1000000005.0")
        layer.file("hard/empty", b"no longer\n")
        layer.whiteout("hard/empty")
        for path in doomed:
            layer.whiteout(path)


def third(out):
    """Back again, and what hides in the middle must stay hidden."""
    with Layer(out + "/3-hard.tar") as layer:
        layer.dir("hard", mtime="1000000006.5")
        layer.dir("hard/was-dir", mtime="1000000007.5")
        layer.dir("hard/was-dir/sub")
        layer.file("hard/was-dir/sub/fresh", b"fresh\n")
        layer.file("hard/was-file", b"a file once more\n")
        layer.symlink("hard/was-link", "empty")
        layer.dir("hard/reborn")
        layer.dir("hard/reborn/sub")
        layer.file("hard/reborn/sub/fresh", b"fresh\n")
        layer.file("hard/opaque/sub/third", b"third\n")
        layer.whiteout("hard/opaque/new")
        layer.file("hard/opaque/.hidden", b"")


def fourth(out):
    """An opaque mark upon merged directories, many entries in one directory, a second group of links."""
    with Layer(out + "/4-hard.tar") as layer:
        layer.dir("hard", mtime="1000000008.5")
        layer.dir("hard/merged/sub", mode=0o750)
        layer.opaque("hard/merged/sub")
        layer.file("hard/merged/sub/only", b"only\n")
        layer.dir("hard/many")
        for number in range(1500):
            layer.file(f"hard/many/{number:04d}", f"{number}\n".encode())
        layer.file("hard/a-link", b"late\n", mtime="1000000009.000000009")
        layer.link("hard/many/link", "hard/a-link")


def main(arguments):
    kind, out, *rest = arguments
    os.makedirs(out, exist_ok=True)
    if kind == "base":
        base(out, rest[0])
    elif kind == "hard":
        first(out)
        second(out, rest)
        third(out)
        fourth(out)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
