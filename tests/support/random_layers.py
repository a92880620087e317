"""Layers as lines of text: written as an image, and merged into a plain directory by the definition of an image.

    image docker|gzip|dir UID through|back|passed  its form, who else works there, how it is mounted
    layer                                        begins a layer, base first
    dir PATH MODE UID GID MTIME                  octal mode, mtime in nanoseconds
    file PATH MODE UID GID MTIME SIZE[:PIECE,..]  a piece is OFFSET+LENGTH*SEED; between pieces are holes
    symlink PATH TARGET MTIME
    special PATH KIND MODE UID GID MTIME         KIND is fifo, or char-MAJOR-MINOR
    link PATH TO                                 a hard link within the layer
    xattr PATH NAME VALUE                        of a file or directory of the same layer
    whiteout PATH
    opaque PATH

A line that makes no sense where it stands is passed over, so that any of them can be left out.
"""

import functools
import gzip
import hashlib
import io
import json
import os
import random
import stat
import tarfile

BLOCK = 512


class Node:
    def __init__(self, kind, mode=0o755, uid=0, gid=0, mtime=0):
        self.kind, self.mode, self.uid, self.gid, self.mtime = kind, mode, uid, gid, mtime
        self.size, self.pieces, self.target, self.device = 0, [], "", (0, 0)
        self.xattrs, self.names = {}, {}
        self.implied = self.opaque = False

    def is_dir(self):
        return self.kind == "dir"


@functools.lru_cache(maxsize=64)
def noise(length, seed):
    return random.Random(seed).randbytes(length)


def parse(lines):
    """(how it is delivered, roots of the layers); of a layer, None under a name is a whiteout."""
    form, layers = "docker", []
    for line in lines:
        verb, *words = line.split()
        if verb == "image":
            form = words[0]
        elif verb == "layer":
            layers.append(Node("dir"))
            layers[-1].implied = True
        elif layers:
            put(layers[-1], verb, words)
    return form, layers


def put(root, verb, words):
    path, target = words[0], None
    if verb == "link":
        inner, last = parent_of(root, words[1], implied=False)
        target = inner and inner.names.get(last)
        # An ordinary user's symlinks and special files cannot carry the mark that keeps their names together.
        if not target or target.is_dir() or (target.kind != "file" and os.geteuid() != 0):
            return
    parent, name = parent_of(root, path, implied=verb not in ("opaque", "xattr"))
    if parent is None:
        return
    here = parent.names.get(name) if path != "." else root
    if verb == "dir":
        put_dir(parent, name, here, words)
    elif verb == "opaque":
        if here is not None and here.is_dir():
            here.opaque = True
    elif verb == "xattr":
        if here is not None and here.kind in ("dir", "file"):
            here.xattrs[words[1]] = words[2].encode()
    elif name in parent.names or path == ".":
        return
    elif verb == "whiteout":
        parent.names[name] = None
    elif verb == "link":
        parent.names[name] = target
    else:
        parent.names[name] = leaf(verb, words)


def put_dir(parent, name, here, words):
    if here is None:
        if name in parent.names:
            return
        here = parent.names[name] = Node("dir")
    if here.is_dir():
        here.implied = False
        here.mode, here.uid, here.gid, here.mtime = int(words[1], 8), int(words[2]), int(words[3]), int(words[4])


def parent_of(root, path, implied):
    """Directory and last name; parents implied, if that is wanted; none when something else is in the way."""
    *inner, last = path.split("/")
    here = root
    for name in inner:
        if name not in here.names and implied:
            here.names[name] = Node("dir")
            here.names[name].implied = True
        here = here.names.get(name)
        if here is None or not here.is_dir():
            return None, last
    return here, last


def leaf(verb, words):
    if verb == "symlink":
        node = Node("symlink", 0o777, 0, 0, int(words[2]))
        node.target = words[1]
    elif verb == "special":
        kind, *device = words[1].split("-")
        node = Node(kind, int(words[2], 8), *map(int, words[3:6]))
        node.device = tuple(map(int, device)) or (0, 0)
    else:
        node = Node("file", int(words[1], 8), *map(int, words[2:5]))
        size, _, pieces = words[5].partition(":")
        node.size = int(size)
        for piece in filter(None, pieces.split(",")):
            offset, rest = piece.split("+")
            length, seed = rest.split("*")
            node.pieces.append((int(offset), noise(int(length), int(seed))))
    return node


def merged(layers):
    """What an image of these layers is: whiteouts and opaque marks first, then what the layer has."""
    root = Node("dir")
    for layer in layers:
        erase(root, layer)
        add(root, layer)
    return root


def erase(below, layer):
    if layer.opaque:
        below.names.clear()
    for name, node in layer.names.items():
        there = below.names.get(name)
        if node is None:
            below.names.pop(name, None)
        elif there and there.is_dir() and node.is_dir():
            erase(there, node)


def add(below, layer):
    if not layer.implied:
        below.mode, below.uid, below.gid, below.mtime = layer.mode, layer.uid, layer.gid, layer.mtime
        below.xattrs = layer.xattrs
    for name, node in layer.names.items():
        if node is None:
            continue
        if not node.is_dir():
            below.names[name] = node
            continue
        there = below.names.get(name)
        if not there or not there.is_dir():
            there = below.names[name] = Node("dir")
        add(there, node)


def unpack(root, path):
    """Writes a merged tree into an empty directory; owners as far as the caller may."""
    fill(root, path, {})
    dress(root, path)


def fill(node, path, made):
    for name, child in node.names.items():
        inner = os.path.join(path, name)
        if child.is_dir():
            os.mkdir(inner)
            fill(child, inner, made)
            dress(child, inner)
        elif id(child) in made:
            os.link(made[id(child)], inner, follow_symlinks=False)
        else:
            made[id(child)] = inner
            make(child, inner)


def make(node, path):
    if node.kind == "symlink":
        os.symlink(node.target, path)
    elif node.kind == "fifo":
        os.mkfifo(path)
    elif node.kind == "char":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(*node.device))
    else:
        with open(path, "xb", buffering=0) as file:
            for offset, data in node.pieces:
                os.pwrite(file.fileno(), data, offset)
            file.truncate(node.size)
    dress(node, path)


def dress(node, path):
    for name, value in node.xattrs.items():
        os.setxattr(path, name, value, follow_symlinks=False)
    if os.geteuid() == 0:
        os.chown(path, node.uid, node.gid, follow_symlinks=False)
    if node.kind != "symlink":
        os.chmod(path, node.mode)
    os.utime(path, ns=(node.mtime, node.mtime), follow_symlinks=False)


def write_layer(root):
    """The bytes of a layer's tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        write_dir(tar, "", root, {})
    return out.getvalue()


def write_dir(tar, path, node, made):
    if not node.implied:
        tar.addfile(header(path or ".", tarfile.DIRTYPE, node))
    if node.opaque:
        tar.addfile(tarfile.TarInfo(path + "/.wh..wh..opq" if path else ".wh..wh..opq"))
    for name, child in node.names.items():
        inner = f"{path}/{name}" if path else name
        if child is None:
            tar.addfile(tarfile.TarInfo(f"{path}/.wh.{name}" if path else f".wh.{name}"))
        elif child.is_dir():
            write_dir(tar, inner, child, made)
        elif id(child) in made:
            info = tarfile.TarInfo(inner)
            info.type, info.linkname = tarfile.LNKTYPE, made[id(child)]
            tar.addfile(info)
        else:
            made[id(child)] = inner
            write_leaf(tar, inner, child)


def header(path, kind, node):
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.uid, info.gid = kind, node.mode, node.uid, node.gid
    sign, nanos = ("-", -node.mtime) if node.mtime < 0 else ("", node.mtime)
    info.pax_headers = {"mtime": f"{sign}{nanos // 10**9}.{nanos % 10**9:09d}"}
    for name, value in node.xattrs.items():
        info.pax_headers["SCHILY.xattr." + name] = value.decode()
    return info


def write_leaf(tar, path, node):
    kinds = {"file": tarfile.REGTYPE, "symlink": tarfile.SYMTYPE, "fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE}
    info = header(path, kinds[node.kind], node)
    info.linkname = node.target
    info.devmajor, info.devminor = node.device
    data = b""
    if node.kind == "file":
        whole = sum(len(piece) for _, piece in node.pieces) == node.size
        data = b"".join(piece for _, piece in node.pieces) if whole else sparse(info, node)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def sparse(info, node):
    """GNU sparse format 1.0: the map lies in front of the data."""
    pieces = [*node.pieces, (node.size, b"")]
    table = f"{len(pieces)}\n" + "".join(f"{offset}\n{len(data)}\n" for offset, data in pieces)
    table = table.encode()
    table += bytes(-len(table) % BLOCK)
    head, _, tail = info.name.rpartition("/")
    info.pax_headers |= {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0",
        "GNU.sparse.name": info.name, "GNU.sparse.realsize": str(node.size),
    }
    info.name = f"{head}/GNUSparseFile.0/{tail}" if head else f"GNUSparseFile.0/{tail}"
    return table + b"".join(data for _, data in pieces)


def write_image(form, layers, path):
    """A docker-archive, or the merged tree as a directory."""
    if form == "dir":
        os.mkdir(path)
        unpack(merged(layers), path)
        return
    tars = [write_layer(layer) for layer in layers]
    diff_ids = ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }).encode()
    names = [f"{number}/layer.tar" for number in range(len(tars))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": ["random:latest"], "Layers": names}]).encode()
    with tarfile.open(path, "w") as archive:
        for name, tar in zip(names, tars):
            add_member(archive, name, gzip.compress(tar, 1, mtime=0) if form == "gzip" else tar)
        add_member(archive, "config.json", config)
        add_member(archive, "manifest.json", manifest)


def add_member(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
