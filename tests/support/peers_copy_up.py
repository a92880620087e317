"""Copy-up: what a first change may do to an object of a layer, and what it may not."""

import mmap
import os
import random
import sqlite3
import hashlib


from peers_cases import *


def a_write_beside_a_read_only_descriptor(t):
    reader = os.open("d/f", os.O_RDONLY)
    same(os.read(reader, 10), b"A" * 10)
    shared = mmap.mmap(reader, 10, mmap.MAP_SHARED, mmap.PROT_READ)
    same(shared[:], b"A" * 10)
    writer = os.open("d/f", os.O_RDWR)
    os.pwrite(writer, b"ZZZ", 0)
    same(os.pread(reader, 10, 0), b"ZZZAAAAAAA", "the descriptor")
    same(shared[:], b"ZZZAAAAAAA", "the mapping")
    same(get("d/f"), b"ZZZAAAAAAA")


def a_shared_mapping_writes_to_the_copy(t):
    reader = os.open("d/f", os.O_RDONLY)
    writer = os.open("d/f", os.O_RDWR)
    shared = mmap.mmap(writer, 10, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    private = mmap.mmap(writer, 10, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    private[0:1] = b"P"
    shared[3:6] = b"MMM"
    shared.flush()
    same(os.pread(reader, 10, 0), b"AAAMMMAAAA")
    same(private[:1], b"P")
    same(get("d/f"), b"AAAMMMAAAA")


def the_callers_umask(t):
    for mask, file_mode, dir_mode in ((0o077, 0o600, 0o700), (0, 0o666, 0o777), (0o027, 0o640, 0o750)):
        os.umask(mask)
        name = f"d/sub/{mask:o}"
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.mkdir(name + "d", 0o777)
        os.mkfifo(name + "p", 0o666)
        same((mode(name), mode(name + "d"), mode(name + "p")), (file_mode, dir_mode, file_mode))


def directories_keep_their_modes(t):
    before = {name: mode(f"modes/{name}") for name in names("modes")}
    for name in before:
        if name != "closed" or t.root:
            put(f"modes/{name}/new", "new")
    same({name: mode(f"modes/{name}") for name in names("modes")}, before)
    same(before, {"private": 0o700, "sticky": 0o1777, "setgid": 0o2775, "closed": 0o555, "open": 0o777})


def directories_keep_their_modes_remounted(t):
    same({name: mode(f"modes/{name}") for name in names("modes")},
         {"private": 0o700, "sticky": 0o1777, "setgid": 0o2775, "closed": 0o555, "open": 0o777})


def a_change_inside_keeps_times_above(t):
    before = [os.stat(dir).st_mtime_ns for dir in ("tree", "tree/one", "tree/one/two")]
    with open("tree/one/two/low", "a") as file:
        file.write("more")
    os.chmod("tree/one/mid", 0o600)
    same([os.stat(dir).st_mtime_ns for dir in ("tree", "tree/one", "tree/one/two")], before)


def times_of_all_kinds_are_kept(t):
    for path in ("sym", "fifo", "lnk/a", "d/g"):
        before = os.lstat(path).st_mtime_ns
        os.rename(path, path + ".moved")
        same(os.lstat(path + ".moved").st_mtime_ns, before, path)
        os.rename(path + ".moved", path)
        os.utime(path, ns=(1, 2_000_000_000_000_000_005), follow_symlinks=False)
        same(os.lstat(path).st_mtime_ns, 2_000_000_000_000_000_005, path)


def setuid_does_not_survive_a_strangers_write(t):
    def changes():
        os.umask(0)
        file = os.open("d/suid", os.O_WRONLY)
        os.write(file, b"x")
        same(os.fstat(file).st_mode & 0o7777, 0o777, "written")
    os.chmod("d/suid", 0o6777)
    as_user(changes)
    same(mode("d/suid"), 0o777)


def setuid_does_not_survive_a_strangers_truncate(t):
    def changes():
        os.truncate("d/suid", 2)
        same(mode("d/suid"), 0o777)
    as_user(changes)
    os.chmod("d/suid", 0o6777)
    as_user(lambda: os.close(os.open("d/suid", os.O_WRONLY | os.O_TRUNC)))
    same(mode("d/suid"), 0o777)


def setuid_survives_the_writes_of_root(t):
    if not t.root:
        raise Skip("root only")
    with open("d/suid", "r+") as file:
        file.write("x")
    same(mode("d/suid"), 0o6777)
    os.truncate("d/suid", 1)
    same(mode("d/suid"), 0o6777)


def setgid_that_never_meant_execution_survives(t):
    """For those in its group; whether for others too is not the same everywhere."""
    if not t.root:
        raise Skip("root only")
    os.chown("d/sgid-lock", -1, 1234)
    os.chmod("d/sgid-lock", 0o2666)
    as_user(lambda: put("d/sgid-lock", "x"))
    same(mode("d/sgid-lock"), 0o2666)


def truncating_on_open(t):
    for path, content in (("d/f", b""), ("big", b""), ("d/g", b"new and longer than before\n")):
        with open(path, "wb") as file:
            same(os.fstat(file.fileno()).st_size, 0)
            file.write(content)
        same(get(path), content)


def shorter_content_leaves_nothing_behind(t):
    for size in (1, 4095, 4096, 4097, 131072, 2_999_999):
        put("rewritten", os.urandom(3_000_000))
        content = bytes([size % 251]) * size
        put("rewritten", content)
        same(get("rewritten"), content, size)
    content = b"short"
    put("big", content)
    same(get("big"), content)
    os.truncate("big", 9000)
    same(get("big"), content + bytes(8995))


def truncating_to_every_side_of_a_page(t):
    original = get("big")
    for size in (2_999_999, 1_048_577, 1_048_576, 131_073, 8191, 1):
        os.truncate("big", size)
        same(get("big"), original[:size], size)
    os.truncate("big", 10_000)
    same(get("big"), original[:1] + bytes(9999))


def opening_for_writing_changes_nothing(t):
    before = os.stat("big")
    os.close(os.open("big", os.O_RDWR))
    after = os.stat("big")
    same((after.st_mtime_ns, after.st_ctime_ns, after.st_blocks, after.st_ino),
         (before.st_mtime_ns, before.st_ctime_ns, before.st_blocks, before.st_ino))


def a_write_that_is_not_permitted_copies_nothing(t):
    before = os.stat("d/ro")
    def tries():
        with fails("EACCES"):
            os.open("d/ro", os.O_RDWR)
        with fails("EPERM"):
            os.chmod("d/ro", 0o777)
        with fails("EACCES"):
            os.unlink("d/ro")
    as_user(tries)
    same(os.stat("d/ro").st_ctime_ns, before.st_ctime_ns)


def everything_at_once_on_one_file(t):
    """Seeded reads, writes, mappings, truncates, copies within the file: kept beside in memory."""
    chance, content = random.Random(SEED), bytearray(get("big"))
    file = os.open("big", os.O_RDWR)
    reader = os.open("big", os.O_RDONLY)
    for step in range(400):
        at, length = chance.randrange(len(content) + 5000), chance.randrange(1, 70_000)
        what = chance.randrange(8)
        if what < 3:
            fresh = chance.randbytes(length)
            os.pwrite(file, fresh, at)
            content.extend(bytes(max(0, at - len(content))))
            content[at:at + length] = fresh
        elif what == 3:
            os.ftruncate(file, at)
            content[at:] = b""
            content.extend(bytes(at - len(content)))
        elif what == 4 and at < len(content):
            with mmap.mmap(file, len(content)) as shared:
                part = chance.randbytes(min(length, len(content) - at))
                shared[at:at + len(part)] = part
                content[at:at + len(part)] = part
        elif what == 5 and at < len(content):
            target = chance.randrange(len(content))
            length = min(length, abs(target - at), len(content) - at)
            if length:
                done = 0
                while done < length:
                    done += os.copy_file_range(file, file, length - done, at + done, target + done)
                content.extend(bytes(max(0, target + length - len(content))))
                content[target:target + length] = content[at:at + length]
        elif what == 6:
            part = os.open("big", os.O_WRONLY | os.O_APPEND)
            os.write(part, b"appended")
            os.close(part)
            content += b"appended"
        else:
            same(os.pread(reader, length, at), bytes(content[at:at + length]), step)
            same(os.fstat(reader).st_size, len(content), step)
    os.fsync(file)
    same(get("big"), bytes(content))
    t.state["sha256"] = hashlib.sha256(content).hexdigest()


def everything_at_once_on_one_file_remounted(t):
    same(hashlib.sha256(get("big")).hexdigest(), t.state["sha256"])


def a_database_of_a_layer(t):
    for journal in ("delete", "truncate", "persist", "wal"):
        db = sqlite3.connect("db/app.db")
        same(db.execute(f"pragma journal_mode={journal}").fetchone()[0], journal)
        for i in range(3):
            with db:
                db.execute("update rows set text = text || ? where id % 7 = ?", (journal, i))
                db.execute("delete from rows where id % 101 = ?", (i,))
        db.execute("vacuum")
        same(db.execute("pragma integrity_check").fetchone()[0], "ok")
        db.close()
    db = sqlite3.connect("db/app.db")
    same(db.execute("pragma journal_mode=delete").fetchone()[0], "delete")
    t.state["rows"] = db.execute("select count(*), sum(length(text)) from rows").fetchone()


def a_database_of_a_layer_remounted(t):
    db = sqlite3.connect("db/app.db")
    same(db.execute("pragma integrity_check").fetchone()[0], "ok")
    same(list(db.execute("select count(*), sum(length(text)) from rows").fetchone()), t.state["rows"])


def copies_of_layers_files_by_the_kernel(t):
    """copy_file_range between files of layers, deleted files and read-only descriptors."""
    original = get("big")
    source, target = os.open("big", os.O_RDONLY), os.open("d/copy", os.O_RDWR | os.O_CREAT)
    done = 0
    while step := os.copy_file_range(source, target, 1 << 20, done, done):
        done += step
    same(get("d/copy"), original)
    os.unlink("d/copy")
    os.unlink("big")
    other = os.open("d/other", os.O_RDWR | os.O_CREAT)
    same(os.copy_file_range(target, other, 1000, 500_000, 0), 1000)
    same(os.pread(other, 2000, 0), original[500_000:501_000])
    same(os.copy_file_range(source, other, 1000, 0, 1000), 1000)
    same(os.pread(other, 2000, 0), original[500_000:501_000] + original[:1000])
    os.sendfile(other, source, 0, 100)


def a_here_document(t):
    import subprocess
    script = "cat <<EOF >d/out\n" + "line\n" * 50_000 + "EOF\nwc -c <d/out; cp d/out d/out2; cmp d/out d/out2"
    done = subprocess.run(["bash"], input=script, env={**os.environ, "TMPDIR": "d"}, capture_output=True, text=True)
    same(done.stdout.strip(), "250000")


def two_writers_of_different_files_at_once(t):
    def writes(path):
        with open(path, "r+b") as file:
            for i in range(50):
                file.seek(i * 1000)
                file.write(path.encode() * 10)
    pids = [child(lambda path=path: writes(path)) for path in ("big", "d/f", "db/app.db", "apt/status", "bin/busybox")]
    reap(*pids)
    for path in ("big", "d/f", "db/app.db", "apt/status", "bin/busybox"):
        same(get(path)[49_000:49_000 + len(path) * 10], path.encode() * 10)


def two_first_writers_of_one_file(t):
    def writes(which):
        file = os.open("big", os.O_WRONLY)
        for i in range(which, 100, 4):
            os.pwrite(file, b"%d" % which * 1000, i * 1000)
    original = get("big")
    reap(*(child(lambda which=which: writes(which)) for which in range(4)))
    wanted = b"".join(b"%d" % (i % 4) * 1000 for i in range(100)) + original[100_000:]
    same(get("big"), wanted)


if __name__ == "__main__":
    run(globals())
