"""What the scripts of tests/it/peers share: one function is one case, run in a mount and on an ordinary filesystem.

    SCRIPT.py CASE PHASE STATE KIND    in the tree's root; PHASE counts mounts from 0, STATE outlives them,
                                       KIND is `layerfs` or `ordinary`

Prints `again` when the case goes on after a remount (it has a function CASE_remounted), or `skipped: why`.
"""

import contextlib
import ctypes
import errno
import json
import os
import sys
import traceback

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = -100, 0x1000, 0x400
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
O_TMPFILE = os.O_TMPFILE
SEED = 7


class Skip(Exception):
    """Cannot be asked here."""


class T:
    """What a case may want to know."""

    def __init__(self, phase, state, kind):
        self.phase, self.layerfs = int(phase), kind == "layerfs"
        self.root = os.geteuid() == 0
        self.path = state
        self.state = json.load(open(state)) if os.path.exists(state) else {}

    def save(self):
        with open(self.path, "w") as file:
            json.dump(self.state, file)


def call(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def renameat2(old, new, flags):
    call(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def linkat_fd(fd, new):
    """Gives what is open a name, as programs without CAP_DAC_READ_SEARCH do it."""
    path = b"/proc/self/fd/%d" % fd
    call(libc.linkat(AT_FDCWD, path, AT_FDCWD, os.fsencode(new), AT_SYMLINK_FOLLOW))


def fallocate(fd, mode, offset, length):
    call(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


@contextlib.contextmanager
def fails(*names):
    """The block ends with one of these errors."""
    try:
        yield
    except OSError as error:
        got = errno.errorcode.get(error.errno, error.errno)
        assert got in names, f"{got}, not {names}"
    else:
        raise AssertionError(f"succeeded, not {names}")


def same(got, wanted, what=""):
    assert got == wanted, f"{what}: {got!r}, not {wanted!r}"


def get(path):
    with open(path, "rb") as file:
        return file.read()


def put(path, content):
    with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def names(path="."):
    return sorted(os.listdir(path))


def ino(path):
    return os.lstat(path).st_ino


def mode(path):
    return os.lstat(path).st_mode & 0o7777


def as_user(action, uid=1234):
    """Runs `action` as an ordinary user in a child; a skip unless we may become one."""
    if os.geteuid() != 0:
        raise Skip("only root can become another user")
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code)
    same(os.waitpid(pid, 0)[1], 0, "the other user")


def child(action):
    """Runs `action` in a child; returns its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code)
    return pid


def reap(*pids):
    for pid in pids:
        same(os.waitpid(pid, 0)[1], 0, "a child")


def run(cases):
    """Runs the case that the command line names."""
    case, phase, state, kind = sys.argv[1:]
    os.umask(0o022)
    t = T(phase, state, kind)
    try:
        cases[case + "_remounted" * t.phase](t)
    except Skip as why:
        print(f"skipped: {why}")
        return
    t.save()
    if case + "_remounted" * (t.phase + 1) in cases:
        print("again")
