"""What another overlay needs that is stacked upon the mount."""

import os

from peers_cases import *


def a_rename_leaves_a_whiteout(t):
    """RENAME_WHITEOUT: a character device 0:0 that programs see and that hides nothing here."""
    put("d/new", "new")
    for old, new in (("d/f", "d/f2"), ("d/new", "tree/new"), ("d/sub", "tree/sub"), ("tree/one", "d/one"),
                     ("lnk/a", "d/g"), ("sym", "sym2"), ("whole", "d/empty")):
        before = ino(old)
        renameat2(old, new, WHITEOUT)
        info = os.lstat(old)
        same((info.st_mode & 0o170000, info.st_rdev, ino(new)), (0o020000, 0, before), old)
        same(os.path.basename(old) in names(os.path.dirname(old) or "."), True)
    same((names("d/one/two"), get("d/g"), names("tree/sub")), (["low", "top"], b"linked\n", ["deeper", "x"]))
    with fails("EINVAL"):
        renameat2("big", "d/f", EXCHANGE | WHITEOUT)
    with fails("EEXIST"):
        renameat2("big", "d/f", NOREPLACE | WHITEOUT)
    renameat2("big", "big2", NOREPLACE | WHITEOUT)
    t.state["seen"] = ["d/f", "d/new", "d/sub", "tree/one", "lnk/a", "sym", "whole", "big"]


def a_rename_leaves_a_whiteout_remounted(t):
    for path in t.state["seen"]:
        info = os.lstat(path)
        same((info.st_mode & 0o170000, info.st_rdev), (0o020000, 0), path)
        os.unlink(path)
        with fails("ENOENT"):
            os.lstat(path)
    os.mkdir("d/sub")
    same((names("d/sub"), names("d/one/two"), names("tree/sub")), ([], ["low", "top"], ["deeper", "x"]))


def a_rename_leaves_a_whiteout_remounted_remounted(t):
    same((names("d/sub"), names("d/one/two"), names("tree/sub")), ([], ["low", "top"], ["deeper", "x"]))


if __name__ == "__main__":
    run(globals())
