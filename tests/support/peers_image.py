#!/usr/bin/env python3
"""The image of the tests in tests/it/peers, and what it must look like.

    peers_image.py DIR     makes DIR/image.tar, a docker archive of three layers, and DIR/tree, the merged tree,
                           unpacked by this file's own rules, for an ordinary filesystem to hold
"""

import hashlib
import io
import json
import os
import shutil
import sqlite3
import sys
import tarfile
import tempfile

MTIME = 1_500_000_000
BUSYBOX = "/bin/busybox"


def pattern(count, seed):
    """Bytes that differ from block to block."""
    out = bytearray()
    block = 0
    while len(out) < count:
        out += hashlib.sha256(b"%d %d" % (seed, block)).digest() * 16
        block += 1
    return bytes(out[:count])


def database():
    with tempfile.TemporaryDirectory() as dir:
        path = os.path.join(dir, "db")
        connection = sqlite3.connect(path)
        connection.execute("create table rows (id integer primary key, text text)")
        connection.executemany("insert into rows (text) values (?)", ((f"row {i} " * 20,) for i in range(5000)))
        connection.commit()
        connection.close()
        with open(path, "rb") as file:
            return file.read()


def d(path, mode=0o755):
    return (path, "dir", mode, None)


def f(path, content=b"", mode=0o644):
    return (path, "file", mode, content if isinstance(content, bytes) else content.encode())


def hard(path, target):
    return (path, "link", 0, target)


def sym(path, target):
    return (path, "symlink", 0o777, target)


def gone(path):
    dir, name = os.path.split(path)
    return f(os.path.join(dir, ".wh." + name))


def opaque(path):
    return f(path + "/.wh..wh..opq")


def base():
    yield from (d("."), d("d"), f("d/f", "A" * 10), f("d/g", "g content\n"), f("d/ro", "read only\n", 0o444), d("d/sub"))
    yield from (f("d/sub/x", "x"), d("d/sub/deeper"), f("d/sub/deeper/y", "y"), d("d/empty"))
    yield from (f("d/suid", "suid\n", 0o6777), f("d/sgid-lock", "lock\n", 0o2646), sym("sym", "d/f"))
    yield d("modes")
    for name, mode in (("private", 0o700), ("sticky", 0o1777), ("setgid", 0o2775), ("closed", 0o555), ("open", 0o777)):
        yield from (d(f"modes/{name}", mode), f(f"modes/{name}/file", name))
    yield from (d("lnk"), f("lnk/a", "linked\n"), hard("lnk/b", "lnk/a"), d("lnk/sub"), hard("lnk/sub/c", "lnk/a"))
    yield ("fifo", "fifo", 0o640, None)
    yield from (d("bin"), f("bin/busybox", open(BUSYBOX, "rb").read(), 0o755))
    yield from (f("big", pattern(3_000_001, 1)), d("db"), f("db/app.db", database()))
    yield d("many")
    for i in range(300):
        yield f(f"many/low-{i:03}", str(i))
    path = "deep"
    yield d(path)
    for i in range(100):
        path += f"/{i}"
        yield d(path)
    yield f(path + "/leaf", "leaf")
    # What the layers above hide, in all the ways there are.
    yield from (d("wm"), d("wm/b"), f("wm/b/secret", "secret"), d("op"), d("op/q"), f("op/q/secret", "secret"))
    yield from (d("same"), f("same/first", "old"), f("same/last", "old"), f("rootx", "hidden"), f("d/rootx", "shown"))
    yield from (d("fd"), d("fd/x"), f("fd/x/child", "hidden"), d("df"), f("df/x", "hidden"))
    yield from (d("re"), d("re/x"), f("re/x/old", "hidden"), d("tree"), d("tree/one"), f("tree/one/low", "low"))
    yield from (d("tree/one/two"), f("tree/one/two/low", "low"), d("whole"), f("whole/a", "a"), f("whole/b", "b"))
    for dir in ("apt", "apt/lists", "apt/lists/partial"):
        yield d(dir)
    yield from (f("apt/lists/index", "old index"), f("apt/status", "Package: base\n" * 2000))


def middle():
    yield from (gone("wm/b"), opaque("op"), f("same/first", "new"), gone("same/first"))
    yield from (gone("same/last"), f("same/last", "new"), gone("rootx"), f("fd/x", "a file now"))
    yield gone("re/x")
    yield from (f("tree/one/mid", "mid"), d("many"), gone("many/low-000"))
    for i in range(100):
        yield f(f"many/mid-{i:03}", str(i))


def top():
    yield from (d("wm/b"), f("wm/b/new", "new"), d("op/q"), f("op/q/new", "new"), d("df/x"), f("df/x/child", "child"))
    yield from (d("re/x"), f("re/x/new", "new"), f("tree/one/two/top", "top"), f("d/.whole", "not a whiteout"))


def layers():
    return [list(base()), list(middle()), list(top())]


def tar_of(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, kind, mode, what in entries:
            info = tarfile.TarInfo(path)
            info.mode, info.mtime = mode, MTIME
            types = {"dir": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE, "link": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE}
            info.type = types.get(kind, tarfile.REGTYPE)
            if kind in ("symlink", "link"):
                info.linkname = what
            content = what if kind == "file" else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def write_image(path, parts):
    tars = [tar_of(entries) for entries in parts]
    diff_ids = ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    config = json.dumps(config).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    names = [f"{i}/layer.tar" for i in range(len(tars))]
    manifest = json.dumps([{"Config": name, "RepoTags": ["peers:latest"], "Layers": names}]).encode()
    with tarfile.open(path, "w") as archive:
        for member, content in [(name, config), *zip(names, tars), ("manifest.json", manifest)]:
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content))


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def write_tree(root):
    """Layer upon layer: first what a layer hides of those below, then what it has."""
    made = {}
    for entries in layers():
        for path, _, _, _ in entries:
            dir, name = os.path.split(path)
            if name == ".wh..wh..opq":
                for inner in os.listdir(os.path.join(root, dir)):
                    remove(os.path.join(root, dir, inner))
            elif name.startswith(".wh."):
                remove(os.path.join(root, dir, name[4:]))
        for path, kind, mode, what in entries:
            if os.path.basename(path).startswith(".wh."):
                continue
            full = os.path.join(root, path)
            if kind != "dir" or not os.path.isdir(full) or os.path.islink(full):
                remove(full)
                put(root, full, kind, what)
            made[path] = (kind, mode)
    for path, (kind, mode) in sorted(made.items(), reverse=True):
        full = os.path.join(root, path)
        if os.path.lexists(full):
            if kind not in ("symlink", "link"):
                os.chmod(full, mode)
            os.utime(full, (MTIME, MTIME), follow_symlinks=False)


def put(root, full, kind, what):
    if kind == "dir":
        os.mkdir(full)
    elif kind == "file":
        with open(full, "xb") as file:
            file.write(what)
    elif kind == "symlink":
        os.symlink(what, full)
    elif kind == "link":
        os.link(os.path.join(root, what), full)
    elif kind == "fifo":
        os.mkfifo(full)


def main():
    dir = sys.argv[1]
    write_image(os.path.join(dir, "image.tar"), layers())
    os.umask(0)
    os.mkdir(os.path.join(dir, "tree"))
    write_tree(os.path.join(dir, "tree"))


if __name__ == "__main__":
    main()
