"""Open files, directories and programs keep their meaning when their names go, move or are copied up."""

import fcntl
import mmap
import os
import subprocess
import time

from peers_cases import *


def full_meaning(file, content, t):
    """All that a descriptor can be asked for, of a regular file that is open for reading and writing."""
    fd_path = f"/proc/self/fd/{file}"
    same(os.fstat(file).st_size, len(content))
    os.pwrite(file, b"written", 2)
    os.fsync(file)
    os.ftruncate(file, 5)
    same(os.fstat(file).st_size, 5)
    os.fchmod(file, 0o640)
    same(os.fstat(file).st_mode & 0o7777, 0o640)
    os.fchown(file, os.geteuid(), os.getegid())
    os.utime(file, ns=(3_000_000_001, 4_000_000_002))
    same(os.fstat(file).st_mtime_ns, 4_000_000_002)
    os.setxattr(file, "user.mine", b"value")
    same(os.getxattr(file, "user.mine"), b"value")
    same("user.mine" in os.listxattr(file), True)
    reader, writer = os.open(fd_path, os.O_RDONLY), os.open(fd_path, os.O_RDWR | os.O_APPEND)
    same(os.write(writer, b"end"), 3)
    same(os.pread(reader, 100, 0), content[:2] + b"wri" + b"end")
    same(os.stat(fd_path).st_ino, os.fstat(file).st_ino)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with fails("EAGAIN"):
        fcntl.flock(reader, fcntl.LOCK_EX | fcntl.LOCK_NB)
    shared = mmap.mmap(writer, 8)
    shared[0:1] = b"!"
    same(os.pread(reader, 1, 0), b"!")
    os.truncate(fd_path, 3)
    same(os.fstat(reader).st_size, 3)
    os.close(os.open(fd_path, os.O_WRONLY | os.O_TRUNC))
    same(os.fstat(reader).st_size, 0)


def an_unlinked_file_of_a_layer(t):
    file = os.open("d/f", os.O_RDWR)
    os.unlink("d/f")
    same(os.fstat(file).st_nlink, 0)
    full_meaning(file, b"A" * 10, t)
    same(os.path.exists("d/f"), False)


def an_unlinked_copied_up_file(t):
    put("d/f", "B" * 10)
    file = os.open("d/f", os.O_RDWR)
    os.unlink("d/f")
    same(os.fstat(file).st_nlink, 0)
    full_meaning(file, b"B" * 10, t)


def an_unlinked_new_file(t):
    file = os.open("d/new", os.O_RDWR | os.O_CREAT)
    os.write(file, b"new file")
    os.unlink("d/new")
    same(os.fstat(file).st_nlink, 0)
    full_meaning(file, b"new file", t)


def a_replaced_file_of_a_layer(t):
    file = os.open("d/f", os.O_RDWR)
    put("d/next", "next")
    os.rename("d/next", "d/f")
    same(os.fstat(file).st_nlink, 0)
    full_meaning(file, b"A" * 10, t)
    same(get("d/f"), b"next")


def a_replaced_new_file(t):
    put("d/new", "first")
    file = os.open("d/new", os.O_RDWR)
    put("d/next", "next")
    os.rename("d/next", "d/new")
    full_meaning(file, b"first", t)
    same(get("d/new"), b"next")


def a_moved_file_of_a_layer(t):
    file = os.open("d/f", os.O_RDWR)
    os.rename("d/f", "d/sub/deeper/f")
    full_meaning(file, b"A" * 10, t)
    same(os.stat("d/sub/deeper/f").st_ino, os.fstat(file).st_ino)


def a_file_in_a_directory_that_was_removed(t):
    file = os.open("d/sub/deeper/y", os.O_RDWR)
    os.unlink("d/sub/deeper/y")
    os.rmdir("d/sub/deeper")
    os.unlink("d/sub/x")
    os.rmdir("d/sub")
    same(os.pread(file, 10, 0), b"y")
    os.pwrite(file, b"written", 0)
    same(os.pread(file, 10, 0), b"written")
    same(os.fstat(file).st_nlink, 0)


def one_of_several_links_is_unlinked(t):
    file = os.open("lnk/a", os.O_RDWR)
    same(os.fstat(file).st_nlink, 3)
    os.unlink("lnk/a")
    same(os.fstat(file).st_nlink, 2)
    os.pwrite(file, b"LINKED", 0)
    same(get("lnk/b"), b"LINKED\n")
    os.unlink("lnk/b")
    os.unlink("lnk/sub/c")
    same(os.fstat(file).st_nlink, 0)
    full_meaning(file, b"LINKED\n", t)


def all_links_of_a_layers_file_are_unlinked_while_it_is_open(t):
    reader = os.open("lnk/b", os.O_RDONLY)
    for path in ("lnk/a", "lnk/b", "lnk/sub/c"):
        os.unlink(path)
    same((os.fstat(reader).st_nlink, os.pread(reader, 10, 0)), (0, b"linked\n"))
    with open(f"/proc/self/fd/{reader}", "r+b") as writer:
        writer.write(b"W")
    same(os.pread(reader, 10, 0), b"Winked\n")


def what_is_unlinked_gets_no_name_any_more(t):
    for path in ("d/f", "d/new"):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.unlink(path)
        with fails("ENOENT"):
            linkat_fd(file, "d/again")
        same(os.path.exists("d/again"), False)


def what_is_open_gets_another_name(t):
    file = os.open("d/f", os.O_RDWR)
    linkat_fd(file, "d/second")
    same((os.fstat(file).st_nlink, ino("d/second")), (2, ino("d/f")))
    os.unlink("d/f")
    os.pwrite(file, b"W", 0)
    same(get("d/second"), b"WAAAAAAAAA")


def a_read_only_descriptor_sees_later_writes(t):
    reader = os.open("apt/status", os.O_RDONLY)
    wanted = os.pread(reader, 100_000, 0)
    length = len(wanted)
    shared = mmap.mmap(reader, length, mmap.MAP_SHARED, mmap.PROT_READ)
    same(shared[:], wanted)
    for step in range(5):
        with open("apt/status", "r+b") as file:
            file.seek(step * 5000)
            file.write(b"changed")
            file.seek(0, os.SEEK_END)
            file.write(b"more")
        wanted = wanted[:step * 5000] + b"changed" + wanted[step * 5000 + 7:] + b"more"
        same(os.pread(reader, 100_000, 0), wanted)
        same(shared[:], wanted[:length])
        same(os.fstat(reader).st_size, len(wanted))


def a_private_mapping_keeps_its_own_pages(t):
    file = os.open("big", os.O_RDWR)
    private = mmap.mmap(file, 8192, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    original = os.pread(file, 8192, 0)
    private[0:3] = b"own"
    os.pwrite(file, b"other", 0)
    os.pwrite(file, b"later", 4096)
    same((private[:3], private[4096:4101]), (b"own", b"later"))
    same(os.pread(file, 5, 0), b"other")
    same(private[3:10], original[3:10])


def a_mapping_outlives_its_descriptor_and_its_name(t):
    file = os.open("d/f", os.O_RDWR)
    shared = mmap.mmap(file, 10)
    os.close(file)
    os.unlink("d/f")
    shared[0:4] = b"mmap"
    shared.flush()
    same(shared[:], b"mmapAAAAAA")


def a_program_runs_on_without_its_name(t):
    before = get("bin/busybox")
    running = subprocess.Popen(["bin/busybox", "sleep", "60"])
    while b"sleep" not in get(f"/proc/{running.pid}/cmdline"):
        time.sleep(0.01)
    with fails("ETXTBSY"):
        os.open("bin/busybox", os.O_WRONLY)
    os.unlink("bin/busybox")
    same(running.poll(), None)
    same(get(f"/proc/{running.pid}/exe"), before)
    running.kill()
    running.wait()


def a_deleted_program_is_started(t):
    file = os.open("bin/busybox", os.O_RDONLY)
    os.unlink("bin/busybox")
    same(subprocess.run(["busybox", "echo", "ran"], executable=f"/proc/self/fd/{file}", pass_fds=[file],
                        capture_output=True).stdout, b"ran\n")
    put("bin/own", os.pread(file, 1 << 24, 0))
    os.chmod("bin/own", 0o755)
    own = os.open("bin/own", os.O_RDONLY)
    os.unlink("bin/own")
    same(subprocess.run(["busybox", "echo", "ran"], executable=f"/proc/self/fd/{own}", pass_fds=[own],
                        capture_output=True).stdout, b"ran\n")


def many_processes_append(t):
    def appends(which):
        file = os.open("d/g", os.O_WRONLY | os.O_APPEND)
        for i in range(200):
            os.write(file, b"%d:%03d%s\n" % (which, i, b"." * (which * 37)))
    reap(*(child(lambda which=which: appends(which)) for which in range(6)))
    lines = get("d/g").split(b"\n")[1:-1]
    for which in range(6):
        mine = [line for line in lines if line.startswith(b"%d:" % which)]
        same(mine, [b"%d:%03d%s" % (which, i, b"." * (which * 37)) for i in range(200)])
    same(len(lines), 1200)
    # The order of the lines is not the same everywhere.
    os.unlink("d/g")


def the_working_directory_is_removed(t):
    for path in ("d/empty", "d/made"):
        def inside():
            os.makedirs(path, exist_ok=True)
            os.chdir(path)
            os.rmdir(os.path.join(outside, path))
            with fails("ENOENT"):
                os.getcwd()
            same(os.listdir("."), [])
            same(os.stat(".").st_nlink, 0)
            for action in (lambda: put("new", ""), lambda: os.mkdir("new"), lambda: os.symlink("a", "new")):
                with fails("ENOENT"):
                    action()
            with fails("ENOENT"):
                os.stat("anything")
            os.chdir("..")
        outside = os.getcwd()
        reap(child(inside))


def an_open_directory_is_removed(t):
    for path in ("d/empty", "whole", "d/made"):
        os.makedirs(path, exist_ok=True)
        dir = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        for name in os.listdir(dir):
            os.unlink(name, dir_fd=dir)
        os.rmdir(path)
        same(os.listdir(dir), [])
        same(os.fstat(dir).st_nlink, 0)
        with fails("ENOENT"):
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=dir)
        with fails("ENOENT"):
            os.mkdir("new", dir_fd=dir)
        os.fchmod(dir, 0o700)
        same(os.fstat(dir).st_mode & 0o7777, 0o700)
        os.mkdir(path)
        same(os.listdir(path), [])
        same(os.fstat(dir).st_ino != os.stat(path).st_ino, True)


def an_open_directory_is_moved(t):
    dir = os.open("tree/one", os.O_RDONLY | os.O_DIRECTORY)
    leaf = os.open("tree/one/two/low", os.O_RDWR)
    os.rename("tree/one", "d/moved")
    same(sorted(os.listdir(dir)), ["low", "mid", "two"])
    put("d/moved/new", "new")
    same(sorted(os.listdir(dir)), ["low", "mid", "new", "two"])
    os.pwrite(leaf, b"LOW", 0)
    same(get("d/moved/two/low"), b"LOW")
    os.unlink("two/low", dir_fd=dir)
    same(os.fstat(leaf).st_nlink, 0)
    same(names("d/moved/two"), ["top"])


def a_directory_is_read_while_it_changes(t):
    """What is there all the time is seen exactly once; what comes or goes is seen at most once."""
    for i in range(2000):
        put(f"many/new-{i:04}", "")
    stay = {name for name in names("many") if not name.endswith("7")}
    seen = []
    with os.scandir("many") as entries:
        for i, entry in enumerate(entries):
            seen.append(entry.name)
            if i % 10 == 0:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"many/new-{i:04}"[:-1] + "7")
                put(f"many/later-{i}", "")
    same(len(seen), len(set(seen)), "seen twice")
    same(stay - set(seen), set(), "not seen")
    for name in names("many"):
        if name.startswith(("later", "new")):
            os.unlink(f"many/{name}")


def positions_in_a_directory(t):
    """telldir and seekdir, as rewound and interleaved readers use them."""
    for i in range(700):
        put(f"many/new-{i:04}", "")
    libc.opendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    dir = ctypes.c_void_p(libc.opendir(b"many"))

    def read():
        entry = libc.readdir(dir)
        return ctypes.string_at(entry + 19) if entry else None

    marks, order = [], []
    while True:
        at = libc.telldir(dir)
        name = read()
        if name is None:
            break
        marks.append(at)
        order.append(name)
    same(len(order), len(set(order)))
    for which in (len(order) - 1, 0, 500, 3, 600, 256):
        libc.seekdir(dir, ctypes.c_long(marks[which]))
        same([read(), read() if which + 1 < len(order) else None],
             [order[which], order[which + 1] if which + 1 < len(order) else None])
    libc.rewinddir(dir)
    same(read(), order[0])
    libc.closedir(dir)
    for i in range(700):
        os.unlink(f"many/new-{i:04}")


def a_reader_that_removes_what_it_reads(t):
    """rm -r with few names at a time, over a merged directory of several thousand names."""
    for i in range(5000):
        put(f"many/new-{i:05}-{'x' * (i % 60)}", "")
    SYS_getdents64 = 217
    dir = os.open("many", os.O_RDONLY | os.O_DIRECTORY)
    buffer = ctypes.create_string_buffer(512)
    removed = 0
    while count := call(libc.syscall(SYS_getdents64, dir, buffer, 512)):
        at = 0
        while at < count:
            length = int.from_bytes(buffer[at + 16:at + 18], "little")
            name = ctypes.string_at(ctypes.addressof(buffer) + at + 19)
            if name not in (b".", b".."):
                os.unlink(name, dir_fd=dir)
                removed += 1
            at += length
    same(removed, 5000 + 299 + 100)
    same(os.listdir("many"), [])
    os.rmdir("many")


def tail_follows_a_file_of_a_layer(t):
    """One reader, inotify, writes that begin after it."""
    out = os.open("tail-out", os.O_WRONLY | os.O_CREAT)
    tail = subprocess.Popen(["tail", "-n", "+1", "-f", "d/g"], stdout=out)
    deadline = time.monotonic() + 10
    while get("tail-out") != b"g content\n" and time.monotonic() < deadline:
        time.sleep(0.02)
    with open("d/g", "a") as file:
        file.write("more\n")
    while get("tail-out") != b"g content\nmore\n" and time.monotonic() < deadline:
        time.sleep(0.02)
    tail.kill()
    tail.wait()
    same(get("tail-out"), b"g content\nmore\n")
    os.unlink("tail-out")


def inotify_goes_on_after_a_copy_up(t):
    watch = call(libc.inotify_init1(os.O_NONBLOCK))
    MODIFY, ATTRIB, DELETE_SELF = 2, 4, 0x400
    call(libc.inotify_add_watch(watch, b"d/f", MODIFY | ATTRIB | DELETE_SELF))

    def events():
        try:
            text = os.read(watch, 4096)
        except BlockingIOError:
            return set()
        found = set()
        while text:
            found.add(int.from_bytes(text[4:8], "little") & (MODIFY | ATTRIB | DELETE_SELF))
            text = text[16 + int.from_bytes(text[12:16], "little"):]
        return found - {0}
    for step in range(2):
        with open("d/f", "r+") as file:
            file.write("changed")
        same(events() & {MODIFY}, {MODIFY}, step)
        os.chmod("d/f", 0o600 + step)
        same(events(), {ATTRIB}, step)
    os.rename("d/f", "d/h")
    with open("d/h", "a") as file:
        file.write("x")
    same(MODIFY in events(), True)
    os.unlink("d/h")
    same(DELETE_SELF in events(), True)


def locks_hold_through_a_copy_up(t):
    reader = os.open("d/f", os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    writer = os.open("d/f", os.O_RDWR)
    with fails("EAGAIN"):
        fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.pwrite(writer, b"W", 0)
    with fails("EAGAIN"):
        fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(writer, fcntl.LOCK_EX | fcntl.LOCK_NB, 4, 0)

    def other():
        file = os.open("d/f", os.O_RDWR)
        with fails("EAGAIN", "EACCES"):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 4, 2)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 4, 4)
    reap(child(other))


if __name__ == "__main__":
    run(globals())
