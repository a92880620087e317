#!/usr/bin/env python3
"""A series of changes to the tree of a test image, the same ones each time: changes.py DIR (as root).

Prints how each change ended, so that two file systems can be compared by their errors too.
"""

import errno
import os
import shutil
import socket
import stat
import sys

STEPS = []


def step(function):
    STEPS.append(function)
    return function


def write(path, data, mode="wb"):
    with open(path, mode) as file:
        file.write(data)


@step
def create():
    write("hard/new", b"new\n")
    os.mkdir("hard/new-dir", 0o750)
    write("hard/new-dir/inner", b"x" * 100000)
    os.symlink("inner", "hard/new-dir/soft")
    os.mkfifo("hard/new-dir/fifo", 0o640)
    os.mknod("hard/new-dir/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))


@step
def create_over_existing():
    os.close(os.open("hard/shadowed", os.O_CREAT | os.O_EXCL | os.O_WRONLY))


@step
def create_over_whiteout():
    write("hard/deleted", b"here again\n")
    os.mkdir("hard/doomed")
    write("hard/doomed/fresh", b"fresh\n")


@step
def write_in_the_middle():
    with open("hard/large", "r+b") as file:
        file.seek(500001)
        file.write(b"changed")


@step
def append():
    write("etc/passwd", b"more:x:7:7::/:/bin/sh\n", "ab")
    write("hard/one", b"and more\n", "ab")


@step
def truncate():
    os.truncate("hard/sparse", 1 << 19)
    os.truncate("hard/exactly-one-block", 100000)
    os.truncate("hard/only-hole", 0)


@step
def overwrite_by_truncation():
    write("hard/many/0001", b"short")


@step
def modes():
    os.chmod("hard/ids", 0o4755)
    os.chmod("hard/many", 0o1770)
    os.chmod("hard/no-permissions", 0o444)
    os.chmod("hard", 0o711)


@step
def owners():
    os.chown("hard/setuid", 12, 13)
    os.chown("hard/merged", 2**31 + 5, 6)
    os.chown("hard/absolute", 3, 3, follow_symlinks=False)
    os.chown("hard/capable", 9, 9)


@step
def times():
    os.utime("hard/subsecond", ns=(10**18 + 1, 10**18 + 7))
    os.utime("hard/xattr-dir", ns=(5, 5))
    os.utime("hard/relative", ns=(9, 11), follow_symlinks=False)


@step
def xattrs():
    os.setxattr("hard/xattrs", "user.text", b"another")
    os.setxattr("hard/xattrs", "user.added", b"\x00\x01")
    os.removexattr("hard/xattrs", "user.bytes")
    os.setxattr("hard/merged/file", "user.first", b"1")
    os.setxattr("hard/merged", "user.dir", b"2")


@step
def xattr_that_is_not_there():
    os.removexattr("hard/xattrs", "user.none")


@step
def xattr_that_must_be_new():
    os.setxattr("hard/xattrs", "user.text", b"x", os.XATTR_CREATE)


@step
def rename_file():
    os.rename("hard/setgid", "hard/setgid-moved")
    os.rename("hard/many/0002", "hard/many/0003")
    os.rename("hard/new", "hard/newer")


@step
def rename_to_itself_by_link():
    os.rename("hard/one", "hard/elsewhere/three")


@step
def rename_lower_directory():
    os.rename("hard/was-dir", "hard/moved-dir")
    write("hard/moved-dir/sub/added", b"added\n")


@step
def rename_merged_directory():
    os.rename("hard/merged", "hard/elsewhere/merged")
    os.unlink("hard/elsewhere/merged/file")


@step
def rename_and_make_again():
    os.rename("hard/reborn", "hard/reborn-moved")
    os.mkdir("hard/reborn")
    write("hard/reborn/only", b"only\n")


@step
def rename_upon_empty_directory():
    os.rename("hard/new-dir", "hard/sticky")


@step
def rename_upon_full_directory():
    os.rename("hard/sticky", "hard/many")


@step
def rename_directory_upon_file():
    os.rename("hard/opaque", "hard/empty")


@step
def rename_into_itself():
    os.rename("hard/many", "hard/many/inside")


@step
def rename_across_top():
    os.rename("root", "hard/root-moved")
    os.mkdir("root", 0o700)


@step
def links():
    os.link("hard/large", "hard/large-too")
    os.link("hard/fifo", "hard/fifo-too")
    os.link("hard/absolute", "hard/absolute-too", follow_symlinks=False)
    write("hard/large-too", b"tail", "ab")


@step
def link_of_directory():
    os.link("hard/many", "hard/many-too")


@step
def unlink():
    os.unlink("hard/was-link")
    os.unlink("hard/null")
    os.unlink("hard/many/0004")
    os.unlink("hard/relative-too")
    os.unlink("hard/newer")


@step
def unlink_directory():
    os.unlink("hard/many")


@step
def unlink_absent():
    os.unlink("hard/doomed/secret")


@step
def rmdir_full():
    os.rmdir("hard/opaque")


@step
def rmdir_file():
    os.rmdir("hard/empty")


@step
def remove_and_make_again():
    shutil.rmtree("hard/opaque")
    os.mkdir("hard/opaque", 0o700)
    os.mkdir("hard/opaque/sub")
    write("hard/opaque/sub/mine", b"mine\n")


@step
def remove_many():
    for number in range(100, 1400):
        os.unlink(f"hard/many/{number:04d}")


@step
def remove_whole_tree():
    shutil.rmtree("usr/share")


@step
def file_becomes_directory():
    os.unlink("hard/was-file")
    os.mkdir("hard/was-file")
    write("hard/was-file/in", b"in\n")


@step
def directory_becomes_file():
    os.rmdir("hard/setgid-dir")
    write("hard/setgid-dir", b"file\n")


@step
def inherited_group():
    os.mkdir("hard/group", 0o2775)
    os.chown("hard/group", 0, 50)
    os.chmod("hard/group", 0o2775)
    write("hard/group/file", b"")
    os.mkdir("hard/group/dir")


@step
def long_names():
    write("hard/" + "m" * 255, b"")


@step
def too_long_name():
    write("hard/" + "m" * 256, b"")


@step
def odd_names():
    os.rename(b"hard/caf\xe9-\xff\x01", b"hard/\xfe\xff")
    write(b"hard/\x01\x02 \t", b"")


@step
def write_through_open_after_unlink():
    with open("hard/at-1970", "r+b") as file:
        os.unlink("hard/at-1970")
        file.write(b"still here")
        file.flush()
        assert os.fstat(file.fileno()).st_size == 10
        file.seek(0)
        assert file.read() == b"still here"


@step
def read_through_open_before_write():
    with open("hard/before-1970", "rb") as reader:
        write("hard/before-1970", b"written behind the reader's back")
        assert reader.read() == b"written behind the reader's back"


@step
def symlink_through_parent():
    os.symlink("../etc", "hard/etc-link")
    write("hard/etc-link/through", b"through\n")


@step
def sockets():
    server = socket.socket(socket.AF_UNIX)
    server.bind("hard/socket")
    server.close()


@step
def allocate():
    with open("hard/allocated", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 65536)


@step
def copy_between():
    with open("hard/large", "rb") as source, open("hard/copied", "wb") as target:
        os.copy_file_range(source.fileno(), target.fileno(), 300000)


def main(root):
    os.umask(0o022)
    os.chdir(root)
    for number, function in enumerate(STEPS):
        try:
            function()
            ended = "ok"
        except AssertionError:
            ended = "read something else than was written"
        except OSError as error:
            ended = errno.errorcode.get(error.errno, str(error.errno))
        print(f"{number:02d} {function.__name__}: {ended}")
    os.sync()


if __name__ == "__main__":
    main(sys.argv[1])
