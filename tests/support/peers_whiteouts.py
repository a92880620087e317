"""What is deleted stays deleted, what is made again is new, and no mark of ours is anybody else's."""

import os
import shutil

from peers_cases import *

def each_layer_hides_what_is_below_it(t):
    same(names("wm/b"), ["new"])
    same((names("op"), names("op/q")), (["q"], ["new"]))
    same((get("same/first"), get("same/last")), (b"new", b"new"))
    same((os.path.exists("rootx"), get("d/rootx")), (False, b"shown"))
    same((get("fd/x"), names("df/x")), (b"a file now", ["child"]))
    same(names("re/x"), ["new"])
    same((names("tree/one"), names("tree/one/two")), (["low", "mid", "two"], ["low", "top"]))
    same(get("d/.whole"), b"not a whiteout")
    for path in ("wm/b/secret", "op/q/secret", "fd/x/child", "re/x/old"):
        with fails("ENOENT", "ENOTDIR"):
            os.stat(path)

def a_directory_is_removed_and_made_anew(t):
    for path in ("d", "tree/one", "tree/one/two", "wm", "re/x", "op/q", "deep/0/1/2"):
        if os.path.lexists(path):
            shutil.rmtree(path)
        os.makedirs(path)
        same(names(path), [], path)
    put("d/new", "new")

def a_directory_is_removed_and_made_anew_remounted(t):
    same((names("d"), names("tree/one"), names("wm"), names("re/x"), names("op/q")), (["new"], ["two"], [], [], []))
    same(names("deep/0/1"), ["2"])
    shutil.rmtree("d")
    shutil.rmtree("tree")
    os.mkdir("d")
    same((names("d"), os.path.exists("tree")), ([], False))

def a_directory_is_removed_and_made_anew_remounted_remounted(t):
    same((names("d"), os.path.exists("tree")), ([], False))

def everything_in_turn_at_one_name(t):
    kinds = {
        "file": (lambda: put("d/f", "file"), lambda: os.unlink("d/f")),
        "dir": (lambda: os.mkdir("d/f"), lambda: os.rmdir("d/f")),
        "symlink": (lambda: os.symlink("target", "d/f"), lambda: os.unlink("d/f")),
        "fifo": (lambda: os.mkfifo("d/f"), lambda: os.unlink("d/f")),
        "link": (lambda: os.link("d/g", "d/f"), lambda: os.unlink("d/f")),
        "moved": (lambda: (put("d/other", "m"), os.rename("d/other", "d/f")), lambda: os.unlink("d/f")),
        "moved dir": (lambda: (os.mkdir("d/other"), os.rename("d/other", "d/f")), lambda: os.rmdir("d/f")),
        "moved dir of a layer": (lambda: os.rename("d/sub", "d/f"), lambda: os.rename("d/f", "d/sub")),
    }
    os.unlink("d/f")
    for name, (make, remove) in kinds.items():
        make()
        same("f" in names("d"), True, name)
        os.lstat("d/f")
        with fails("EEXIST"):
            os.mkdir("d/f")
        remove()
        same("f" in names("d"), False, name)
        with fails("ENOENT"):
            os.lstat("d/f")
    for name in ("sub", "g", "ro"):
        with fails("EEXIST"):
            os.mkdir(f"d/{name}")
        with fails("EEXIST"):
            os.symlink("x", f"d/{name}")
        with fails("EEXIST"):
            os.link("big", f"d/{name}")

def everything_in_turn_at_one_name_remounted(t):
    same("f" in names("d"), False)
    put("d/f", "at last")

def directory_over_file_over_directory(t):
    shutil.rmtree("tree/one")
    put("tree/one", "a file")
    os.unlink("tree/one")
    os.makedirs("tree/one/two")
    os.unlink("fd/x")
    os.mkdir("fd/x")
    same((names("tree/one/two"), names("fd/x")), ([], []))

def directory_over_file_over_directory_remounted(t):
    same((names("tree/one/two"), names("fd/x")), ([], []))
    os.rmdir("fd/x")
    put("fd/x", "file")
    shutil.rmtree("tree")
    os.mkdir("tree")
    same(names("tree"), [])

def noreplace_over_what_was_deleted(t):
    for path in ("d/f", "lnk/a", "sym"):
        os.unlink(path)
        renameat2("d/g", path, NOREPLACE)
        same(get(path), b"g content\n")
        renameat2(path, "d/g", NOREPLACE)
    shutil.rmtree("d/sub")
    renameat2("whole", "d/sub", NOREPLACE)
    same(names("d/sub"), ["a", "b"])
    with fails("EEXIST"):
        renameat2("d/sub", "tree", NOREPLACE)

def new_files_leave_no_trace(t):
    for i in range(20):
        put("d/temp", "x")
        os.unlink("d/temp")
        os.mkdir("d/temp")
        os.rename("d/temp", "d/temp2")
        os.rmdir("d/temp2")

def everything_is_removed(t):
    os.chmod("modes/closed", 0o755)
    for name in names():
        shutil.rmtree(name) if os.path.isdir(name) and not os.path.islink(name) else os.unlink(name)
    same(names(), [])

def everything_is_removed_remounted(t):
    same(names(), [])
    os.mkdir("d")
    put("d/f", "new")

def everything_is_removed_remounted_remounted(t):
    same((names(), names("d")), (["d"], ["f"]))

def names_that_mean_whiteouts_elsewhere(t):
    for path in ("d/.wh.f", "d/.wh..wh..opq", ".wh.d", "d/.wh.sub"):
        put(path, "mine")
    os.mkdir("d/.wh.g")
    same(get("d/f"), b"A" * 10)
    same(names("d/sub"), ["deeper", "x"])
    os.rename("d/.wh.f", "d/.wh.new")
    same([name for name in names("d") if name.startswith(".wh.")], [".wh..wh..opq", ".wh.g", ".wh.new", ".wh.sub"])

def names_that_mean_whiteouts_elsewhere_remounted(t):
    same([name for name in names("d") if name.startswith(".wh.")], [".wh..wh..opq", ".wh.g", ".wh.new", ".wh.sub"])
    same((get("d/f"), get(".wh.d"), names("d/sub")), (b"A" * 10, b"mine", ["deeper", "x"]))
    os.unlink("d/.wh.new")
    os.rmdir("d/.wh.g")

def a_device_of_a_programs_own_hides_nothing(t):
    """A character device 0:0 is what overlays use to hide; made by a program it is a device."""
    os.mknod("d/zero", 0o020644, os.makedev(0, 0))
    os.unlink("d/g")
    os.mknod("d/g", 0o020600, os.makedev(0, 0))
    os.rename("d/zero", "d/zero2")
    for path in ("d/zero2", "d/g"):
        info = os.lstat(path)
        same((info.st_mode & 0o170000, info.st_rdev), (0o020000, 0), path)
        same(os.path.basename(path) in names("d"), True)

def a_device_of_a_programs_own_hides_nothing_remounted(t):
    for path in ("d/zero2", "d/g"):
        info = os.lstat(path)
        same((info.st_mode & 0o170000, info.st_rdev), (0o020000, 0), path)
        same(os.path.basename(path) in names("d"), True)
    os.link("d/g", "d/linked")
    same(os.lstat("d/linked").st_nlink, 2)

def marks_cannot_be_forged(t):
    """Attributes that hide or redirect where overlays keep them, set by a program."""
    os.mkdir("d/own")
    if not t.layerfs:
        return
    for name in ("overlay.opaque", "overlay.redirect", "overlay.whiteout", "overlay.metacopy", "overlay.layerfs.ino"):
        for space in ("user.", "trusted.") if t.root else ("user.",):
            for path in ("d", "d/sub", "d/f", "tree/one"):
                with contextlib.suppress(OSError):
                    os.setxattr(path, space + name, b"/tree" if "redirect" in name else b"y")
    with contextlib.suppress(OSError):
        os.setxattr("d/own", "user.overlay.redirect", b"/tree")
    with contextlib.suppress(OSError):
        os.setxattr("d/own", "user.fuseoverlayfs.opaque", b"y")
    same((names("d/sub"), names("tree/one"), names("d/own")), (["deeper", "x"], ["low", "mid", "two"], []))

def marks_cannot_be_forged_remounted(t):
    same((names("d/sub"), names("tree/one"), names("d/own")), (["deeper", "x"], ["low", "mid", "two"], []))
    os.rmdir("d/own")

if __name__ == "__main__":
    run(globals())
