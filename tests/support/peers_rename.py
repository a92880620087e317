"""Directories of layers are renamed as on any other filesystem."""

import os
import shutil
import time

from peers_cases import *


def remember(case):
    case.state["tree"] = tree()


def tree():
    found = []
    for dir, dirs, files in os.walk("."):
        found += [os.path.join(dir, name) for name in dirs + files]
    return sorted(found)


def remembered(case):
    same(tree(), case.state["tree"])


def a_directory_of_a_layer(t):
    os.rename("d", "renamed")
    same(names("renamed"), [".whole", "empty", "f", "g", "ro", "rootx", "sgid-lock", "sub", "suid"])
    same(os.path.exists("d"), False)
    same(get("renamed/sub/deeper/y"), b"y")
    remember(t)


def a_directory_of_a_layer_remounted(t):
    remembered(t)


def a_merged_directory(t):
    put("tree/one/new", "new")
    os.unlink("tree/one/low")
    put("tree/one/two/top", "changed")
    os.rename("tree/one", "wm/one")
    same((names("wm/one"), names("wm/one/two"), names("tree")), (["mid", "new", "two"], ["low", "top"], []))
    same(get("wm/one/two/top"), b"changed")
    remember(t)


def a_merged_directory_remounted(t):
    remembered(t)
    put("wm/one/mid", "changed after a remount")
    os.rename("wm/one", "tree/one")
    remember(t)


def a_merged_directory_remounted_remounted(t):
    remembered(t)
    same(get("tree/one/mid"), b"changed after a remount")


def there_and_back(t):
    """There and back, deeper and deeper, and the name filled anew each time."""
    for i in range(10):
        os.rename("tree", f"tree{i}")
        os.mkdir("tree")
        put(f"tree/{i}", str(i))
        os.rename("tree", f"tree{i}/inner{i}")
        os.rename(f"tree{i}", "tree")
    same(get("tree/one/low"), b"low")
    same((get("tree/inner9/9"), get("tree/inner0/0")), (b"9", b"0"))
    for i in range(5):
        os.rename("deep/0/1", "swing")
        os.rename("swing/2/3", "deep/0/1")
        same(os.path.exists("deep/0/1/4/5/6"), True)
        os.rename("deep/0/1", "swing/2/3")
        os.rename("swing", "deep/0/1")
    same(os.path.exists("deep/0/1/2/3/4/5/6"), True)
    remember(t)


def there_and_back_remounted(t):
    remembered(t)
    os.rename("tree", "deep/0/1/2/tree")
    os.rename("deep/0/1/2", "two")
    same((names("two"), get("two/tree/one/low")), (["3", "tree"], b"low"))
    remember(t)


def there_and_back_remounted_remounted(t):
    remembered(t)


def far_down(t):
    path = "deep/" + "/".join(str(i) for i in range(99))
    os.rename(path + "/99", "bottom")
    same(get("bottom/leaf"), b"leaf")
    os.rename("bottom", path + "/98x")
    os.rename("deep/0", "zero")
    same(get("zero/" + "/".join(str(i) for i in range(1, 99)) + "/98x/leaf"), b"leaf")
    remember(t)


def far_down_remounted(t):
    remembered(t)


def onto_empty_directories(t):
    os.rename("whole", "d/empty")
    same((names("d/empty"), os.path.exists("whole")), (["a", "b"], False))
    os.mkdir("made")
    os.rename("d/empty", "made")
    same(names("made"), ["a", "b"])
    remember(t)


def onto_empty_directories_remounted(t):
    remembered(t)


def onto_directories_that_were_emptied(t):
    """Only what hides their content is left in them."""
    shutil.rmtree("tree/one/two")
    os.mkdir("tree/one/two")
    for name in ("low", "mid"):
        os.unlink(f"tree/one/{name}")
    os.rmdir("tree/one/two")
    os.rename("whole", "tree/one")
    same(names("tree/one"), ["a", "b"])
    for name in names("wm/b"):
        os.unlink(f"wm/b/{name}")
    os.mkdir("made")
    put("made/inside", "x")
    os.rename("made", "wm/b")
    same(names("wm/b"), ["inside"])
    remember(t)


def onto_directories_that_were_emptied_remounted(t):
    remembered(t)
    for name in ("a", "b"):
        os.unlink(f"tree/one/{name}")
    os.rename("d", "tree/one")
    same(get("tree/one/sub/x"), b"x")
    remember(t)


def onto_directories_that_were_emptied_remounted_remounted(t):
    remembered(t)


def what_is_refused(t):
    for flags in (0, NOREPLACE):
        with fails("EINVAL"):
            renameat2("tree", "tree/one/inside", flags)
    with fails("ENOTEMPTY", "EEXIST"):
        os.rename("d", "tree")
    with fails("ENOTDIR"):
        os.rename("d", "big")
    with fails("EISDIR"):
        os.rename("big", "d")
    with fails("EEXIST"):
        renameat2("d", "whole", NOREPLACE)
    with fails("ENOENT"):
        renameat2("d", "nothing", EXCHANGE)
    with fails("EINVAL"):
        renameat2("d", "tree", EXCHANGE | NOREPLACE)
    with fails("EINVAL"):
        renameat2("d", "tree", 8)
    with fails("EINVAL"):
        renameat2("d", "d/sub", EXCHANGE)


def exchange_of_all_kinds(t):
    pairs = (("d", "tree"), ("d/one", "whole"), ("big", "sym"), ("lnk", "fifo"), ("wm", "apt/status"))
    for left, right in pairs:
        before = ino(left), ino(right)
        renameat2(left, right, EXCHANGE)
        same((ino(right), ino(left)), before, (left, right))
    same((names("tree/sub"), names("whole/two"), os.readlink("big")), (["deeper", "x"], ["low", "top"], "d/f"))
    os.mkdir("made")
    renameat2("made", "tree/sub", EXCHANGE)
    same((names("made"), names("tree/sub")), (["deeper", "x"], []))
    remember(t)


def exchange_of_all_kinds_remounted(t):
    remembered(t)
    renameat2("tree", "d", EXCHANGE)
    same(names("d/sub"), [])
    remember(t)


def exchange_of_all_kinds_remounted_remounted(t):
    remembered(t)


def with_files_open_inside(t):
    reader, writer = os.open("tree/one/mid", os.O_RDONLY), os.open("tree/one/two/low", os.O_RDWR)
    os.rename("tree/one", "elsewhere")
    os.rename("elsewhere/two", "two")
    os.pwrite(writer, b"written", 0)
    same(get("two/low"), b"written")
    with open("elsewhere/mid", "a") as file:
        file.write(" more")
    same(os.pread(reader, 100, 0), b"mid more")
    renameat2("two", "elsewhere", EXCHANGE)
    os.pwrite(writer, b"AGAIN", 0)
    same(get("elsewhere/low"), b"AGAINen")
    os.chdir("elsewhere")
    os.rename("../elsewhere", "../d/elsewhere")
    same(names("."), ["low", "top"])
    same(names(".."), names("../../d"))
    os.chdir("../..")
    remember(t)


def with_files_open_inside_remounted(t):
    remembered(t)


def nothing_is_copied(t):
    """A directory with much below it moves at once, and takes no space."""
    before = os.statvfs(".").f_bfree
    start = time.monotonic()
    for i in range(50):
        os.rename("bin", "bin2")
        os.rename("db", "bin2/db")
        os.rename("bin2/db", "db")
        os.rename("bin2", "bin")
    same(time.monotonic() - start < 20, True, "time")
    os.rename("bin", "moved")
    if t.layerfs:
        same(os.lstat("moved/busybox").st_mtime_ns, 1_500_000_000 * 10**9)


def over_what_is_open(t):
    """A directory that is replaced while it is open, and one whose parent goes as well."""
    empty = os.open("d/empty", os.O_RDONLY | os.O_DIRECTORY)
    os.rename("whole", "d/empty")
    same((os.listdir(empty), os.fstat(empty).st_nlink), ([], 0))
    same(names("d/empty"), ["a", "b"])
    with fails("ENOENT"):
        os.mkdir("new", dir_fd=empty)


def mixed_with_removal_and_creation(t):
    """What apt, rustup and conda do with directories of layers."""
    os.rename("apt/lists", "apt/lists.old")
    os.makedirs("apt/lists/partial")
    put("apt/lists/index", "new index")
    same((get("apt/lists.old/index"), get("apt/lists/index")), (b"old index", b"new index"))
    shutil.rmtree("apt/lists.old")
    os.rename("tree/one", "tree/one.trash")
    os.rename("tree/one.trash", ".trash")
    os.mkdir("tree/one")
    same(names("tree/one"), [])
    os.rename(".trash", "tree/one/back")
    same(names("tree/one/back"), ["low", "mid", "two"])
    remember(t)


def mixed_with_removal_and_creation_remounted(t):
    remembered(t)
    shutil.rmtree("tree/one")
    same(names("tree"), [])
    os.mkdir("tree/one")
    remember(t)


def mixed_with_removal_and_creation_remounted_remounted(t):
    remembered(t)


def a_name_left_behind_is_free(t):
    os.rename("d", "other")
    put("d", "a file")
    os.rename("tree", "d2")
    os.symlink("d2", "tree")
    same((get("d"), names("tree/")), (b"a file", ["one"]))
    os.unlink("d")
    os.mkdir("d")
    same(names("d"), [])
    os.rename("other/f", "d/f")
    os.rename("other", "d/other")
    remember(t)


def a_name_left_behind_is_free_remounted(t):
    remembered(t)
    os.rename("d/other", "d/others")
    same(get("d/others/sub/x"), b"x")
    remember(t)


def a_name_left_behind_is_free_remounted_remounted(t):
    remembered(t)


def sticky_directories(t):
    def tries():
        for action in (lambda: os.rename("modes/sticky/file", "modes/open/file2"), lambda: os.unlink("modes/sticky/file"),
                       lambda: os.rename("modes/open/file", "modes/sticky/file")):
            with fails("EPERM"):
                action()
        put("modes/sticky/own", "own")
        os.rename("modes/sticky/own", "modes/open/own")
    as_user(tries)


if __name__ == "__main__":
    run(globals())
