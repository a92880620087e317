#!/usr/bin/env python3
"""What becomes of attributes, by the rules of each caller: said line by line, to be compared between filesystems.

    attributes.py prepare DIR    makes the objects, as root of the namespace
    attributes.py run DIR        changes them as root with and without CAP_FSETID and as ordinary users, and says what
                                 came of it
"""

import ctypes
import errno
import itertools
import mmap
import os
import stat
import struct
import subprocess
import sys
import time

OWNER, GROUP, OTHER = 1000, 1000, 1001
CAP_FSETID = 4
# Effective and permitted: cap_net_raw, version 2 of the attribute (capabilities(7)).
FILE_CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
# uid, gid, further groups, capability that is dropped. The files belong to OWNER:GROUP.
CALLERS = {
    "root": (0, 0, [], None),
    "root-without-fsetid": (0, 0, [], CAP_FSETID),
    "owner": (OWNER, GROUP, [], None),
    "owner-by-further-group": (OWNER, OTHER, [GROUP], None),
    "owner-outside-group": (OWNER, OTHER, [], None),
    "other": (OTHER, OTHER, [], None),
    "other-in-group": (OTHER, OTHER, [GROUP], None),
}
libc = ctypes.CDLL(None, use_errno=True)
# Whether this is the initial user namespace.
EVERYWHERE = os.readlink("/proc/self/ns/user") == "user:[4026531837]"
# Since Linux 6.13 a time that somebody saw is never given again; before, times move with the timer's tick.
PAUSE = 0 if tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 13) else 0.011


def set_capability(number, there):
    """Of the effective ones, which come and go with the effective user id too."""
    header = struct.pack("<Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    if libc.capget(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    words = list(struct.unpack("<6I", data.raw))
    words[0] = words[0] | 1 << number if there else words[0] & ~(1 << number)
    if libc.capset(header, struct.pack("<6I", *words)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def outcome(action):
    try:
        said = action()
        return "ok" if said is None else f"ok {said}"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))


def as_caller(caller, action):
    """What the action comes to, done as that caller."""
    uid, gid, groups, dropped = CALLERS[caller]
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    if dropped is not None:
        set_capability(dropped, False)
    try:
        return outcome(action)
    finally:
        if dropped is not None:
            set_capability(dropped, True)
        os.umask(0o022)
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])


def times(path):
    status = os.lstat(path)
    return status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns


def state(path, before=None, unseen=""):
    try:
        status = os.lstat(path)
    except OSError as error:
        return errno.errorcode[error.errno]
    said = f"{stat.filemode(status.st_mode)} {status.st_mode & 0o7777:o} {status.st_uid}:{status.st_gid}"
    if before is not None:
        changed = zip("amc", before, times(path))
        said += " changed:" + "".join(name for name, old, new in changed if old != new and name not in unseen)
    attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in listed(path)}
    return said + "".join(f" {name}={value.hex()}" for name, value in sorted(attributes.items()))


def listed(path):
    return [name for name in os.listxattr(path, follow_symlinks=False) if name != "security.selinux"]


def say(what, action, path=None, caller="root"):
    before = times(path) if path and os.path.lexists(path) else None
    time.sleep(PAUSE)
    said = as_caller(caller, action)
    # A page is read before it is written to, which relatime may or may not count.
    unseen = "a" if "mapped" in what else ""
    print(f"{what} by {caller}: {said}" + (f"; {state(path, before, unseen)}" if path else ""))


def new_file(path, mode=0o644, owner=(OWNER, GROUP), capability=False):
    with open(path, "wb") as file:
        file.write(b"content" * 1000)
    os.chown(path, *owner)
    os.chmod(path, mode)
    if capability:
        os.setxattr(path, "security.capability", FILE_CAPABILITY)


# --- What takes privileges away -------------------------------------------------------------------------------------

def with_fd(flags, action):
    def act(path):
        fd = os.open(path, flags)
        try:
            action(fd)
        finally:
            os.close(fd)
    return act


def write_mapped(fd):
    with mmap.mmap(fd, 4096) as mapped:
        mapped[0:3] = b"map"
        mapped.flush()


def copy_range(path):
    # From a file of its own, whose time of access is not looked at.
    with open(os.path.dirname(path) + "/../source", "rb") as source, open(path, "r+b") as target:
        os.copy_file_range(source.fileno(), target.fileno(), 5000, 0, 0)


def grow(fd):
    os.posix_fallocate(fd, 0, 100000)


CHANGES = {
    "write": with_fd(os.O_WRONLY, lambda fd: os.write(fd, b"new") and None),
    "append": with_fd(os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"new") and None),
    "write-mapped": with_fd(os.O_RDWR, write_mapped),
    "copy-range": copy_range,
    "fallocate": with_fd(os.O_RDWR, grow),
    "shrink": lambda path: os.truncate(path, 10),
    "keep-size": lambda path: os.truncate(path, 7000),
    "ftruncate": with_fd(os.O_WRONLY, lambda fd: os.ftruncate(fd, 5)),
    "open-truncating": with_fd(os.O_WRONLY | os.O_TRUNC, lambda fd: None),
    "chown-to-same": lambda path: os.chown(path, OWNER, GROUP),
    "chown-nothing": lambda path: os.chown(path, -1, -1),
    "chgrp-to-other": lambda path: os.chown(path, -1, OTHER),
    "chown-to-other": lambda path: os.chown(path, OTHER, -1),
    "chmod": lambda path: os.chmod(path, 0o6755),
    "touch": lambda path: os.utime(path),
    "link": lambda path: os.link(path, path + ".link"),
    "set-attribute": lambda path: os.setxattr(path, "user.x", b"1"),
}
MODES = {"plain": 0o666, "suid": 0o4777, "sgid": 0o2777, "sgid-no-x": 0o2766, "both": 0o6777, "capable": 0o777}


def privileged_files(top):
    for caller, mode, change in itertools.product(CALLERS, MODES, CHANGES):
        if change == "chown-nothing" and caller.startswith("other"):
            # FUSE does not say whether it is that, or the first half of a write (`Fs::change_nothing`).
            continue
        if change == "write-mapped" and mode != "plain":
            # The server cannot write for a mapping without taking them (ARCHITECTURE.md, known limits).
            continue
        yield f"{top}/kill/{caller}.{mode}.{change}", caller, mode, change


def prepare_kill(top):
    os.mkdir(f"{top}/kill")
    new_file(f"{top}/source")
    os.chmod(f"{top}/kill", 0o777)
    for path, _, mode, _ in privileged_files(top):
        new_file(path, MODES[mode], capability=mode == "capable")


def run_kill(top):
    for path, caller, mode, change in privileged_files(top):
        say(f"{mode} {change}", lambda: CHANGES[change](path), path, caller)
        # Once more: what the kernel remembers of the first time must not be in the way.
        if caller.startswith("root") and change in ("write", "shrink"):
            os.chmod(path, 0o777)
            os.setxattr(path, "security.capability", FILE_CAPABILITY)
            say(f"{mode} {change} again", lambda: CHANGES[change](path), path, caller)


# --- What new objects get ------------------------------------------------------------------------------------------

DIRECTORIES = {"open": 0o777, "setgid": 0o2777, "sticky": 0o1777, "closed": 0o755, "acl": 0o777, "acl-setgid": 0o2777}
DEFAULT_ACL = "d:u::rwx,d:u:1001:r-x,d:g::r-x,d:g:1000:rwx,d:m::rwx,d:o::---"
KINDS = {
    "file": lambda path: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o2777)),
    "file-640": lambda path: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)),
    "dir": lambda path: os.mkdir(path, 0o777),
    "fifo": lambda path: os.mkfifo(path, 0o666),
    "node": lambda path: os.mknod(path, stat.S_IFREG | 0o6777),
    "symlink": lambda path: os.symlink("target", path),
}


def prepare_new(top):
    for name, mode in DIRECTORIES.items():
        os.mkdir(f"{top}/new-{name}")
        if name.startswith("acl"):
            subprocess.run(["setfacl", "-m", DEFAULT_ACL, f"{top}/new-{name}"], check=True)
        os.chown(f"{top}/new-{name}", 0, GROUP)
        os.chmod(f"{top}/new-{name}", mode)


def run_new(top):
    for directory, mask, caller, kind in itertools.product(DIRECTORIES, (0, 0o027), CALLERS, KINDS):
        path = f"{top}/new-{directory}/{caller}-{mask:o}-{kind}"

        def make():
            os.umask(mask)
            KINDS[kind](path)
        say(f"new {kind} in {directory}, umask {mask:o}", make, path, caller)
    # A directory in a directory with a default ACL hands it on.
    path = f"{top}/new-acl/root-0-dir/deep"
    say("new directory below", lambda: os.mkdir(path), path)
    for caller in CALLERS:
        for name in ("root-27-file-640", "owner-27-file-640"):
            say("read through an ACL", lambda: os.close(os.open(f"{top}/new-acl/{name}", os.O_RDONLY)), None, caller)
    run_sticky(f"{top}/new-sticky")


def run_sticky(directory):
    for caller in ("other", "owner", "root"):
        path = f"{directory}/owner-0-file"
        say("rename in a sticky directory", lambda: os.rename(path, path + ".moved"), path, caller)
        say("unlink in a sticky directory", lambda: os.unlink(f"{directory}/owner-0-fifo"), f"{directory}/owner-0-fifo", caller)
        say("rmdir in a sticky directory", lambda: os.rmdir(f"{directory}/owner-0-dir"), f"{directory}/owner-0-dir", caller)


# --- ACLs of what is there ------------------------------------------------------------------------------------------

def setfacl(*arguments):
    def act(path):
        done = subprocess.run(["setfacl", *arguments, path], stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise OSError(getattr(errno, next((n for n, t in NAMES.items() if t in done.stderr), "EIO")), done.stderr)
    return act


NAMES = {"EPERM": "not permitted", "EOPNOTSUPP": "not supported", "EINVAL": "Invalid", "EACCES": "denied"}
ACL_CHANGES = {
    "named-user": setfacl("-m", "u:1001:rw"),
    "mask": setfacl("-m", "u:1001:rwx,m::r"),
    "minimal": setfacl("-m", "u::rwx,g::r,o::-"),
    "remove": setfacl("-b"),
    "removexattr": lambda path: os.removexattr(path, "system.posix_acl_access"),
    "chmod": lambda path: os.chmod(path, 0o711),
    "chmod-setgid": lambda path: os.chmod(path, 0o2750),
    "chown": lambda path: os.chown(path, OTHER, OTHER),
    "write": with_fd(os.O_WRONLY, lambda fd: os.write(fd, b"x") and None),
}
ACL_KINDS = {"without": [], "with": ["-m", "u:1001:rwx,g:1001:r,m::rx"]}


def acl_files(top):
    for caller, kind, mode, change in itertools.product(CALLERS, ACL_KINDS, (0o640, 0o2770, 0o2640), ACL_CHANGES):
        yield f"{top}/acl/{caller}.{kind}.{mode:o}.{change}", caller, kind, mode, change
        if mode == 0o2770:
            yield f"{top}/acl/{caller}.{kind}.{change}.d", caller, kind, mode, change


def prepare_acl(top):
    os.mkdir(f"{top}/acl")
    os.chmod(f"{top}/acl", 0o777)
    for path, _, kind, mode, _ in acl_files(top):
        if path.endswith(".d"):
            os.mkdir(path)
            os.chown(path, OWNER, GROUP)
            os.chmod(path, mode)
        else:
            new_file(path, mode)
        if ACL_KINDS[kind]:
            subprocess.run(["setfacl", *ACL_KINDS[kind], path], check=True)


def run_acl(top):
    for path, caller, kind, mode, change in acl_files(top):
        say(f"file {kind} ACL, {mode:o}: {change}", lambda: ACL_CHANGES[change](path), path, caller)
    for name, change in (("default", ["-m", "d:u:1001:rwx"]), ("both", ["-m", "u:1001:rx"]), ("no default", ["-k"])):
        say(f"directory: {name}", lambda: setfacl(*change)(f"{top}/acl"), f"{top}/acl")


# --- Extended attributes ---------------------------------------------------------------------------------------------

XATTR_KINDS = ("file", "dir", "sticky", "symlink", "fifo")
# `security.` ones belong to the root of the namespace that a filesystem was mounted in: not the same for both.
SECURITY = ["security.a"] if EVERYWHERE else []
XATTRS = ("user.a", "trusted.a", *SECURITY, "system.a", "odd.a", "user.", "a", "user." + "n" * 250, "user." + "n" * 251)


def prepare_xattr(top):
    os.mkdir(f"{top}/xattr")
    for caller in CALLERS:
        base = f"{top}/xattr/{caller}"
        new_file(f"{base}.file", 0o666)
        os.mkdir(f"{base}.dir")
        os.mkdir(f"{base}.sticky")
        os.symlink("target", f"{base}.symlink")
        os.mkfifo(f"{base}.fifo")
        for kind, mode in (("dir", 0o777), ("sticky", 0o1777), ("fifo", 0o666)):
            os.chmod(f"{base}.{kind}", mode)
        if EVERYWHERE:
            os.setxattr(f"{base}.file", "trusted.there", b"1")
        for kind in XATTR_KINDS:
            os.lchown(f"{base}.{kind}", OTHER, OTHER)


def run_xattr(top):
    for caller, kind, name in itertools.product(CALLERS, XATTR_KINDS, XATTRS):
        path = f"{top}/xattr/{caller}.{kind}"
        shown = f"{kind}: {name[:12]}{len(name)}"
        for how, flags in (("replace", os.XATTR_REPLACE), ("create", os.XATTR_CREATE), ("create again", os.XATTR_CREATE), ("set", 0)):
            say(f"{shown} {how}", lambda: os.setxattr(path, name, how.encode(), flags, follow_symlinks=False), path, caller)
        say(f"{shown} get", lambda: os.getxattr(path, name, follow_symlinks=False).hex(), path, caller)
        say(f"{shown} list", lambda: ",".join(sorted(listed(path))), None, caller)
        say(f"{shown} remove", lambda: os.removexattr(path, name, follow_symlinks=False), path, caller)
        say(f"{shown} remove again", lambda: os.removexattr(path, name, follow_symlinks=False), path, caller)
    for size in (0, 1, 3000, 65536, 65537):
        path = f"{top}/xattr/root.file"
        say(f"{size} bytes", lambda: os.setxattr(path, "user.big", b"v" * size), None)
        say(f"{size} bytes back", lambda: len(os.getxattr(path, "user.big")), None)


# --- Times -----------------------------------------------------------------------------------------------------------

NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
INSTANTS = {
    "1901": (-(1 << 31), 0), "before 1901": (-(1 << 31) - 5, 5), "-1.75": (-2, 250_000_000), "-1ns": (-1, 999_999_999),
    "0": (0, 0), "1ns": (0, 1), "2038": (1 << 31, 123_456_789), "2106": (1 << 32, 1), "2400": (13_569_465_600, 999_999_999),
    "2500": (16_725_225_600, 1),
}


class Timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_int64), ("nsec", ctypes.c_int64)]


def utimens(path, atime, mtime):
    pair = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    if libc.utimensat(-100, path.encode(), pair, 0x100) != 0:
        raise OSError(ctypes.get_errno(), "utimensat")


def prepare_times(top):
    os.mkdir(f"{top}/times")
    for kind in ("file", "dir", "symlink"):
        for name in [*INSTANTS, *CALLERS]:
            path = f"{top}/times/{kind}.{name}"
            if kind == "file":
                new_file(path, 0o666)
            elif kind == "dir":
                os.mkdir(path, 0o777)
                os.chmod(path, 0o777)
            else:
                os.symlink("target", path)
            os.lchown(path, OWNER, GROUP)


def run_times(top):
    for kind in ("file", "dir", "symlink"):
        for name, instant in INSTANTS.items():
            path = f"{top}/times/{kind}.{name}"
            utimens(path, instant, (0, OMIT))
            print(f"{kind} atime {name}: {os.lstat(path).st_atime_ns}")
            utimens(path, (0, OMIT), instant)
            print(f"{kind} both {name}: {os.lstat(path).st_atime_ns} {os.lstat(path).st_mtime_ns}")
        for caller in CALLERS:
            path = f"{top}/times/{kind}.{caller}"
            for how, pair in {
                "now": ((0, NOW), (0, NOW)), "omit": ((0, OMIT), (0, OMIT)), "now, omit": ((0, NOW), (0, OMIT)),
                "omit, now": ((0, OMIT), (0, NOW)), "set": ((7, 7), (8, 8)), "set, now": ((9, 9), (0, NOW)),
                "odd": ((1, 10**9), (1, 1)),
            }.items():
                say(f"{kind} times {how}", lambda: utimens(path, *pair), path, caller)


# --- Names and paths -------------------------------------------------------------------------------------------------

def prepare_names(top):
    os.mkdir(f"{top}/names")
    os.symlink("0", f"{top}/names/1")
    new_file(f"{top}/names/0")
    for number in range(2, 50):
        os.symlink(str(number - 1), f"{top}/names/{number}")
    os.symlink("self", f"{top}/names/self")


def run_names(top):
    os.chdir(f"{top}/names")
    for length in (1, 254, 255, 256, 1000):
        for what, action in (
            ("make", lambda: os.mkdir("n" * length)), ("stat", lambda: os.stat("n" * length) and None),
            ("link", lambda: os.link("0", "l" * length)), ("symlink", lambda: os.symlink("0", "s" * length)),
            ("rename", lambda: os.rename("l" * length, "r" * length)), ("unlink", lambda: os.unlink("s" * length)),
        ):
            say(f"a name of {length} bytes: {what}", action)
    for length in (4000, 4095, 4096):
        path = ("./" * 3000)[: length - 1] + "0"
        say(f"a path of {length} bytes", lambda: os.stat(path) and None)
        say(f"a symlink to {length} bytes", lambda: os.symlink(path, f"long{length}"))
        say(f"through it, {length} bytes", lambda: len(os.readlink(f"long{length}")))
    for name in ("39", "40", "41", "self", "self/x", "0/x"):
        say(f"follow {name}", lambda: os.stat(name) and None)
    for name in (b"\xff\xfe", b"new\nline", b"back\\slash", b" ", b"..."):
        say(f"the name {name!r}", lambda: os.mkdir(name))
    print(sorted(os.listdir(b".")))


PARTS = {
    "kill": (prepare_kill, run_kill), "new": (prepare_new, run_new), "acl": (prepare_acl, run_acl),
    "xattr": (prepare_xattr, run_xattr), "times": (prepare_times, run_times), "names": (prepare_names, run_names),
}


def main():
    command, top, *parts = sys.argv[1:]
    os.umask(0o022)
    for part in parts or PARTS:
        PARTS[part][0 if command == "prepare" else 1](top)


if __name__ == "__main__":
    main()
