#!/usr/bin/env python3
"""Locks, leases, watches and busy programs, said line by line, to be compared between filesystems.

    guards.py prepare DIR
    guards.py run DIR
"""

import ctypes
import errno
import fcntl
import os
import select
import shutil
import signal
import struct
import subprocess
import sys

NAMES = ("plain", "locked", "leased", "watched", "moved", "program", "script")
WRITE, READ, NONE = fcntl.F_WRLCK, fcntl.F_RDLCK, fcntl.F_UNLCK
OFD_GETLK, OFD_SETLK, SETLEASE, GETLEASE = 36, 37, 1024, 1025
libc = ctypes.CDLL(None, use_errno=True)


def prepare(top):
    os.mkdir(f"{top}/dir")
    for name in NAMES:
        with open(f"{top}/dir/{name}", "w", encoding="ascii") as file:
            file.write("x" * 10000)
    shutil.copy("/bin/sleep", f"{top}/dir/program")
    os.chmod(f"{top}/dir/program", 0o755)


def outcome(action):
    try:
        said = action()
        return "ok" if said is None else f"ok {said}"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))


def elsewhere(action):
    """What an action comes to in another process."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(send, outcome(action).encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def lock_record(kind, start, length):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


def locks(path):
    for flavour in ("flock", "posix", "ofd"):
        ours = os.open(path, os.O_RDWR)

        def lock(fd, kind, start=0, length=0):
            if flavour == "flock":
                flags = {WRITE: fcntl.LOCK_EX, READ: fcntl.LOCK_SH, NONE: fcntl.LOCK_UN}[kind]
                fcntl.flock(fd, flags | fcntl.LOCK_NB)
            else:
                command = OFD_SETLK if flavour == "ofd" else fcntl.F_SETLK
                fcntl.fcntl(fd, command, lock_record(kind, start, length))

        def other(kind, start=0, length=0):
            return elsewhere(lambda: lock(os.open(path, os.O_RDWR), kind, start, length))

        for held, wanted in ((WRITE, WRITE), (WRITE, READ), (READ, READ), (READ, WRITE), (NONE, WRITE)):
            lock(ours, held, 10, 10)
            print(f"{flavour} {held}: another wants {wanted}: {other(wanted, 15, 10)}, beside: {other(wanted, 30, 5)}")
        # What is locked before the first write is locked after it.
        lock(ours, WRITE)
        os.pwrite(ours, b"changed", 0)
        os.rename(path, path + ".renamed")
        print(f"{flavour} after a write and a rename: {elsewhere(lambda: lock(os.open(path + '.renamed', os.O_RDWR), WRITE))}")
        os.rename(path + ".renamed", path)
        os.close(ours)
        print(f"{flavour} closed: {other(WRITE)}")
    holder = os.open(path, os.O_RDWR)
    fcntl.fcntl(holder, fcntl.F_SETLK, lock_record(WRITE, 5, 5))
    told = fcntl.fcntl(holder, OFD_GETLK, lock_record(WRITE, 0, 0))
    print("who holds it:", struct.unpack("hhqqi4x", told)[:4])
    os.close(holder)


def leases(path):
    events = []
    signal.signal(signal.SIGIO, lambda *_: events.append("broken"))
    for kind, flags in ((READ, os.O_RDONLY), (WRITE, os.O_RDONLY), (WRITE, os.O_RDWR)):
        fd = os.open(path, flags)
        print(f"lease {kind}: {outcome(lambda: fcntl.fcntl(fd, SETLEASE, kind) and None)}, is {fcntl.fcntl(fd, GETLEASE)}")
        print(f"  opened by another: {elsewhere(lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)))} {events}")
        events.clear()
        os.close(fd)


def watches(top, name):
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    for path in (top, f"{top}/{name}"):
        libc.inotify_add_watch(descriptor, path.encode(), 0xFFF)

    def told(what):
        seen = []
        while select.select([descriptor], [], [], 0)[0]:
            data = os.read(descriptor, 65536)
            while data:
                watch, mask, _, length = struct.unpack("iIII", data[:16])
                seen.append(f"{watch}:{mask:x}:{data[16:16 + length].rstrip(bytes(1)).decode()}")
                data = data[16 + length:]
        print(f"watched, {what}:", *seen)

    path = f"{top}/{name}"
    with open(path, "rb") as file:
        file.read()
    told("read")
    with open(path, "r+b") as file:
        file.write(b"new")
    told("written")
    with open(path, "ab") as file:
        file.write(b"more")
    told("appended")
    for what, action in {
        "chmod": lambda: os.chmod(path, 0o600), "truncated": lambda: os.truncate(path, 5),
        "touched": lambda: os.utime(path, (1, 1)), "attribute": lambda: os.setxattr(path, "user.x", b"1"),
        "linked": lambda: os.link(path, path + ".l"), "renamed": lambda: os.rename(path, path + ".m"),
        "unlinked": lambda: os.unlink(path + ".m"), "the last name gone": lambda: os.unlink(path + ".l"),
        "made": lambda: os.mkdir(f"{top}/new"), "removed": lambda: os.rmdir(f"{top}/new"),
    }.items():
        action()
        told(what)


def busy(program):
    running = subprocess.Popen([program, "100"])
    for what, action in {
        "open for writing": lambda: os.close(os.open(program, os.O_WRONLY)),
        "truncate": lambda: os.truncate(program, 0),
        "open truncating": lambda: os.close(os.open(program, os.O_WRONLY | os.O_TRUNC)),
        "open for reading": lambda: os.close(os.open(program, os.O_RDONLY)),
        "chmod": lambda: os.chmod(program, 0o711),
    }.items():
        print(f"a running program, {what}: {outcome(action)}")
    shutil.copy(program, program + ".new")
    print("replaced:", outcome(lambda: os.rename(program + ".new", program)))
    print("still runs:", running.poll())
    running.kill()
    running.wait()
    with open(program, "r+b") as file:
        print("run while open for writing:", outcome(lambda: subprocess.run([program, "0"], check=True) and None))
        file.write(b"\x7fELF")
    print("closed:", outcome(lambda: subprocess.run([program, "0"], check=True) and None))


def main():
    command, top = sys.argv[1:]
    if command == "prepare":
        prepare(top)
        return
    locks(f"{top}/dir/locked")
    leases(f"{top}/dir/leased")
    watches(f"{top}/dir", "watched")
    busy(f"{top}/dir/program")


if __name__ == "__main__":
    main()
