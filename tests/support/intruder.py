#!/usr/bin/env python3
"""Tries from inside a container what must not work there.

    intruder.py watch            looks into every process that comes, until /tmp/stop is there; tells what it saw as JSON
    intruder.py calls            makes system calls that are refused; names those that are not
    intruder.py typing           types into the terminal that its standard input is
    intruder.py keyring          tells the number of its session keyring
    intruder.py keys             makes a key of its user's, called layerfs-test, and waits for the end of its input
    intruder.py steal            tells what it can read of such a key that others made
    intruder.py nodes PATH...    changes permissions and times of files; names those that it could change
    intruder.py swap DIR TARGET... exchanges DIR/x, a directory, with symlinks to each target, until DIR/stop is there
    intruder.py listen NAME      listens on an abstract socket until the end of its input
    intruder.py connect NAME     connects to it
    intruder.py cgroup           writes what is there already to files below /sys/fs/cgroup; names those that took it
    intruder.py kill PID...      kills processes by their numbers outside; names those that are there
"""
import ctypes
import errno
import fcntl
import json
import os
import socket
import stat
import sys
import termios

# A number ahead of the last one that was seen: some processes come and go between two looks.
AHEAD = 8

libc = ctypes.CDLL(None, use_errno=True)


def watch():
    seen, denied, last, turns = set(), 0, os.getpid(), 0
    while turns % 256 or not os.path.exists("/tmp/stop"):
        turns += 1
        for pid in range(last + 1, last + AHEAD):
            try:
                seen.add(("exe", os.readlink(f"/proc/{pid}/exe")))
                last = pid - 1
                for what in ("root", "cwd"):
                    seen.add((what, os.readlink(f"/proc/{pid}/{what}")))
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    if int(fd) > 2:
                        seen.add(("fd", os.readlink(f"/proc/{pid}/fd/{fd}")))
            except PermissionError:
                denied += 1
                last = pid - 1
            except (FileNotFoundError, ProcessLookupError):
                pass
        # Whoever came while this one had no processor is not waited for.
        newest = int(open("/proc/loadavg").read().split()[-1])
        if turns % 64 == 0 and newest > last + AHEAD // 2:
            last = newest - 1
    print(json.dumps({"denied": denied, "seen": sorted(seen)}))


# x86-64, with arguments that would succeed for who may.
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000
CALLS = {
    "unshare user": (272, CLONE_NEWUSER),
    "unshare mnt": (272, CLONE_NEWNS),
    "clone user": (56, CLONE_NEWUSER | 17, 0, 0, 0, 0),
    "clone3": (435, ctypes.create_string_buffer(CLONE_NEWUSER.to_bytes(8, "little"), 88), 88),
    "mount": (165, b"none", b"/tmp", b"tmpfs", 0, None),
    "umount2": (166, b"/proc/sys", 2),
    "pivot_root": (155, b"/", b"/"),
    "open_tree": (428, -100, b"/proc/sys", 1),
    "fsopen": (430, b"tmpfs", 0),
    "mount_setattr": (442, -100, b"/proc/sys", 0, ctypes.create_string_buffer(32), 32),
    "setns": (308, -1, 0),
    "add_key": (248, b"user", b"x", b"x", 1, -3),
    "request_key": (249, b"user", b"x", None, -3),
    "bpf": (321, 5, ctypes.create_string_buffer(128), 128),
    "perf_event_open": (298, ctypes.create_string_buffer(128), 0, -1, -1, 0),
    "open_by_handle_at": (304, -100, ctypes.create_string_buffer(8), 0),
    "init_module": (175, b"", 0, b""),
    "kexec_load": (246, 0, 0, 0, 0),
    "reboot": (169, 0, 0, 0, None),
    "swapon": (167, b"/x", 0),
    "settimeofday": (164, ctypes.create_string_buffer(16), None),
    "sethostname": (170, b"x", 1),
    "mknod sda": (133, b"/tmp/sda", 0o060666, 0x800),
    "iopl": (172, 3),
    "quotactl": (179, 0, None, 0, None),
    "userfaultfd": (323, 0),
    "io_uring_setup": (425, 1, ctypes.create_string_buffer(120)),
}


def calls():
    for name, (number, *arguments) in CALLS.items():
        ctypes.set_errno(0)
        result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
        if result == 0 and name.startswith("clone"):
            os._exit(0)
        refused = result == -1 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS)
        if not refused:
            print(name, result, errno.errorcode.get(ctypes.get_errno()))


TIOCLINUX = 0x541C


def typing():
    assert os.isatty(0)
    for what, call in {
        "TIOCSCTTY": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 1),
        "TIOCSTI": lambda: [fcntl.ioctl(0, termios.TIOCSTI, bytes([c])) for c in b"intruder\n"],
        "TIOCLINUX": lambda: fcntl.ioctl(0, TIOCLINUX, bytes([3])),
        "/dev/tty": lambda: os.open("/dev/tty", os.O_RDWR),
    }.items():
        try:
            call()
            print(f"{what} worked")
        except OSError as error:
            print(f"{what} {errno.errorcode[error.errno]}")


def keyring():
    print(call(KEYCTL, 0, SESSION_KEYRING, 0))


ADD_KEY, KEYCTL = 248, 250
USER_KEYRING, SESSION_KEYRING = -4, -3
SEARCH, READ, LINK, UNLINK = 10, 11, 8, 9


def call(*arguments):
    return libc.syscall(*[ctypes.c_long(one) if isinstance(one, int) else one for one in arguments])


def keys():
    key = call(ADD_KEY, b"user", b"layerfs-test", b"secret", 6, USER_KEYRING)
    print(key, flush=True)
    sys.stdin.read()
    call(KEYCTL, UNLINK, key, USER_KEYRING)


def steal():
    # Who has the keyring in its own may read what is in it.
    call(KEYCTL, LINK, USER_KEYRING, SESSION_KEYRING)
    key = call(KEYCTL, SEARCH, USER_KEYRING, b"user", b"layerfs-test", 0)
    found = ctypes.create_string_buffer(16)
    print(call(KEYCTL, READ, key, found, 16) if key > 0 else "", found.value.decode())


def nodes(paths):
    for path in paths:
        status = os.stat(path)
        for what, change in {
            "chmod": lambda: os.chmod(path, stat.S_IMODE(status.st_mode)),
            "chown": lambda: os.chown(path, status.st_uid, status.st_gid),
            "times": lambda: os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns)),
        }.items():
            try:
                change()
                print(path, what)
            except OSError:
                pass


RENAME_EXCHANGE = 2
FILES = ["f", "null", "console", "ptmx", "0"]


def swap(directory, targets):
    os.chdir(directory)
    links = [f"link{number}".encode() for number in range(len(targets))]
    for link, target in zip(links, targets):
        os.symlink(target, link)
    os.makedirs("x/sub")
    for name in FILES:
        open(f"x/{name}", "w", encoding="utf-8").close()
    turns = 0
    while turns % 64 or not os.path.exists("stop"):
        turns += 1
        link = links[turns % len(links)]
        for _ in range(2):
            if libc.renameat2(-100, b"x", -100, link, RENAME_EXCHANGE) == 0 and turns == 1:
                open("swapping", "w", encoding="utf-8").close()


def listen(name):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        print("listening", flush=True)
        sys.stdin.read()


def connect(name):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(f"\0{name}")
            print("connected")
        except OSError as error:
            print(errno.errorcode[error.errno])


def cgroup():
    for directory, directories, files in os.walk("/sys/fs/cgroup"):
        for name in files:
            path = os.path.join(directory, name)
            try:
                with open(path, "r+b", buffering=0) as file:
                    file.write(file.read(64) or b"0")
                print(path)
            except OSError:
                pass
        try:
            os.mkdir(os.path.join(directory, "layerfs-test"))
            print(directory)
        except OSError:
            pass


def kill(pids):
    for pid in pids:
        try:
            os.kill(pid, 9)
            print(f"{pid} killed")
        except ProcessLookupError:
            pass


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    {
        "watch": watch,
        "calls": calls,
        "typing": typing,
        "keyring": keyring,
        "keys": keys,
        "steal": steal,
        "cgroup": cgroup,
        "nodes": lambda: nodes(rest),
        "swap": lambda: swap(rest[0], rest[1:]),
        "listen": lambda: listen(rest[0]),
        "connect": lambda: connect(rest[0]),
        "kill": lambda: kill([int(pid) for pid in rest]),
    }[command]()
