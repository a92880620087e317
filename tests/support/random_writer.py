#!/usr/bin/env python3
"""Changes files at random and knows what must be left of it when the filesystem's server is killed.

    random_writer.py make DIR SEED               makes the files to begin with
    random_writer.py remember DIR STATE          takes what is in DIR as what there must be
    random_writer.py write DIR STATE LOG SEED    changes it until the filesystem is gone; LOG says what, before and after
    random_writer.py check DIR STATE LOG         says what is wrong; then STATE is what is there now, and LOG empty

What a call has returned from, and fsync has made sure of, must be there. Of what was written since, each 4 KiB block
may be any of the versions that it had: never anything else. Names are there as the calls that returned left them.
"""

import errno
import mmap
import os
import pickle
import random
import stat
import sys

BLOCK = 4096
BYTES_MAX = 40 * BLOCK


def bytes_of(seed, length):
    return random.Random(seed).randbytes(length)


def written(count, length):
    if count < length:
        # The kernel sends each page range on its own; the server may go in between.
        raise OSError(errno.EIO, "short write")


class File:
    """One file: its content, and what else may be there because nothing was flushed since."""

    def __init__(self, content, ino=None, mode=0o644):
        self.content, self.ino, self.mode = content, ino, mode
        # What was done with it, for those who look for a defect.
        self.history = []
        self.flush()

    def flush(self):
        self.blocks = {}
        self.sizes = (len(self.content), len(self.content))

    def become(self, content):
        old = self.content
        for at in range(0, max(len(old), len(content)), BLOCK):
            before, after = old[at:at + BLOCK], content[at:at + BLOCK]
            if before != after:
                self.blocks.setdefault(at, [before]).append(after)
        self.content = content
        self.sizes = (min(self.sizes[0], len(content)), max(self.sizes[1], len(content)))

    def wrong(self, found):
        if not self.sizes[0] <= len(found) <= self.sizes[1]:
            return f"{len(found)} bytes, not {self.sizes[0]} to {self.sizes[1]}"
        for at in range(0, len(found), BLOCK):
            block = found[at:at + BLOCK]
            allowed = self.blocks.get(at, [self.content[at:at + BLOCK]])
            # Where the size is in question, what lies behind a version's end reads as zeros.
            if not any(one.ljust(len(block), b"\0")[:len(block)] == block for one in allowed):
                right = allowed[-1].ljust(len(block), b"\0")
                bad = [at + index for index in range(len(block)) if block[index] != right[index]]
                what = "zeros" if not any(found[index] for index in bad) else "other bytes"
                return (f"{what} from {bad[0]} to {bad[-1]} of {len(found)}; the block had {len(allowed)} versions since it "
                        f"was flushed; {self.history}")
        return None


class Tree:
    """Names to files, and the directories."""

    def __init__(self, names, directories):
        self.names, self.directories = names, directories

    def apply(self, name, arguments):
        """What an operation does, as far as it can be known before it returned."""
        if arguments[0] in self.names:
            self.names[arguments[0]].history.append((name, *arguments))
        getattr(self, "do_" + name)(*arguments)

    def do_pwrite(self, path, offset, length, seed):
        content = self.names[path].content.ljust(offset, b"\0")
        self.names[path].become(content[:offset] + bytes_of(seed, length) + content[offset + length:])

    do_store = do_pwrite

    def do_truncate(self, path, size):
        self.names[path].become(self.names[path].content[:size].ljust(size, b"\0"))

    def do_rewrite(self, path, length, seed):
        self.do_truncate(path, 0)
        self.do_pwrite(path, 0, length, seed)

    def do_create(self, path):
        self.names[path] = File(b"")

    def do_unlink(self, path):
        del self.names[path]

    def do_link(self, path, other):
        self.names[other] = self.names[path]

    def do_rename(self, path, other):
        self.names[other] = self.names.pop(path)

    def do_chmod(self, path, mode):
        self.names[path].mode = mode

    def do_fsync(self, path):
        """Nothing until it returns."""

    def do_rename_directory(self, path, other):
        moved = lambda name: other + name[len(path):] if name.startswith(path + "/") else name
        self.names = {moved(name): file for name, file in self.names.items()}
        self.directories = {other if name == path else name for name in self.directories}

    def returned(self, name, arguments):
        if name == "fsync":
            self.names[arguments[0]].flush()


class Changer:
    """Chooses operations and does them."""

    def __init__(self, root, tree, log, seed):
        self.root, self.tree, self.log, self.rng = root, tree, log, random.Random(seed)

    def run(self):
        while True:
            name, *arguments = self.choose()
            os.write(self.log, (repr((name, arguments)) + "\n").encode())
            getattr(self, "call_" + name)(*arguments)
            os.write(self.log, b"returned\n")
            self.tree.apply(name, arguments)
            self.tree.returned(name, arguments)

    def choose(self):
        rng, names = self.rng, sorted(self.tree.names)
        path, kind = rng.choice(names), rng.random()
        size = len(self.tree.names[path].content)
        fresh = f"{rng.choice(sorted(self.tree.directories))}/n{rng.randrange(1 << 30)}"
        seed = rng.randrange(1 << 60)
        length = rng.choice([1, 100, BLOCK, rng.randrange(1, 5 * BLOCK)])
        if kind < 0.30:
            offset = min(rng.randrange(size + BLOCK), BYTES_MAX)
            return "pwrite", path, rng.choice([offset, offset // BLOCK * BLOCK]), length, seed
        if kind < 0.40:
            return "pwrite", path, min(size, BYTES_MAX), length, seed
        if kind < 0.60:
            return "fsync", path
        if kind < 0.72 and size:
            offset = rng.randrange(size)
            return "store", path, offset, min(length, size - offset), seed
        if kind < 0.76:
            return "truncate", path, rng.randrange(BYTES_MAX)
        if kind < 0.79:
            return "rewrite", path, length, seed
        if kind < 0.82:
            return "chmod", path, rng.choice([0o600, 0o644, 0o755])
        if kind < 0.86 and len(names) < 60:
            return "create", fresh
        if kind < 0.89 and len(names) < 60:
            return "link", path, fresh
        if kind < 0.92 and len(names) > 20:
            return "unlink", path
        if kind < 0.98:
            target = rng.choice(names + [fresh])
            if target != path and self.tree.names.get(target) is not self.tree.names[path]:
                return "rename", path, target
        if kind < 0.985:
            return "rename_directory", rng.choice(sorted(self.tree.directories)), f"d{rng.randrange(1 << 30)}"
        return "fsync", path

    def at(self, path):
        return os.path.join(self.root, path)

    def open(self, path, flags=os.O_RDWR):
        return os.fdopen(os.open(self.at(path), flags), "r+b", buffering=0)

    def call_pwrite(self, path, offset, length, seed):
        with self.open(path) as file:
            written(os.pwrite(file.fileno(), bytes_of(seed, length), offset), length)

    def call_store(self, path, offset, length, seed):
        with self.open(path) as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[offset:offset + length] = bytes_of(seed, length)

    def call_truncate(self, path, size):
        os.truncate(self.at(path), size)

    def call_rewrite(self, path, length, seed):
        with self.open(path, os.O_RDWR | os.O_TRUNC) as file:
            written(os.write(file.fileno(), bytes_of(seed, length)), length)

    def call_fsync(self, path):
        with self.open(path) as file:
            if self.rng.random() < 0.3 and os.fstat(file.fileno()).st_size:
                with mmap.mmap(file.fileno(), 0) as memory:
                    memory.flush()
            # Once more, because msync(2) leaves the size out.
            os.fsync(file.fileno())

    def call_create(self, path):
        os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))

    def call_unlink(self, path):
        os.unlink(self.at(path))

    def call_link(self, path, other):
        os.link(self.at(path), self.at(other))

    def call_rename(self, path, other):
        os.rename(self.at(path), self.at(other))

    call_rename_directory = call_rename

    def call_chmod(self, path, mode):
        os.chmod(self.at(path), mode)


def make(root, seed):
    for directory in range(4):
        os.makedirs(f"{root}/d{directory}")
    for number in range(24):
        path = f"{root}/d{number % 4}/f{number}"
        with open(path, "wb") as file:
            file.write(bytes_of(f"{seed} {number}", number * 7 * BLOCK // 2 % BYTES_MAX))
        os.chmod(path, 0o644)
    # Files with several names, within a directory and across two.
    os.link(f"{root}/d0/f0", f"{root}/d0/h0")
    os.link(f"{root}/d1/f1", f"{root}/d2/h1")


def look(root):
    files, names, directories = {}, {}, set()
    for at, inner, found in os.walk(root):
        directories.update(os.path.relpath(os.path.join(at, name), root) for name in inner)
        for name in found:
            path = os.path.join(at, name)
            info = os.stat(path)
            if info.st_ino not in files:
                with open(path, "rb") as file:
                    files[info.st_ino] = File(file.read(), info.st_ino, stat.S_IMODE(info.st_mode))
                assert len(files[info.st_ino].content) == info.st_size, f"{path}: size"
            names[os.path.relpath(path, root)] = files[info.st_ino]
    for path, file in names.items():
        count = sum(other is file for other in names.values())
        assert os.stat(os.path.join(root, path)).st_nlink == count, f"{path}: link count is not {count}"
    return Tree(names, directories)


def save(tree, path):
    with open(path, "wb") as file:
        pickle.dump(tree, file)


def load(path):
    with open(path, "rb") as file:
        return pickle.load(file)


def write(root, state, log, seed):
    log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        Changer(root, load(state), log, seed).run()
    except OSError as error:
        try:
            os.statvfs(root)
        except OSError:
            return
        sys.exit(f"the filesystem is there, but: {error!r}")


def differences(tree, found):
    if tree.names.keys() != found.names.keys():
        lost, extra = tree.names.keys() - found.names.keys(), found.names.keys() - tree.names.keys()
        yield f"names: lost {sorted(lost)}, extra {sorted(extra)}"
        return
    seen = {}
    for path, file in sorted(tree.names.items()):
        there = found.names[path]
        if seen.setdefault(id(file), there) is not there:
            yield f"{path}: another file than under its other names"
        if file.ino is not None and file.ino != there.ino:
            yield f"{path}: inode {there.ino}, was {file.ino}"
        if file.mode != there.mode:
            yield f"{path}: mode {there.mode:o}, was {file.mode:o}"
        if wrong := file.wrong(there.content):
            yield f"{path}: {wrong}"


def check(root, state, log):
    lines = open(log).read().splitlines() if os.path.exists(log) else []
    tree, pending, count = load(state), None, 0
    for line in lines:
        if line == "returned":
            tree.apply(*pending)
            tree.returned(*pending)
            pending, count = None, count + 1
        else:
            pending = eval(line)
    found = look(root)
    wrong = list(differences(tree, found))
    if pending is not None:
        tree.apply(*pending)
        # Of a write that was under way, each block may be old or new; any other change is whole or not at all.
        if wrong:
            wrong_after = list(differences(tree, found))
            wrong = wrong_after and wrong + [f"and with {pending}:"] + wrong_after
    if wrong:
        sys.exit("\n".join(wrong))
    for path, file in found.names.items():
        file.history = (tree.names[path].history if path in tree.names else []) + ["kill"]
    save(found, state)
    if os.path.exists(log):
        os.truncate(log, 0)
    print(count)


def main():
    command, root, *rest = sys.argv[1:]
    if command == "remember":
        save(look(root), rest[0])
    else:
        {"make": make, "write": write, "check": check}[command](root, *rest)


if __name__ == "__main__":
    main()
