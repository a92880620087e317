#!/usr/bin/env python3
"""Layers for every rule by which tars become trees, and the judges of what is made of them.

    corpus.py write OUT                  an OCI layout OUT/NAME for each case; prints the names, refused ones with `!` before
    corpus.py judge NAME LAYOUT MNT TMP  compares the mounted MNT with what the other tools of the case make of it, as root
    corpus.py refusal NAME               words of which the error about a refused layer has one

Judges: `umoci` unpacks the whole image; `tar` is GNU tar, of cases with one layer; `overlay` is kernel overlayfs over
the layers as GNU tar unpacks each. Where a judge is missing from a case, the case says why, and what must be seen
instead is written down in it.
"""

import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
END = bytes(1024)
NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
CASES = {}


class Case:
    def __init__(self, layers, judges, expected, refused, ignore):
        self.layers, self.judges, self.expected, self.refused, self.ignore = layers, judges.split(), expected, refused, ignore


def case(name, *layers, judges="umoci tar", expected=None, refused=None, ignore="", why=""):
    """`why` a judge is missing; `expected` is what is at which path, see `look`."""
    assert refused or why or {"umoci", "tar"} <= set(judges.split()) or (len(layers) > 1 and {"umoci", "overlay"} <= set(judges.split())), name
    assert refused or judges or expected, name
    CASES[name] = Case([layer if isinstance(layer, bytes) else b"".join(layer) + END for layer in layers], judges, expected or {}, refused, ignore)


def octal(value, width):
    return b"%0*o\0" % (width - 1, value)


def base256(value, width):
    return (value + (1 << 8 * width) if value < 0 else value | 1 << (8 * width - 1)).to_bytes(width, "big")


def header(name, kind=b"0", *, size=0, mode=0o644, uid=0, gid=0, mtime=1, link=b"", magic=b"ustar\0" + b"00", prefix=b"", device=(0, 0), signed=False, fields=None):
    block = bytearray(512)

    def put(at, data):
        block[at:at + len(data)] = data

    put(0, name[:100])
    for at, value, width in ((100, mode, 8), (108, uid, 8), (116, gid, 8), (124, size, 12), (136, mtime, 12), (329, device[0], 8), (337, device[1], 8)):
        fits = 0 <= value < 8 ** (width - 1)
        put(at, octal(value, width) if fits else base256(value, width))
    put(156, kind)
    put(157, link[:100])
    put(257, magic)
    put(345, prefix)
    for at, data in (fields or {}).items():
        put(at, data)
    put(148, b" " * 8)
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in block)
    put(148, b"%06o\0 " % total)
    return bytes(block)


def padded(data):
    return data + bytes(-len(data) % 512)


def file(name, data=b"", **more):
    return header(name, size=more.pop("size", len(data)), **more) + padded(data)


def dir(name, **more):
    return header(name, b"5", **{"mode": 0o755, **more})


def symlink(name, target, **more):
    return header(name, b"2", link=target, **{"mode": 0o777, **more})


def link(name, target, **more):
    return header(name, b"1", link=target, **more)


def pax(kind=b"x", **records):
    return pax_of({key: value for key, value in records.items()}, kind)


def pax_of(records, kind=b"x"):
    data = b""
    for key, value in records.items():
        body = b" " + key.encode() + b"=" + (value if isinstance(value, bytes) else value.encode()) + b"\n"
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        data += str(length).encode() + body
    return header(b"PaxHeaders/x", kind, size=len(data)) + padded(data)


def gnu(kind, text):
    return header(b"././@LongLink", kind, size=len(text) + 1, magic=b"ustar  \0") + padded(text + b"\0")


# Names.
case("name-of-ustar", [dir(b"a"), dir(b"a/prefix"), file(b"name", b"x", prefix=b"a/prefix"), file(b"n" * 100, b"y"), file(b"with\xffbytes\x01", b"z")])
case("name-of-gnu", [gnu(b"L", b"l" * 180), file(b"cut", b"x", magic=b"ustar  \0"), gnu(b"K", b"t" * 150), symlink(b"s", b"cut", magic=b"ustar  \0")])
case("name-of-pax", [pax(path="p" * 120), file(b"cut", b"x"), pax(path=b"by\xfftes"), file(b"cut", b"y"), pax(linkpath="t" * 120), symlink(b"s", b"cut")])
case("name-of-pax-before-ustar", [pax(path="real"), file(b"name", b"x", prefix=b"wrong")])
case("name-without-prefix-in-gnu", [file(b"name", b"x", magic=b"ustar  \0", prefix=b"0000000\0000000")])
case("links-of-pax", [file(b"t", b"x"), pax(linkpath="t"), link(b"l", b"wrong")])
case("size-of-pax", [pax(size="1024"), file(b"f", file(b"smuggled", b"evil"), size=0), file(b"next", b"n")])
case("global-header-is-a-comment", [pax_of({"comment": "x"}, b"g"), file(b"f", b"content")], judges="tar", why="umoci refuses the type")
case("global-header-changes-nothing", [pax_of({"path": "wrong", "size": "99", "uid": "7"}, b"g"), file(b"f", b"content")], judges="", expected={"f": "file content 644 0 0", "wrong": None},
     why="umoci refuses the type, GNU tar applies it; docker and containerd ignore it, and layers are made for these")
case("normalised", [dir(b"./a/"), file(b"./a//c", b"1"), dir(b"././d"), file(b"./d/./e", b"2"), dir(b"f//")], judges="tar", expected={"a/c": "file 1"},
     why="umoci loses the times of directories that it is told of in this way")
case("dots-inside", [dir(b"a"), file(b"a/b/../c", b"1")], judges="", expected={"a/c": "file 1", "a/b": None}, why="GNU tar refuses such names; umoci loses the time of the directory")
case("absolute", [dir(b"/etc"), file(b"/etc/f", b"1"), dir(b"/d/")], judges="umoci", expected={"etc/f": "file 1", "d": "dir"}, why="GNU tar says of member names that it strips them, and does the same")
case("root-has-attributes", [dir(b"./", mode=0o711, uid=3, gid=4, mtime=99)], [dir(b".", mode=0o700, uid=5, gid=6, mtime=100)], judges="umoci overlay")
case("root-as-file", [file(b"./", b"x")], refused=["root is not a directory"])
case("dots-do-not-leave", [file(b"../../x", b"1"), file(b"a/../../../y", b"2"), dir(b"..")], judges="umoci", expected={"x": "file 1", "y": "file 2"},
     why="GNU tar refuses such names")
case("targets-are-kept", [symlink(b"up", b"../../../../etc/passwd"), symlink(b"abs", b"/etc/passwd"), symlink(b"dots", b"a/../b//c/.")])

# Symlinks on the way.
case("through-a-symlink", [symlink(b"lib", b"usr/lib"), dir(b"usr"), dir(b"usr/lib"), file(b"lib/f", b"1"), symlink(b"usr/up", b"../../.."), file(b"usr/up/g", b"2")],
     judges="umoci", expected={"usr/lib/f": "file 1", "g": "file 2", "lib": "link usr/lib"}, why="GNU tar puts symlinks that could lead outside last")
case("through-a-symlink-of-below", [symlink(b"lib", b"usr/lib"), dir(b"usr"), dir(b"usr/lib"), file(b"usr/lib/old", b"0")], [dir(b"lib"), file(b"lib/f", b"1")],
     judges="overlay", expected={"lib": "dir", "lib/f": "file 1", "usr/lib/old": "file 0", "usr/lib/f": None},
     why="umoci follows symlinks of lower layers; docker's overlay2 unpacks each layer on its own, as here")
case("through-an-endless-symlink", [symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x", b"1")], refused=["too many symlinks"])

# Twice in one layer.
case("twice-a-file", [file(b"f", b"first"), file(b"f", b"second", mode=0o600)])
case("twice-a-directory", [dir(b"d", mode=0o700), file(b"d/a", b"1"), dir(b"d", mode=0o711, uid=5), file(b"d/b", b"2")])
case("twice-a-file-then-directory", [file(b"f", b"1"), dir(b"f"), file(b"f/in", b"2")])
case("twice-a-directory-then-file", [dir(b"d"), file(b"d/gone", b"1"), file(b"d", b"2")], judges="umoci", expected={"d": "file 2"}, why="GNU tar keeps a directory that is not empty")
case("twice-a-symlink-then-file", [file(b"t", b"t"), symlink(b"s", b"t"), file(b"s", b"1")])
case("twice-the-target-of-a-link", [file(b"a", b"old"), link(b"b", b"a"), file(b"a", b"new")])

# Directories that nobody mentions.
case("implied", [file(b"a/b/c", b"x")], judges="", expected={"a": "dir 755 0 0", "a/b": "dir 755 0 0"}, why="others give it the time of unpacking, which is not the image's")
case("implied-upon-another", [dir(b"a", mode=0o700, uid=3, gid=4, mtime=77), file(b"a/x", b"x")], [file(b"a/y", b"y")], judges="umoci overlay", ignore="mtime")
case("implied-upon-a-file", [file(b"a", b"x")], [file(b"a/y", b"y")], judges="overlay", expected={"a/y": "file y"}, why="umoci finds a file in the way")

# Layers upon layers.
below = [dir(b"d", mode=0o711, uid=1), file(b"d/f", b"f"), dir(b"d/s"), file(b"d/s/g", b"g"), file(b"file", b"1"), symlink(b"link", b"file"), file(b"one", b"1"), link(b"two", b"one")]
case("directory-upon-directory", below, [dir(b"d", mode=0o700, gid=9, mtime=5)], judges="umoci overlay")
case("others-upon-others", below, [file(b"d", b"now a file"), dir(b"file"), file(b"file/in", b"2"), file(b"link", b"3")], judges="umoci overlay")
case("whiteouts", below, [dir(b"d", mtime=5), file(b"d/.wh.f"), file(b".wh.link"), file(b".wh.never")], judges="umoci overlay")
case("whiteout-of-a-tree", below, [file(b".wh.d")], judges="umoci overlay")
case("whiteout-then-new", below, [file(b".wh.d"), dir(b"d"), file(b"d/new", b"n")], judges="umoci overlay")
case("new-then-whiteout", below, [dir(b"d"), file(b"d/new", b"n"), file(b".wh.d"), file(b"file", b"new"), file(b".wh.file")], judges="overlay",
     expected={"d/new": "file n", "d/f": None, "file": "file new"}, why="umoci leaves what is below a directory that it met before the whiteout")
case("whiteout-of-one-name", below, [file(b".wh.one")], judges="umoci", expected={"two": "file 1 links=1"}, why="kernel overlayfs counts names that are hidden")
case("whiteout-as-hard-link", below, [link(b".wh.file", b"link")], judges="umoci", expected={"file": None}, why="GNU tar cannot unpack the link by itself")
case("whiteouts-with-bad-names", below, [file(b".wh..")], refused=["not a file name"])
case("opaque-first", below, [dir(b"d", mtime=5), file(b"d/.wh..wh..opq"), file(b"d/new", b"n")], judges="umoci overlay")
case("opaque-last", below, [dir(b"d", mtime=5), file(b"d/new", b"n"), dir(b"d/s", mtime=6), file(b"d/.wh..wh..opq")], judges="overlay", expected={"d/s/g": None, "d/f": None, "d/new": "file n"}, why="umoci loses the times of directories that were there before the mark")
case("opaque-implied", below, [file(b"d/.wh..wh..opq")], judges="umoci overlay", ignore="mtime")
case("opaque-root", below, [file(b".wh..wh..opq"), file(b"new", b"n")], judges="umoci", expected={"d": None, "new": "file n"}, why="kernel overlayfs looks for no mark upon a root")
case("marks-of-aufs", [file(b".wh..wh.aufs"), dir(b".wh..wh.orph"), dir(b".wh..wh.plnk"), file(b".wh..wh.plnk/1.2", b"shared"), link(b"a", b".wh..wh.plnk/1.2"), link(b"b", b".wh..wh.plnk/1.2")],
     judges="", expected={"a": "file shared links=2", "b": "file shared", ".wh..wh.plnk": None, ".wh..wh.aufs": None}, why="umoci takes it for whiteouts of names that nobody has, tar for files")
case("whiteouts-of-overlayfs", below, [header(b"file", b"3")], judges="umoci", expected={"file": "char 0:0"}, why="in a tar it is a device; kernel overlayfs hides what it stacks")

# Hard links.
case("links", [file(b"f", b"x", uid=3), link(b"l", b"f", mode=0o600, uid=9, mtime=99), link(b"m", b"./l")], judges="tar", expected={"l": "file x links=3 644 3 0"},
     why="umoci gives the link's attributes to the file; layerfs keeps the file's, as GNU tar does")
case("links-to-all-kinds", [symlink(b"s", b"f"), link(b"s2", b"s", mode=0o777), header(b"p", b"6"), link(b"p2", b"p"), header(b"c", b"3", device=(1, 3)), link(b"c2", b"c"), file(b"f", b"x")])
case("links-forward", [link(b"early", b"late"), file(b"late", b"x"), link(b"earlier", b"early")], judges="", expected={"early": "file x links=3", "late": "file x"},
     why="umoci and GNU tar know only what was there before")
case("links-to-below", below, [link(b"new", b"d/f")], judges="umoci", expected={"new": "file f", "d/f": "file f"}, ignore="nlink,links", why="a layer unpacked alone has no such file, so overlayfs cannot be asked")
case("links-in-a-circle", [link(b"a", b"b"), link(b"b", b"a"), file(b"f", b"x")], judges="", expected={"a": None, "b": None, "f": "file x"}, why="others fail; here the names lead nowhere")
case("links-to-nothing", [link(b"a", b"no/such/file"), file(b"f", b"x")], judges="", expected={"a": None, "f": "file x"}, why="others fail; here the name leads nowhere")
case("links-to-directories", [dir(b"d"), link(b"a", b"d")], refused=["hard link to a directory"])

# Holes.
DATA = bytes(range(1, 255)) * 3
holes = DATA[:512].ljust(512, b"\0") + DATA[:200]
case("sparse-old", [header(b"f", b"S", size=712, magic=b"ustar  \0", fields={386: octal(4096, 12) + octal(512, 12) + octal(9000, 12) + octal(200, 12) + octal(20000, 12) + octal(0, 12), 483: octal(20000, 12)}) + padded(holes)], judges="tar", why="umoci refuses the type")
case("sparse-0.0", [pax_of({"GNU.sparse.size": "20000", "GNU.sparse.numblocks": "1", "GNU.sparse.offset": "4096", "GNU.sparse.numbytes": "512"}), file(b"f", holes[:512])], judges="umoci", why="GNU tar ends the file with its last piece, whatever its size")
case("sparse-0.1", [pax_of({"GNU.sparse.size": "20000", "GNU.sparse.name": "real", "GNU.sparse.numblocks": "3", "GNU.sparse.map": "4096,512,9000,200,20000,0"}), file(b"f", holes)])
case("sparse-1.0", [pax_of({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "real", "GNU.sparse.realsize": "20000"}), file(b"f", b"3\n4096\n512\n9000\n200\n20000\n0\n".ljust(512, b"\0") + holes)])
case("sparse-of-nothing", [pax_of({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "real", "GNU.sparse.realsize": "70000"}), file(b"f", b"1\n70000\n0\n".ljust(512, b"\0"))])
case("sparse-that-lies", [pax_of({"GNU.sparse.size": "20000", "GNU.sparse.map": "4096,512,9000,99999"}), file(b"f", holes)], refused=["sparse map"])

# Attributes.
case("xattrs", [pax_of({"SCHILY.xattr.user.a": b"with\0nul\xff", "SCHILY.xattr.security.capability": NET_RAW}), file(b"f", b"x"),
                pax_of({"SCHILY.xattr.user.d": "v", "SCHILY.xattr.trusted.t": "v"}), dir(b"d")])
case("xattrs-without-a-value", [pax_of({"SCHILY.xattr.user.empty": b""}), file(b"f", b"x")], judges="tar", why="umoci takes it for none")
case("xattrs-of-others", [pax_of({"SCHILY.xattrs.user.b": "v", "SCHILY.acl.access": "user::rwx", "RHT.security.selinux": "x"}), file(b"f", b"x")],
     judges="umoci", why="GNU tar reads the access control lists; docker and containerd know only SCHILY.xattr")
case("xattrs-of-libarchive", [pax_of({"LIBARCHIVE.xattr.user.a": "dg", "LIBARCHIVE.xattr.user.b": "dg", "SCHILY.xattr.user.b": "w"}), file(b"f", b"x")],
     judges="", expected={"f": "file x user.a=v user.b=w"}, why="only bsdtar, which writes it, reads it; here it is taken where there is nothing else")
case("xattrs-of-overlays", [pax_of({"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.redirect": "/x", "SCHILY.xattr.user.a": "v"}), dir(b"d")])
case("devices", [header(b"null", b"3", device=(1, 3), mode=0o666), header(b"disk", b"4", device=(259, 70000), mode=0o660, gid=6), header(b"pipe", b"6", mode=0o600, uid=7)])
case("ids", [file(b"large", uid=2**31, gid=2**31 + 5), pax(uid="4294967294", gid="3000000000"), file(b"largest"), file(b"octal", uid=2097151, gid=2097151)])
case("ids-that-nobody-has", [pax(uid="4294967295"), file(b"f")], refused=["owner"])
case("ids-below-zero", [file(b"f", uid=-2)], refused=["owner"])
case("times", [pax(mtime="1.000000001"), file(b"nano"), pax(mtime="4102444800.999999999"), file(b"late"), file(b"far", mtime=2**33)])
case("times-before-1970", [pax(mtime="-1.5"), file(b"f"), file(b"g", mtime=-5), pax(mtime="-1.5"), dir(b"d")], judges="tar", expected={"f": "file time=-1.5", "g": "file time=-5"},
     why="umoci's and containerd's clocks begin in 1970; the files of the image do not")
case("modes", [file(b"s", mode=0o4755), file(b"t", mode=0o2755), dir(b"u", mode=0o1777), file(b"type", mode=0o100640), symlink(b"l", b"s", mode=0o600), file(b"none", mode=0)])

# Types and ends.
case("types", [header(b"c", b"7", size=1) + padded(b"c"), header(b"v7", b"\0", size=1, magic=b"\0" * 8) + padded(b"v"), header(b"dir/", b"\0", magic=b"\0" * 8, mode=0o755)], judges="tar", why="umoci refuses type 7")
case("types-without-content", [header(b"label", b"V", size=0, magic=b"ustar  \0"), file(b"f", b"x"), symlink(b"l", b"f", size=0)], judges="tar", why="umoci refuses labels")
case("types-of-gnu-directories", [header(b"d", b"D", size=8, mode=0o755, magic=b"ustar  \0") + padded(b"Yname\0\0\0"), file(b"f", b"x")], judges="", expected={"d": "dir", "f": "file x"},
     why="umoci refuses the type; GNU tar takes the list for what to delete")
case("types-that-nobody-knows", [header(b"q", b"Q"), file(b"f", b"x")], refused=["unknown type"])
case("types-of-volumes", [header(b"m", b"M", magic=b"ustar  \0"), file(b"f", b"x")], refused=["continues a file"])
case("ends-without-zeros", b"".join([file(b"f", b"x"), file(b"g", b"y")]))
case("ends-with-one-block", file(b"f", b"x") + bytes(512))
case("ends-before-more", file(b"f", b"x") + END + file(b"hidden", b"y"))
case("ends-at-once", END)
case("ends-inside", file(b"f", b"x" * 600)[:900], refused=["cut off", "truncated", "diffid"])
case("sums-of-signed-bytes", [file(b"caf\xe9", b"x", signed=True)])
case("sums-that-are-wrong", [file(b"f", b"x").replace(b"ustar", b"ustbr")], refused=["checksum"])

# Limits.
case("longest-name", [pax(path="n" * 255), file(b"f", b"x"), pax(linkpath="t" * 4095), symlink(b"s", b"t")])
case("too-long-a-name", [pax(path="n" * 256), file(b"f", b"x")], refused=["255"])
case("too-long-a-path", [pax(path="d/" * 3000), dir(b"f")], refused=["4095"])
case("too-deep", [pax(path="d/" * 1200), dir(b"f")], refused=["deeper"])
case("too-long-a-target", [pax(linkpath="t" * 4096), symlink(b"s", b"t")], refused=["symlink target"])
case("too-long-a-header", header(b"x", b"x", size=(1 << 20) + 1) + bytes((1 << 20) + 512), refused=["extended header"])


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layout(path, layers):
    """Exactly the bytes of these tars, as other tools would not write them."""
    blobs = os.path.join(path, "blobs/sha256")
    os.makedirs(blobs)

    def put(data, media, **more):
        with open(os.path.join(blobs, digest(data)[7:]), "wb") as blob:
            blob.write(data)
        return {"mediaType": media, "digest": digest(data), "size": len(data), **more}

    config = {"architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine), "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
                "layers": [put(layer, "application/vnd.oci.image.layer.v1.tar") for layer in layers]}
    named = put(json.dumps(manifest).encode(), manifest["mediaType"], annotations={"org.opencontainers.image.ref.name": "latest"})
    for name, document in (("index.json", {"schemaVersion": 2, "manifests": [named]}), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with open(os.path.join(path, name), "w") as out:
            json.dump(document, out)


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stdout.decode(errors='replace')}")


def compare(judge, made, mnt, ignore):
    options = ["--ignore", ignore] if ignore else []
    done = subprocess.run([os.path.join(HERE, "tree.py"), "diff", *options, made, mnt], stdout=subprocess.PIPE, timeout=60)
    if done.returncode:
        raise SystemExit(f"{judge} (A) and layerfs (B) do not agree:\n{done.stdout.decode()}")


def look(path):
    """What is there: kind, content or target, and words for everything else."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return None
    words = [f"links={info.st_nlink}", f"{info.st_mode & 0o7777:o} {info.st_uid} {info.st_gid}", f"time={info.st_mtime:g}"]
    if not stat.S_ISLNK(info.st_mode):
        words += [f"{name}={os.getxattr(path, name).decode(errors='replace')}" for name in os.listxattr(path)]
    if stat.S_ISDIR(info.st_mode):
        return ["dir", "", *words]
    if stat.S_ISLNK(info.st_mode):
        return ["link", os.readlink(path), *words]
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as content:
            return ["file", content.read().decode(errors="replace"), *words]
    if stat.S_ISCHR(info.st_mode):
        return ["char", f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}", *words]
    return ["other", "", *words]


def check(expected, mnt):
    for path, wanted in expected.items():
        found = look(os.path.join(mnt, path))
        if wanted is None or found is None:
            good = wanted is found
        else:
            kind, _, rest = wanted.partition(" ")
            good = kind == found[0] and all(word in " ".join(found[1:]).split() for word in rest.split())
        if not good:
            raise SystemExit(f"{path}: wanted {wanted}, found {found}")


def judge(name, image, mnt, scratch):
    case, ignore = CASES[name], CASES[name].ignore
    check(case.expected, mnt)
    os.makedirs(os.path.join(scratch, "layers"))
    for number, layer in enumerate(case.layers):
        with open(os.path.join(scratch, f"layers/{number}.tar"), "wb") as out:
            out.write(layer)
    if "umoci" in case.judges:
        run("umoci", "unpack", "--image", image + ":latest", os.path.join(scratch, "bundle"))
        # The root has its attributes only when a layer gives them.
        if not mentions_root(case):
            shutil.copystat(mnt, os.path.join(scratch, "bundle/rootfs"))
        compare("umoci", os.path.join(scratch, "bundle/rootfs"), mnt, ignore)
    if "tar" in case.judges:
        root = os.path.join(scratch, "tar")
        os.mkdir(root)
        run("tar", "-C", root, "--numeric-owner", "--xattrs", "--xattrs-include=*", "--delay-directory-restore", "-xpf", os.path.join(scratch, "layers/0.tar"))
        if not mentions_root(case):
            shutil.copystat(mnt, root)
        compare("GNU tar", root, mnt, ignore)
    if "overlay" in case.judges:
        stack(case, scratch, mnt, ignore)


def mentions_root(case):
    return any(member in (b".", b"./", b"/") for member in (layer[:100].split(b"\0")[0] for layer in case.layers))


def stack(case, scratch, mnt, ignore):
    unpacked, merged = os.path.join(scratch, "unpacked"), os.path.join(scratch, "merged")
    run(os.path.join(HERE, "overlay-layers.py"), os.path.join(scratch, "layers"), unpacked)
    os.mkdir(merged)
    top_down = [os.path.join(unpacked, name) for name in sorted(os.listdir(unpacked), reverse=True)]
    if not mentions_root(case):
        shutil.copystat(mnt, top_down[0])
    run("mount", "-t", "overlay", "overlay", "-o", "ro,lowerdir=" + ":".join(top_down), merged)
    try:
        compare("kernel overlayfs", merged, mnt, ignore)
    finally:
        run("umount", merged)


def main(command, *arguments):
    if command == "write":
        for name, case in CASES.items():
            layout(os.path.join(arguments[0], name), case.layers)
            print(("!" if case.refused else "") + name)
    elif command == "judge":
        judge(*arguments)
    elif command == "refusal":
        print("\n".join(CASES[arguments[0]].refused))


if __name__ == "__main__":
    main(*sys.argv[1:])
