"""The filesystems that are compared, and other ways to run a program on a tree.

A mount has a fresh writable layer. What is compared by starting programs on it needs no mount.
"""

import contextlib
import glob
import os
import shutil
import subprocess

from measuring import Failed

DISK, OVERLAY, USER_OVERLAY, LAYERFS = "disk", "overlayfs", "overlayfs (user)", "layerfs"


class Disk:
    """The unpacked tree itself. What changes the subject's own files would change it for all."""

    title, version = DISK, None
    enter = []

    def __init__(self, runner):
        self.runner, self.shown = runner, None

    @contextlib.contextmanager
    def mounted(self, subject):
        self.shown = f"{subject.place}/{subject.lowers[0]}"
        try:
            yield self.shown
        finally:
            self.runner.remove(f"{self.shown}/{subject.part}/bench")

    def as_root(self):
        return [] if self.runner.user.pw_uid == 0 else ["unshare", "-Ur"]


class Mounted:
    """A filesystem with a writable layer of its own for each mount."""

    version = None
    # What makes a command see the mount.
    enter = []

    def __init__(self, runner, title):
        self.runner, self.title = runner, title
        self.place = self.shown = self.upper = None

    @contextlib.contextmanager
    def mounted(self, subject):
        self.place = self.runner.fresh("mount")
        self.shown, self.upper = f"{self.place}/mnt", f"{self.place}/upper"
        for name in ("mnt", "upper", "work"):
            os.mkdir(f"{self.place}/{name}")
            shutil.chown(f"{self.place}/{name}", self.runner.user.pw_uid, self.runner.user.pw_gid)
        try:
            self.mount(subject)
            try:
                yield self.shown
            finally:
                self.unmount()
        finally:
            self.runner.remove(self.place)

    def unmount(self):
        subprocess.run(["umount", self.shown], check=True)

    def as_root(self):
        """What makes a command root in a namespace, which may change its root directory."""
        return [] if self.runner.user.pw_uid == 0 else ["unshare", "-Ur"]

    def options(self, subject):
        """Layers are named from where they are: all their paths would be more than the kernel takes."""
        lowers = ":".join(reversed(subject.lowers))
        return f"lowerdir={lowers},upperdir={self.upper},workdir={self.place}/work"

    def server(self):
        """The process that serves the mount."""
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if self.shown.encode() in file.read().split(b"\0"):
                    return int(path.split("/")[2])
        return None


class Overlay(Mounted):
    """overlayfs of the kernel, mounted by root."""

    def __init__(self, runner):
        super().__init__(runner, OVERLAY)

    def mount(self, subject):
        command = ["mount", "-t", "overlay", "-o", self.options(subject), "overlay", self.shown]
        subprocess.run(command, check=True, cwd=subject.place)

    def server(self):
        return None


class UserOverlay(Mounted):
    """overlayfs of the kernel, mounted by an ordinary user in namespaces, which a process keeps."""

    def __init__(self, runner):
        super().__init__(runner, USER_OVERLAY)
        self.keeper = None

    def mount(self, subject):
        script = 'cd "$1" && mount -t overlay -o "$2" overlay "$3" && echo mounted && exec cat >/dev/null'
        options = f"{self.options(subject)},userxattr"
        command = ["unshare", "-Urm", "sh", "-c", script, "sh", subject.place, options, self.shown]
        pipe = subprocess.PIPE
        self.keeper = self.runner.start(command, pipe, subprocess.STDOUT, {}, stdin=pipe)
        said = self.keeper.stdout.readline().decode().strip()
        if said != "mounted":
            self.unmount()
            raise Failed(f"the kernel refuses: {said}")
        self.enter = ["nsenter", "-t", str(self.keeper.pid), "-U", "-m", "--preserve-credentials"]

    def unmount(self):
        self.keeper.stdin.close()
        self.keeper.wait()
        self.keeper.stdout.close()

    def as_root(self):
        return self.enter

    def server(self):
        return None


class FuseOverlay(Mounted):
    """A fuse-overlayfs program."""

    def __init__(self, runner, program, version):
        super().__init__(runner, f"fuse-overlayfs {version.split('.')[0]}")
        self.version = f"fuse-overlayfs {version}"
        self.program = shutil.copy(program, f"{runner.work}/fuse-overlayfs-{version}")

    def mount(self, subject):
        self.runner.run(["env", "-C", subject.place, self.program, "-o", self.options(subject), self.shown])


class Layerfs(Mounted):
    """layerfs on the image as it is, with options of `layerfs mount -o`."""

    def __init__(self, runner, program, mode, options):
        super().__init__(runner, f"{LAYERFS} {mode}" if mode else LAYERFS)
        self.program, self.root = program, runner.fresh("store")
        self.flags = [word for option in options for word in ("-o", option)]

    def mount(self, subject):
        self.mount_at(subject, self.shown)
        self.upper = glob.glob(f"{self.root}/containers/*/upper")[0]

    def mount_at(self, subject, point):
        command = [self.program, "mount", "--quiet", "--rm", *self.flags, subject.image, point]
        self.runner.run(command, LAYERFS_ROOT=self.root)

    def unmount(self):
        self.unmount_at(self.shown)

    def unmount_at(self, point):
        self.runner.run([self.program, "umount", point], LAYERFS_ROOT=self.root)
