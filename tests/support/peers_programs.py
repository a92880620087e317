"""What real programs do, as they do it."""

import os
import shutil
import subprocess
import tempfile

from peers_cases import *


def sh(script, **environment):
    done = subprocess.run(["bash", "-ec", script], env={**os.environ, **environment}, capture_output=True, text=True)
    same(done.returncode, 0, done.stdout + done.stderr)
    return done.stdout


def files_without_a_name(t):
    """O_TMPFILE, or the error that makes programs fall back; tempfile is such a program."""
    try:
        file = os.open("d", O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as error:
        same(t.layerfs and error.errno == errno.EOPNOTSUPP, True, error)
    else:
        os.write(file, b"x")
        os.close(file)
    with tempfile.TemporaryFile(dir="d") as file:
        file.write(b"temporary")
        file.seek(0)
        same(file.read(), b"temporary")
        same(os.fstat(file.fileno()).st_nlink, 0)
    same([name for name in names("d") if "tmp" in name], [])
    # Only one of the two ways changed the directory.
    os.utime("d")


def written_beside_and_renamed(t):
    """As editors, dpkg and every careful program save."""
    for path in ("d/f", "apt/status", "lnk/a", "d/brand-new"):
        for step in range(3):
            fd, name = tempfile.mkstemp(dir=os.path.dirname(path))
            os.write(fd, b"step %d" % step)
            os.fsync(fd)
            os.close(fd)
            if os.path.exists(path):
                shutil.copystat(path, name)
            os.rename(name, path)
            dir = os.open(os.path.dirname(path), os.O_RDONLY)
            os.fsync(dir)
            os.close(dir)
            same(get(path), b"step %d" % step)
    same((get("lnk/b"), os.stat("lnk/b").st_nlink), (b"linked\n", 2))


def backups_by_link(t):
    """As dpkg keeps the old version: link, write the new one, rename over, unlink the link."""
    for path in ("bin/busybox", "apt/status", "lnk/sub/c"):
        before = get(path)
        os.link(path, path + ".dpkg-tmp")
        put(path + ".dpkg-new", "new")
        os.rename(path + ".dpkg-new", path)
        same((get(path), get(path + ".dpkg-tmp")), (b"new", before))
        os.rename(path + ".dpkg-tmp", path)
        same(get(path), before)
        os.link(path, path + ".dpkg-tmp")
        put(path + ".dpkg-new", "newer")
        os.rename(path + ".dpkg-new", path)
        os.unlink(path + ".dpkg-tmp")
        same(get(path), b"newer")


def a_git_repository(t):
    script = """
        export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
        git init -q -b main repo && cd repo
        git config user.email a@b.c && git config user.name n && git config commit.gpgsign false
        for i in $(seq 30); do mkdir -p dir$((i % 5)); echo $i >dir$((i % 5))/file$i; done
        git add . && git commit -qm one
        git checkout -qb side && git mv dir1 moved && git rm -qr dir2 && git commit -qm two
        git checkout -q main && test -e dir2/file2 && git merge -q side -m merge
        git gc -q --prune=now && git repack -qad && git fsck --strict
        git clone -q --no-hardlinks . ../clone && git clone -q . ../linked
        git stash list; git status --porcelain; git log --oneline | wc -l
    """
    same(sh(script).strip(), "2")
    for dir in ("repo", "clone", "linked", ".gitconfig"):
        shutil.rmtree(dir, ignore_errors=True)


def an_archive_is_unpacked_over_the_layers(t):
    # Only root removes what is in a directory that its owner may not write.
    modes = "modes" if os.geteuid() == 0 else ""
    sh(f"tar cf all.tar --exclude=all.tar d tree lnk {modes} many")
    sh("tar xpf all.tar && tar xpf all.tar --unlink-first --recursive-unlink && rm all.tar")
    same((os.stat("lnk/a").st_nlink, get("tree/one/two/low")), (3, b"low"))
    sh("cp -a d d2 && cp -a --reflink=auto big big2 && cmp big big2 && mv d2/* tree/ && rmdir d2 2>/dev/null || rm -r d2")


def removed_by_rm(t):
    sh("rm -rf d tree many deep lnk && mkdir d && rm -rf whole && ! test -e tree")
    same(names("d"), [])


def changed_in_place(t):
    sh("sed -i s/content/CONTENT/ d/g && test \"$(cat d/g)\" = 'g CONTENT'")
    sh("chmod -R u+rwX,go-w d tree && find d tree -type f -exec touch {} +")
    sh("dd if=/dev/zero of=big bs=1000 count=3 seek=100 conv=notrunc status=none; truncate -s 5M big; fallocate -p -o 0 -l 4096 big")
    sh("cp --sparse=always big big2; cmp big big2; mv big2 big; install -m 600 big d/installed; ln -f d/installed d/f")
    same(os.stat("d/f").st_size, 5 << 20)


def sockets_and_fifos(t):
    import socket
    server = socket.socket(socket.AF_UNIX)
    server.bind("d/socket")
    server.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect("d/socket")
    server.accept()[0].send(b"hello")
    same(client.recv(10), b"hello")
    os.rename("d/socket", "tree/socket")
    pid = child(lambda: put("fifo", "through the fifo"))
    same(get("fifo"), b"through the fifo")
    reap(pid)
    os.rename("fifo", "d/fifo")
    pid = child(lambda: put("d/fifo", "again"))
    same(get("d/fifo"), b"again")
    reap(pid)
    os.unlink("tree/socket")
    # A write through a fifo changes its mtime, but nothing tells a FUSE server.
    os.utime("d/fifo")


def owners_are_changed_for_all(t):
    if not t.root:
        raise Skip("root only")
    sh("chown -R 1234:4321 . && chown -h 5:6 sym && chmod -R g+s d")
    same([(os.lstat(path).st_uid, os.lstat(path).st_gid) for path in ("d/f", "deep/0/1", "sym", "fifo")],
         [(1234, 4321), (1234, 4321), (5, 6), (1234, 4321)])
    same(os.stat("lnk/b").st_nlink, 3)


def capabilities_of_files(t):
    if not t.root:
        raise Skip("root only")
    value = bytes.fromhex("0100000200000001000000000000000000000000")
    os.setxattr("bin/busybox", "security.capability", value)
    same(os.getxattr("bin/busybox", "security.capability"), value)
    os.chown("bin/busybox", 5, 5)
    same("security.capability" in os.listxattr("bin/busybox"), False)
    os.setxattr("d/f", "security.capability", value)
    with open("d/f", "a") as file:
        file.write("x")
    same("security.capability" in os.listxattr("d/f"), False)
    os.setxattr("d/g", "security.capability", value)


def capabilities_of_files_remounted(t):
    same(len(os.getxattr("d/g", "security.capability")), 20)


def acls_are_inherited(t):
    if not t.root:
        raise Skip("root only: other owners are not shown to ordinary users")
    sh("setfacl -m d:u:1234:rwx,d:g::r-x,d:o::- d; umask 077; touch d/new; mkdir d/newdir; "
       "getfacl -cp d/new d/newdir > acls")
    text = get("acls").decode()
    same(text.count("user:1234:rwx"), 3, text)
    same((mode("d/new"), mode("d/newdir")), (0o660, 0o770))
    os.unlink("acls")


if __name__ == "__main__":
    run(globals())
