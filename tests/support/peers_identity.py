"""Numbers and links: one object is one object, whatever happens to it."""

import os

from peers_cases import *


def everything_with_numbers():
    found = {}
    for dir, dirs, files in os.walk("."):
        for name in (".", *dirs, *files):
            path = os.path.normpath(os.path.join(dir, name))
            info = os.lstat(path)
            found[path] = (info.st_ino, info.st_dev)
    return found


def remember(case):
    numbers = everything_with_numbers()
    case.state["numbers"] = {path: number for path, (number, _) in numbers.items()}


def remembered(case):
    now = {path: number for path, (number, _) in everything_with_numbers().items()}
    wanted = case.state["numbers"]
    same({path: now.get(path) for path in wanted}, wanted)


def numbers_stay_through_copy_up_and_remounts(t):
    before = everything_with_numbers()
    same(len({dev for _, dev in before.values()}), 1, "devices")
    for path in ("d/f", "big", "lnk/a", "d/ro"):
        os.chmod(path, 0o600)
        with open(path, "a") as file:
            file.write("x")
    for dir in ("d", "tree/one", "deep/0/1/2/3", "."):
        put(dir + "/new", "new")
    os.utime("fifo")
    after = everything_with_numbers()
    same({path: after[path] for path in before}, before)
    remember(t)


def numbers_stay_through_copy_up_and_remounts_remounted(t):
    remembered(t)
    put("many/new", "")
    os.truncate("bin/busybox", 10)


def numbers_stay_through_copy_up_and_remounts_remounted_remounted(t):
    remembered(t)


def numbers_stay_through_renames(t):
    numbers = {path: ino(path) for path in ("d/f", "d/sub", "d/sub/deeper/y", "tree/one", "tree/one/two/top")}
    os.rename("d/f", "d/sub/f")
    os.rename("d/sub", "tree/sub")
    os.rename("tree/one", "one")
    renameat2("one", "tree/sub", EXCHANGE)
    same((ino("one/f"), ino("one"), ino("one/deeper/y"), ino("tree/sub"), ino("tree/sub/two/top")),
         tuple(numbers.values()))
    remember(t)


def numbers_stay_through_renames_remounted(t):
    remembered(t)


def a_listing_says_the_numbers_that_stat_says(t):
    put("d/new", "new")
    os.link("d/g", "d/another")
    os.rename("whole", "d/whole")
    with open("d/f", "a") as file:
        file.write("x")
    for dir in (".", "d", "lnk", "many", "tree/one/two", "d/whole", "wm"):
        with os.scandir(dir) as entries:
            for entry in entries:
                same(entry.inode(), os.lstat(entry.path).st_ino, entry.path)


def a_listing_says_the_numbers_that_stat_says_remounted(t):
    for dir in (".", "d", "lnk", "many", "tree/one/two", "d/whole", "wm"):
        with os.scandir(dir) as entries:
            for entry in entries:
                same(entry.inode(), os.lstat(entry.path).st_ino, entry.path)
                same(entry.is_dir(follow_symlinks=False), os.path.isdir(entry.path) and not os.path.islink(entry.path))


def links_are_counted_from_the_first_stat(t):
    same(os.lstat("lnk/sub/c").st_nlink, 3)
    same(os.lstat("lnk/a").st_nlink, 3)
    same(len({ino(path) for path in ("lnk/a", "lnk/b", "lnk/sub/c")}), 1)
    same(os.lstat("d/f").st_nlink, 1)


def links_stay_one_file(t):
    with open("lnk/b", "a") as file:
        file.write("more\n")
    for path in ("lnk/a", "lnk/b", "lnk/sub/c"):
        same((get(path), os.lstat(path).st_nlink), (b"linked\nmore\n", 3), path)
    os.rename("lnk/a", "d/a")
    os.unlink("lnk/b")
    os.link("lnk/sub/c", "d/c2")
    os.chmod("d/c2", 0o611)
    for path in ("d/a", "lnk/sub/c", "d/c2"):
        same((get(path), os.lstat(path).st_nlink, mode(path), ino(path)), (b"linked\nmore\n", 3, 0o611, ino("d/a")), path)


def links_stay_one_file_remounted(t):
    for path in ("d/a", "lnk/sub/c", "d/c2"):
        same((get(path), os.lstat(path).st_nlink, mode(path), ino(path)), (b"linked\nmore\n", 3, 0o611, ino("d/a")), path)
    os.unlink("lnk/sub/c")
    put("d/a", "changed")
    same((get("d/c2"), os.lstat("d/c2").st_nlink), (b"changed", 2))
    os.unlink("d/a")
    same((get("d/c2"), os.lstat("d/c2").st_nlink), (b"changed", 1))


def links_stay_one_file_remounted_remounted(t):
    same((get("d/c2"), os.lstat("d/c2").st_nlink), (b"changed", 1))


def links_move_onto_each_other(t):
    """rename(2) does nothing when both names lead to one file."""
    os.rename("lnk/a", "lnk/b")
    same((names("lnk"), os.lstat("lnk/a").st_nlink), (["a", "b", "sub"], 3))
    with open("lnk/a", "a") as file:
        file.write("x")
    os.rename("lnk/a", "lnk/b")
    same((names("lnk"), os.lstat("lnk/a").st_nlink), (["a", "b", "sub"], 3))


def a_linked_directory_moves_with_its_links(t):
    os.rename("lnk/sub", "d/moved")
    with open("d/moved/c", "a") as file:
        file.write("x")
    same((get("lnk/a"), os.lstat("lnk/a").st_nlink, ino("lnk/a")), (b"linked\nx", 3, ino("d/moved/c")))
    os.rename("lnk", "d/moved/lnk")
    same(get("d/moved/lnk/b"), b"linked\nx")


def a_linked_directory_moves_with_its_links_remounted(t):
    for path in ("d/moved/c", "d/moved/lnk/a", "d/moved/lnk/b"):
        same((get(path), os.lstat(path).st_nlink, ino(path)), (b"linked\nx", 3, ino("d/moved/c")), path)


def a_number_is_not_given_to_two(t):
    for i in range(200):
        put(f"many/again-{i}", "x")
        if i % 3 == 0:
            os.unlink(f"many/again-{i}")
    for i in range(0, 300, 2):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"many/low-{i:03}", f"many/moved-{i:03}")
    seen = {}
    for path, (number, _) in everything_with_numbers().items():
        if not path.startswith("lnk"):
            same(seen.setdefault(number, path), path, number)


if __name__ == "__main__":
    run(globals())
