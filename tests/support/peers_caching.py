"""The kernel keeps everything; what it keeps is true all the same."""

import os
import threading

from peers_cases import *


def what_was_not_there_appears(t):
    for i, make in enumerate((lambda path: put(path, "x"), os.mkdir, lambda path: os.symlink("x", path),
                 lambda path: os.link("d/g", path), lambda path: os.rename("d/sub", path),
                 lambda path: renameat2("whole", path, NOREPLACE))):
        path = f"d/{i}-new"
        for _ in range(3):
            with fails("ENOENT"):
                os.stat(path)
        make(path)
        os.lstat(path)
        same(os.path.basename(path) in names("d"), True)


def what_was_there_is_gone(t):
    for path, remove in (("d/f", os.unlink), ("d/empty", os.rmdir), ("d/g", lambda path: os.rename(path, "d/h")),
                         ("tree", lambda path: os.rename(path, "tree2"))):
        os.stat(path)
        remove(path)
        for _ in range(2):
            with fails("ENOENT"):
                os.stat(path)
    with fails("ENOENT"):
        os.stat("tree/one/two/low")


def a_listing_is_never_old(t):
    for i in range(50):
        before = set(names("many"))
        put(f"many/new-{i}", "")
        same(set(names("many")) - before, {f"new-{i}"})
        os.rename(f"many/new-{i}", f"many/moved-{i}")
        same(set(names("many")) - before, {f"moved-{i}"})
        os.unlink(f"many/moved-{i}")
        same(set(names("many")), before)


def attributes_follow_every_change(t):
    info = os.stat("d/f")
    os.chmod("d/f", 0o600)
    same(mode("d/f"), 0o600)
    with open("d/f", "a") as file:
        file.write("xyz")
        file.flush()
        same(os.stat("d/f").st_size, 13)
    same(os.stat("d/f").st_mtime_ns > info.st_mtime_ns, True)
    before = os.stat("d/f").st_ctime_ns
    os.link("d/f", "d/f2")
    same((os.stat("d/f").st_nlink, os.stat("d/f2").st_nlink), (2, 2))
    same(os.stat("d/f").st_ctime_ns > before, True, "ctime of link")
    before = os.stat("d/f").st_ctime_ns
    os.rename("d/f2", "d/f3")
    same(os.stat("d/f").st_ctime_ns >= before, True)
    os.unlink("d/f3")
    same(os.stat("d/f").st_nlink, 1)
    before = os.stat("d/f").st_ctime_ns
    os.setxattr("d/f", "user.a", b"b")
    same(os.stat("d/f").st_ctime_ns > before, True, "ctime of setxattr")
    fd = os.open("d/f", os.O_RDWR)
    os.ftruncate(fd, 100_000)
    same(os.stat("d/f").st_size, 100_000)
    fallocate(fd, 0, 0, 200_000)
    same((os.stat("d/f").st_size, os.fstat(fd).st_size), (200_000, 200_000))
    fallocate(fd, 3, 0, 4096)
    same(os.pread(fd, 10, 0), bytes(10))


def times_of_a_directory_follow_its_names(t):
    def changed(action, *dirs):
        before = [os.stat(dir) for dir in dirs]
        action()
        for dir, old in zip(dirs, before):
            new = os.stat(dir)
            same((new.st_mtime_ns > old.st_mtime_ns, new.st_ctime_ns > old.st_ctime_ns), (True, True), dir)
    import time
    steps = (
        (lambda: put("d/new", ""), "d"), (lambda: os.unlink("d/new"), "d"), (lambda: os.unlink("d/g"), "d"),
        (lambda: os.mkdir("d/dir"), "d"), (lambda: os.rmdir("d/dir"), "d"), (lambda: os.rename("d/f", "tree/f"), "d", "tree"),
        (lambda: os.link("big", "d/big"), "d"), (lambda: os.symlink("a", "d/sym"), "d"),
        (lambda: renameat2("d/sub", "tree/one", EXCHANGE), "d", "tree"), (lambda: os.rename("d/sym", "d/sym2"), "d"),
    )
    for action, *dirs in steps:
        time.sleep(0.01)
        changed(action, *dirs)


def relative_access_times(t):
    """A read may set the access time; a stat that follows may not say less than one before."""
    get("d/f")
    first = os.stat("d/f").st_atime_ns
    get("d/f")
    same(os.stat("d/f").st_atime_ns >= first, True)
    os.utime("d/f", ns=(5, 6))
    same((os.stat("d/f").st_atime_ns, os.stat("d/f").st_mtime_ns), (5, 6))


def space_is_told(t):
    space = os.statvfs("d")
    same((space.f_namemax, space.f_blocks > 0, space.f_bfree <= space.f_blocks, space.f_files > 0), (255, True, True, True))


def holes_are_found(t):
    with open("d/holes", "wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"data")
    fd = os.open("d/holes", os.O_RDONLY)
    same((os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 4 << 20, os.SEEK_HOLE) >= (4 << 20) + 4), (4 << 20, True))
    with fails("ENXIO"):
        os.lseek(fd, 5 << 20, os.SEEK_DATA)
    same(os.stat("d/holes").st_blocks < 1000, True)
    fd = os.open("big", os.O_RDONLY)
    same((os.lseek(fd, 10, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE)), (10, 3_000_001))
    with fails("ENXIO"):
        os.lseek(fd, 3_000_001, os.SEEK_DATA)


def many_threads_in_one_directory(t):
    """Names come and go from several threads; at the end exactly those are there that should be."""
    errors = []

    def works(which):
        try:
            for i in range(150):
                path = f"many/{which}-{i}"
                put(path, path)
                os.rename(path, path + "r")
                same(get(path + "r"), path.encode())
                if i % 2:
                    os.unlink(path + "r")
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"many/low-{(which * 7 + i) % 300:03}")
                if i % 20 == 0:
                    same(f"{which}-{i}r" in names("many"), True)
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=works, args=(which,)) for which in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(errors, [])
    mine = [name for name in names("many") if name[0].isdigit()]
    same(mine, sorted(f"{which}-{i}r" for which in range(6) for i in range(0, 150, 2)))


if __name__ == "__main__":
    run(globals())
