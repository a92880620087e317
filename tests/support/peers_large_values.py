"""The largest names, paths, attributes, offsets, directories."""

import mmap
import os
import shutil

from peers_cases import *


def names_of_255_bytes(t):
    for name in ("n" * 255, "\u00e4" * 127 + "x", "\U0001f600" * 63 + "abc", "new\nline \\ \t'\"", "\udcff\udcfe raw"):
        same(len(os.fsencode(name)) <= 255, True)
        put("d/" + name, "content")
        os.rename("d/" + name, "tree/" + name)
        os.mkdir("d/" + name)
        same((get("tree/" + name), name in os.listdir("d")), (b"content", True))
    for action in (lambda path: put(path, ""), os.mkdir, lambda path: os.rename("d/f", path), os.stat,
                   lambda path: os.link("d/f", path), lambda path: os.symlink("x", path)):
        with fails("ENAMETOOLONG"):
            action("d/" + "n" * 256)


def names_of_255_bytes_remounted(t):
    same("n" * 255 in os.listdir("d"), True)
    for name in os.listdir("tree"):
        if name != "one":
            os.unlink("tree/" + name)


def deleted_names_of_255_bytes(t):
    """Nothing that hides a name may make it longer."""
    put("d/" + "n" * 255, "x")
    os.unlink("d/" + "n" * 255)
    put("d/" + "n" * 252, "x")
    os.rename("d/" + "n" * 252, "d/" + "m" * 255)
    os.unlink("d/" + "m" * 255)


def symlinks_of_4095_bytes(t):
    target = ("t" * 254 + "/") * 15 + "t" * 270
    target = target[:4095]
    os.symlink(target, "d/long")
    same(os.readlink("d/long"), target)
    with fails("ENAMETOOLONG"):
        os.symlink(target + "x", "d/longer")
    os.rename("d/long", "tree/long")
    same(os.lstat("tree/long").st_size, 4095)


def symlinks_of_4095_bytes_remounted(t):
    same(len(os.readlink("tree/long")), 4095)


def paths_of_4095_bytes(t):
    """Deep directories, made step by step, moved as a whole, removed again."""
    start = os.getcwd()
    os.chdir("d")
    for _ in range(30):
        os.mkdir("p" * 200)
        os.chdir("p" * 200)
    put("leaf", "leaf")
    os.chdir(start)
    os.rename("d", "moved")
    path = "moved/" + "/".join(["p" * 200] * 20)
    same(os.path.isdir(path), True)
    with fails("ENAMETOOLONG"):
        os.stat("moved/" + "/".join(["p" * 200] * 21))
    os.chdir(path)
    os.chdir("/".join(["p" * 200] * 10))
    same(get("leaf"), b"leaf")
    put("leaf", "changed")
    os.chdir(start)
    os.rename("moved", "d")
    # Out of the way of those who look by path.
    shutil.rmtree("d/" + "p" * 200)


def a_hundred_directories_deep(t):
    path = "deep/" + "/".join(str(i) for i in range(100))
    put(path + "/leaf", "changed")
    os.rename(path + "/leaf", path + "/leaf2")
    os.rename(path, "deep/99")
    same(get("deep/99/leaf2"), b"changed")
    shutil.rmtree("deep/0")
    same(names("deep"), ["99"])


def attributes_of_all_sizes(t):
    most = 64 * 1024
    for size in (0, 1, 100, 1000, 2000):
        os.setxattr("d/f", f"user.{size}", b"v" * size)
        same(os.getxattr("d/f", f"user.{size}"), b"v" * size)
    with fails("E2BIG", "ENOSPC", "ERANGE"):
        os.setxattr("d/f", "user.large", b"v" * (most + 1))
    try:
        os.setxattr("d/g", "user.large", b"v" * most)
        same(os.getxattr("d/g", "user.large"), b"v" * most)
    except OSError as error:
        # What the filesystem below has no room for.
        same(errno.errorcode[error.errno] in ("ENOSPC", "E2BIG", "ERANGE"), True, error)
    with fails("ERANGE", "EOPNOTSUPP"):
        os.setxattr("d/f", "user." + "n" * 251, b"v")
    os.setxattr("d/f", "user." + "n" * 250, b"v")
    for i in range(30):
        os.setxattr("d/sub", f"user.{i}", b"x" * 20)
    same(len([name for name in os.listxattr("d/sub") if name.startswith("user.")]), 30)
    with fails("EEXIST"):
        os.setxattr("d/f", "user.1", b"v", os.XATTR_CREATE)
    with fails("ENODATA"):
        os.setxattr("d/f", "user.none", b"v", os.XATTR_REPLACE)
    with fails("ENODATA"):
        os.getxattr("d/f", "user.none")
    with fails("ENODATA"):
        os.removexattr("d/f", "user.none")


def attributes_of_all_sizes_remounted(t):
    for size in (0, 1, 100, 1000, 2000):
        same(os.getxattr("d/f", f"user.{size}"), b"v" * size)
        os.removexattr("d/f", f"user.{size}")
    same(os.getxattr("d/f", "user." + "n" * 250), b"v")


def offsets_beyond_four_gigabytes(t):
    file = os.open("d/f", os.O_RDWR)
    for at in ((1 << 32) - 2, (1 << 32) + 5, (1 << 33) + 1, (1 << 40) + 3):
        os.pwrite(file, b"far out", at)
        same((os.pread(file, 7, at), os.fstat(file).st_size), (b"far out", at + 7))
    same(os.pread(file, 10, 0), b"A" * 10)
    same(os.lseek(file, 1 << 34, os.SEEK_DATA), ((1 << 40) + 3) // 4096 * 4096)
    same(os.fstat(file).st_blocks * 512 < 1 << 20, True, "allocated")
    with mmap.mmap(file, 8192, offset=1 << 32) as shared:
        shared[5:8] = b"FAR"
    same(os.pread(file, 7, (1 << 32) + 5), b"FAR out")
    with fails("EFBIG", "EINVAL"):
        os.ftruncate(file, (1 << 63) - 1)
    with fails("EFBIG", "EINVAL"):
        os.pwrite(file, b"x", (1 << 63) - 2)
    with fails("EINVAL"):
        os.pread(file, 1, -1)
    same(os.pread(file, 10, (1 << 62)), b"")
    os.ftruncate(file, 10)
    same(get("d/f"), b"A" * 10)


def a_directory_of_ten_thousand_names(t):
    for i in range(10_000):
        os.close(os.open(f"many/new-{i:05}", os.O_CREAT | os.O_WRONLY))
    listed = os.listdir("many")
    same((len(listed), len(set(listed))), (10_000 + 299 + 100, 10_000 + 299 + 100))
    shutil.rmtree("many")
    os.mkdir("many")
    same(os.listdir("many"), [])


def direct_io(t):
    """O_DIRECT, or the error that says there is none."""
    original = get("big")
    try:
        file = os.open("big", os.O_RDWR | os.O_DIRECT)
    except OSError as error:
        same(error.errno, errno.EINVAL)
        return
    block = mmap.mmap(-1, 8192)
    same(os.preadv(file, [block], 4096), 8192)
    same(block[:], original[4096:12288])
    block[:] = b"D" * 8192
    same(os.pwritev(file, [block], 8192), 8192)
    same(get("big"), original[:8192] + b"D" * 8192 + original[16384:])
    tail = len(original) // 4096 * 4096
    same(os.preadv(file, [block], tail), len(original) - tail)
    with open("big", "r+b") as cached:
        cached.seek(100)
        cached.write(b"cached")
        cached.flush()
        same(os.preadv(file, [block], 0), 8192)
        same(block[100:106], b"cached")


if __name__ == "__main__":
    run(globals())
